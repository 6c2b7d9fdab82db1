"""What a dream may be believed: the success probability of a start and a policy's mean, with calibrated intervals.

One outcome is mostly the policy's own chance: a second true run with other noise changes the verdict often, too. So
nothing is promised of single outcomes. From true repeats of the same policies and starts it is learnt how a start's
success rate follows from the dream's (of that start, and of the policy over all starts), and how far off that is: for
each training by the line and the errors of the others. A start is believed where its interval lies on one side of one
half; elsewhere the dream abstains, and says which starts are worth recording.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.documents import read_object
from ...configs.files import replace_text
from ...world_models.gate import ABSTAINS
from ..ledger.dreams import refused_starts
from ..ledger.identity import Identity, MatchError, identify
from ..ledger.record import Record
from ..statistics.calibration import fit, left_out, predict
from ..statistics.intervals import Interval, mean_interval

FORMAT, KIND = 1, "dream promise"
HALF = 0.5
NARROW = 0.01  # least spread of a start's rate beyond its repeats' chance
TRAININGS = 3  # that are needed: one is left out, and the others' line is judged by leaving out another


class PromiseError(ValueError):
    """Records from which nothing can be promised, or a promise that does not fit; the message says what to do."""


@dataclass(frozen=True)
class Cells:
    """Starts of policies in both worlds, n rows."""

    policy: np.ndarray  # (n,) number of the policy
    run: np.ndarray  # (n,) number of its training
    start: list[tuple[str, int]]  # initial conditions and env seed
    truth: np.ndarray  # (n,) success rate over the true repeats; NaN where there is none
    repeats: np.ndarray  # (n,) of the truth
    dream: np.ndarray  # (n, 2) success rate of this start, and of the policy, in the dream
    names: tuple[str, ...]  # of policies
    refused: tuple[tuple[str, int], ...]  # starts that the dream itself refused


@dataclass(frozen=True, kw_only=True)
class Promise:
    """How a dream's rates are read. The fields are the keys of its file, beside format and kind."""

    model: str  # fingerprint of the world model
    alpha: float  # share of starts whose true rate may lie outside of the interval
    line: tuple[float, ...]  # of a start's rate: weights of its own dreamt rate and of the policy's, and a constant
    spread: float  # standard deviation of a start's rate about the line, beyond the chance of its repeats
    wide: float  # intervals reach so many standard deviations to either side
    repeats: int  # true repeats of a start that the intervals speak of
    mean: tuple[float, float]  # weight and constant of a policy's mean
    mean_off: float  # greatest error of a policy's mean, of trainings left out
    trainings: int
    policies: int
    n: int  # starts of policies

    def starts(self, cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(low, estimate, high), each (n,), of the success rate of every start of every policy."""
        return _interval(np.array(self.line), self.spread, self.wide, self.repeats, cells.dream)

    def means(self, cells: Cells) -> dict[int, Interval]:
        """Policy -> its true mean; of a further training outside at most one time in `trainings` + 1."""
        dreamt = _means(cells.policy, cells.dream[:, 0])
        said = predict(np.array(self.mean), np.array(list(dreamt.values()))[:, None])
        ends = [(max(0.0, one - self.mean_off), one, min(1.0, one + self.mean_off)) for one in said.tolist()]
        return {number: Interval(*three) for number, three in zip(dreamt, ends, strict=True)}

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


def gather(dreamt: Sequence[Record], true: Sequence[Record] = ()) -> Cells:
    """The starts of the policies that were dreamt, with their true repeats.

    Raises:
        MatchError: no policy and start in both worlds, though there is a truth.
    """
    ours, theirs = _repeats(dreamt), _repeats(true)
    rows, runs = [], []
    names: list[str] = []
    for key, (identity, episodes) in sorted(ours.items(), key=lambda item: item[1][0].name):
        mean = float(np.mean([np.mean(values) for values in episodes.values()])) if episodes else math.nan
        there = theirs.get(key, (identity, {}))[1]
        for start, values in sorted(episodes.items()):
            if true and start not in there:
                continue
            seen = there.get(start, [])
            rows.append(
                (len(names), start, float(np.mean(seen)) if seen else math.nan, len(seen), np.mean(values), mean)
            )
        names.append(identity.name)
        runs.append(identity.run)
    if not rows:
        raise MatchError(
            "the dream and the truth share no policy and start; give records of the same policies and starts"
        )
    policy = np.array([row[0] for row in rows])
    numbers = np.unique(runs, return_inverse=True)[1]
    return Cells(
        policy, numbers[policy], [row[1] for row in rows], np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]), np.array([row[4:] for row in rows], float), tuple(names),
        refused_starts(dreamt),
    )  # fmt: skip


def promise(cells: Cells, model: str, alpha: float) -> tuple[Promise, HeldOut]:
    """What may be promised, and how it did on trainings left out.

    Raises:
        PromiseError: fewer than three trainings, or starts too few for alpha.
    """
    runs = len(np.unique(cells.run))
    if runs < TRAININGS:
        raise PromiseError(
            f"policies of {runs} trainings: a promise for the next one needs {TRAININGS} or more, each judged by the "
            f"others"
        )
    everything = np.ones(len(cells.run), bool)
    line, spread, wide, repeats = _learn(cells, everything, alpha)
    means, off = _mean_line(cells)
    made = Promise(
        model=model, alpha=alpha, line=tuple(line.tolist()), spread=spread, wide=wide, repeats=repeats,
        mean=(float(means[0]), float(means[1])), mean_off=off, trainings=runs, policies=len(np.unique(cells.policy)),
        n=len(cells.run),
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


def _repeats(records: Iterable[Record]) -> dict[tuple[str, str], tuple[Identity, dict[tuple[str, int], list[float]]]]:
    """(weights, acts) -> who acted, and the outcomes of each start over all records."""
    out: dict[tuple[str, str], tuple[Identity, dict[tuple[str, int], list[float]]]] = {}
    for record in records:
        identity = identify(record.manifest)
        _, episodes = out.setdefault((identity.weights, identity.acts), (identity, {}))
        columns = ("initial_conditions", "env_seed", "success", "error")
        for kind, seed, won, error in zip(*map(record.column, columns), strict=True):
            if ABSTAINS not in error:
                episodes.setdefault((kind, seed), []).append(float(won))
    return out


def _learn(cells: Cells, kept: np.ndarray, alpha: float) -> tuple[np.ndarray, float, float, int]:
    """(line, spread, wide, repeats) of some rows; the errors are those of each training by the others' line."""
    x, y, run, each = cells.dream[kept], cells.truth[kept], cells.run[kept], cells.repeats[kept]
    said = left_out(x, y, run)
    if np.isnan(said).any():  # two trainings: each by the line of both
        said = predict(fit(x, y), x)
    chance = said * (1 - said) / each
    spread = max(NARROW, float(np.sqrt(max(0.0, np.mean((y - said) ** 2 - chance)))))
    scores = np.sort(np.abs(y - said) / np.sqrt(chance + spread**2))
    place = math.ceil((len(scores) + 1) * (1 - alpha))
    if place > len(scores):
        raise PromiseError(
            f"{len(scores)} starts of policies are too few for alpha {alpha:g}; give more, or a larger alpha"
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
    for run in runs:
        here = cells.run == run
        low, said, high = _interval(*_learn(cells, ~here, alpha), cells.dream[here])
        truth, sure = cells.truth[here], believed(low, high)
        inside.append((truth >= low - 1e-9) & (truth <= high + 1e-9))
        sided.append(((truth > HALF) == (said > HALF))[sure & (truth != HALF)])
        trusted.append(sure)
    dreamt, true, group = _policies(cells)
    by_line = left_out(dreamt[:, None], true, group)
    errors = float(np.abs(dreamt - true).mean()), float(np.nanmean(np.abs(by_line - true)))
    return HeldOut(_over(inside), float(np.concatenate(trusted).mean()), _over(sided), errors, len(cells.run))


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
            f"held out        {held.covered} of {held.n} starts of policies had their true rate inside, each "
            f"training by "
            f"the others (promised: {1 - made.alpha:.3f})",
            f"believed        {held.trusted:.0%} of them; of those {_said(held.sided)} on the promised side of one "
            f"half",
            f"policies        mean error {held.means[0]:.3f} as dreamt, {held.means[1]:.3f} by a line of other "
            f"trainings",
        ]
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
    if cells.refused:
        lines.append(f"refused         {len(cells.refused)} starts are of scenes that the model does not know")
    if worth := worth_recording(cells, estimate, sure):
        lines.append(f"record next     {', '.join(f'{kind} {seed}' for kind, seed in worth)}")
    return lines


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


def model_of(records: Sequence[Record]) -> str:
    """The fingerprint of the world model that dreamt.

    Raises:
        PromiseError: records that are no dream's, or of several models.
    """
    worlds: list[Mapping] = [record.manifest.get("world") or {} for record in records]
    models = {str(world.get("model", "")) if world.get("type") == "dream" else "" for world in worlds}
    if models == {""} or len(models) > 1:
        raise PromiseError("the records to calibrate are not all of one dream; give those of one world model")
    return models.pop()
