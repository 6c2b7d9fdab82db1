"""Intervals for what an evaluation reports: a success rate and a mean progress, each with its uncertainty.

Two-sided, for a number of episodes fixed beforehand; peeking while episodes come in needs a sequential test instead.
Sources: Wilson 1927, Clopper and Pearson 1934, Hesterberg 2015 (expanded percentiles). What they deliver is measured
by `coverage.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .distributions import beta_isf, beta_ppf, normal_cdf, normal_isf, t_isf


class Interval(NamedTuple):
    """An estimate between its two ends, all in the unit of what was measured."""

    low: float
    estimate: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate: close to its nominal coverage on average, also near 0 and 1.

    Counts of episodes that are alike may be divided by their design effect, and are no whole numbers then.

    Raises:
        ValueError: successes outside 0..n, or no episodes.
    """
    _check_counts(successes, n, confidence)
    z = normal_isf((1 - confidence) / 2)
    rate = successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Interval(float(low), rate, float(high))


def exact(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The Clopper-Pearson interval of a success rate: never covers less than nominal, so it is wider than Wilson's."""
    _check_counts(successes, n, confidence)
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta_ppf(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta_isf(tail, successes + 1, n - successes)
    return Interval(float(low), successes / n, float(high))


def mean_interval(values, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of values in [0, 1], cut to [0, 1].

    When all n values are the same number c, a t interval would have no width and promise too much. Then the
    Clopper-Pearson bound p on the share of episodes that give c is used: the mean lies in [c p, 1 - (1 - c) p].

    Raises:
        ValueError: no values, or one outside [0, 1].
    """
    values = _bounded(values)
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        share = exact(n, n, confidence).low
        return Interval(mean * share, mean, 1 - (1 - mean) * share)
    half = t_isf((1 - confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return Interval(float(max(0, mean - half)), mean, float(min(1, mean + half)))


def bootstrap_interval(values, rng: np.random.Generator, confidence: float = 0.95, draws: int = 10_000) -> Interval:
    """Bootstrap interval of the mean of values in [0, 1]; for skewed samples of some tens of episodes.

    Percentiles are widened as `expanded_tail` says. Equal values get the interval of `mean_interval`.
    """
    values = _bounded(values)
    if np.ptp(values) == 0:
        return mean_interval(values, confidence)
    means = np.concatenate(
        [values[rng.integers(0, len(values), (part, len(values)))].mean(1) for part in _parts(draws, 1000)]
    )
    tail = expanded_tail(len(values), confidence)
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(values.mean()), float(high))


def expanded_tail(n: int, confidence: float) -> float:
    """The tail to cut from bootstrap means so that they reach as far as Student's t (Hesterberg 2015, section 5.2)."""
    return normal_cdf(-np.sqrt(n / (n - 1)) * t_isf((1 - confidence) / 2, n - 1))


def success_by_step(first_success, horizon: int) -> np.ndarray:
    """(horizon + 1,) share of episodes that succeeded within 0, 1, .. horizon steps; `first_success` -1 is never."""
    first = np.asarray(first_success)
    counts = np.bincount(first[(first >= 0) & (first <= horizon)], minlength=horizon + 1)
    return np.cumsum(counts) / max(1, len(first))


def _parts(total: int, size: int) -> list[int]:
    return [min(size, total - begun) for begun in range(0, total, size)]


def _bounded(values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"an interval needs a list of at least one value, got shape {values.shape}")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"values must lie in [0, 1], got {values.min()} .. {values.max()}")
    return values


def _check_counts(successes: float, n: float, confidence: float) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} episodes is not a rate")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
