"""A group of lanes in a process of its own: started fresh (never forked), one thread, gone with its parent.

The parent speaks to it through `Worker.ask` and `Worker.answer`; messages are pickled over a socket between the two and
never touch a disk. A worker never imports torch. A worker that dies or does not answer raises `WorkerDied`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection

from ..world import World
from .lane import LaneGroup, describe

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB")}
_BOOT = (
    f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import serve; serve(int(sys.argv[2]))"
)


class WorkerDied(RuntimeError):
    """The process is gone, or was ended because it did not answer in time."""


class Local:
    """A group of lanes in this process, spoken to like a `Worker`."""

    pid = None

    def __init__(self, world: World, timeout: float | None = None):
        self._group = LaneGroup(world)
        self._result = None

    def ask(self, name: str, *args) -> None:
        self._result = getattr(self._group, name)(*args)

    def answer(self):
        return self._result

    def close(self) -> None:
        self._group.close()


class Worker:
    """A group of lanes in a new process, started at the first `ask` and again at the first one after its death."""

    def __init__(self, world: World, timeout: float | None = None):
        if os.name != "posix":
            raise OSError("worker processes need a POSIX system; use workers=0 here")
        if type(world).__module__ == "__main__":
            raise ValueError(
                f"the world {type(world).__name__} is defined in the main script, where workers cannot import it; "
                "move it to a module, or use workers=0"
            )
        self._world, self._timeout = world, timeout
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ask(self, name: str, *args) -> None:
        """Send an order; a worker found dead before any of its lanes were lost is started again."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send((name, args))
        except OSError:
            return  # `answer` says that it died

    def answer(self):
        """The result of the last order. Raises what the order raised, or `WorkerDied`."""
        try:
            if not self._pipe.poll(self._timeout):
                raise self._died(f"did not answer within {self._timeout:g} s and was ended")
            fine, result = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self._died("died") from error
        if not fine:
            raise result
        return result

    def close(self) -> None:
        """End the process: politely, then after 5 s for certain."""
        if self._process is None:
            return
        self._pipe.close()
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = self._pipe = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno())],
                stdin=subprocess.PIPE,  # open as long as the parent lives
                pass_fds=[theirs.fileno()],
                env=os.environ | ONE_THREAD,
            )
        self._pipe = Connection(ours.detach())
        self._pipe.send(self._world)

    def _died(self, how: str) -> WorkerDied:
        self._process.kill()
        code = self._process.wait()
        because = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        pid = self._process.pid
        self._pipe.close()
        self._process.stdin.close()
        self._process = self._pipe = None
        return WorkerDied(f"worker process {pid} {how} ({because})")


def serve(pipe_number: int) -> None:
    """The life of a worker: read orders until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    from ..machine import prepare

    prepare()
    with Connection(pipe_number) as pipe:
        group = LaneGroup(pipe.recv())
        while True:
            try:
                name, args = pipe.recv()
            except EOFError:
                break
            try:
                answer = True, getattr(group, name)(*args)
            except AttributeError as error:
                answer = False, AttributeError(describe(error))
            pipe.send(answer)
        group.close()


def _leave_with_parent() -> None:
    """Standard input ends when the parent is gone, however it went; a lane that hangs must not outlive it."""
    while os.read(0, 4096):
        pass
    threading.Event().wait(4)  # a parent that closed politely gives the lanes time to close
    os._exit(1)
