"""Set-points that a joint can follow and stop from: position, velocity, acceleration and jerk, all bounded at once.

Time goes in equal steps of `step` s. A set-point's velocity and acceleration are its differences over the steps, so the
bounds hold for the numbers that are really sent. A step is allowed when braking as hard as the bounds permit, from
behind it, still turns around before the joint's limit; so there is always a next step that keeps all bounds.
Vectors are (D,) in the order of the joints, in rad or in the unit of the joint. Knows no robot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

HALVINGS = 14  # of an acceleration, to find the greatest one that stops before a limit
SLACK = 1e-9  # part of a bound, or rad of a limit, that rounding may cost
EASE = 0.5  # part of the acceleration that an approach plans with; the rest is left to catch up with the plan


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the set-points of D joints keep: `low` and `high` in units, then units/s, units/s^2, units/s^3."""

    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    def __post_init__(self) -> None:
        for name in ("velocity", "acceleration", "jerk"):
            if not (getattr(self, name) > 0).all():
                raise ValueError(f"{name} of a motion must be positive, got {getattr(self, name)}")
        if not (self.low < self.high).all():
            raise ValueError(f"lower limits {self.low} of a motion are not below the upper ones {self.high}")

    def slower(self, velocity: np.ndarray) -> Bounds:
        """The same with a velocity of at most `velocity`."""
        return replace(self, velocity=np.minimum(self.velocity, velocity))

    def around(self, position: np.ndarray) -> Bounds:
        """The same, wide enough to hold `position`: who stands outside may come in."""
        return replace(self, low=np.minimum(self.low, position), high=np.maximum(self.high, position))


@dataclass(frozen=True)
class Motion:
    """A set-point, its velocity and its acceleration."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def at_rest(cls, position: np.ndarray) -> Motion:
        return cls(np.array(position, float), np.zeros(len(position)), np.zeros(len(position)))

    def after(self, acceleration: np.ndarray, step: float) -> Motion:
        """The next set-point, with that acceleration."""
        velocity = self.velocity + step * acceleration
        return Motion(self.position + step * velocity, velocity, acceleration)

    @property
    def rests(self) -> bool:
        return not (self.velocity.any() or self.acceleration.any())


def window(motion: Motion, bounds: Bounds, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest acceleration (D,) of the next step that keep the bounds now and later."""
    change = step * bounds.jerk
    least = np.maximum(-bounds.acceleration, motion.acceleration - change)
    most = np.minimum(bounds.acceleration, motion.acceleration + change)

    up, down = _eased(motion.velocity, bounds, step), -_eased(-motion.velocity, bounds, step)
    hardest = least, most
    most = np.maximum(hardest[0], np.minimum(most, up))
    least = np.minimum(hardest[1], np.maximum(least, down))

    most = _before(motion.position, motion.velocity, hardest[0], most, bounds.high, bounds, step)
    least = -_before(-motion.position, -motion.velocity, -hardest[1], -least, -bounds.low, bounds, step)
    return np.minimum(least, most), most


def towards(motion: Motion, goal: np.ndarray, drift: np.ndarray, bounds: Bounds, step: float) -> tuple[Motion, bool]:
    """The next set-point on the way to `goal` (D,), which moves at `drift` (D,); and whether it is the goal itself.

    A goal that is reached too fast to stay with it is approached instead.
    """
    least, most = window(motion, bounds, step)
    gap = goal - motion.position
    asked = (gap / step - motion.velocity) / step
    room = SLACK * bounds.acceleration
    meets = np.abs(gap / step - drift) <= np.minimum(bounds.acceleration * step, bounds.jerk * step**2) / 2
    exact = meets & (asked >= least - room) & (asked <= most + room)
    if exact.all():
        return motion.after(np.clip(asked, least, most), step), True

    ahead = gap + step * drift
    speed = drift + np.sign(ahead) * np.minimum(np.abs(ahead) / step, _approach(np.abs(ahead), bounds))
    wanted = np.where(exact, asked, _turned(speed - motion.velocity, bounds, step))
    return motion.after(np.clip(wanted, least, most), step), False


