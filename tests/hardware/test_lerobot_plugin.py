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


@pytest.mark.parametrize("kind", ["understudy_so101", pytest.param("understudy_guarded", marks=pytest.mark.slow)])
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


WAVE = """
import math, time
from dataclasses import dataclass
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

@TeleoperatorConfig.register_subclass("wave")
@dataclass
class WaveConfig(TeleoperatorConfig):
    pass

class Wave(Teleoperator):
    config_class, name = WaveConfig, "wave"
    names = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    feedback_features, is_calibrated, is_connected = {}, True, False
    action_features = {f"{name}.pos": float for name in names}
    def connect(self, calibrate=True): self.is_connected = True
    def calibrate(self): pass
    def configure(self): pass
    def send_feedback(self, feedback): pass
    def disconnect(self): self.is_connected = False
    def get_action(self):
        home = dict(zip(self.action_features, (0.0, -34.0, 40.0, 84.0, 0.0, 40.0)))
        return home | {"shoulder_pan.pos": 170.0 * math.sin(time.monotonic())}
"""


@pytest.mark.slow
def test_lerobot_record_goes_through_the_guard(tmp_path):
    """Stock lerobot-record, the emulated arm, and a leader that asks for more than may pass."""
    import os
    import subprocess

    import understudy

    place, wave = tmp_path / "installed", tmp_path / "installed" / "lerobot_teleoperator_wave"
    wave.mkdir(parents=True)
    (wave / "__init__.py").write_text(WAVE)
    (place / "lerobot_robot_understudy").symlink_to(HERE / "lerobot_robot_understudy")
    for name in ("lerobot_robot_understudy", "lerobot_teleoperator_wave"):
        (place / f"{name}-0.dist-info").mkdir()
        (place / f"{name}-0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    words = [
        "--robot.type=understudy_so101", "--robot.port=emulated", "--robot.id=me", "--teleop.type=wave",
        "--dataset.repo_id=me/wave", f"--dataset.root={tmp_path / 'data'}", "--dataset.single_task=wave",
        "--dataset.num_episodes=1", "--dataset.episode_time_s=3", "--dataset.reset_time_s=0", "--dataset.fps=30",
        "--dataset.push_to_hub=false", "--play_sounds=false",
    ]  # fmt: skip
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lerobot-record"), *words],
        env=os.environ | {"PYTHONPATH": str(place), "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "bent" in done.stdout
    pan = understudy.open_dataset(tmp_path / "data").columns["observation.state"][:, 0]
    asked = understudy.open_dataset(tmp_path / "data").columns["action"][:, 0]
    assert len(pan) > 5 and np.abs(np.diff(pan)).max() < np.abs(asked - pan).max()
