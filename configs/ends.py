"""How a command ends from outside: Ctrl-C, a polite kill, a closed terminal, an output that nobody takes any more.

`listening`: the first of SIGINT, SIGTERM and SIGHUP ends the work as Ctrl-C does, by a KeyboardInterrupt in the main
thread, so that whoever works saves and says how to go on. Later ones are dropped: they cannot end the saving. (SIGQUIT
and SIGKILL still end at once.) SIGHUP that the parent ignores, as `nohup` does, stays ignored.

`outputs`: what cannot be written to standard output or error is dropped, and noted, instead of ending the work. A
descriptor that was closed (`>&-`) is held by the null device, so that no file of ours takes its number.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
UNHEARD = 3  # exit status of a command that is done, but could not say all that it had to say
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # nobody will ever read there again
_heard: list[int] = []  # signals since the outermost `listening` began
_depth = 0


def first_signal() -> int | None:
    """The signal that asked this process to end, None if none did."""
    return _heard[0] if _heard else None


def _interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def listening(answer: Callable[[], object] = _interrupt) -> Iterator[None]:
    """Inside, the first signal that asks to end calls `answer`, in the main thread; later ones do nothing.

    May be nested: the innermost one answers. In other threads, where Python gives no signals, nothing changes.
    """
    global _depth

    def hear(number: int, _frame: object) -> None:
        _heard.append(number)
        if len(_heard) == 1:
            answer()

    before = {}
    if not _depth:
        _heard.clear()
    _depth += 1
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                before[number] = signal.signal(number, hear) or signal.SIG_DFL
        yield
    finally:
        _depth -= 1
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_to_parent() -> None:
    """For helper processes: the signals are the parent's to answer, which ends its helpers itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, signals that ask to end wait; a process that is started here begins with them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Output:
    """A text stream that drops what it cannot write and remembers that it did (`lost`).

    Args:
        stream: what is written to; None: a descriptor that was closed, everything is dropped.
        spoken: of a command whose work is this output: a reader that goes away has seen enough, and is no loss.
    """

    def __init__(self, stream: TextIO | None, spoken: bool = False):
        self._absent = stream is None
        self._stream: TextIO = open(os.devnull, "w", encoding="utf-8") if stream is None else stream
        self._spoken = spoken
        self.lost = False

    def write(self, text: str) -> int:
        self.lost = self.lost or (self._absent and bool(text) and not self._spoken)
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a terminal of few characters
            plain = text.encode(self._stream.encoding or "ascii", "backslashreplace").decode("ascii", "replace")
            self._stream.write(plain)
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def isatty(self) -> bool:
        return not self.lost and not self._stream.closed and self._stream.isatty()

    def settle(self) -> None:
        """Write what is still held; what cannot be written is given up, so that the interpreter's end is quiet."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._note(error)
            self._forget()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def _drop(self, error: Exception) -> None:
        self._note(error)
        if isinstance(error, OSError) and error.errno in GONE:
            self._forget()

    def _note(self, error: Exception) -> None:
        self.lost = self.lost or not (self._spoken and isinstance(error, BrokenPipeError))

    def _forget(self) -> None:
        """Let the descriptor lead nowhere: what is held, and what libraries and children write, ends there."""
        try:
            number, null = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
            self._stream.flush()
        except (OSError, ValueError):
            pass


@contextmanager
def outputs(spoken: bool = False) -> Iterator[tuple[Output, Output]]:
    """Inside, standard output and error are `Output`s; `spoken` says that they are all the work."""
    _occupy()
    before = sys.stdout, sys.stderr
    streams = Output(before[0], spoken), Output(before[1], spoken)
    sys.stdout, sys.stderr = streams
    try:
        yield streams
    finally:
        for stream in streams:
            stream.settle()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Open the null device at each of the three standard descriptors that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
