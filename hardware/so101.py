"""The SO-101 follower on its serial port: counts on the wire, rad on our side.

Registers and settings are those that lerobot's follower uses, so that the two can take turns on one arm.
A body joint is at 0 rad in the middle of its calibrated range, as lerobot's degrees have it; a turn is 4096 counts. The
gripper is closed at one end of its range and fully open at the other. The file is lerobot's calibration of that arm;
what the servos have stored must agree with it. Torques are the servos' duty times the stall torque: rough, and too
high while a joint moves fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..configs.spec import Embodiment
from ..sim.arms import find_arm
from .cameras import Camera
from .emulator.arm import Calibration, find_kind, read_calibration
from .feetech import ServoLine
from .guard import Measured
from .port import Claim, check_port, spoken_for
from .robot import RobotConfig

T = TypeVar("T")
COUNTS = 4096  # a turn
PER_RAD = COUNTS / (2 * np.pi)
# N m of an STS3215 at full duty, at rest: the identified motor at 7.4 V (emulator/motor.py). Data sheets say 1.91 at
# 7.4 V and 2.94 at 12 V, measured were 3.4 at 12 V (SO-ARM100 issue 134): what a duty bears is not taken for too little
STALL = 3.35
SEAM = 40  # counts that a joint may be outside its calibrated range: 3.5 degrees
FULL = 1000  # 0.1 %, all of a servo's duty
RETRIES = 2  # of a read, before it counts as failed
PUSHED = 0.85  # part of the torque that a servo gives at rest; a joint that is pushed back bears its back-EMF, too
# Below what the servo can do: without load 5.4 rad/s at 7.4 V, 4.7 at 12 V (data sheets: 52 and 45 rev/min); 118
# rad/s^2 with all its torque on its own inertia, about half with the arm's
ENVELOPE: dict[str, Any] = {
    "torque": 2.4,  # N m: 72 % of full duty
    "velocity": (2.2, 2.2, 2.2, 2.2, 3.2, 3.2),  # rad/s: 47 % of 4.7 where the arm is turned, 68 % at roll and gripper
    "acceleration": 20.0,  # rad/s^2
    "jerk": 1000.0,  # rad/s^3
}
GREETINGS = 5  # tries to find all servos, by lerobot's bus
MODEL = 777  # of an STS3215
NOW = ("Torque_Enable", "Present_Position", "Present_Load")
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
        if self.calibration[self.arm.joints[-1]].drive_mode:
            raise CalibrationError(
                "the gripper has drive_mode 1: lerobot-calibrate writes 0 for this arm; calibrate again"
            )
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


def torque_limits(torque: Any) -> list[int]:
    """What goes into `Torque_Limit` so that a servo gives at most `torque` N m at rest, in 0.1 % of full duty.

    Args:
        torque: of all joints or of each; None: what the servo stores.
    """
    stored = [GRIPPER["Max_Torque_Limit"] if name == "gripper" else FULL for name in find_arm("so101").joints]
    wanted = np.broadcast_to(np.inf if torque is None else np.asarray(torque, float), (len(stored),))
    return [int(min(most, FULL * PUSHED * bearable / STALL)) for most, bearable in zip(stored, wanted, strict=True)]


class SO101:
    """See `Driver`. `calibration`: lerobot's file of this arm; `torque`: N m that its servos may give, see `hold`."""

    body: str | None = "so101"

    def __init__(self, port: str, calibration: Path, rate: float, torque: Any = None):
        self.port, self.path, self.torque = port, calibration, torque
        if not calibration.is_file():
            raise CalibrationError(
                f"no calibration file {calibration}: run lerobot-calibrate --robot.type=so101_follower "
                f"--robot.port={port} --robot.id={calibration.stem} --robot.calibration_dir={calibration.parent}"
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
        self._line: ServoLine | None = None
        self._claim: Claim | None = None
        self._holds = False  # all servos were told to

    def connect(self) -> None:
        """See `Driver`. Raises CalibrationError: servos, file and pose do not fit together."""
        check_port(self.port)
        self.close()  # of before
        self._claim = Claim(self.port)
        known = self.scale.calibration
        with spoken_for(self.port):
            self._line = ServoLine(self.port, [one.id for one in known.values()])
        self._greet()
        wrong = []
        for part, register in STORED.items():
            self._try(ServoLine.fall_silent)  # answers do not say what they answer: none may be late here
            for name, (stored,) in zip(known, self._read(register), strict=True):
                if stored != getattr(known[name], part):
                    wrong.append(f"{name} has {part} {stored}, the file {getattr(known[name], part)}")
        if wrong:
            raise CalibrationError(f"{self.path} is not the calibration that the servos hold: {'; '.join(wrong[:3])}")
        seams = self.scale.seams(self._counts())
        if seams:
            raise CalibrationError("; ".join(seams))

    def _greet(self) -> None:
        """Ask every servo what it is; a lost answer is asked for again. Raises ConnectionError."""
        silent = []
        for name, one in self.scale.calibration.items():
            try:
                model = self._try(ServoLine.read_one, one.id, "Model_Number")
            except ConnectionError as error:
                silent.append(f"{name} (id {one.id}): {error}")
                continue
            if model != MODEL:
                raise ConnectionError(f"{self.port}: {name} (id {one.id}) is a servo of model {model}, not an STS3215")
        if silent:
            everyone = len(silent) == len(self.scale.calibration)
            who = "no servo answers: is the arm powered, and its baud rate 1,000,000?" if everyone else silent[0]
            raise ConnectionError(f"{self.port}: {who} (understudy doctor --robot so101 --port {self.port} says more)")

    def _try(self, act: Callable[..., T], *given: Any) -> T:
        """What a `ServoLine` does; again, a few times, where it fails. Raises ConnectionError."""
        line = self._line
        if line is None:
            raise ConnectionError(f"{self.port}: not connected")
        for left in reversed(range(RETRIES + 1)):
            try:
                with spoken_for(self.port):
                    return act(line, *given)
            except ConnectionError:
                if not left:
                    raise
                with spoken_for(self.port):
                    line.fall_silent()
        raise AssertionError

    def _read(self, *registers: str) -> np.ndarray:
        return self._try(ServoLine.read, *registers)

    def _counts(self) -> np.ndarray:
        return self._read("Present_Position")[:, 0]

    def measure(self, loads: bool) -> Measured:
        """See `Driver`."""
        before = time.monotonic()
        if not loads:
            return Measured(position=self.scale.angles(self._counts()), time=before)
        on, counts, duty = self._read(*NOW).T
        holds = on > 0 if self._holds else None
        return Measured(position=self.scale.angles(counts), time=before, torque=duty / FULL * STALL, holds=holds)

    def write(self, goal: np.ndarray) -> None:
        """See `Driver`."""
        self._send(self.scale.counts(goal))

    def _send(self, counts: np.ndarray) -> None:
        if self._line is None:
            raise ConnectionError(f"{self.port}: not connected")
        with spoken_for(self.port):
            self._line.write("Goal_Position", counts.tolist())

    def hold(self) -> None:
        """See `Driver`: settings, then the present counts as goals, then the torque; who holds already goes on.

        The servo itself gives no more torque than allowed, whatever it runs into: `Torque_Limit`, lost without power.
        """
        held = self._read("Torque_Enable")[:, 0] > 0 if self._holds else [False] * len(self.scale.calibration)
        limp = [name for name, on in zip(self.scale.calibration, held, strict=True) if not on]
        self._set("Torque_Enable", 0, limp)
        self._set("Lock", 0, limp)
        for register, value in SETTINGS.items():
            self._set(register, value, limp)
        for register, value in GRIPPER.items():
            self._set(register, value, [name for name in limp if name == "gripper"])
        self._limit(torque_limits(self.torque))
        self._send(self._counts())
        self._set("Torque_Enable", 1, limp)
        self._set("Lock", 1, limp)
        self._send(self._counts())
        self._holds = True

    def _limit(self, duties: list[int]) -> None:
        for one, duty in zip(self.scale.calibration.values(), duties, strict=True):
            self._try(ServoLine.write_one, one.id, "Torque_Limit", duty)

    def _set(self, register: str, value: int, names: Iterable[str]) -> None:
        for name in names:
            self._try(ServoLine.write_one, self.scale.calibration[name].id, register, value)

    def relax(self) -> None:
        """See `Driver`: every servo that answers is let go, whoever does not."""
        if self._line is None:
            return
        self._holds = False
        failed = None
        for one in self.scale.calibration.values():
            try:
                self._try(ServoLine.write_one, one.id, "Torque_Enable", 0)
            except ConnectionError as error:
                failed = error
        if failed is not None:
            raise failed
        with suppress(ConnectionError):  # as it was, for who drives next
            self._limit(torque_limits(None))

    def close(self) -> None:
        """See `Driver`."""
        line, self._line = self._line, None
        if line is not None:
            with suppress(ConnectionError), spoken_for(self.port):
                line.close()
        if self._claim is not None:
            self._claim.release()


@RobotConfig.register_subclass("so101")
@dataclass(frozen=True, kw_only=True)
class SO101Config(RobotConfig):
    """An SO-101 follower."""

    port: str  # such as /dev/ttyACM0
    id: str = "so101"  # of the calibration that lerobot-calibrate wrote
    calibration: str | None = None  # its file; default: lerobot's for this id
    rate: float = 30.0  # commands a second
    camera: dict[str, dict] = field(default_factory=dict)  # name -> {index, width, height, fps}, of OpenCV

    @property
    def file(self) -> Path:
        """The calibration file."""
        if self.calibration is not None:
            return Path(os.path.expandvars(self.calibration)).expanduser()
        return calibration_folder() / "robots" / "so_follower" / f"{self.id}.json"

    @property
    def calibrated_by(self) -> str:
        """Flags of lerobot-calibrate that write that file."""
        flags = f"--robot.type=so101_follower --robot.port={self.port} --robot.id={self.file.stem}"
        return flags if self.calibration is None else f"{flags} --robot.calibration_dir={self.file.parent}"

    def driver(self) -> SO101:
        return SO101(os.path.expandvars(self.port), self.file, self.rate, self.envelope.get("torque"))

    def settled(self) -> dict[str, Any]:
        known = read_calibration(self.file, find_kind("so101"))
        return {"type": "so101", "calibration": {name: vars(one) for name, one in known.items()}}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, settings in self.camera.items():
            keys = set(settings) if isinstance(settings, Mapping) else set()
            if "index" not in keys or keys - {"index", "width", "height", "fps"}:
                raise ValueError(
                    f"camera '{name}': {settings!r:.80} is not {{index: 0, width: 640, height: 480, fps: 30}}; index "
                    "is needed"
                )
        object.__setattr__(self, "envelope", ENVELOPE | self.envelope)

    def cameras(self) -> dict[str, Camera]:
        return {name: Camera(name=name, **settings) for name, settings in self.camera.items()}


def calibration_folder() -> Path:
    """Where lerobot keeps calibrations."""
    home = os.environ.get("HF_LEROBOT_HOME", "~/.cache/huggingface/lerobot")
    return Path(os.environ.get("HF_LEROBOT_CALIBRATION", f"{home}/calibration")).expanduser()
