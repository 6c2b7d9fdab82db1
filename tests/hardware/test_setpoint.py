"""Set-points: how far braking goes on is never underrated, whatever the bounds and the state that was reached."""

import numpy as np
import pytest

from understudy.hardware.motion.setpoint import Bounds, Motion, hardest, reach, way_to_rest, window

hypothesis = pytest.importorskip("hypothesis", reason="property tests: pip install 'understudy[dev]'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

SLACK = 1 + 1e-9


@settings(max_examples=150, deadline=None)
@given(
    velocity=st.floats(0.1, 5),
    acceleration=st.floats(0.5, 100),
    softness=st.floats(0.003, 0.3),
    rate=st.sampled_from([30, 60, 100, 200, 400]),
    choices=st.lists(st.floats(0, 1), min_size=1, max_size=60),
)
def test_reach_and_hardest_bound_what_braking_does(velocity, acceleration, softness, rate, choices):
    every = {"velocity": velocity, "acceleration": acceleration, "jerk": acceleration / softness}
    bounds = Bounds(low=np.array([-1e9]), high=np.array([1e9]), **{k: np.array([v]) for k, v in every.items()})
    motion = Motion.at_rest(np.zeros(1))
    for choice in choices:
        least, most = window(motion, bounds, 1 / rate)
        motion = motion.after(least + choice * (most - least), 1 / rate)

    way = way_to_rest(motion, bounds, 1 / rate, 60.0)
    assert way is not None and not way[-1, 1:].any()
    assert np.abs(way[:, 0] - motion.position).max() <= reach(motion, bounds, 1 / rate) * SLACK + 1e-12
    fastest, strongest = hardest(motion, bounds)
    room = bounds.jerk / rate  # one step of it
    assert np.abs(way[:, 1]).max() <= fastest + room / rate and np.abs(way[:, 2]).max() <= strongest + room
