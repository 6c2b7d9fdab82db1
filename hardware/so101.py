"""The SO-101 follower on its serial port, by lerobot's Feetech bus: counts on the wire, rad on our side.

A body joint is at 0 rad in the middle of its calibrated range, as lerobot's degrees have it; a turn is 4096 counts. The
gripper is closed at one end of its range and fully open at the other. The file is lerobot's calibration of that arm;
what the servos have stored must agree with it. Torques are the servos' duty times the stall torque: rough, and too
high while a joint moves fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.compat import prepare_lerobot
from ..configs.spec import Embodiment
from ..sim.arms import find_arm
from .cameras import Camera
from .emulator.arm import Calibration, find_kind, read_calibration
from .guard import Measured
from .robot import RobotConfig

COUNTS = 4096  # a turn
PER_RAD = COUNTS / (2 * np.pi)
STALL = 2.94  # N m of an STS3215 at 7.4 V, full duty
SEAM = 40  # counts that a joint may be outside its calibrated range: 3.5 degrees
RETRIES = 2  # of a read, before it counts as failed
TORQUE = 2.4  # N m
BAUD = 1_000_000
LATE = 0.05  # s that an answer may come late
GREETINGS = 5  # tries to find all servos
STORED = {  # of the calibration -> register
    "homing_offset": "Homing_Offset",
    "range_min": "Min_Position_Limit",
    "range_max": "Max_Position_Limit",
}
SETTINGS = {  # register -> value in every servo; those of lerobot's follower
    "Return_Delay_Time": 0,
    "Maximum_Acceleration": 254,
    "Acceleration": 254,
    "Operating_Mode": 0,
    "P_Coefficient": 16,
    "I_Coefficient": 0,
    "D_Coefficient": 32,
}
GRIPPER = {"Max_Torque_Limit": 500, "Protection_Current": 250, "Overload_Torque": 25}


class CalibrationError(ValueError):
    """The file is not that of the arm on the port, or not of the arm as it is now."""


class Scale:
    """Counts and rad of an SO-101 by its calibration."""

    def __init__(self, calibration: Mapping[str, Calibration]):
        self.arm = find_arm("so101")
        self.calibration = {name: calibration[name] for name in self.arm.joints}
        low = np.array([one.range_min for one in self.calibration.values()], float)
        high = np.array([one.range_max for one in self.calibration.values()], float)
        self.low, self.high = low, high
        self._zero, self._per_rad = (low + high) / 2, np.full(len(low), PER_RAD)
        shut, wide = self.arm.limits[-1]
        self._per_rad[-1] = (high[-1] - low[-1]) / (wide - shut)
        self._zero[-1] = low[-1] - shut * self._per_rad[-1]

    def angles(self, counts: np.ndarray) -> np.ndarray:
        """(D,) counts -> rad."""
        return (counts - self._zero) / self._per_rad

    def counts(self, angles: np.ndarray) -> np.ndarray:
        """(D,) rad -> the nearest whole counts within the calibrated range."""
        return np.clip(np.rint(angles * self._per_rad + self._zero), self.low, self.high).astype(int)

    def limits(self) -> tuple[tuple[float, float], ...]:
        """Of each joint, rad: its calibrated range; the arm's own limits where that is a whole turn."""
        low, high = self.angles(self.low), self.angles(self.high)
        whole = self.high - self.low >= COUNTS - 1
        low, high = np.where(whole, self.arm.low, low), np.where(whole, self.arm.high, high)
        return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))

    def seams(self, counts: np.ndarray) -> list[str]:
        """What is wrong with a reading: joints outside their calibrated range, and how that comes."""
        found = []
        for name, count, low, high in zip(self.arm.joints, counts, self.low, self.high, strict=True):
            if not low - SEAM <= count <= high + SEAM:
                found.append(
                    f"{name} reads {count:.0f}, its calibrated range is {low:.0f} .. {high:.0f}: it crossed the seam "
                    "of its encoder (0/4095), or its horn was put on anew; calibrate this arm again"
                )
        return found


@contextmanager
def spoken_for(port: str) -> Iterator[None]:
    """Whatever a serial port raises when it is gone, as one ConnectionError that names it."""
    import termios

    import serial

    try:
        yield
    except ConnectionError as error:
        raise ConnectionError(f"{port}: {error}") from error
    except (serial.SerialException, OSError, termios.error, RuntimeError) as error:
        raise ConnectionError(f"{port}: {error}") from error
    except IndexError as error:  # scservo_sdk's answer to a packet that is too short
        raise ConnectionError(f"{port}: an answer was cut short") from error


