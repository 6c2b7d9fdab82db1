"""Any robot of lerobot's by its registered name, its own driver unmodified, behind our guard: `--robot.type NAME`.

What its numbers mean is settled when it is opened (`lerobot_joints.py`); inside they are rad and m. Cameras in its
settings are opened beside it, a thread each, in the process of the caller. What lerobot does by itself stays so: its
`connect` writes the settings of the servos and switches the torque on, here with the present pose as their goal.

    type: lerobot
    robot: {type: koch_follower, port: /dev/ttyACM0, id: me, cameras: {front: {type: opencv, ...}}}
    rate: 30
    units: degrees                    # where its motors do not say: rad, degrees, m, mm, or {joint: unit}
    limits: {shoulder: [-1.5, 1.5]}   # rad or m, where no calibration says
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..configs.compat import prepare_lerobot
from ..configs.spec import Embodiment
from ..sim.arms import Arm, find_arm
from .cameras import Camera, Read
from .guard import Measured
from .lerobot_devices import BASES, configured, make, names_of
from .lerobot_joints import Joint, buses_of, joints_of, ours, out_of_range, theirs
from .port import Claim, check_port, fall_silent, spoken_for
from .robot import RobotConfig
from .so101 import ENVELOPE, GREETINGS, SEAM, STALL, CalibrationError, torque_limits

MODELS = {"so101_follower": "so101", "so101_leader": "so101"}  # type -> the arm in `sim/arms.py` that it is
PATIENT = 250.0  # ms
TRIES = 3  # of what a lost answer makes fail
T = TypeVar("T")


def model_of(kind: str) -> Arm | None:
    """The arm that a lerobot device is, as far as there is a model of it."""
    return find_arm(MODELS[kind]) if kind in MODELS else None


class Line:
    """The serial lines of a device of lerobot's: tried again when an answer is lost, one error when they are gone."""

    usual = 0.0  # ms that an answer is waited for beyond lerobot's 50

    def __init__(self, device: Any):
        buses = buses_of(device).values()
        self.device, self.buses = device, list(buses)
        self.serial = [bus for bus in self.buses if hasattr(bus, "port_handler")]
        self._longer, self._claims = self.usual, list[Claim]()
        for bus in self.serial:
            self._wait_for(bus.port_handler)
        self.name = ", ".join(str(bus.port) for bus in self.buses if hasattr(bus, "port")) or str(device)

    def _wait_for(self, port: Any) -> None:
        usual = port.setPacketTimeout

        def longer(length: int) -> None:
            usual(length)
            port.packet_timeout += self._longer

        port.setPacketTimeout = longer

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Wait longer for answers: while nothing moves it matters more that all of them come."""
        self._longer = PATIENT
        try:
            yield
        finally:
            self._longer = self.usual

    def call(self, action: Callable[[], T], tries: int = TRIES) -> T:
        """What `action` gives. Raises ConnectionError naming the ports."""
        for left in reversed(range(tries)):
            try:
                with self.said():
                    return action()
            except ConnectionError:
                if not left:
                    raise
                for bus in self.serial:
                    if bus.is_connected:
                        fall_silent(bus, bus.port)
        raise AssertionError

    @contextmanager
    def said(self) -> Iterator[None]:
        with spoken_for(self.name):
            yield

    def claim(self) -> None:
        """Raise ConnectionError: a port that is not there, not allowed, or of an arm that another program drives."""
        self.release()
        for bus in self.serial:
            check_port(str(bus.port))
            self._claims.append(Claim(str(bus.port)))

    def release(self) -> None:
        """Others may drive the arm. Safe to call twice."""
        while self._claims:
            self._claims.pop().release()

    @property
    def gone(self) -> bool:
        """Whether a port is closed, or was taken away while it was open: then it stays dead until it is opened anew."""
        try:
            with self.said():
                return not all(bus.is_connected and bus.port_handler.ser.in_waiting >= 0 for bus in self.serial)
        except ConnectionError:
            return True

    def shut(self) -> None:
        """Close what is open, whatever it says."""
        for bus in self.serial:
            with suppress(ConnectionError, AttributeError):
                with spoken_for(str(bus.port)):
                    if bus.is_connected:
                        bus.port_handler.closePort()

    def greet(self, bus: Any) -> None:
        """Open one bus and find all its motors."""

        def once() -> None:
            try:
                bus.connect()
            except BaseException:
                if bus.is_connected:
                    bus.port_handler.closePort()
                raise

        try:
            self.call(once, GREETINGS)
        except ConnectionError as error:
            if "dynamixel" not in type(bus).__name__.lower():
                raise
            raise ConnectionError(
                f"{error}\nA servo that shut itself off (overload, heat) counts as missing, too: switch the supply off "
                "and on"
            ) from error


def calibration_of(device: Any, kind: str, flag: str) -> None:
    """Raise CalibrationError where a device with motors has no calibration file."""
    for bus in buses_of(device).values():
        if not bus.calibration:
            port = getattr(bus, "port", "PORT")
            raise CalibrationError(
                f"no calibration file {device.calibration_fpath}: run lerobot-calibrate --{flag}.type={kind} "
                f"--{flag}.port={port} --{flag}.id={device.id or 'NAME'} and give that id"
            )


class LerobotArm:
    """See `Driver`. `config`: of the robot, its units and limits."""

    def __init__(self, config: LerobotConfig):
        self.kind = str(config.robot.get("type", ""))
        self.torque = config.envelope.get("torque")
        self._model = model_of(self.kind)
        self.body: str | None = MODELS.get(self.kind)
        self.robot = make("robots", config.arm)
        calibration_of(self.robot, self.kind, "robot")
        what = f"lerobot's {self.kind}"
        self.joints = joints_of(self.robot, what, self._model, config.units, config.limits)
        self.line = Line(self.robot)
        self.embodiment = body_of(self.joints, self.body or self.kind, config.rate)
        self._held = False
        single = self.line.serial[0] if len(self.line.serial) == 1 else None
        self._loaded = single is not None and self.body is not None
        self._tells = single is not None and all(joint.name in single.motors for joint in self.joints)

    def connect(self) -> None:
        """See `Driver`, but that lerobot switches the torque on. Raises CalibrationError: file and motors differ."""
        self.line.claim()
        with self.line.unhurried():
            for prefix, bus in buses_of(self.robot).items():
                if bus in self.line.serial:
                    self.look(bus, prefix)
                    self._aim(bus)
            self.line.call(self._open, GREETINGS)

    def look(self, bus: Any, prefix: str) -> None:
        """Whether all motors of a bus answer, hold the calibration and are within it; it is closed again.

        Raises:
            ConnectionError, CalibrationError: what is wrong, and what to do.
        """
        self.line.greet(bus)
        try:
            if not self.line.call(lambda: bus.is_calibrated):
                raise CalibrationError(
                    f"{self.robot.calibration_fpath} is not the calibration that the motors hold: run "
                    f"lerobot-calibrate --robot.type={self.kind} --robot.port={bus.port} --robot.id={self.robot.id}"
                )
            counts = self._counts(bus)
            wrong = out_of_range(self.joints, {prefix + name: count for name, count in counts.items()}, SEAM)
            if wrong:
                raise CalibrationError("; ".join(wrong))
        finally:
            self.line.shut()

    def _counts(self, bus: Any) -> dict[str, int]:
        return self.line.call(lambda: bus.sync_read("Present_Position", normalize=False))

    def _aim(self, bus: Any) -> None:
        """The present pose becomes the goal of the motors, for lerobot is about to switch their torque on."""
        self.line.greet(bus)
        try:
            counts = self._counts(bus)
            self.line.call(lambda: bus.sync_write("Goal_Position", counts, normalize=False))
        finally:
            self.line.shut()

    def _open(self) -> None:
        try:
            self.robot.connect(calibrate=False)
        except BaseException:
            self.line.shut()
            raise

    def measure(self, loads: bool) -> Measured:
        """See `Driver`."""
        before = time.monotonic()
        position = ours(self.joints, self.line.call(self.robot.get_observation))
        torque = self.line.call(self._torques) if loads and self._loaded else None
        holds = self.line.call(self._holding) if loads and self._held and self._tells else None
        return Measured(position=position, time=before, torque=torque, holds=holds)

    def _holding(self) -> np.ndarray:
        told = self.line.serial[0].sync_read("Torque_Enable", normalize=False)
        return np.array([told[joint.name] for joint in self.joints]) > 0

    def _torques(self) -> np.ndarray:
        loads = self.line.serial[0].sync_read("Present_Load", normalize=False)
        return np.array([loads[joint.name] for joint in self.joints]) / 1000 * STALL

    def write(self, goal: np.ndarray) -> None:
        """See `Driver`."""
        with self.line.said():
            self.robot.send_action(theirs(self.joints, goal))

    def hold(self) -> None:
        """See `Driver`; of an SO-101 the servos themselves give no more torque than allowed.

        Raises ConnectionError: not the second time, for lerobot writes the settings that a servo may have lost only
        when it connects.
        """
        if self._held:
            raise ConnectionError(
                f"{self.line.name}: servos may have lost their settings; close the robot, open it anew"
            )
        self._limit(self.torque)
        self.write(self.measure(False).position)
        with self.line.unhurried():
            for bus in self.line.buses:
                self.line.call(bus.enable_torque)
        self.write(self.measure(False).position)
        self._held = True

    def _limit(self, torque: Any) -> None:
        """Bound the torque of the servos by themselves, where they can; None: as they store it."""
        if self.body == "so101" and self._tells and "Torque_Limit" in self.line.serial[0].model_ctrl_table["sts3215"]:
            limits = dict(zip(find_arm("so101").joints, torque_limits(torque), strict=True))
            self.line.call(lambda: self.line.serial[0].sync_write("Torque_Limit", limits, normalize=False))

    def relax(self) -> None:
        """See `Driver`. Where a robot has no bus of motors, `close` does what lerobot does for it."""
        self._held = False
        with self.line.unhurried():
            for bus in self.line.buses:
                self.line.call(bus.disable_torque)
            self._limit(None)

    def close(self) -> None:
        """See `Driver`."""
        with suppress(ConnectionError):
            with self.line.said():
                if self.robot.is_connected:
                    self.robot.disconnect()
        self.line.shut()
        self.line.release()


def settled(device: Any, kind: str, joints: tuple[Joint, ...]) -> dict[str, Any]:
    """What settles the meaning of a device's numbers, see `RobotConfig.settled`."""
    held = {f"{p}{name}": vars(one) for p, bus in buses_of(device).items() for name, one in bus.calibration.items()}
    return {"type": kind, "units": {joint.name: joint.said for joint in joints}, "calibration": held}


