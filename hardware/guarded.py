"""The one door to a robot: its driver behind a guard, in a process of its own.

The process of the guard owns the bus. The caller's process, where a policy may hang, crash or be killed, sends commands
over a pipe and gets back what was really sent. What happens when something ends:

- the caller is silent for `silence` s: the arm stands at its last set-point; the next command is approached slowly;
- the caller dies, or Ctrl-C, SIGTERM, SIGHUP: the guard brakes to rest, switches the torque off, closes the bus;
- the guard is killed: the servos stay at their last goal, at most one step away, with their torque on;
- the file `estop` appears, or the guard gets SIGUSR1: the arm brakes and holds until `engage`;
- the bus fails: the guard retries, then stops; a bus that comes back is relaxed at the end.

Messages are lines of JSON, one answer to each. An STS3215 has no watchdog of its own: after a killed guard only the
supply, or the next `connect`, lets the arm go.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from ..configs.spec import STATE, Embodiment
from ..sim.arms import find_arm
from .guard import Command, Envelope, Guard, Measured, Outcome, Verdict
from .motion.clearance import Clearance
from .robot import Driver, RobotConfig

ANSWER = 3.0  # s that the guard may take to answer
OPENING = 60.0  # s that it may take to open the bus
LOADS = 4  # commands between two readings of the loads
RESTING = 3.0  # s, at most, to brake when everything ends
STOPPING = {"SIGTERM", "SIGHUP", "SIGUSR1"}


class Session:
    """A driver and its guard in one process: what the guard's process runs, and a test may."""

    def __init__(self, config: RobotConfig):
        self.config = config
        self.driver: Driver = config.driver()
        self.estop = None if config.estop is None else os.path.expandvars(config.estop)
        self._count = 0
        self._held = False

    def open(self) -> Embodiment:
        """Open the bus, read where the arm stands, and take hold of it there."""
        try:
            self.driver.connect()
            body = self.driver.embodiment
            clearance = None
            if self.driver.body is not None:
                clearance = Clearance(find_arm(self.driver.body), self.config.surroundings)
            settings = {"limits": body.limits} | self.config.envelope
            self.guard = Guard(body.action, Envelope(**settings), body.rate, clearance)
            self.guard.engage(self._measure(True), time.monotonic())
            self.driver.hold()
            self._held = True
        except BaseException:
            self.close()
            raise
        return body

    def _measure(self, loads: bool) -> Measured:
        self._newest = self.driver.measure(loads)
        return self._newest

    def observe(self) -> Measured:
        """A reading of now. Raises ConnectionError."""
        return self._measure(False)

    def command(self, command: Command | None) -> Verdict:
        """Guard one command and send what comes of it. Raises ConnectionError once the bus has failed for good."""
        if self.estop is not None and os.path.exists(self.estop):
            self.guard.stop(f"emergency stop: {self.estop} exists")
        if command is not None:
            due = self.guard.due - time.monotonic()
            if 0 < due <= self.guard.step_length:
                time.sleep(due)
        self._count += 1
        measured, failed = None, None
        try:
            if time.monotonic() - self._newest.time < self.guard.step_length / 2 and self._count % LOADS:
                measured = self._newest
            else:
                measured = self._measure(self._count % LOADS == 0)
        except ConnectionError as error:
            failed = error
        verdict = self.guard.step(measured, command, time.monotonic())
        try:
            self.driver.write(verdict.sent)
        except ConnectionError as error:
            failed = error
        if failed is not None and verdict.outcome is Outcome.stopped:
            raise failed
        return verdict

    def engage(self) -> np.ndarray:
        """Begin again where the arm stands: after a stop, or when a leader is coupled again."""
        if self.estop is not None and os.path.exists(self.estop):
            raise ValueError(f"emergency stop: remove {self.estop} first")
        goal = self.guard.engage(self._measure(True), time.monotonic())
        self.driver.write(goal)
        if not self._held:
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


def serve(pipe: Connection, config: RobotConfig) -> None:
    """The guard's process: answer until the caller closes the pipe or is gone."""
    wished: list[str] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides
    for name in STOPPING:
        signal.signal(getattr(signal, name), lambda number, _: wished.append(signal.Signals(number).name))
    session = None
    try:
        session = Session(config)
        body = session.open()
        _say(pipe, embodiment=body.to_json(), blind_to=session.guard.blind_to)
        _listen(pipe, session, wished)
    except (BrokenPipeError, EOFError, ConnectionResetError):
        pass  # the caller is gone
    except (ConnectionError, ValueError, LookupError, ImportError, OSError) as error:
        with suppress(OSError):
            _say(pipe, error=str(error), kind=_kind(error))
    finally:
        if session is not None:
            session.close()


def _listen(pipe: Connection, session: Session, wished: list[str]) -> None:
    silence = session.guard.envelope.silence
    while True:
        heard = pipe.poll(silence)
        if "SIGTERM" in wished or "SIGHUP" in wished:
            return
        if wished:
            session.guard.stop("emergency stop: SIGUSR1")
            wished.clear()
        if not heard:  # a heartbeat was missed
            with suppress(ConnectionError):
                session.command(None)
            continue
        message = json.loads(pipe.recv_bytes())
        if message["do"] == "close":
            session.close()
            _say(pipe)
            return
        try:
            _say(pipe, **_carry_out(session, message))
        except (ConnectionError, ValueError) as error:
            if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                raise
            _say(pipe, error=str(error), kind=_kind(error))


