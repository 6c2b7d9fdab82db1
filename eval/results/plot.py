"""A dot-and-interval plot as an SVG file: one row a setting, its name above its bar.

It is as wide as a phone's screen, brings its own light ground so that it can be read on a dark page too, and the same
rows give the same bytes. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 480, 16, 464  # user units; on a phone of 360 px a text of 15 is 11 px high
COLOURS = {"a": "#0b62c4", "b": "#b35900", "c": "#57606a"}
LONGEST = 46  # letters of a name that fit beside its number


class PlotError(ValueError):
    """Rows that cannot be drawn; the message says which."""


@dataclass(frozen=True)
class Row:
    """A value with its interval. Without a value: a heading over the rows that follow."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str = ""  # the value as a reader shall see it
    kind: str = "a"  # a, b or c: the colour


@dataclass(frozen=True)
class Axis:
    """The range of values, its name, whether it is logarithmic, and a value at which a line is drawn."""

    name: str
    low: float
    high: float
    log: bool = False
    line: float | None = None

    def x(self, value: float) -> float:
        low, high, value = (math.log10(part) if self.log else part for part in (self.low, self.high, value))
        return LEFT + (min(max(value, low), high) - low) / (high - low) * (RIGHT - LEFT)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def plot(title: str, axis: Axis, rows: Sequence[Row]) -> str:
    """The text of an SVG file.

    Raises:
        PlotError: no rows, an empty range, a name that does not fit, an unknown kind.
    """
    _check(axis, rows)
    places, y = [], 0
    for row in rows:
        places.append(y)
        y += 30 if row.value is None else 42
    length = y + 2

    def draw(top: float) -> tuple[list[str], float]:
        bottom = top + 8 + length
        parts = _grid(axis, top, bottom)
        for row, place in zip(rows, places, strict=True):
            parts += _row(row, axis, top + 8 + place)
        middle = (LEFT + RIGHT) / 2
        name = f'<text class="s" x="{middle:g}" y="{bottom + 38:g}" text-anchor="middle">{escape(axis.name)}</text>'
        return [*parts, name], bottom + 46

    return figure(title, draw)


def figure(title: str, draw: Callable[[float], tuple[list[str], float]]) -> str:
    """The text of an SVG file with this title: its light ground, and what `draw` puts below the title.

    Args:
        draw: the y at which the title ends -> elements, and the height of the picture.
    """
    heading = textwrap.wrap(title, 52) or [""]
    inside, height = draw(18 + 20 * len(heading))
    style = (
        "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;font-size:15px;fill:#1f2328}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}.b{{font-weight:600}}.s{{font-size:14px;fill:#424a53}}</style>",
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
    ]
    parts += [f'<text class="b" x="{LEFT}" y="{24 + 20 * i}">{escape(line)}</text>' for i, line in enumerate(heading)]
    return "\n".join([*parts, *inside, "</svg>"]) + "\n"


def _check(axis: Axis, rows: Sequence[Row]) -> None:
    if not any(row.value is not None for row in rows):
        raise PlotError("nothing to draw: no row has a value")
    if not axis.low < axis.high or (axis.log and axis.low <= 0):
        raise PlotError(f"the range of '{axis.name}' is {axis.low:g} to {axis.high:g}")
    for row in rows:
        if len(row.label) > LONGEST:
            raise PlotError(f"'{row.label}' has {len(row.label)} letters; {LONGEST} fit")
        if row.kind not in COLOURS:
            raise PlotError(f"no kind '{row.kind}'; known: {', '.join(COLOURS)}")


def _grid(axis: Axis, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in axis.ticks():
        x = axis.x(tick)
        anchor = "start" if x < LEFT + 8 else "end" if x > RIGHT - 8 else "middle"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#e4e8ec"/>')
        parts.append(f'<text class="s" x="{x:.1f}" y="{bottom + 17}" text-anchor="{anchor}">{_number(tick)}</text>')
    if axis.line is not None:
        x = axis.x(axis.line)
        dashes = 'stroke="#8c959f" stroke-width="1.5" stroke-dasharray="4 3"'
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" {dashes}/>')
    return [*parts, f'<line x1="{LEFT}" x2="{RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#8c959f"/>']


def _row(row: Row, axis: Axis, y: float) -> list[str]:
    halo = 'paint-order="stroke" stroke="#ffffff" stroke-width="4"'
    if row.value is None:
        return [f'<text class="b" x="{LEFT}" y="{y + 20}" {halo}>{escape(row.label)}</text>']
    colour, bar = COLOURS[row.kind], y + 27
    parts = [
        f'<text x="{LEFT}" y="{y + 15}" {halo}>{escape(row.label)}</text>',
        f'<text class="s" x="{RIGHT}" y="{y + 15}" text-anchor="end" {halo}>{escape(row.text)}</text>',
    ]
    if row.low is not None and row.high is not None:
        ends = f'x1="{axis.x(row.low):.1f}" x2="{axis.x(row.high):.1f}"'
        parts.append(f'<line {ends} y1="{bar}" y2="{bar}" stroke="{colour}" stroke-width="4" stroke-opacity=".45"/>')
    return [*parts, f'<circle cx="{axis.x(row.value):.1f}" cy="{bar}" r="6" fill="{colour}"/>']


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 6):g}"
