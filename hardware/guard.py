"""The guard in front of every robot: each command passes, is bent, or stops the arm, with the reason.

`Guard.step` is fed what was measured, what is commanded and the time, and says what to send. It knows no bus, process
or clock, so that it can be tried with a hundred thousand commands. What it promises, whatever it is fed:

- the set-points that it gives out keep position, velocity, acceleration and jerk, as differences over its steps;
- from every one of them it can brake to rest within those bounds, clear of the table, the walls and the arm itself;
- the motion takes no more torque than allowed, by the arm's model; and it does not push on where the servos say so;
- the first command after connecting, after a silence and after a stop is approached slowly from the measured pose;
- a command that is not finite, too old or out of order moves nothing; too many of them stop the arm.

The nearest motion that keeps clear is a quadratic program in the joint velocities (velocity dampers, Faverjon and
Tournassoud 1987), solved by DAQP; its answer is tried on the model before it is taken, otherwise the arm brakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from .clearance import Clearance
from .motion import Bounds, Motion, braking, reach, towards, window

TIMELY = 0.5  # part of a step that must have passed before the next one
APPROACHED = 0.01  # rad or unit, where the first command counts as reached
BRAKING = 2.0  # s, no arm needs longer to rest
WATCHED = 0.04  # m, pairs that the nearest motion takes account of
ROUNDING = 1e-5  # m
SAME = 1e-7  # rad or unit, sent and commanded are the same


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

    def __post_init__(self) -> None:
        for name in ("velocity", "acceleration", "jerk", "approach", "lag", "patience", "stale", "blind", "silence"):
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
    """What the robot says of itself: position (D,), torque (D,) N m where its servos tell, and when, s."""

    position: np.ndarray
    time: float
    torque: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """Where the joints shall be one step from now (D,), when that was decided, s, and which command it is."""

    target: np.ndarray
    time: float
    number: int


@dataclass(frozen=True)
class Verdict:
    """What to send, (D,), and why it is not what was commanded."""

    outcome: Outcome
    sent: np.ndarray
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.outcome.value}{': ' if self.reasons else ''}{'; '.join(self.reasons)}"


@dataclass
class _Memory:
    """What a guard knows between two steps."""

    number: int | None = None  # of the last command that counted
    stamp: float = -np.inf  # its time
    heard: float = -np.inf  # when it came, s
    targets: list[np.ndarray] = field(default_factory=list)  # the last three, newest last
    invalid: int = 0  # in a row
    unread: int = 0  # steps in a row without a measurement that can be trusted
    loaded: float = 0.0  # s
    lagging: float = 0.0  # s
    approaching: bool = True


class Guard:
    """Decides set-point by set-point, `rate` a second. Not for two threads.

    Args:
        names: of the joints, for the reasons.
        clearance: the arm's body; None: neither table nor torque are known, which `blind_to` says.
    """

    def __init__(self, names: tuple[str, ...], envelope: Envelope, rate: float, clearance: Clearance | None = None):
        if len(names) != len(envelope.limits):
            raise ValueError(f"{len(envelope.limits)} limits for {len(names)} joints")
        if not rate > 0:
            raise ValueError(f"the guard's rate must be positive, got {rate}")
        if clearance is not None:
            _check_solver()
        self.names, self.envelope, self.rate, self.step_length = names, envelope, rate, 1.0 / rate
        self._clearance, self._bounds = clearance, envelope.bounds()
        torque = envelope.torque
        self._torque = None if torque is None else np.broadcast_to(np.asarray(torque, float), (len(names),))
        self._motion: Motion | None = None
        self._memory = _Memory()
        self._last = -np.inf
        self._measured: Measured | None = None
        self._needed = np.zeros(0)
        self.stopped: str | None = None  # why, once it has stopped

    @property
    def blind_to(self) -> tuple[str, ...]:
        """What nothing is known of."""
        lacks = [] if self._clearance else ["the table, the walls and the arm itself: no model of this body"]
        return (*lacks, *(() if self._torque is not None else ("torque: no limit is given",)))

    @property
    def goal(self) -> np.ndarray | None:
        """(D,) the last set-point, None before `engage`."""
        return None if self._motion is None else self._motion.position.copy()

    @property
    def rests(self) -> bool:
        """Whether the set-point stands still."""
        return self._motion is None or self._motion.rests

    @property
    def due(self) -> float:
        """When the next step begins, s; from `TIMELY` of a step before it is taken."""
        return self._last + self.step_length

    def engage(self, measured: Measured, now: float) -> np.ndarray:
        """Begin at the measured pose, also after a stop and when a leader is coupled again; what to send, (D,).

        Raises:
            ValueError: a pose that is not finite or too old, or outside the limits by more than `lag`.
        """
        fault = self._unseen(measured, now)
        if fault:
            raise ValueError(f"the guard does not engage: {fault}")
        out = np.maximum(self._bounds.low - measured.position, measured.position - self._bounds.high)
        if (out > self.envelope.lag).any():
            joint = int(np.argmax(out))
            low, high = self.envelope.limits[joint]
            raise ValueError(
                f"the guard does not engage: {self.names[joint]} is at {measured.position[joint]:.3f}, "
                f"its limits are {low:.3f} .. {high:.3f}: is the calibration that of this arm?"
            )
        self._motion, self._measured, self._last = Motion.at_rest(measured.position), measured, now
        number, stamp = self._memory.number, self._memory.stamp
        self._memory = _Memory(number=number, stamp=stamp)
        self._limits = self._bounds.around(self._motion.position)
        self._keep(self._motion.position)
        self.stopped = None
        return self._motion.position.copy()

    def stop(self, reason: str) -> None:
        """Brake and obey nobody until `engage`."""
        self.stopped = self.stopped or reason

    def step(self, measured: Measured | None, command: Command | None, now: float) -> Verdict:
        """The set-point for the step that begins now.

        Args:
            measured: the newest measurement, None where reading failed.
            command: the newest command, None where none came since the last step.
            now: s, on the clock of `measured.time` and `command.time`.
        """
        if self._motion is None:
            raise RuntimeError("the guard was not engaged: call engage with the measured pose first")
        if not now - self._last >= TIMELY * self.step_length:
            return self._answer(None, [f"more than {self.rate:g} commands a second; this one is dropped"])
        seconds, self._last = now - self._last, now
        if seconds > self.envelope.silence:  # nobody asked: the arm stands where it was sent
            self._motion = Motion.at_rest(self._motion.position)
            self._pause("nothing came for a while")

        reasons: list[str] = []
        self._look(measured, now, min(seconds, 2 * self.step_length), reasons)
        target = self._listen(command, now, reasons)
        limits, drift = self._limits, self._drift()
        if self._memory.approaching and target is not None:
            off = np.abs(target - self._motion.position)
            if (off <= np.maximum(APPROACHED, self._bounds.velocity * self.step_length)).all():
                self._memory.approaching = False
            else:
                joint, speed = int(np.argmax(off)), self.envelope.approach
                reasons.append(f"{self.names[joint]} is {off[joint]:.2f} from the first command: at most {speed:g}/s")
                limits, drift = limits.slower(np.full(len(off), speed)), np.zeros(len(off))
        if self.stopped is not None or target is None or self._held(target):
            self._move(braking(self._motion, self._limits, self.step_length))
        else:
            self._follow(target, drift, limits, reasons)
        return self._answer(target, reasons)

    # what is measured

    def _unseen(self, measured: Measured | None, now: float) -> str | None:
        """Why a measurement cannot be trusted."""
        if measured is None:
            return "the pose could not be read"
        position = np.asarray(measured.position, float)
        if position.shape != (len(self.names),) or not np.isfinite(position).all():
            return "the measured pose is not finite"
        age = now - measured.time
        if not -self.step_length <= age <= self.envelope.blind:
            return f"the measured pose is {age:.2f} s old"
        return None

    def _look(self, measured: Measured | None, now: float, seconds: float, reasons: list[str]) -> None:
        """Take the measurement in: what cannot be trusted, who lags behind, who is overloaded."""
        memory, envelope = self._memory, self.envelope
        fault = self._unseen(measured, now)
        if fault is not None:
            memory.unread += 1
            reasons.append(fault)
            if memory.unread > envelope.retries:
                self.stop(f"{fault}, {memory.unread} times in a row")
            self._loads = None
            return
        assert measured is not None and self._motion is not None
        memory.unread, self._measured = 0, measured

        lags = np.abs(self._motion.position - measured.position)
        memory.lagging = memory.lagging + seconds if (lags > envelope.lag).any() else 0.0
        if memory.lagging > envelope.patience:
            self.stop(f"{self.names[int(np.argmax(lags))]} does not follow: {lags.max():.2f} behind the set-point")
        self._loads = None
        if measured.torque is None or self._torque is None:
            return
        over = np.abs(np.nan_to_num(np.asarray(measured.torque, float))) > self._torque
        memory.loaded = memory.loaded + seconds if over.any() else 0.0
        if over.any():
            joint = int(np.argmax(over * np.abs(measured.torque)))
            self._loads = np.where(over, np.sign(measured.torque), 0.0)
            said = f"{self.names[joint]} bears {abs(measured.torque[joint]):.2f} N m of {self._torque[joint]:.2f}"
            reasons.append(said)
            if memory.loaded > envelope.patience:
                self.stop(f"{said}, for {memory.loaded:.1f} s")

    _loads: np.ndarray | None = None  # (D,) sign of the torque of joints that bear too much

    def _held(self, target: np.ndarray) -> bool:
        """Whether going on to `target` strains what is overloaded, or runs away from an arm that does not follow."""
        assert self._motion is not None and self._measured is not None
        way = target - self._motion.position
        if self._loads is not None and (way * self._loads > 0).any():
            return True
        lead = self._motion.position - self._measured.position
        return bool(((np.abs(lead) > self.envelope.lag) & (way * lead > 0)).any())

    # what is commanded

    def _listen(self, command: Command | None, now: float, reasons: list[str]) -> np.ndarray | None:
        """The target of a command that counts, within the limits."""
        memory, envelope = self._memory, self.envelope
        if command is None:
            if now - memory.heard > envelope.silence:
                self._pause("no command")
            reasons.append("no command")
            return None
        fault = self._invalid(command, now)
        if fault is not None:
            memory.invalid += 1
            reasons.append(fault)
            if memory.invalid > envelope.retries:
                self.stop(f"{fault}, {memory.invalid} invalid commands in a row")
            return None

        target = np.array(command.target, float)
        memory.number, memory.stamp, memory.heard, memory.invalid = command.number, command.time, now, 0
        within = np.clip(target, self._limits.low, self._limits.high)
        if (within != target).any():
            joint = int(np.argmax(np.abs(within - target)))
            low, high = envelope.limits[joint]
            reasons.append(f"{self.names[joint]} {target[joint]:.3f} is outside {low:.3f} .. {high:.3f}")
        memory.targets = [*memory.targets[-2:], within]
        return within

    def _invalid(self, command: Command, now: float) -> str | None:
        target = np.asarray(command.target, float)
        if target.shape != (len(self.names),):
            return f"the command has shape {target.shape}, the arm {len(self.names)} joints"
        if not np.isfinite(target).all():
            return f"the command is not finite at {self.names[int(np.argmin(np.isfinite(target)))]}"
        age = now - command.time
        if not -self.step_length <= age <= self.envelope.stale:
            return f"the command is {age:.2f} s old"
        if self._memory.number is not None and command.number <= self._memory.number:
            return f"command {command.number} came after {self._memory.number}"
        if command.time < self._memory.stamp:
            return "the command is older than the one before"
        return None

    def _pause(self, why: str) -> None:
        self._memory.approaching, self._memory.targets = True, []

    def _drift(self) -> np.ndarray:
        """(D,) how fast the commands move, where the last two steps agree."""
        if len(self._memory.targets) < 3:
            return np.zeros(len(self.names))
        first, second, third = self._memory.targets
        one, other = (second - first) * self.rate, (third - second) * self.rate
        speed = np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0.0)
        return np.clip(speed, -self._bounds.velocity, self._bounds.velocity)

    # where to go

    def _follow(self, target: np.ndarray, drift: np.ndarray, limits: Bounds, reasons: list[str]) -> None:
        assert self._motion is not None
        wish, exact = towards(self._motion, target, drift, limits, self.step_length)
        if not exact:
            reasons.append(self._too_fast(target))
        if self._take(wish, None):
            return
        least, most = window(self._motion, limits, self.step_length)
        because: list[str] = []
        if self._take(self._around(wish, least, most, because), because):
            reasons.extend(because)
            return
        reasons.extend(because or ["in the way"])
        self._move(braking(self._motion, self._limits, self.step_length))

    def _too_fast(self, target: np.ndarray) -> str:
        assert self._motion is not None
        speed = np.abs(target - self._motion.position) * self.rate / self._bounds.velocity
        joint = int(np.argmax(speed))
        if speed[joint] > 1:
            return f"{self.names[joint]} would move at {speed[joint] * self._bounds.velocity[joint]:.2f}/s"
        return f"{self.names[joint]} would change its velocity too fast"

    def _around(self, wish: Motion, least: np.ndarray, most: np.ndarray, because: list[str]) -> Motion:
        """The motion nearest to the wish that nears nothing faster than it can brake."""
        assert self._motion is not None and self._clearance is not None
        step, bounds = self.step_length, self._bounds
        slowing = float(np.max(bounds.velocity / bounds.acceleration / 2 + bounds.acceleration / bounds.jerk)) + step
        gaps = self._clearance.gaps(self._motion.position, WATCHED)
        low, high = self._motion.velocity + step * least, self._motion.velocity + step * most
        rows = np.array([gap.slope for gap in gaps.values()])
        room = np.array([max(0.0, gap.distance - self._needed[pair]) for pair, gap in gaps.items()]) / slowing
        because += self._nearest(gaps, wish)
        if not len(rows):
            return wish

        answer = _nearest_velocity(wish.velocity, low, high, rows, -room)
        if answer is None:
            return braking(self._motion, self._limits, step)
        return self._motion.after(np.clip((answer - self._motion.velocity) / step, least, most), step)

    def _nearest(self, gaps, wish: Motion) -> list[str]:
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
        if (self._clearance.bound(motion.position, reach(motion, self._bounds, step)) >= needed).all():
            return True
        limits = self._bounds.around(motion.position)
        for _ in range(int(BRAKING / step) + 1):
            if motion.rests:
                return True
            motion = braking(motion, limits, step)
            if self._clearance.too_near(motion.position, needed):
                return False
        return False

    def _keep(self, position: np.ndarray) -> None:
        """What each pair of parts must keep from here on, m: who is too near already may not come nearer still."""
        if self._clearance is None:
            return
        every = np.full(len(self._clearance), self.envelope.clearance)
        close = self._clearance.too_near(position, every)
        if close:
            every[close] = self._clearance.nearest(position)[close] - ROUNDING
        self._needed = every

    def _move(self, motion: Motion) -> None:
        self._motion = motion
        self._limits = self._bounds.around(motion.position)

    def _answer(self, target: np.ndarray | None, reasons: list[str]) -> Verdict:
        assert self._motion is not None
        sent = self._motion.position.copy()
        if self.stopped is not None:
            return Verdict(Outcome.stopped, sent, (self.stopped,))
        if target is not None and np.abs(sent - target).max() <= SAME and not reasons:
            return Verdict(Outcome.passed, sent)
        return Verdict(Outcome.bent, sent, tuple(dict.fromkeys(reasons)) or ("the arm brakes",))


def with_limits(envelope: Envelope, limits: tuple[tuple[float, float], ...]) -> Envelope:
    """The same envelope for an arm with other joint limits."""
    return replace(envelope, limits=limits)


def _check_solver() -> None:
    """Raise ImportError now and not at the first bent step."""
    try:
        import daqp  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the guard needs daqp to keep an arm clear of things ({error}): pip install 'understudy[hardware]'"
        ) from error


def _nearest_velocity(wish, low, high, rows, least) -> np.ndarray | None:
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
