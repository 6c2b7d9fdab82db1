"""The guard in front of every robot: each command passes, is bent, or stops the arm, with the reason.

`Guard.step` is fed what was measured, what is commanded and the time, and says what to send. It knows no bus, process
or clock, so that it can be tried with a hundred thousand commands. What it promises, whatever it is fed:

- the set-points that it gives out keep position, velocity, acceleration and jerk, as differences over its steps;
- from every one of them it can brake to rest within those bounds, clear of the table, the walls and the arm itself;
- the motion takes no more torque than allowed, by the arm's model; and it does not push on where the servos say so;
- the first command after connecting, after a silence and after a stop is approached slowly from the measured pose;
- so is that of somebody else (`couple`), without a jump of the motion that goes on meanwhile;
- a command that is not finite, too old or out of order moves nothing; too many of them stop the arm;
- what a shadow foresees (`foresee.py`) counts: contact torque beside the model's, and a veto brakes the arm.

What counts as a command is `inbox.py`, what is measured `watch.py`, where the arm may go `way.py` on `motion/`; the
words are in `envelope.py`.
"""

from __future__ import annotations

import numpy as np

from ..configs.extras import pip_install
from .envelope import Command, Envelope, Foresight, Measured, Outcome, Verdict
from .inbox import Inbox
from .motion.clearance import Clearance
from .watch import Watch
from .way import Way

__all__ = ["Command", "Envelope", "Guard", "Measured", "Outcome", "Verdict"]

TIMELY = 0.5  # part of a step that must have passed before the next one
APPROACHED = 0.01  # rad or unit, where the first command counts as reached
SAME = 1e-7  # rad or unit, sent and commanded are the same


