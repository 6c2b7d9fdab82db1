"""A worker of a cluster, on its node: it unpacks what policies are made of, and keeps one process that runs blocks.

That process is the same as on one machine (`station.py`), started fresh with one thread for everything: what a worker
of Ray computed before, and how many threads it was given then, changes nothing. It is watched from beside: where it
dies or hangs the foreman says whose turn it was, and starts another with the next block. It ends with the foreman,
and the foreman with whoever began the run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ....configs.lanes.process import Companion, WorkerDied
from ....configs.lanes.worker import GRACE
from ..station import DONE, RAISED, Opening, Order, serve
from . import parcel
from .sameness import Needs, facts

LOST = "lost"  # what an answer begins with, beside those of a station: the process that ran the block is gone
LOOK = 0.5  # s between two looks at a process that says nothing


@dataclass(frozen=True)
class Loss:
    """How a process was lost: what a `WorkerDied` says."""

    text: str
    slot: int | None
    outside: bool


class Foreman:
    """Runs blocks on a node; in the cluster an actor of Ray.

    Args:
        environment: variables that change what is computed.
        folder: where the command was given: paths of settings are meant from there.
    """

    def __init__(self, environment: Mapping[str, str], folder: str):
        os.environ.update(environment)
        _enter(folder)
        self._process: Companion | None = None
        self._opened: Opening | None = None

    def greet(self, needs: Needs, opening: Opening | None) -> dict:
        """What this node has, and where parcels lie; the process begins to open its environments."""
        told = facts(needs)
        if opening is not None:
            self._open(opening)
        return {"facts": told, "shelf": str(parcel.shelf()), "node": os.uname().nodename, "pid": os.getpid()}

    def process(self) -> int | None:
        """Its process id."""
        return self._process.pid if self._process is not None else None

    def work(self, opening: Opening, order: Order, parcels: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
        """What the process answers to an order, see `station.py`; `LOST` where it died over it.

        Args:
            parcels: name -> where Ray keeps it, for those that the order reads.
        """
        import ray

        for name, kept in parcels.items():
            if not parcel.lies_here(name):
                parcel.unpack(name, ray.get(kept))
        try:
            process = self._open(opening)
        except OSError as error:  # no memory, no processes, no open files
            yield LOST, Loss(f"worker process cannot be started: {error}", None, True)
            return
        yield from self._answers(process, order)

    def _open(self, opening: Opening) -> Companion:
        """The process, with these environments."""
        if self._process is None:
            self._process = Companion(f"{serve.__module__}:{serve.__name__}", opening.timeout, GRACE, rest=math.inf)
        if self._process.pipe is None:
            self._opened = None
            self._process.start()
        if self._opened != opening:
            self._send(opening)
            self._opened = opening
        return self._process

    def _answers(self, process: Companion, order: Order) -> Iterator[tuple[str, object]]:
        process.watch()
        self._send(order)
        while True:
            assert process.pipe is not None  # it was started
            try:
                if process.pipe.poll(LOOK):
                    kind, content = process.pipe.recv()
                    yield kind, content
                    if kind in (DONE, RAISED):
                        return
                    continue
                death = process.stuck()
            except (EOFError, OSError):
                death = process.died()
            if death is not None:
                yield LOST, _loss(death)
                return

    def _send(self, message: object) -> None:
        assert self._process is not None and self._process.pipe is not None
        try:
            self._process.pipe.send(message)
        except ConnectionError:
            pass  # whoever listens hears that it died


def _enter(folder: str) -> None:
    """Work in this folder; where a node has none, where nothing lies that a path could mean by mistake."""
    try:
        os.chdir(folder)
    except OSError:
        parcel.shelf().mkdir(parents=True, exist_ok=True)
        os.chdir(parcel.shelf())


def _loss(death: WorkerDied) -> Loss:
    return Loss(str(death), death.slot, death.outside)
