"""How whoever waits for lanes knows that they still move: a few numbers, written at every control step.

The time limit is one of a control step, however many steps and lanes an order has, so that a slow world is not taken
for one that hangs. Shared between processes as a small piece of memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time

BUILDING = 10.0  # times longer may it take to build a lane: models are compiled, meshes are read
SLOWER = 10.0  # times the slowest step so far is not yet a hang
EPISODE = 60.0  # times the limit of a step is that of a whole episode, in the environment's own time
TIMEOUT = 60.0  # s, of a control step
_BEATS, _SLOT, _FACTOR, _SLOWEST, _SIZE = 0, 1, 2, 3, 4


def check_timeout(timeout: float) -> None:
    """Raise ValueError for what is no time limit of a control step."""
    if not timeout >= 0:  # NaN too
        raise ValueError(f"timeout must be 0 (no limit) or more seconds, got {timeout:g}")


class Pulse:
    """Written by the process that steps lanes.

    Args:
        shared: file number of memory that two processes map; None: own.
        rest: how many times longer than a control step nobody's turn may last; inf where a policy thinks meanwhile.
    """

    def __init__(self, shared: int | None = None, rest: float = 1.0):
        self._rest = rest
        size = 8 * _SIZE
        self._memory = bytearray(size) if shared is None else mmap.mmap(shared, size)
        self._numbers = memoryview(self._memory).cast("d")
        self._last = time.perf_counter()

    def begin(self, slot: int, building: bool = False) -> None:
        """A lane's turn."""
        self._numbers[_SLOT], self._numbers[_FACTOR] = slot + 1, BUILDING if building else 1.0
        self._numbers[_BEATS] += 1
        self._last = time.perf_counter()

    def beat(self) -> None:
        """One more control step, or a reset, is done."""
        now = time.perf_counter()
        if now - self._last > self._numbers[_SLOWEST] and self._numbers[_FACTOR] == 1.0:
            self._numbers[_SLOWEST] = now - self._last
        self._numbers[_BEATS] += 1
        self._last = now

    def rest(self, building: bool = False) -> None:
        """No lane's turn."""
        self._numbers[_SLOT], self._numbers[_FACTOR] = 0, max(BUILDING, self._rest) if building else self._rest
        self._numbers[_BEATS] += 1

    @property
    def beats(self) -> float:
        return self._numbers[_BEATS]

    @property
    def slot(self) -> int | None:
        """Whose turn it is."""
        return int(self._numbers[_SLOT]) - 1 if self._numbers[_SLOT] else None

    def limit(self, timeout: float) -> float:
        """Seconds after which what happens now is taken for a hang."""
        return max(timeout * self._numbers[_FACTOR], SLOWER * self._numbers[_SLOWEST])

    def close(self) -> None:
        """Give shared memory back."""
        self._numbers.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()


class Watch:
    """Counts how long a pulse has not moved. Time in which the watcher itself did not run, for example in a machine
    that was asleep, does not count."""

    def __init__(self, pulse: Pulse, timeout: float, grace: float = 0.0):
        self._pulse, self._timeout, self._grace = pulse, timeout, grace
        self.pause = min(1.0, timeout / 4)  # s between two looks
        self._looked, self.beats, self.waited = time.monotonic(), pulse.beats, 0.0

    def stuck(self) -> bool:
        """Look: whether nothing has moved for longer than the limit."""
        now = time.monotonic()
        spent, self._looked = min(now - self._looked, 2 * self.pause), now
        if self._pulse.beats != self.beats:
            self.beats, self.waited = self._pulse.beats, 0.0
            return False
        self.waited += spent
        return self.waited > self._pulse.limit(self._timeout) + self._grace


def shared_memory() -> int:
    """File number of a little memory that a child process can be handed; the caller closes it."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("lanes")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, 8 * _SIZE)
    return number
