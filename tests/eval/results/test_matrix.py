"""The matrix of task and method: cells of records with n and budget, gaps as gaps, a picture that says the same."""

import re

import pytest
import yaml

from understudy.eval.ledger.chains import CODE, Chains, read_chains
from understudy.eval.ledger.study import Study
from understudy.eval.results.budget import Budget, BudgetError, budget_of, budget_of_setting, demonstrations
from understudy.eval.results.facts import FactError, Facts
from understudy.eval.results.heat import HeatRow, heat
from understudy.eval.results.matrix import lines
from understudy.eval.results.pages import FILE, PagesError, grid_record, read_pages
from understudy.eval.results.plot import PlotError
from understudy.eval.results.results import RECORDS, render

ROWS = [
    {"task": "Lift", "training": "alone", "cells": {"flow": ["steering/a", "the policy alone"]}},
    {"task": "Reach", "training": "equal budgets", "grid": "configs/grid/matrix_so101_reach.yaml"},
    {"task": "Door"},
]
MATRIX = {"title": "So", "methods": {"flow": "flow matching", "lerobot_act": "lerobot ACT"}, "rows": ROWS}
CHAINS = {
    "out/so101_reach_demos": "understudy demos so101-reach --episodes 30 --out out/so101_reach_demos",
    "out/few": "understudy demos lift --episodes 12 --out out/few",
    "out/human": "understudy resim pusht --data lerobot/pusht --episodes 0-179 --out out/human",
    "runs/a": "understudy train configs/train/lift.yaml --data out/few,out/human --steps=70 --out runs/a",
    "out/foreign/x": "understudy lerobot-train configs/foreign/so101_reach_act.yaml --output_dir=out/foreign/x",
}


@pytest.fixture
def root(tmp_path):
    Study(
        title="Steering",
        command="understudy study steering --policies runs/a runs/a --critics runs/c --episodes 20 --out F",
        columns=("plans", "K", "success"),
        rows=(("the policy alone", 1, (0.2, 0.435, 0.7)), ("best", 10, (0.3, 0.5, 0.9))),
        provenance={"begun": "2026-02-03"},
    ).write(tmp_path / "steering" / "a.json")  # fmt: skip
    (tmp_path / "chains.yaml").write_text(yaml.safe_dump({"made": CHAINS}))
    return tmp_path


def write(root, **changes):
    sections = [{"title": "Plainly", "records": ["steering/a"]}]
    page = {"question": "Which?", "matrix": MATRIX | changes, "sections": sections}
    (root / FILE).write_text(yaml.safe_dump({"pages": {"so": page}}))
    return root


def fill(root):
    """The table that the grid of the second row writes."""
    Study(
        title="Reach", command="understudy run configs/grid/matrix_so101_reach.yaml",
        columns=("setting", "evaluation", "seed 0", "seed 1", "success", "holds", "best progress", "episodes"),
        rows=(
            ("flow", "reach", "0.5 (25 of 50)", "0.6 (30 of 50)", (0.1, 0.55, 1.0), "over 2 training seeds", 0.8, 100),
            ("lerobot_act", "reach", None, None, None, "nothing finished", None, 0),
        ),
        provenance={"begun": "2026-02-03"},
    ).write(root / "grids" / "matrix-so101-reach.json")  # fmt: skip


def test_cells_have_n_and_budget_and_gaps_a_command(root):
    page = render(write(root))["docs/results/so.md"]
    assert "| Lift | alone | - | 0.44 [0.20, 0.70] | - |" in page and "| Door |  | - | - | - |" in page
    assert "5 of 6 cells have no record" in page
    assert "| Lift, alone | flow matching | 0.44 [0.20, 0.70] | 40 | 2 | 192 | 70 | 256 | [so](so.md) |" in page
    assert "```\nunderstudy run configs/grid/matrix_so101_reach.yaml\n```" in page
    assert "`out/grid/matrix_so101_reach/table.json` as `eval/records/grids/matrix-so101-reach.json`" in page


def test_the_table_of_a_grid_fills_its_row(root):
    fill(write(root))
    texts = render(root)
    page = texts["docs/results/so.md"]
    assert "| Reach | equal budgets | - | 0.55 [0.10, 1.00] | - |" in page, "what failed stays a gap"
    assert "| Reach, equal budgets | flow matching | 0.55 [0.10, 1.00] | 100 | 2 | 30 | 1000 | 32 |" in page
    assert "table.json" not in page and "### Reach, equal budgets" in page
    assert "30 demos, 1,000 steps" in texts["docs/results/so.svg"] and ">0.55<" in texts["docs/results/so.svg"]