def check_port(port: str) -> None:
    """Raise ConnectionError: there is no such port, or it is not ours to use."""
    if not os.path.exists(port):
        raise ConnectionError(f"{port}: no such port; is the arm plugged in? (ls /dev/ttyACM* /dev/ttyUSB*)")
    if not os.access(port, os.R_OK | os.W_OK):
        raise ConnectionError(f"{port}: no permission; sudo usermod -a -G dialout $USER, then log in anew")


def read_all(bus, port: str, register: str, names) -> np.ndarray:
    """One register of all servos, as whole numbers (D,). Raises ConnectionError.

    An answer says neither what it answers nor when it was asked, so after a failure the line is given time to fall
    silent: or the late answer to this request would be taken for that to the next.
    """
    for left in reversed(range(RETRIES + 1)):
        try:
            with spoken_for(port):
                values = bus.sync_read(register, normalize=False, num_retry=0)
            return np.array([values[name] for name in names], float)
        except ConnectionError:
            fall_silent(bus, port)
            if not left:
                raise
    raise AssertionError


def fall_silent(bus, port: str) -> None:
    """Wait for answers that are late, and forget them. Raises ConnectionError."""
    time.sleep(LATE)
    with spoken_for(port):
        bus.port_handler.clearPort()
        bus.port_handler.ser.reset_input_buffer()


def open_rust(port: str) -> Any:
    """rustypot's controller on a port that lerobot's bus holds too. Raises ImportError, ConnectionError."""
    try:
        import rustypot
    except ImportError as error:
        raise ImportError(
            f"bus: rustypot is not installed ({error}): pip install rustypot, or leave bus out"
        ) from error
    with spoken_for(port):
        return rustypot.Sts3215PyController(port, BAUD, LATE)


def signed(count: int) -> int:
    """A position of the register, whose sign is its bit 15, as a number."""
    count &= 0xFFFF
    return -(count & 0x7FFF) if count & 0x8000 else count


