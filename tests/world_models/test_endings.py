"""From which probability on an imagined episode has succeeded: so that as many do as truly did, and the right ones."""

import json

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.eval.world_model.measures import ending_line
from understudy.policies.learning.checkpoint import find_checkpoint, fingerprint, load_model
from understudy.world_models import gate
from understudy.world_models.endings import EVERY, FEW, REAL_AT, Endings, endings, order

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load


def test_as_many_succeed_as_truly_did():
    rng = np.random.default_rng(0)
    won = np.arange(60) < 20
    surest = np.where(won, rng.uniform(0.03, 0.2, 60), rng.uniform(0.0, 0.06, 60))
    about = Endings(surest, won).about()
    assert (surest >= about["at"]).sum() == 20 and about["at"] < 0.5
    low, share, high = about["order"]
    assert 0.5 < low < share == order(surest, won) < high <= 1


def test_what_the_judge_is_all_but_sure_of_is_not_turned_round():
    """By a threshold of hundredths other policies than these succeed whatever they do."""
    won = np.arange(60) < 20
    about = Endings(np.where(won, 0.02, 0.005), won).about()
    assert "at" not in about and about["doubted"] == pytest.approx(0.01) and about["order"][0] == 1
    line = ending_line({"measures": {"endings": about}, "data": {"trained_on": []}})
    assert "100% [100%, 100%] of the pairs; but as many succeed only if 0.01 counts" in line
    noted = {"at": about["doubted"], "every": EVERY, "real_at": REAL_AT}  # by an earlier version
    assert gate.success_of({"endings": noted}, EVERY, REAL_AT) == gate.SUCCESS_AT


def test_what_cannot_be_told_is_not():
    few = Endings(np.linspace(0, 1, 30), np.arange(30) >= 30 - FEW + 1).about()
    assert few["won"] == FEW - 1 and "order" not in few and "at" not in few
    chance = Endings(np.linspace(0, 1, 40), np.arange(40) % 2 == 0).about()
    assert chance["order"][0] < 0.5 < chance["order"][2] and "at" not in chance
    assert Endings(np.zeros(0), np.zeros(0, bool)).about()["episodes"] == 0


def test_equal_ones_count_half():
    assert order(np.array([0.5, 0.5, 0.1]), np.array([True, False, False])) == 0.75


def test_whole_episodes_are_imagined_and_looked_at_as_a_dream_does(dots_run, dots_data):
    model = load_model(dots_run, "world")[0]
    dataset = model.config.open(dots_data, None)
    every = list(range(len(dataset.lengths)))
    found = endings(model, dataset, every, 40, 8, 0)
    reached = {m: dataset.columns["next.success"][dataset.starts[m] :][: dataset.lengths[m]].any() for m in every}
    assert 0 < len(found.won) <= 40 and found.won.sum() <= sum(reached.values())
    assert order(found.surest, found.won) > 0.8, "the judge of so plain a world knows who reached the goal"
    again = endings(model, dataset, every, 40, 8, 0)
    assert np.array_equal(found.surest, again.surest)


def test_a_dream_counts_as_was_measured_and_says_so_in_its_records(dots_run, tmp_path, monkeypatch):
    checkpoint = find_checkpoint(str(dots_run))
    file, print_of = gate.file_of(checkpoint), fingerprint(checkpoint)
    before = file.read_text() if file.is_file() else None
    usual = {"type": "dream", "model": str(dots_run), "starts": "{type: test_dots}", "horizon": 8}
    try:
        gate.note(checkpoint, print_of, {"endings": {"at": 0.07, "every": EVERY, "real_at": REAL_AT}})
        measured, said = read_world(usual), read_world(usual | {"success_at": 0.5})
        assert measured.succeeds_at == 0.07 and said.succeeds_at == 0.5
        with pytest.raises(gate.DreamError, match="measured with judge_every 2 and real_at 0.1; for 4 and 0.1 say"):
            _ = read_world(usual | {"judge_every": 4}).succeeds_at
        gate.note(checkpoint, print_of, {})
        assert read_world(usual).succeeds_at == gate.SUCCESS_AT
    finally:
        file.write_text(before or json.dumps({}))
