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
SECONDS = 22  # further height below, for a second row of numbers
SIDE = 520  # of the frame of a square chart
LETTER, LINE = 12, 22  # room of a label: width of a letter, height; of the larger type on a phone
POINTS = 400  # a line keeps at most this many points


@dataclass(frozen=True)
class Line:
    """One curve, with a gap where y is not finite. `style` is a CSS class: success, failure, mean, a, b, .."""

    x: Sequence[float]
    y: Sequence[float]
    style: str
    label: str = ""
    low: Sequence[float] | None = None  # with `high`: a band around the curve
    high: Sequence[float] | None = None
    dots: bool = False  # a dot at every point


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
    rate: float | None = None,
    square: bool = False,
) -> str:
    """The curves and marks in one frame with axes, grid and a legend of the curves that have a label.

    Args:
        log: logarithmic y; values must be positive.
        marks: drawn above the curves, which alone set the range of x (and of y, without `y_range`).
        title: what a screen reader says of the chart; default the label of y.
        rate: x is in steps, so many a second: seconds stand below the steps.
        square: one unit of x is as long as one of y, over the same range.
    """
    frame = _Frame.around(lines, y_range, log, rate, square)
    name, size = escape(title or y_label), f"0 0 {frame.width} {frame.height}"
    parts = [f'<svg class="chart" viewBox="{size}" role="img" aria-label="{name}" {frame.scale()}>']
    parts += frame.axes(x_label, y_label)
    parts += [frame.band(line) for line in lines if line.low is not None]
    labelled = [line for line in lines if line.label]
    places = {id(line): i for i, line in enumerate(labelled)}
    parts += [frame.curve(line, places.get(id(line))) for line in lines]
    parts += [dot for line in lines if line.dots for dot in frame.dots(line)]
    parts += [part for mark in marks for part in frame.mark(mark)]
    parts += frame.names(marks)
    parts.append("</svg>")
    keys = (f'<span class="{line.style}"><i></i>{escape(line.label)}</span>' for line in labelled)
    return "".join(parts) + (f'<p class="legend">{"".join(keys)}</p>' if labelled else "")