class SO101:
    """See `Driver`. `calibration`: lerobot's file of this arm."""

    body: str | None = "so101"

    def __init__(self, port: str, calibration: Path, rate: float, bus: str = "lerobot"):
        self.port, self.path, self._fast = port, calibration, bus == "rustypot"
        if not calibration.is_file():
            raise CalibrationError(
                f"no calibration file {calibration}: run lerobot-calibrate --robot.type=so101_follower "
                f"--robot.port={port} --robot.id={calibration.stem}"
            )
        self.scale = Scale(read_calibration(calibration, find_kind("so101")))
        arm = self.scale.arm
        units = ("rad",) * len(arm.joints)
        self.embodiment = Embodiment(
            name="so101",
            action=arm.joints,
            action_units=units,
            limits=self.scale.limits(),
            rate=rate,
            frame="joint",
            state=arm.joints,
            state_units=units,
        )
        self._bus: Any = None
        self._rust: Any = None

    def connect(self) -> None:
        """See `Driver`. Raises CalibrationError: servos, file and pose do not fit together."""
        prepare_lerobot()
        from lerobot.motors import Motor, MotorCalibration, MotorNormMode
        from lerobot.motors.feetech import FeetechMotorsBus

        check_port(self.port)
        joints = self.scale.arm.joints
        motors = {name: Motor(one.id, "sts3215", MotorNormMode.DEGREES) for name, one in self._calibrated()}
        known = {name: MotorCalibration(**vars(one)) for name, one in self._calibrated()}
        bus = FeetechMotorsBus(port=self.port, motors=motors, calibration=known)
        self._greet(bus)
        self._bus = bus
        wrong = []
        for part, register in STORED.items():
            fall_silent(bus, self.port)
            for name, stored in zip(joints, self._read(register), strict=True):
                if stored != getattr(known[name], part):
                    wrong.append(f"{name} has {part} {stored:.0f}, the file {getattr(known[name], part)}")
        if wrong:
            raise CalibrationError(f"{self.path} is not the calibration that the servos hold: {'; '.join(wrong[:3])}")
        seams = self.scale.seams(self._counts())
        if seams:
            raise CalibrationError("; ".join(seams))
        if self._fast:
            self._rust = open_rust(self.port)

    def _greet(self, bus) -> None:
        """Open the port and ask for every servo; a lost answer is asked for again."""
        for left in reversed(range(GREETINGS)):
            try:
                with spoken_for(self.port):
                    bus.connect()
                return
            except ConnectionError:
                if bus.is_connected:
                    bus.port_handler.closePort()
                if not left:
                    raise

    def _calibrated(self):
        return self.scale.calibration.items()

    def _read(self, register: str) -> np.ndarray:
        if self._bus is None:
            raise ConnectionError(f"{self.port}: not connected")
        return read_all(self._bus, self.port, register, self.scale.arm.joints)

    def _counts(self) -> np.ndarray:
        if self._rust is None:
            return self._read("Present_Position")
        for left in reversed(range(RETRIES + 1)):
            try:
                with spoken_for(self.port):
                    counts = self._rust.sync_read_raw_present_position(self._ids())
                return np.array([signed(count) for count in counts], float)
            except ConnectionError:
                fall_silent(self._bus, self.port)
                if not left:
                    raise
        raise AssertionError

    def _ids(self) -> list[int]:
        return [one.id for one in self.scale.calibration.values()]

    def measure(self, loads: bool) -> Measured:
        """See `Driver`."""
        before = time.monotonic()
        position = self.scale.angles(self._counts())
        torque = self._read("Present_Load") / 1000 * STALL if loads else None
        return Measured(position=position, time=before, torque=torque)

    def write(self, goal: np.ndarray) -> None:
        """See `Driver`."""
        self._send(self.scale.counts(goal))

    def _send(self, counts: np.ndarray) -> None:
        if self._bus is None:
            raise ConnectionError(f"{self.port}: not connected")
        if self._rust is not None:
            with spoken_for(self.port):
                self._rust.sync_write_raw_goal_position(self._ids(), counts.tolist())
            return
        values = dict(zip(self.scale.arm.joints, counts.tolist(), strict=True))
        with spoken_for(self.port):
            self._bus.sync_write("Goal_Position", values, normalize=False)

    def hold(self) -> None:
        """See `Driver`: settings, then the present counts as goals, then the torque."""
        assert self._bus is not None
        bus = self._bus
        with spoken_for(self.port):
            bus.disable_torque(num_retry=RETRIES)
            for name in self.scale.arm.joints:
                for register, value in (SETTINGS | (GRIPPER if name == "gripper" else {})).items():
                    bus.write(register, name, value, normalize=False, num_retry=RETRIES)
        self._send(self._counts().astype(int))
        with spoken_for(self.port):
            bus.enable_torque(num_retry=RETRIES)
        self._send(self._counts().astype(int))

    def relax(self) -> None:
        """See `Driver`."""
        if self._bus is not None:
            with spoken_for(self.port):
                self._bus.disable_torque(num_retry=5)

    def close(self) -> None:
        """See `Driver`."""
        bus, self._bus, self._rust = self._bus, None, None
        if bus is not None and bus.is_connected:
            try:
                with spoken_for(self.port):
                    bus.disconnect(disable_torque=False)
            except ConnectionError:
                pass  # it is gone already


@RobotConfig.register_subclass("so101")
@dataclass(frozen=True, kw_only=True)
class SO101Config(RobotConfig):
    """An SO-101 follower."""

    port: str  # such as /dev/ttyACM0
    id: str = "so101"  # of the calibration that lerobot-calibrate wrote
    calibration: str | None = None  # its file; default: lerobot's for this id
    rate: float = 30.0  # commands a second
    bus: str = "lerobot"  # or rustypot, where it is installed: positions and goals at a tenth of the processor time
    camera: dict[str, dict] = field(default_factory=dict)  # name -> {index, width, height, fps}, of OpenCV

    @property
    def file(self) -> Path:
        """The calibration file."""
        if self.calibration is not None:
            return Path(os.path.expandvars(self.calibration)).expanduser()
        return calibration_folder() / "robots" / "so_follower" / f"{self.id}.json"

    def driver(self) -> SO101:
        return SO101(os.path.expandvars(self.port), self.file, self.rate, self.bus)

    def settled(self) -> dict[str, Any]:
        known = read_calibration(self.file, find_kind("so101"))
        return {"type": "so101", "calibration": {name: vars(one) for name, one in known.items()}}

    def __post_init__(self) -> None:
        if self.bus not in ("lerobot", "rustypot"):
            raise ValueError(f"bus: '{self.bus}' is neither lerobot nor rustypot")
        object.__setattr__(self, "envelope", {"torque": TORQUE} | self.envelope)

    def cameras(self) -> dict[str, Camera]:
        return {name: Camera(name=name, **settings) for name, settings in self.camera.items()}


def calibration_folder() -> Path:
    """Where lerobot keeps calibrations."""
    home = os.environ.get("HF_LEROBOT_HOME", "~/.cache/huggingface/lerobot")
    return Path(os.environ.get("HF_LEROBOT_CALIBRATION", f"{home}/calibration")).expanduser()
