"""The SO-101's kinematics against numbers added up by hand from the published joint origins, and its servos."""

import numpy as np
import pytest

from understudy.sim.arms import ARMS, Kinematics, Wiring, Wish, find_arm, register_arm
from understudy.sim.so101.arm import SO101

DOWN = np.array([0.0, 0.0, -1.0])
TIP = Kinematics(SO101, site="gripperframe")


def simulate(target, seconds, start=None):
    """Positions (steps, 6) of the arm alone, told `target` from `start`."""
    import mujoco

    spec = SO101.spec()
    spec.option.timestep = 1 / 300
    model = spec.compile()
    data, wiring = mujoco.MjData(model), Wiring.of(SO101, model)
    data.qpos[wiring.qpos] = SO101.home if start is None else start
    data.ctrl[wiring.ctrl] = target
    path, speed = [], []
    for _ in range(round(seconds * 300)):
        mujoco.mj_step(model, data)
        path.append(data.qpos[wiring.qpos].copy())
        speed.append(data.qvel[wiring.qvel].copy())
    return np.array(path), np.array(speed)


def test_the_asset_says_what_the_arm_says():
    model = SO101.spec().compile()
    assert tuple(model.joint(i).name for i in range(model.njnt)) == SO101.joints
    assert tuple(model.actuator(i).name for i in range(model.nu)) == SO101.joints
    assert np.allclose(model.jnt_range, SO101.limits) and np.allclose(model.actuator_ctrlrange, SO101.limits)
    assert model.nmesh == 0
    assert np.isclose(model.body_mass.sum(), 0.147 + 0.100 + 0.103 + 0.104 + 0.079 + 0.087 + 0.012)


@pytest.mark.parametrize(
    ("angles", "tip"),
    [
        # sums of the published origins along the chain, every link parallel to the base
        (
            {},
            (
                0.0388353 + 0.0303992 + 0.028 + 0.1349 + 0.0611 + 0.0981274,
                -0.000396,
                0.1166 + 0.11257 + 0.0052 - 0.0079,
            ),
        ),
        # a quarter turn about the shoulder's upright axis, clockwise seen from above
        ({"shoulder_pan": 90}, (0.0388353 - 0.000396, -0.3525266, 0.22647)),
        # a quarter turn forward about (0.0692345, 0.1166): x becomes what z was, z becomes minus what x was
        ({"shoulder_lift": 90}, (0.0692345 + 0.10987, -0.000396, 0.1166 - 0.3221274)),
        # forearm hangs: about (0.0972345, 0.22917)
        ({"elbow_flex": 90}, (0.0972345 - 0.0027, -0.000396, 0.22917 - 0.2941274)),
        # hand hangs: about (0.2321345, 0.23437)
        ({"wrist_flex": 90}, (0.2321345 - 0.0079, -0.000396, 0.23437 - 0.1592274)),
        # hand upside down about its own axis (y 0.000178 to the right): offsets change their signs
        ({"wrist_roll": 180}, (0.3913619, -0.0001778 + 0.0002181, 0.23437 + 0.0079)),
    ],
)
def test_forward_kinematics(angles, tip):
    there = np.deg2rad([angles.get(name, 0) for name in SO101.joints])
    assert np.allclose(TIP.forward(there)[0], tip, atol=2e-6)


def test_a_larger_gripper_angle_is_more_open():
    model = SO101.spec().compile()
    import mujoco

    data, gaps = mujoco.MjData(model), []
    for angle in (SO101.low[-1], 0.1, 1.0):
        data.qpos[5] = angle
        mujoco.mj_forward(model, data)
        gaps.append(np.linalg.norm(data.geom("moving_pad").xpos - data.geom("fixed_pad").xpos))
    assert gaps[0] < gaps[1] < gaps[2]


def test_units_of_lerobot():
    angles = np.stack([SO101.low, SO101.high, np.array(SO101.home)])
    values = SO101.to_lerobot(angles)
    assert np.allclose(values[:2, -1], [0, 100]) and np.isclose(values[1, 0], 110, atol=0.01)
    assert np.allclose(SO101.from_lerobot(values), angles)
    assert SO101.opening(SO101.low[-1]) == 0 and np.isclose(SO101.angle(1.0), SO101.high[-1])


def test_inverse_kinematics_reaches_and_points_down():
    kinematics, rng = Kinematics(SO101), np.random.default_rng(0)
    for _ in range(30):
        reach, angle, turn = rng.uniform([0.14, -0.9, -0.7], [0.22, 0.9, 0.7])
        place = np.array([0.0388 + reach * np.cos(angle), reach * np.sin(angle), rng.uniform(0.012, 0.06)])
        across = np.array([np.cos(angle + turn), np.sin(angle + turn), 0])
        found = kinematics.inverse(Wish(position=place, out=DOWN, across=across), np.array(SO101.home))
        there, rotation = kinematics.forward(found)
        assert np.linalg.norm(there - place) < 5e-4
        assert rotation[:, 0] @ DOWN > 0.9999 and rotation[:, 2] @ across > 0.9999


def test_inverse_kinematics_stays_inside_the_limits_and_keeps_the_gripper():
    kinematics = Kinematics(SO101)
    start = np.array(SO101.home)
    for place in ([0.9, 0.0, 0.1], [-0.3, 0.2, 0.0], [0.04, 0.0, 0.9]):
        found = kinematics.inverse(Wish(position=np.array(place), out=DOWN), start)
        assert (found >= SO101.low).all() and (found <= SO101.high).all() and found[-1] == start[-1]


def test_a_tool_is_a_point_of_the_hand():
    tool = (0.03, 0.01, -0.02)
    place, rotation = Kinematics(SO101).forward(SO101.home)
    assert np.allclose(Kinematics(SO101, tool).forward(SO101.home)[0], place + rotation @ tool)


@pytest.mark.parametrize("pose", [SO101.home, (0, 0, 0, 0, 0, 0), (1, 1.2, -1.0, 0.3, 1.5, 1.0)])
def test_servos_hold_against_gravity(pose):
    path, _ = simulate(pose, 1.0, pose)
    assert np.abs(path - pose).max() < 0.003  # rad


@pytest.mark.parametrize("turn", [0.02, 0.06, 0.2])
def test_a_step_is_followed_without_swing(turn):
    target = np.array(SO101.home) + [turn, turn, 0, 0, 0, 0]
    path, _ = simulate(target, 0.5)
    swing = (path[:, :2] - target[:2]).max() / turn
    assert swing < 0.06 and np.abs(path[60:, :2] - target[:2]).max() < 0.003


def test_joints_stay_inside_their_limits_and_below_the_free_speed():
    for target in (SO101.low, SO101.high):
        path, speed = simulate(target, 1.5)
        assert (path > SO101.low - 0.03).all() and (path < SO101.high + 0.03).all()
        # the upper arm may fall: gravity adds to what the servo does alone
        assert 3.5 < np.abs(speed[:, 0]).max() < 5.0
        assert np.abs(path[-1, :2] - target[:2]).max() < 0.01


def test_names_are_unique_and_listed():
    with pytest.raises(ValueError, match="so101"):
        register_arm(SO101)
    with pytest.raises(LookupError, match="Known: .*so101"):
        find_arm("so11")
    assert ARMS["so101"] is find_arm("so101")
    body = SO101.embodiment(30.0, {"cube.x": "m"})
    assert body.action == body.state == SO101.joints and set(body.action_units) == {"rad"} and body.scene == ("cube.x",)
