"""What a guard and its caller say to each other: what the joints may do, what is measured, commanded and answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from math import isfinite, pi
from typing import Any

import numpy as np

from ..configs.spec import Embodiment
from .motion.setpoint import Bounds

FASTEST = 4 * pi  # rad/s; who asks for more speaks of degrees: an STS3215 turns at 5.4 rad/s without a load
OF_JOINTS = ("velocity", "acceleration", "jerk", "torque")  # one number, or one for each joint
COUNT = 2e-3  # rad or m that a narrower limit may be outside: a servo's count


class Outcome(Enum):
    """What became of a command."""

    passed = "passed"
    bent = "bent"
    stopped = "stopped"


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What D joints may do. Units of the joints (rad), s, N m. A scalar holds for every joint."""

    limits: tuple[tuple[float, float], ...]
    velocity: float | tuple[float, ...] = 2.0
    acceleration: float | tuple[float, ...] = 20.0
    jerk: float | tuple[float, ...] = 800.0
    approach: float = 0.4  # velocity on the way to the first command
    torque: float | tuple[float, ...] | None = None  # N m at a joint
    clearance: float = 0.003  # m, of the arm from everything
    lag: float = 0.35  # how far the set-point may be ahead of the measured pose
    patience: float = 0.3  # s that a joint may be overloaded or lag behind before the arm stops
    stale: float = 0.2  # s, the age of a command that is obeyed no more
    blind: float = 0.2  # s, the age of a measurement that is trusted no more
    silence: float = 0.2  # s without a valid command after which the next one is approached anew
    retries: int = 5  # invalid commands in a row that only hold the arm; one more stops it
    vetoed: float = 2.0  # s that commands may be vetoed by who looks ahead before the arm stops

    def __post_init__(self) -> None:
        check_envelope({each.name: getattr(self, each.name) for each in fields(self)})
        for name in OF_JOINTS:
            value = getattr(self, name)
            if np.ndim(value) and len(value) != len(self.limits):
                raise ValueError(
                    f"{name} of an envelope: {len(value)} numbers for {len(self.limits)} joints; give one for all, or "
                    "one for each"
                )

    def bounds(self) -> Bounds:
        """As vectors."""
        low, high = np.asarray(self.limits, float).T
        every = [np.broadcast_to(np.asarray(getattr(self, n), float), low.shape) for n in ("velocity", "acceleration")]
        jerk = np.broadcast_to(np.asarray(self.jerk, float), low.shape)
        return Bounds(low=low, high=high, velocity=every[0], acceleration=every[1], jerk=jerk)


def check_envelope(settings: Mapping[str, Any]) -> None:
    """Refuse what no envelope has, or what is no number that it could be; joints are not counted.

    Raises:
        ValueError: naming the setting.
    """
    known = [each.name for each in fields(Envelope)]
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"an envelope has no '{name}'; it has {', '.join(known)}")
        if name == "limits" or (name == "torque" and value is None):
            continue
        several = name in OF_JOINTS and isinstance(value, (list, tuple, np.ndarray))
        least = "must not be negative" if name in ("clearance", "retries") else "must be positive"
        for number in value if several else (value,):
            if not is_number(number):
                hint = "; YAML takes 1e3 for a word, write 1000.0" if isinstance(number, str) else ""
                raise ValueError(f"{name} of an envelope: {value!r} is no number{hint}")
            if number < 0 or (number == 0 and least == "must be positive"):
                raise ValueError(f"{name} of an envelope {least}, got {value}")


def is_number(value: Any) -> bool:
    """Whether it is one, and finite."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return real and isfinite(value)


def envelope_of(settings: Mapping[str, Any], body: Embodiment) -> Envelope:
    """What the joints of `body` may do by the settings of a robot; its limits may only be narrower than the body's.

    Raises:
        ValueError: naming the setting, and the joint; also where degrees were meant.
    """
    check_envelope(settings)
    envelope = Envelope(**{"limits": body.limits, **settings})
    if len(envelope.limits) != len(body.limits):
        raise ValueError(f"limits of an envelope: {len(envelope.limits)} for the joints {', '.join(body.action)}")
    speeds = np.broadcast_to(np.asarray(envelope.velocity, float), len(body.action))
    joints = zip(body.action, body.action_units, envelope.limits, body.limits, speeds, strict=True)
    for name, unit, limits, own, speed in joints:
        check_limits(name, unit, limits, own)
        if unit == "rad" and speed > FASTEST:
            raise ValueError(
                f"velocity of an envelope: {speed:g} rad/s for {name} bounds nothing; in degrees/s it would be "
                f"{np.deg2rad(speed):.3g}"
            )
    return envelope


def check_limits(name: str, unit: str, limits: Any, own: tuple[float, float]) -> None:
    """Refuse limits of a joint that are none, or that reach beyond its `own`. Raises ValueError."""
    pair = isinstance(limits, (list, tuple, np.ndarray)) and len(limits) == 2 and all(map(is_number, limits))
    if not pair or not limits[0] < limits[1]:
        raise ValueError(f"limits of {name} are not low < high: {limits}")
    if limits[0] < own[0] - COUNT or limits[1] > own[1] + COUNT:
        degrees = "; degrees are not meant" if unit == "rad" and max(map(abs, limits)) > 2 * pi else ""
        raise ValueError(
            f"limits of {name}: {limits[0]:g} .. {limits[1]:g} {unit} reach beyond its own, {own[0]:.4g} .. "
            f"{own[1]:.4g} {unit}; they may be narrower{degrees}"
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the robot says of itself: position (D,), torque (D,) N m where its servos tell, and when, s.

    `holds`: (D,) whether each servo's torque is on, where they tell.
    """

    position: np.ndarray
    time: float
    torque: np.ndarray | None = None
    holds: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """Where the joints shall be one step from now (D,), when that was decided, s, and which command it is."""

    target: np.ndarray
    time: float
    number: int


@dataclass(frozen=True)
class Foresight:
    """What a command would do, as who looks ahead has it (`twin/shadow.py`).

    Attributes:
        allowed: whether nothing speaks against it.
        torque: (D,) N m, the most that contacts would put on each joint, signed.
        force: N, the hardest contact of the arm.
        reasons: why not, in words.
        warnings: what was to be told beside: twin and camera part, ...
        time: s, of the measurement that it begins at.
    """

    allowed: bool
    torque: np.ndarray
    force: float
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    time: float = -np.inf


@dataclass(frozen=True)
class Verdict:
    """What to send, (D,), and why it is not what was commanded.

    `foreseen`: what the guard was told of what is ahead; None: nothing, or nothing new enough.
    """

    outcome: Outcome
    sent: np.ndarray
    reasons: tuple[str, ...] = ()
    written: float = float("nan")  # when the bus had it, s on `time.monotonic()`; NaN: it was not written
    foreseen: Foresight | None = None

    def __str__(self) -> str:
        return f"{self.outcome.value}{': ' if self.reasons else ''}{'; '.join(self.reasons)}"
