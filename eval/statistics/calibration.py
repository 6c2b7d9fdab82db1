"""Lines from a proxy's numbers to the truth's, fitted on other trainings than the one they are tried on.

Policies of one training rise and fall together, so a line that is to hold for the next training is judged by leaving
whole trainings out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P + 1,) least squares of y (n,) on x (n, P) and 1; where x does not vary, its smallest solution."""
    return np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]


def predict(line: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n,) of x (n, P), within 0..1 as rates are."""
    return np.clip(np.column_stack([x, np.ones(len(x))]) @ line, 0.0, 1.0)


def left_out(x: np.ndarray, y: np.ndarray, groups: Sequence | np.ndarray) -> np.ndarray:
    """(n,) what the line of the other groups says of each row of x (n, P); NaN where fewer than two groups are left."""
    member = np.unique(np.asarray(groups), return_inverse=True)[1]
    out = np.full(len(y), np.nan)
    for group in range(member.max() + 1 if len(member) else 0):
        here, others = member == group, member != group
        if len(np.unique(member[others])) >= 2:
            out[here] = predict(fit(x[others], y[others]), x[here])
    return out
