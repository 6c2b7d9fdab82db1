"""How alike two worlds rank policies: correlations and rank violations between a proxy and the truth.

All functions take `truth=` and `proxy=` by name, since MMRV is not symmetric: it is in units of true success. Rates of
policies, not episodes, are the points. Sources: Li et al. 2024 (SIMPLER; Pearson r and MMRV, equations 1-2), Kendall's
tau-b, Spearman 1904 (attenuation by noise), Davison and Hinkley 1997 (nested resampling).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .intervals import Interval

FEW = 5  # policies up to which there is no interval, only a permutation bound; training runs that cannot be resampled
EXHAUSTIVE = 7  # policies up to which all permutations are tried
MEASURES = ("r", "rho", "tau", "mmrv")


class Bound(NamedTuple):
    """A one-sided permutation test of "the proxy's order has nothing to do with the truth's"."""

    p: float  # share of orders at least as good as the one observed
    least: float  # 1 / k!: no p-value of k policies is smaller
    permutations: int


@dataclass(frozen=True)
class OutcomeTables:
    """Outcomes of k policies in both worlds; an initial condition that both worlds have is one row.

    NaN where a policy was not run from it in a world. Values in 0..1 (success or progress).
    """

    truth: np.ndarray  # (initial conditions, k)
    proxy: np.ndarray  # (initial conditions, k)

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """(k,) mean values in truth and in proxy."""
        return np.nanmean(self.truth, 0), np.nanmean(self.proxy, 0)


def pearson(*, truth, proxy) -> np.ndarray:
    """Pearson's r over the last axis, (..., k) twice -> (...); NaN where all rates of a world are equal."""
    x, y = _pair(truth, proxy)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    return _ratio((x * y).sum(-1), np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def spearman(*, truth, proxy) -> np.ndarray:
    """Spearman's rho: Pearson's r of the ranks, ties sharing their mean rank; shapes as `pearson`."""
    from scipy.stats import rankdata

    x, y = _pair(truth, proxy)
    return pearson(truth=rankdata(x, axis=-1), proxy=rankdata(y, axis=-1))


def kendall(*, truth, proxy) -> np.ndarray:
    """Kendall's tau-b; shapes as `pearson`."""
    x, y = (np.sign(rates[..., :, None] - rates[..., None, :]) for rates in _pair(truth, proxy))
    return _ratio((x * y).sum((-1, -2)), np.sqrt((x * x).sum((-1, -2)) * (y * y).sum((-1, -2))))


def mmrv(*, truth, proxy) -> np.ndarray:
    """Mean over policies of the largest true gap to a policy that the proxy orders the other way; 0 is best.

    As published, a tie on one side alone counts as a violation. Small whatever the proxy does where the true rates lie
    close together, so report it beside their spread. Shapes as `pearson`.
    """
    x, y = (rates[..., :, None] - rates[..., None, :] for rates in _pair(truth, proxy))
    return np.where((y > 0) != (x > 0), abs(x), 0.0).max(-1).mean(-1)


STATISTICS: dict[str, Callable] = {"r": pearson, "rho": spearman, "tau": kendall, "mmrv": mmrv}


def permutation_bound(*, truth, proxy, rng: np.random.Generator, draws: int = 20_000) -> Bound:
    """How surprising Spearman's rho would be if every order of the proxy's rates were equally likely.

    Exact up to 7 policies, beyond by `draws` random orders. One-sided: agreement, not its opposite.
    """
    from scipy.stats import rankdata

    x, y = (ranks - ranks.mean() for ranks in map(rankdata, _pair(truth, proxy)))
    k, least = len(x), 1 / math.factorial(len(x))
    if not x.any() or not y.any():
        return Bound(1.0, least, 0)
    if k <= EXHAUSTIVE:
        orders, extra = np.array(list(itertools.permutations(range(k)))), 0
    else:
        orders, extra = rng.permuted(np.tile(np.arange(k), (draws, 1)), axis=1), 1
    hits = int((y[orders] @ x >= y @ x - 1e-6).sum())  # sums of products of ranks, which are multiples of 1/4
    return Bound((hits + extra) / (len(orders) + extra), least, len(orders))


def agreement_intervals(
    cells: OutcomeTables,
    rng: np.random.Generator,
    groups: Sequence | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
) -> dict[str, Interval]:
    """Estimate and interval of r, rho, tau and MMRV by resampling policies and, within them, initial conditions.

    The latter are drawn for all policies and both worlds together, so what they share stays shared. Policies of one
    group (checkpoints of one training run) are drawn together. Up to `FEW` policies get no interval,
    `permutation_bound` says what they can show; more policies of at most `FEW` groups have only their initial
    conditions resampled, and the interval holds for these policies alone. Percentiles; noise of the resampled
    episodes enters twice, so the intervals of r lie somewhat low and those of MMRV somewhat high.

    Args:
        groups: (k,) label of each policy; default every policy for itself.

    Returns:
        Measure -> interval; NaN ends where there is none, or more than half of the resamples leave it undefined.
    """
    truth, proxy = cells.rates()
    if truth.size <= FEW:
        return {name: _bare(STATISTICS[name](truth=truth, proxy=proxy)) for name in MEASURES}

    tables = _resampled_rates(cells, rng, draws)  # (draws, k) twice
    chosen = _resampled_policies(truth.size, groups, rng, draws)

    # Resamples of equal size, all at once.
    resampled: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    for size in {len(policies) for policies in chosen}:
        rows = [i for i, policies in enumerate(chosen) if len(policies) == size]
        take = np.array([chosen[i] for i in rows])
        x, y = (np.take_along_axis(table[rows], take, 1) for table in tables)
        for name in MEASURES:
            resampled[name].append(STATISTICS[name](truth=x, proxy=y))

    tail = (1 - confidence) / 2
    return {
        name: _percentiles(np.concatenate(resampled[name]), float(STATISTICS[name](truth=truth, proxy=proxy)), tail)
        for name in MEASURES
    }


def noise_ceiling(
    *, truth, error_truth, error_proxy, rng: np.random.Generator, confidence: float = 0.95, draws: int = 4000
) -> Interval:
    """The r that a perfect proxy would show: its true rates equal the truth's, and both are measured with noise.

    True rates are the measured ones drawn to their mean by as much as noise has spread them; then both worlds measure
    them anew with normal noise. Median and range of r; NaN where noise explains all differences of the truth. Noise
    that policies share, because they act from the same initial conditions, is taken to be independent: the ceiling
    lies low there.

    Args:
        truth: (k,) rates measured in the truth; error_truth, error_proxy: (k,) standard errors of the two worlds.
    """
    rates, here, there = (np.asarray(values, np.float64) for values in (truth, error_truth, error_proxy))
    noise, spread = np.mean(here**2), rates.var(ddof=1) if len(rates) > 1 else 0.0
    if spread <= noise:
        return Interval(math.nan, math.nan, math.nan)
    likely = rates.mean() + np.sqrt(1 - noise / spread) * (rates - rates.mean())
    x, y = (likely + error * rng.standard_normal((draws, len(likely))) for error in (here, there))
    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(pearson(truth=x, proxy=y), (tail, 0.5, 1 - tail))
    return Interval(float(low), float(middle), float(high))


def _resampled_rates(cells: OutcomeTables, rng: np.random.Generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(draws, k) twice: rates after drawing initial conditions anew, among those that were run in the same cells."""
    both = np.concatenate([cells.truth, cells.proxy], 1)
    there = ~np.isnan(both)
    patterns, members = np.unique(there, axis=0, return_inverse=True)
    sums, counts = np.zeros((draws, both.shape[1])), np.zeros(both.shape[1])
    for kind in range(len(patterns)):
        values = np.where(patterns[kind], both[members.ravel() == kind], 0.0)
        n = len(values)
        sums += rng.multinomial(n, np.full(n, 1 / n), draws) @ values
        counts += n * patterns[kind]
    rates = sums / counts
    k = cells.truth.shape[1]
    return rates[:, :k], rates[:, k:]


def _resampled_policies(k: int, groups: Sequence | None, rng: np.random.Generator, draws: int) -> list[np.ndarray]:
    labels = np.arange(k) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    families = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    if len(families) <= FEW:
        return [np.arange(k)] * draws
    picks = rng.integers(0, len(families), (draws, len(families)))
    return [np.concatenate([families[i] for i in row]) for row in picks]


def _bare(estimate) -> Interval:
    return Interval(math.nan, float(estimate), math.nan)


def _percentiles(values: np.ndarray, estimate: float, tail: float) -> Interval:
    defined = values[~np.isnan(values)]
    if len(defined) <= len(values) / 2:
        return _bare(estimate)
    low, high = np.quantile(defined, (tail, 1 - tail))
    return Interval(float(low), estimate, float(high))


def _pair(truth, proxy) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(truth, np.float64), np.asarray(proxy, np.float64)
    if x.shape != y.shape or x.ndim < 1 or not x.shape[-1]:
        raise ValueError(f"truth and proxy need one rate for each policy, got shapes {x.shape} and {y.shape}")
    return x, y


def _ratio(top, bottom) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 1e-14, np.clip(top / bottom, -1, 1), np.nan)
