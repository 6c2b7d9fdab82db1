"""The sequential tests of two policies, by the name that a user gives.

Apart from the tests themselves, which need not know each other: a further test is entered here.
"""

from __future__ import annotations

import numpy as np

from .sequential import Sequential


def sequential_test(name: str, most: int, alpha: float = 0.05, seed: int = 0, runs: int = 1) -> Sequential:
    """A test by name: "betting" (discordant pairs or scores, any correlation) or "table" (independent 0/1 pairs).

    Args:
        seed: of the table's randomisation.

    Raises:
        LookupError: an unknown name.
        ValueError: a budget that the test cannot have.
    """
    from ...configs.plugins import lookup
    from .barnard import BarnardTest
    from .betting import BettingTest

    if lookup("sequential test", name, {test.name: test for test in (BettingTest, BarnardTest)}) is BettingTest:
        return BettingTest(most, alpha, runs)
    return BarnardTest(most, alpha, runs, rng=np.random.default_rng(seed))
