"""The one door to a robot: its driver behind a guard, in a process of its own.

The process of the guard owns the bus. The caller's process, where a policy may hang, crash or be killed, sends commands
over a pipe and gets back what was really sent. What happens when something ends:

- the caller is silent for `silence` s: the arm stands at its last set-point; the next command is approached slowly;
- the caller dies, or Ctrl-C, SIGTERM, SIGHUP: the guard brakes to rest, switches the torque off, closes the bus;
- the guard is killed: the servos stay at their last goal, at most one step away, with their torque on;
- the file `estop` appears, or the guard gets SIGUSR1: the arm brakes and holds until `engage`;
- the bus fails: the guard retries, then stops; a bus that comes back is relaxed at the end.

What the processes say to each other is in `talk.py`. An STS3215 has no watchdog of its own: after a killed guard only
the supply, or the next `connect`, lets the arm go.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from ..configs.spec import STATE, Embodiment
from . import talk
from .envelope import Verdict
from .foresee import Outlook
from .robot import RobotConfig
from .session import RESTING, Session
from .talk import Line

NUMBER = re.compile(r"(?<![\w.])-?\d+(\.\d+)?(e[-+]?\d+)?(?!\w)")  # not that of a joint's name
ANSWER = 3.0  # s that the guard may take to answer
OPENING = 60.0  # s that it may take to open the bus
STOPPING = {"SIGTERM", "SIGHUP", "SIGUSR1"}


def serve(pipe: Connection, config: RobotConfig, shadow: Connection | None = None, stops: bool = False) -> None:
    """The guard's process: answer until the caller closes the pipe or is gone."""
    wished: list[str] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides
    for name in STOPPING:
        signal.signal(getattr(signal, name), lambda number, _: wished.append(signal.Signals(number).name))
    session, line = None, Line(pipe)
    try:
        session = Session(config, None if shadow is None else Outlook(shadow, stops))
        body = session.open()
        _be_punctual()
        line.tell(embodiment=body.to_json(), blind_to=session.guard.blind_to)
        _listen(line, session, wished)
    except (BrokenPipeError, EOFError, ConnectionResetError):
        pass  # the caller is gone
    except (ConnectionError, ValueError, LookupError, ImportError, OSError) as error:
        with suppress(OSError):
            line.tell(error=str(error), kind=_kind(error))
    except Exception as error:
        with suppress(OSError):
            line.tell(error=f"the guard's process failed ({type(error).__name__}: {error}); it lets go", kind="")
        raise
    finally:
        if session is not None:
            session.close()


def _be_punctual() -> None:
    """Before every ordinary process where the system permits it, so that a busy policy does not delay the guard."""
    gc.freeze()  # what is there now stays; searching it for garbage would take milliseconds
    with suppress(AttributeError, OSError):  # not Linux; not permitted: see `ulimit -r`
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _listen(line: Line, session: Session, wished: list[str]) -> None:
    silence = session.guard.envelope.silence
    while True:
        heard = line.hears(silence)
        if "SIGTERM" in wished or "SIGHUP" in wished:
            return
        while "SIGUSR1" in wished:  # pressed twice is pressed
            session.guard.stop("emergency stop: SIGUSR1")
            wished.remove("SIGUSR1")
        if not heard:  # a heartbeat was missed
            with suppress(ConnectionError):
                session.command(None)
            continue
        message = line.hear()
        asked = talk.told(message)
        if asked is not None and asked["do"] == "close":
            session.close()
            line.tell()
            return
        try:
            answer = _carry_out(session, message)
        except (ConnectionError, ValueError) as error:
            line.tell(error=str(error), kind=_kind(error))
        else:
            line.say(answer)


def _carry_out(session: Session, message: bytes) -> bytes:
    if message[0] == talk.COMMAND:
        return talk.pack_verdict(session.command(talk.unpack_command(message)))
    if message[0] == talk.OBSERVE:
        measured = session.observe()
        return talk.pack_reading(measured.position, measured.time)
    asked = talk.told(message) or {}
    return talk.pack_reading(session.couple() if asked["do"] == "couple" else session.engage(), 0.0)


KINDS: tuple[type[Exception], ...] = (ValueError, LookupError, ImportError)  # that the caller sees as such


def _kind(error: Exception) -> str:
    return next((kind.__name__ for kind in KINDS if isinstance(error, kind)), "ConnectionError")


@dataclass
class Account:
    """How many commands passed, were bent and stopped, and how often each reason was given."""

    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)  # "#" for each number -> how often
    examples: dict[str, str] = field(default_factory=dict)  # the first of each, whole

    def add(self, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome.value] = self.outcomes.get(verdict.outcome.value, 0) + 1
        for reason in verdict.reasons:
            kind = NUMBER.sub("#", reason)
            self.reasons[kind] = self.reasons.get(kind, 0) + 1
            self.examples.setdefault(kind, reason)

    def __str__(self) -> str:
        lines = [", ".join(f"{count} {name}" for name, count in self.outcomes.items()) or "no commands"]
        most = sorted(self.reasons.items(), key=lambda item: -item[1])[:6]
        return "\n".join([*lines, *(f"  {count:5d} x {self._told(kind)}" for kind, count in most)])

    def _told(self, kind: str) -> str:
        example = self.examples.get(kind, kind)
        return example if example == kind else f"such as: {example}"

    def clear(self) -> None:
        """Begin to count anew."""
        for counted in (self.outcomes, self.reasons, self.examples):
            counted.clear()


