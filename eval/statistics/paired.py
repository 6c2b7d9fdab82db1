"""Two policies from the same initial conditions: which differences of success and progress the episodes support.

Records join on (`initial_conditions`, `env_seed`). For a number of pairs fixed beforehand; says nothing about other
training seeds, nor about peeking while episodes come in. Sources: McNemar 1947 (exact form), Tango 1998 (score
interval of a paired difference, equations 9-12), Newcombe 1998 (method 10, two independent rates), Hesterberg 2015
(expanded percentile).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .distributions import normal_isf, t_isf, t_sf
from .intervals import Interval, exact, expanded_tail, wilson


@dataclass(frozen=True)
class Pairs:
    """Episodes of a first and a second policy, paired by initial condition."""

    starts: tuple[tuple[str, int], ...]  # (initial_conditions, env_seed), n of them
    success: np.ndarray  # (n, 2) bool
    progress: np.ndarray  # (n, 2) float64, best progress, 0..1
    left_out: int = 0  # initial conditions that only one of the two has

    @property
    def only_first(self) -> int:
        """Initial conditions from which the first alone succeeded."""
        return int((self.success[:, 0] & ~self.success[:, 1]).sum())

    @property
    def only_second(self) -> int:
        """Initial conditions from which the second alone succeeded."""
        return int((self.success[:, 1] & ~self.success[:, 0]).sum())


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first. Intervals are two-sided."""

    n: int
    only_first: int
    only_second: int
    success: Interval  # Tango's score interval of the difference of the rates
    p: float  # exact McNemar test of equal rates, two-sided
    success_bootstrap: Interval
    progress: Interval  # bootstrap, difference of the mean best progress


def paired_difference(pairs: Pairs, rng: np.random.Generator, confidence: float = 0.95) -> PairedDifference:
    """All that fixed-n pairs say about second minus first."""
    n, lost, won = len(pairs.starts), pairs.only_first, pairs.only_second
    differences = pairs.success[:, 1].astype(float) - pairs.success[:, 0]
    progress = pairs.progress[:, 1] - pairs.progress[:, 0]
    return PairedDifference(
        n=n,
        only_first=lost,
        only_second=won,
        success=tango(won, lost, n, confidence),
        p=mcnemar(won, lost),
        success_bootstrap=paired_bootstrap(differences, rng, confidence),
        progress=paired_bootstrap(progress, rng, confidence),
    )


def paired_t(differences, confidence: float = 0.95) -> tuple[Interval, float | None]:
    """Student's t interval of the mean of paired differences of any size, and the two-sided p-value of no difference.

    Of one pair neither says anything: the ends are NaN and p is None. Equal differences have no width.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("paired differences are a list of at least one finite value")
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Interval(np.nan, mean, np.nan), None
    error = float(values.std(ddof=1) / np.sqrt(n))
    half = t_isf((1 - confidence) / 2, n - 1) * error
    p = 2 * t_sf(abs(mean) / error, n - 1) if error else float(mean == 0)
    return Interval(mean - half, mean, mean + half), p


def mcnemar(won: int, lost: int) -> float:
    """Two-sided p-value of the exact McNemar test: discordant pairs fall either way with probability 1/2."""
    from scipy.special import bdtr

    if won < 0 or lost < 0:
        raise ValueError(f"counts of pairs cannot be negative: {won}, {lost}")
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))  # twice the cumulative binomial


def tango(won: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval of (won - lost) / n, the difference of two rates over n pairs.

    Args:
        won: pairs in which only the second succeeded; lost: only the first; the other n - won - lost agree.

    Raises:
        ValueError: counts that do not fit into n pairs.
    """
    from scipy.optimize import brentq

    if n < 1 or won < 0 or lost < 0 or won + lost > n:
        raise ValueError(f"{won} won and {lost} lost do not fit into {n} pairs")
    z, edge = normal_isf((1 - confidence) / 2), 1 - 1e-12
    low = -1.0 if lost == n else brentq(lambda at: _tango_score(at, won, lost, n) - z, -edge, edge)
    high = 1.0 if won == n else brentq(lambda at: _tango_score(at, won, lost, n) + z, -edge, edge)
    return Interval(float(low), (won - lost) / n, float(high))


def newcombe(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Interval of the second rate minus the first for independent episodes; each is (successes, n)."""
    a, b = wilson(*first, confidence), wilson(*second, confidence)
    difference = b.estimate - a.estimate
    below = np.hypot(b.estimate - b.low, a.high - a.estimate)
    above = np.hypot(b.high - b.estimate, a.estimate - a.low)
    return Interval(float(difference - below), difference, float(difference + above))


def paired_bootstrap(differences, rng: np.random.Generator, confidence: float = 0.95, draws: int = 10_000) -> Interval:
    """Bootstrap interval of the mean of paired differences in [-1, 1], resampling pairs.

    Percentiles are widened by the ratio of t to normal quantiles, since plain ones are too narrow for some tens of
    pairs. When all n differences are the same number c, the Clopper-Pearson bound p on the share of pairs that give c
    is used: the mean lies in [c p - (1 - p), c p + (1 - p)]. For differences of success over some twenty pairs prefer
    `tango`, which keeps its coverage where nearly all discordant pairs fall to one side (.97 against .92).

    Raises:
        ValueError: no differences, or one outside [-1, 1].
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or np.abs(values).max() > 1:
        raise ValueError("paired differences are a list of at least one value in [-1, 1]")
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        share = exact(n, n, confidence).low
        return Interval(mean * share - (1 - share), mean, mean * share + (1 - share))
    tail = expanded_tail(n, confidence)
    low, high = np.quantile(_resampled_means(values, rng, draws), (tail, 1 - tail))
    return Interval(float(max(-1, low)), mean, float(min(1, high)))


def _resampled_means(values: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """(draws,) means of n values drawn with replacement; counts of the distinct values are drawn, which is the same."""
    distinct, counts = np.unique(values, return_counts=True)
    return rng.multinomial(len(values), counts / len(values), draws) @ distinct / len(values)


def _tango_score(at: float, won: int, lost: int, n: int) -> float:
    """Standardised distance of the observed difference from `at`, with the likeliest rate of losses given `at`."""
    b = -won - lost + (2 * n - won + lost) * at
    rate = (np.sqrt(max(0.0, b * b + 8 * n * lost * at * (1 - at))) - b) / (4 * n)
    variance = n * (2 * rate + at * (1 - at))
    return (won - lost - n * at) / np.sqrt(max(variance, 1e-300))
