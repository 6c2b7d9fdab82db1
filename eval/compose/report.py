"""What a search for weights was worth: the mixture beside its parents, a control and what was promised.

The best of several noisy rates promises too much. So the rate that the search saw of the weights it chose stands beside
the rate from initial conditions that no choice was made on; the difference is the optimism. Differences to the parents
and to the control are paired on the fresh initial conditions and for a number fixed beforehand. Reads records and the
search; plain data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ledger.pairs import join
from ..ledger.record import Record
from ..statistics.intervals import Interval, mean_interval, wilson
from ..statistics.multiple import holm
from ..statistics.paired import newcombe, paired_difference
from .predicted import Predicted
from .search import SearchResult, weights_text

MIXTURE, PARENT, CONTROL = "mixture", "parent", "control"


@dataclass(frozen=True)
class ReportRow:
    """Who acted on the fresh initial conditions. Differences: the chosen mixture minus this one, in success."""

    name: str
    role: str  # mixture | parent | control
    record: str  # folder name of its fresh record
    n: int
    success: Interval  # Wilson
    progress: Interval  # mean best progress
    promised: Interval | None = None  # success that the search saw, on those it chose by
    difference: Interval | None = None  # paired, Tango
    only_mixture: int = 0  # initial conditions at which the mixture alone succeeded
    only_other: int = 0
    p: float | None = None  # exact McNemar, Holm over the rows of the report


@dataclass(frozen=True)
class Report:
    """Everything that the page and the terminal show."""

    parents: tuple[str, ...]  # in the order of the weights
    search: str
    on: str
    found: SearchResult
    entries: tuple[ReportRow, ...] = ()
    optimism: Interval | None = None  # promised minus fresh success of the chosen weights
    predicted: Predicted | None = None
    notes: tuple[str, ...] = ()

    @property
    def mixture(self) -> ReportRow | None:
        return next((row for row in self.entries if row.role == MIXTURE), None)

    @property
    def better(self) -> ReportRow | None:
        """The parent that did best on the fresh initial conditions; the choice can only hurt the mixture's standing."""
        rows = [row for row in self.entries if row.role == PARENT]
        return max(rows, key=lambda row: row.success.estimate) if rows else None

    @property
    def control(self) -> ReportRow | None:
        return next((row for row in self.entries if row.role == CONTROL), None)

    def headline(self) -> str:
        """The outcome in words."""
        weights = weights_text(self.found.chosen)
        if not self.mixture:
            return f"The chosen weights are {weights}; nothing was reported on fresh initial conditions."
        if sum(part > 0 for part in self.found.chosen) == 1:
            alone = self.parents[int(np.argmax(self.found.chosen))]
            return f"No mixture did better than one parent alone: the search chose {alone}."
        parts = [_against(row) for row in (self.better, self.control) if row]
        return f"The mixture {weights} succeeds in {_rate(self.mixture)}; it {', and '.join(parts)}."

    def text(self) -> str:
        """For a terminal."""
        lines = [*_tried(self), "", self.found.says, _cost(self.found)]
        if self.predicted:
            lines += ["", *predicted_text(self.predicted)]
        lines += ["", *_table(self.entries)] if self.entries else []
        lines += ["", self.headline()]
        if self.optimism:
            lines.append(
                f"Optimism: the search saw {_percent(self.mixture.promised.estimate)} with these weights, fresh initial"
                f" conditions gave {_percent(self.mixture.success.estimate)}; {_points(self.optimism)} points too much."
            )
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])


def entry(name: str, role: str, record: Record, promised: Record | None = None) -> ReportRow:
    """What a fresh record says, and what the search's record of the same weights had said."""
    won = record.column("success")
    seen = None if promised is None else rate(promised)
    progress = mean_interval(np.clip(record.column("best_progress"), 0, 1))
    return ReportRow(name, role, record.root.name, len(won), wilson(sum(won), len(won)), progress, seen)


def rate(record: Record) -> Interval:
    """Success with Wilson's interval."""
    won = record.column("success")
    return wilson(sum(won), len(won))


