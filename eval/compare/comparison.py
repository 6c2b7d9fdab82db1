"""What several policies' episodes allow to conclude about which is better: numbers, and the words for them.

Reads finished records and joins them on their initial conditions. `Comparison` is plain data, printed by `text` and
kept as `compare.json`; a report renders it. Intervals and p-values of records are for a number of episodes fixed
beforehand; a sequential comparison that stopped early says so and is judged by its sequential test alone. Knows nothing
of how episodes came about.
"""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np

from ...configs.documents import check_fields, read_document, read_object, sealed
from ...configs.files import replace_text
from ...configs.former import MANIFEST, current_names, renamed
from ...configs.notebook import rows_html
from ...configs.progress import counted
from ..ledger.dreams import refused_starts, without
from ..ledger.identity import apart
from ..ledger.pairs import episodes_by_start, join
from ..ledger.record import Record
from ..ledger.summary import summarize
from ..statistics.betting import BettingTest
from ..statistics.intervals import Interval, mean_interval, wilson
from ..statistics.multiple import differing, holm, letters
from ..statistics.paired import PairedDifference, Pairs, paired_difference
from ..statistics.power import detectable

FORMAT, KIND, FILE = 2, "comparison", "compare.json"  # 1: differences were second minus first, evidence above 0 for B
POWER = 0.8  # for the smallest difference that would have been seen
CLOSE = 0.1  # a difference whose interval lies within this is called small


@dataclass(frozen=True)
class Contestant:
    """One policy. Intervals are two-sided, 95 %, over its own n episodes."""

    label: str  # A, B, ...
    title: str
    world: str
    record: str  # name of the record's folder
    n: int
    successes: int
    errors: int
    success: Interval  # Wilson
    progress: Interval  # mean of the best progress
    letters: str = ""  # policies that share one were not shown to differ


@dataclass(frozen=True)
class Difference:
    """Two contestants on the initial conditions that both have; differences are first minus second."""

    first: str  # label
    second: str
    n: int  # pairs
    only_first: int
    only_second: int
    success: Interval
    progress: Interval
    p: float | None  # exact McNemar; None where the episodes were not fixed beforehand
    p_holm: float | None  # corrected for the number of comparisons
    p_progress: float  # by betting on progress, pair by pair in the order of the env seeds; valid at any time
    detectable: float | None  # difference of success rates that n pairs show with power .8
    says: str


@dataclass(frozen=True, repr=False)
class Comparison:
    """All that is concluded, and from what."""

    alpha: float
    contestants: tuple[Contestant, ...]
    differences: tuple[Difference, ...]
    caveats: tuple[str, ...]
    episodes: tuple[
        dict, ...
    ]  # one an initial condition: initial_conditions, env_seed, success and progress (lists, None where not run)
    sequential: dict = field(default_factory=dict)  # of a live comparison: test, decision, pairs, budget, history, says
    name: str = ""  # title that a person gave

    def plain(self) -> dict:
        """JSON-able; intervals are [low, estimate, high]."""
        return {"format": FORMAT, "kind": KIND} | dataclasses.asdict(self)

    def write(self, folder: str | Path) -> Path:
        """Write `compare.json` into a folder, beside and renamed."""
        return replace_text(Path(folder) / FILE, json.dumps(sealed(self.plain()), indent=1) + "\n")

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        head = ("", "policy", "n", "success, 95 %", "best progress, 95 %")
        rows = [(one.label, one.title, str(one.n), str(one.success), str(one.progress)) for one in self.contestants]
        said = [self.sequential["says"]] if self.sequential else []
        said += [difference.says for difference in self.differences]
        return rows_html(head, rows) + "".join(f"<p>{escape(text)}</p>" for text in (*said, *self.caveats))

    def text(self) -> str:
        """For a terminal."""
        lines = [_table_text(self.contestants), ""]
        if self.sequential:
            lines += [self.sequential["says"], ""]
        lines += [difference.says for difference in self.differences]
        lines += ["", *(f"- {caveat}" for caveat in self.caveats)] if self.caveats else []
        return "\n".join(lines)


def read_comparison(folder: str | Path) -> dict:
    """What `Comparison.write` wrote, as plain data.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else, damaged, or from a newer version.
    """
    path = Path(folder) / FILE
    values = renamed(read_document(path, KIND, FORMAT, ValueError), MANIFEST)
    check_fields(Comparison, values, path, ValueError)
    if read_object(path, ValueError).get("format", 0) < 2:
        values = _turned(values)
    return _current(values) | {"format": FORMAT, "kind": KIND}


def _turned(values: dict) -> dict:
    """A comparison of format 1 with the signs of today; its sentences name both sides and stay."""
    differences = [
        one | {name: [-end for end in reversed(one[name])] for name in ("success", "progress")}
        for one in values["differences"]
    ]
    sequential = dict(values["sequential"])
    if "evidence" in sequential:
        sequential["evidence"] = -sequential["evidence"]
    if "history" in sequential:
        sequential["history"] = [[pairs, -evidence] for pairs, evidence in sequential["history"]]
    return values | {"differences": differences, "sequential": sequential}


