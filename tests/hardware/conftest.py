"""What the tests of the guard share: the SO-101 as a body, and an envelope for it."""

import numpy as np
import pytest

from understudy.hardware.guard import Envelope, Guard, Measured
from understudy.hardware.motion.clearance import Clearance, Surroundings
from understudy.sim.arms import find_arm

AROUND = Surroundings(low=(-0.3, -0.4, 0.0), high=(0.45, 0.4, 0.5))


@pytest.fixture(scope="session")
def arm():
    return find_arm("so101")


@pytest.fixture(scope="session")
def body(arm):
    """The guard's own model of the arm."""
    return Clearance(arm, AROUND)


@pytest.fixture(scope="session")
def judge(arm):
    """Another one, to look at what was sent."""
    return Clearance(arm, AROUND)


@pytest.fixture
def guard(arm, body):
    """(rate, **envelope) -> a guard of the SO-101, engaged at home at time 0."""
    pytest.importorskip("daqp", reason="the guard's quadratic program: pip install 'understudy[hardware]'")

    def make(rate=30.0, pose=arm.home, **changes):
        made = Guard(arm.joints, Envelope(limits=arm.limits, **({"torque": 2.4} | changes)), rate, body)
        made.engage(Measured(position=np.array(pose, float), time=0.0), 0.0)
        return made

    return make
