"""What a record of open-loop errors says in all: of each action dimension, each step of the chunk, and in a sentence.

Episodes are the unit: an episode's errors are averaged first, then Student's t gives 95 % intervals over the episodes.
One number for all dimensions is the mean of their errors, each in its own spread (the standard deviation of the
recorded actions); constant dimensions have none and are left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...configs.progress import counted
from ..ledger.record import Record
from ..ledger.table import RecordError
from ..statistics.intervals import Interval
from ..statistics.paired import paired_t
from .errors import relative
from .record import ERRORS, over_steps, rows_of

GUESSES = {"mean_action_error": "the mean action", "last_action_error": "the last action"}
WITHOUT = {
    "mean_action_error": "always giving the mean action",
    "last_action_error": "simply repeating the last action",
}
CAVEAT = (
    "Open-loop error does not predict success: the policy never acted, small errors add up once it does, and an action"
    " that differs from the recorded one may be as good. Let it act before you believe in it."
)


@dataclass(frozen=True)
class Dimension:
    """Errors of one action dimension, means over the episodes."""

    name: str
    unit: str
    kind: str  # gripper, rotation or other
    spread: float  # in units; 0: constant
    error: Interval  # in units
    relative: Interval | None  # in spreads; None: constant
    guesses: dict[str, float]  # column of `GUESSES` -> mean error, in units
    samples_mean: float | None  # of the mean of N samples, in units


@dataclass(frozen=True)
class ErrorSummary:
    """Numbers of a record; those without a unit are in spreads."""

    n: int
    asked: int
    dimensions: tuple[Dimension, ...]
    error: Interval | None  # of all dimensions; None: all are constant
    guesses: dict[str, Interval]  # column of `GUESSES` -> mean over episodes
    against: dict[str, tuple[Interval, float | None]]  # policy minus guess, and p
    samples_mean: Interval | None  # of the mean of N samples
    by_step: dict[str, list[Interval]]  # column of `ERRORS` -> (H) over the episodes that reach the step
    latency: float  # s, median of one chunk for one observation
    slowest: float  # s
    windows: int


def summarize_errors(record: Record) -> ErrorSummary:
    """The numbers of a record. Raises RecordError for one without an episode."""
    rows = rows_of(record)
    if not rows:
        raise RecordError(f"the record '{record.root}' holds no episode; go on with --resume {record.root}")
    about, executed = record.manifest["data"], record.manifest["agent"]["n_action_steps"]
    spread = np.asarray(about["spread"], np.float64)
    sampled = bool(rows[0]["samples_mean_error"])
    names = [name for name in ERRORS if sampled or name != "samples_mean_error"]

    units = {name: np.array([row[name] for row in rows], np.float64) for name in names}  # (n, D)
    moving = bool((spread > 0).any())
    overall = {
        name: np.array([np.nanmean(relative(row, name, spread, executed)) for row in rows])
        for name in (names if moving else ())
    }
    return ErrorSummary(
        n=len(rows),
        asked=len(about["episodes"]),
        dimensions=tuple(
            Dimension(
                name=name,
                unit=about["units"][d],
                kind=about["kinds"][d],
                spread=float(spread[d]),
                error=over_episodes(units["error"][:, d]),
                relative=over_episodes(units["error"][:, d] / spread[d]) if spread[d] > 0 else None,
                guesses={guess: float(units[guess][:, d].mean()) for guess in GUESSES},
                samples_mean=float(units["samples_mean_error"][:, d].mean()) if sampled else None,
            )
            for d, name in enumerate(about["action"])
        ),
        error=over_episodes(overall["error"]) if moving else None,
        guesses={guess: over_episodes(overall[guess]) for guess in GUESSES} if moving else {},
        against={guess: paired_t(overall["error"] - overall[guess]) for guess in GUESSES} if moving else {},
        samples_mean=over_episodes(overall["samples_mean_error"]) if moving and sampled else None,
        by_step={name: steps_of(rows, name, spread) for name in names} if moving else {},
        latency=float(np.median([row["latency"] for row in rows])),
        slowest=float(max(row["latency"] for row in rows)),
        windows=sum(row["windows"] for row in rows),
    )


def over_episodes(values) -> Interval:
    """Mean error over episodes with Student's 95 % interval, of which an error cannot be below 0; one episode: NaN."""
    interval = paired_t(values)[0]
    return interval._replace(low=float(np.maximum(interval.low, 0.0)))


def steps_of(rows: Sequence[dict], name: str, spread: np.ndarray) -> list[Interval]:
    """(H) error at each step of the chunk, all dimensions, in spreads; steps that no episode reaches are left out."""
    curves = []
    for row in rows:
        errors = np.array(row[ERRORS[name]], np.float64).reshape(len(row["windows_by_step"]), -1)[:, spread > 0]
        reached = np.array(row["windows_by_step"]) > 0
        curves.append(np.where(reached, (errors / spread[spread > 0]).mean(1), np.nan))
    known = [column[np.isfinite(column)] for column in np.array(curves).T]
    return [over_episodes(values) for values in known if len(values)]


