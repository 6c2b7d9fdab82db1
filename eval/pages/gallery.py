"""The filmed episodes of a record as what a page shows: film, curve of progress, and the moment to stop at.

Knows no HTML beyond the points of the curve.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .moments import Moment, moment

POINTS = 200  # a curve keeps at most this many points


@dataclass(frozen=True)
class Film:
    """One filmed episode."""

    row: Mapping  # columns of `episodes.parquet`
    moment: Moment
    data: str  # data URI of the mp4
    curve: str  # points of the progress in a box 100 wide and 100 high, y downwards
    label: str = ""  # who acted, where several are shown

    @property
    def name(self) -> str:
        """Of the film on its page, an anchor."""
        return f"film-{self.label}-{self.row['env_seed']}" if self.label else f"film-{self.row['env_seed']}"

    @property
    def at(self) -> float:
        """Where the moment lies on the curve, per cent."""
        return 100 * self.moment.step / max(1, self.row["length"])


def films(paths: Mapping[int, Path], rows: Iterable[Mapping], label: str = "") -> list[Film]:
    """The filmed episodes, by env seed.

    Args:
        paths: env seed -> mp4, of the films that may be shown (`ledger/films.py`).
    """
    filmed = sorted((row for row in rows if row["env_seed"] in paths), key=lambda row: row["env_seed"])
    return [Film(row, moment(row), data_uri(paths[row["env_seed"]]), curve(row["progress"]), label) for row in filmed]


def curve(progress: Iterable[float]) -> str:
    """Points of an SVG polyline: progress after step 1, 2, .. T at 100 k / T, 0 below and 1 above."""
    values = np.asarray(list(progress), np.float64)
    steps = len(values)
    kept = np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(int)) if steps else []
    return " ".join(f"{100 * (i + 1) / steps:.1f},{100 - 94 * values[i]:.1f}" for i in kept)


def data_uri(path: Path, kind: str = "video/mp4") -> str:
    """A file's bytes as a data URI."""
    return f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode()