@dataclass(frozen=True)
class _Frame:
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool
    rate: float | None = None
    square: bool = False

    @classmethod
    def around(
        cls,
        lines: Sequence[Line],
        y_range: tuple[float, float] | None,
        log: bool,
        rate: float | None = None,
        square: bool = False,
    ) -> _Frame:
        xs = [x for line in lines for x in line.x] or [0, 1]
        ys = [y for line in lines for y in line.y if math.isfinite(y)] or [0, 1]
        low, high = y_range or (min(ys), max(ys))
        if log:
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        y_range = (low, high if high > low else low + 1)
        x_range = y_range if square else (min(xs), max(max(xs), min(xs) + 1e-9))
        return cls(x_range, y_range, log, rate, square)

    @property
    def width(self) -> int:
        return LEFT + SIDE + RIGHT if self.square else WIDTH

    @property
    def height(self) -> int:
        return TOP + SIDE + BOTTOM if self.square else HEIGHT + SECONDS * bool(self.rate)

    @property
    def bottom(self) -> int:
        """Where the axis of x lies."""
        return self.height - BOTTOM - SECONDS * bool(self.rate)

    def px(self, x: float) -> float:
        low, high = self.x_range
        return LEFT + (x - low) / (high - low) * (self.width - LEFT - RIGHT)

    def py(self, y: float) -> float:
        low, high = (math.log10(bound) for bound in self.y_range) if self.log else self.y_range
        y = math.log10(max(y, 1e-300)) if self.log else y
        return self.bottom - (y - low) / (high - low) * (self.bottom - TOP)

    def axes(self, x_label: str, y_label: str) -> list[str]:
        bottom, right = self.bottom, self.width - RIGHT
        parts = []
        for y in self._decades() if self.log else _ticks(*self.y_range, 5):
            at = f"{self.py(y):.1f}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{at}" dy=".32em" text-anchor="end">{_number(y)}</text>')
        for x in _ticks(*self.x_range, 6):
            at = f"{self.px(x):.1f}"
            parts.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{_number(x)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts += self._seconds(bottom + 18 + SECONDS)
        middle, label = (LEFT + right) / 2, f"{x_label}, and seconds below" if self.rate else x_label
        name = f'x="{middle}" y="{self.height - 4}" text-anchor="middle"'
        parts.append(f'<text class="name" {name}>{escape(label)}</text>')
        turn = f"rotate(-90 12 {(TOP + bottom) / 2})"
        name = f'x="12" y="{(TOP + bottom) / 2}" text-anchor="middle" transform="{turn}"'
        return [*parts, f'<text class="name" {name}>{escape(y_label)}</text>']

    def scale(self) -> str:
        """How the page's script finds values from places: data and user units of the ends of both axes."""
        low, high = (math.log10(bound) for bound in self.y_range) if self.log else self.y_range
        x = f"{self.x_range[0]:g} {self.x_range[1]:g} {LEFT} {self.width - RIGHT}"
        rate = f' data-rate="{self.rate:g}"' if self.rate else ""
        return f'data-x="{x}" data-y="{low:g} {high:g} {self.bottom} {TOP}" data-log="{int(self.log)}"{rate}'

    def curve(self, line: Line, key: int | None = None) -> str:
        """`key`: place of the line in the legend."""
        attribute = "" if key is None else f' data-key="{key}"'
        pieces = (self._points(*piece) for piece in _pieces(line.x, line.y))
        return "".join(f'<polyline class="{line.style}"{attribute} points="{points}"/>' for points in pieces)

    def band(self, line: Line) -> str:
        whole = []
        for (xs, lows), (_, highs) in zip(_pieces(line.x, line.low), _pieces(line.x, line.high), strict=True):
            back = self._points(xs, lows).split(" ")[::-1]
            whole.append(f'<polygon class="{line.style}" points="{self._points(xs, highs)} {" ".join(back)}"/>')
        return "".join(whole)

    def dots(self, line: Line) -> list[str]:
        """A dot at each point; with a bar where the point stands alone, for a band of one point has no area."""
        parts = []
        for xs, ys in _pieces(line.x, line.y):
            parts += [
                f'<circle class="small {line.style}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="4"/>'
                for x, y in zip(xs, ys, strict=True)
            ]
            if len(xs) == 1 and line.low is not None:
                i = list(line.x).index(xs[0])
                x, low, high = self.px(xs[0]), self.py(line.low[i]), self.py(line.high[i])
                bar = f'x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"'
                parts.append(f'<line class="bar {line.style}" {bar}/>')
        return parts

    def mark(self, mark: Mark) -> list[str]:
        x, y = f"{self.px(mark.x):.1f}", f"{self.py(mark.y):.1f}"
        parts = []
        if mark.x_bar:
            low, high = (f"{self.px(end):.1f}" for end in mark.x_bar)
            parts.append(f'<line class="bar {mark.style}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>')
        if mark.y_bar:
            low, high = (f"{self.py(end):.1f}" for end in mark.y_bar)
            parts.append(f'<line class="bar {mark.style}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
        return [*parts, f'<circle class="{mark.style}" cx="{x}" cy="{y}" r="5"/>']

    def names(self, marks: Sequence[Mark]) -> list[str]:
        """The labels of the marks, each beside its own where none of the others lies."""
        places = [(self.px(mark.x), self.py(mark.y)) for mark in marks]
        taken, parts = [(x - 6, y - 6, x + 6, y + 6) for x, y in places], []
        for mark, (x, y) in zip(marks, places, strict=True):
            if mark.label:
                box, anchor = _free(x, y, LETTER * len(mark.label), taken, self.width)
                taken.append(box)
                at = f'x="{box[0] if anchor == "start" else box[2]:.1f}" y="{box[3] - 5:.1f}" text-anchor="{anchor}"'
                parts.append(f'<text class="name" {at}>{escape(mark.label)}</text>')
        return parts

    def _seconds(self, y: float) -> list[str]:
        """The second row of numbers below the axis of x."""
        if not self.rate:
            return []
        ticks = _ticks(*(end / self.rate for end in self.x_range), 6)
        return [
            f'<text x="{self.px(x * self.rate):.1f}" y="{y}" text-anchor="middle">{_number(x)} s</text>' for x in ticks
        ]

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        kept = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), POINTS)).round().astype(int)) if len(xs) else []
        return " ".join(f"{self.px(xs[i]):.1f},{self.py(ys[i]):.1f}" for i in kept)

    def _decades(self) -> list[float]:
        low, high = (round(math.log10(bound)) for bound in self.y_range)
        return [10.0**power for power in range(low, high + 1)]


def _pieces(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[list[float], list[float]]]:
    """The runs of points whose y is finite."""
    pieces: list[tuple[list[float], list[float]]] = []
    broken = True
    for x, y in zip(xs, ys, strict=True):
        if not math.isfinite(y):
            broken = True
            continue
        if broken:
            pieces.append(([], []))
            broken = False
        pieces[-1][0].append(x)
        pieces[-1][1].append(y)
    return pieces


def _free(x: float, y: float, wide: float, taken: Sequence[tuple], width: float) -> tuple[tuple, str]:
    """(box, text-anchor) of a label beside (x, y) that covers the fewest of the boxes `taken`, the nearest first."""
    places = []
    for away in (8, 24, 40, 56):
        for up in (True, False):
            top = y - away - LINE + 6 if up else y + away - 6
            places += [
                ((x + 7, top, x + 7 + wide, top + LINE), "start"),
                ((x - 7 - wide, top, x - 7, top + LINE), "end"),
            ]
    inside = [place for place in places if LEFT <= place[0][0] and place[0][2] <= width and place[0][1] >= 0] or places
    return min(inside, key=lambda place: sum(_overlap(place[0], other) for other in taken))


def _overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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
