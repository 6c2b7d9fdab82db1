"""Numbers of the records by name, for the texts of pages: `{{ cell('grids/lift-width', 'wide', 'success') | rate }}`.

    episodes(record)                    an evaluation: .n .successes .success .progress
    expert(task)                        a scripted expert: .n .successes .success
    comparison(folder)                  its JSON: .sequential.pairs and so on
    cell(record, row.., column)         a study's cell of the one row that holds all these texts, or `column=text`
    note(record, pattern)               what a pattern finds in a study's notes: its group, or all of it
    noted(record, pattern)              the interval in points behind such a pattern in its notes: as a cell is
    wall(record..)                      minutes that evaluations took
    target(bench, what, times)          the target of a ratio of `understudy bench all`, and whether a record reaches it
    config(file, pattern)               what a pattern finds in the head of a file of `configs/`

Filters: `rate` estimate with interval, `bare` estimate alone, `points` percentage points, `percent`, `count`, `about`;
`inverted` a ratio of times as that of speeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from ..bench.headlines import HEADLINES, reached
from ..catalog.measured import read_measured
from ..compare.comparison import read_comparison
from ..ledger.chains import CODE
from ..ledger.record import read_record
from ..ledger.study import read_study
from ..ledger.summary import summarize
from ..statistics.intervals import wilson
from .tables import rows_with


class FactError(ValueError):
    """A text that asks for a number which the records do not hold; the message says which."""


class Facts:
    """Fills texts from the records of a folder."""

    def __init__(self, root: Path):
        from jinja2 import Environment, StrictUndefined

        self.root = root
        self._studies = cache(lambda name: read_study(root / f"{name}.json"))
        self._summaries = cache(lambda name: summarize(read_record(root / name)))
        self._environment = Environment(undefined=StrictUndefined, autoescape=False)
        names = ("episodes", "expert", "comparison", "cell", "note", "noted", "wall", "target", "config")
        self._environment.globals = {name: getattr(self, name) for name in names}
        self._environment.filters |= dict(
            rate=rate, bare=bare, points=points, percent=percent, count=count, about=about, inverted=inverted
        )

    def fill(self, text: str) -> str:
        """The text with its numbers, on one line."""
        return " ".join(self._asked(text, lambda: self._environment.from_string(str(text)).render()).split())

    def value(self, expression: str):
        """What an expression gives, as a value: an interval or a number."""
        from jinja2 import StrictUndefined

        found = self._asked(expression, lambda: self._environment.compile_expression(expression, False)())
        if isinstance(found, StrictUndefined):
            raise FactError(f"'{expression}' gives nothing")
        return found

    def _asked(self, text: str, ask: Callable):
        from jinja2 import TemplateError

        try:
            return ask()
        except (TemplateError, FileNotFoundError, AttributeError, TypeError, ValueError) as cause:
            raise FactError(f"in '{' '.join(str(text).split())[:160]}': {cause}") from cause

    def episodes(self, name: str):
        return self._summaries(name)

    def expert(self, task: str):
        measured = read_measured(task, self.root / "experts")
        if measured is None:
            raise FactError(f"no measured expert of '{task}'")
        rate = wilson(measured.successes, measured.episodes)
        return SimpleNamespace(n=measured.episodes, successes=measured.successes, success=rate)

    def comparison(self, folder: str):
        return read_comparison(self.root / folder)

    def cell(self, name: str, *keys: str):
        study, (*wanted, column) = self._studies(name), keys
        if column not in study.columns:
            raise FactError(f"{name} has no column '{column}'; it has {', '.join(study.columns)}")
        rows = rows_with(study, wanted)
        if len(rows) != 1:
            raise FactError(f"{name} has {len(rows)} rows with {', '.join(map(str, wanted))}, not one")
        return rows[0][study.columns.index(column)]

    def note(self, name: str, pattern: str) -> str:
        found = re.search(pattern, " ".join(self._studies(name).notes))
        if not found:
            raise FactError(f"no note of {name} holds '{pattern}'")
        return found[1] if found.groups() else found[0]

    def noted(self, name: str, pattern: str) -> tuple[float, float, float]:
        """(low, value, high) of `.. 18.5 [9.1, 27.9] points`, in parts of one."""
        number = r"([-+]?[\d.]+)"
        for note in self._studies(name).notes:
            if found := re.search(rf"(?:{pattern}).*?: {number} \[{number}, {number}\] points", note):
                middle, low, high = (float(part) / 100 for part in found.groups()[-3:])
                return low, middle, high
        raise FactError(f"no note of {name} states an interval in points behind '{pattern}'")

    def wall(self, *names: str) -> float:
        manifests = [read_record(self.root / name).manifest for name in names]
        return sum(manifest["wall"] for manifest in manifests) / 60

    def target(self, bench: str, what: str, times) -> str:
        """At least 8: yes"""
        found = next((line for line in HEADLINES if (line.bench, line.what) == (bench, what)), None)
        if found is None or found.target is None:
            raise FactError(f"no target is set for '{what}' of bench {bench}")
        return f"at least {found.target:g}: {reached(times, found.target)}"

    def config(self, name: str, pattern: str) -> str:
        lines = (line.lstrip("# ") for line in (CODE / name).read_text().splitlines() if line.startswith("#"))
        found = re.search(pattern, " ".join(lines), re.IGNORECASE)
        if not found:
            raise FactError(f"the head of {name} holds no '{pattern}'")
        return found[0][0].lower() + found[0][1:]


def _parts(value) -> tuple[float | None, float, float | None]:
    if isinstance(value, tuple):
        return value
    return None, float(value), None


def _fixed(value: float, digits: int) -> str:
    """Rounded as by hand: a half goes up. Never -0."""
    exact = Decimal(repr(round(value, 10))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{exact if exact else abs(exact):,.{digits}f}"


def rate(value, digits: int = 2) -> str:
    """0.87 [0.81, 0.93]"""
    low, middle, high = _parts(value)
    text = _fixed(middle, digits)
    return text if low is None or high is None else f"{text} [{_fixed(low, digits)}, {_fixed(high, digits)}]"


def bare(value, digits: int = 2) -> str:
    """0.87"""
    return _fixed(_parts(value)[1], digits)


def points(value, digits: int = 0) -> str:
    """+24 [20, 28] points, of a difference of rates."""
    hundredfold = tuple(None if part is None else 100 * part for part in _parts(value))
    text = rate(hundredfold, digits)
    sign = "" if text.startswith("-") or not _fixed(100 * _parts(value)[1], digits).strip("0.") else "+"
    return f"{sign}{text} points"


def percent(value, digits: int = 0) -> str:
    """87 %"""
    return f"{_fixed(100 * _parts(value)[1], digits)} %"


def inverted(value):
    """How many times as fast, of times that are so many times as long."""
    if isinstance(value, tuple):
        low, middle, high = value
        return 1 / high, 1 / middle, 1 / low
    return 1 / value


def count(value) -> str:
    """3,197,396"""
    return f"{_parts(value)[1]:,.0f}"


def about(value) -> str:
    """6,019 as 6,000: two digits that count."""
    return f"{float(f'{_parts(value)[1]:.2g}'):,.0f}"
