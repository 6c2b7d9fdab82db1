"""A helper process of ours: one thread, gone with its parent; started fresh, or forked by a `Nursery`, never by us.

The parent speaks to it over a socket between the two; messages are pickled there and never touch a disk. Beside it both
map a little memory, the `Pulse`, by which the parent sees that it still moves. What a helper does with its orders is
the function that it is started with: `worker.py` steps lanes, `eval/rollout/crew.py` runs whole blocks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

from ..ends import held_back, leave_to_parent, outputs
from .boot import ONE_THREAD, words
from .nursery import Forked, Nursery
from .pulse import Pulse, Watch, shared_memory

# Sent by the system that has no memory left, a cluster, a person; a simulator that crashes ends by another one.
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU}


class WorkerDied(RuntimeError):
    """The process is gone, or was ended because it did not answer in time.

    Attributes:
        slot: whose turn it was; None: nobody's.
        outside: whether the cause lies outside of the lane.
    """

    def __init__(self, text: str, slot: int | None, outside: bool):
        super().__init__(text)
        self.slot, self.outside = slot, outside or slot is None


@dataclass
class _Started:
    """A process that was started, and what leads to it."""

    process: subprocess.Popen | Forked
    standard_input: int  # open file at whose end the process leaves
    pipe: Connection
    pulse: Pulse
    watch: Watch

    def hang_up(self) -> None:
        if not self.pipe.closed:
            self.pipe.close()
            os.close(self.standard_input)


class Companion:
    """One helper process, not started yet.

    Args:
        place: `package.module:function` that it runs with the numbers of its socket and of its pulse's memory.
        timeout: s without a beat after which it is taken for hanging, see `Pulse.limit`; 0: never.
        grace: s more than that, in which the process may help itself.
        rest: see `Pulse`.
    """

    def __init__(self, place: str, timeout: float = 0.0, grace: float = 0.0, rest: float = 1.0):
        if os.name != "posix":
            raise OSError("worker processes need a POSIX system; use workers=0 here")
        self._place, self._timeout, self._grace, self._rest = place, timeout, grace, rest
        self._started: _Started | None = None

    @property
    def pid(self) -> int | None:
        return self._started.process.pid if self._started else None

    @property
    def pipe(self) -> Connection | None:
        """To it; None while it is not started."""
        return self._started.pipe if self._started else None

    def start(self, nursery: Nursery | None = None) -> Connection:
        """Start it, or let a nursery fork it. Raises OSError where there is no memory, no process or no open file."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as failed:
            ours, other = socket.socketpair()
            theirs.enter_context(other)
            failed.enter_context(ours)
            memory = shared_memory()
            theirs.callback(os.close, memory)
            read, write = os.pipe()
            theirs.callback(os.close, read)
            failed.callback(os.close, write)
            with held_back():
                process = self._begin(nursery, (other.fileno(), memory), read)
            pulse = Pulse(memory, self._rest)
            failed.pop_all()
        pulse.rest(building=True)
        pipe = Connection(ours.detach())
        self._started = _Started(process, write, pipe, pulse, Watch(pulse, self._timeout, self._grace))
        return pipe

    def _begin(self, nursery: Nursery | None, passed: tuple[int, int], read: int) -> subprocess.Popen | Forked:
        if nursery is not None:
            return nursery.fork(self._place, passed, read)
        return subprocess.Popen(words(self._place, *passed), stdin=read, pass_fds=passed, env=os.environ | ONE_THREAD)

    def watch(self) -> Watch:
        """Counts from now how long it has not moved."""
        up = self._up()
        up.watch = Watch(up.pulse, self._timeout, self._grace)
        return up.watch

    def stuck(self) -> WorkerDied | None:
        """Look at the pulse; a process that hangs is ended."""
        up = self._up()
        if not self._timeout or not up.watch.stuck():
            return None
        limit = up.pulse.limit(self._timeout)
        return self.died(f"did not answer within {limit:g} s and was ended", hangs=True)

    def died(self, how: str = "died", hangs: bool = False) -> WorkerDied:
        """What became of it: whose turn it was, and why it ended. It is ended where it is not gone."""
        up = self._up()
        if hangs:
            up.process.kill()
        try:
            code = up.process.wait(5)  # its end of the pipe is closed: it is ending
        except subprocess.TimeoutExpired:
            up.process.kill()
            code = up.process.wait()
        because = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        slot = up.pulse.slot
        self._forget()
        return WorkerDied(
            f"worker process {up.process.pid} {how} ({because})", slot, not hangs and -code in FROM_OUTSIDE
        )

    def dismiss(self, at_once: bool = False) -> None:
        """Let the process end, politely or `at_once`; `close` waits for it."""
        if self._started is None:
            return
        if at_once:
            self._started.process.kill()
        self._started.hang_up()

    def close(self) -> None:
        """End the process: politely, then after 5 s for certain."""
        if self._started is None:
            return
        self.dismiss()
        process = self._started.process
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._forget()

    def _up(self) -> _Started:
        if self._started is None:
            raise RuntimeError("the process is not started")
        return self._started

    def _forget(self) -> None:
        up, self._started = self._up(), None
        up.hang_up()
        up.pulse.close()


@contextlib.contextmanager
def at_work(pipe_number: int, pulse_number: int, rest: float = 1.0) -> Iterator[tuple[Connection, Pulse]]:
    """Inside, this process is a helper: signals are its parent's, and it leaves with its parent.

    Args:
        rest: see `Pulse`.
    """
    leave_to_parent()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    from ..machine import prepare

    prepare()
    with outputs(), Connection(pipe_number) as pipe:
        pulse = Pulse(pulse_number, rest)
        os.close(pulse_number)
        yield pipe, pulse


def _leave_with_parent() -> None:
    """Standard input ends when the parent is gone, however it went; a lane that hangs must not outlive it."""
    while os.read(0, 4096):
        pass
    threading.Event().wait(4)  # a parent that closed politely gives the lanes time to close
    os._exit(1)
