"""The studies of the twin refuse what they could not tell at their end, hours later."""

from types import SimpleNamespace

import numpy as np
import pytest

from understudy.eval.ledger.study import read_study
from understudy.eval.studies import _steps, twin_lag, twin_tracking
from understudy.eval.studies._kept import Kept
from understudy.eval.studies._steps import Step
from understudy.eval.studies.twin_agreement import TwinAgreement
from understudy.eval.studies.twin_lag import TwinLag, measure, notes_of, rows_of
from understudy.eval.studies.twin_tracking import COLUMNS, Track, TwinTracking, row


def test_an_outcome_that_is_none_is_refused_at_once():
    with pytest.raises(LookupError, match="progress, success"):
        TwinAgreement(by="return")


def test_a_block_that_nobody_moved_has_a_row():
    """Errors of 0 have no ratio."""
    still = [Track(np.zeros(3), np.zeros(3), 0.0, np.zeros(1))] * 2
    cells = dict(zip(COLUMNS, row(None, still, still), strict=True))
    assert cells["times nearer than open loop"] is None and cells["translation, cm"].estimate == 0


def test_a_step_is_done_once_and_an_interrupted_one_is_gone_on_with(tmp_path, monkeypatch):
    done, begun, said = tmp_path / "done", tmp_path / "record", []

    def command(words):
        said.append(words)
        begun.mkdir(exist_ok=True)
        if len(said) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_steps, "command", command)
    step = Step(["eval", "--out", "record"], begun, ["eval", "--resume", "record"])
    with pytest.raises(KeyboardInterrupt):
        step.do(done)
    step.do(done)
    step.do(done)
    assert said == [["eval", "--out", "record"], ["eval", "--resume", "record"]]


def test_what_other_settings_began_is_not_taken_for_this_study(tmp_path, monkeypatch):
    """`train --resume` knows its own settings alone: the old run would have stood for the new one."""
    done, run, said = tmp_path / "done", tmp_path / "run", []

    def command(words):
        said.append(words)
        run.mkdir(exist_ok=True)

    monkeypatch.setattr(_steps, "command", command)
    first, second = (Step(["train", "--episodes", which], run, ["train", "--resume", "run"]) for which in ("5", "9"))
    first.do(done)
    with pytest.raises(ValueError, match=r"(?s)run was made by other settings.*--episodes 5.*--episodes 9"):
        second.do(done)
    run.rmdir()
    second.do(done)
    with pytest.raises(ValueError, match="other settings"):  # what it once ended with is not there any more
        first.do(done)
    second.do(done)
    assert said == [first.words, second.words]


def test_tracks_are_kept_as_they_are():
    track = Track(np.array([0.1, 1 / 3]), np.array([0.2, 0.4]), 0.05, np.array([0.01]))
    again = Track.of(track.plain())
    assert all(np.array_equal(getattr(track, name), getattr(again, name)) for name in vars(track))


def test_starts_that_a_default_was_chosen_on_do_not_confirm_it(tmp_path):
    for first in (1000, 1015, 1029):
        with pytest.raises(ValueError, match="they cannot confirm it"):
            TwinLag(first=first, out=tmp_path / "lag.json")
    TwinLag(first=1030, out=tmp_path / "lag.json")


def test_the_lag_is_judged_by_pairs(tmp_path):
    """Of four starts the second way keeps one more, and turns the block by 1 degree less on average."""
    off = np.array([[[0.1, 2], [0.1, 4], [0.1, 7], [2.0, 3]], [[0.1, 1], [0.1, 3], [0.1, 4], [2.0, 4]]], float)
    first, second, difference = rows_of(TwinLag(starts=4, out=tmp_path / "lag.json"), off)
    assert (first[2].estimate, second[2].estimate, difference[2].estimate) == (0.5, 0.75, 0.25)
    assert (
        first[1] == 4 and difference[4].estimate == pytest.approx(-1.0) and difference[4].low < -1 < difference[4].high
    )
    assert "p 1.000" in difference[0] and difference[3].estimate == 0


def test_the_lag_is_measured_as_it_was_whatever_the_loop_does_now(tmp_path, monkeypatch):
    """The records were made where nothing led; the same command led by what became the loop's default since."""
    acted = []

    def act(world, start, settings):
        acted.append((world.loop.trim, world.loop.lead, world.loop.lagged))
        return [0.0, 0.0]

    monkeypatch.setattr(twin_lag, "act", act)
    monkeypatch.setattr(twin_lag, "build", lambda settings: SimpleNamespace(save=lambda folder: folder))
    settings = TwinLag(starts=2, out=tmp_path / "lag.json")
    measure(settings, Kept(settings.out, settings))
    assert acted == [(1.0, 0.0, False)] * 2 + [(1.0, 0.0, True)] * 2
    assert "loop.lead 0;" in notes_of(settings)[1]


@pytest.mark.slow
def test_the_lag_is_measured_and_gone_on_with(tmp_path):
    settings = TwinLag(starts=2, seconds=0.2, size=48, out=tmp_path / "lag.json")
    off = measure(settings, Kept(settings.out, settings))
    assert off.shape == (2, 2, 2) and np.isfinite(off).all()
    assert (measure(settings, Kept(settings.out, settings)) == off).all()
    settings.run()
    assert len(read_study(settings.out).rows) == 3


@pytest.mark.slow
def test_tracking_goes_on_after_an_interruption_and_writes_a_study(tmp_path, monkeypatch):
    out, follow, count = tmp_path / "tracking.json", twin_tracking.follow, []

    def interrupted(*given):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return follow(*given)

    monkeypatch.setattr(twin_tracking, "follow", interrupted)
    settings = TwinTracking(seeds=2, seconds=1, gaussians=60, iterations=(1,), kps=(4.0,), out=out)
    with pytest.raises(KeyboardInterrupt, match="2 parts are kept"):
        settings.run()
    settings.run()
    ways = 1 + 4 + 1 + 1
    assert len(count) == 1 + 2 * ways  # none of the finished ones again
    study = read_study(out)
    assert len(study.rows) == ways and study.columns == COLUMNS and "--seeds 2" in study.command
