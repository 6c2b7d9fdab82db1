"""Arms by name: which servos stand on the bus, where their joints are, and which protocol they speak.

A chain starts as a calibrated arm does, at the arm's home pose with the position limits of its joints in the EEPROM, or
fresh from the factory. The count of a joint at 0 rad is 2048; counts grow with the angle, as on an SO-101 that was
assembled by the book.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...sim.arms import find_arm
from .chain import Chain
from .feetech import Feetech
from .packets import Codec
from .servo import COUNTS, PER_RAD, Servo
from .shafts import FreeShafts, Shaft
from .sts3215 import STS3215


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An arm that can be emulated. `limits` and `home` in rad, in the order of the joints; ids count from 1."""

    joints: tuple[str, ...]
    servos: tuple[type[Servo], ...]
    codec: type[Codec]
    limits: tuple[tuple[float, float], ...]
    home: tuple[float, ...]
    full_turn: tuple[str, ...] = ()  # joints whose calibrated range is the whole turn, as lerobot writes it

    def ranges(self) -> list[tuple[int, int]]:
        """Lowest and highest count of each joint when it is calibrated."""
        found = []
        for name, (low, high) in zip(self.joints, self.limits, strict=True):
            whole = name in self.full_turn
            found.append((0, COUNTS - 1) if whole else (round(count_of(low)), round(count_of(high))))
        return found


def count_of(angle: float) -> float:
    """The encoder's count at a joint angle in rad."""
    return COUNTS / 2 + angle * PER_RAD


def angle_of(count: float) -> float:
    """The joint angle in rad at a count."""
    return (count - COUNTS / 2) / PER_RAD


def so101() -> Kind:
    """The SO-101 (follower or leader: the servos are the same)."""
    arm = find_arm("so101")
    return Kind(
        joints=arm.joints,
        servos=(STS3215,) * len(arm.joints),
        codec=Feetech,
        limits=arm.limits,
        home=arm.home,
        full_turn=("wrist_roll",),
    )


KINDS = {"so101": so101}


def make_chain(kind: Kind, calibrated: bool = True, ids: Sequence[int] = (), baud: int | None = None) -> Chain:
    """The servos of `kind` at its home pose, with end stops at the limits of the joints and nothing to carry.

    Args:
        calibrated: the EEPROM holds the ranges of the joints; otherwise the factory's values.
        ids: of the servos; 1, 2, 3 ... by default.
        baud: what the servos are set to; 1,000,000 by default.
    """
    servos, shafts = [], []
    ids = ids or range(1, len(kind.joints) + 1)
    for make, id, (least, most), (low, high), home in zip(
        kind.servos, ids, kind.ranges(), kind.limits, kind.home, strict=True
    ):
        values = {"ID": id, "Baud_Rate": make.bauds.index(baud or 1_000_000)}
        if calibrated:
            values |= {"Min_Position_Limit": least, "Max_Position_Limit": most}
        servos.append(make(**values))
        shafts.append(Shaft(math.pi + home, low=math.pi + low, high=math.pi + high))
    return Chain(servos, FreeShafts([servo.motor for servo in servos], shafts))
