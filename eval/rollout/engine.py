"""Where the hands of a crew are: processes and threads of this machine, or a cluster's workers; chosen by `--engine`.

An engine gives the hands, and says which of them have something to say. All else is the crew's: who gets which block,
what is done again, what is a row. So a block is done by the same code in the same way whoever runs it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Protocol

from ...configs.lanes.process import WorkerDied
from .hands import Crewed, Ordered, ProcessHand, ThreadHand
from .rollout import Block


class Pipe(Protocol):
    """The end of a hand that the crew hears."""

    @abstractmethod
    def poll(self) -> bool:
        """Whether there is something to hear."""
        ...

    @abstractmethod
    def recv(self) -> tuple[str, object]:
        """What was said, see `station.py`. Raises EOFError or OSError where nobody will say more."""
        ...


class Hand(Protocol):
    """Runs one block at a time, somewhere."""

    number: int
    needs_torch: bool
    order: tuple[Ordered, Block] | None
    left: set[int]  # env seeds of the order that are not done
    death: WorkerDied | None  # it could not be started

    @property
    def pid(self) -> int | None: ...

    @property
    def pipe(self) -> Pipe | None:
        """None while it is not started."""
        ...

    @abstractmethod
    def ready(self) -> bool:
        """Whether an order would be begun now; one that is not gets itself ready."""
        ...

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def reopen(self) -> None:
        """Open the world that the crew is in now."""
        ...

    @abstractmethod
    def give(self, order: tuple[Ordered, Block]) -> None: ...

    @abstractmethod
    def rested(self) -> None:
        """It has answered an order whole."""
        ...

    @abstractmethod
    def stuck(self) -> WorkerDied | None:
        """Whether it hangs; one that does is ended."""
        ...

    @abstractmethod
    def died(self) -> WorkerDied:
        """What became of one that says no more."""
        ...

    @abstractmethod
    def dismiss(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Engine(Protocol):
    """Gives a crew its hands."""

    @abstractmethod
    def hands(self, crew: Crewed, count: int) -> Sequence[Hand]:
        """So many, not started."""
        ...

    @abstractmethod
    def wait(self, hands: Sequence[Hand], timeout: float) -> Sequence[Hand]:
        """Those with an order that have something to say; after `timeout` s at most."""
        ...

    @abstractmethod
    def told(self) -> dict:
        """For a manifest, beside what the crew says."""
        ...

    @abstractmethod
    def close(self) -> None: ...


class LocalEngine:
    """Processes of this machine; with `overlap` threads, whose environments are in processes.

    Args:
        overlap: the policy stays in this process.
    """

    def __init__(self, overlap: bool = False):
        self.overlap = overlap

    def hands(self, crew: Crewed, count: int) -> Sequence[Hand]:
        kind = ThreadHand if self.overlap else ProcessHand
        return [kind(crew, number) for number in range(count)]

    def wait(self, hands: Sequence[Hand], timeout: float) -> Sequence[Hand]:
        busy = {hand.pipe: hand for hand in hands if hand.order is not None and isinstance(hand.pipe, Connection)}
        heard = wait(list(busy), timeout) if busy else []
        return [hand for pipe, hand in busy.items() if pipe in heard]

    def told(self) -> dict:
        return {}

    def close(self) -> None:
        """Nothing is held."""
