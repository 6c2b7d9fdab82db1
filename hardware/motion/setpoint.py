"""Set-points that a joint can follow and stop from: position, velocity, acceleration and jerk, all bounded at once.

Time goes in equal steps of `step` s. A set-point's velocity and acceleration are its differences over the steps, so the
bounds hold for the numbers that are really sent. A step is allowed when braking as hard as the bounds permit, from
behind it, still turns around before the joint's limit; so there is always a next step that keeps all bounds.
Vectors are (D,) in the order of the joints, in rad or in the unit of the joint. Knows no robot.

Joints do not know each other here, and there are few of them: each is worked out in plain floats, which takes a quarter
of the time of NumPy's vectors of six.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import copysign, sqrt
from typing import NamedTuple

import numpy as np

HALVINGS = 14  # of an acceleration, to find the greatest one that stops before a limit
SLACK = 1e-9  # part of a bound, or rad of a limit, that rounding may cost
EASE = 0.5  # part of the acceleration that an approach plans with; the rest is left to catch up with the plan


class Bound(NamedTuple):
    """What the set-point of one joint keeps."""

    low: float
    high: float
    velocity: float
    acceleration: float
    jerk: float


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

    @cached_property
    def joints(self) -> tuple[Bound, ...]:
        """One by one."""
        vectors = (self.low, self.high, self.velocity, self.acceleration, self.jerk)
        return tuple(Bound(*each) for each in zip(*(vector.tolist() for vector in vectors), strict=True))

    def slower(self, velocity: np.ndarray) -> Bounds:
        """The same with a velocity of at most `velocity`."""
        return replace(self, velocity=np.minimum(self.velocity, velocity))

    def around(self, position: np.ndarray) -> Bounds:
        """The same, wide enough to hold `position`: who stands outside may come in."""
        if ((position >= self.low) & (position <= self.high)).all():
            return self
        return replace(self, low=np.minimum(self.low, position), high=np.maximum(self.high, position))


State = tuple[float, float, float]  # position, velocity and acceleration of one joint


@dataclass(frozen=True)
class Motion:
    """A set-point, its velocity and its acceleration."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray

    @classmethod
    def at_rest(cls, position: np.ndarray) -> Motion:
        return cls(np.array(position, float), np.zeros(len(position)), np.zeros(len(position)))

    @classmethod
    def of(cls, joints: Iterable[State]) -> Motion:
        """From the states of the joints."""
        position, velocity, acceleration = np.array([*zip(*joints, strict=True)])
        return cls(position, velocity, acceleration)

    @property
    def joints(self) -> Iterable[State]:
        """Position, velocity and acceleration of each joint."""
        return zip(self.position.tolist(), self.velocity.tolist(), self.acceleration.tolist(), strict=True)

    def after(self, acceleration: np.ndarray, step: float) -> Motion:
        """The next set-point, with that acceleration."""
        velocity = self.velocity + step * acceleration
        return Motion(self.position + step * velocity, velocity, acceleration)

    @property
    def rests(self) -> bool:
        return not (self.velocity.any() or self.acceleration.any())