def verdict(summary: ErrorSummary, manifest: dict) -> str:
    """Whether the policy beats both guesses, on what, and by how much; a guess that is nearer comes first."""
    which = episodes_text(summary.n, manifest["data"])
    if summary.error is None:
        return f"On {which} every action dimension is constant: there is nothing to predict."
    numbers = f"on {which} its actions are off by {interval_text(summary.error)} of their spread, " + " and ".join(
        f"{what} by {summary.guesses[guess].estimate:.3g}" for guess, what in GUESSES.items()
    )
    if summary.n == 1:
        nearer = [WITHOUT[guess] for guess in GUESSES if summary.against[guess][0].estimate > 0]
        first = f"Off by more than {' or '.join(nearer)}: {numbers}" if nearer else f"{numbers[0].upper()}{numbers[1:]}"
        return f"{first}; one episode cannot show whether that holds for others."
    words: dict[str, list[str]] = {"is worse than": [], "beats": [], "is not shown to differ from": []}
    for guess, what in GUESSES.items():
        interval = summary.against[guess][0]
        word = "beats" if interval.high < 0 else "is worse than" if interval.low > 0 else "is not shown to differ from"
        words[word].append(WITHOUT[guess] if interval.low > 0 else what)
    said = " and ".join(f"{word} {' and '.join(whom)}" for word, whom in words.items() if whom)
    return f"The policy {said}: {numbers}."


def episodes_text(n: int, about: dict) -> str:
    """How many episodes, and what they are to the policy."""
    seen = len(about.get("trained_on") or ())
    plural = "" if n == 1 else "s"
    if about.get("status") == "held out":
        return f"{n} held-out episode{plural}"
    if seen:
        return f"{n} episode{plural}, {'all' if seen == len(about['episodes']) else seen} of which it was TRAINED on,"
    kind = {"other": "of another dataset than it was trained on", "unread": "that its training did not read"}
    words = kind.get(about.get("status", ""), "(nobody knows whether it was trained on them)")
    return f"{n} episode{plural} {words}"


def interval_text(interval: Interval) -> str:
    """`0.31 (95 %: 0.28 to 0.34)`."""
    if not np.isfinite(interval.low):
        return f"{interval.estimate:.3g}"
    return f"{interval.estimate:.3g} (95 %: {interval.low:.3g} to {interval.high:.3g})"


def text(summary: ErrorSummary, manifest: dict) -> str:
    """For a terminal: the sentence, a line for each dimension, the caveat."""
    about, agent = manifest["data"], manifest["agent"]
    lines = [verdict(summary, manifest), ""]
    width = max(9, *(len(dimension.name) for dimension in summary.dimensions))
    sampled = summary.samples_mean is not None
    head = f"{'dimension':<{width}}  {'unit':<5}{'error':>9}{'95 %':>20}  {'/spread':>8}{'mean action':>13}{'last':>10}"
    lines.append(head + (f"{'mean of ' + str(agent['candidates']):>12}" if sampled else ""))
    for one in summary.dimensions:
        ends = f"{one.error.low:.3g} .. {one.error.high:.3g}" if np.isfinite(one.error.low) else "-"
        share = f"{one.relative.estimate:.3g}" if one.relative else "constant"
        mean, last = (f"{one.guesses[guess]:.3g}" for guess in GUESSES)
        line = f"{one.name:<{width}}  {one.unit:<5}{one.error.estimate:>9.3g}{ends:>20}  {share:>8}{mean:>13}{last:>10}"
        lines.append(line + (f"{one.samples_mean:>12.3g}" if sampled else ""))
    lines += ["", *facts_text(summary, manifest), f"- {CAVEAT}"]
    lines += [f"- {note}." for note in about.get("notes", ())]
    return "\n".join(lines)


def facts_text(summary: ErrorSummary, manifest: dict) -> list[str]:
    """What was measured, a line each."""
    about, agent = manifest["data"], manifest["agent"]
    executed, rate = agent["n_action_steps"], about["rate"]
    one = "one sample of the policy" if agent["candidates"] == 1 else "the first sample of each chunk"
    lines = [
        f"- mean absolute error of {one} over the first {executed} of {counted(about['horizon'], 'action')} of each "
        f"chunk, at {counted(summary.windows, 'observation')}; intervals: Student's t over "
        f"{counted(summary.n, 'episode')}",
        f"- the mean action: of {about['mean_of']}; the last action: the one before now, repeated",
    ]
    if (step := overtaken(summary)) is not None:
        lines.append(
            "- the last action is a strong guess for the next steps where control is fast: from step"
            f" {step} of a chunk on ({1e3 * step / rate:.3g} ms later) the policy is nearer"
        )
    if summary.samples_mean is not None:
        lines.append(
            f"- the mean of {counted(agent['candidates'], 'sample')} is off by {interval_text(summary.samples_mean)} "
            "of the spread; it is nearer where the policy spreads its samples, and may be an action that nobody "
            "would take"
        )
    lines.append(
        f"- a chunk for one observation takes {1e3 * summary.latency:.3g} ms (median; slowest "
        f"{1e3 * summary.slowest:.3g} ms); its {counted(executed, 'action')} last {1e3 * executed / rate:.3g} ms"
    )
    return lines


def overtaken(summary: ErrorSummary) -> int | None:
    """The step of the chunk, after the first, from which on the policy is nearer than the last action; None: none."""
    pairs = [summary.by_step.get(name, []) for name in ("error", "last_action_error")]
    nearer = [ours.estimate < theirs.estimate for ours, theirs in zip(*pairs, strict=True)]
    if not nearer or nearer[0] or not nearer[-1]:
        return None
    return max(step for step, near in enumerate(nearer) if not near) + 1


def dimension_errors(rows: Sequence[dict], steps: int) -> np.ndarray:
    """(n, D) errors of the policy over the first `steps` steps of the chunk, in units."""
    return np.array([over_steps(row, ERRORS["error"], steps) for row in rows])
