"""A group of lanes in a process of its own, or in this one, spoken to in the same way.

The parent asks through `Worker.ask` and `Worker.answer`. A worker never imports torch. A worker that dies, or in which
no control step ends within the time limit, raises `WorkerDied`. Lanes in this process (`Local`) have the same limit, as
far as one process can keep it: a simulator that hangs in Python is interrupted by a signal, of one that hangs outside
of it a line tells.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from ..world import World
from .lane import LaneHangs, describe, open_group
from .process import Companion, WorkerDied, at_work
from .pulse import Pulse, Watch

__all__ = ["Local", "Worker", "WorkerDied"]

RING = signal.SIGURG  # interrupts a lane of this process that hangs; ignored where nobody listens
GRACE = 5.0  # s after the signal until a lane of this process is said to hang outside of Python


class Local:
    """A group of lanes in this process, spoken to like a `Worker`.

    Args:
        timeout: of a control step in s, 0: none.
        pulse: where somebody else watches this process too, and ends it if it hangs outside of Python.
    """

    pid = None

    def __init__(self, world: World, timeout: float = 0.0, pulse: Pulse | None = None):
        self._group = open_group(world, pulse)
        self._watched = pulse is not None
        self._result = None
        self._timeout, self._busy = timeout, False
        several = 1 if world.by_the_clock else 2  # an arm has no workers
        more = f" and --workers {several}: a worker that hangs is ended and its episode becomes a row with an error"
        self._elsewhere = "" if world.moves_arm else more
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
            elif stuck and not told and not self._watched:
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
            f"interrupted in this process. If it hangs, end it (kill -9 {os.getpid()}) and go on with --resume"
            f"{self._elsewhere}",
            file=sys.stderr,
            flush=True,
        )


_LOCALS: set[Local] = set()  # that were asked by the main thread


def _ring(number, frame) -> None:
    for host in tuple(_LOCALS):
        host.interrupt()


class Worker(Companion):
    """A group of lanes in a new process, started at the first `ask` and again at the first one after its death.

    Args:
        timeout: s that a control step may take; longer where the world is slow or a lane is being built; 0: for ever.
    """

    def __init__(self, world: World, timeout: float = 0.0):
        super().__init__(f"{__name__}:serve", timeout)
        refuse_main(world)
        self._world = world

    def ask(self, name: str, *args) -> None:
        """Send an order; a worker found dead before any of its lanes were lost is started again."""
        if self.pipe is None:
            try:
                self.start()
            except OSError as error:  # no memory, no processes, no open files
                self._failed = f"worker process cannot be started: {error}"
                return
        try:
            self.pipe.send((name, args))
        except OSError:
            return  # `answer` says that it died

    def answer(self):
        """The result of the last order. Raises what the order raised, or `WorkerDied`."""
        if self.pipe is None:
            raise WorkerDied(self._failed, None, True)
        try:
            self._wait()
            fine, result = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self.died() from error
        if not fine:
            raise result
        return result

    def start(self) -> Connection:
        pipe = super().start()
        with contextlib.suppress(OSError):  # `answer` says that it died
            pipe.send(self._world)
        return pipe

    def _wait(self) -> None:
        """Until an answer has come. Raises WorkerDied where no control step ends within the limit."""
        if not self._timeout:
            self.pipe.poll(None)
            return
        watch = self.watch()
        while not self.pipe.poll(watch.pause):
            if death := self.stuck():
                raise death


def refuse_main(*objects: object) -> None:
    """Raise ValueError for an object of the main script, which no worker can import."""
    for one in objects:
        if type(one).__module__ == "__main__":
            raise ValueError(
                f"the world {type(one).__name__} is defined in the main script, where workers cannot import it; "
                "move it to a module, or use workers=0"
            )


def serve(pipe_number: int, pulse_number: int) -> None:
    """The life of a worker: read orders until the parent closes the pipe."""
    with at_work(pipe_number, pulse_number) as (pipe, pulse):
        try:
            group = open_group(pipe.recv(), pulse)
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
