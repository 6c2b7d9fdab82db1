"""What the numbers of a lerobot device mean: degrees, -100..100 or 0..100 by its calibration, on our side rad.

Neither lerobot's datasets nor its messages say which; its motors do (`norm_mode`), with the ranges of the calibration
file. A degree counts from the middle of the calibrated range, as 1/360 of 4095 counts; a percentage is a share of the
range. An angle of ours is the count's: 2 pi by 4096, 0 in the middle of the range. A gripper (0..100) is at the lower
limit of the arm's model when closed and at the upper one when open; without a model it is at 0 at the lower end.

What a device does not say of itself (no motors, no calibration) has to be stated: its units and limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..sim.arms import Arm
from .envelope import check_limits

STATED = {"rad": ("rad", 1.0), "degrees": ("rad", math.pi / 180), "m": ("m", 1.0), "mm": ("m", 1e-3)}
MOST = 4 * math.pi  # rad, of a stated limit that nothing counts: who states more speaks of degrees
SHARE = "0..100"  # of a gripper's range
BODY = {"DEGREES": "degrees", "RANGE_M100_100": "-100..100", "RANGE_0_100": SHARE}


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One number of an action. `count`: what its motor counts, or the stated unit where nothing counts."""

    key: str  # as lerobot calls it
    said: str  # lerobot's unit
    unit: str  # ours: rad or m
    per_said: float  # counts of one unit of lerobot's
    at_zero: float  # count where lerobot says 0
    per_count: float  # rad or m
    middle: float  # count at 0 of ours
    limits: tuple[float, float]  # rad or m
    counts: tuple[int, int] | None = None  # calibrated range, where there are whole counts

    @property
    def name(self) -> str:
        return self.key.removesuffix(".pos")

    @property
    def range(self) -> tuple[float, float]:
        """The calibrated one, rad or m; endless where nothing counts."""
        if self.counts is None:
            return -math.inf, math.inf
        low, high = sorted((count - self.middle) * self.per_count for count in self.counts)
        return low, high

    def ours(self, said: float) -> float:
        """A number of lerobot's in rad or m."""
        return (said * self.per_said + self.at_zero - self.middle) * self.per_count

    def theirs(self, ours: float) -> float:
        """The number of lerobot's for rad or m; lerobot cuts counts off, so that the nearest one gets half a count."""
        count = ours / self.per_count + self.middle
        if self.counts is not None:
            count = min(max(round(count), self.counts[0]), self.counts[1]) + 0.5
        return (count - self.at_zero) / self.per_said

    def share(self, said: float) -> float:
        """0..1 of a number in `SHARE`."""
        return min(1.0, max(0.0, said / 100))


def buses_of(device: Any) -> dict[str, Any]:
    """Prefix of the names -> a bus of motors: one, or those of a left and a right arm. Empty where nobody has one."""
    if hasattr(device, "bus"):
        return {"": device.bus}
    arms = {f"{side}_": getattr(device, f"{side}_arm") for side in ("left", "right") if hasattr(device, f"{side}_arm")}
    return {prefix: arm.bus for prefix, arm in arms.items() if hasattr(arm, "bus")}


def joints_of(
    device: Any,
    what: str,
    model: Arm | None = None,
    units: Mapping[str, str] | str = "",
    limits: Mapping[str, Any] | None = None,
    bounded: bool = True,
) -> tuple[Joint, ...]:
    """The numbers of a device's actions, in their order.

    Args:
        what: how to call it in messages.
        model: of the arm that it is, for the gripper and for joints that turn a whole turn.
        units: stated for joints (or for all of them) whose motors do not say it: rad, degrees, m, mm.
        limits: stated, name -> (low, high), rad or m; no wider than the calibration.
        bounded: whether limits are needed.

    Raises:
        ValueError: naming what nobody says, and how to state it.
    """
    keys = list(device.action_features)
    known = dict(_known(device))
    limits = dict(limits or {})
    names = [key.removesuffix(".pos") for key in keys]
    for what_else in (*limits, *(units if isinstance(units, Mapping) else ())):
        if what_else not in names:
            raise ValueError(f"{what} has no joint '{what_else}'; it has {', '.join(names)}")
    joints, silent, endless = [], [], []
    for key, name in zip(keys, names, strict=True):
        stated = units.get(name, "") if isinstance(units, Mapping) else units
        motor = known.get(name)
        if motor is None and stated not in STATED:
            silent.append(name)
            continue
        if motor is not None and isinstance(units, Mapping) and stated:
            raise ValueError(
                f"units of {name}: its motor says what its numbers mean ({motor.unit}), '{stated}' would be ignored; "
                "leave it out"
            )
        joint = _counted(key, motor, model) if motor is not None else _stated(key, stated)
        if name in limits:
            joint = _with_limits(joint, limits[name])
        if bounded and not all(map(math.isfinite, joint.limits)):
            endless.append(name)
        joints.append(joint)
    if silent:
        raise ValueError(
            f"nobody says in what unit {', '.join(silent)} of {what} is: add `units: {{{silent[0]}: rad, ...}}` to its "
            f"settings ({', '.join(STATED)}), and `limits: {{{silent[0]}: [LOW, HIGH], ...}}` in rad or m"
        )
    if endless:
        raise ValueError(
            f"nobody says how far {', '.join(endless)} of {what} may go: add `limits: {{{endless[0]}: [LOW, HIGH]}}`, "
            "in rad or m, to its settings"
        )
    return tuple(joints)


