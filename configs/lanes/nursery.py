"""A process that loads what several helpers need, once, and forks them, so that each begins with it loaded.

Loading torch and a simulator takes seconds of a core and hundreds of megabytes in every fresh process; forked ones
share both. Forking is safe for a process with one thread only, and the nursery is nothing else: started fresh, it
imports and compiles models, and opens no window and no GPU. Where something that it loaded began a thread, it starts
its helpers fresh instead. What is loaded is not its business: a function that it is given does that.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from multiprocessing.connection import Connection

from ..ends import held_back, leave_to_parent
from .boot import ONE_THREAD, words

GONE = -signal.SIGKILL  # exit code of a helper of which nobody can tell any more
LOOK = 0.01  # s between two looks at a helper that is ending
PATIENCE = 5.0  # s that a nursery may take to answer when it has loaded


def can_fork() -> bool:
    """Whether processes may be forked here: macOS's own libraries do not bear it."""
    return sys.platform == "linux"


class Nursery:
    """One such process, which begins to load at once.

    Args:
        load: `package.module:function`, called with the arguments `given`; what it raises is left to the helpers.
    """

    def __init__(self, load: str, *given: object):
        ours, theirs = socket.socketpair()
        with theirs, held_back():
            self._process = subprocess.Popen(
                words(f"{__name__}:{serve.__name__}", theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | ONE_THREAD,
            )
        self._socket, self._pipe = ours, Connection(os.dup(ours.fileno()))
        self._helpers = 0
        self._born: list[int] = []  # pids
        self._say((load, given))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, place: str, passed: tuple[int, int], standard_input: int) -> Forked:
        """A helper that runs the function `place` with two open files; asked for now, born when all is loaded."""
        helper, self._helpers = Forked(self, self._helpers), self._helpers + 1
        self._say(("fork", place))
        with contextlib.suppress(OSError):  # who waits for its answers hears that it is not there
            socket.send_fds(self._socket, [b"."], [*passed, standard_input])
        return helper

    def pid_of(self, helper: int, patience: float) -> int:
        """Told at its birth; a nursery that does not tell in time is ended. Raises ProcessLookupError: it is gone."""
        while len(self._born) <= helper:
            self._born.append(self._hear(patience))
        return self._born[helper]

    def code_of(self, helper: int) -> int | None:
        """Its exit code if it has ended. Raises ProcessLookupError: the nursery is gone."""
        while len(self._born) < self._helpers:
            self._born.append(self._hear(PATIENCE))
        self._say(("code", helper))
        return self._hear(PATIENCE)

    def _hear(self, patience: float):
        with contextlib.suppress(EOFError, OSError):
            if self._pipe.poll(patience):
                return self._pipe.recv()
        self._process.kill()
        raise ProcessLookupError

    def close(self) -> None:
        """End it. Helpers that still run are their own masters."""
        self._pipe.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _say(self, message: object) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(message)


class Forked:
    """A helper of a nursery, with what is used of a `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, number: int):
        self._nursery, self._number = nursery, number
        self._pid: int | None = None
        self._code: int | None = None

    @property
    def pid(self) -> int | None:
        """Waits until it is born; None where the nursery is gone."""
        return self._find(10 * PATIENCE)

    def kill(self) -> None:
        """One that is not born yet goes with its nursery."""
        pid = self._find(0.5)
        if pid is not None and self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            try:
                self._code = self._nursery.code_of(self._number)
            except ProcessLookupError:
                self._code = GONE
            if self._code is None and end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked helper", timeout or 0.0)
            time.sleep(LOOK if self._code is None else 0)
        return self._code

    def _find(self, patience: float) -> int | None:
        if self._pid is None and self._code is None:
            with contextlib.suppress(ProcessLookupError):
                self._pid = self._nursery.pid_of(self._number, patience)
        return self._pid


def serve(number: int) -> None:
    """The life of a nursery, and of each of its helpers: those leave the loop with what they are to do."""
    born = _bring_up(number)
    if born is not None:
        place, passed = born
        _reseed()
        module, name = place.split(":")
        getattr(import_module(module), name)(*passed)


def _bring_up(number: int) -> tuple[str, list[int]] | None:
    """Load, then answer until the parent is gone; in a helper, what it is to do."""
    leave_to_parent()
    helpers: list[int | subprocess.Popen] = []
    with socket.socket(fileno=number) as line, Connection(os.dup(number)) as pipe:
        try:
            (load, given) = pipe.recv()
            module, name = load.split(":")
            with contextlib.suppress(Exception):  # a helper meets the same, and tells
                getattr(import_module(module), name)(*given)

            while True:
                what, about = pipe.recv()
                if what == "fork":
                    _, files, _, _ = socket.recv_fds(line, 1, 3)
                    helper = _begin(about, files)
                    if helper is None:
                        return about, files[:2]
                    helpers.append(helper)
                    pipe.send(helper if isinstance(helper, int) else helper.pid)
                else:
                    pipe.send(_code(helpers[about]))
        except (EOFError, OSError):
            return None


def _begin(place: str, files: list[int]) -> int | subprocess.Popen | None:
    """A helper with these files, forked or else fresh; None in the helper itself."""
    *passed, standard_input = files
    if len(os.listdir("/proc/self/task")) > 1:
        fresh = subprocess.Popen(words(place, *passed), stdin=standard_input, pass_fds=passed)
        for number in files:
            os.close(number)
        return fresh
    pid = os.fork()
    if pid:
        for number in files:
            os.close(number)
        return pid
    os.dup2(standard_input, 0)
    os.close(standard_input)
    return None


def _code(helper: int | subprocess.Popen) -> int | None:
    if not isinstance(helper, int):
        return helper.poll()
    pid, status = os.waitpid(helper, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _reseed() -> None:
    """Helpers draw nothing in common from generators that nobody seeds."""
    random.seed()
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed()
    if "torch" in sys.modules:
        import torch

        torch.default_generator.seed()
