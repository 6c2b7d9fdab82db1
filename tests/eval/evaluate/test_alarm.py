"""From a monitored record to an alarm, and to an evaluation that says when it was raised."""

import dataclasses
import json
import math

import numpy as np
import pytest

from understudy.configs.documents import sealed
from understudy.configs.parse import parse
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.evaluate.calibrate import Calibrate, calibrate, detections
from understudy.eval.evaluate.detections import Detection, recorded, tally
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.eval.evaluate.report import render
from understudy.eval.ledger.origin import repeat_command
from understudy.eval.ledger.record import RecordWriter, read_record
from understudy.eval.ledger.table import COLUMNS, tables_equal
from understudy.eval.studies.alarm import so_many, study
from understudy.policies.agent.alarm import AlarmError, load_alarm
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

WORLD = {"type": "point", "horizon": 30}
ALL_FORGETFUL = "spread, drift, slack 0.5"
STEPS, EXECUTE = 20, 4


def episode(start, won, loud=0.0, replans=5):
    """A row whose spread is `loud` standard deviations above that of others from the middle on."""
    rng = np.random.default_rng([start, 3])
    spread = np.exp(-3 + 0.2 * rng.normal(size=replans) + 0.2 * loud * (np.arange(replans) >= 2))
    drift = [None, *np.exp(-4 + 0.3 * rng.normal(size=replans - 1)).tolist()]
    return {
        "initial_conditions": "point", "env_seed": start, "policy_seed": 0, "task": "point", "success": won,
        "first_success": STEPS if won else -1, "best_progress": 0.5, "final_progress": 0.5, "return": 1.5,
        "length": EXECUTE * replans, "progress": [0.5] * EXECUTE * replans, "terminated": won, "truncated": not won,
        "wall_physics": 0.3, "wall_render": 0.1, "wall_policy": 0.6, "attempt": 0, "worker": 1, "video": "",
        "error": "", "labels": "{}", "signal_recall": [None] * replans, "signal_spread": spread.tolist(),
        "signal_drift": drift,
    }  # fmt: skip


def write(folder, rows, **agent):
    first = min(row["env_seed"] for row in rows)
    manifest = {
        "policy": {"path": "runs/p", "fingerprint": "abc"},
        "starts": {"set": "point", "first": first, "count": len(rows)},
        "agent": {"monitor": 4, "n_action_steps": EXECUTE, "candidates": 1, "policy_seed": 0} | agent,
        "world": {"type": "point", "horizon": 30, "config": WORLD},
    }  # fmt: skip
    with RecordWriter(folder, manifest) as writer:
        for row in rows:
            writer.add(row)
        return writer.close(complete=True)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """90 successes, and 10 failures whose action chunks disagree."""
    rows = [episode(start, won=start % 10 != 5, loud=30 * (start % 10 == 5)) for start in range(100)]
    rows[5]["error"] = "broke"
    return write(tmp_path_factory.mktemp("calm") / "record", rows)


def test_calibration_uses_successes_and_finds_loud_failures(calm):
    alarm = calibrate(calm, 0.05, ("recall", "spread", "drift"), 0.5)
    assert (alarm.n, alarm.fit, alarm.policy, alarm.candidates) == (60, 30, "abc", 4)
    assert list(alarm.signals) == ["spread", "drift"], "the policy has no recall error"
    assert alarm.world == {"type": "point", "horizon": 30} and alarm.clock == 20 and alarm.starts == "0..99"
    found = tally(detections(calm, alarm), alarm.clock)
    assert (found.failures, found.detected, found.successes) == (9, 9, 90)
    assert found.false <= 3 + 30, "3 of the 60 that set the threshold, and what the others do"
    assert found.lead == 12 and found.by_clock == 0 and found.earlier == 9


def test_the_threshold_leaves_the_stated_share_of_what_set_it(calm):
    for alpha in (0.05, 0.1, 0.3):
        alarm = calibrate(calm, alpha, ("spread", "drift"), 0.5)
        held = [one for i, one in enumerate(one for one in detections(calm, alarm) if one.success) if i % 3]
        assert sum(one.raised >= 0 for one in held) == 60 - math.ceil(61 * (1 - alpha) - 1e-9)


