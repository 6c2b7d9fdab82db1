"""lerobot's `Robot` in front of our guard: every command of record, teleoperate and replay goes through it.

Numbers are those of lerobot's own robots (degrees, a gripper's 0..100), so that its leaders lead and its datasets read
alike; inside they are rad. `send_action` gives back what was really sent.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.cameras import CameraConfig
from lerobot.cameras.utils import make_cameras_from_configs
from lerobot.robots import Robot, RobotConfig

from understudy.configs.compat import prepare_lerobot
from understudy.configs.spec import STATE
from understudy.hardware.guarded import open_robot
from understudy.hardware.lerobot import LerobotArm, model_of
from understudy.hardware.lerobot_devices import make
from understudy.hardware.lerobot_joints import Joint, joints_of, ours
from understudy.hardware.open import robot_config

EMULATED = "emulated"  # in place of a port: an emulated arm is started
WAIT = 60.0  # s that the emulated arm may take to stand


@dataclass
class Guard:
    """What the guard lets pass, as in understudy's own settings of a robot."""

    envelope: dict[str, Any] = field(default_factory=dict)  # velocity, acceleration, jerk, torque, ...
    table: float | None = 0.0  # m, height of the table in the frame of the arm's base; null: there is none
    box_low: list[float] | None = None  # m, least x, y, z of any part of the arm
    box_high: list[float] | None = None
    estop: str | None = None  # a file that stops the arm as soon as it exists

    def settings(self) -> dict[str, Any]:
        """Those that differ from the guard's own."""
        boxes = {name: tuple(box) for name in ("box_low", "box_high") if (box := getattr(self, name))}
        stop = {"estop": self.estop} if self.estop else {}
        return {"envelope": dict(self.envelope), "table": self.table} | boxes | stop


@RobotConfig.register_subclass("understudy_so101")
@dataclass(kw_only=True)
class UnderstudySO101Config(RobotConfig):
    """An SO-101 follower behind the guard; `--robot.port=emulated` starts an emulated one."""

    port: str
    calibration: str | None = None  # its file; default: lerobot's so_follower file of this id
    rate: float = 30.0  # commands a second
    guard: Guard = field(default_factory=Guard)
    cameras: dict[str, CameraConfig] = field(default_factory=dict)


@RobotConfig.register_subclass("understudy_guarded")
@dataclass(kw_only=True)
class UnderstudyGuardedConfig(RobotConfig):
    """Any robot of lerobot's, by its own driver, behind the guard."""

    robot: dict[str, Any]  # its settings with their type: '{type: koch_follower, port: /dev/ttyACM0, id: me}'
    rate: float = 30.0  # commands a second
    units: dict[str, str] = field(default_factory=dict)  # of joints whose motors do not say it
    limits: dict[str, list[float]] = field(default_factory=dict)  # rad or m, narrower than the calibration
    guard: Guard = field(default_factory=Guard)
    cameras: dict[str, CameraConfig] = field(default_factory=dict)


