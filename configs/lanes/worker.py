"""A group of lanes in a process of its own: started fresh (never forked), one thread, gone with its parent.

The parent speaks to it through `Worker.ask` and `Worker.answer`; messages are pickled over a socket between the two and
never touch a disk. A worker never imports torch. A worker that dies, or in which no control step ends within the time
limit, raises `WorkerDied`. Lanes in this process (`Local`) have the same limit, as far as one process can keep it: a
simulator that hangs in Python is interrupted by a signal, of one that hangs outside of it a line tells.
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

from ..ends import held_back, leave_to_parent, outputs
from ..world import World
from .lane import LaneGroup, LaneHangs, describe
from .pulse import Pulse, Watch, shared_memory

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB")}
_BOOT = (
    f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import serve; "
    "serve(*map(int, sys.argv[2:]))"
)


# Sent by the system that has no memory left, a cluster, a person; a simulator that crashes ends by another one.
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU}
RING = signal.SIGURG  # interrupts a lane of this process that hangs; ignored where nobody listens
GRACE = 5.0  # s after the signal until a lane of this process is said to hang outside of Python


class WorkerDied(RuntimeError):
    """The process is gone, or was ended because it did not answer in time.

    Attributes:
        slot: whose turn it was; None: nobody's.
        outside: whether the cause lies outside of the lane.
    """

    def __init__(self, text: str, slot: int | None, outside: bool):
        super().__init__(text)
        self.slot, self.outside = slot, outside or slot is None


class Local:
    """A group of lanes in this process, spoken to like a `Worker`. `timeout`: of a control step in s, 0: none."""

    pid = None

    def __init__(self, world: World, timeout: float = 0.0):
        self._group = LaneGroup(world)
        self._result = None
        self._timeout, self._busy = timeout, False
        self._watch = Watch(self._group.pulse, timeout) if timeout else None
        self._stuck, self._over = None, threading.Event()  # beats at which it was found stuck
        self._thread: threading.Thread | None = None

    def ask(self, name: str, *args) -> None:
        if self._thread is None and self._timeout:
            self._begin_watching()
        self._busy = True
        try:
            self._result = getattr(self._group, name)(*args)
        finally:
            self._busy, self._stuck = False, None

    def answer(self):
        return self._result

    def close(self) -> None:
        self._over.set()
        _LOCALS.discard(self)
        self._group.close()

    def interrupt(self) -> None:
        """In the main thread, from a signal: raise inside the lane that hangs, if it still does."""
        if self._busy and self._stuck == self._group.pulse.beats:
            self._stuck = None
            raise LaneHangs(f"did not answer within {self._group.pulse.limit(self._timeout):g} s and was interrupted")

    def _begin_watching(self) -> None:
        self._thread = threading.Thread(target=self._keep_watch, name="lanes", daemon=True)
        self._thread.start()
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(RING) is signal.SIG_DFL:  # else somebody else uses it
                signal.signal(RING, _ring)
            _LOCALS.add(self)

    def _keep_watch(self) -> None:
        """Another thread: ring the main one when a lane hangs, and say so where that does not help."""
        beats, rung, told = None, 0.0, False
        while not self._over.wait(self._watch.pause):
            stuck = self._watch.stuck()
            if not self._busy:
                self._watch.waited = 0.0
            elif stuck and self._watch.beats != beats:
                beats, rung, told = self._watch.beats, self._watch.waited, False
                self._ring()
            elif stuck and self._watch.waited <= rung + GRACE:
                self._ring()  # a simulator may have swallowed the first one
            elif stuck and not told:
                told = True
                self._tell()

    def _ring(self) -> None:
        self._stuck = self._watch.beats
        if self in _LOCALS and signal.getsignal(RING) is _ring:
            signal.pthread_kill(threading.main_thread().ident, RING)

    def _tell(self) -> None:
        slot = self._group.pulse.slot
        print(
            f"\nenv seed {self._group.starts.get(slot)} has not answered for {self._watch.waited:.0f} s, and cannot be "
            f"interrupted in this process. If it hangs, end it (kill -9 {os.getpid()}) and go on with --resume and "
            "--workers 2: a worker that hangs is ended and its episode becomes a row with an error",
            file=sys.stderr,
            flush=True,
        )


_LOCALS: set[Local] = set()  # that were asked by the main thread


def _ring(number, frame) -> None:
    for host in tuple(_LOCALS):
        host.interrupt()


class Worker:
    """A group of lanes in a new process, started at the first `ask` and again at the first one after its death.

    Args:
        timeout: s that a control step may take; longer where the world is slow or a lane is being built; 0: for ever.
    """

    def __init__(self, world: World, timeout: float = 0.0):
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
        self._pulse: Pulse | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ask(self, name: str, *args) -> None:
        """Send an order; a worker found dead before any of its lanes were lost is started again."""
        if self._process is None:
            try:
                self._start()
            except OSError as error:  # no memory, no processes, no open files
                self._failed = f"worker process cannot be started: {error}"
                return
        try:
            self._pipe.send((name, args))
        except OSError:
            return  # `answer` says that it died

    def answer(self):
        """The result of the last order. Raises what the order raised, or `WorkerDied`."""
        if self._process is None:
            raise WorkerDied(self._failed, None, True)
        try:
            self._wait()
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
        self._forget()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        memory = shared_memory()
        try:
            with theirs, held_back():
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), str(theirs.fileno()), str(memory)],
                    stdin=subprocess.PIPE,  # open as long as the parent lives
                    pass_fds=[theirs.fileno(), memory],
                    env=os.environ | ONE_THREAD,
                )
            self._pulse = Pulse(memory)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(memory)
        self._pulse.rest(building=True)
        self._pipe = Connection(ours.detach())
        try:
            self._pipe.send(self._world)
        except OSError:
            return  # `answer` says that it died

    def _wait(self) -> None:
        """Until an answer has come. Raises WorkerDied where no control step ends within the limit."""
        if not self._timeout:
            self._pipe.poll(None)
            return
        watch = Watch(self._pulse, self._timeout)
        while not self._pipe.poll(watch.pause):
            if watch.stuck():
                limit = self._pulse.limit(self._timeout)
                raise self._died(f"did not answer within {limit:g} s and was ended", hangs=True)

    def _died(self, how: str, hangs: bool = False) -> WorkerDied:
        if hangs:
            self._process.kill()
        try:
            code = self._process.wait(5)  # its end of the pipe is closed: it is ending
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        because = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        pid, slot = self._process.pid, self._pulse.slot
        self._pipe.close()
        self._process.stdin.close()
        self._forget()
        return WorkerDied(f"worker process {pid} {how} ({because})", slot, not hangs and -code in FROM_OUTSIDE)

    def _forget(self) -> None:
        self._pulse.close()
        self._process = self._pipe = self._pulse = None


def serve(pipe_number: int, pulse_number: int) -> None:
    """The life of a worker: read orders until the parent closes the pipe."""
    leave_to_parent()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    from ..machine import prepare

    prepare()
    with outputs(), Connection(pipe_number) as pipe:
        pulse = Pulse(pulse_number)
        os.close(pulse_number)
        try:
            group = LaneGroup(pipe.recv(), pulse)
        except (EOFError, ConnectionError):  # the parent went at once
            return
        while True:
            try:
                name, args = pipe.recv()
            except (EOFError, ConnectionError):
                break
            try:
                answer = True, getattr(group, name)(*args)
            except AttributeError as error:
                answer = False, AttributeError(describe(error))
            pulse.rest()
            try:
                pipe.send(answer)
            except ConnectionError:
                break
        group.close()


def _leave_with_parent() -> None:
    """Standard input ends when the parent is gone, however it went; a lane that hangs must not outlive it."""
    while os.read(0, 4096):
        pass
    threading.Event().wait(4)  # a parent that closed politely gives the lanes time to close
    os._exit(1)
