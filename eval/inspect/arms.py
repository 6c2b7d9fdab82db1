"""Runs to be asked side by side: one arm is a setting with its training seeds, or a single run.

An arm is given as a run or checkpoint folder, as a setting of a grid (`SETTING/seed*/run`, see `grid.py`), or as a
whole grid. Reads settings only; no network is built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...policies.data.layout import expand_path
from ...policies.learning.checkpoint import find_checkpoint

SEEDS = "seed*/run"


@dataclass(frozen=True)
class RunGroup:
    """Trainings that differ in their seed alone."""

    label: str
    runs: tuple[Path, ...]


def find_arms(paths: Sequence[str]) -> tuple[RunGroup, ...]:
    """The arms in the order given, those of a grid by name.

    Raises:
        FileNotFoundError: a path that is neither; ValueError: nothing given, or one label twice.
    """
    arms = [arm for path in paths for arm in _arms(expand_path(path))]
    labels = [arm.label for arm in arms]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        arms = [RunGroup(str(arm.runs[0]), arm.runs) for arm in arms]
        if len({arm.label for arm in arms}) < len(arms):
            raise ValueError(f"'{twice}' is given twice; name every run once")
    if not arms:
        raise ValueError("say which policy: --policy RUN")
    for run in (run for arm in arms for run in arm.runs):
        find_checkpoint(run)
    return tuple(arms)


def _arms(path: Path) -> list[RunGroup]:
    try:
        find_checkpoint(path)
        name = f"{path.parent.parent.name} {path.parent.name}" if path.match(SEEDS) else path.name
        return [RunGroup(name, (path,))]
    except FileNotFoundError:
        settings = [path] if any(path.glob(SEEDS)) else sorted({run.parent.parent for run in path.glob(f"*/{SEEDS}")})
        if not settings:
            raise
    return [RunGroup(setting.name, tuple(sorted(setting.glob(SEEDS)))) for setting in settings]