class Guard:
    """Decides set-point by set-point, `rate` a second. Not for two threads.

    Args:
        names: of the joints, for the reasons.
        units: of the joints, for the reasons; default: rad, as in `Envelope`.
        clearance: the arm's body; None: neither table nor torque are known, which `blind_to` says.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        envelope: Envelope,
        rate: float,
        clearance: Clearance | None = None,
        units: tuple[str, ...] | None = None,
    ):
        if len(names) != len(envelope.limits):
            raise ValueError(f"{len(envelope.limits)} limits for {len(names)} joints")
        units = ("rad",) * len(names) if units is None else units
        if len(units) != len(names):
            raise ValueError(f"{len(units)} units for {len(names)} joints")
        if not rate > 0:
            raise ValueError(f"the guard's rate must be positive, got {rate}")
        if (1 + TIMELY) / rate > envelope.silence:
            raise ValueError(
                f"at {rate:g} commands a second each would come after a silence of {envelope.silence:g} s, and the arm "
                f"would only ever creep: take a higher rate, or a longer envelope.silence, such as {2 / rate:.2g}"
            )
        if clearance is not None:
            _check_solver()
        self.names, self.units, self.envelope, self.rate = names, units, envelope, rate
        self.step_length = 1.0 / rate
        self._modelled = clearance is not None
        self._watch = Watch(names, units, envelope, self.step_length)
        self._inbox = Inbox(names, units, envelope, rate)
        self._way = Way(names, units, envelope, self.step_length, clearance, self._watch.torque)
        self._engaged = False
        self._last = -np.inf
        self.stopped: str | None = None  # why, once it has stopped

    @property
    def blind_to(self) -> tuple[str, ...]:
        """What nothing is known of."""
        lacks = [] if self._modelled else ["the table, the walls and the arm itself: no model of this body"]
        return (*lacks, *(() if self._watch.torque is not None else ("torque: no limit is given",)))

    @property
    def goal(self) -> np.ndarray | None:
        """(D,) the last set-point, None before `engage`."""
        return self._way.motion.position.copy() if self._engaged else None

    @property
    def rests(self) -> bool:
        """Whether the set-point stands still."""
        return not self._engaged or self._way.motion.rests

    @property
    def strained(self) -> bool:
        """Whether a joint bore too much when its servo told last."""
        return self._watch.strained

    @property
    def let_go(self) -> bool:
        """Whether it has stopped because a servo's torque was off."""
        return self._watch.let_go

    @property
    def due(self) -> float:
        """When the next step begins, s; from `TIMELY` of a step before it is taken."""
        return self._last + self.step_length

    def engage(self, measured: Measured, now: float) -> np.ndarray:
        """Begin at the measured pose, also after a stop and when a leader is coupled again; what to send, (D,).

        Raises:
            ValueError: a pose that is not finite or too old, or outside the limits by more than `lag`.
        """
        fault = self._watch.unseen(measured, now)
        if fault:
            raise ValueError(f"the guard does not engage: {fault}")
        bounds = self._way.bounds
        out = np.maximum(bounds.low - measured.position, measured.position - bounds.high)
        if (out > self.envelope.lag).any():
            joint = int(np.argmax(out))
            (low, high), unit = self.envelope.limits[joint], self.units[joint]
            raise ValueError(
                f"the guard does not engage: {self.names[joint]} is at {measured.position[joint]:.3f} {unit}, its "
                f"limits are {low:.3f} .. {high:.3f} {unit}: is the calibration that of this arm?"
            )
        self._watch.begin(measured)
        self._inbox.begin()
        self._way.begin(measured.position)
        self._engaged, self._last, self.stopped = True, now, None
        self._target: np.ndarray | None = None
        self._vetoed = 0.0  # s in a row
        return self._way.motion.position.copy()

    def couple(self) -> None:
        """Somebody else commands from here on: the first command is approached slowly, as after a silence.

        Unlike `engage` it does not begin at rest at the measured pose: an arm that moves brakes within its bounds.
        """
        self._inbox.pause()

    def stop(self, reason: str) -> None:
        """Brake and obey nobody until `engage`."""
        self.stopped = self.stopped or reason

    @property
    def ahead(self) -> np.ndarray:
        """(D,) where the newest command leads the set-point before it could rest: what a shadow is asked about."""
        return self._way.ahead(self._target)

    def step(
        self, measured: Measured | None, command: Command | None, now: float, foresight: Foresight | None = None
    ) -> Verdict:
        """The set-point for the step that begins now.

        Args:
            measured: the newest measurement, None where reading failed.
            command: the newest command, None where none came since the last step.
            now: s, on the clock of `measured.time` and `command.time`.
            foresight: what a shadow said of `ahead` of the last step; None: it said nothing, or nothing new enough.
        """
        if not self._engaged:
            raise RuntimeError("the guard was not engaged: call engage with the measured pose first")
        if not now - self._last >= TIMELY * self.step_length:
            return self._answer(None, [f"more than {self.rate:g} commands a second; this one is dropped"])
        seconds = now - self._last
        punctual = abs(now - self.due) <= TIMELY * self.step_length
        self._last = self.due if punctual else now  # a little late does not make the next one late, too
        if seconds > self.envelope.silence:  # nobody asked: the arm stands where it was sent
            self._way.halt()
            self._inbox.pause()

        reasons: list[str] = []
        way, seen = self._way, min(seconds, 2 * self.step_length)
        wrong = self._watch.look(measured, way.motion.position, now, seen, reasons)
        if wrong:
            self.stop(wrong)
        target = self._inbox.take(command, way.limits, now, reasons)
        if target is None and command is not None and (wrong := self._inbox.wrong()):
            self.stop(f"{reasons[-1]}, {wrong}")
        limits, drift = way.limits, self._inbox.drift()
        if self._inbox.approaching and target is not None:
            off = np.abs(target - way.motion.position)
            if (off <= np.maximum(APPROACHED, way.bounds.velocity * self.step_length)).all():
                self._inbox.approaching = False
            else:
                joint, speed = int(np.argmax(off)), self.envelope.approach
                name, unit = self.names[joint], self.units[joint]
                reasons.append(f"{name} is {off[joint]:.2f} {unit} from the first command: at most {speed:g} {unit}/s")
                limits, drift = limits.slower(np.full(len(off), speed)), np.zeros(len(off))
        self._target = target
        vetoed = self._heed(foresight, seen, reasons)
        way.see(self._watch.position)
        relief = self._watch.relief(way.motion.position, target if self.stopped is None else None)
        if relief is not None:
            way.follow(relief, np.zeros(len(relief)), limits, reasons)
        elif self.stopped is not None or target is None or vetoed or self._watch.held(way.motion.position, target):
            way.brake()
        else:
            way.follow(target, drift, limits, reasons)
        return self._answer(target, reasons, foresight)

    def _heed(self, foresight: Foresight | None, seconds: float, reasons: list[str]) -> bool:
        """Take in what is foreseen; whether the arm must brake for it. Too long a veto stops it."""
        self._way.contact = np.zeros(len(self.names)) if foresight is None else np.asarray(foresight.torque, float)
        if foresight is None or foresight.allowed:
            self._vetoed = 0.0
            return False
        self._vetoed += seconds
        said = f"in the twin {'; '.join(foresight.reasons)}"
        reasons.append(said)
        if self._vetoed > self.envelope.vetoed:
            self.stop(f"{said}, for {self._vetoed:.1f} s of {self.envelope.vetoed:g} s allowed")
        return True

    def _answer(self, target: np.ndarray | None, reasons: list[str], foresight: Foresight | None = None) -> Verdict:
        sent = self._way.motion.position.copy()
        if self.stopped is not None:
            return Verdict(Outcome.stopped, sent, (self.stopped,), foreseen=foresight)
        if target is not None and np.abs(sent - target).max() <= SAME and not reasons:
            return Verdict(Outcome.passed, sent, (), foreseen=foresight)
        return Verdict(Outcome.bent, sent, tuple(dict.fromkeys(reasons)) or ("the arm brakes",), foreseen=foresight)


def _check_solver() -> None:
    """Raise ImportError now and not at the first bent step."""
    try:
        import daqp  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the guard needs daqp to keep an arm clear of things ({error}): {pip_install('hardware')}"
        ) from error
