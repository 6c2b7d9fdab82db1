"""Arms by name: which servos stand on the bus, where their joints are, and which protocol they speak.

A chain starts as a calibrated arm does, at its home pose with the ranges of its joints in the EEPROM, or fresh from the
factory. The count of a joint at 0 rad is 2048, or what a calibration file of lerobot's says; counts grow with the
angle, as on an SO-101 that was assembled by the book.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

from ...configs.files import replace_text
from ...configs.plugins import lookup
from ...sim.arms import find_arm
from .chain import Chain
from .dynamixel import Dynamixel
from .feetech import Feetech
from .packets import Codec
from .servo import COUNTS, PER_RAD, Servo
from .shafts import FreeShafts, Shaft, Shafts
from .sts3215 import STS3215
from .xseries import XL330M077, XL330M288, XL430

REST = 6.0  # s that an emulated hand rests before each sweep
RAMP = 1.0  # s from rest to the sweep, and back


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What lerobot keeps of one motor, under the same names; counts."""

    id: int
    drive_mode: int = 0
    homing_offset: int = 0
    range_min: int
    range_max: int


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An arm that can be emulated. `limits` and `home` in rad, in the order of the joints; ids count from 1."""

    name: str
    joints: tuple[str, ...]
    servos: tuple[type[Servo], ...]
    codec: type[Codec]
    limits: tuple[tuple[float, float], ...]
    home: tuple[float, ...]
    full_turn: tuple[str, ...] = ()  # joints whose calibrated range is the whole turn, as lerobot writes it
    offset_sign: int = -1  # present = shaft + sign * homing offset

    def calibration(self) -> dict[str, Calibration]:
        """Of an arm whose joints read 2048 at 0 rad."""
        found = {}
        for id, (name, (low, high)) in enumerate(zip(self.joints, self.limits, strict=True), 1):
            low, high = COUNTS / 2 + low * PER_RAD, COUNTS / 2 + high * PER_RAD
            ends = (0, COUNTS - 1) if name in self.full_turn else (round(low), round(high))
            found[name] = Calibration(id=id, range_min=ends[0], range_max=ends[1])
        return found

    def zeros(self, calibration: Mapping[str, Calibration]) -> tuple[float, ...]:
        """Shaft angle of each joint at 0 rad, in rad: the middle of the range is the middle of the joint."""
        found = []
        for name, (low, high) in zip(self.joints, self.limits, strict=True):
            one = calibration[name]
            middle = (one.range_min + one.range_max) / 2 - self.offset_sign * one.homing_offset
            angle = 0.0 if name in self.full_turn else (low + high) / 2
            found.append(middle / PER_RAD - angle)
        return tuple(found)


def so101() -> Kind:
    """The SO-101, follower or leader: the servos are the same."""
    arm = find_arm("so101")
    return Kind(
        name="so101",
        joints=arm.joints,
        servos=(STS3215,) * len(arm.joints),
        codec=Feetech,
        limits=arm.limits,
        home=arm.home,
        full_turn=("wrist_roll",),
    )


def koch(leader: bool = False) -> Kind:
    """The Koch v1.1 as lerobot has it: limits and home of an SO-101's joints, for nobody has published its own."""
    arm = find_arm("so101")
    large, small = (XL330M077, XL330M077) if leader else (XL430, XL330M288)
    return Kind(
        name="koch-leader" if leader else "koch",
        joints=arm.joints,
        servos=(large, large, small, small, small, small),
        codec=Dynamixel,
        limits=arm.limits,
        home=arm.home,
        full_turn=("shoulder_pan", "wrist_roll"),
        offset_sign=1,
    )


KINDS: dict[str, Callable[[], Kind]] = {"so101": so101, "koch": koch, "koch-leader": partial(koch, leader=True)}


def find_kind(name: str) -> Kind:
    """The arm of that name. Raises LookupError listing the known ones."""
    return lookup("emulated arm", name, KINDS)()


