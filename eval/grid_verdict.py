"""Which settings of a grid differ beyond the luck of training seeds: a group-sequential permutation test in a sentence.

A setting's score for a seed is its success rate. Seeds are taken in the grid's order, in `looks` groups of equal size;
groups are looked at as soon as every setting has finished them, so that a grid may be stopped when it is decided, or
go on, and the sentence stays true. Knows nothing of records. See `permutation.py` for what it promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

from .permutation import MOST_AGENTS, PermutationTest

ALPHA = 0.05
FEWEST = 4  # seeds of two settings in the first group, or no order of theirs is rare enough


def verdict(rates: Mapping[str, Sequence[float | None]], looks: int = 1) -> str:
    """What may be said of the settings.

    Args:
        rates: setting -> success rate of each seed, in one order; None where it is not finished.
        looks: K groups that the seeds were planned to come in.
    """
    names, table = list(rates), list(zip(*rates.values(), strict=True))
    if len(names) < 2:
        return ""
    group = len(table) // looks
    if group < FEWEST or len(names) > MOST_AGENTS:
        return (
            f"No verdict over training seeds: it takes {FEWEST} seeds a look and 2 to {MOST_AGENTS} settings; "
            f"here {len(names)} settings, {len(table)} seeds, {looks} looks."
        )
    test = PermutationTest(names, group, looks, ALPHA, rng=np.random.default_rng(0))
    for row in takewhile(lambda row: None not in row, table[: group * looks]):
        test.update(*row)
        if test.decision in ("A", "B", "done"):
            break
    told = ", ".join(f"{better} above {worse}" for better, worse in test.better()) or "none"
    left = "" if test.decision else f"; {group * looks - test.n} planned seeds are still to come"
    plan = f"{looks} looks of {group} seeds" if looks > 1 else f"{group} seeds"
    return (
        f"Told apart over training seeds (permutation test, {plan}, at most {ALPHA:g} false in all): {told}, "
        f"after {test.n} seeds{left}. Not told apart is no evidence of being equal."
    )
