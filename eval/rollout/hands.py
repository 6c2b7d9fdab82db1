"""The hands of a crew: a process that runs whole blocks, or a thread whose environments are in a process of their own.

A hand is given one order at a time and answers through its pipe. It knows nothing of jobs, and of the crew only what it
opens for it.
"""

from __future__ import annotations

import contextlib
import copy
import math
import socket
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.lanes.nursery import Nursery
from ...configs.lanes.process import Companion, WorkerDied
from ...configs.lanes.worker import GRACE
from ...configs.protocols import keeps
from ...configs.world import World
from .recipes import Recipe
from .rollout import Actor, Block, Teller
from .station import Opening, Order, Station, UnwantedError, attend, serve


class Ordered(Protocol):
    """What an order is part of."""

    recipe: Recipe


class Crewed(Protocol):
    """What a hand must know of its crew."""

    world: World
    block: int
    timeout: float
    turn: threading.Lock  # of the policy that all threads use

    def nursery(self, needs_torch: bool) -> Nursery | None:
        """Which forks its worker processes; None: each is started fresh."""
        ...

    def shared_actor(self, recipe: Recipe, lanes: Lanes) -> Actor:
        """The one actor of a recipe in this process."""
        ...


class ProcessHand:
    """A worker process as the crew sees it."""

    def __init__(self, crew: Crewed, number: int):
        self.crew, self.number, self.needs_torch = crew, number, True
        self.order: tuple[Ordered, Block] | None = None
        self.left: set[int] = set()  # env seeds of the order that are not done
        self.death: WorkerDied | None = None  # it could not be started
        self._idle = False  # it has answered, and waits
        self._process = Companion(f"{serve.__module__}:{serve.__name__}", crew.timeout, GRACE, rest=math.inf)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def pipe(self) -> Connection | None:
        return self._process.pipe

    def start(self) -> None:
        """Start it and let it get ready."""
        try:
            self._process.start(self.crew.nursery(self.needs_torch))
        except OSError as error:  # no memory, no processes, no open files
            self.death = WorkerDied(f"worker process cannot be started: {error}", None, True)
            return
        self._idle = False
        self._process.watch()
        self.reopen()

    def reopen(self) -> None:
        """Let it open the world that the crew is in now."""
        crew = self.crew
        if self.pipe is not None:
            self._idle = False
            self._send(Opening(crew.world, crew.block, crew.timeout, self.needs_torch))

    def ready(self) -> bool:
        """An order is begun at once, or as soon as it has started."""
        return True

    def give(self, order: tuple[Ordered, Block]) -> None:
        job, block = self.order = order
        self.left = set(block.todo)
        if self.pipe is None:
            self.needs_torch = job.recipe.needs_torch
            self.start()
        if self.pipe is not None:
            self._idle = False
            self._process.watch()
            self._send(Order(job.recipe, block))

    def rested(self) -> None:
        """It has answered an order whole."""
        self._idle = True

    def stuck(self) -> WorkerDied | None:
        return self._process.stuck()

    def died(self) -> WorkerDied:
        return self._process.died()

    def dismiss(self) -> None:
        """Let it end; see `close`."""
        self._process.dismiss(at_once=not self._idle)

    def close(self) -> None:
        self._process.close()

    def _send(self, message: object) -> None:
        if self.pipe is not None:
            with contextlib.suppress(ConnectionError):  # whoever listens hears that it died
                self.pipe.send(message)


class ThreadHand:
    """A thread of this process whose environments are in a process of their own."""

    pid = None

    def __init__(self, crew: Crewed, number: int):
        self.crew, self.number, self.needs_torch = crew, number, True
        self.order: tuple[Ordered, Block] | None = None
        self.left: set[int] = set()
        self.death: WorkerDied | None = None
        self.pipe: Connection | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def start(self) -> None:
        """Open nothing yet: the environments' process starts with the first order."""
        ours, theirs = socket.socketpair()
        self.pipe = Connection(ours.detach())
        self._over.clear()
        station = Station(self._lanes, self._make)
        arguments = Connection(theirs.detach()), station
        self._thread = threading.Thread(target=self._work, args=arguments, name="blocks", daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Its environments are opened anew with its next order."""
        self.close()

    def ready(self) -> bool:
        """An order is begun at once, or as soon as it has started."""
        return True

    def give(self, order: tuple[Ordered, Block]) -> None:
        job, block = self.order = order
        self.left = set(block.todo)
        if self.pipe is None:
            self.start()
        if self.pipe is not None:
            with contextlib.suppress(OSError):  # whoever listens hears that it has ended
                self.pipe.send(Order(job.recipe, block))

    def rested(self) -> None:
        """Nothing to note."""

    def stuck(self) -> WorkerDied | None:
        """Its environments have a limit of their own."""
        return None

    def died(self) -> WorkerDied:
        self.close()
        return WorkerDied("the thread that ran a block has ended", None, True)

    def dismiss(self) -> None:
        """Let it end after the chunk that it is at."""
        self._over.set()
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    def close(self) -> None:
        self.dismiss()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _lanes(self) -> Lanes:
        return Lanes(self.crew.world, self.crew.block, 1, self.crew.timeout)

    def _make(self, recipe: Recipe, lanes: Lanes) -> Actor:
        if not recipe.needs_torch:
            return recipe.actor(lanes)
        with self.crew.turn:
            shared = self.crew.shared_actor(recipe, lanes)
            return InTurn(beside(shared), self.crew.turn, self._over)

    def _work(self, pipe: Connection, station: Station) -> None:
        try:
            attend(pipe, station)
        finally:
            station.close()
            pipe.close()


class InTurn:
    """An actor whose policy others use too: one plans at a time.

    Args:
        over: set when nobody wants its actions any more.
    """

    def __init__(self, actor: Actor, turn: threading.Lock, over: threading.Event):
        self.actor, self.waited = actor, 0.0
        self.n_action_steps, self.look = actor.n_action_steps, actor.look
        self._turn, self._over = turn, over

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        self.actor.reset(starts, mask, obs)

    def act(self) -> np.ndarray:
        begun = time.perf_counter()
        with self._turn:
            self.waited += time.perf_counter() - begun
            if self._over.is_set():
                raise UnwantedError
            return self.actor.act()

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        self.actor.observe(obs, sent, valid)

    def told(self, slot: int) -> dict:
        return self.actor.told(slot) if keeps(self.actor, Teller) else {}


def beside(actor: Actor) -> Actor:
    """Another actor with a memory of its own and the same policy."""
    inner: object = actor
    shared: dict[int, object] = {}
    while inner is not None:
        for name in ("planner", "critic"):
            heavy = getattr(inner, name, None)
            shared[id(heavy)] = heavy
        inner = getattr(inner, "actor", None)
    return copy.deepcopy(actor, shared)
