"""Histograms as inline SVG with labelled axes, and rows of marks below them.

Knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

import numpy as np

from .charts import _number, _ticks

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 38
ROW = 11  # height of a row of marks
BINS = 40


@dataclass(frozen=True)
class Histogram:
    """What is drawn. Values that are not finite are left out."""

    values: np.ndarray
    x_label: str
    y_label: str
    style: str = "a"  # a CSS class, as of `charts.Line`
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> values, a row of marks each


def histogram(one: Histogram) -> str:
    """The SVG; of values that are all equal, a sentence in its place."""
    values = np.asarray(one.values, np.float64)
    values = values[np.isfinite(values)]
    name = escape(one.x_label)
    if not len(values):
        return f'<p class="constant"><b>{name}</b><br>no finite value</p>'
    if values.min() == values.max():
        return f'<p class="constant"><b>{name}</b><br>always {values[0]:.4g} ({len(values)} {escape(one.y_label)})</p>'

    counts, edges = np.histogram(values, BINS)
    low, high, most = float(edges[0]), float(edges[-1]), int(counts.max())
    bottom = HEIGHT - BOTTOM - ROW * len(one.marks)
    px = lambda x: LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)  # noqa: E731
    py = lambda y: bottom - y / most * (bottom - TOP)  # noqa: E731

    parts = [f'<svg class="mini" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="histogram of {name}">']
    for y in [tick for tick in _ticks(0, most, 3) if tick == int(tick) and (tick or not one.marks)]:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{py(y):.1f}" dy=".32em" text-anchor="end">{_number(y)}</text>')
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            box = f'x="{px(left):.1f}" y="{py(count):.1f}" width="{px(right) - px(left) - 0.5:.1f}"'
            parts.append(f'<rect class="{one.style}" {box} height="{bottom - py(count):.1f}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts += _rows(one, px, bottom)
    for x in _ticks(low, high, 4):
        parts.append(f'<text x="{px(x):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{_number(x)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{name}</text>')
    turn = f'transform="rotate(-90 9 {(TOP + bottom) / 2})"'
    y_name = (
        f'<text class="name" x="9" y="{(TOP + bottom) / 2}" text-anchor="middle" {turn}>{escape(one.y_label)}</text>'
    )
    return "".join([*parts, y_name, "</svg>"])


def _rows(one: Histogram, px, bottom: float) -> list[str]:
    parts = []
    for row, (name, values) in enumerate(one.marks.items()):
        top = bottom + ROW * row + 2.5
        ticks = "".join(f"M{px(x):.1f} {top}v{ROW - 4}" for x in np.unique(values[np.isfinite(values)]))
        parts.append(f'<path class="{escape(name)}" d="{ticks}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{top + ROW / 2 - 1}" dy=".25em" text-anchor="end">{escape(name)}</text>')
    return parts
