"""What a recorded film is known to show."""

import numpy as np

from understudy.eval.world_model.evaluate import _spread
from understudy.eval.world_model.kept import recorded_success


def test_success_is_known_where_it_was_recorded():
    won, none = np.array([0, 0, 1, 0]), np.zeros(4)
    every, first = np.ones(4, bool), np.array([False, True, True, True])
    assert recorded_success(won, every) is True and recorded_success(won, first) is True
    assert recorded_success(none, every) is False and recorded_success(none, first) is False
    assert recorded_success(none, np.zeros(4, bool)) is None
    assert recorded_success(won, np.array([True, True, False, True])) is None  # what nobody recorded is no success


def test_films_are_spread_evenly_and_never_twice():
    assert _spread(range(10), 4).tolist() == [0, 3, 6, 9] and _spread(range(3), 8).tolist() == [0, 1, 2]
    assert _spread(range(3), 0).tolist() == [] and _spread(np.array([5, 3, 4]), 2).tolist() == [5, 4]