class GuardedRobot:
    """A `Robot` whose every command goes through the guard. Made by `open_robot`; knows no way around it.

    `shadow`: the guard's end of the line to a process that looks ahead.
    """

    embodiment: Embodiment

    def __init__(self, config: RobotConfig, shadow: Connection | None = None, stops: bool = False):
        self._config, self._shadow, self._stops = config, shadow, stops
        self._process: multiprocessing.process.BaseProcess | None = None
        self._line: Line | None = None
        self._number = 0
        self._owed, self._opened = 0, False  # answers that were asked for and not heard yet; the guard has the arm
        self.verdict: Verdict | None = None  # of the newest command
        self.account = Account()
        self.blind_to: tuple[str, ...] = ()
        self._cameras: Mapping = {}

    def connect(self) -> None:
        """Start the guard's process, which opens the bus and takes hold of the arm where it is. See `Robot`."""
        if self._process is not None:
            raise ConnectionError("the robot is connected already")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._line = Line(ours)
        self._process = context.Process(
            target=serve, args=(theirs, self._config, self._shadow, self._stops), name="guard", daemon=False
        )
        self._process.start()
        theirs.close()
        self._owed, self._opened = 1, False
        try:
            opened = talk.told(self._answer(OPENING)) or {}
            self._opened = True
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
        position, moment = talk.unpack_reading(self._ask(bytes([talk.OBSERVE])))
        found = {STATE: position.astype(np.float32)}
        times = {STATE: moment}
        for name, camera in self._cameras.items():
            key = f"observation.images.{name}"
            found[key], times[key] = camera.newest()
        return found, times

    def send_action(self, action: np.ndarray, time_of: float | None = None) -> np.ndarray:
        """See `Robot`; `verdict` says what became of it. `time_of`: when it was decided, default now."""
        self._number += 1
        moment = time.monotonic() if time_of is None else time_of
        self.verdict = talk.unpack_verdict(self._ask(talk.pack_command(action, moment, self._number)))
        self.account.add(self.verdict)
        return self.verdict.sent

    def engage(self) -> np.ndarray:
        """Begin again where the arm stands, after a stop or when a leader is coupled again."""
        return talk.unpack_reading(self._ask(talk.other(do="engage")))[0].astype(np.float32)

    def couple(self) -> np.ndarray:
        """Somebody else commands from here on: the first command is approached slowly. (D,) the set-point of now."""
        return talk.unpack_reading(self._ask(talk.other(do="couple")))[0].astype(np.float32)

    def disconnect(self) -> None:
        """See `Robot`: the arm is braked, let go, and the bus is closed."""
        for camera in self._cameras.values():
            camera.close()
        if self._process is None or self._line is None:
            return
        with suppress(OSError, EOFError):
            self._line.tell(do="close")
            self._owed += 1
            while self._owed and self._line.hears(RESTING + ANSWER):
                self._line.hear()
                self._owed -= 1
        self._line.close()
        self._process.join(RESTING + ANSWER)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(ANSWER)
        self._process = self._line = None

    def _ask(self, message: bytes) -> bytes:
        if self._line is None:
            raise ConnectionError("the robot is not connected: call connect first")
        try:
            self._owed += 1
            self._line.say(message)
        except OSError as error:
            raise ConnectionError(self._gone()) from error
        return self._answer(ANSWER)

    def _gone(self) -> str:
        """What became of the guard's process, and of the arm."""
        assert self._process is not None
        self._process.join(ANSWER)
        code = self._process.exitcode
        how = "" if code is None else f" ({signal.Signals(-code).name})" if code < 0 else f" (exit status {code})"
        if not self._opened:
            return (
                f"the guard's process ended{how} while it opened the arm; what it said is above. In a script of your "
                "own what opens a robot has to stand under `if __name__ == '__main__':`"
            )
        return f"the guard's process is gone{how}; the arm stands at its last goal"

    def _answer(self, patience: float) -> bytes:
        """The answer to the newest question; one that comes late, to a question of before, is nobody's any more."""
        assert self._line is not None
        try:
            while self._owed:
                if not self._line.hears(patience):
                    raise ConnectionError(
                        f"the guard did not answer within {patience:g} s; look at the arm and its supply"
                    )
                answer, self._owed = self._line.hear(), self._owed - 1
        except (EOFError, ConnectionResetError) as error:
            raise ConnectionError(self._gone()) from error
        other = talk.told(answer)
        if other is not None and "error" in other:
            kinds = {kind.__name__: kind for kind in KINDS}
            raise kinds.get(other["kind"], ConnectionError)(other["error"])
        return answer


def open_robot(config: RobotConfig) -> GuardedRobot:
    """The robot of `config`, not connected yet: the only way to one, and the guard stands in it."""
    return GuardedRobot(config)