def _carry_out(session: Session, message: dict) -> dict:
    if message["do"] == "observe":
        measured = session.observe()
        return {"position": measured.position.tolist(), "time": measured.time}
    if message["do"] == "engage":
        return {"sent": session.engage().tolist()}
    target = np.array(message["target"], float)  # NaN arrives as such
    verdict = session.command(Command(target=target, time=message["time"], number=message["number"]))
    return {"outcome": verdict.outcome.value, "sent": verdict.sent.tolist(), "reasons": verdict.reasons}


KINDS: tuple[type[Exception], ...] = (ValueError, LookupError, ImportError)  # that the caller sees as such


def _kind(error: Exception) -> str:
    return next((kind.__name__ for kind in KINDS if isinstance(error, kind)), "ConnectionError")


def _say(pipe: Connection, **content) -> None:
    pipe.send_bytes(json.dumps(content).encode())


@dataclass
class Account:
    """How many commands passed, were bent and stopped, and how often each reason was given."""

    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome.value] = self.outcomes.get(verdict.outcome.value, 0) + 1
        for reason in verdict.reasons:
            kind = " ".join(word for word in reason.split() if not any(map(str.isdigit, word)))
            self.reasons[kind] = self.reasons.get(kind, 0) + 1

    def __str__(self) -> str:
        lines = [", ".join(f"{count} {name}" for name, count in self.outcomes.items()) or "no commands"]
        most = sorted(self.reasons.items(), key=lambda item: -item[1])[:6]
        return "\n".join([*lines, *(f"  {count:5d} x {reason}" for reason, count in most)])


class GuardedRobot:
    """A `Robot` whose every command goes through the guard. Made by `open_robot`; knows no way around it."""

    embodiment: Embodiment

    def __init__(self, config: RobotConfig):
        self._config = config
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._number = 0
        self.verdict: Verdict | None = None  # of the newest command
        self.account = Account()
        self.blind_to: tuple[str, ...] = ()
        self._cameras: Mapping = {}

    def connect(self) -> None:
        """Start the guard's process, which opens the bus and takes hold of the arm where it is. See `Robot`."""
        if self._process is not None:
            raise ConnectionError("the robot is connected already")
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._config), name="guard", daemon=False)
        self._process.start()
        theirs.close()
        try:
            opened = self._answer(OPENING)
            self.blind_to = tuple(opened["blind_to"])
            self._cameras = dict(self._config.cameras())
            for camera in self._cameras.values():
                camera.open()
        except BaseException:
            self.disconnect()
            raise
        sizes = {name: camera.size for name, camera in self._cameras.items()}
        self.embodiment = Embodiment.from_json(opened["embodiment"]).with_cameras(sizes)

    @property
    def guard_process(self) -> int | None:
        """Process id of the guard: SIGUSR1 stops the arm."""
        return None if self._process is None else self._process.pid

    def get_observation(self) -> Mapping[str, np.ndarray]:
        """See `Robot`."""
        return self.observe()[0]

    def observe(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The newest reading, and when each part of it was captured, s on `time.monotonic()`."""
        answer = self._ask("observe")
        found = {STATE: np.array(answer["position"], np.float32)}
        times = {STATE: float(answer["time"])}
        for name, camera in self._cameras.items():
            key = f"observation.images.{name}"
            found[key], times[key] = camera.newest()
        return found, times

    def send_action(self, action: np.ndarray, time_of: float | None = None) -> np.ndarray:
        """See `Robot`; `verdict` says what became of it. `time_of`: when it was decided, default now."""
        self._number += 1
        moment = time.monotonic() if time_of is None else time_of
        target = np.asarray(action, float).tolist()
        answer = self._ask("command", target=target, time=moment, number=self._number)
        sent = np.array(answer["sent"], np.float32)
        self.verdict = Verdict(Outcome(answer["outcome"]), sent, tuple(answer["reasons"]))
        self.account.add(self.verdict)
        return sent

    def engage(self) -> np.ndarray:
        """Begin again where the arm stands, after a stop or when a leader is coupled again."""
        return np.array(self._ask("engage")["sent"], np.float32)

    def disconnect(self) -> None:
        """See `Robot`: the arm is braked, let go, and the bus is closed."""
        for camera in self._cameras.values():
            camera.close()
        if self._process is None or self._pipe is None:
            return
        with suppress(OSError, EOFError):
            _say(self._pipe, do="close")
            if self._pipe.poll(RESTING + ANSWER):
                self._pipe.recv_bytes()
        self._pipe.close()
        self._process.join(RESTING + ANSWER)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _ask(self, what: str, **content) -> dict:
        if self._pipe is None:
            raise ConnectionError("the robot is not connected: call connect first")
        try:
            _say(self._pipe, do=what, **content)
        except OSError as error:
            raise ConnectionError(f"the guard's process is gone ({error}); the arm stands at its last goal") from error
        return self._answer(ANSWER)

    def _answer(self, patience: float) -> dict:
        assert self._pipe is not None
        try:
            if not self._pipe.poll(patience):
                raise ConnectionError(f"the guard did not answer within {patience:g} s; look at the arm and its supply")
            answer = json.loads(self._pipe.recv_bytes())
        except (EOFError, ConnectionResetError) as error:
            raise ConnectionError("the guard's process is gone; the arm stands at its last goal") from error
        if "error" in answer:
            kinds = {kind.__name__: kind for kind in KINDS}
            raise kinds.get(answer["kind"], ConnectionError)(answer["error"])
        return answer


def open_robot(config: RobotConfig) -> GuardedRobot:
    """The robot of `config`, not connected yet: the only way to one, and the guard stands in it."""
    return GuardedRobot(config)
