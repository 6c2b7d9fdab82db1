"""The set-points of an arm among its surroundings: one after the other, and from each the arm can brake and stay clear.

The nearest motion that keeps clear is a quadratic program in the joint velocities (velocity dampers, Faverjon and
Tournassoud 1987), solved by DAQP; its answer is tried on the model before it is taken, otherwise the arm brakes.
Knows neither commands nor clocks.
"""

from __future__ import annotations

import numpy as np

from .envelope import Envelope
from .motion.clearance import Clearance, Gap
from .motion.setpoint import Bounds, Motion, braking, reach, towards, window

BRAKING = 2.0  # s, no arm needs longer to rest
WATCHED = 0.04  # m, pairs that the nearest motion takes account of
ROUNDING = 1e-5  # m


class Way:
    """A set-point, moved step by step. `torque`: (D,) N m that the joints may bear, None: any."""

    def __init__(
        self,
        names: tuple[str, ...],
        envelope: Envelope,
        step: float,
        clearance: Clearance | None,
        torque: np.ndarray | None,
    ):
        self.names, self.step_length = names, step
        self.bounds = envelope.bounds()
        self._least, self._torque, self._clearance = envelope.clearance, torque, clearance
        self._needed = np.zeros(0)  # (pairs,) m

    def begin(self, position: np.ndarray) -> None:
        """At rest at `position`."""
        self._move(Motion.at_rest(position))
        self._keep(position)

    def _keep(self, position: np.ndarray) -> None:
        """What each pair of parts must keep from here on: who is too near already may not come nearer still."""
        if self._clearance is None:
            return
        every = np.full(len(self._clearance), self._least)
        close = self._clearance.too_near(position, every)
        if close:
            every[close] = self._clearance.nearest(position)[close] - ROUNDING
        self._needed = every

    def halt(self) -> None:
        """At rest where the set-point is: so much time went by that the arm stands there."""
        self.motion = Motion.at_rest(self.motion.position)

    def brake(self) -> None:
        """One step on the shortest way to rest."""
        self._move(braking(self.motion, self.limits, self.step_length))

    def follow(self, target: np.ndarray, drift: np.ndarray, limits: Bounds, reasons: list[str]) -> None:
        """One step towards `target` (D,), which moves at `drift` (D,), as far as the envelope lets it."""
        wish, exact = towards(self.motion, target, drift, limits, self.step_length)
        if not exact:
            reasons.append(self._too_fast(target))
        if self._take(wish, None):
            return
        least, most = window(self.motion, limits, self.step_length)
        because: list[str] = []
        if self._take(self._around(wish, least, most, because), because):
            reasons.extend(because)
            return
        reasons.extend(because or ["in the way"])
        self.brake()

    def _too_fast(self, target: np.ndarray) -> str:
        speed = np.abs(target - self.motion.position) / self.step_length / self.bounds.velocity
        joint = int(np.argmax(speed))
        if speed[joint] > 1:
            return f"{self.names[joint]} would move at {speed[joint] * self.bounds.velocity[joint]:.2f}/s"
        return f"{self.names[joint]} would change its velocity too fast"

    def _around(self, wish: Motion, least: np.ndarray, most: np.ndarray, because: list[str]) -> Motion:
        """The motion nearest to the wish that nears nothing faster than it can brake."""
        assert self._clearance is not None
        step, bounds = self.step_length, self.bounds
        slowing = float(np.max(bounds.velocity / bounds.acceleration / 2 + bounds.acceleration / bounds.jerk)) + step
        gaps = self._clearance.gaps(self.motion.position, WATCHED)
        low, high = self.motion.velocity + step * least, self.motion.velocity + step * most
        rows = np.array([gap.slope for gap in gaps.values()])
        room = np.array([max(0.0, gap.distance - self._needed[pair]) for pair, gap in gaps.items()]) / slowing
        because += self._nearest(gaps, wish)
        if not len(rows):
            return wish

        answer = _nearest_velocity(wish.velocity, low, high, rows, -room)
        if answer is None:
            return braking(self.motion, self.limits, step)
        return self.motion.after(np.clip((answer - self.motion.velocity) / step, least, most), step)

    def _nearest(self, gaps: dict[int, Gap], wish: Motion) -> list[str]:
        nearing = [
            (gap.distance + self.step_length * float(gap.slope @ wish.velocity), gap.name) for gap in gaps.values()
        ]
        return [f"{min(nearing)[1]} come too near"] if nearing else []

    def _take(self, wish: Motion, because: list[str] | None) -> bool:
        """Move there if the arm could brake from there and stay clear, with the torque that it has."""
        if self._clearance is None:
            self._move(wish)
            return True
        if self._torque is not None:
            needed = np.abs(self._clearance.torque(wish.position, wish.velocity, wish.acceleration))
            if (needed > self._torque).any():
                joint = int(np.argmax(needed / self._torque))
                if because is not None:
                    because[:] = [
                        f"{self.names[joint]} would bear {needed[joint]:.2f} N m of {self._torque[joint]:.2f}"
                    ]
                return False
        if self._clearance.too_near(wish.position, self._needed) or not self._can_rest(wish):
            return False
        self._move(wish)
        self._keep(wish.position)
        return True

    def _can_rest(self, motion: Motion) -> bool:
        """Whether the arm stays clear while it brakes."""
        assert self._clearance is not None
        step, needed = self.step_length, self._needed
        if (self._clearance.bound(motion.position, reach(motion, self.bounds, step)) >= needed).all():
            return True
        limits = self.bounds.around(motion.position)
        for _ in range(int(BRAKING / step) + 1):
            if motion.rests:
                return True
            motion = braking(motion, limits, step)
            if self._clearance.too_near(motion.position, needed):
                return False
        return False

    def _move(self, motion: Motion) -> None:
        self.motion = motion
        self.limits = self.bounds.around(motion.position)


def _nearest_velocity(
    wish: np.ndarray, low: np.ndarray, high: np.ndarray, rows: np.ndarray, least: np.ndarray
) -> np.ndarray | None:
    """Velocities u in low..high nearest to the wish with rows u >= least; None where there are none."""
    import daqp

    size = len(wish)
    solved, _, flag, _ = daqp.solve(
        np.eye(size),
        -np.ascontiguousarray(wish),
        np.ascontiguousarray(rows),
        np.concatenate([high, np.full(len(rows), 1e30)]),
        np.concatenate([low, least]),
    )
    return np.asarray(solved) if flag > 0 else None