def test_what_the_records_do_not_hold_is_told(root):
    for row, why in (
        ({"cells": {"act": ["steering/a", "best"]}}, "no method 'act'"),
        ({"cells": {"flow": ["steering/a", "worst"]}}, "0 rows with worst"),
        ({"expert": "nothing"}, "no measured expert"),
    ):
        with pytest.raises(FactError, match=why):
            render(write(root, rows=[{"task": "Lift"} | row]))
    with pytest.raises(PagesError, match="its matrix lacks 'methods'"):
        (root / FILE).write_text(
            yaml.safe_dump({"pages": {"so": {"question": "?", "matrix": {"title": "t", "rows": []}}}})
        )
        read_pages(root)


def test_budgets_are_those_of_the_commands():
    chains = Chains(made=CHAINS)
    assert demonstrations("out/few,out/human", chains) == 192
    assert budget_of("runs/a/last", chains) == Budget(192, 70, 256)
    assert budget_of("out/foreign/x/checkpoints/000500/pretrained_model", chains) == Budget(30, 500, 64)
    assert budget_of("out/foreign/x", chains) == Budget(30, 1000, 64)
    grid = "configs/grid/matrix_so101_reach.yaml"
    equal = {
        budget_of_setting(grid, name, chains) for name in ("flow", "regression", "lerobot_act", "lerobot_diffusion")
    }
    assert equal == {Budget(30, 1000, 32)}, "every method gets the same"
    for path in ("runs/b", "out/grid/x"):
        with pytest.raises(BudgetError, match=f"makes '{path}'"):
            budget_of(path, chains)
    with pytest.raises(BudgetError, match="no setting 'act'"):
        budget_of_setting(grid, "act", chains)


def test_the_grids_of_the_committed_matrix_give_every_method_the_same():
    (page,) = (page for page in read_pages(RECORDS).pages if page.matrix)
    chains = read_chains(RECORDS)
    grids = [row["grid"] for row in page.matrix["rows"] if "grid" in row]
    assert len(grids) == 2
    for grid in grids:
        keys = yaml.safe_load((CODE / grid).read_text())
        names = [*keys["vary"], *keys["foreign"]]
        assert set(names) <= set(page.matrix["methods"]) and len(names) == 6
        assert len({budget_of_setting(grid, name, chains) for name in names}) == 1
        assert grid_record(grid) == f"grids/{keys['out'].rpartition('/')[2].replace('_', '-')}"


def test_the_committed_matrix_counts_trainings_and_names_every_task():
    (page,) = (page for page in read_pages(RECORDS).pages if page.matrix)
    found = lines(page, Facts(RECORDS), read_chains(RECORDS))
    weak = next(line for line in found if (line.task, line.training) == ("Lift", "kept weak"))
    assert (weak.cells["lerobot_diffusion"].episodes, weak.cells["lerobot_diffusion"].trainings) == (600, 3)
    assert weak.cells["lerobot_diffusion"].budget == Budget(12, 1000, 64) and weak.cells["lerobot_act"] is None
    named = {line.task for line in found}
    assert {"Lift", "Can", "Square", "Stack", "Door", "PushT", "SO-101 reaching", "SO-101 pick and place"} <= named
    assert {"push-and-return", "count-scoops"} <= named


def test_a_heat_table_shows_numbers_and_gaps():
    rows = [HeatRow("one & two", "few", (0.0, 0.435, None)), HeatRow("three", "", (1.0, None, None))]
    text = heat("Title", ("a|b", "c", "d"), rows)
    assert text == heat("Title", ("a|b", "c", "d"), rows)
    assert re.findall(r">(\d\.\d\d)<", text) == ["0.00", "0.44", "1.00"] and text.count("stroke-dasharray") == 3
    assert "one &amp; two" in text and ">a<" in text and ">b<" in text
    for columns, row in (
        (("a",), HeatRow("x", "", (0.1, 0.2))),
        (("a",), HeatRow("x", "", (1.2,))),
        (("a",), HeatRow("x" * 40, "y" * 30, (0.2,))),
        ((), HeatRow("x", "", ())),
    ):
        with pytest.raises(PlotError):
            heat("t", columns, [row])
