"""Tails and quantiles of the distributions that intervals and tests need.

From `scipy.special`, of which `scipy.stats` is made: importing the latter takes seconds, and every evaluation and
comparison would wait for them.
"""

from __future__ import annotations

import numpy as np


def normal_isf(tail: float) -> float:
    """Where a standard normal variable lies above with probability `tail`."""
    from scipy.special import ndtri

    return -float(ndtri(tail))


def normal_cdf(at: float) -> float:
    """Probability that a standard normal variable lies below `at`."""
    from scipy.special import ndtr

    return float(ndtr(at))


def t_isf(tail: float, freedom: float) -> float:
    """Where a variable of Student's t with `freedom` degrees of freedom lies above with probability `tail`."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, tail))


def t_sf(at: float, freedom: float) -> float:
    """Probability that a variable of Student's t with `freedom` degrees of freedom lies above `at`."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -at))


def beta_ppf(share: float, a: float, b: float) -> float:
    """Where a beta variable lies below with probability `share`."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, share))


def beta_isf(tail: float, a: float, b: float) -> float:
    """Where a beta variable lies above with probability `tail`."""
    from scipy.special import betainccinv

    return float(betainccinv(a, b, tail))


def binomial_cdf(k, n, p) -> np.ndarray:
    """Probability of at most k successes in n trials with success rate p; k below 0 and above n, too."""
    from scipy.special import betainc

    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    within = np.clip(k, 0, n)
    return np.select([k < 0, k >= n], [0.0, 1.0], betainc(n - within, within + 1, 1 - p))


def binomial_sf(k, n, p) -> np.ndarray:
    """Probability of more than k successes in n trials with success rate p, exact where it is small."""
    from scipy.special import betainc

    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    within = np.clip(k, 0, n)
    return np.select([k < 0, k >= n], [1.0, 0.0], betainc(within + 1, n - within, p))


def binomial_pmf(k, n, p) -> np.ndarray:
    """Probability of k successes, 0 <= k <= n, in n trials with success rate p."""
    from scipy.special import gammaln, xlog1py, xlogy

    k, n = np.asarray(k, float), np.asarray(n, float)
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.exp(ways + xlogy(k, p) + xlog1py(n - k, -p))
