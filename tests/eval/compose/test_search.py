"""Searches for weights on planted success curves: what they find, what they cost, and what the dropping promises."""

import json

import numpy as np
import pytest

from understudy.eval.compose.search import (
    BY_RANK,
    BY_TEST,
    Comparisons,
    Trials,
    grid,
    planned,
    rungs,
    simplex,
    smoothed,
    successive_halving,
    top_two,
)
from understudy.eval.ledger.study import read_study
from understudy.eval.studies.search_cost import SearchCost, draw, play

POINTS = simplex(2, 11)
INTERIOR = np.array([20, 30, 42, 54, 66, 72, 70, 62, 52, 42, 32]) / 100  # best at weight .5
EDGE = np.array([0, 4, 8, 15, 22, 30, 38, 48, 56, 64, 72]) / 100  # best at weight 1
FLAT = np.full(11, 0.5)


def trials(table, points=POINTS, block=8):
    return Trials(points, range(table.shape[1]), lambda w, s: table[points.index(w)][list(s)], block)


# -- weights


def test_weights_of_a_grid():
    assert simplex(2, 3) == [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    three = simplex(3, 6)
    assert len(three) == 21 and all(abs(sum(w) - 1) < 1e-9 for w in three) and (0.0, 0.0, 1.0) in three
    with pytest.raises(ValueError, match="at least 2 points"):
        simplex(2, 1)


def test_smoothing_is_a_weighted_mean_of_neighbours():
    outcomes = {POINTS[4]: [1.0, 1.0], POINTS[5]: [0.0, 0.0, 0.0, 0.0], POINTS[6]: []}
    near = np.exp(-0.5)  # one bandwidth away
    found = smoothed(outcomes, [POINTS[4], POINTS[5]], 0.1)
    assert found[POINTS[4]] == pytest.approx(2 / (2 + 4 * near))
    assert found[POINTS[5]] == pytest.approx(2 * near / (2 * near + 4))
    assert smoothed(outcomes, [POINTS[4]], 0) == {POINTS[4]: 1.0}


# -- what is asked


def test_all_weights_see_the_same_starts_in_whole_blocks():
    asked = {}
    table = draw(INTERIOR, 50, 0.5, np.random.default_rng(0))

    def evaluate(weights, starts):
        asked.setdefault(weights, []).append(list(starts))
        return table[POINTS.index(weights)][np.array(starts) - 100]

    found = successive_halving(Trials(POINTS, range(100, 150), evaluate, 8))
    assert set(asked) == set(POINTS)
    for blocks in asked.values():
        joined = [start for block in blocks for start in block]
        assert joined == list(range(100, 100 + len(joined))) and {len(block) for block in blocks[:-1]} <= {8}
    assert found.episodes == sum(len(block) for blocks in asked.values() for block in blocks)


@pytest.mark.parametrize(("got", "message"), [([0.5], "as many outcomes"), ([0.5, 2.0], "in \\[0, 1\\]")])
def test_outcomes_are_checked(got, message):
    with pytest.raises(ValueError, match=message):
        grid(Trials([(1.0,)], [0, 1], lambda weights, starts: got))


def test_what_is_no_search_is_refused():
    with pytest.raises(ValueError, match="no such search"):
        Trials([], [1], lambda w, s: [])
    with pytest.raises(ValueError, match="differ from each other"):
        Trials(POINTS, [1, 1], lambda w, s: [])
    with pytest.raises(ValueError, match="alpha < 0.5"):
        successive_halving(trials(np.ones((11, 8))), alpha=0.7)


def test_rungs_and_planned_episodes():
    assert rungs(11, 50, 8) == [8, 16, 24, 50] and planned(11, 50, 8) == 11 * 8 + 6 * 8 + 3 * 8 + 2 * 26 == 212
    assert rungs(11, 50, 8, keep=1) == [50] and planned(11, 50, 8, keep=1) == 550
    assert rungs(11, 6, 8) == [6] and rungs(2, 48, 8) == [48]
    for count, starts, block in ((11, 50, 8), (21, 50, 8), (66, 100, 8), (5, 16, 8), (11, 48, 1)):
        table = np.tile(np.linspace(0.3, 0.3, count)[:, None], starts)
        points = [(i / count, 1 - i / count) for i in range(count)]
        found = successive_halving(trials(table, points, block), alpha=0)
        assert found.episodes == planned(count, starts, block), "without tests, as planned"


# -- what is found


@pytest.mark.parametrize(("curve", "least"), [(INTERIOR, 0.95), (EDGE, 0.95)])
def test_planted_optima_are_found_for_less_than_half_of_the_grid(curve, least):
    good, saved = 0, 0
    for run in range(60):
        found = play(
            lambda t, rng: successive_halving(t), POINTS, draw(curve, 50, 0.5, np.random.default_rng(run)), None
        )
        good += curve[found.chosen] >= curve.max() - 0.1
        saved += found.episodes < 550 / 2
    assert good >= 60 * least and saved == 60


def test_a_flat_curve_costs_nothing_and_leans_to_no_corner():
    chosen = []
    for run in range(60):
        table = draw(FLAT, 50, 0.5, np.random.default_rng((1, run)))
        found = successive_halving(trials(table))
        chosen.append(POINTS.index(found.chosen))
        assert found.episodes <= planned(11, 50, 8)
    assert 0.2 < np.mean(np.isin(chosen, (3, 4, 5, 6, 7))) and len(set(chosen)) > 5
    same = successive_halving(trials(np.full((11, 48), 1.0)))
    assert same.chosen == (0.5, 0.5), "equal weights where all are equal"


def test_the_grid_plays_all_and_takes_the_best():
    table = draw(INTERIOR, 50, 0.0, np.random.default_rng(3))
    found = grid(trials(table), smooth=0)
    assert found.episodes == found.full == 550
    assert table[POINTS.index(found.chosen)].mean() == table.mean(1).max()


def test_bayes_stays_within_its_budget_and_repeats():
    good = 0
    for run in range(6):
        table = draw(INTERIOR, 50, 0.5, np.random.default_rng((2, run)))
        found, again = (top_two(trials(table), 275, np.random.default_rng(run)) for _ in range(2))
        assert found == again and 200 < found.episodes <= 275
        good += INTERIOR[POINTS.index(found.chosen)] >= INTERIOR.max() - 0.1
    assert good >= 5


def test_three_parents():
    points = simplex(3, 6)
    curve = np.array([0.9 - 1.2 * np.abs(np.array(w) - (0.2, 0.6, 0.2)).sum() / 2 for w in points])
    found = successive_halving(trials(draw(curve, 50, 0.5, np.random.default_rng(0)), points))
    assert curve[points.index(found.chosen)] > 0.6 and found.episodes < 21 * 50 / 2


# -- what dropping promises


def test_a_bad_weight_is_dropped_by_tests_and_said_to_be():
    curve = np.array([0.02] * 5 + [0.9] * 6)
    found = successive_halving(trials(draw(curve, 50, 0.0, np.random.default_rng(0))), keep=1)
    why = [one.dropped for one in found.tried]
    assert all(one.startswith(BY_TEST) and "worse than" in one for one in why[:5]) and not any(why[5:])
    assert "Dropped by tests: 5 (" in found.says and "at most 0.05" in found.says
    ranked = successive_halving(trials(draw(curve, 50, 0.0, np.random.default_rng(0))), alpha=0)
    assert {one.dropped.partition(",")[0] for one in ranked.tried} == {"", BY_RANK}
    assert "no tests were made" in ranked.says.lower()


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_best_weight_is_seldom_dropped_by_a_test(correlation):
    """At alpha .2, 11 equally good weights: a weight named beforehand is dropped in at most 20 % of the runs."""
    runs, lost, any_lost = 100, 0, 0
    for run in range(runs):
        table = draw(FLAT, 48, correlation, np.random.default_rng((7, run)))
        comparisons, alive = Comparisons(POINTS, 48, 0.2), list(POINTS)
        outcomes = {w: row.tolist() for w, row in zip(POINTS, table, strict=True)}
        for count in range(8, 49, 8):
            beaten = comparisons.update(outcomes, alive, count)
            alive = [w for w in alive if w not in beaten]
        lost += POINTS[5] not in alive
        any_lost += len(alive) < 11
    assert lost <= 0.2 * runs + 1.64 * np.sqrt(0.16 * runs)
    assert any_lost > 0, "the tests do drop something by chance, or this test could not fail"


def test_comparisons_ignore_starts_that_one_side_did_not_play():
    comparisons = Comparisons([(0.0, 1.0), (1.0, 0.0)], 40, 0.05)
    outcomes = {(0.0, 1.0): [1.0] * 40, (1.0, 0.0): [1.0] * 8}
    assert comparisons.update(outcomes, list(outcomes), 8) == {}
    assert comparisons.update(outcomes, [(0.0, 1.0)], 40) == {} and comparisons.test.money() == (1.0, 1.0)


# -- the study of what searches cost


def test_the_study_of_planted_curves(tmp_path):
    SearchCost(out=tmp_path / "cost.json", runs=2, curves=("can DP+MP", "flat at .5")).run()
    rows = {row[0]: row for row in read_study(tmp_path / "cost.json").rows}
    assert rows["grid"][1] == 550 and rows["grid"][4] is None
    assert rows["successive halving"][2] < 0.5 and len(rows["successive halving"][4]) == 3


def test_replays_of_a_recorded_grid_search(tmp_path):
    from understudy.eval.ledger.record import RecordWriter
    from understudy.eval.ledger.table import COLUMNS

    table = draw(INTERIOR, 60, 0.5, np.random.default_rng(5))
    for weights, row in zip(POINTS, table, strict=True):
        told = {"policy": {"path": "x", "config": {"weights": list(weights)}}, "starts": {"set": "toy"}}
        with RecordWriter(tmp_path / "grid" / f"{weights[0]}", told) as writer:
            for start, won in enumerate(row):
                told = dict.fromkeys(COLUMNS, 0) | dict.fromkeys(("task", "video", "error"), "")
                told |= {
                    "initial_conditions": "toy",
                    "env_seed": start,
                    "success": bool(won),
                    "first_success": 0 if won else -1,
                    "progress": [],
                    "labels": "{}",
                }
                writer.add(told | {"terminated": True, "truncated": False})
            writer.close(complete=True)
    config = SearchCost(out=tmp_path / "cost.json", records=str(tmp_path / "grid"), runs=3, draws=2)
    config.run()
    study = read_study(tmp_path / "cost.json")
    rows = {row[0]: row for row in study.rows}
    assert rows["grid"][1] == 11 * 30 and rows["grid"][5] == 1
    assert "60 recorded initial conditions" in " ".join(study.notes)
    low, share, high = rows["successive halving"][2]
    assert low <= share <= high < 0.7
    assert "--records" in json.loads((tmp_path / "cost.json").read_text())["command"]
    with pytest.raises(ValueError, match="may see fewer"):
        SearchCost(out=tmp_path / "x.json", records=str(tmp_path / "grid"), initial_conditions=60).run()
    with RecordWriter(tmp_path / "grid" / "half", {"policy": {"config": {"weights": [0.25, 0.75]}}}) as writer:
        writer.add(told | {"env_seed": 0, "terminated": True, "truncated": False})
    with pytest.raises(ValueError, match="share 1 of up to 60 initial conditions"):
        SearchCost(out=tmp_path / "x.json", records=str(tmp_path / "grid")).run()