def _current(values: dict) -> dict:
    """A comparison that an earlier version wrote, with today's keys."""
    return values | {"episodes": [current_names(episode) for episode in values["episodes"]]}


def compare_records(
    records: Sequence[Record], alpha: float = 0.05, seed: int = 0, sequential: Mapping | None = None, name: str = ""
) -> Comparison:
    """Compare two or more records on the initial conditions that each two of them share.

    Starts that a dream refused, in any of finished records, are left out of all.

    Args:
        seed: of the bootstrap.
        name: title of the comparison.
        sequential: result of a live comparison that looked at the records as they came in; then no fixed-n p-value
            is given.

    Raises:
        ValueError: fewer than two records, or an empty one.
        PairingError: two records without a common initial condition.
    """
    if len(records) < 2:
        raise ValueError("a comparison needs at least two records or policies")
    rng, names = np.random.default_rng(seed), [_label(i) for i in range(len(records))]
    refused = refused_starts(records)
    records = records if sequential else known_starts(records)

    peeked = _peeked(records, sequential)
    order = list(combinations(range(len(records)), 2))
    if (sequential or {}).get("independent"):
        order = []  # each policy had initial conditions of its own

    # every pair, on what both have
    joined = [join(records[first], records[second]) for first, second in order]
    measured = [paired_difference(pairs, rng) for pairs in joined]
    adjusted = holm([difference.p for difference in measured])

    contestants = [_contestant(name, record) for name, record in zip(names, records, strict=True)]
    if len(records) > 2 and not peeked:
        shown = letters(
            [contestant.success.estimate for contestant in contestants],
            differing(len(records), order, [difference.p for difference in measured], alpha),
        )
        contestants = [
            dataclasses.replace(contestant, letters=text) for contestant, text in zip(contestants, shown, strict=True)
        ]

    differences = tuple(
        _difference(names[i], names[j], pairs, difference, None if peeked else float(p), alpha, len(order))
        for (i, j), pairs, difference, p in zip(order, joined, measured, adjusted, strict=True)
    )

    return Comparison(
        alpha=alpha,
        contestants=tuple(contestants),
        differences=differences,
        caveats=tuple(_caveats(records, joined, peeked, len(refused), left=not sequential)),
        episodes=tuple(_episodes(records)),
        sequential=dict(sequential or {}),
        name=name,
    )


def known_starts(records: Sequence[Record]) -> Sequence[Record]:
    """The records without the starts that a dream refused in any of them. Raises MatchError where nothing is left."""
    refused = refused_starts(records)
    return without(records, refused) if refused else records


def _contestant(label: str, record: Record) -> Contestant:
    summary = summarize(record)
    return Contestant(
        label=label,
        title=summary.title,
        world=summary.world,
        record=record.root.name,
        n=summary.n,
        successes=summary.successes,
        errors=summary.errors,
        success=wilson(summary.successes, summary.n),
        progress=mean_interval(record.column("best_progress")),
    )


def _difference(
    first: str, second: str, pairs: Pairs, measured: PairedDifference, p_holm: float | None, alpha: float, asked: int
) -> Difference:
    progress = _bet_on_progress(pairs, alpha)
    seen = detectable(
        measured.n, float(pairs.success.mean()), paired=True, correlation=_correlation(pairs.success), alpha=alpha
    )

    return Difference(
        first=first,
        second=second,
        n=measured.n,
        only_first=measured.only_first,
        only_second=measured.only_second,
        success=_mirrored(measured.success),
        progress=_mirrored(measured.progress),
        p=None if p_holm is None else measured.p,
        p_holm=p_holm,
        p_progress=progress,
        detectable=seen,
        says=_say(first, second, measured, p_holm, progress, seen, alpha, asked),
    )


def _say(first, second, measured: PairedDifference, p_holm, p_progress: float, seen, alpha: float, asked: int) -> str:
    """A comparison in words; every difference is first - second."""
    better, worse = (second, first) if measured.success.estimate > 0 else (first, second)
    points = f"{first} - {second} is {_points(_mirrored(measured.success))}"
    progress = f"in best progress {_points(_mirrored(measured.progress))}"
    counts = f"{measured.n} common initial conditions, only {first} succeeds at {measured.only_first}, "
    counts += f"only {second} at {measured.only_second}"

    if p_holm is None:
        looked = "The episodes were looked at while they came in: no p-value."
        return f"{points} in success ({counts}), {progress}. {looked}"

    test = f"exact McNemar p = {p_holm:.2g}" + (f", Holm over {asked} comparisons" if asked > 1 else "")
    if p_holm <= alpha:
        text = f"{better} succeeds more often than {worse}: {points} ({counts}; {test}), {progress}."
    else:
        text = f"{first} and {second} are not shown to differ in success: "
        text += f"{points} ({counts}; {test}), {progress}."
        text += f" {_blind_spot(measured.n, seen)} That is no evidence of being equal"
        text += f", but a difference beyond {100 * CLOSE:.0f} points is unlikely." if _small(measured.success) else "."

    if p_progress * asked <= alpha:
        ahead = second if measured.progress.estimate > 0 else first
        text += f" {ahead} makes more progress (betting test, p = {min(1, p_progress * asked):.2g})."

    return text


