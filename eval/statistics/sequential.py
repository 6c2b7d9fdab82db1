"""Tests that may be looked at after every pair of episodes and stopped at any time: what they share, and their names.

A test takes pairs (a, b), one outcome of each policy, and says A, B or nothing yet. Its false positives stay below
alpha however often one looks and whenever one stops; a test made for a fixed n (`paired`) has no such promise.

Giving up is a rule of its own here (`Sequential.hopeless`): what comes is drawn from what was seen (Bayesian
bootstrap with half a pseudo-pair of each kind of outcome), and when fewer than `GIVE_UP` of these futures are decided
within the budget, going on is not worth the episodes. It can only end a run without a verdict, so it adds no false
positive; it costs a little power, which the study (`sequential_study`) measures.

Knows nothing of worlds, records or policies.
Sources: Ville 1939; Snyder et al. 2025 (arXiv 2503.10966); N-SCORE (arXiv 2603.13616); Mathieu et al., AdaStop.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

A, B, UNDECIDED, HOPELESS = "A", "B", "undecided", "hopeless"
GIVE_UP = 0.05  # share of futures that must be decided for going on to be worth it
FIRST_DOUBT = 24  # pairs before which nothing is called hopeless
FUTURES = 400


@dataclass(frozen=True)
class State:
    """Where a test stands."""

    pairs: int
    decision: str | None  # "A", "B": that policy is better; "undecided": the budget is spent; "hopeless"; None: go on
    toward_a: float  # 0..1, how much of the evidence needed for "A is better" is there
    toward_b: float
    note: str = ""  # the same in the test's own unit

    @property
    def evidence(self) -> float:
        """-1..1: the larger of both, negative for A; the test decides at either end."""
        return self.toward_b if self.toward_b >= self.toward_a else -self.toward_a


class Sequential:
    """A two-sided test of two policies on pairs of outcomes; alpha is split evenly between "A" and "B".

    It follows `runs` independent comparisons at once, all with the same number of pairs: simulations and the outlook
    use that, a real comparison has one. Subclasses keep arrays whose first axis is `runs` and name them in `PARTS`.

    Args:
        most: pairs at which the test ends, decided or not.
        alpha: bound on the probability of any verdict where there is no difference, both sides together.
        runs: R.
        rng: of a test that draws.
    """

    name = ""
    outcomes = ""  # what a and b are
    independent = False  # whether the two outcomes of a pair must be independent of each other
    PARTS: tuple[str, ...] = ("side", "when")

    def __init__(self, most: int, alpha: float = 0.05, runs: int = 1, rng: np.random.Generator | None = None):
        if most < 1 or not 0 < alpha < 1 or runs < 1:
            raise ValueError(f"no such test: {most} pairs, alpha {alpha}, {runs} runs")
        self.most, self.alpha, self.runs, self.rng = most, alpha, runs, rng
        self.n = 0
        self.side = np.zeros(runs, np.int8)  # -1: A is better, 1: B is better, 0: no verdict
        self.when = np.full(runs, most, np.int32)  # pairs used
        self.gave_up = False
        self.seen: list[tuple[float, float]] = []  # of the first run

    def update(self, a, b) -> State:
        """Take one pair: scalars or (R,), in [0, 1] (success as 0 or 1). After a verdict nothing changes any more.

        Raises:
            ValueError: outcomes outside [0, 1], or more pairs than the budget.
        """
        if self.n >= self.most:
            raise ValueError(
                f"the test was made for {self.most} pairs; plan a larger budget beforehand, not afterwards"
            )

        a, b = (np.broadcast_to(np.asarray(value, np.float64), self.runs) for value in (a, b))
        for value in (a, b):
            if not (np.isfinite(value).all() and value.min() >= 0 and value.max() <= 1):
                raise ValueError(f"outcomes must lie in [0, 1], got {value.min()} .. {value.max()}")

        if self.runs == 1 and self.side[0]:
            return self.state()
        self.n += 1
        if self.runs == 1:
            self.seen.append((float(a[0]), float(b[0])))

        # Runs with a verdict keep it.
        side = np.where(self.side == 0, self._look(a, b), 0).astype(np.int8)
        self.when[side != 0] = self.n
        self.side += side
        return self.state()

    @property
    def decision(self) -> str | None:
        """Of the first run: "A", "B", "undecided", "hopeless", or None while the test goes on."""
        if self.side[0]:
            return B if self.side[0] > 0 else A
        if self.n >= self.most:
            return UNDECIDED
        return HOPELESS if self.gave_up else None

    @property
    def evidence(self) -> float:
        """See `State.evidence`."""
        return self.state().evidence

    def state(self) -> State:
        """Of the first run."""
        toward_a, toward_b, note = self._progress()
        toward_a, toward_b = (min(1.0, max(0.0, float(value))) for value in (toward_a, toward_b))
        if self.side[0]:
            toward_a, toward_b = (toward_a, 1.0) if self.side[0] > 0 else (1.0, toward_b)
        return State(self.n, self.decision, toward_a, toward_b, note)

    def outlook(self, rng: np.random.Generator, futures: int = FUTURES, enough: float = 1.0) -> float:
        """Share of imagined futures, drawn from the pairs seen so far, that are decided within the budget.

        Args:
            enough: a share at which to stop imagining; then it is a lower bound.
        """
        if self.side[0]:
            return 1.0
        if self.n >= self.most:
            return 0.0
        ahead = self._fork(futures, rng)
        kinds = np.array([(0, 0), (0, 1), (1, 0), (1, 1), *self.seen], np.float64)
        weights = np.cumsum(rng.dirichlet([0.5] * 4 + [1.0] * len(self.seen), futures), 1)
        weights[:, -1] = 1.0
        while ahead.n < ahead.most and (ahead.side != 0).mean() < enough:
            drawn = (weights < rng.random((futures, 1))).sum(1)
            ahead.update(kinds[drawn, 0], kinds[drawn, 1])
        return float((ahead.side != 0).mean())

    def hopeless(self, bound: float = GIVE_UP) -> bool:
        """Whether to give up now: no verdict, `FIRST_DOUBT` pairs seen, and an outlook below `bound`.

        The outlook's draws are keyed by the number of pairs, so the same data give the same answer. Once true, it is
        remembered: `decision` is "hopeless" until the next pair is taken.
        """
        if self.decision is None and self.n >= FIRST_DOUBT:
            self.gave_up = self.outlook(np.random.default_rng((20250310, self.n)), enough=bound) < bound
        return self.decision == HOPELESS

    def _fork(self, runs: int, rng: np.random.Generator) -> Sequential:
        """This test's first run, `runs` times, with other draws."""
        twin = copy.copy(self)
        twin.runs, twin.rng, twin.gave_up, twin.seen = runs, rng, False, []
        for part in self.PARTS:
            setattr(twin, part, np.repeat(getattr(self, part)[:1], runs, axis=0))
        return twin

    def _look(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Take a pair of every run (R,) and say -1, 0 or 1 for each."""
        raise NotImplementedError

    def _progress(self) -> tuple[float, float, str]:
        """Toward A, toward B (0..1), and the same in words, of the first run."""
        raise NotImplementedError
