"""Which convex weights of a mixture succeed most often: a grid, successive halving, or a Gaussian process.

Everything is asked of one function `evaluate(weights, starts) -> outcomes in [0, 1]`. All weights see the same initial
conditions in the same order, a block at a time, so that any two of them are paired on those that both have played.

`successive_halving` drops weights in two ways. After every block a betting test of each pair of weights (`betting.py`)
drops those that another one has been shown to beat; each claim has the level alpha / (k - 1), so that the weight with
the highest success rate is dropped by a test with probability at most alpha, however often one looks. At the end of a
rung the worse part by rank is dropped too, which saves most episodes and promises nothing; `keep=1` leaves it out.

Success changes slowly with the weights, so ranks and choices use rates smoothed over neighbouring weights.
Knows nothing of policies, worlds or files. Sources: Xue et al. 2025 (GPC, arXiv 2510.01068; the grid), Karnin et al.
2013 (sequential halving), Waudby-Smith and Ramdas 2024 (betting), Russo 2016 (top-two sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ..statistics.by_name import sequential_test

Weights = tuple[float, ...]  # one for each parent, each >= 0, sum 1
Evaluate = Callable[[Weights, Sequence[int]], Sequence[float]]
SMOOTH = 0.1  # bandwidth over weights, in units of the share of weight that moves
BY_TEST, BY_RANK = "by test", "by rank"
TIE = 1e-9


@dataclass(frozen=True)
class TriedWeights:
    """What is known of one choice of weights."""

    weights: Weights
    outcomes: tuple[float, ...]  # from the first env seeds, in their order
    dropped: str = ""  # "", "by test: ..", "by rank"

    @property
    def mean(self) -> float:
        return float(np.mean(self.outcomes)) if self.outcomes else math.nan


@dataclass(frozen=True)
class SearchResult:
    """How a search ended."""

    chosen: Weights
    tried: tuple[TriedWeights, ...]
    full: int  # episodes that all weights from all initial conditions would have taken
    says: str  # how it was chosen, and what the dropping promises

    @property
    def episodes(self) -> int:
        return sum(len(choice.outcomes) for choice in self.tried)

    def of(self, weights: Weights) -> TriedWeights | None:
        """What is known of these weights, if they were tried."""
        return next((choice for choice in self.tried if choice.weights == tuple(weights)), None)


@dataclass
class Trials:
    """All that was played so far: of every weight the outcomes from a first part of the initial conditions.

    Args:
        points: the weights that may be chosen.
        starts: env seeds, in the order in which they are played.
        block: env seeds of one call of `evaluate`, but for a last one that may be shorter.
        expect: told of calls of `evaluate` that are to come for certain, so that they may be played at the same time.
    """

    points: Sequence[Weights]
    starts: Sequence[int]
    evaluate: Evaluate
    block: int = 8
    expect: Callable[[Weights, Sequence[int]], None] = lambda weights, starts: None
    outcomes: dict[Weights, list[float]] = field(default_factory=dict)

    def __post_init__(self):
        self.points = [tuple(point) for point in self.points]
        if not self.points or not len(self.starts) or self.block < 1:
            raise ValueError(f"no such search: {len(self.points)} weights, {len(self.starts)} env seeds")
        if len(set(self.points)) != len(self.points) or len(set(self.starts)) != len(self.starts):
            raise ValueError("weights and env seeds of a search must differ from each other")
        self.outcomes = {point: [] for point in self.points}

    @property
    def full(self) -> int:
        return len(self.points) * len(self.starts)

    def reach(self, weights: Weights, count: int) -> None:
        """Play `weights` until its first `count` env seeds are done, in whole blocks."""
        outcomes = self.outcomes[weights]
        while len(outcomes) < min(count, len(self.starts)):
            env_seeds = self.starts[len(outcomes) : len(outcomes) + self.block]
            got = [float(value) for value in self.evaluate(weights, env_seeds)]
            if len(got) != len(env_seeds) or not all(0 <= value <= 1 for value in got):
                raise ValueError(f"{len(env_seeds)} env seeds need as many outcomes in [0, 1], got {got}")
            outcomes.extend(got)

    def announce(self, among: Sequence[Weights], count: int) -> None:
        """All of `among` will be played until their first `count` env seeds are done."""
        for begin in range(0, min(count, len(self.starts)), self.block):
            for weights in among:
                done = len(self.outcomes[weights])
                if begin + self.block > done:
                    self.expect(weights, self.starts[max(begin, done) : begin + self.block])

    def stops(self) -> list[int]:
        """Numbers of initial conditions after which every weight may be looked at."""
        n = len(self.starts)
        return [min(end, n) for end in range(self.block, n + self.block, self.block)]

    def tried(self, dropped: dict[Weights, str]) -> tuple[TriedWeights, ...]:
        return tuple(TriedWeights(w, tuple(outcomes), dropped.get(w, "")) for w, outcomes in self.outcomes.items())

    def best(self, among: Sequence[Weights], smooth: float = SMOOTH) -> list[Weights]:
        """`among`, best first: by smoothed rate; of equal ones the one nearest to equal weights."""
        rates = smoothed(self.outcomes, among, smooth)
        middle = 1 / len(among[0])
        order = [(-round(rates[w] / TIE) * TIE, sum(abs(part - middle) for part in w), w) for w in among]
        return [w for *_, w in sorted(order)]


def grid(trials: Trials, smooth: float = SMOOTH) -> SearchResult:
    """Every weight from every initial condition; the best one."""
    trials.announce(trials.points, len(trials.starts))
    for count in trials.stops():
        for weights in trials.points:
            trials.reach(weights, count)
    chosen = trials.best(trials.points, smooth)[0]
    says = f"All {len(trials.points)} weights were played from all {len(trials.starts)} initial conditions."
    return SearchResult(chosen, trials.tried({}), trials.full, says)


def successive_halving(trials: Trials, alpha: float = 0.05, keep: float = 0.5, smooth: float = SMOOTH) -> SearchResult:
    """Few initial conditions for all weights, more for those that are left; see the module.

    Args:
        alpha: bound on the probability that the best weight is dropped by a test; 0: no test.
        keep: part of the weights that goes on after each rung; 1: nothing is dropped by rank.
    """
    if not 0 <= alpha < 0.5 or not 0 < keep <= 1:
        raise ValueError(f"needs 0 <= alpha < 0.5 and 0 < keep <= 1, got {alpha} and {keep}")

    alive, dropped = list(trials.points), {}
    comparisons = Comparisons(trials.points, len(trials.starts), alpha) if alpha and len(alive) > 1 else None
    ends = rungs(len(alive), len(trials.starts), trials.block, keep)

    for count in trials.stops():
        trials.announce(alive, count)
        for weights in alive:
            trials.reach(weights, count)

        # shown to be worse
        beaten = comparisons.update(trials.outcomes, alive, count) if comparisons else {}
        dropped |= {
            w: f"{BY_TEST}, after {count} episodes: worse than {weights_text(other)}" for w, other in beaten.items()
        }
        alive = [w for w in alive if w not in dropped]

        # the end of a rung
        if count in ends[:-1]:
            kept = max(1, min(len(alive), ends_at(len(trials.points), keep, ends.index(count) + 1)))
            dropped |= {w: f"{BY_RANK}, after {count} episodes" for w in trials.best(alive, smooth)[kept:]}
            alive = [w for w in alive if w not in dropped]

        if len(alive) == 1:
            break

    return SearchResult(trials.best(alive, smooth)[0], trials.tried(dropped), trials.full, _promise(dropped, alpha))


def rungs(count: int, starts: int, block: int, keep: float = 0.5) -> list[int]:
    """Numbers of episodes at which weights are dropped by rank, growing by 1 / keep, in whole blocks; the last: all."""
    ends = [starts]
    left, share = count, starts * keep
    while keep < 1 and (left := math.ceil(left * keep)) > 1:
        end = min(ends[0] - block, max(block, round(share / block) * block))
        if end < block:
            break
        ends.insert(0, end)
        share *= keep
    return ends


def planned(count: int, starts: int, block: int, keep: float = 0.5) -> int:
    """Episodes of successive halving by rank alone; tests save some of them. `keep` 1: of the grid."""
    episodes, begun = 0, 0
    for rung, end in enumerate(rungs(count, starts, block, keep)):
        episodes += ends_at(count, keep, rung) * (end - begun)
        begun = end
    return episodes


def ends_at(count: int, keep: float, rung: int) -> int:
    """Weights left after this many rungs."""
    for _ in range(rung):
        count = math.ceil(count * keep)
    return count


class Comparisons:
    """Betting tests of all pairs of weights on the initial conditions that both have played.

    The weight with the highest success rate loses one of its k - 1 comparisons with probability at most alpha.
    """

    def __init__(self, points: Sequence[Weights], starts: int, alpha: float):
        self.points = list(points)
        self.pairs = list(combinations(range(len(points)), 2))
        level = 2 * alpha / (len(points) - 1)  # of both sides of a pair; one side is half of it
        self.test = sequential_test("betting", starts, min(level, 0.999), runs=len(self.pairs))

    def update(self, outcomes: dict[Weights, list[float]], alive: Sequence[Weights], count: int) -> dict:
        """Take the outcomes up to `count`, which all of `alive` have played; beaten weight -> one that beats it."""
        playing = np.array([point in set(alive) for point in self.points])
        both = np.array([playing[i] and playing[j] for i, j in self.pairs])
        for start in range(self.test.n, count):
            now = np.array([outcomes[w][start] if on else 0 for w, on in zip(self.points, playing, strict=True)])
            a, b = (np.where(both, now[list(side)], 0) for side in zip(*self.pairs, strict=True))
            self.test.update(a, b)
        beaten = {}
        for (i, j), side in zip(self.pairs, self.test.side.tolist(), strict=True):
            loser, winner = (j, i) if side < 0 else (i, j)
            if side and playing[loser]:
                beaten.setdefault(self.points[loser], self.points[winner])
        return beaten


def top_two(trials: Trials, budget: int, rng: np.random.Generator) -> SearchResult:
    """Blocks of episodes for the weights that may be best, by a Gaussian process over the weights (`surrogate.py`).

    Every second block goes to the rival of the one that seems best (top-two sampling).

    Args:
        budget: most episodes; at least a block for each corner and for equal weights.
    """
    from .surrogate import Surrogate

    first = seeds(trials.points)
    trials.announce(first, trials.block)
    for weights in first:
        trials.reach(weights, trials.block)
    while sum(map(len, trials.outcomes.values())) + trials.block <= budget:
        going = [w for w in trials.points if len(trials.outcomes[w]) < len(trials.starts)]
        if not going:
            break
        weights = Surrogate.fit(trials.points, trials.outcomes).ask(going, rng)
        trials.reach(weights, len(trials.outcomes[weights]) + 1)
    played = [w for w in trials.points if trials.outcomes[w]]
    rates = Surrogate.fit(trials.points, trials.outcomes).rates()
    chosen = max(played, key=lambda w: (rates[trials.points.index(w)], len(trials.outcomes[w])))
    says = f"A Gaussian process chose {len(played)} of {len(trials.points)} weights and how often to play each."
    return SearchResult(chosen, trials.tried({}), trials.full, says)


def seeds(points: Sequence[Weights]) -> list[Weights]:
    """The corners among the points, and the one nearest to equal weights."""
    middle = 1 / len(points[0])
    centre = min(points, key=lambda w: (sum(abs(part - middle) for part in w), w))
    return list(dict.fromkeys([*(w for w in points if max(w) == 1), centre]))


def simplex(parents: int, points: int) -> list[Weights]:
    """All weights of `parents` policies in steps of 1 / (points - 1), the first parent's share growing.

    Raises:
        ValueError: fewer than two points an edge.
    """
    if parents < 1 or points < 2:
        raise ValueError(f"a grid of weights needs at least 2 points an edge, got {points}")
    steps = points - 1

    def split(parts: int, left: int):
        if parts == 1:
            yield (left,)
            return
        for first in range(left + 1):
            for rest in split(parts - 1, left - first):
                yield (first, *rest)

    return [tuple(round(part / steps, 9) for part in counts) for counts in split(parents, steps)]


def smoothed(outcomes: dict[Weights, list[float]], among: Sequence[Weights], width: float) -> dict[Weights, float]:
    """Mean outcome of each of `among`, over neighbouring weights with a Gaussian kernel; `width` 0: its own alone."""
    played = [(np.array(w), len(got), float(np.sum(got))) for w, got in outcomes.items() if got]
    if width <= 0:
        return {w: float(np.mean(outcomes[w])) if outcomes[w] else 0.0 for w in among}
    at, count, total = (np.array(part) for part in zip(*played, strict=True))
    rates = {}
    for weights in among:
        near = np.exp(-0.5 * (np.abs(at - np.array(weights)).sum(1) / 2 / width) ** 2)
        rates[weights] = float((near * total).sum() / (near * count).sum())
    return rates


def weights_text(weights: Weights) -> str:
    """`0.30 + 0.70`."""
    return " + ".join(f"{part:.2f}" for part in weights)


def _promise(dropped: dict[Weights, str], alpha: float) -> str:
    tests = sum(why.startswith(BY_TEST) for why in dropped.values())
    ranks = len(dropped) - tests
    if not alpha:
        return f"No tests were made; {ranks} weights were dropped by rank, without a promise."
    return (
        f"Dropped by tests: {tests} (the best weight is dropped so with probability at most {alpha:g});"
        f" by rank, without a promise: {ranks}."
    )