def _blind_spot(n: int, seen: float | None) -> str:
    if seen is None:
        return f"{n} pairs would hardly show any difference."
    return f"{n} pairs show a difference of {100 * seen:.0f} points in {100 * POWER:.0f} % of cases, smaller ones less."


def _bet_on_progress(pairs: Pairs, alpha: float) -> float:
    test = BettingTest(len(pairs.progress), alpha)
    for first, second in np.clip(pairs.progress, 0, 1):
        if test.decision is None:
            test.update(first, second)
    return test.p_value()


def _caveats(records: Sequence[Record], joined: Sequence[Pairs], peeked: bool, refused: int, left: bool):
    yield "Applies to these checkpoints and to initial conditions like these; another training seed may differ by more."
    for record in records:
        if begun := sum(first == 0 for first in record.column("first_success")):
            yield f"{begun} episodes of {record.root.name} had succeeded at reset, before any action."
    worlds = [record.manifest.get("world") or {} for record in records]
    if found := next(filter(None, (apart(worlds[0], world) for world in worlds)), ""):
        yield f"The records are from different worlds ({found}): a difference may be the world's, not the policy's."
    if refused:
        what = "were left out of all records" if left else "count as failures of both"
        yield f"The dream does not know the scenes of {counted(refused, 'start')}, which {what}."
    if len(joined) > 1:
        yield "Intervals are 95 % each; only the p-values are corrected for the number of comparisons."
    left_out = max((pairs.left_out for pairs in joined), default=0)
    if left_out:
        yield f"Up to {left_out} initial conditions were left out of a pair: only one of the two has them."
    failed = [(record.root.name, sum(map(bool, record.column("error")))) for record in records]
    if any(count for _, count in failed):
        listed = ", ".join(f"{count} of {name}" for name, count in failed if count)
        yield f"Episodes ended in an error of the environment ({listed}): they count as failures, whoever acted."
    if any(not record.manifest.get("complete", True) for record in records) and not peeked:
        yield "A record is unfinished: if it was stopped because of what it showed, its p-values do not hold."
    if peeked:
        yield "Rates and intervals of a comparison that stops by what it shows lean towards the policy that leads."


def _peeked(records: Sequence[Record], sequential: Mapping | None) -> bool:
    """Whether the number of episodes depended on what they showed."""
    plans = [sequential or {}, *(record.manifest.get("sequential", {}) for record in records)]
    return any(plan.get("until_decided") for plan in plans)


def _episodes(records: Sequence[Record]):
    by_start = [episodes_by_start(record) for record in records]
    for kind, start in sorted(set().union(*by_start)):
        outcomes = [episodes.get((kind, start)) for episodes in by_start]
        yield {
            "initial_conditions": kind,
            "env_seed": start,
            "success": [None if outcome is None else bool(outcome[0]) for outcome in outcomes],
            "progress": [None if outcome is None else round(outcome[1], 4) for outcome in outcomes],
        }


def _correlation(success: np.ndarray) -> float:
    """Of the outcomes within a pair; 0 where one of the two is always the same."""
    spread = success.std(0)
    return float(np.corrcoef(success.T)[0, 1]) if spread.min() > 0 else 0.0


def _table_text(contestants: Sequence[Contestant]) -> str:
    width = max(len(contestant.title) for contestant in contestants)
    lettered = any(contestant.letters for contestant in contestants)
    note = "same letter: not shown to differ" if lettered else ""
    head = f"   {'policy':<{width}}  {'success, Wilson 95 %':<30}{'best progress':<24}{note}"
    rows = []
    for contestant in contestants:
        name, of = f"{contestant.label}  {contestant.title:<{width}}", f"of {contestant.n}"
        rates = f"{contestant.success!s:<22}{of:<8}{contestant.progress!s:<24}"
        rows.append(f"{name}  {rates}{contestant.letters}")
    return "\n".join([head.rstrip(), *(row.rstrip() for row in rows)])


def _points(interval: Interval) -> str:
    low, middle, high = (f"{100 * value:+.0f}".replace("-0", "0").replace("+0", "0") for value in interval)
    return f"{middle} points [{low}, {high}]"


def _mirrored(interval: Interval) -> Interval:
    return Interval(-interval.high, -interval.estimate, -interval.low)


def _small(interval: Interval) -> bool:
    return -CLOSE <= interval.low and interval.high <= CLOSE


def _label(i: int) -> str:
    return string.ascii_uppercase[i] if i < 26 else f"P{i + 1}"
