"""The set-points of an arm among its surroundings: one after the other, and from each the arm can brake and stay clear.

The nearest motion that keeps clear is a quadratic program in the joint velocities (velocity dampers, Faverjon and
Tournassoud 1987), solved by DAQP; its answer is tried on the model before it is taken, otherwise the arm brakes.
Braking takes the way that was tried then, so it keeps clear and within the torque, too.
Knows neither commands nor clocks.
"""

from __future__ import annotations

import numpy as np

from .envelope import Envelope
from .motion.clearance import Clearance, Gap
from .motion.setpoint import Bounds, Motion, braking, hardest, reach, towards, way_to_rest, window

BRAKING = 2.0  # s, no arm needs longer to rest
WATCHED = 0.04  # m, pairs that the nearest motion takes account of
ROUNDING = 1e-5  # m
FREE = 1e30  # m/s, no bound
FOLLOWS = 0.07  # s that a servo is behind its set-point: (back-EMF and viscous friction) / (gain) of an STS3215
SAGS = 0.1  # s over which it is seen how far the arm sags
PART = 0.95  # of the torque, where it is known from a nearby pose


class Way:
    """A set-point, moved step by step. `torque`: (D,) N m that the joints may bear, None: any."""

    def __init__(
        self,
        names: tuple[str, ...],
        units: tuple[str, ...],
        envelope: Envelope,
        step: float,
        clearance: Clearance | None,
        torque: np.ndarray | None,
    ):
        self.names, self.units, self.step_length = names, units, step
        self.bounds = envelope.bounds()
        self._least, self._torque, self._clearance = envelope.clearance, torque, clearance
        self._needed = np.zeros(0)  # (pairs,) m
        self._arm = None if clearance is None else _Arm(clearance.again(), envelope, step)
        self.motion: Motion = Motion.at_rest(self.bounds.low)  # until `begin`
        self.contact: np.ndarray = np.zeros(len(names))  # N m that contacts are foreseen to put on each joint

    def begin(self, position: np.ndarray) -> None:
        """At rest at `position`."""
        self._move(Motion.at_rest(position))
        self._keep(position)
        if self._arm is not None:
            self._arm.begin(position)

    def ahead(self, target: np.ndarray | None) -> np.ndarray:
        """(D,) where the set-point comes to on the way to `target` before it could rest; who goes the other way rests.

        No nearer than a step at full speed, so that a set-point at rest is told, too, where its next step leads.
        """
        motion, step = self.motion, self.step_length
        speed = np.abs(motion.velocity)
        far = np.maximum(reach(motion, self.bounds, step) + step * speed, step * self.bounds.velocity)
        way = np.zeros(len(far)) if target is None else np.clip(target - motion.position, -far, far)
        away = (way * motion.velocity <= 0) & (speed > 0)
        return motion.position + np.where(away, np.sign(motion.velocity) * far, way)

    def see(self, position: np.ndarray) -> None:
        """Where the arm itself is, (D,), which sags below its set-points."""
        if self._arm is not None:
            self._arm.see(self.motion.position, position)

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
        if not exact.all():
            reasons.append(self._too_fast(target, exact))
        because: list[str] = []
        if self._take(wish, because):
            return
        least, most = window(self.motion, limits, self.step_length)
        if not self._take(self._around(wish, least, most, because), because):
            self.brake()
        reasons.extend(dict.fromkeys(because or ["in the way"]))

    def _too_fast(self, target: np.ndarray, exact: np.ndarray) -> str:
        speed = np.where(exact, 0.0, np.abs(target - self.motion.position) / self.step_length / self.bounds.velocity)
        joint = int(np.argmax(speed))
        if speed[joint] > 1:
            bound, unit = self.bounds.velocity[joint], self.units[joint]
            return f"{self.names[joint]} would move at {speed[joint] * bound:.2f} of {bound:g} {unit}/s"
        return f"{self.names[joint]} would change its velocity too fast"

    def _around(self, wish: Motion, least: np.ndarray, most: np.ndarray, because: list[str]) -> Motion:
        """The motion nearest to the wish that nears nothing faster than it can brake, with the torque that there is."""
        assert self._clearance is not None
        step, bounds, velocity = self.step_length, self.bounds, self.motion.velocity
        slowing = float(np.max(bounds.velocity / bounds.acceleration / 2 + bounds.acceleration / bounds.jerk)) + step
        gaps = self._clearance.gaps(self.motion.position, WATCHED)
        near = [(gap, gap.distance - self._needed[pair]) for pair, gap in gaps.items()]
        near += self._arm.gaps(self.motion.position) if self._arm is not None else []
        rows = [gap.slope for gap, _ in near]
        low = [-max(0.0, room) / slowing for _, room in near]
        high = [FREE] * len(low)
        if not because:
            because += self._nearest([gap for gap, _ in near], wish)
        if self._torque is not None:  # inertia (u - velocity) / step + damping (u - velocity) + now, of each joint
            now = self._torque_at(self.motion.position, velocity, np.zeros(len(velocity)))
            slopes = self._clearance.inertia() / step + np.diag(self._clearance.damping)
            given, room = slopes @ velocity - now, PART * self._torque
            rows, low, high = [*rows, *slopes], [*low, *(given - room)], [*high, *(given + room)]
        if not rows:
            return wish

        ends = velocity + step * least, velocity + step * most
        answer = _nearest_velocity(wish.velocity, *ends, np.array(rows), np.array(low), np.array(high))
        if answer is None:
            return braking(self.motion, self.limits, step)
        return self.motion.after(np.clip((answer - velocity) / step, least, most), step)

    def _nearest(self, gaps: list[Gap], wish: Motion) -> list[str]:
        nearing = [(gap.distance + self.step_length * float(gap.slope @ wish.velocity), gap.name) for gap in gaps]
        return [f"{min(nearing)[1]} come too near"] if nearing else []

    def _take(self, wish: Motion, because: list[str]) -> bool:
        """Move there if the arm could brake from there and stay clear, with the torque that it has."""
        if self._clearance is not None:
            strained = self._strained(wish)
            if strained is None:
                free, strained = self._can_rest(wish)
            if strained is not None:
                because.append(strained)
            if strained is not None or not free:
                return False
        self._move(wish)
        if (self._needed < self._least).any():
            self._keep(wish.position)
        return True

    def _strained(self, motion: Motion) -> str | None:
        """Who would bear too much there."""
        assert self._clearance is not None
        if self._torque is None:
            return None
        self._borne = self._torque_at(motion.position, motion.velocity, motion.acceleration)
        return self._too_much(self._borne)

    def _torque_at(self, position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
        """(D,) N m that the joints give there, against the contacts that are foreseen, too."""
        assert self._clearance is not None
        return self._clearance.torque(position, velocity, acceleration) - self.contact

    def _too_much(self, borne: np.ndarray) -> str | None:
        borne = np.abs(borne)
        if self._torque is None or (borne <= self._torque).all():
            return None
        joint = int(np.argmax(borne / self._torque))
        return f"{self.names[joint]} would bear {borne[joint]:.2f} of {self._torque[joint]:.2f} N m"

    def _can_rest(self, motion: Motion) -> tuple[bool, str | None]:
        """Whether the arm stays clear there and while it brakes, and who would bear too much."""
        assert self._clearance is not None
        step, needed, arm = self.step_length, self._needed, self._arm
        moved = reach(motion, self.bounds, step)
        far = self._clearance.bound(motion.position, moved)
        clear, strong = bool((far >= needed).all()), self._surely_strong(motion)
        follows = arm is None or arm.surely_clear(motion.position, moved)
        if clear and strong and follows:
            return True, None
        way = way_to_rest(motion, self.bounds.around(motion.position), step, BRAKING)
        if way is None or not (clear or self._clearance.stays_clear(way[:, 0], needed)):
            return False, None
        if not (follows or arm is None or arm.stays_clear(way[:, 0])):
            return False, None
        if strong:
            return True, None
        borne = (self._too_much(self._torque_at(*each)) for each in way[1:])
        return True, next((strained for strained in borne if strained), None)

    def _surely_strong(self, motion: Motion) -> bool:
        """Whether braking takes less than the torque there is, by no more than what is known at its beginning."""
        assert self._clearance is not None
        if self._torque is None:
            return True
        inertia, damping = self._clearance.inertia(), self._clearance.damping
        weight = np.abs(self._borne - inertia @ motion.acceleration - damping * motion.velocity)
        velocity, acceleration = hardest(motion, self.bounds)
        inertia = np.abs(inertia)
        turning = np.maximum(inertia @ acceleration, inertia @ np.abs(motion.acceleration) + damping * velocity)
        return bool((weight + turning <= PART * self._torque).all())

    def _move(self, motion: Motion) -> None:
        self.motion = motion
        self.limits = self.bounds.around(motion.position)


class _Arm:
    """The arm itself: it follows its set-points a little later, and sags below them by what it carries.

    How far it sags is seen, not calculated: supply, gain and what the arm carries are not known well enough. Who is too
    near to something already may not come nearer.
    """

    def __init__(self, clearance: Clearance, envelope: Envelope, step: float):
        self._clearance, self._most = clearance, envelope.lag
        self._every: np.ndarray = np.full(len(clearance), envelope.clearance)
        self._later, self._learnt = 1 - np.exp(-step / FOLLOWS), 1 - np.exp(-step / SAGS)

    def begin(self, position: np.ndarray) -> None:
        """At rest there."""
        self._follows: np.ndarray = position.copy()
        self._sag: np.ndarray = np.zeros(len(position))
        self._keep(position)

    def see(self, set_point: np.ndarray, position: np.ndarray) -> None:
        """It is at `position` when its set-point is `set_point`, (D,)."""
        self._follows = self._follows + self._later * (set_point - self._follows)
        self._sag = self._sag + self._learnt * (position - self._follows - self._sag)
        self._sag = np.clip(self._sag, -self._most, self._most)
        self._keep(position)

    def _keep(self, position: np.ndarray) -> None:
        close = self._clearance.too_near(position, self._every)
        self._needed = self._every
        if close:
            self._needed = self._every.copy()
            self._needed[close] = self._clearance.nearest(position)[close] - ROUNDING

    def surely_clear(self, set_point: np.ndarray, moved: np.ndarray) -> bool:
        """Whether it stays clear within `moved` (D,) of a set-point, by what was measured before."""
        return bool((self._clearance.bound(set_point + self._sag, moved) >= self._needed).all())

    def stays_clear(self, path: np.ndarray) -> bool:
        """Whether it stays clear where it goes for set-points (T, D)."""
        return self._clearance.stays_clear(path + self._sag, self._needed)

    def gaps(self, set_point: np.ndarray) -> list[tuple[Gap, float]]:
        """What is near where a set-point leads it, and by how much nearer it may come, m."""
        gaps = self._clearance.gaps(set_point + self._sag, WATCHED)
        return [(gap, gap.distance - self._needed[pair]) for pair, gap in gaps.items()]


def _nearest_velocity(
    wish: np.ndarray, least: np.ndarray, most: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray | None:
    """Velocities u in least..most nearest to the wish with rows u in low..high; None where there are none."""
    import daqp

    upper, lower = np.concatenate([most, high]), np.concatenate([least, low])
    solved, _, flag, _ = daqp.solve(np.eye(len(wish)), -np.ascontiguousarray(wish), rows, upper, lower)
    return np.asarray(solved) if flag > 0 else None
