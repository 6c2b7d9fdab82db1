"""Our arms as robots of lerobot's: its numbers, our guard in front, against the emulated arm."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain, write_calibration
from understudy.hardware.emulator.bus import Bus

pytest.importorskip("lerobot", reason="lerobot is not installed")
pytest.importorskip("daqp", reason="the guard's quadratic program")
HERE = Path(__file__).resolve().parents[2] / "policies" / "foreign" / "distributions" / "lerobot_robot_understudy"


@pytest.fixture(scope="module")
def plugin():
    sys.path.insert(0, str(HERE))
    from understudy.configs.compat import prepare_lerobot

    prepare_lerobot()
    import lerobot_robot_understudy

    yield lerobot_robot_understudy
    sys.path.remove(str(HERE))


def connect(robot):
    """A busy machine may answer for the emulated servos too late; a failed `connect` leaves nothing open."""
    for left in reversed(range(4)):
        try:
            return robot.connect(calibrate=True)
        except ConnectionError:
            if not left:
                raise
    return None


def ramp(robot, key, to, steps, seconds):
    for _ in range(steps):
        sent = robot.send_action(robot.get_observation() | {key: to})
        time.sleep(seconds)
    return sent


@pytest.mark.parametrize("kind", ["understudy_so101", "understudy_guarded"])
def test_the_guard_stays_in_front_of_lerobots_commands(plugin, tmp_path, kind):
    from lerobot.robots import RobotConfig, make_robot_from_config

    arm = find_kind("so101")
    write_calibration(tmp_path / "me.json", arm.calibration())
    with Bus(make_chain(arm), arm.codec()) as bus:
        made = RobotConfig.get_choice_class(kind)
        if kind == "understudy_so101":
            config = made(port=bus.port, calibration=str(tmp_path / "me.json"), id="me")
        else:
            inside = {"type": "so101_follower", "port": bus.port, "id": "me", "calibration_dir": str(tmp_path)}
            config = made(robot=inside, id="me")
        robot = make_robot_from_config(config)
        assert list(robot.action_features) == [f"{name}.pos" for name in arm.calibration()]
        assert robot.cameras == {} and not robot.is_connected
        with pytest.raises(ConnectionError, match="not connected"):
            robot.send_action({})
        connect(robot)
        try:
            before = robot.get_observation()
            assert 0 <= before["gripper.pos"] <= 100 and abs(before["shoulder_lift.pos"]) > 3, "degrees, not rad"
            sent = ramp(robot, "shoulder_pan.pos", before["shoulder_pan.pos"] + 170, 3, 0.03)
            assert abs(sent["shoulder_pan.pos"] - before["shoulder_pan.pos"]) < 60, "a jump does not pass"
            assert robot._guarded.account.outcomes.get("bent") == 3
        finally:
            robot.disconnect()
        assert not robot.is_connected


def test_numbers_are_those_of_lerobots_own_driver(plugin, tmp_path):
    from lerobot_robot_understudy.guarded import _said

    from understudy.hardware.lerobot_devices import make
    from understudy.hardware.lerobot_joints import joints_of, ours

    write_calibration(tmp_path / "me.json", find_kind("so101").calibration())
    device = make("robots", {"type": "so101_follower", "port": "x", "id": "me", "calibration_dir": str(tmp_path)})
    joints = joints_of(device, "it")
    said = {f"{name}.pos": float(value) for name, value in zip(device.bus.motors, range(10, 70, 10), strict=True)}
    there = _said(joints, ours(joints, said))
    assert np.allclose(list(there.values()), list(said.values()))


def test_an_arm_without_calibration_is_refused_before_anything_moves(plugin, tmp_path):
    with pytest.raises(FileNotFoundError, match="lerobot-calibrate"):
        plugin.UnderstudySO101(plugin.UnderstudySO101Config(port="x", calibration=str(tmp_path / "no.json"), id="me"))