def body_of(joints: tuple[Joint, ...], name: str, rate: float) -> Embodiment:
    """Absolute targets in, places out, rad and m."""
    names, units = tuple(joint.name for joint in joints), tuple(joint.unit for joint in joints)
    return Embodiment(
        name=name,
        action=names,
        action_units=units,
        limits=tuple(joint.limits for joint in joints),
        rate=rate,
        frame="joint",
        state=names,
        state_units=units,
    )


class LerobotCamera(Camera):
    """A camera of lerobot's, by its settings."""

    def __init__(self, name: str, settings: Mapping[str, Any]):
        config = configured("cameras", settings)
        if not config.width or not config.height or not config.fps:
            raise ValueError(f"camera '{name}': give its width, height and fps")
        super().__init__(name, str(settings["type"]), config.width, config.height, config.fps)
        self._settings, self._bgr = dict(settings), getattr(getattr(config, "color_mode", None), "value", "") == "bgr"
        if getattr(config, "use_depth", False):
            warnings.warn(f"camera '{name}': its depth is not recorded", stacklevel=2)

    def _connect(self) -> tuple[Read, Callable[[], None]]:
        device = make("cameras", self._settings)
        try:
            device.connect()
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise ConnectionError(f"camera '{self.name}' does not open: {error}") from error

        def read() -> tuple[np.ndarray, float]:
            try:
                picture = device.async_read(timeout_ms=1000)
            except (OSError, RuntimeError, TimeoutError) as error:
                raise ConnectionError(str(error)) from error
            return picture[..., ::-1] if self._bgr else picture, time.monotonic()

        def end() -> None:
            with suppress(OSError, RuntimeError):
                device.disconnect()

        return read, end


