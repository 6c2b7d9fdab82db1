"""More than two policies: p-values corrected for the number of questions, and letters for who differs from whom.

Knows nothing of where the p-values come from. Sources: Holm 1979; Piepho 2004 (insert and absorb).
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np


def holm(p_values) -> np.ndarray:
    """(m,) p-values adjusted by Holm's step-down rule: those <= alpha are rejected with family-wise error alpha.

    Raises:
        ValueError: a value outside [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values are a list of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, stepped)
    return adjusted


def letters(values: Sequence[float], different) -> list[str]:
    """Compact letter display: two policies share a letter exactly if they are not shown to differ.

    Args:
        values: (k,) estimates; the best has an "a".
        different: (k, k) bool, symmetric: which pairs were shown to differ.

    Returns:
        One string of letters a policy, in the order of `values`. Sharing a letter is no evidence of being equal.

    Raises:
        ValueError: a table that is not symmetric or calls a policy different from itself.
    """
    table, k = np.asarray(different, bool), len(values)
    if table.shape != (k, k) or (table != table.T).any() or table.diagonal().any():
        raise ValueError(f"the table of differences must be a symmetric ({k}, {k}) with an empty diagonal")
    groups = [frozenset(range(k))] if k else []
    for first, second in zip(*np.nonzero(np.triu(table)), strict=True):
        groups = _absorb([part for group in groups for part in _split(group, int(first), int(second))])
    order = np.argsort(-np.asarray(values, np.float64), kind="stable").tolist()
    groups.sort(key=lambda group: [order.index(member) for member in sorted(group, key=order.index)])

    def letters_of(member: int) -> str:
        return "".join(_letter(i) for i, group in enumerate(groups) if member in group)

    return [letters_of(member) for member in range(k)]


def differing(k: int, pairs: Sequence[tuple[int, int]], p_values, alpha: float = 0.05) -> np.ndarray:
    """(k, k) bool table for `letters`: pairs whose Holm-adjusted p-value is at most alpha."""
    table = np.zeros((k, k), bool)
    for (first, second), p in zip(pairs, holm(p_values), strict=True):
        table[first, second] = table[second, first] = p <= alpha
    return table


def _split(group: frozenset[int], first: int, second: int) -> list[frozenset[int]]:
    return [group - {first}, group - {second}] if first in group and second in group else [group]


def _absorb(groups: list[frozenset[int]]) -> list[frozenset[int]]:
    """Drop repeats and groups that lie inside another one."""
    distinct = list(dict.fromkeys(groups))
    return [group for group in distinct if not any(group < second for second in distinct)]


def _letter(i: int) -> str:
    return string.ascii_letters[i] if i < len(string.ascii_letters) else f"({i})"
