"""The guard's end of the line to a shadow, which looks ahead (`twin/beside.py`): asked, heard, and never waited for.

One question is under way at a time: where the newest command leads, and where the arm is. The answer counts at the step
after it comes, and from the measurement that it begins at for `FRESH` s, or, a veto, until a newer answer lifts it, for
`LOST` s at most: no way becomes free by silence. A shadow that is slower is asked less often. One that says nothing for
`LOST` s, whose answers come too late to count for as long, or whose process is gone, is lost: the guard goes on by its
own model, or stops the arm where `stops` says so. Nothing here knows of a twin.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from . import talk
from .envelope import Foresight, Measured
from .talk import Line

FRESH = 0.12  # s that leave to go on counts; a shadow looks ahead at least as far
LOST = 1.0  # s without an answer, or with none that counts; and that a veto counts at most


class Foreseer(Protocol):
    """Who looks ahead for a guard."""

    stops: bool  # whether a lost one stops the arm

    def ask(self, ahead: np.ndarray, measured: Measured) -> None:
        """What would come of `ahead` (D,)? Does not wait."""
        ...

    def newest(self, now: float) -> Foresight | None:
        """The newest answer; None where none is new enough. Does not wait."""
        ...

    def lost(self, now: float) -> str:
        """Why no answer is to be expected any more; "" while one is."""
        ...

    def forget(self, now: float) -> None:
        """The arm is taken hold of anew: answers to what was asked before do not count."""
        ...


def counts(answer: Foresight | None, now: float) -> bool:
    """Whether an answer is new enough for a set-point of `now`, s."""
    return answer is not None and now - answer.time <= (FRESH if answer.allowed else LOST)


class Outlook:
    """See `Foreseer`. `pipe`: to the shadow's process."""

    def __init__(self, pipe: Connection, stops: bool = False):
        self.stops = stops
        self._line: Line | None = Line(pipe)
        self._asked: float | None = None  # s, when the question under way was asked
        self._answer: Foresight | None = None
        self.forget(-np.inf)

    def forget(self, now: float) -> None:
        self._since = now
        self._stepped = self._counted = -np.inf  # s, of the newest set-point, and the newest that an answer counted for

    def ask(self, ahead: np.ndarray, measured: Measured) -> None:
        answer, moment = self.newest(measured.time), measured.time
        if answer is not None or moment - self._stepped > LOST:  # after a pause nothing has been missed
            self._counted = moment
        self._stepped = moment
        if self._line is None or self._asked is not None or not np.isfinite(measured.position).all():
            return
        try:
            self._line.tell(ahead=ahead.tolist(), position=np.asarray(measured.position).tolist(), time=moment)
        except OSError:
            self._line = None
        self._asked = moment

    def newest(self, now: float) -> Foresight | None:
        self._hear()
        known = self._line is not None and self._answer is not None and self._answer.time >= self._since
        return self._answer if known and counts(self._answer, now) else None

    def lost(self, now: float) -> str:
        if self._line is None:
            return "the shadow's process is gone"
        silent = 0.0 if self._asked is None else now - self._asked
        if silent > LOST:
            return f"the shadow is silent for {silent:.1f} s"
        late = self._stepped - self._counted if np.isfinite(self._counted) else 0.0
        return f"the shadow's answers come too late to count for {late:.1f} s" if late > LOST else ""

    def _hear(self) -> None:
        try:
            while self._line is not None and self._line.hears(0):
                said = talk.told(self._line.hear())
                if said is not None:
                    self._answer, self._asked = unpack(said), None
        except (EOFError, OSError):
            self._line = None


def pack(foresight: Foresight) -> dict:
    """JSON-able."""
    return vars(foresight) | {"torque": np.asarray(foresight.torque, float).tolist()}


def unpack(said: dict) -> Foresight:
    """What `pack` gave."""
    words = {name: tuple(said[name]) for name in ("reasons", "warnings")}
    return Foresight(**(said | words | {"torque": np.array(said["torque"], float)}))