def test_what_cannot_be_calibrated_is_refused(calm, tmp_path):
    with pytest.raises(AlarmError, match="alpha 0.01 needs 99 successful episodes .* there are 60"):
        calibrate(calm, 0.01, ("spread",), 0.5)
    with pytest.raises(LookupError, match="Did you mean 'spread'"):
        calibrate(calm, 0.05, ("spraed",), 0.5)
    with pytest.raises(AlarmError, match="none of the signals recall tells"):
        calibrate(calm, 0.05, ("recall",), 0.5)
    late = write(tmp_path / "late", [episode(start, True) for start in range(990, 1020)])
    with pytest.raises(ValueError, match="env seeds up to 1019; calibrate on 0-999"):
        calibrate(late, 0.1, ("spread",), 0.5)
    plain = [{name: row[name] for name in COLUMNS} for row in (episode(0, True), episode(1, True))]
    with pytest.raises(ValueError, match="no signals; evaluate with --monitor"):
        calibrate(write(tmp_path / "plain", plain), 0.1, ("spread",), 0.5)


def test_an_alarm_and_a_clock_are_counted():
    rung = [
        Detection(True, 50, -1),
        Detection(True, 40, 8),
        Detection(False, 200, 32),
        Detection(False, 200, 120),
        Detection(False, 60, 16),
    ]
    found = tally([*rung, Detection(False, 200, -1)], clock=100)
    assert (found.failures, found.detected, found.successes, found.false) == (4, 3, 2, 1)
    assert found.lead == 80 and found.by_clock == 3 and found.earlier == 2
    assert "on 3 of 4 failures (0.750" in found.text() and "1 of 2 successes" in found.text()
    nothing = tally([])
    assert nothing.detection is None and nothing.false_alarms is None and nothing.text() == ""


def test_the_study_sets_the_alarm_beside_a_clock(calm, tmp_path):
    fresh = write(tmp_path / "fresh", [episode(s, s % 4 > 0, loud=30 * (s % 4 == 0)) for s in range(1000, 1080)])
    found = study({"a": (str(calm.root), str(fresh.root))})
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert [row["signals"] for row in rows] == ["a clock: 20 steps", "spread, drift", "spread", "drift", ALL_FORGETFUL]
    clock, both, spread, drift, _ = rows
    assert clock["detected"][1] == 0 and both["detected"][1] == spread["detected"][1] == 1 > drift["detected"][1]
    assert both["failures"] == 20 == both["before the clock"] and both["steps before the end"] == 12
    assert all(0.025 < row["over splits"] <= 0.05 for row in rows[1:])
    assert f"{fresh.root}" in found.command and "--monitor 4" in found.command and "--env_seed 1000" in found.command


def test_the_chance_of_so_many_false_alarms_is_that_of_ranks():
    rng, n, fresh, alpha = np.random.default_rng(0), 39, 30, 0.1
    values = rng.random((20_000, n + fresh))
    threshold = np.sort(values[:, :n], 1)[:, math.ceil((n + 1) * (1 - alpha)) - 1]
    raised = (values[:, n:] > threshold[:, None]).sum(1)
    for count in (1, 4, 9):
        assert so_many(count, fresh, n, alpha) == pytest.approx((raised >= count).mean(), abs=0.012)


