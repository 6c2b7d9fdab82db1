"""Measures of a shortlist by off-policy estimates, against the truth: how good it is, and how safe.

SharpeRatio@k (Kiyohara et al. 2023, SCOPE-RL): of the k policies with the highest estimates, what the best is worth
above the behaviour policy that made the data, over the standard deviation of what the k are worth, which is the risk of
trying them. Knows nothing of how estimates or truths came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...configs.progress import counted


def sharpe_ratio(estimates: Sequence[float], truths: Sequence[float], behaviour: float, k: int) -> float:
    """SharpeRatio@k; infinite where the k are worth the same and more than the behaviour, 0 where none is.

    Args:
        estimates: of each policy, off-policy.
        truths: what each is worth.
        behaviour: what the policy that made the data is worth.
        k: length of the shortlist, 2 or more: one policy has no standard deviation.

    Raises:
        ValueError: k outside of 2..policies, or lists of different length.
    """
    chosen = top(estimates, truths, k)
    if k < 2:
        raise ValueError("SharpeRatio@k divides by a standard deviation, so k is at least 2")
    gain, risk = max(0.0, float(chosen.max()) - behaviour), float(chosen.std(ddof=1))
    return gain / risk if risk else (math.inf if gain else 0.0)


def top(estimates: Sequence[float], truths: Sequence[float], k: int) -> np.ndarray:
    """(k,) truths of the policies with the highest estimates, best estimate first; equal ones in the order given."""
    estimates, truths = np.asarray(estimates, np.float64), np.asarray(truths, np.float64)
    if estimates.shape != truths.shape or estimates.ndim != 1:
        raise ValueError(f"{len(estimates)} estimates and {len(truths)} truths are not of the same policies")
    if not 1 <= k <= len(estimates):
        raise ValueError(f"a shortlist of {counted(len(estimates), 'policy')} has 1..{len(estimates)} entries, got {k}")
    return truths[np.argsort(-estimates, kind="stable")[:k]]


def regret(estimates: Sequence[float], truths: Sequence[float], k: int = 1) -> float:
    """What the best policy is worth above the best of the shortlist."""
    return float(np.max(truths) - top(estimates, truths, k).max())