@dataclass(frozen=True)
class _Motor:
    unit: str
    resolution: int | None  # counts a turn
    low: int
    high: int
    reversed: bool
    name: str


def _known(device: Any) -> Iterator[tuple[str, _Motor]]:
    """Joint -> what its motor says of it."""
    for prefix, bus in buses_of(device).items():
        table = getattr(bus, "model_resolution_table", {})
        for name, motor in bus.motors.items():
            unit = BODY.get(getattr(motor.norm_mode, "name", ""))
            one = bus.calibration.get(name) if bus.calibration else None
            resolution = table.get(motor.model)
            if unit is None or one is None or resolution is None:
                continue
            turned = bool(getattr(bus, "apply_drive_mode", False) and one.drive_mode)
            yield prefix + name, _Motor(unit, resolution, one.range_min, one.range_max, turned, name)


def _counted(key: str, motor: _Motor, model: Arm | None) -> Joint:
    assert motor.resolution is not None
    low, high, middle = motor.low, motor.high, (motor.low + motor.high) / 2
    angle = 2 * math.pi / motor.resolution
    sign = -1 if motor.reversed else 1
    if motor.unit == SHARE:
        ends = (0.0, (high - low) * angle)
        if model is not None and motor.name == model.joints[-1]:
            ends = model.limits[-1]
        per_count, closed = sign * (ends[1] - ends[0]) / (high - low), high if motor.reversed else low
        return Joint(
            key=key, said=SHARE, unit="rad", per_said=sign * (high - low) / 100, at_zero=closed,
            per_count=per_count, middle=closed - ends[0] / per_count, limits=ends, counts=(low, high),
        )  # fmt: skip

    per_said = (motor.resolution - 1) / 360 if motor.unit == "degrees" else sign * (high - low) / 200
    limits = ((low - middle) * angle, (high - middle) * angle)
    if high - low >= motor.resolution - 1 and model is not None and motor.name in model.joints:
        limits = model.limits[model.joints.index(motor.name)]
    return Joint(
        key=key, said=motor.unit, unit="rad", per_said=per_said, at_zero=middle,
        per_count=angle, middle=middle, limits=limits, counts=(low, high),
    )  # fmt: skip


def _stated(key: str, said: str) -> Joint:
    unit, factor = STATED[said]
    return Joint(
        key=key, said=said, unit=unit, per_said=1.0, at_zero=0.0, per_count=factor, middle=0.0,
        limits=(-math.inf, math.inf),
    )  # fmt: skip


def _with_limits(joint: Joint, limits: Any) -> Joint:
    """Narrower than the calibrated range where there is one, for the driver sends nothing beyond it."""
    own = (-MOST, MOST) if joint.counts is None and joint.unit == "rad" else joint.range
    check_limits(joint.name, joint.unit, limits, own)
    return replace(joint, limits=(float(limits[0]), float(limits[1])))


def out_of_range(joints: tuple[Joint, ...], counts: Mapping[str, float], slack: float) -> list[str]:
    """What is wrong with a reading in counts: joints outside their calibrated range, and how that comes."""
    found = []
    for joint in joints:
        if joint.counts is None or joint.name not in counts:
            continue
        low, high, count = *joint.counts, counts[joint.name]
        if not low - slack <= count <= high + slack:
            found.append(
                f"{joint.name} reads {count:.0f}, its calibrated range is {low} .. {high}: it crossed the seam of its "
                "encoder, or its horn was put on anew; calibrate this arm again"
            )
    return found


def ours(joints: tuple[Joint, ...], said: Mapping[str, Any]) -> np.ndarray:
    """(D,) rad or m of a reading of lerobot's. Raises ConnectionError: it lacks a joint."""
    lacks = [joint.key for joint in joints if joint.key not in said]
    if lacks:
        raise ConnectionError(f"the reading lacks {', '.join(lacks)}")
    return np.array([joint.ours(float(said[joint.key])) for joint in joints])


def theirs(joints: tuple[Joint, ...], angles: np.ndarray) -> dict[str, float]:
    """An action of lerobot's for (D,) rad or m."""
    return {joint.key: float(joint.theirs(float(one))) for joint, one in zip(joints, angles, strict=True)}
