"""Generators keyed by what a draw belongs to (seed, start, step, ..): no draw depends on the order of the others."""

from __future__ import annotations

import numpy as np


def rng_of(*key: int) -> np.random.Generator:
    """The generator of a key: equal keys draw the same numbers, others of the same length independent ones.

    Zeros at the end do not count: (3, 1) and (3, 1, 0) are one key.
    """
    return np.random.default_rng([unsigned(number) for number in key])


def unsigned(number: int) -> int:
    """A number of a key as NumPy takes it: a negative one (-1 is no start) in 64-bit two's complement."""
    number = int(number)
    return number if number >= 0 else number & 0xFFFFFFFFFFFFFFFF
