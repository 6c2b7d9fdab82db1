"""A table of rates as an SVG file: a row of cells under each label, darker where the rate is higher, gaps left open.

As wide as a phone's screen, like `plot.py`; a cell tells its number in figures, so that nothing depends on colours.
The same rows give the same bytes. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .facts import bare
from .plot import LEFT, RIGHT, PlotError, figure

LIGHT, DARK = (234, 242, 251), (9, 72, 148)  # colours of 0 and 1
GAP = 'fill="#ffffff" stroke="#b1bac4" stroke-dasharray="3 3"'
SPACE, HEIGHT = 3, 30  # between cells; of a cell
LONGEST = 56  # letters of a label and its aside together


@dataclass(frozen=True)
class HeatRow:
    """A label, what stands at the end of its line, and a rate from 0 to 1 (None: a gap) for each column."""

    label: str
    aside: str
    cells: Sequence[float | None]


def heat(title: str, columns: Sequence[str], rows: Sequence[HeatRow]) -> str:
    """The text of an SVG file.

    Args:
        columns: their names; `|` breaks a line.

    Raises:
        PlotError: no rows, a row of another length, a rate outside of 0 to 1, a label that does not fit.
    """
    _check(columns, rows)
    names = [column.split("|") for column in columns]
    lines = max(map(len, names))
    width = (RIGHT - LEFT + SPACE) / len(columns)

    def draw(top: float) -> tuple[list[str], float]:
        parts = []
        for place, name in enumerate(names):
            x = LEFT + place * width + (width - SPACE) / 2
            for line, text in enumerate(reversed(name)):
                y = top + 17 * (lines - line) - 4
                parts.append(f'<text class="s" x="{x:.1f}" y="{y:g}" text-anchor="middle">{escape(text)}</text>')
        y = top + 17 * lines + 4
        for row in rows:
            parts.append(f'<text x="{LEFT}" y="{y + 16:g}">{escape(row.label)}</text>')
            if row.aside:
                parts.append(f'<text class="s" x="{RIGHT}" y="{y + 16:g}" text-anchor="end">{escape(row.aside)}</text>')
            for place, rate in enumerate(row.cells):
                parts += _cell(rate, LEFT + place * width, y + 23, width - SPACE)
            y += 23 + HEIGHT + 9
        return parts, y

    return figure(title, draw)


def _check(columns: Sequence[str], rows: Sequence[HeatRow]) -> None:
    if not rows or not columns:
        raise PlotError("nothing to draw: no rows, or no columns")
    for row in rows:
        if len(row.cells) != len(columns):
            raise PlotError(f"'{row.label}' has {len(row.cells)} cells, and there are {len(columns)} columns")
        if len(row.label) + len(row.aside) > LONGEST:
            raise PlotError(f"'{row.label}' with '{row.aside}' is longer than {LONGEST} letters")
        for rate in row.cells:
            if rate is not None and not 0 <= rate <= 1:
                raise PlotError(f"'{row.label}' has a rate of {rate}")


def _cell(rate: float | None, x: float, y: float, width: float) -> list[str]:
    box = f'x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{HEIGHT}" rx="4"'
    if rate is None:
        return [f"<rect {box} {GAP}/>"]
    fill = "#" + "".join(f"{round(low + (high - low) * rate):02x}" for low, high in zip(LIGHT, DARK, strict=True))
    ink = ' style="fill:#ffffff"' if rate > 0.45 else ""
    text = f'<text x="{x + width / 2:.1f}" y="{y + 20:g}" text-anchor="middle"{ink}>{bare(rate)}</text>'
    return [f'<rect {box} fill="{fill}"/>', text]