def test_records_with_and_without_the_columns_are_read(calm, tmp_path):
    record = read_record(calm.root)
    assert tables_equal(record.table, calm.table) and record.column("signal_drift")[0][0] is None
    assert record.table.column_names == [*COLUMNS, "signal_recall", "signal_spread", "signal_drift"]
    plain = write(tmp_path / "plain", [{name: episode(0, True)[name] for name in COLUMNS}])
    assert read_record(plain.root).table.column_names == list(COLUMNS)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with an untrained policy that recalls 2 actions."""
    import torch

    torch.manual_seed(0)
    embodiment = read_world("point").embodiment()
    config = DiffusionConfig(
        window=Window(observe=(-1, 0), recall=(-2, -1), horizon=8), inputs=(STATE, SCENE), n_action_steps=EXECUTE,
        network=MLPConfig(width=16, depth=1, condition_width=8),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "untrained" / "checkpoints" / "00000040"
    folder.parent.mkdir(parents=True)
    save_checkpoint(folder, config.build(embodiment, blank_scales(embodiment)), kind="policy", config=config)
    return folder


def settings(run_folder, folder, **changes):
    values = {"policy": str(run_folder), "world": WORLD, "episodes": 10, "env_seed": 0, "out": str(folder), "videos": 0}
    return Eval(**values | changes)


@pytest.fixture(scope="module")
def alarm_file(run_folder, tmp_path_factory):
    """An alarm for this policy, raised where the spread is above its median, whatever became of the episode."""
    folder = tmp_path_factory.mktemp("alarm")
    record = evaluate(settings(run_folder, folder / "record", monitor=4))
    won = [row | {"success": True, "first_success": row["length"]} for row in record.table.to_pylist()]
    with RecordWriter(folder / "calm", record.manifest) as writer:
        for row in won:
            writer.add(row)
        calm = writer.close(complete=True)
    assert calm.column("signal_recall")[0][0] is None and min(calm.column("signal_recall")[0][1:]) > 0
    Calibrate(record=str(calm.root), out=str(folder / "alarm.json"), alpha=0.5).run()
    return folder / "alarm.json"


def test_watching_and_an_alarm_change_no_episode(run_folder, alarm_file, tmp_path):
    plain = evaluate(settings(run_folder, tmp_path / "plain", env_seed=1000))
    monitored = evaluate(settings(run_folder, tmp_path / "watched", env_seed=1000, alarm=str(alarm_file)))
    assert tables_equal(monitored.table.select(list(COLUMNS)), plain.table)
    alarm = load_alarm(alarm_file)
    assert recorded(monitored) == detections(monitored, alarm), (
        "what was raised while acting is what the record says afterwards"
    )
    assert 0 < sum(one.raised >= 0 for one in recorded(monitored)) < 10
    assert (
        "alarm" not in plain.manifest["agent"] and monitored.manifest["agent"]["alarm"]["threshold"] == alarm.threshold
    )
    assert f"--alarm {alarm_file}" in repeat_command(monitored.manifest)
    assert "--monitor" not in repeat_command(monitored.manifest)


def test_the_report_tells_of_the_alarm(run_folder, alarm_file, tmp_path):
    record = evaluate(settings(run_folder, tmp_path / "record", env_seed=1000, alarm=str(alarm_file)))
    html, found = render(record), tally(recorded(record))
    assert f"{found.detected} of {found.failures}" in html and "threshold, alpha = 0.5" in html
    assert "raised on failures (detection)" in html and "calibrated in another world" not in html
    other = dict(record.manifest, world=dict(record.manifest["world"], horizon=31))
    assert "calibrated in another world" in render(dataclasses.replace(record, manifest=other))
    assert 'id="alarm"' not in render(evaluate(settings(run_folder, tmp_path / "plain")))


def test_a_watched_run_is_resumed(run_folder, alarm_file, tmp_path, interrupted_after):
    whole = evaluate(settings(run_folder, tmp_path / "whole", alarm=str(alarm_file)))
    with interrupted_after(4), pytest.raises(KeyboardInterrupt):
        evaluate(settings(run_folder, tmp_path / "part", alarm=str(alarm_file)))
    resumed = settings(run_folder, None, out=None, resume=str(tmp_path / "part"), alarm=str(alarm_file))
    assert tables_equal(evaluate(resumed).table, whole.table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_action_steps": 2}, "n_action_steps = 4, now it is 2"),
        ({"steps": 3}, "calibrated with sampler"),
        ({"monitor": 8}, "looks at 4 plans, --monitor asks for 8"),
        ({"alarm": "no/such.json"}, "no alarm at"),
        ({"alarm": None, "monitor": 1}, "at least 2 candidates"),
    ],
)
def test_an_alarm_for_other_settings_is_refused(run_folder, alarm_file, tmp_path, changes, message):
    with pytest.raises((AlarmError, ValueError, FileNotFoundError), match=message):
        evaluate(settings(run_folder, tmp_path / "record", **{"alarm": str(alarm_file)} | changes))
    assert not (tmp_path / "record").exists()


def test_an_alarm_for_other_weights_is_refused(run_folder, alarm_file, tmp_path):
    other = tmp_path / "alarm.json"
    other.write_text(json.dumps(sealed(json.loads(alarm_file.read_text()) | {"policy": "feed"})))
    with pytest.raises(AlarmError, match="weights feed, these are"):
        evaluate(settings(run_folder, tmp_path / "record", alarm=str(other)))


def test_the_words_of_the_command():
    config = parse(Calibrate, None, ["REC", "--out", "alarm.json", "--alpha", "0.1", "--signals", "[drift]"])
    assert (config.record, config.out, config.alpha, config.signals) == ("REC", "alarm.json", 0.1, ("drift",))
