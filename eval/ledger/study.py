"""A study's result as a small JSON file: what was measured, the command that a reader can run, one table, notes.

For everything that is no episode record: simulations of tests, coverage of intervals, benches. Committed under
`eval/records/<group>/<name>.json`; `understudy results` prints all of them. Knows nothing of what the numbers mean.

    Study(title="Coverage", command="understudy ...", columns=("interval", "n", "coverage"),
          rows=(("Wilson", 20, Interval(.94, .95, .96)),), notes=("2,000 runs, seed 0",)).write("coverage.json")

A cell is text, a number, true, false, null, or an interval: three numbers low, estimate, high (`intervals.Interval`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...configs.documents import SEAL, check_fields, content_digest, read_document
from ...configs.files import replace_text
from .provenance import provenance

FORMAT, KIND = 1, "study"


class StudyError(ValueError):
    """A study that cannot be written or read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table and what a reader must know about it. The fields are the keys of its file, beside format and kind.

    Raises:
        StudyError: no title, command or column; a row of another length; a cell of another kind or not finite.
    """

    title: str
    command: str  # what a reader runs to get these numbers again
    columns: Sequence[str]
    rows: Sequence[Sequence]
    notes: Sequence[str] = ()  # sentences: n, seeds, intervals, what it does not say
    provenance: dict = field(default_factory=dict)  # code, versions, machine; `write` fills it where it is empty

    def __post_init__(self):
        for name in ("title", "command", "columns"):
            if not getattr(self, name):
                raise StudyError(f"a study needs a {name}")
        if isinstance(self.columns, str) or isinstance(self.notes, str):
            raise StudyError("columns and notes are lists of texts")
        rows = tuple(tuple(_cell(cell) for cell in row) for row in self.rows)
        for row in rows:
            if len(row) != len(self.columns):
                raise StudyError(f"'{self.title}' has {len(self.columns)} columns, but a row of {len(row)}: {row}")
        values = {"columns": tuple(self.columns), "rows": rows, "notes": tuple(self.notes)}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def write(self, path: str | Path) -> Path:
        """Write beside and rename, one row a line; the folder is made. Returns the file."""
        values = dataclasses.asdict(self) | {"provenance": self.provenance or provenance()}
        lines = [f" {json.dumps(name)}: {_lines(name, value)}" for name, value in values.items()]
        text = ",\n".join([f' "format": {FORMAT}', f' "kind": "{KIND}"', *lines])
        digest = content_digest(json.loads(f"{{{text}}}"))
        return replace_text(Path(path), f'{{\n{text},\n "{SEAL}": "{digest}"\n}}\n')

    def tell(self, out: Path | None) -> None:
        """Print it, and write it to a file where one is named."""
        print(f"{self.title}\n\n{self.markdown()}\n\n" + "\n".join(self.notes))
        if out is not None:
            print(f"written: {self.write(out)}")

    def markdown(self) -> str:
        """The table alone, in GitHub's Markdown."""
        return table(self.columns, self.rows)


def read_study(path: str | Path) -> Study:
    """Read a study's file.

    Raises:
        FileNotFoundError: no such file.
        StudyError: something else, or written by a newer version.
    """
    values = read_document(path, KIND, FORMAT, StudyError)
    fields = {item.name for item in dataclasses.fields(Study)}
    if unknown := sorted(set(values) - fields):
        raise StudyError(f"{path}: unknown key '{unknown[0]}'. Known: {', '.join(sorted(fields))}")
    if missing := sorted({"title", "command", "columns", "rows"} - set(values)):
        raise StudyError(f"{path}: '{missing[0]}' is missing")
    check_fields(Study, values, path, StudyError)
    try:
        return Study(**values)
    except StudyError as cause:
        raise StudyError(f"{path}: {cause}") from cause


def cell_of(low: float, estimate: float, high: float) -> tuple[float, float, float] | float | None:
    """An interval as a cell: where it has no ends the estimate stands alone, and what is undefined is null."""
    if math.isnan(estimate):
        return None
    return estimate if math.isnan(low) else (low, estimate, high)


def table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table; numbers stand right."""
    numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    lines = [columns, ["--:" if number else ":--" for number in numeric]]
    lines += [[show(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def show(cell) -> str:
    """A cell as text: four significant digits, intervals as `estimate [low, high]`."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}" if abs(cell) >= 10_000 else str(cell)
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 10_000 else f"{cell:.4g}"

    if isinstance(cell, tuple):
        low, estimate, high = cell
        return (
            f"{estimate:.3f} [{low:.3f}, {high:.3f}]"
            if abs(estimate) < 10
            else f"{show(estimate)} [{show(low)}, {show(high)}]"
        )
    return " ".join(str(cell).split())


def _cell(cell):
    """A plain cell; NumPy's scalars become Python's."""
    if hasattr(cell, "item") and getattr(cell, "ndim", 0) == 0:
        cell = cell.item()
    if isinstance(cell, (tuple, list)):
        if len(cell) != 3 or not all(_is_number(_cell(part)) for part in cell):
            raise StudyError(f"a cell of several parts is an interval (low, estimate, high), got {cell!r}")
        return tuple(float(part) for part in cell)
    if not (cell is None or isinstance(cell, (str, int, float))):
        raise StudyError(f"a cell is text, a number, a truth value, null or an interval, got {cell!r}")
    if isinstance(cell, float) and not math.isfinite(cell):
        raise StudyError(f"a cell is not finite: {cell!r}; write null or text instead")
    return cell


def _is_number(cell) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _lines(name: str, value) -> str:
    """JSON with one row, or one note, a line."""
    if name in ("rows", "notes") and value:
        return "[\n" + ",\n".join(f"  {json.dumps(part, allow_nan=False)}" for part in value) + "\n ]"
    return json.dumps(value)
