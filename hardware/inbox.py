"""Which commands count: finite, of now, in order; and how fast they move. Knows no arm and no bus."""

from __future__ import annotations

import numpy as np

from .envelope import Command, Envelope
from .motion.setpoint import Bounds

KEPT = 3  # targets that tell how fast the commands move


class Inbox:
    """Takes commands in, step by step. `approaching`: the next one counts as a first one."""

    def __init__(self, names: tuple[str, ...], units: tuple[str, ...], envelope: Envelope, rate: float):
        self.names, self.units, self.envelope, self.rate = names, units, envelope, rate
        self._fastest = envelope.bounds().velocity
        self._number: int | None = None  # of the last command that counted
        self._stamp = -np.inf  # its time, s
        self.begin()

    def begin(self) -> None:
        """Forget all but the order: the next command is a first one."""
        self.approaching = True
        self._targets: list[np.ndarray] = []  # newest last
        self._heard = -np.inf  # when the last one that counted came, s
        self._invalid = 0  # in a row

    def pause(self) -> None:
        """The next command is approached anew."""
        self.approaching, self._targets = True, []

    def take(self, command: Command | None, limits: Bounds, now: float, reasons: list[str]) -> np.ndarray | None:
        """The target of a command that counts, within `limits`; None, with the reason, for one that does not."""
        if command is None:
            if now - self._heard > self.envelope.silence:
                self.pause()
            reasons.append("no command")
            return None
        fault = self._fault(command, now)
        if fault is not None:
            self._invalid += 1
            reasons.append(fault)
            return None

        target = np.array(command.target, float)
        self._number, self._stamp, self._heard, self._invalid = command.number, command.time, now, 0
        within = np.clip(target, limits.low, limits.high)
        if (within != target).any():
            joint = int(np.argmax(np.abs(within - target)))
            (low, high), unit = self.envelope.limits[joint], self.units[joint]
            reasons.append(f"{self.names[joint]} {target[joint]:.3f} {unit} is outside {low:.3f} .. {high:.3f} {unit}")
        self._targets = [*self._targets[1 - KEPT :], within]
        return within

    def wrong(self) -> str | None:
        """Why nobody should be obeyed any more, None while commands are not that bad."""
        if self._invalid > self.envelope.retries:
            return f"{self._invalid} invalid commands in a row"
        return None

    def drift(self) -> np.ndarray:
        """(D,) how fast the commands move, where the last two steps agree."""
        if len(self._targets) < KEPT:
            return np.zeros(len(self.names))
        first, second, third = self._targets
        one, other = (second - first) * self.rate, (third - second) * self.rate
        speed = np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0.0)
        return np.clip(speed, -self._fastest, self._fastest)

    def _fault(self, command: Command, now: float) -> str | None:
        target = np.asarray(command.target, float)
        if target.shape != (len(self.names),):
            return f"the command has shape {target.shape}, the arm {len(self.names)} joints"
        if not np.isfinite(target).all():
            return f"the command is not finite at {self.names[int(np.argmin(np.isfinite(target)))]}"
        age = now - command.time
        if not -1 / self.rate <= age <= self.envelope.stale:
            return f"the command is {age:.2f} s old, of at most {self.envelope.stale:g} s"
        if self._number is not None and command.number <= self._number:
            return f"command {command.number} came after {self._number}"
        if command.time < self._stamp:
            return "the command is older than the one before"
        return None