@RobotConfig.register_subclass("lerobot")
@dataclass(frozen=True, kw_only=True)
class LerobotConfig(RobotConfig):
    """Any robot of lerobot's, by its settings with their type."""

    robot: dict[str, Any]  # lerobot's settings, with their type, such as {type: koch_follower, port: P, id: ME}
    rate: float = 30.0  # commands a second
    units: dict[str, str] | str = ""  # of joints whose motors do not say it: rad, degrees, m, mm
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)  # of joints, rad or m; within the calibration

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.robot.get("type") in MODELS:
            object.__setattr__(self, "envelope", ENVELOPE | self.envelope)

    @property
    def arm(self) -> dict[str, Any]:
        """lerobot's settings without cameras; a lost answer is asked for again by us."""
        config = configured("robots", self.robot)
        if getattr(config, "max_relative_target", None) is not None:
            raise ValueError(
                "max_relative_target: lerobot would send something else than the guard decides and the recording says; "
                "leave it out, `envelope: {velocity: ...}` bounds each step"
            )
        known = {item.name for item in fields(type(config))}
        given = {key: value for key, value in self.robot.items() if key != "cameras"}
        return ({"num_read_retries": 0} if "num_read_retries" in known else {}) | given

    def driver(self) -> LerobotArm:
        return LerobotArm(self)

    def settled(self) -> dict[str, Any]:
        arm = LerobotArm(self)
        return settled(arm.robot, arm.kind, arm.joints)

    def cameras(self) -> dict[str, LerobotCamera]:
        return {name: LerobotCamera(name, one) for name, one in (self.robot.get("cameras") or {}).items()}