def window(motion: Motion, bounds: Bounds, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest acceleration (D,) of the next step that keep the bounds now and later."""
    least, most = np.array([_window(*joint, b, step) for joint, b in _each(motion, bounds)]).T
    return least, most


def towards(
    motion: Motion, goal: np.ndarray, drift: np.ndarray, bounds: Bounds, step: float
) -> tuple[Motion, np.ndarray]:
    """The next set-point on the way to `goal` (D,), which moves at `drift` (D,); and who reaches it exactly, (D,).

    A goal that is reached too fast to stay with it is approached instead.
    """
    wishes = zip(motion.joints, goal.tolist(), drift.tolist(), bounds.joints, strict=True)
    found = [_towards(*joint, place, speed, bound, step) for joint, place, speed, bound in wishes]
    return Motion.of(state for state, _ in found), np.array([exact for _, exact in found])


def braking(motion: Motion, bounds: Bounds, step: float) -> Motion:
    """The next set-point on the shortest way to rest."""
    return Motion.of(_braking(*joint, bound, step) for joint, bound in _each(motion, bounds))


def way_to_rest(motion: Motion, bounds: Bounds, step: float, longest: float) -> np.ndarray | None:
    """The set-points of `braking` one after the other until all joints rest, `motion` the first: (T, 3, D).

    Position, velocity and acceleration of each; None where it takes over `longest` s.
    """
    ways = []
    for joint, bound in _each(motion, bounds):
        way = [joint]
        while joint[1] or joint[2]:
            if len(way) * step > longest:
                return None
            joint = _braking(*joint, bound, step)
            way.append(joint)
        ways.append(way)
    length = max(map(len, ways))
    return np.array([way + way[-1:] * (length - len(way)) for way in ways]).transpose(1, 2, 0)


def reach(motion: Motion, bounds: Bounds, step: float) -> np.ndarray:
    """(D,) no less than how far each joint goes on while it brakes."""
    return np.array([_reach(v, a, bound, step) for (_, v, a), bound in _each(motion, bounds)])


def hardest(motion: Motion, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """(D,) each: no less than the velocity and the acceleration that a joint comes to while it brakes."""
    held = np.abs(motion.acceleration)
    velocity = np.abs(motion.velocity) + held**2 / (2 * bounds.jerk)
    return velocity, np.maximum(held, np.minimum(bounds.acceleration, np.sqrt(velocity * bounds.jerk)))


def _each(motion: Motion, bounds: Bounds) -> Iterable[tuple[State, Bound]]:
    return zip(motion.joints, bounds.joints, strict=True)


def _window(place: float, velocity: float, acceleration: float, bound: Bound, step: float) -> tuple[float, float]:
    """See `window`."""
    change = step * bound.jerk
    hardest = max(-bound.acceleration, acceleration - change), min(bound.acceleration, acceleration + change)
    most = max(hardest[0], min(hardest[1], _eased(velocity, bound, step)))
    least = min(hardest[1], max(hardest[0], -_eased(-velocity, bound, step)))

    most = _before(place, velocity, hardest[0], most, bound.high, bound, step)
    least = -_before(-place, -velocity, -hardest[1], -least, -bound.low, bound, step)
    return min(least, most), most


def _towards(
    place: float, velocity: float, acceleration: float, goal: float, drift: float, bound: Bound, step: float
) -> tuple[State, bool]:
    """See `towards`."""
    least, most = _window(place, velocity, acceleration, bound, step)
    gap = goal - place
    asked = (gap / step - velocity) / step
    room = SLACK * bound.acceleration
    meets = abs(gap / step - drift) <= min(bound.acceleration * step, bound.jerk * step * step) / 2
    exact = meets and least - room <= asked <= most + room
    if not exact:
        ahead = gap + step * drift
        speed = drift + copysign(min(abs(ahead) / step, _approach(abs(ahead), bound)), ahead)
        asked = _turned(speed - velocity, bound, step)
    return _after(place, velocity, min(max(asked, least), most), step), exact


def _braking(place: float, velocity: float, acceleration: float, bound: Bound, step: float) -> State:
    """See `braking`."""
    change = step * bound.jerk
    if abs(velocity) <= change * step and abs(acceleration + velocity / step) <= change:
        wanted = -velocity / step
    else:
        wanted = _turned(-velocity, bound, step)

    far = _reach(velocity, acceleration, bound, step)
    if place + far > bound.high or place - far < bound.low:
        least, most = _window(place, velocity, acceleration, bound, step)
    else:
        least, most = max(-bound.acceleration, acceleration - change), min(bound.acceleration, acceleration + change)
    place, velocity, acceleration = _after(place, velocity, min(max(wanted, least), most), step)
    rests = abs(velocity) < SLACK and abs(acceleration) <= change
    return place, 0.0 if rests else velocity, acceleration


def _after(place: float, velocity: float, acceleration: float, step: float) -> State:
    velocity += step * acceleration
    return place + step * velocity, velocity, acceleration


def _reach(velocity: float, acceleration: float, bound: Bound, step: float) -> float:
    """See `reach`."""
    most, jerk = bound.acceleration, bound.jerk
    letting = abs(acceleration) / jerk + step  # s until it does not speed up any more
    speed = abs(velocity) + abs(acceleration) * letting / 2
    slowing = speed / (2 * most) + most / (2 * jerk) if speed * jerk > most * most else sqrt(speed / jerk)
    return speed * (letting + slowing + 1.5 * step)  # 1.5: steps against the smooth curve


def _furthest(velocity: float, acceleration: float, bound: Bound, step: float) -> float:
    """How far up a joint gets at most when it brakes as hard as the bounds permit, not below 0."""
    v, a, most, jerk = velocity, acceleration, bound.acceleration, bound.jerk
    rounding = step * a * a / (2 * jerk) if a > 0 else 0.0  # steps against the smooth curve
    turning = a * a + 2 * jerk * v
    if turning <= 0:
        return rounding
    meets, swing = (a + sqrt(turning)) / jerk, (a + most) / jerk  # s until it turns around; until it brakes at full
    time = max(0.0, min(meets, swing))
    far = time * (v + time * (a / 2 - time * jerk / 6))
    if meets > swing:
        left = max(0.0, v + (a * a - most * most) / (2 * jerk))
        far += left * left / (2 * most)
    return max(0.0, far + rounding)


def _eased(velocity: float, bound: Bound, step: float) -> float:
    """Greatest acceleration from which the velocity stays below its bound while the jerk takes it back."""
    left = max(0.0, bound.velocity - velocity)
    return bound.jerk * (sqrt(step * step + 2 * left / bound.jerk) - step)


def _before(
    place: float, velocity: float, hardest: float, most: float, wall: float, bound: Bound, step: float
) -> float:
    """Greatest acceleration of hardest..most after which braking ends below the wall; `hardest` where none does."""

    def passes(acceleration: float) -> bool:
        after = velocity + step * acceleration
        return place + step * after + _furthest(after, acceleration, bound, step) <= wall + SLACK

    return most if passes(most) else _greatest(passes, hardest, most)


def _greatest(passes: Callable[[float], bool], low: float, high: float) -> float:
    """The greatest number of low..high that passes, by halving; `low` where none is found."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return low


def _approach(gap: float, bound: Bound) -> float:
    """Speed from which an S-curve comes to rest within `gap`."""
    most = EASE * bound.acceleration
    ramp = most / (2 * bound.jerk)
    return min(bound.velocity, most * (sqrt(ramp * ramp + 2 * gap / most) - ramp))


def _turned(change: float, bound: Bound, step: float) -> float:
    """Acceleration for a change of the velocity, small enough to be let go by the time it is done."""
    size, jump = abs(change), step * bound.jerk
    held = sqrt(jump * jump / 4 + 2 * bound.jerk * size) - jump / 2
    return copysign(min(held, size / step, bound.acceleration), change)
