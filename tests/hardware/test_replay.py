"""A recorded episode on an emulated arm: what is sent, and when."""

import os

import numpy as np
import pytest

from understudy.eval.bench.robot import emulated
from understudy.hardware.guarded import open_robot
from understudy.hardware.replay import Account, Replayed, replay_on
from understudy.sim.arms import find_arm

pytest.importorskip("lerobot", reason="calibrations are lerobot's")
pytest.importorskip("daqp", reason="the guard's quadratic program")

HOME = np.array(find_arm("so101").home)


def test_actions_are_sent_at_their_time_and_late_ones_are_counted():
    """The arm is in another process, the guard in a third: on a machine that is busy anyway this says nothing."""
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("the machine has no time to be on time")
    actions = HOME + 0.1 * (1 - np.cos(np.arange(45) / 8))[:, None] * np.array([1, 0, 0, 0, 1, 0])
    with emulated() as arm:
        robot = open_robot(arm.config(30.0))
        try:
            robot.connect()
            done = replay_on(robot, actions)
        finally:
            robot.disconnect()
    assert np.abs(done.sent - actions).mean() < 0.01 and len(done.after) == 45
    assert done.seconds > 44 / 30 and np.median(done.after) < done.step
    assert done.late == (done.after > 1 / 30).sum() < 20


def test_what_was_late_is_said():
    rows = np.zeros((4, 1))
    done = Replayed(rows, rows, ("joint",), Account(), np.array([0.001, 0.001, 0.05, 0.001]), 1 / 30, 0.2)
    assert (
        done.late == 1 and "1 late" in str(done) and "sent 1.0 ms after their time (99 %: 48.5) of 33 ms" in str(done)
    )
