"""The shadow foresees contact, vetoes it, and lets an arm that touches something be led away."""

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.hardware.envelope import Measured
from understudy.hardware.twin.shadow import Shadow, ShadowSettings
from understudy.hardware.twin.touch import Contact, Felt, against, contacts


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
    touched = [one for _, one in contacts(shadow.model, shadow.data, shadow._arm, shadow._loose)]
    assert not any(one.force for one in touched if not one.moves)  # not there yet


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
        shadow.look({}, {})


@pytest.mark.parametrize("what", [{"ahead": np.inf}, {"force": np.nan}, {"push": 0.0}, {"torque": (1.0, -1.0)}])
def test_settings_that_are_none(what):
    with pytest.raises(ValueError, match=f"{next(iter(what))} of a shadow"):
        ShadowSettings(**what)


def test_settings_of_another_arm():
    world = read_world("so101-pick-place")
    with pytest.raises(ValueError, match="one for each of 6 joints"):
        Shadow(world, 30.0, ShadowSettings(torque=(1.0, 1.0)))
    with pytest.raises(LookupError, match="no body 'sphere' in its scene, which has .*cube"):
        Shadow(world, 30.0, ShadowSettings(may_touch=("sphere",)))


def felt(torque=0.0, **forces):
    """By the number of what is touched."""
    hits = {(1, int(number[1:])): Contact(force, f"jaw and {number}") for number, force in forces.items()}
    return Felt(np.full(2, torque), hits)


def test_who_presses_on_one_thing_may_not_press_on_another():
    limits = 6.0, 25.0, None, ("a", "b")
    assert against(felt(t1=9.0), *limits, still=felt(t1=9.0)) == []
    assert against(felt(t1=9.4), *limits, still=felt(t1=9.0)) == []  # no harder
    assert "t1 would press with 9.6 N" in against(felt(t1=9.6), *limits, still=felt(t1=9.0))[0]
    assert "t2 would press with 9.0 N" in against(felt(t1=9.0, t2=9.0), *limits, still=felt(t1=9.0))[0]


def test_who_presses_may_not_load_a_joint_more():
    limits = 6.0, 25.0, 0.5, ("a", "b")
    assert against(felt(0.8, t1=9.0), *limits, still=felt(0.8, t1=9.0)) == []
    assert against(felt(0.9, t1=9.0), *limits, still=felt(0.8, t1=9.0)) == ["contact would put 0.90 N m on a"]


def test_a_pull_ends_with_the_check_that_it_is_for(shadow):
    """Also one of before the first check."""
    home, cube = np.array(shadow.task.home), shadow.model.body("cube").id
    still = [shadow.check(home, Measured(position=home, time=step / 30)) for step in range(30)]
    assert still[-1].allowed
    place, joint = shadow.data.qpos.copy(), shadow.model.joint("cube").qposadr[0]
    shadow.begin()
    shadow.data.qpos[:] = place
    shadow._wrench[cube] = [0, 0, 5.0, 0, 0, 0]
    for step in range(6):
        shadow.check(home, Measured(position=home, time=step / 30))
    assert abs(shadow.data.qpos[joint + 2] - place[joint + 2]) < 1e-4


def test_one_that_is_asked_rarely_says_so_and_a_pause_is_none(shadow):
    home = np.array(shadow.task.home)
    said = [shadow.check(home, Measured(position=home, time=when)).warnings for when in (0.0, 0.03, 30.0, 30.03)]
    assert not any(said)
    (warning,) = shadow.check(home, Measured(position=home, time=30.43)).warnings
    assert "asked only every 0.40 s" in warning
    assert not shadow.check(home, Measured(position=home, time=30.83)).warnings  # once
