"""A helper process of ours: started fresh (never forked), one thread, gone with its parent.

The parent speaks to it over a socket between the two; messages are pickled there and never touch a disk. Beside it both
map a little memory, the `Pulse`, by which the parent sees that it still moves. What a helper does with its orders is
the function that it is started with: `worker.py` steps lanes, `eval/rollout/crew.py` runs whole blocks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from ..ends import held_back, leave_to_parent, outputs
from .pulse import Pulse, Watch, shared_memory

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB", "LP")}
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module; "
    "getattr(import_module(sys.argv[2]), sys.argv[3])(*map(int, sys.argv[4:]))"
)
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
        self._place, self._timeout, self._grace, self._rest = place.split(":"), timeout, grace, rest
        self._process: subprocess.Popen | None = None
        self._pulse: Pulse | None = None
        self._watch: Watch | None = None
        self.pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Raises OSError where there is no memory, no process or no open file left."""
        ours, theirs = socket.socketpair()
        memory = shared_memory()
        try:
            with theirs, held_back():
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), *self._place]
                    + [str(theirs.fileno()), str(memory)],
                    stdin=subprocess.PIPE,  # open as long as the parent lives
                    pass_fds=[theirs.fileno(), memory],
                    env=os.environ | ONE_THREAD,
                )
            self._pulse = Pulse(memory, self._rest)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(memory)
        self._pulse.rest(building=True)
        self.pipe = Connection(ours.detach())

    def watch(self) -> Watch:
        """Counts from now how long it has not moved."""
        self._watch = Watch(self._pulse, self._timeout, self._grace)
        return self._watch

    def stuck(self) -> WorkerDied | None:
        """Look at the pulse; a process that hangs is ended."""
        if not self._timeout or not self._watch.stuck():
            return None
        limit = self._pulse.limit(self._timeout)
        return self.died(f"did not answer within {limit:g} s and was ended", hangs=True)

    def died(self, how: str = "died", hangs: bool = False) -> WorkerDied:
        """What became of it: whose turn it was, and why it ended. It is ended where it is not gone."""
        if hangs:
            self._process.kill()
        try:
            code = self._process.wait(5)  # its end of the pipe is closed: it is ending
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        because = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        pid, slot = self._process.pid, self._pulse.slot
        self.pipe.close()
        self._process.stdin.close()
        self._forget()
        return WorkerDied(f"worker process {pid} {how} ({because})", slot, not hangs and -code in FROM_OUTSIDE)

    def dismiss(self, at_once: bool = False) -> None:
        """Let the process end, politely or `at_once`; `close` waits for it."""
        if self._process is None or self.pipe.closed:
            return
        if at_once:
            self._process.kill()
        self.pipe.close()
        self._process.stdin.close()

    def close(self) -> None:
        """End the process: politely, then after 5 s for certain."""
        if self._process is None:
            return
        self.dismiss()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        self._pulse.close()
        self._process = self.pipe = self._pulse = self._watch = None


@contextmanager
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