def compared(entries: Sequence[ReportRow], records: Sequence[Record], seed: int = 0) -> tuple[ReportRow, ...]:
    """The entries with differences of the first one to each other one; p-values corrected for their number."""
    rng, rows = np.random.default_rng(seed), []
    for row, record in zip(entries[1:], records[1:], strict=True):
        paired = paired_difference(join(record, records[0]), rng)
        counts = {"only_mixture": paired.only_second, "only_other": paired.only_first}
        rows.append(dataclasses.replace(row, difference=paired.success, p=paired.p, **counts))
    adjusted = holm([row.p for row in rows]) if rows else []
    rows = [dataclasses.replace(row, p=float(p)) for row, p in zip(rows, adjusted, strict=True)]
    return (entries[0], *rows)


def optimism(promised: Record, fresh: Record) -> Interval:
    """Promised minus fresh success; the initial conditions are others, so the interval is Newcombe's."""
    seen, held = (record.column("success") for record in (promised, fresh))
    return newcombe((sum(held), len(held)), (sum(seen), len(seen)))


def plain(report: Report) -> dict:
    """JSON-able; intervals are [low, estimate, high]."""
    values = dataclasses.asdict(report)
    values["found"] |= {"episodes": report.found.episodes}
    for prediction in [values["predicted"]["prediction"], *values["predicted"]["others"]] if report.predicted else []:
        prediction["error"] = prediction["error"].value
    return _finite(values)


def predicted_text(predicted: Predicted) -> list[str]:
    """What the denoising error says, for a terminal."""
    prediction = predicted.prediction
    weights = ", ".join(f"{part:.2f} [{low:.2f}, {high:.2f}]" for low, part, high in prediction.intervals)
    others = "; ".join(f"by {other.error.value} {weights_text(other.weights)}" for other in predicted.others)
    lower = f"{100 * prediction.gain:.1f} % below the best parent's"
    gain = lower if max(prediction.weights) < 1 else "no lower than the best parent's"
    return [
        f"Denoising error ({prediction.error.value}, {prediction.about}): least at {weights}, 95 % over episodes;"
        f" {gain}",
        f"  ({others}; R2 of the quadratic {predicted.r_squared:.6f}).",
    ]


def interval_of(outcomes: Sequence[float], on: str) -> Interval:
    """Of the mean outcome of some weights."""
    return wilson(round(sum(outcomes)), len(outcomes)) if on == "success" else mean_interval(outcomes)


def _tried(report: Report) -> list[str]:
    """A line for each choice of weights."""
    lines = [f"{'weights':<22}{report.on:>10}   {'95 %':<14}{'episodes':>9}"]
    for choice in report.found.tried:
        if not choice.outcomes:
            continue
        low, mean, high = interval_of(choice.outcomes, report.on)
        mark = f"dropped {choice.dropped}" if choice.dropped else ""
        if choice.weights == report.found.chosen:
            mark = "<- chosen"
        ends = f"{low:.2f} - {high:.2f}"
        weights, n = weights_text(choice.weights), len(choice.outcomes)
        lines.append(f"{weights:<22}{mean:>10.3f}   {ends:<14}{n:>9}  {mark}".rstrip())
    return lines


def _cost(result: SearchResult) -> str:
    return f"{result.episodes} episodes; the full grid takes {result.full}."


def _table(entries: Sequence[ReportRow]) -> list[str]:
    width = max(len(row.name) for row in entries) + 2
    lines = [f"{'':<{width}}{'fresh success':<26}{'n':>5}  {'seen in search':<24}mixture minus it, paired"]
    for row in entries:
        seen = "-" if row.promised is None else str(row.promised)
        gain = "" if row.difference is None else f"{_points(row.difference)} points, p {row.p:.2g}"
        lines.append(f"{row.name:<{width}}{row.success!s:<26}{row.n:>5}  {seen:<24}{gain}")
    return lines


def _against(row: ReportRow) -> str:
    """`is better than runs/a (+7.0 [+2.1, +12.0] points)`."""
    low, _, high = row.difference
    verdict = "is better than" if low > 0 else "is worse than" if high < 0 else "is not shown to differ from"
    who = f"the control, {row.name}" if row.role == CONTROL else row.name
    return f"{verdict} {who} ({_points(row.difference)} points)"


def _rate(row: ReportRow) -> str:
    low, mean, high = (_percent(part) for part in row.success)
    return f"{mean} of {row.n} fresh initial conditions [{low}, {high}]"


def _points(value: Interval) -> str:
    return f"{100 * value.estimate:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _finite(value):
    """Plain JSON: tuples become lists, NaN null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
