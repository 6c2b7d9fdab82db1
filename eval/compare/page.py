"""`compare.html`: a comparison as one page, made from its `Comparison` and the records it speaks of.

Verdict, intervals side by side, success over steps, the evidence of a live one, every initial condition with the
outcomes of all policies (chosen with a click: progress and films side by side), and where everything came from. Decides
nothing.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...configs.files import replace_text
from ..ledger.films import film_paths
from ..ledger.origin import command, facts, flag_words, inline, on_lines, origin
from ..ledger.record import Record
from ..ledger.summary import rate_of
from ..pages.charts import Line, chart
from ..pages.gallery import Film, films
from ..pages.page import page
from ..statistics.intervals import success_by_step, wilson
from .comparison import Comparison

PAGE = "compare.html"
STYLES = "abcdef"  # CSS classes of the policies, in turn
POINTS = 60  # of each curve of progress


def write_comparison(comparison: Comparison, records: Sequence[Record], folder: str | Path) -> Path:
    """Write `folder/compare.html` and return its path. `records`: one for each contestant, in their order."""
    return replace_text(Path(folder) / PAGE, render(comparison, records))


def render(comparison: Comparison, records: Sequence[Record]) -> str:
    """The HTML text of a comparison.

    Raises:
        ValueError: not one record for each contestant.
    """
    from markupsafe import Markup

    sides = list(zip(comparison.contestants, records, strict=True))
    styles = {contestant.label: STYLES[i % len(STYLES)] for i, contestant in enumerate(comparison.contestants)}
    shown = pairs_of_films(comparison, records)
    return page(
        PAGE,
        comparison=comparison,
        title=title(comparison),
        headline=headline(comparison),
        styles=styles,
        dates=sorted({origin(record.manifest)[0] for record in records} - {"-"}),
        at_reset={one.label: record.column("first_success").count(0) for one, record in sides},
        rate=_rate(records),
        success=Markup(success_chart(comparison, records)),
        progress=Markup(progress_chart(comparison, records)),
        evidence=Markup(evidence_chart(comparison.sequential)),
        counts=outcome_counts(comparison),
        starts=starts(comparison, records, set(shown)),
        films=shown,
        sources=[(contestant, list(facts(record.manifest))) for contestant, record in sides],
        command=repeat(comparison, records),
    )


def title(comparison: Comparison) -> str:
    """The name that was given, or what is asked."""
    labels = [contestant.label for contestant in comparison.contestants]
    asked = f"{labels[0]} or {labels[1]}" if len(labels) == 2 else f"{labels[0]} to {labels[-1]}"
    return comparison.name or f"Which is better: {asked}?"


def headline(comparison: Comparison) -> str:
    """The verdict in words: of the sequential comparison, of the one pair, or who leads."""
    if comparison.sequential:
        return comparison.sequential["says"]
    if len(comparison.differences) == 1:
        return comparison.differences[0].says
    leaders = [contestant.label for contestant in comparison.contestants if "a" in contestant.letters]
    if not leaders:
        return "The episodes were looked at while they came in, so that no order is claimed."
    if len(leaders) == 1:
        return f"{leaders[0]} succeeds more often than each of the others."
    best = max(comparison.contestants, key=lambda contestant: contestant.success.estimate).label
    others = " and ".join(label for label in leaders if label != best)
    return f"{best} has the highest rate, but is not shown to succeed more often than {others}."


def success_chart(comparison: Comparison, records: Sequence[Record]) -> str:
    """Share of episodes that succeeded, by control steps, a curve for each policy with its 95 % band."""
    horizon, lines = max(max(record.column("length")) for record in records), []
    for i, (contestant, record) in enumerate(zip(comparison.contestants, records, strict=True)):
        share = success_by_step(record.column("first_success"), horizon)
        bands = [wilson(round(value * contestant.n), contestant.n) for value in share]
        low, high = [band.low for band in bands], [band.high for band in bands]
        lines.append(Line(range(horizon + 1), share.tolist(), STYLES[i % len(STYLES)], contestant.label, low, high))
    name = "share of episodes that have succeeded, over control steps, for each policy"
    return chart(
        lines, x_label="control steps", y_label="share of episodes", y_range=(0, 1), title=name, rate=_rate(records)
    )


def _rate(records: Sequence[Record]) -> float | None:
    """Control steps per second, where all records say the same."""
    rates = {rate_of(record.manifest) for record in records}
    return rates.pop() if len(rates) == 1 else None


def progress_chart(comparison: Comparison, records: Sequence[Record]) -> str:
    """Mean progress by control steps, a curve for each policy; an ended episode keeps its last value."""
    horizon, lines = max(max(record.column("length")) for record in records), []
    for i, (contestant, record) in enumerate(zip(comparison.contestants, records, strict=True)):
        curves = [curve for curve in record.column("progress") if curve]
        if curves:
            held = np.stack([np.pad(curve, (0, horizon - len(curve)), mode="edge") for curve in curves])
            lines.append(Line(range(1, horizon + 1), held.mean(0).tolist(), STYLES[i % len(STYLES)], contestant.label))
    name = "mean progress over control steps, for each policy"
    words = {"x_label": "control steps", "y_label": "progress", "title": name}
    return chart(lines, **words, y_range=(0, 1), rate=_rate(records)) if lines else ""


def evidence_chart(sequential: Mapping) -> str:
    """How the evidence grew with the pairs, between the lines at which it is decided; "" of finished records."""
    if not sequential.get("history"):
        return ""
    pairs, evidence = zip((0, 0.0), *sequential["history"], strict=True)
    ends = (0, max(pairs))
    lines = [
        Line(pairs, evidence, "mean", "evidence"),
        Line(ends, (1, 1), "boundary a", "verdict for A"),
        Line(ends, (-1, -1), "boundary b", "verdict for B"),
        Line(ends, (0, 0), "thin mean"),
    ]
    name = "evidence over pairs, from a verdict for B below to a verdict for A above"
    return chart(lines, x_label="pairs", y_label="B ← evidence → A", y_range=(-1.1, 1.1), title=name)


def outcome_counts(comparison: Comparison) -> list[tuple[str, str, int]]:
    """(key, words, count) of the ways in which the initial conditions that all have went, most telling first."""
    labels = [contestant.label for contestant in comparison.contestants]
    counted = Counter(key(episode) for episode in comparison.episodes if None not in episode["success"])
    return [
        (name, words(name, labels), counted[name]) for name in sorted(counted, key=lambda name: (_alike(name), name))
    ]


def key(episode: Mapping) -> str:
    """Outcomes of an initial condition as a word: 1, 0 or - (not run) for each policy."""
    return "".join("-" if won is None else str(int(won)) for won in episode["success"])


def words(name: str, labels: Sequence[str]) -> str:
    """A key in words: both, neither, only A, .."""
    winners = [label for label, won in zip(labels, name, strict=True) if won == "1"]
    if not winners:
        return "neither" if len(labels) == 2 else "none"
    if len(winners) == len(labels):
        return "both" if len(labels) == 2 else "all"
    return "only " + ", ".join(winners)


def starts(comparison: Comparison, records: Sequence[Record], filmed: set) -> list[dict]:
    """What the page shows of each initial condition, as JSON: outcomes, best progress and the curves of progress."""
    tables = [_by_start(record) for record in records]
    labels = [contestant.label for contestant in comparison.contestants]
    return [
        {
            "id": f"{episode['initial_conditions']}/{episode['env_seed']}",
            "start": episode["env_seed"],
            "key": key(episode),
            "words": words(key(episode), labels) if "-" not in key(episode) else "not run by all",
            "progress": episode["progress"],
            "curves": [_thin(table.get(_place(episode), {}).get("progress", ())) for table in tables],
            "filmed": _place(episode) in filmed,
        }
        for episode in comparison.episodes
    ]


def pairs_of_films(comparison: Comparison, records: Sequence[Record]) -> dict[tuple[str, int], list[Film]]:
    """(initial_conditions, env_seed) -> the films that the records have of it, by contestant."""
    by_place: dict[tuple[str, int], list[Film]] = {}
    for contestant, record in zip(comparison.contestants, records, strict=True):
        for film in films(film_paths(record), record.table.to_pylist(), contestant.label):
            by_place.setdefault(_place(film.row), []).append(film)
    return dict(sorted(by_place.items()))


def repeat(comparison: Comparison, records: Sequence[Record]) -> str:
    """The commands that do it again, "" where the manifests do not say enough."""
    sequential, manifests = comparison.sequential, [record.manifest for record in records]
    if sequential:
        return _sequential_command(comparison, manifests)
    outs = [f"out/{contestant.label.lower()}" for contestant in comparison.contestants]
    evals = [command(manifest, out) for manifest, out in zip(manifests, outs, strict=True)]
    if not all(evals):
        return ""
    return "\n".join([*evals, f"understudy compare {' '.join(outs)} --alpha {comparison.alpha:g} --out out/again"])


def _sequential_command(comparison: Comparison, manifests: Sequence[Mapping]) -> str:
    sequential, first = comparison.sequential, manifests[0]
    paths = [manifest.get("policy", {}).get("path") for manifest in manifests]
    world, starts = first.get("world", {}).get("config"), first.get("starts", {})
    if not (all(paths) and world and starts):
        return ""

    seeds = [manifest.get("agent", {}).get("policy_seed", 0) for manifest in manifests]
    flags = {
        "world": inline(world),
        "alpha": f"{comparison.alpha:g}",
        "max": sequential["budget"],
        "on": sequential["on"],
    }
    imagined = sequential.get("imagined") or {}
    test = "betting" if sequential["test"] == "imagined" else sequential["test"]
    flags |= {"test": test, "give_up": f"{sequential['give_up']:g}", "env_seed": starts["first"]}
    flags |= {"proposal": first.get("agent", {}).get("proposal"), "n_action_steps": _told_steps(manifests)}
    flags |= {"imagine": imagined.get("model"), "imagined": imagined.get("pairs"), "dreams": imagined.get("repeats")}
    flags |= {"policy_seed": seeds[0]} if seeds[0] else {}
    flags |= {"other_seed": seeds[1]} if seeds[1] != seeds[0] else {}

    until = " --until_decided" if sequential["until_decided"] else ""
    until += f" --past {shlex.join(imagined['past'])}" if imagined.get("past") else ""
    return on_lines(f"understudy compare {shlex.join(paths)} {flag_words(flags)}{until} --out out/again")


def _told_steps(manifests: Sequence[Mapping]) -> int | None:
    """Actions executed of each chunk, where both were told so and it is not the own way of one."""
    told = [manifest.get("agent", {}).get("n_action_steps") for manifest in manifests]
    own = [(manifest.get("policy", {}).get("config") or {}).get("n_action_steps") for manifest in manifests]
    return told[0] if told[0] == told[1] and told != own else None


def _by_start(record: Record) -> dict[tuple[str, int], Mapping]:
    return {_place(row): row for row in record.table.to_pylist()}


def _place(row: Mapping) -> tuple[str, int]:
    return row["initial_conditions"], row["env_seed"]


def _thin(progress: Sequence[float]) -> list[list[float]]:
    """[steps, progress] at up to `POINTS` steps."""
    steps = len(progress)
    kept = np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(int)) if steps else []
    return [[int(i) + 1, round(float(progress[i]), 3)] for i in kept]


def _alike(name: str) -> bool:
    """Whether all policies did the same."""
    return len(set(name)) == 1