def make_chain(
    kind: Kind,
    calibration: Mapping[str, Calibration] | None = None,
    stored: bool = True,
    baud: int = 1_000_000,
    shafts: Callable[[tuple[float, ...]], Shafts] | None = None,
) -> Chain:
    """The servos of `kind` at its home pose.

    Args:
        calibration: of every joint; by default the one of an arm assembled by the book.
        stored: whether the EEPROM holds it; otherwise offsets and ranges are the factory's.
        baud: bits a second that the servos are set to.
        shafts: (shaft angles of the joints' zeros, rad) -> what the servos turn; by default end stops at the joints'
            limits and nothing to carry.
    """
    calibration = calibration or kind.calibration()
    zeros = kind.zeros(calibration)
    servos = []
    for make, name in zip(kind.servos, kind.joints, strict=True):
        one = calibration[name]
        values = {"ID": one.id, "Baud_Rate": make.bauds.index(baud)}
        if "Drive_Mode" in make.table.by_name:
            values["Drive_Mode"] = one.drive_mode
        if stored:
            values |= {
                "Homing_Offset": one.homing_offset,
                "Min_Position_Limit": one.range_min,
                "Max_Position_Limit": one.range_max,
            }
        servos.append(make(**values))
    return Chain(servos, shafts(zeros) if shafts else free_shafts(kind, zeros))


def free_shafts(kind: Kind, zeros: tuple[float, ...]) -> FreeShafts:
    """Shafts at the home pose with end stops at the limits of the joints, and nothing to carry."""
    shafts = [
        Shaft(zero + home, low=zero + low, high=zero + high)
        for zero, home, (low, high) in zip(zeros, kind.home, kind.limits, strict=True)
    ]
    return FreeShafts([servo.motor for servo in kind.servos], shafts)


def read_calibration(path: Path, kind: Kind) -> dict[str, Calibration]:
    """A calibration file of lerobot's for this arm. Raises ValueError, naming the file, and OSError."""
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no calibration file of lerobot's: {error}") from error
    try:
        found = {name: Calibration(**values) for name, values in told.items()}
    except (TypeError, AttributeError) as error:
        wanted = ", ".join(each.name for each in fields(Calibration))
        raise ValueError(f"{path} is no calibration file of lerobot's: it must map each motor to {wanted}") from error
    missing = [name for name in kind.joints if name not in found]
    if missing:
        raise ValueError(f"{path} is of another arm: it lacks {', '.join(missing)}")
    for name, one in found.items():
        whole = all(isinstance(number, int) for number in asdict(one).values())
        if not whole or not 0 <= one.range_min < one.range_max < COUNTS:
            limits = f"{one.range_min!r} to {one.range_max!r}"
            raise ValueError(f"{path}: {limits} is no range of {name}: whole numbers within 0..{COUNTS - 1}, rising")
    ids = [one.id for one in found.values()]
    if len(set(ids)) < len(ids) or not all(0 <= id <= 252 for id in ids):
        raise ValueError(f"{path}: the motors have the ids {', '.join(map(str, ids))}; each needs its own, 0..252")
    return found


def write_calibration(path: Path, calibration: Mapping[str, Calibration]) -> None:
    """Write it as lerobot does. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps({name: asdict(one) for name, one in calibration.items()}, indent=4))


def swept(kind: Kind, time: float, period: float = 8.0) -> list[float]:
    """Joint angles in rad of a hand that leads every joint to and fro over its range, each a little later.

    It rests `REST` s at home before each sweep, so that an arm that it leads comes to it.
    """
    _, since = divmod(time, REST + RAMP + period + RAMP)
    moving = since - REST
    led = min(max(moving, 0.0), RAMP + period + RAMP - moving, RAMP) / RAMP  # 0 at home .. 1 on the sweep
    angles = []
    for place, ((low, high), home) in enumerate(zip(kind.limits, kind.home, strict=True)):
        phase = 2 * math.pi * (moving / period + place / len(kind.limits))
        sweep = (low + high) / 2 + (high - low) / 2 * math.sin(phase)
        angles.append(home + led * (sweep - home))
    return angles
