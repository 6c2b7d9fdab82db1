"""A driver and its guard in one process: what is read, guarded and written for one command, and how it all ends."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ..configs.spec import Embodiment
from ..sim.arms import find_arm
from .envelope import Command, Measured, Outcome, Verdict, envelope_of
from .foresee import Foreseer
from .guard import Guard
from .motion.clearance import Clearance
from .robot import Driver, RobotConfig

EARLY = 0.25  # part of a step that a command is taken early by; over many steps the rate is kept
LOADS = 4  # one of so many readings that the guard is given tells the loads, too
TRIES = 5  # readings, of which one must be quick enough to begin at
RESTING = 3.0  # s, at most, to brake when everything ends


class Session:
    """A driver and its guard in one process: what the guard's process runs, and a test may.

    `shadow`: who looks ahead for the guard, where somebody does.
    """

    def __init__(self, config: RobotConfig, shadow: Foreseer | None = None):
        self.config, self.shadow = config, shadow
        self.driver: Driver = config.driver()
        self.estop = config.stop_file
        if self.estop is not None and not self.estop.parent.is_dir():
            raise ValueError(
                f"estop: there is no folder {self.estop.parent}, so nobody could stop the arm by a file there"
            )
        self._unheard = LOADS  # readings without loads that the guard was given in a row
        self._loads = False  # whether the newest reading tells them, where servos do
        self._held = False

    def open(self) -> Embodiment:
        """Open the bus, read where the arm stands, and take hold of it there."""
        try:
            self.driver.connect()
            body = self.driver.embodiment
            clearance = None
            if self.driver.body is not None:
                clearance = Clearance(find_arm(self.driver.body), self.config.surroundings)
            envelope = envelope_of(self.config.envelope, body)
            self.guard = Guard(body.action, envelope, body.rate, clearance, body.action_units)
            self._engage()
            self.driver.hold()
            self._held = True
        except BaseException:
            self.close()
            raise
        return body

    def _measure(self) -> Measured:
        loads = self._unheard >= LOADS - 1 or (self._held and self.guard.strained)
        self._newest, self._loads = self.driver.measure(loads), loads
        return self._newest

    def _engage(self) -> np.ndarray:
        """Begin at a reading that did not take too long."""
        for left in reversed(range(TRIES)):
            measured = self._measure()
            if time.monotonic() - measured.time < self.guard.envelope.blind or not left:
                break
        if self.shadow is not None:
            self.shadow.forget(measured.time)
        self._sent = self.guard.engage(measured, time.monotonic())
        return self._sent

    def observe(self) -> Measured:
        """A reading of now. Raises ConnectionError."""
        return self._measure()

    def command(self, command: Command | None) -> Verdict:
        """Guard one command and send what comes of it. Raises ConnectionError once the bus has failed for good."""
        if self.estop is not None and os.path.exists(self.estop):
            self.guard.stop(f"emergency stop: {self.estop} exists")
        if command is not None:
            early = self.guard.due - EARLY * self.guard.step_length - time.monotonic()
            if 0 < early <= self.guard.step_length:
                time.sleep(early)
        measured, failed = None, None
        try:
            fresh = time.monotonic() - self._newest.time < self.guard.step_length / 2
            measured = self._newest if fresh else self._measure()
        except ConnectionError as error:
            failed = error
        self._unheard = 0 if measured is not None and self._loads else self._unheard + 1
        now = time.monotonic()
        foresight = None if self.shadow is None else self.shadow.newest(now)
        if self.shadow is not None and self.shadow.stops and (lost := self.shadow.lost(now)):
            self.guard.stop(lost)
        verdict = self.guard.step(measured, command, now, foresight)
        try:
            self.driver.write(verdict.sent)
            self._sent, verdict = verdict.sent, replace(verdict, written=time.monotonic())
        except ConnectionError as error:
            failed, verdict = error, self._unwritten(verdict, error)
        if self.shadow is not None and command is not None and measured is not None:
            self.shadow.ask(self.guard.ahead, measured)
        if failed is not None and verdict.outcome is Outcome.stopped:
            raise failed
        return verdict

    def _unwritten(self, verdict: Verdict, error: ConnectionError) -> Verdict:
        """The servos go on to what they were sent before: that is said, and what a recording says."""
        if verdict.outcome is not Outcome.stopped:
            verdict = replace(verdict, outcome=Outcome.bent)
        return replace(verdict, sent=self._sent, reasons=(*verdict.reasons, f"it was not written: {error}"))

    def couple(self) -> np.ndarray:
        """Somebody else commands from here on, see `Guard.couple`; the set-point, (D,)."""
        self.guard.couple()
        assert self.guard.goal is not None
        return self.guard.goal

    def engage(self) -> np.ndarray:
        """Begin again where the arm stands: after a stop, or when a leader is coupled again."""
        if self.estop is not None and os.path.exists(self.estop):
            raise ValueError(f"emergency stop: remove {self.estop} first")
        let_go = self.guard.let_go
        goal = self._engage()
        self.driver.write(goal)
        if let_go or not self._held:
            self.driver.hold()
            self._held = True
        return goal

    def close(self) -> None:
        """Brake to rest, let go, close the bus: in that order, whatever fails on the way."""
        with suppress(ConnectionError, RuntimeError):
            self._brake()
        if self._held:
            for _ in range(3):
                try:
                    self.driver.relax()
                    self._held = False
                    break
                except ConnectionError:
                    time.sleep(0.05)
        self.driver.close()

    def _brake(self) -> None:
        guard = getattr(self, "guard", None)
        if guard is None or not self._held or guard.rests:
            return
        guard.stop("the robot is closed")
        end = time.monotonic() + RESTING
        while not guard.rests and time.monotonic() < end:
            time.sleep(max(0.0, guard.due - time.monotonic()))
            self.driver.write(guard.step(self._newest, None, time.monotonic()).sent)
