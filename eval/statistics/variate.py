"""The betting test with imagined outcomes as a control variate, and whether that pays.

From each start both policies act in the truth, d = b - a, and in a model of it, e = b' - a' (perhaps the mean of
several imagined repeats). Where the model knows which starts favour whom, d - c (e - m) varies less than d, and its
mean is that of d if m is the mean of e. The latter is estimated from n imagined pairs of other starts, and its error
is charged: each bettor uses the end of m's interval that is worse for him, one-sided at half of `CHARGED` of alpha,
and bets with the rest. Uncharged, one unlucky draw of the mean would turn the test into a biased one. So for every
model, however bad, a verdict where there is no difference stays below alpha in all; a bad model only costs power.

c and whether to use the model at all are settled by past starts, before the first pair. What counts is how differences
correlate, start by start: not r over policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from .betting import FRACTIONS, BettingTest, _log_sum

CHARGED = 0.1  # share of alpha for the error of the variate's mean
FEW = 30  # past starts below which nobody can tell whether it pays
GAP = 0.1  # difference of the policies at which it must pay
WORTH = 0.95  # pairs needed, as a share of those without, above which it does not pay
WEIGHTS = FRACTIONS**2 / (FRACTIONS**2).sum()
SURE = 0.8  # one-sided confidence of the correlation that is counted on


@dataclass(frozen=True)
class Variate:
    """What imagination adds to a comparison of two policies."""

    factor: float  # c, 0..1
    low: float  # of the mean imagined difference, one-sided each
    high: float


@dataclass(frozen=True)
class Worth:
    """Whether imagination pays, from past starts."""

    correlation: float  # of true and imagined differences; NaN where one does not vary
    surely: float  # its lower end
    factor: float
    pairs: float  # needed, as a share of those without imagination
    starts: int

    @property
    def pays(self) -> bool:
        return self.starts >= FEW and self.pairs <= WORTH

    def text(self) -> str:
        """What is printed first."""
        if self.starts < FEW:
            return f"imagination is off: {self.starts} past starts cannot tell whether it pays; give {FEW} or more"
        if not np.isfinite(self.correlation):
            return f"imagination is off: over {self.starts} past starts the true or the imagined differences never vary"
        found = (
            f"differences of {self.starts} past starts, true and imagined, correlate {self.correlation:+.2f} "
            f"(at least {self.surely:+.2f}, {SURE:.0%})"
        )
        if not self.pays:
            return f"{found}: imagination is off, for it would not pay; the plain test is used"
        return (
            f"{found}: imagination is on, with weight {self.factor:.2f}; about {self.pairs:.0%} of the pairs are needed"
        )


def worth(true: np.ndarray, imagined: np.ndarray, n: int, alpha: float = 0.05) -> Worth:
    """Whether a control variate pays, from differences b - a of past starts, (k,) true and imagined.

    Args:
        n: imagined pairs that its mean will come from.
    """
    from scipy.stats import norm

    true, imagined = np.asarray(true, float), np.asarray(imagined, float)
    k = len(true)
    if k < FEW or true.std() < 1e-9 or imagined.std() < 1e-9:
        return Worth(float("nan"), 0.0, 0.0, 1.0, k)
    found = float(np.corrcoef(true, imagined)[0, 1])
    surely = float(np.tanh(np.arctanh(np.clip(found, -0.999999, 0.999999)) - norm.ppf(SURE) / np.sqrt(k - 3)))
    factor = float(np.clip(max(surely, 0.0) * true.std() / imagined.std(), 0.0, 1.0))
    left = float((true - factor * imagined).var() / true.var()) if surely > 0 else 1.0
    left = max(left, 1 - max(found, 0.0) ** 2) + max(0.0, max(found, 0.0) ** 2 - max(surely, 0.0) ** 2)
    margin = factor * _z(alpha) * imagined.std() / np.sqrt(n)
    more = np.log(2 / (alpha * (1 - CHARGED))) / np.log(2 / alpha)
    pairs = left * more / max(1 - margin / GAP, 1e-9) ** 2
    return Worth(found, surely, factor, float(pairs), k)


def mean_of(imagined: np.ndarray, factor: float, alpha: float = 0.05) -> Variate:
    """The variate of imagined differences (n,) of starts that are not tested.

    The interval is as wide as if two pairs more had gone to either side: rare differences may be in none of the n.
    """
    imagined = np.asarray(imagined, float)
    margin = _z(alpha) * float(np.append(imagined, [-1.0, -1.0, 1.0, 1.0]).std(ddof=1)) / np.sqrt(len(imagined))
    middle = float(imagined.mean())
    return Variate(factor, middle - margin, middle + margin)


class VariateTest(BettingTest):
    """The betting test on d - c (e - m), for pairs whose imagined differences are known beforehand.

    Args:
        imagined: (most,) or (runs, most) difference b' - a' of each pair to come, in order.
        variate: one of `mean_of`, or (runs,) ones of simulations.
    """

    name = "imagined"

    def __init__(self, most: int, alpha: float, imagined: np.ndarray, variate: Variate | list[Variate], runs: int = 1):
        super().__init__(most, alpha, runs)
        self.imagined = np.broadcast_to(np.asarray(imagined, float), (runs, most))
        several = variate if isinstance(variate, list) else [variate] * runs
        self.factor, self.low, self.high = (
            np.array([getattr(one, name) for one in several]) for name in ("factor", "low", "high")
        )
        self.logs[:] = np.log(WEIGHTS)  # little varies that is left: bold bets pay more often
        self.bound = 1 + self.factor[:, None] * (1 + np.stack([self.high, -self.low], 1))  # (runs, 2): least is -1
        self.bets: list[tuple[float, float]] = []  # of the first run: what was bet on, for A and for B

    @property
    def _needed(self) -> float:
        return float(np.log(2 / (self.alpha * (1 - CHARGED))))

    def _look(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d, e = b - a, self.imagined[:, self.n - 1]
        moved = np.stack([-d + self.factor * (e - self.high), d - self.factor * (e - self.low)], 1) / self.bound
        if self.runs == 1:
            self.bets.append(tuple(moved[0].tolist()))
        return self._bet(moved)

    def _bet(self, moved: np.ndarray) -> np.ndarray:
        """-1, 0 or 1 of every run after bets on `moved` (runs, 2), each above -1."""
        self.logs = self.logs + np.log1p(FRACTIONS * moved[..., None])
        self.peak = np.maximum(self.peak, _log_sum(self.logs))
        done = self.peak >= self._needed - 1e-12
        return np.where(done[:, 1], 1, np.where(done[:, 0], -1, 0))

    def p_value(self) -> float:
        """Two-sided, valid at any time; never below what the variate's mean is charged, so at most alpha as decided."""
        return float(min(1.0, 2 * np.exp(-self.peak[0].max()) + self.alpha * CHARGED))

    def outlook(self, rng: np.random.Generator, futures: int = 400, enough: float = 1.0) -> float:
        """As `Sequential.outlook`; a future pair repeats what was bet on, so that truth and dream stay together."""
        if self.side[0]:
            return 1.0
        if self.n >= self.most:
            return 0.0
        ahead = cast(VariateTest, self._fork(futures, rng))
        kinds = np.array([(0, 0), (-1, 1), (1, -1), (0, 0)]) / self.bound[0]
        kinds = np.concatenate([kinds, np.reshape(self.bets, (-1, 2))])
        weights = np.cumsum(rng.dirichlet([0.5] * 4 + [1.0] * len(self.bets), futures), 1)
        weights[:, -1] = 1.0
        while ahead.n < ahead.most and (ahead.side != 0).mean() < enough:
            drawn = (weights < rng.random((futures, 1))).sum(1)
            ahead.n += 1
            ahead.side += np.where(ahead.side == 0, ahead._bet(kinds[drawn]), 0).astype(np.int8)
        return float((ahead.side != 0).mean())


def _z(alpha: float) -> float:
    from scipy.stats import norm

    return float(norm.isf(alpha * CHARGED / 2))
