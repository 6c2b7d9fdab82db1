"""Progress of long work: a bar on a terminal, a plain line now and then in a log file. Rate and time left in both."""

from __future__ import annotations

import sys
import time
from contextlib import suppress


class Progress:
    """A counter that shows itself.

    with Progress("training", total=1000, unit="steps") as progress:
        progress.update(10, "loss 0.12")
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0, every: float = 15.0):
        self.what, self.total, self.unit, self.done, self.every = what, total, unit, done, every
        self._first, self._begin = done, time.monotonic()
        self._spoke = self._begin
        self._bar = self._task = None

    def __enter__(self) -> Progress:
        if on_terminal():
            from rich import progress
            from rich.console import Console

            columns = ("{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), "{task.fields[note]}")
            self._bar = progress.Progress(*columns, progress.TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, note="")
            self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.done > self._first:
            self._speak("")

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total are finished; fewer than at the beginning where some are done anew."""
        if done < self._first:
            self._first, self._begin = done, time.monotonic()
        self.done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=f"{self.rate:.3g} {self.unit}/s  {note}")
        elif time.monotonic() - self._spoke > self.every:
            self._spoke = time.monotonic()
            self._speak(note)

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._begin, 1e-9)

    def _speak(self, note: str) -> None:
        left = (self.total - self.done) / self.rate if self.rate else float("inf")
        clock = f"{int(left // 60)}:{int(left % 60):02d} left" if left < 1e7 else "? left"
        line = f"{self.what} {self.done}/{self.total} {self.unit}, {self.rate:.3g}/s, {clock}  {note}"
        if sys.stderr is None:
            return
        with suppress(OSError):  # nobody reads it any more, or the log's disk is full: the work goes on
            print(line, file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether somebody may be looking at standard error."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def counted(number: int, what: str, one: str = "", many: str = "") -> str:
    """A number, what is counted, and the verb of it: "1 episode is", "2 episodes are", "3 policies", "4 batches"."""
    verb = one if number == 1 else many
    if number != 1 and what.endswith("y") and what[-2] not in "aeiou":
        what = f"{what[:-1]}ies"
    elif number != 1:
        what += "es" if what.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number} {what}{' ' if verb else ''}{verb}"