def braking(motion: Motion, bounds: Bounds, step: float) -> Motion:
    """The next set-point on the shortest way to rest."""
    change = step * bounds.jerk
    speed = np.abs(motion.velocity)
    wanted = _turned(-motion.velocity, bounds, step)
    done = (speed <= change * step) & (np.abs(motion.acceleration + motion.velocity / step) <= change)
    wanted = np.where(done, -motion.velocity / step, wanted)

    far = reach(motion, bounds, step)
    if ((motion.position + far > bounds.high) | (motion.position - far < bounds.low)).any():
        least, most = window(motion, bounds, step)
    else:
        least = np.maximum(-bounds.acceleration, motion.acceleration - change)
        most = np.minimum(bounds.acceleration, motion.acceleration + change)
    after = motion.after(np.clip(wanted, least, most), step)
    rest = (np.abs(after.velocity) < SLACK) & (np.abs(after.acceleration) <= change)
    return Motion(after.position, np.where(rest, 0.0, after.velocity), after.acceleration)


def reach(motion: Motion, bounds: Bounds, step: float) -> np.ndarray:
    """(D,) no less than how far each joint goes on while it brakes."""
    most, jerk = bounds.acceleration, bounds.jerk
    speed = np.abs(motion.velocity) + motion.acceleration**2 / (2 * jerk)
    return speed * (speed / (2 * most) + 2 * most / jerk + 2 * step)


def furthest(velocity: np.ndarray, acceleration: np.ndarray, bounds: Bounds, step: float) -> np.ndarray:
    """(D,) how far up a joint gets at most when it brakes as hard as the bounds permit, not below 0."""
    v, a, most, jerk = velocity, acceleration, bounds.acceleration, bounds.jerk
    turning = np.maximum(0.0, a * a + 2 * jerk * v)
    meets = (a + np.sqrt(turning)) / jerk  # s until it turns around, if the jerk alone does it
    swing = (a + most) / jerk  # s until it brakes at full

    time = np.maximum(0.0, np.minimum(meets, swing))
    far = time * (v + time * (a / 2 - time * jerk / 6))
    left = np.maximum(0.0, v + (a * a - most * most) / (2 * jerk))
    far = far + np.where(meets > swing, left * left / (2 * most), 0.0)
    rounding = step * np.maximum(a, 0.0) ** 2 / (2 * jerk)  # steps against the smooth curve
    return np.maximum(0.0, np.where(turning > 0, far, 0.0) + rounding)


def _eased(velocity: np.ndarray, bounds: Bounds, step: float) -> np.ndarray:
    """Greatest acceleration from which the velocity stays below its bound while the jerk takes it back."""
    left = np.maximum(0.0, bounds.velocity - velocity)
    return bounds.jerk * (np.sqrt(step * step + 2 * left / bounds.jerk) - step)


def _before(place, velocity, hardest, most, wall, bounds: Bounds, step: float) -> np.ndarray:
    """Greatest acceleration of hardest..most after which braking ends below the wall; `hardest` where none does."""

    def passes(acceleration):
        after = velocity + step * acceleration
        return place + step * after + furthest(after, acceleration, bounds, step) <= wall + SLACK

    fine = passes(most)
    if fine.all():
        return most
    low, high = np.array(hardest), np.array(most)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        good = passes(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return np.where(fine, most, low)


def _approach(gap: np.ndarray, bounds: Bounds) -> np.ndarray:
    """(D,) speed from which an S-curve comes to rest within `gap`."""
    most = EASE * bounds.acceleration
    ramp = most / (2 * bounds.jerk)
    return np.minimum(bounds.velocity, most * (np.sqrt(ramp * ramp + 2 * gap / most) - ramp))


def _turned(change: np.ndarray, bounds: Bounds, step: float) -> np.ndarray:
    """(D,) acceleration for a change of the velocity, small enough to be let go by the time it is done."""
    size, jump = np.abs(change), step * bounds.jerk
    held = np.sqrt(jump * jump / 4 + 2 * bounds.jerk * size) - jump / 2
    return np.sign(change) * np.minimum(np.minimum(held, size / step), bounds.acceleration)
