"""How small a difference of success rates a number of episodes can show, and how many episodes a difference needs.

For two-sided tests with n fixed beforehand. Independent episodes: the pooled two-sample score test, by its normal
approximation. Pairs from the same initial conditions: the exact McNemar test, by exact enumeration. Says nothing
about training seeds. Sources: Fleiss 1981 (equation 3.14, without continuity correction); Miettinen 1968 (pairs).
"""

from __future__ import annotations

import numpy as np

from .distributions import binomial_cdf, binomial_pmf, binomial_sf, normal_cdf, normal_isf

MOST = 1_000_000  # episodes beyond which nobody goes


def power_independent(n: int, first: float, second: float, alpha: float = 0.05) -> float:
    """Probability that n episodes of each of two policies with these success rates show that they differ."""
    if first == second:
        return alpha
    middle = (first + second) / 2
    apart = np.sqrt(n) * abs(second - first) - normal_isf(alpha / 2) * np.sqrt(2 * middle * (1 - middle))
    return normal_cdf(apart / max(1e-12, np.sqrt(first * (1 - first) + second * (1 - second))))


def power_paired(n: int, won: float, lost: float, alpha: float = 0.05) -> float:
    """Probability that the exact McNemar test of n pairs rejects.

    Args:
        won, lost: probabilities that only the second, only the first succeeds in an episode; won + lost <= 1.
    """
    discordant = won + lost
    if not 0 <= discordant <= 1 + 1e-12:
        raise ValueError(f"probabilities of discordant pairs {won} and {lost} do not fit")
    if discordant <= 0:
        return 0.0
    counts = np.arange(n + 1)
    edge = _mcnemar_edge(counts, alpha)
    share = won / discordant
    reject = binomial_cdf(edge, counts, share) + binomial_sf(counts - edge - 1, counts, share)
    return float(np.sum(binomial_pmf(counts, n, min(1.0, discordant)) * np.where(edge >= 0, reject, 0)))


def discordance(first: float, second: float, correlation: float = 0.0) -> tuple[float, float]:
    """(won, lost) of two success rates whose paired outcomes correlate by `correlation`, as far as that can be."""
    both = first * second + correlation * np.sqrt(first * (1 - first) * second * (1 - second))
    both = float(np.clip(both, max(0.0, first + second - 1), min(first, second)))
    return second - both, first - both


def detectable(
    n: int, rate: float, *, paired: bool = False, correlation: float = 0.0, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest difference from `rate`, towards the middle of 0..1, that n episodes of each show; None: not even 1.

    Args:
        n: episodes of each policy, or pairs.
        rate: success rate of one policy; the other is taken to be nearer to 1/2 or beyond.
        correlation: of the outcomes from an initial condition, for pairs; 0 is what unrelated outcomes have.
    """
    _check(n, rate, power)
    side = -1.0 if rate >= 0.5 else 1.0
    low, high = 0.0, rate if side < 0 else 1 - rate

    def reached(gap: float) -> bool:
        return _power(n, rate, rate + side * gap, paired, correlation, alpha) >= power

    if not reached(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def needed(
    first: float, second: float, *, paired: bool = False, correlation: float = 0.0, power=0.8, alpha=0.05
) -> int:
    """Episodes of each policy (or pairs) that show the difference of two success rates with this power.

    Raises:
        ValueError: equal rates, or more than a million episodes.
    """
    _check(1, first, power)
    _check(1, second, power)
    if first == second:
        raise ValueError("no number of episodes shows a difference between equal rates")

    def reached(n: int) -> bool:
        return _power(n, first, second, paired, correlation, alpha) >= power

    high = 4
    while not reached(high):
        high *= 2
        if high > MOST:
            raise ValueError(f"a difference between {first} and {second} needs more than {MOST} episodes")
    low = high // 2
    while high - low > 1:  # the power of an exact test has teeth; this finds an n from which it holds within one tooth
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _power(n: int, first: float, second: float, paired: bool, correlation: float, alpha: float) -> float:
    if paired:
        return power_paired(n, *discordance(first, second, correlation), alpha)
    return power_independent(n, first, second, alpha)


def _mcnemar_edge(counts: np.ndarray, alpha: float) -> np.ndarray:
    """Largest number of pairs on one side, of `counts` discordant ones, at which the test rejects; -1: never."""
    from scipy.special import bdtrik

    near = np.floor(np.nan_to_num(bdtrik(alpha / 2, counts, 0.5))).astype(int) - 1  # a step below, for it is rounded
    for _ in range(2):
        near = np.where(binomial_cdf(near + 1, counts, 0.5) <= alpha / 2, near + 1, near)
    return near


def _check(n: int, rate: float, power: float) -> None:
    if n < 1 or not 0 <= rate <= 1 or not 0 < power < 1:
        raise ValueError(f"no such plan: {n} episodes, success rate {rate}, power {power}")