class UnderstudyGuarded(Robot):
    """See the module."""

    config_class: Any = UnderstudyGuardedConfig
    name = "understudy_guarded"

    def __init__(self, config: Any):
        super().__init__(config)
        prepare_lerobot()
        self.config = config
        self.cameras = make_cameras_from_configs(config.cameras)
        self._guarded: Any = None
        self._settings: Any = None
        self._prepare()

    def _prepare(self) -> None:
        """Settle who is driven and what the numbers mean; nothing is opened."""
        limits = {name: tuple(pair) for name, pair in self.config.limits.items()}
        more = {"rate": self.config.rate, "units": dict(self.config.units), "limits": limits}
        self._settings = robot_config(dict(self.config.robot) | more | self.config.guard.settings())
        self._joints = LerobotArm(self._settings).joints

    @property
    def _scalars(self) -> dict[str, type]:
        return {joint.key: float for joint in self._joints}

    @property
    def observation_features(self) -> dict[str, Any]:
        return self._scalars | {name: (one.height, one.width, 3) for name, one in self.config.cameras.items()}

    @property
    def action_features(self) -> dict[str, type]:
        return self._scalars

    @property
    def is_connected(self) -> bool:
        return self._guarded is not None

    @property
    def is_calibrated(self) -> bool:
        return True  # the driver compares file and servos when it opens, and refuses what differs

    def connect(self, calibrate: bool = True) -> None:
        """Start the guard, which opens the bus and takes hold of the arm where it is."""
        if self._guarded is not None:
            raise ConnectionError(f"{self} is connected already")
        guarded = open_robot(self._settings)
        guarded.connect()
        self._guarded = guarded
        try:
            for camera in self.cameras.values():
                camera.connect()
        except BaseException:
            self.disconnect()
            raise

    def calibrate(self) -> None:
        raise NotImplementedError("calibrate with lerobot-calibrate and the robot's own type, such as so101_follower")

    def configure(self) -> None:
        """Nothing: the driver configures its servos when it takes hold."""

    def get_observation(self) -> dict[str, Any]:
        """The newest reading, in lerobot's units."""
        if self._guarded is None:
            raise ConnectionError(f"{self} is not connected")
        angles = np.asarray(self._guarded.get_observation()[STATE], float)
        return _said(self._joints, angles) | {name: camera.async_read() for name, camera in self.cameras.items()}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Ask for a goal, in lerobot's units; what the guard let through."""
        if self._guarded is None:
            raise ConnectionError(f"{self} is not connected")
        sent = self._guarded.send_action(ours(self._joints, {key: float(value) for key, value in action.items()}))
        return _said(self._joints, np.asarray(sent, float))

    def disconnect(self) -> None:
        """Brake, let go, close. Says what the guard did."""
        guarded, self._guarded = self._guarded, None
        for camera in self.cameras.values():
            if camera.is_connected:
                camera.disconnect()
        if guarded is not None:
            guarded.disconnect()
            print(f"guard: {guarded.account}")


def _said(joints: tuple[Joint, ...], angles: np.ndarray) -> dict[str, float]:
    """Rad and m in lerobot's units, exactly; `ours` turns them back."""
    pairs = zip(joints, angles, strict=True)
    return {one.key: float((angle / one.per_count + one.middle - one.at_zero) / one.per_said) for one, angle in pairs}


class UnderstudySO101(UnderstudyGuarded):
    """An SO-101 by understudy's own driver; the calibration is the one that lerobot wrote for its follower."""

    config_class = UnderstudySO101Config
    name = "understudy_so101"

    def _prepare(self) -> None:
        self._emulator: subprocess.Popen | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
        port, calibration = self.config.port, self.config.calibration
        if port == EMULATED:
            self._folder = tempfile.TemporaryDirectory(prefix="understudy-emulated-")
            port, calibration = str(Path(self._folder.name) / "port"), str(Path(self._folder.name) / "arm.json")
            self._emulate(port, calibration)
        more = {"rate": self.config.rate, "id": self.config.id or "so101"}
        named = {"type": "so101", "port": port} | ({"calibration": calibration} if calibration else {})
        self._settings = robot_config(named | more | self.config.guard.settings())
        file = self._settings.file
        device = make(
            "robots", {"type": "so101_follower", "port": port, "id": file.stem, "calibration_dir": str(file.parent)}
        )
        if not device.bus.calibration:
            raise FileNotFoundError(
                f"no calibration file {file}: run lerobot-calibrate --robot.type=so101_follower --robot.port={port} "
                f"--robot.id={file.stem}"
            )
        self._joints = joints_of(device, "the SO-101", model_of("so101_follower"))

    def _emulate(self, port: str, calibration: str) -> None:
        words = ["emulate", "so101", "--link", port, "--calibration", calibration]
        emulator = subprocess.Popen([sys.executable, "-m", "understudy", *words], stdout=subprocess.DEVNULL)
        self._emulator = emulator
        ends = time.monotonic() + WAIT
        while not (Path(port).exists() and Path(calibration).exists()):
            if emulator.poll() is not None or time.monotonic() > ends:
                self._stop()
                raise ConnectionError("the emulated arm did not start: try `understudy emulate so101` by itself")
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._emulator is not None:
            self._emulator.terminate()
            self._emulator.wait(10)
            self._emulator = None
        if self._folder is not None:
            self._folder.cleanup()

    def disconnect(self) -> None:
        """As always; an emulated arm ends."""
        super().disconnect()
        self._stop()

    def __del__(self) -> None:
        if getattr(self, "_emulator", None) is not None:
            self._stop()