def lerobot_config(name: str, settings: Mapping[str, Any]) -> LerobotConfig:
    """A robot of lerobot's by its name; settings that are ours (rate, units, limits, envelope, ...) are taken out.

    `calibration`: its file; the id and the folder of lerobot's follow from it.
    """
    mine = {item.name for item in fields(LerobotConfig)} - {"robot"}
    theirs_ = {key: value for key, value in settings.items() if key not in mine}
    return LerobotConfig(
        robot={"type": name} | with_calibration(theirs_),
        **{key: value for key, value in settings.items() if key in mine},
    )


def with_calibration(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of lerobot's with `calibration: FILE` as the id and folder that mean it, and variables expanded."""
    found = {key: os.path.expandvars(one) if isinstance(one, str) else one for key, one in settings.items()}
    file = found.pop("calibration", None)
    if file is None:
        return found
    path = Path(file).expanduser()
    return found | {"id": path.stem, "calibration_dir": str(path.parent)}


def knows(name: str) -> bool:
    """Whether lerobot, or a plug-in of it, has a robot of that name."""
    return name in names_of("robots") or name in plugged("robots")


def plugged(kind: str) -> Mapping[str, object]:
    """Names that plug-ins of lerobot's register. Imports them, and lerobot, where any is installed."""
    import importlib
    from importlib.metadata import distributions

    names = (str(one.name or "").lower().replace("-", "_") for one in distributions())
    if not names_of(kind) or not any(name.startswith("lerobot_") for name in names):
        return {}
    prepare_lerobot()
    importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    return getattr(importlib.import_module(f"lerobot.{kind}"), BASES[kind]).get_known_choices()
