"""A stand-in that lives in a process of its own and in real time, as an arm and its cameras do.

The twin's loop then spends on it what it would spend on an arm: a message to the guard, a reading and new pictures. All
moments are on `time.monotonic()`, which the processes of one machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....configs.lanes.process import Companion, at_work
from ..live.seam import Real
from .follow import GuardedStandIn
from .layout import Joints
from .stand_in import StandIn, Truth

ANSWER = 10.0  # s that it may take to answer
BUILD = 120.0  # s, the first time
FRESH = 0.002  # s for which what came with a command counts as the newest
NAP = 0.004  # s between two looks at the clock
GIVES_WAY = 10  # more niceness: where cores are few, reality's drawing is not to delay who follows it
BEHIND = 0.2  # s that it may be behind the clock before its time is let go


class RemoteStandIn(Real):
    """See the module. Arguments as of `StandIn`. ConnectionError: its process is gone."""

    def __init__(self, *stand_in):
        self._companion = Companion(f"{__name__}:serve")
        self._pipe = self._companion.start()
        self._pictures: dict[str, np.ndarray] = {}
        self._times: dict[str, float] = {}
        self._taken = -np.inf  # when the last command brought what was seen
        self.joints: Joints = self._ask(stand_in, BUILD)

    @property
    def time(self) -> float:
        return time.monotonic()

    def begin(self, start: int) -> None:
        """See `Real`."""
        self._pictures, self._times, self._taken = {}, {}, -np.inf
        self._ask(("begin", start), BUILD)

    def send(self, target: np.ndarray) -> np.ndarray:
        """See `Real`. What was seen by then comes with the answer, for the reading that follows."""
        sent, *seen = self._ask(("send", np.asarray(target, float), self._times))
        self._take(*seen)
        self._taken = time.monotonic()
        return sent

    def resume(self) -> None:
        """See `Real`."""
        self._ask(("resume",))

    def observe(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """See `Real`."""
        if time.monotonic() - self._taken > FRESH:
            self._take(*self._ask(("observe", self._times)))
        self._taken = -np.inf
        return dict(self._pictures), dict(self._times)

    def advance(self, seconds: float) -> None:
        """See `Real`."""

    def truth(self) -> Truth:
        """See `StandIn.truth`."""
        return self._ask(("truth",))

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """See `StandIn.history`, on this clock."""
        return self._ask(("history",))

    def close(self) -> None:
        """See `Real`."""
        self._companion.close()

    def _take(self, found: Mapping[str, np.ndarray], times: Mapping[str, float]) -> None:
        self._pictures |= found
        self._times |= times

    def _ask(self, message: tuple, patience: float = ANSWER):
        try:
            self._pipe.send(message)
            if not self._pipe.poll(patience):
                self.close()  # a late answer would be taken for that of the next message
                raise ConnectionError(f"the stand-in did not answer within {patience:g} s")
            fine, answer = self._pipe.recv()
        except (OSError, EOFError) as error:
            raise ConnectionError(f"the stand-in's process is gone: {error}") from error
        if not fine:
            raise answer
        return answer


class _Living:
    """A stand-in whose time is the clock's."""

    def __init__(self, *stand_in: Any):
        world, changes, cameras, views, rate, seed = stand_in
        self.real = GuardedStandIn(StandIn(world, changes, cameras, views, rate, seed, apart=True))
        self._set()

    def live(self) -> None:
        """Let its time come up with the clock, a little at a time."""
        behind = time.monotonic() - self._slips[-1][1] - self.real.time
        if behind > BEHIND:
            self._slips.append((self.real.time, self._slips[-1][1] + behind - NAP))
            behind = NAP
        timestep = self.real.stand_in.model.opt.timestep
        if behind >= timestep:
            self.real.advance(min(5, int(behind / timestep)) * timestep)

    def begin(self, start: int) -> None:
        self.real.begin(start)
        self._set()

    def send(self, target: np.ndarray, known: Mapping[str, float]):
        """What was sent, and what is newer than what is known."""
        return self.real.send(target), *self.observe(known)

    def resume(self) -> None:
        self.real.resume()

    def observe(self, known: Mapping[str, float]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What is newer than what is known."""
        found, times = self.real.observe()
        times = {key: float(self._on_the_clock(moment)) for key, moment in times.items()}
        new = [key for key, moment in times.items() if moment > known.get(key, -np.inf) + 1e-6]
        return {key: found[key] for key in new}, {key: times[key] for key in new}

    def truth(self) -> Truth:
        return self.real.truth()

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        times, values = self.real.history()
        return self._on_the_clock(times), values

    def _set(self) -> None:
        """Its time is the clock's from now on."""
        self._slips = [(-np.inf, time.monotonic() - self.real.time)]  # from which time of its own on, what to add

    def _on_the_clock(self, times: np.ndarray | float) -> np.ndarray:
        """Its own times as moments of the clock; those before a slip are where they were."""
        starts, offsets = np.array(self._slips).T
        return times + offsets[np.searchsorted(starts, times) - 1]


def serve(pipe_number: int, pulse_number: int) -> None:
    """The life of the process: live and answer until the other end is closed."""
    with at_work(pipe_number, pulse_number) as (pipe, _):
        living = None
        os.nice(GIVES_WAY)
        try:
            try:
                living = _Living(*pipe.recv())
                pipe.send((True, living.real.joints))
            except (ValueError, LookupError, OSError, RuntimeError) as error:
                pipe.send((False, error))
                return
            while True:
                living.live()
                if not pipe.poll(NAP):
                    continue
                name, *given = pipe.recv()
                try:
                    pipe.send((True, getattr(living, name)(*given)))
                except (ValueError, LookupError, RuntimeError) as error:
                    pipe.send((False, error))
        except (EOFError, OSError):
            return  # the other end is gone
        finally:
            if living is not None:
                living.real.close()
