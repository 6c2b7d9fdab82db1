"""Settings of a grid are told apart over training seeds, in planned groups, and not before."""

from types import SimpleNamespace

import numpy as np
import pytest

from understudy.eval.grid import table
from understudy.eval.grid.grid import Part
from understudy.eval.grid.run import Run
from understudy.eval.grid.table import verdict

LOW, HIGH = (0.2, 0.3, 0.25, 0.35, 0.28), (0.8, 0.9, 0.85, 0.7, 0.75)


def test_clear_differences_are_told_and_equal_settings_are_not():
    said = verdict({"narrow": LOW, "wide": HIGH, "wider": HIGH})
    assert "wide above narrow" in said and "wider above narrow" in said and "wide above wider" not in said
    assert ": none, after 5 seeds" in verdict({"a": LOW, "b": LOW})


def test_groups_are_looked_at_as_they_become_whole():
    rates = {"narrow": (*LOW, *[None] * 5), "wide": (*HIGH, *[None] * 5)}
    early = verdict({name: values[:4] + (None,) * 6 for name, values in rates.items()}, looks=2)
    assert ": none, after 4 seeds; 6 planned seeds are still to come" in early
    assert "wide above narrow, after 5 seeds. " in verdict(rates, looks=2)


def test_too_few_seeds_are_said():
    assert "it takes 4 seeds a look" in verdict({"a": LOW[:3], "b": HIGH[:3]})
    assert verdict({"alone": LOW}) == ""
    with pytest.raises(ValueError, match="do not make 2 groups"):
        Run(out="o", train=Part(config="c"), seeds=(0, 1, 2), looks=2)


def test_equal_recipes_are_seldom_told_apart():
    """300 grids of two equal settings, two looks."""
    rng = np.random.default_rng(0)
    wrong = sum("above" in verdict(dict(zip("ab", rng.random((2, 10)), strict=True)), looks=2) for _ in range(300))
    assert wrong <= 27  # 5 % and three standard deviations


def test_a_dream_that_was_not_measured_tells_no_settings_apart(monkeypatch, tmp_path):
    def finished(cell, name):
        world = (
            {"type": "dream", "model": "f", "config": {"model": str(tmp_path / "dream")}} if name == "dreamt" else {}
        )
        rates = {"narrow": LOW, "wide": HIGH}[cell.setting]
        return SimpleNamespace(column=lambda _: [rates[cell.seed]], manifest={"world": world})

    monkeypatch.setattr(table, "_finished", finished)
    cells = [SimpleNamespace(setting=name, seed=seed) for name in ("narrow", "wide") for seed in range(5)]
    grid = SimpleNamespace(eval={"true": {}, "dreamt": {}}, looks=1)
    assert "wide above narrow" in table._verdict(grid, cells, "true")
    said = table._verdict(grid, cells, "dreamt")
    assert "above" not in said and "no policies are ranked by it: nobody has measured" in said
