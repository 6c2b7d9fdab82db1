"""What a guard and its caller say to each other: what the joints may do, what is measured, commanded and answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from .motion.setpoint import Bounds


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
        for name in ("velocity", "acceleration", "jerk", "approach", "lag", "patience", "stale", "blind", "silence",
                     "vetoed"):  # fmt: skip
            if not np.all(np.asarray(getattr(self, name), float) > 0):
                raise ValueError(f"{name} of an envelope must be positive, got {getattr(self, name)}")
        if self.retries < 0 or self.clearance < 0:
            raise ValueError("retries and clearance of an envelope must not be negative")

    def bounds(self) -> Bounds:
        """As vectors."""
        low, high = np.asarray(self.limits, float).T
        every = [np.broadcast_to(np.asarray(getattr(self, n), float), low.shape) for n in ("velocity", "acceleration")]
        jerk = np.broadcast_to(np.asarray(self.jerk, float), low.shape)
        return Bounds(low=low, high=high, velocity=every[0], acceleration=every[1], jerk=jerk)


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
