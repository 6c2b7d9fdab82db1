"""Generators by key: the streams that every saved run, dataset and record was drawn from."""

import numpy as np
import pytest

from understudy.configs.rng import rng_of, unsigned

MASK = 0xFFFFFFFFFFFFFFFF


@pytest.mark.parametrize("start", [0, 7, 1000, 100_000, 2**63 - 1, -1, -(2**63), np.int64(-1), np.int64(12)])
def test_the_streams_are_those_of_old(start):
    """A start was masked to 64 bits, the other numbers of a key stood as they were."""
    for key in ([3, start, 5], [start], [start, 4], [2**70, start, 0, 7]):
        old = np.random.default_rng([int(number) & MASK if number is start else number for number in key])
        assert (rng_of(*key).integers(2**63, size=8) == old.integers(2**63, size=8)).all()
    seeds = (np.random.SeedSequence(number).generate_state(4) for number in (unsigned(start), int(start) & MASK))
    assert np.equal(*seeds).all()


def test_numbers_are_pinned():
    assert rng_of(0, 1000, 0).integers(1000, size=4).tolist() == [376, 399, 900, 803]
    assert rng_of(-1).bit_generator.state == np.random.default_rng([MASK]).bit_generator.state


def test_other_keys_give_other_numbers():
    keys = [(0, 1, 5), (1, 0, 5), (0, -1, 5), (-1, 0, 5), (0, 1, 2)]
    assert len({rng_of(*key).random() for key in keys}) == len(keys)
    assert rng_of(3, 1).random() == rng_of(3, 1, 0).random()
