"""Columns of a grid's table beside success: labels, and differences to one setting over pairs."""

import json
from dataclasses import dataclass

import pytest

from understudy.configs.settings.refusals import UsageError
from understudy.eval.grid.grid import Part, cells
from understudy.eval.grid.run import Run
from understudy.eval.grid.table import label_names, label_rate
from understudy.eval.ledger.pairs import difference
from understudy.eval.statistics.paired import tango


@dataclass
class Told:
    """A record of episodes from starts 1000 on."""

    success: list[bool]
    labels: list[str]
    root: str = "here"

    def column(self, name):
        n = len(self.success)
        columns = {"success": self.success, "labels": self.labels, "env_seed": list(range(1000, 1000 + n))}
        return columns.get(name) or {"initial_conditions": ["one"] * n, "best_progress": [0.5] * n}[name]


def told(success, **labels) -> Told:
    rows = [{name: values[i] for name, values in labels.items()} for i in range(len(success))]
    return Told(list(success), [json.dumps(row) for row in rows])


def test_labels_are_those_that_every_episode_answers_with_yes_or_no():
    first = told([True, False], completion=[True, True], operator=["a", "b"], context=[True, False])
    second = told([True, True], completion=[True, True])
    assert label_names([first]) == ("completion", "context")
    assert label_names([first, second]) == ("completion",)
    assert label_names([]) == () and label_names([Told([True], [""])]) == ()


def test_a_labels_rate_is_over_all_episodes_and_its_interval_over_seeds():
    seeds = [told([True] * 10, completion=[True] * n + [False] * (10 - n)) for n in (4, 8)]
    rate = label_rate(seeds, "completion")
    assert rate.estimate == pytest.approx(0.6) and rate.low < 0.35 and rate.high > 0.85
    assert label_rate([], "completion") is None


def test_differences_pair_seed_with_seed_and_start_with_start():
    ours = [told([True, True, True, False]), None, told([True, True, True, True])]
    theirs = [told([True, False, False, True]), told([True] * 4), told([False, True, True, False])]
    these, recipe = difference(ours, theirs)
    assert these == tango(4, 1, 8)  # second seed: one side is missing
    assert these.estimate == pytest.approx(3 / 8) == recipe.estimate
    assert recipe.low <= these.low and recipe.high >= these.high
    alone = difference(ours[:1], theirs[:1])
    assert alone[0] == alone[1] == tango(2, 1, 4)
    assert difference([None], [told([True])]) is None


def test_against_must_name_a_setting(tmp_path):
    grid = Run(out=tmp_path, train=Part(config={"data": "d"}), vary={"a": {}, "b": {"steps": 3}}, against="c")
    with pytest.raises(UsageError, match="no setting is named 'c'; there are a, b"):
        cells(grid)
