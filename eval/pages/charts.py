"""Small line charts as inline SVG, coloured by the page's CSS so that they follow its light or dark theme.

Knows nothing of what the numbers mean. x and y in data units; the picture scales with its column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 640, 300  # user units of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 14, 44
POINTS = 400  # a line keeps at most this many points


@dataclass(frozen=True)
class Line:
    """One curve. `style` is a CSS class: success, failure, mean, a, b, .."""

    x: Sequence[float]
    y: Sequence[float]
    style: str
    label: str = ""
    low: Sequence[float] | None = None  # with `high`: a band around the curve
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Mark:
    """One point with its name and, where given, bars from `low` to `high` in x and in y."""

    x: float
    y: float
    style: str
    label: str = ""
    x_bar: tuple[float, float] | None = None
    y_bar: tuple[float, float] | None = None


def chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    log: bool = False,
    marks: Sequence[Mark] = (),
    title: str = "",
) -> str:
    """The curves and marks in one frame with axes, grid and a legend of the curves that have a label.

    Args:
        log: logarithmic y; values must be positive.
        marks: drawn above the curves, which alone set the range of x (and of y, without `y_range`).
        title: what a screen reader says of the chart; default the label of y.
    """
    frame = _Frame.around(lines, y_range, log)
    name, size = escape(title or y_label), f"0 0 {WIDTH} {HEIGHT}"
    parts = [f'<svg class="chart" viewBox="{size}" role="img" aria-label="{name}" {frame.scale()}>']
    parts += frame.axes(x_label, y_label)
    parts += [frame.band(line) for line in lines if line.low is not None]
    labelled = [line for line in lines if line.label]
    places = {id(line): i for i, line in enumerate(labelled)}
    parts += [frame.curve(line, places.get(id(line))) for line in lines]
    parts += [part for mark in marks for part in frame.mark(mark)]
    parts.append("</svg>")
    keys = (f'<span class="{line.style}"><i></i>{escape(line.label)}</span>' for line in labelled)
    return "".join(parts) + (f'<p class="legend">{"".join(keys)}</p>' if labelled else "")


@dataclass(frozen=True)
class _Frame:
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool

    @classmethod
    def around(cls, lines: Sequence[Line], y_range: tuple[float, float] | None, log: bool) -> _Frame:
        xs = [x for line in lines for x in line.x] or [0, 1]
        ys = [y for line in lines for y in line.y] or [0, 1]
        low, high = y_range or (min(ys), max(ys))
        if log:
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        return cls((min(xs), max(max(xs), min(xs) + 1e-9)), (low, high if high > low else low + 1), log)

    def px(self, x: float) -> float:
        low, high = self.x_range
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        low, high = (math.log10(bound) for bound in self.y_range) if self.log else self.y_range
        y = math.log10(max(y, 1e-300)) if self.log else y
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str) -> list[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for y in self._decades() if self.log else _ticks(*self.y_range, 5):
            at = f"{self.py(y):.1f}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{at}" dy=".32em" text-anchor="end">{_number(y)}</text>')
        for x in _ticks(*self.x_range, 6):
            at = f"{self.px(x):.1f}"
            parts.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{_number(x)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (LEFT + right) / 2
        parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
        turn = f"rotate(-90 12 {(TOP + bottom) / 2})"
        name = f'x="12" y="{(TOP + bottom) / 2}" text-anchor="middle" transform="{turn}"'
        return [*parts, f'<text class="name" {name}>{escape(y_label)}</text>']

    def scale(self) -> str:
        """How the page's script finds values from places: data and user units of the ends of both axes."""
        low, high = (math.log10(bound) for bound in self.y_range) if self.log else self.y_range
        x = f"{self.x_range[0]:g} {self.x_range[1]:g} {LEFT} {WIDTH - RIGHT}"
        return f'data-x="{x}" data-y="{low:g} {high:g} {HEIGHT - BOTTOM} {TOP}" data-log="{int(self.log)}"'

    def curve(self, line: Line, key: int | None = None) -> str:
        """`key`: place of the line in the legend."""
        attribute = "" if key is None else f' data-key="{key}"'
        return f'<polyline class="{line.style}"{attribute} points="{self._points(line.x, line.y)}"/>'

    def band(self, line: Line) -> str:
        back = self._points(line.x, line.low).split(" ")[::-1]
        return f'<polygon class="{line.style}" points="{self._points(line.x, line.high)} {" ".join(back)}"/>'

    def mark(self, mark: Mark) -> list[str]:
        x, y = f"{self.px(mark.x):.1f}", f"{self.py(mark.y):.1f}"
        parts = []
        if mark.x_bar:
            low, high = (f"{self.px(end):.1f}" for end in mark.x_bar)
            parts.append(f'<line class="bar {mark.style}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>')
        if mark.y_bar:
            low, high = (f"{self.py(end):.1f}" for end in mark.y_bar)
            parts.append(f'<line class="bar {mark.style}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
        parts.append(f'<circle class="{mark.style}" cx="{x}" cy="{y}" r="5"/>')
        name = f'<text class="name" x="{x}" y="{y}" dx="8" dy="-7">{escape(mark.label)}</text>'
        return [*parts, name] if mark.label else parts

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        kept = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), POINTS)).round().astype(int)) if len(xs) else []
        return " ".join(f"{self.px(xs[i]):.1f},{self.py(ys[i]):.1f}" for i in kept)

    def _decades(self) -> list[float]:
        low, high = (round(math.log10(bound)) for bound in self.y_range)
        return [10.0**power for power in range(low, high + 1)]


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers within low..high."""
    rough = (high - low) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _number(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"
