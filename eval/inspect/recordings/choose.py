"""Which episodes of a dataset its page shows, and which numbers of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....configs.episode import DONE, PROGRESS, REWARD, SENT, SUCCESS
from ....configs.spec import ACTION, SCENE, STATE, Mode
from ....policies.data.dataset import Dataset
from ..survey import TIME, WIDE, Dimension

CURVES = 256  # drawn at most
OUTCOME = "outcome"  # what the columns at the end of the page are called together
FIRST, LAST = (STATE, ACTION, SENT, SCENE), (PROGRESS, REWARD, SUCCESS, DONE)  # columns by their place on the page


@dataclass(frozen=True)
class Curve:
    """One number of one column over time."""

    column: str
    place: int  # in the column
    name: str  # "" where the column has one number without a name
    unit: str
    low: float  # of the finite values of the whole dataset
    high: float


@dataclass(frozen=True)
class Panel:
    """Curves in one frame: a number that is both observed and commanded has both in it."""

    curves: tuple[Curve, ...]

    @property
    def title(self) -> str:
        """Name and unit, as on an axis."""
        return title_of(self.curves[0])

    @property
    def range(self) -> tuple[float, float]:
        low, high = min(c.low for c in self.curves), max(c.high for c in self.curves)
        return (low, high) if high > low else (low - 0.5, low + 0.5)


def title_of(curve: Curve) -> str:
    """Name and unit of a number."""
    unit = {"": "", "1": "", "?": " (unit ?)"}.get(curve.unit, f", {curve.unit}")
    return f"{curve.name or curve.column}{unit}"


def success_of(dataset: Dataset) -> np.ndarray | None:
    """(M,) bool: which episodes succeeded; None where the dataset does not say."""
    if SUCCESS not in dataset.columns:
        return None
    return np.maximum.reduceat(dataset.columns[SUCCESS][:, 0], dataset.starts) > 0.5


def choose_episodes(
    lengths: np.ndarray, success: np.ndarray | None, count: int, filmed: Sequence[int] = ()
) -> list[int]:
    """Positions of up to `count` episodes: shortest, longest, the first failure and success, others spread evenly.

    Args:
        filmed: positions of the episodes with films; the others are taken from them where there are some.
    """
    if len(lengths) <= count:
        return list(range(len(lengths)))
    chosen = [int(np.argmin(lengths)), int(np.argmax(lengths))]
    if success is not None:
        chosen += [int(np.argmax(success == kind)) for kind in (False, True) if (success == kind).any()]
    chosen = list(dict.fromkeys(chosen))[:count]

    for among in (sorted(filmed), range(len(lengths))):
        left = [m for m in among if m not in chosen]
        wanted = min(count - len(chosen), len(left))
        if wanted:
            chosen += [left[i] for i in np.unique(np.linspace(0, len(left) - 1, wanted).astype(int))]
    return sorted(chosen)


def choose_panels(dataset: Dataset, dimensions: Sequence[Dimension]) -> tuple[list[tuple[str, list[Panel]]], list[str]]:
    """(heading, panels) by column, and a sentence on each column that is not drawn whole.

    A command stands in the panel of the observed number of the same name and unit, unless it is a change of it.
    """
    by_column: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        if dimension.column in dataset.columns and dimension.column != TIME:
            by_column.setdefault(dimension.column, []).append(dimension)

    panels: dict[str, list[Panel]] = {}
    left_out, drawn = [], 0
    for column in _ordered(by_column):
        named, width = by_column[column], dataset.columns[column].shape[1]
        room = max(0, min(width, WIDE, CURVES - drawn))
        drawn += room
        if room < width:
            left_out.append(f"{column}: {room} of its {width} numbers are shown")
        for place in range(room):
            _add(panels, dataset, _curve(dataset, column, place, named, width))
    return [(_heading(members), members) for members in panels.values()], left_out


def group_of(column: str) -> str:
    """Under which heading a column stands."""
    return OUTCOME if column in LAST else column


def _ordered(columns) -> list[str]:
    middle = [column for column in columns if column not in (*FIRST, *LAST)]
    return [column for column in (*FIRST, *middle, *LAST) if column in columns]


def _curve(dataset: Dataset, column: str, place: int, named: Sequence[Dimension], width: int) -> Curve:
    values = dataset.columns[column][:, place]
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if len(named) == width:
        return Curve(column, place, named[place].name, named[place].unit, low, high)
    return Curve(column, place, f"number {place}", "", low, high)


def _add(panels: dict[str, list[Panel]], dataset: Dataset, curve: Curve) -> None:
    """Into the panel that it belongs to, or one of its own."""
    hosts = {SENT: (STATE, ACTION), ACTION: (STATE,)}.get(curve.column, ())
    if dataset.embodiment.mode in (Mode.delta, Mode.velocity):
        hosts = tuple(host for host in hosts if host != STATE)
    for host in hosts:
        for i, panel in enumerate(panels.get(host, ())):
            known = panel.curves[0]
            if curve.name and (known.name, known.unit) == (curve.name, curve.unit):
                panels[host][i] = Panel((*panel.curves, curve))
                return
    panels.setdefault(group_of(curve.column), []).append(Panel((curve,)))


def _heading(members: Sequence[Panel]) -> str:
    together = dict.fromkeys(group_of(curve.column) for panel in members for curve in panel.curves)
    return " and ".join(together)
