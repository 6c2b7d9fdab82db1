"""What the servos turn. `Shafts` is what a chain needs of it; `FreeShafts` carries nothing but the motors themselves.

With an arm on it see `coupled.py`. Angles in rad, 0 where the encoder reads 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .motor import Motor

STIFFNESS, HAND = 40.0, 6.0  # N m / rad, and N m at most, of a hand that moves a joint


@dataclass
class Shaft:
    """One output shaft: state, the stops that it runs into, and the angle that a hand leads it to (None: no hand)."""

    angle: float
    velocity: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    hand: float | None = None

    def pull(self) -> float:
        """N m of the hand."""
        if self.hand is None:
            return 0.0
        return max(-HAND, min(HAND, STIFFNESS * (self.hand - self.angle) - 1.5 * self.velocity))


class Shafts(Protocol):
    """The mechanics on the shafts."""

    dt: float  # s, of one step

    @property
    def shafts(self) -> Sequence[Shaft]:
        """Of the servos, in their order."""
        ...

    def step(self, torques: Sequence[float], braking: Sequence[float]) -> None:
        """Advance by `dt`: torques in N m at standstill, and what they lose, N m s / rad; moves `shafts`."""
        ...


class FreeShafts:
    """Shafts without an arm: the inertia and friction of the motor, hands and stops."""

    def __init__(self, motors: Sequence[Motor], shafts: Sequence[Shaft], dt: float = 0.001):
        self.motors, self.dt = tuple(motors), dt
        self.shafts: Sequence[Shaft] = tuple(shafts)

    def step(self, torques: Sequence[float], braking: Sequence[float]) -> None:
        """See `Shafts.step`. Friction is implicit, so that it stops a shaft and never turns it."""
        dt = self.dt
        for motor, shaft, torque, brake in zip(self.motors, self.shafts, torques, braking, strict=True):
            inertia = motor.armature + dt * (brake + motor.viscous)
            speed = (motor.armature * shaft.velocity + dt * (torque + shaft.pull())) / inertia
            stopped = dt * motor.coulomb / inertia
            speed = math.copysign(max(0.0, abs(speed) - stopped), speed)

            angle = shaft.angle + dt * speed
            if not shaft.low <= angle <= shaft.high:
                angle, speed = min(max(angle, shaft.low), shaft.high), 0.0
            shaft.angle, shaft.velocity = angle, speed
