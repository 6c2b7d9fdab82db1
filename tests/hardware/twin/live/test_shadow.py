"""The shadow foresees contact, vetoes it, and lets an arm that touches something be led away."""

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.hardware.envelope import Measured
from understudy.hardware.twin.shadow import Shadow, ShadowSettings


@pytest.fixture
def shadow():
    return Shadow(read_world("so101-pick-place"), 30.0)


def descend(shadow, most=60):
    """Lower the arm until it is vetoed: (where it was, what was said)."""
    pose = np.array(shadow.task.home)
    for step in range(most):
        command = pose.copy()
        command[1] += 0.03
        found = shadow.check(command, Measured(position=pose, time=step / 30))
        if not found.allowed:
            return pose, found, step / 30
        pose = command
    raise AssertionError("nothing was vetoed")


def test_free_motion_is_allowed(shadow):
    home = np.array(shadow.task.home)
    found = shadow.check(home, Measured(position=home, time=0.0))
    assert found.allowed and found.force == 0 and not found.torque.any()


def test_the_table_is_foreseen_before_it_is_touched(shadow):
    pose, found, _ = descend(shadow)
    assert "table" in found.reasons[0] and found.force > shadow.settings.force
    assert np.abs(found.torque[1:4]).max() > 0.5  # N m
    shadow.data.qpos[shadow.joints.qpos] = pose
    import mujoco

    mujoco.mj_forward(shadow.model, shadow.data)
    assert not any(force for force, _, moves in shadow._contacts(shadow.data) if not moves)  # not there yet


def test_away_from_it_is_allowed(shadow):
    pose, _, when = descend(shadow)
    away = pose - [0, 0.05, 0, 0, 0, 0]
    assert shadow.check(away, Measured(position=pose, time=when + 1 / 30)).allowed


def test_torque_can_be_limited():
    shadow = Shadow(read_world("so101-pick-place"), 30.0, ShadowSettings(force=1000.0, torque=0.8))
    assert "N m" in descend(shadow)[1].reasons[0]


def test_objects_are_where_they_are_put(shadow):
    shadow.place("cube", np.array([0.2, 0.05, 0.012, 1, 0, 0, 0]))
    assert np.allclose(shadow.data.body("cube").xpos, [0.2, 0.05, 0.012])
    with pytest.raises(LookupError, match="sphere"):
        shadow.place("sphere", np.zeros(7))
    with pytest.raises(ValueError, match="freely"):
        shadow.place("gripper", np.zeros(7))


def test_an_arm_that_is_elsewhere_is_told(shadow):
    home = np.array(shadow.task.home)
    shadow.check(home, Measured(position=home, time=0.0))
    found = shadow.check(home, Measured(position=home + 0.5, time=1 / 30))
    assert "elsewhere" in found.warnings[0]


def test_refusals(shadow):
    with pytest.raises(ValueError, match="6 joints"):
        shadow.check(np.zeros(3), Measured(position=np.zeros(3), time=0.0))
    with pytest.raises(ValueError, match="finite"):
        shadow.check(np.full(6, np.nan), Measured(position=np.zeros(6), time=0.0))
    with pytest.raises(ValueError, match="aligner"):
        shadow.look({}, 0.0)
