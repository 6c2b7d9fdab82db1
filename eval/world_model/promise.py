"""What a dream may be believed: the success probability of a start and a policy's mean, with calibrated intervals.

One outcome is mostly the policy's own chance: a second true run with other noise changes the verdict often, too. So
nothing is promised of single outcomes. From true repeats of the same policies and starts it is learnt how a start's
success rate follows from the dream's (of that start, and of the policy over all starts) and from those run-time signals
of the films that foretell it, and how far off that is: for each training by the line and the errors of the others. A
start is believed where its interval lies on one side of one half; elsewhere the dream abstains, and says which starts
are worth recording. Records are read in `cells.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.documents import read_object
from ...configs.files import replace_text
from ...configs.progress import counted
from ..statistics.calibration import fit, left_out, predict
from ..statistics.intervals import Interval, mean_interval
from .cells import Cells, PromiseError, other_dream

FORMAT, KIND = 1, "dream promise"
HALF = 0.5
NARROW = 0.01  # least spread of a start's rate beyond its repeats' chance
GAIN = 0.01  # part of the mean square error of trainings left out by which a signal must lower it
TRAININGS = 3  # that are needed: one is left out, and the others' line is judged by leaving out another


@dataclass(frozen=True, kw_only=True)
class Promise:
    """How a dream's rates are read. The fields are the keys of its file, beside format and kind."""

    model: str  # fingerprint of the world model
    alpha: float  # share of starts whose true rate may lie outside of the interval
    line: tuple[float, ...]  # of a start's rate: weights of its own dreamt rate, of the policy's, of signals; constant
    spread: float  # standard deviation of a start's rate about the line, beyond the chance of its repeats
    wide: float  # intervals reach so many standard deviations to either side
    repeats: int  # true repeats of a start that the intervals speak of
    mean: tuple[float, float]  # weight and constant of a policy's mean
    mean_off: float  # greatest error of a policy's mean, of trainings left out
    trainings: int
    policies: int
    n: int  # starts of policies
    signals: tuple[str, ...] = ()  # those that the line reads, each of dreamt successes and of failures
    dreams: int = 0  # of a start, which its dreamt rate is the mean of; 0: an older promise, which does not say it
    world: dict = field(default_factory=dict)  # the dream's settings that decide outcomes; none: an older promise

    def starts(self, cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(low, estimate, high), each (n,), of the success rate of every start of every policy."""
        return _interval(np.array(self.line), self.spread, self.wide, self.repeats, cells.seen(self.signals))

    def means(self, cells: Cells) -> dict[int, Interval]:
        """Policy -> its true mean; of a further training outside at most one time in `trainings` + 1."""
        dreamt = _means(cells.policy, cells.dream[:, 0])
        said = predict(np.array(self.mean), np.array(list(dreamt.values()))[:, None])
        ends = [(max(0.0, one - self.mean_off), one, min(1.0, one + self.mean_off)) for one in said.tolist()]
        return {number: Interval(*three) for number, three in zip(dreamt, ends, strict=True)}

    def check(self, cells: Cells, world: Mapping) -> None:
        """Raise PromiseError where dreamt starts are not such as it speaks of; `world`: see `cells.dream_of`."""
        if world["model"] != self.model:
            raise PromiseError(f"the promise speaks of another world model ({self.model}) than these records "
                               f"({world['model']})")  # fmt: skip
        if self.world and (found := other_dream(self.world, world)):
            raise PromiseError(f"the promise speaks of a dream of other settings than these records: {found}")
        if not self.world and "judge" in world:
            raise PromiseError(
                f"the promise is of an earlier version, whose dreams the model judged; these records were judged by "
                f"{world['judge']}. Make it anew: understudy calibrate DREAM --truth TRUE"
            )
        if self.dreams and cells.dreams != self.dreams:
            raise PromiseError(
                f"the promise reads the mean of {counted(self.dreams, 'dream')} of each start, these records have "
                f"{cells.dreams}; dream each start as often, with other policy_seed"
            )

    def save(self, file: str | Path) -> Path:
        return replace_text(Path(os.path.expandvars(file)), json.dumps({"format": FORMAT, "kind": KIND} | asdict(self)))

    @classmethod
    def load(cls, file: str | Path) -> Promise:
        """Raises PromiseError."""
        text = read_object(Path(os.path.expandvars(file)), PromiseError)
        if text.pop("kind", "") != KIND or text.pop("format", 0) != FORMAT:
            raise PromiseError(
                f"{file} holds no promise of a dream; `understudy calibrate DREAM --truth TRUE` writes one"
            )
        try:
            told: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in text.items()
            }
            return cls(**told)
        except TypeError as error:
            raise PromiseError(f"{file} is damaged: {error}") from error


@dataclass(frozen=True)
class HeldOut:
    """How the promise did on trainings that it was not made from, each by the others."""

    covered: Interval  # share of starts whose true rate lay inside
    trusted: float  # share of starts that are believed
    sided: Interval  # of those, share whose true rate lay on the same side of one half
    means: tuple[float, float]  # mean error of a policy's mean as dreamt, and by the line
    n: int
    errors: tuple[float, float] = (math.nan, math.nan)  # root mean square of a start's rate: by rates alone, as chosen


def promise(cells: Cells, world: Mapping, alpha: float) -> tuple[Promise, HeldOut]:
    """What may be promised, and how it did on trainings left out; `world`: see `cells.dream_of`.

    Raises:
        PromiseError: fewer than three trainings, or starts too few for alpha.
    """
    runs = len(np.unique(cells.run))
    if runs < TRAININGS:
        raise PromiseError(
            f"policies of {counted(runs, 'training')}: a promise for the next one needs {TRAININGS} or more, each "
            "judged by the others"
        )
    everything = np.ones(len(cells.run), bool)
    signals = choose(cells, everything)
    line, spread, wide, repeats = _learn(cells, everything, alpha, signals)
    means, off = _mean_line(cells)
    made = Promise(
        model=world["model"], alpha=alpha, line=tuple(line.tolist()), spread=spread, wide=wide, repeats=repeats,
        mean=(float(means[0]), float(means[1])), mean_off=off, trainings=runs, policies=len(np.unique(cells.policy)),
        n=len(cells.run), signals=signals, dreams=cells.dreams, world=dict(world),
    )  # fmt: skip
    return made, _hold_out(cells, alpha)


def worth_recording(cells: Cells, estimate: np.ndarray, believed: np.ndarray, most: int = 10) -> list[tuple[str, int]]:
    """The starts that would teach most: those that the dream refused, then the least sure of those not believed."""
    doubt: dict[tuple[str, int], float] = {}
    for start, rate, sure in zip(cells.start, estimate.tolist(), believed.tolist(), strict=True):
        doubt[start] = doubt.get(start, 0.0) + (0.0 if sure else rate * (1 - rate))
    order = sorted((start for start, much in doubt.items() if much > 0), key=lambda start: (-doubt[start], start))
    return [*cells.refused, *(start for start in order if start not in cells.refused)][:most]


def believed(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(n,) bool, where the interval lies on one side of one half."""
    return (low > HALF) | (high < HALF)


def choose(cells: Cells, kept: np.ndarray) -> tuple[str, ...]:
    """The signals that foretell the true rate, one after the other, each while it helps trainings left out.

    It must lower their error by `GAIN` at least, so that those that say nothing stay out.
    """
    chosen: tuple[str, ...] = ()
    least = _error(cells, kept, chosen)
    while more := [name for name in cells.told if name not in chosen]:
        error, name = min((_error(cells, kept, (*chosen, name)), name) for name in more)
        if not error < (1 - GAIN) * least:
            return chosen
        chosen, least = (*chosen, name), error
    return chosen


def _error(cells: Cells, kept: np.ndarray, signals: Sequence[str]) -> float:
    """Mean square of a start's rate beyond the line of other trainings."""
    return float(np.mean((cells.truth[kept] - _left_out(cells, kept, signals)) ** 2))


def _left_out(cells: Cells, kept: np.ndarray, signals: Sequence[str]) -> np.ndarray:
    """What each training's starts are said to be by the line of the others; of two trainings, by that of both."""
    x, y = cells.seen(signals)[kept], cells.truth[kept]
    said = left_out(x, y, cells.run[kept])
    return predict(fit(x, y), x) if np.isnan(said).any() else said


def _learn(
    cells: Cells, kept: np.ndarray, alpha: float, signals: Sequence[str]
) -> tuple[np.ndarray, float, float, int]:
    """(line, spread, wide, repeats) of some rows; the errors are those of each training by the others' line."""
    x, y, each = cells.seen(signals)[kept], cells.truth[kept], cells.repeats[kept]
    said = _left_out(cells, kept, signals)
    chance = said * (1 - said) / each
    spread = max(NARROW, float(np.sqrt(max(0.0, np.mean((y - said) ** 2 - chance)))))
    scores = np.sort(np.abs(y - said) / np.sqrt(chance + spread**2))
    place = math.ceil((len(scores) + 1) * (1 - alpha))
    if place > len(scores):
        raise PromiseError(
            f"{counted(len(scores), 'start')} of policies are too few for alpha {alpha:g}; give more, or a larger alpha"
        )
    return fit(x, y), spread, float(scores[place - 1]), int(np.median(each))


def _interval(
    line: np.ndarray, spread: float, wide: float, repeats: int, dream: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    said = predict(line, dream)
    reach = wide * np.sqrt(said * (1 - said) / repeats + spread**2)
    return np.clip(said - reach, 0, 1), said, np.clip(said + reach, 0, 1)


def _hold_out(cells: Cells, alpha: float) -> HeldOut:
    inside, sided, trusted, runs = [], [], [], np.unique(cells.run)
    off: list[list[np.ndarray]] = [[], []]
    for run in runs:
        here, signals = cells.run == run, choose(cells, cells.run != run)
        low, said, high = _interval(*_learn(cells, ~here, alpha, signals), cells.seen(signals)[here])
        plain = predict(fit(cells.dream[~here], cells.truth[~here]), cells.dream[here])
        for errors, one in zip(off, (plain, said), strict=True):
            errors.append((cells.truth[here] - one) ** 2)
        truth, sure = cells.truth[here], believed(low, high)
        inside.append((truth >= low - 1e-9) & (truth <= high + 1e-9))
        sided.append(((truth > HALF) == (said > HALF))[sure & (truth != HALF)])
        trusted.append(sure)
    dreamt, true, group = _policies(cells)
    by_line = left_out(dreamt[:, None], true, group)
    means = float(np.abs(dreamt - true).mean()), float(np.nanmean(np.abs(by_line - true)))
    by_rates, chosen = (float(np.sqrt(np.concatenate(errors).mean())) for errors in off)
    share = float(np.concatenate(trusted).mean())
    return HeldOut(_over(inside), share, _over(sided), means, len(cells.run), (by_rates, chosen))


def _over(parts: list[np.ndarray]) -> Interval:
    """Share of all, with a t interval over trainings; NaN where there is none."""
    some = [part for part in parts if len(part)]
    if not some:
        return Interval(math.nan, math.nan, math.nan)
    whole, around = float(np.concatenate(some).mean()), mean_interval([float(part.mean()) for part in some])
    return Interval(max(0.0, min(around.low, whole)), whole, min(1.0, max(around.high, whole)))


def _policies(cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dreamt mean, true mean, training) of each policy."""
    dreamt, true, run = (_means(cells.policy, values) for values in (cells.dream[:, 0], cells.truth, cells.run))
    return np.array([*dreamt.values()]), np.array([*true.values()]), np.array([*run.values()])


def _means(policy: np.ndarray, values: np.ndarray) -> dict[int, float]:
    return {int(number): float(values[policy == number].mean()) for number in np.unique(policy)}


def _mean_line(cells: Cells) -> tuple[np.ndarray, float]:
    """The line of policies' means, and the greatest error of any training by the others' line."""
    dreamt, true, group = _policies(cells)
    return fit(dreamt[:, None], true), float(np.max(np.abs(left_out(dreamt[:, None], true, group) - true)))


def told(made: Promise, held: HeldOut | None, cells: Cells) -> list[str]:
    """What the terminal says of a promise and of the records that it is read by."""
    low, estimate, high = made.starts(cells)
    sure = believed(low, high)
    lines = []
    if held is not None:
        lines += [
            f"held out        {held.covered} of {counted(held.n, 'start')} of policies had their true rate inside, "
            f"each training by the others (promised: {1 - made.alpha:.3f})",
            f"believed        {held.trusted:.0%} of them; of those {_said(held.sided)} on the promised side of one "
            f"half",
            f"policies        mean error {held.means[0]:.3f} as dreamt, {held.means[1]:.3f} by a line of other "
            f"trainings",
        ]
        if cells.told:
            lines.append(_signals_line(made, held, cells))
    kind = "repeat" if made.repeats == 1 else "repeats"
    lines.append(
        f"a start         true rate over {made.repeats} {kind}: outside its interval in {made.alpha:.0%} of starts"
    )
    lines.append(
        f"a policy        true mean within {made.mean_off:.3f} of the line; of a further training further off at "
        f"most one "
        f"time in {made.trainings + 1}"
    )
    for number, interval in made.means(cells).items():
        here = cells.policy == number
        lines.append(
            f"  {cells.names[number][-46:]:<46} {interval!s:<24} {sure[here].mean():.0%} of {here.sum()} starts "
            f"believed"
        )
    if any(cells.errors):
        true, dreamt = cells.errors
        lines.append(f"errors          {true} true and {dreamt} dreamt episodes ended in an error: counted as failures")
    if cells.refused:
        lines.append(
            f"refused         {counted(len(cells.refused), 'start', 'is', 'are')} of scenes that the model does not "
            "know"
        )
    if worth := worth_recording(cells, estimate, sure):
        lines.append(f"record next     {', '.join(f'{kind} {seed}' for kind, seed in worth)}")
    return lines


def _signals_line(made: Promise, held: HeldOut, cells: Cells) -> str:
    plain, said = held.errors
    if not made.signals:
        return f"signals         none of {', '.join(cells.told)} foretells more of other trainings than the rates do"
    return (
        f"signals         {', '.join(made.signals)} of {', '.join(cells.told)}; held out, a start's rate is off by "
        f"{said:.3f}, by the dreamt rates alone by {plain:.3f} (root mean square)"
    )


def _said(interval: Interval) -> str:
    return "none" if math.isnan(interval.estimate) else f"{interval} were"


def as_json(made: Promise, cells: Cells) -> str:
    """What is believed of each start and policy."""
    low, estimate, high = (part.tolist() for part in made.starts(cells))
    sure = believed(np.array(low), np.array(high)).tolist()
    starts = [
        {"policy": cells.names[number], "initial_conditions": start[0], "env_seed": start[1], "low": a, "rate": b,
         "high": c, "believed": known}
        for number, start, a, b, c, known in zip(
            cells.policy.tolist(), cells.start, low, estimate, high, sure, strict=True
        )
    ]  # fmt: skip
    means = {cells.names[number]: list(interval) for number, interval in made.means(cells).items()}
    worth = worth_recording(cells, np.array(estimate), np.array(sure), len(cells.start))
    return json.dumps({"policies": means, "starts": starts, "record_next": worth}, indent=1) + "\n"
