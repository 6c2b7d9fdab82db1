"""A worker of a cluster as the crew sees it: an actor of Ray, made anew where it was lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Protocol

from ....configs.lanes.lane import MachineError
from ....configs.lanes.process import WorkerDied
from ....configs.world import World, written_out
from ..hands import Crewed, Ordered
from ..recipes import Recipe
from ..rollout import Block
from ..station import Opening, Order
from .foreman import LOST, Loss

STARTS = 5  # times in a row that a worker may be lost before it is ready
PAUSE = 1.0  # s before it is started again


class Employer(Protocol):
    """What a hand asks of its cluster, see `connect.py`."""

    def hire(self, threads: int) -> Any: ...

    def greet(self, actor: Any, opening: Opening) -> Any: ...

    def check(self, known: Mapping[str, Any]) -> None: ...

    def agree(self, world: World) -> None: ...

    def packed(self, recipe: Recipe, shelf: str) -> tuple[Recipe, dict[str, Any]]: ...

    def has_come(self, reference: Any) -> bool: ...

    def fetch(self, reference: Any) -> Any: ...

    def dismiss(self, actor: Any) -> None: ...


class Stream:
    """What a foreman answers to one order."""

    def __init__(self, cluster: Employer, answers: Any):
        self.answers, self.loss = answers, Loss("a worker of the cluster was lost", None, True)
        self.gone = False  # the foreman, too
        self._cluster = cluster

    def poll(self) -> bool:
        return self._cluster.has_come(self.answers)

    def recv(self) -> tuple[str, object]:
        """Raises EOFError where the foreman is gone, or the process that it kept; `loss` tells."""
        try:
            kind, content = self._cluster.fetch(next(self.answers))
        except StopIteration:
            self.gone = True
            raise EOFError from None
        except WorkerDied as death:
            self.gone, self.loss = True, Loss(str(death), death.slot, death.outside)
            raise EOFError from None
        if kind == LOST:
            self.loss = content
            raise EOFError
        return kind, content


class RayHand:
    """One worker of the cluster.

    Args:
        threads: of torch, and cores that it takes.
    """

    pid = None

    def __init__(self, crew: Crewed, number: int, cluster: Employer, threads: int):
        self.crew, self.number, self.needs_torch = crew, number, True
        self.order: tuple[Ordered, Block] | None = None
        self.left: set[int] = set()
        self.death: WorkerDied | None = None
        self.pipe: Stream | None = None
        self.greeting: Any = None  # what will be known when the actor is up
        self.known: dict | None = None  # node, process and shelf of the actor
        self.awaited = False  # an order waits for it
        self.actor: Any = None
        self._cluster, self._threads = cluster, threads
        self._lost, self._not_before = 0, 0.0

    def start(self) -> None:
        """Ask the cluster for a worker; it opens its environments when it is there."""
        if self.actor is None:
            self.actor = self._cluster.hire(self._threads)
            self.greeting = self._cluster.greet(self.actor, self._opening())

    def reopen(self) -> None:
        """Each order says in which world; whether the nodes have what it needs is asked now."""
        self._cluster.agree(self.crew.world)

    def ready(self) -> bool:
        """Whether its worker is up.

        Raises:
            MachineError: it was lost again and again before it was up.
            OtherMachineError: it would not compute the same.
        """
        self.awaited = self.known is None
        if self.known is not None:
            return True
        if time.monotonic() < self._not_before:
            return False
        self.start()
        if not self._cluster.has_come(self.greeting):
            return False
        try:
            known = self._cluster.fetch(self.greeting)
        except WorkerDied as death:
            self._lost += 1
            if self._lost >= STARTS:
                raise MachineError(f"worker {self.number} of the cluster was lost {STARTS} times: {death}") from death
            self._forget()
            self._not_before = time.monotonic() + PAUSE
            return False
        self._cluster.check(known)
        self.known, self._lost, self.awaited = known, 0, False
        return True

    def give(self, order: tuple[Ordered, Block]) -> None:
        job, block = self.order = order
        self.left = set(block.todo)
        assert self.known is not None  # it is ready
        recipe, parcels = self._cluster.packed(job.recipe, self.known["shelf"])
        sent = self.actor.work.options(num_returns="streaming").remote(self._opening(), Order(recipe, block), parcels)
        self.pipe = Stream(self._cluster, sent)

    def rested(self) -> None:
        """It keeps what it has opened."""

    def stuck(self) -> WorkerDied | None:
        """Its foreman watches."""
        return None

    def died(self) -> WorkerDied:
        assert self.pipe is not None
        loss, gone, self.pipe = self.pipe.loss, self.pipe.gone, None
        if gone:
            self.dismiss()
        return WorkerDied(loss.text, loss.slot, loss.outside)

    def dismiss(self) -> None:
        """End it at once, with all that it works on."""
        if self.actor is not None:
            with contextlib.suppress(Exception):  # a cluster that is gone has ended it
                self._cluster.dismiss(self.actor)
        self._forget()

    def close(self) -> None:
        self.dismiss()

    def _opening(self) -> Opening:
        return Opening(written_out(self.crew.world), self.crew.block, self.crew.timeout, self.needs_torch)

    def _forget(self) -> None:
        self.actor = self.greeting = self.known = self.pipe = None
