"""A servo's motor and gear, what its position loop asks of them, and how warm they get. SI units, at the output shaft.

The motor is driven by a duty of the supply voltage: current = (duty V - kt w) / R, torque = kt current. Without drive
the bridge is open, no current flows and only friction brakes. Friction is Coulomb and viscous, on the load's side of
the sum (`shafts.py`, or the joints of a MuJoCo model).
Source of the figures: better-actuator-models 1.0.2 (Rhoban, Apache-2.0), files `params/feetech_sts3215_7_4V/m1.json`,
`feetech/actuator.py`, `params/xl330/m1.json` and `dynamixel/actuator.py`, identified on real servos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

AMBIENT = 25.0  # degrees C


@dataclass(frozen=True, kw_only=True)
class Motor:
    """A kind of motor with its gear."""

    kt: float  # N m / A, also V s / rad
    resistance: float  # ohm
    armature: float  # kg m^2, inertia of rotor and gear at the shaft
    coulomb: float  # N m
    viscous: float  # N m s / rad
    voltage: float  # V, usual supply
    thermal_resistance: float = 6.0  # K / W
    thermal_time: float = 200.0  # s

    def geared(self, ratio: float) -> Motor:
        """The motor behind a gear `ratio` times as long; friction taken as the motor's."""
        return replace(
            self,
            kt=self.kt * ratio,
            armature=self.armature * ratio**2,
            coulomb=self.coulomb * ratio,
            viscous=self.viscous * ratio**2,
        )

    @property
    def braking(self) -> float:
        """N m s / rad that the back-EMF adds while the motor is driven."""
        return self.kt**2 / self.resistance

    def torque(self, duty: float, voltage: float) -> float:
        """N m at standstill, before friction."""
        return self.kt * duty * voltage / self.resistance

    def current(self, duty: float, voltage: float, velocity: float) -> float:
        """A."""
        return (duty * voltage - self.kt * velocity) / self.resistance

    def warmed(self, temperature: float, current: float, dt: float) -> float:
        """Degrees C after `dt` s at `current` A."""
        rest = AMBIENT + self.thermal_resistance * self.resistance * current**2
        return temperature + (rest - temperature) * dt / self.thermal_time


# Thermal: 1.47 N m held 23 K above the room after 10 minutes (SO-ARM100 issue 134); the time constant follows from that
STS3215_MOTOR = Motor(
    kt=1.2116,
    resistance=2.6762,
    armature=0.02840,
    coulomb=0.05239,
    viscous=0.05909,
    voltage=7.4,
)
XL330_M288_MOTOR = Motor(
    kt=0.3867,
    resistance=4.0171,
    armature=0.001814,
    coulomb=0.01283,
    viscous=0.003662,
    voltage=5.0,
)
XL330_M077_MOTOR = XL330_M288_MOTOR.geared(77.5 / 288.4)  # the same motor behind its shorter gear
# Nobody has identified the XL430: stall 1.4 N m at 1.3 A and 57 rev/min without load at 11.1 V (its data sheet), the
# friction of an XL330 for its torque
XL430_MOTOR = Motor(
    kt=1.077,
    resistance=8.54,
    armature=0.0050,
    coulomb=0.035,
    viscous=0.01,
    voltage=11.1,
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the registers ask of the motor now. Angles in counts of the encoder, in the frame that the goal counts in.

    `mode`: position, velocity or duty.
    """

    mode: str
    goal: float = 0.0  # counts, or counts/s
    speed: float = math.inf  # counts/s, of the set-point
    acceleration: float = math.inf  # counts/s^2, of the set-point
    gain: float = 0.0  # duty per count
    damping: float = 0.0  # duty per count/s
    start: float = 0.0  # duty added towards the goal
    dead: float = 0.0  # counts within which nothing is done
    duty: float = 0.0  # of the mode duty
    limit: float = 1.0  # greatest duty
    current: float = math.inf  # A, greatest


class SetPoint:
    """A place that moves to the goal at a bounded speed and acceleration; counts and s."""

    def __init__(self, place: float = 0.0):
        self.place, self.speed = place, 0.0

    def put(self, place: float) -> None:
        """At rest there."""
        self.place, self.speed = place, 0.0

    def step(self, command: Command, dt: float) -> None:
        """One step towards the goal, or with its speed in the mode velocity."""
        if command.mode == "velocity":
            wanted = max(-command.speed, min(command.speed, command.goal))
        else:
            gap = command.goal - self.place
            stopping = (
                math.sqrt(2 * command.acceleration * abs(gap)) if math.isfinite(command.acceleration) else math.inf
            )
            wanted = math.copysign(min(command.speed, stopping, abs(gap) / dt), gap)

        change = command.acceleration * dt
        self.speed += max(-change, min(change, wanted - self.speed))
        self.place += self.speed * dt


def duty_of(command: Command, set_point: SetPoint, place: float, speed: float) -> float:
    """The duty -1..1 that the loop of the servo puts out at `place` counts and `speed` counts/s."""
    if command.mode == "duty":
        duty = command.duty
    else:
        gap = set_point.place - place
        if command.mode == "position" and abs(gap) <= command.dead:
            duty = 0.0
        else:
            duty = command.gain * gap + math.copysign(command.start, gap)
        duty += command.damping * (set_point.speed - speed)
    return max(-command.limit, min(command.limit, duty))
