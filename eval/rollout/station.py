"""Where blocks are run: one process (or thread) with its own environments and its own copy of whoever acts.

A station reads orders from a pipe and answers with the results of each episode as it ends, then with what the block
took. Nothing else crosses the pipe. The crew (`crew.py`) hands the blocks out; a cluster may do the same, for an
`Order` and its answers can be sent anywhere.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, Pipe

from ...configs.lanes.lane import MachineError, describe
from ...configs.lanes.lanes import Lanes
from ...configs.lanes.process import at_work
from ...configs.lanes.pulse import Pulse
from ...configs.plugins import discover
from ...configs.world import World
from .recipes import Recipe
from .rollout import Actor, Block, run_block

ACTORS = 4  # kept open, those used last
RESULT, DONE, RAISED, WARNED = "result", "done", "raised", "warned"  # what an answer begins with


@dataclass(frozen=True)
class Opening:
    """What a station opens before any order comes.

    Args:
        lanes: B.
        timeout: s, of a control step; 0: none.
        needs_torch: whether a policy will act.
    """

    world: World
    lanes: int
    timeout: float
    needs_torch: bool


@dataclass(frozen=True)
class Order:
    """One block, and who acts in it."""

    recipe: Recipe
    block: Block


@dataclass(frozen=True)
class Took:
    """What a block took. `lost`: env seeds at which the machine failed again and again."""

    wall: float  # s, from the order to its last episode
    sending: float  # s, of it, handing results over
    opening: float  # s, of it, making the actor
    memory: float  # MB, most that the process held so far
    lost: dict[int, str] = field(default_factory=dict)


class Station:
    """Environments, and the actors that were used last.

    Args:
        lanes: opened when they are first needed.
        make: gives the actor of a recipe; default: the recipe itself.
    """

    def __init__(self, lanes: Callable[[], Lanes], make: Callable[[Recipe, Lanes], Actor] | None = None):
        self._open, self._make = lanes, make or (lambda recipe, lanes: recipe.actor(lanes))
        self._lanes: Lanes | None = None
        self._actors: list[tuple[Recipe, Actor]] = []  # the newest last

    @property
    def lanes(self) -> Lanes:
        if self._lanes is None:
            self._lanes = self._open()
        return self._lanes

    def know(self, recipe: Recipe, actor: Actor) -> None:
        """An actor that is open already."""
        self._actors = [*self._actors[1 - ACTORS :], (recipe, actor)]

    def actor(self, recipe: Recipe, lanes: Lanes | None = None) -> Actor:
        """The actor of a recipe; in other environments than the station's own where `lanes` are given."""
        for known in self._actors:
            if known[0] == recipe:
                self._actors.remove(known)
                self._actors.append(known)
                return known[1]
        actor = self._make(recipe, lanes or self.lanes)
        self.know(recipe, actor)
        return actor

    def close(self) -> None:
        """Close the environments, and forget whoever acted in them."""
        self._actors.clear()
        if self._lanes is not None:
            self._lanes.close()
            self._lanes = None


class UnwantedError(RuntimeError):
    """Nobody waits for the block any more."""


def attend(pipe: Connection, station: Station) -> Opening | None:
    """Answer orders until the other end closes the pipe, or wants something else opened, which is returned."""
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            return None
        if isinstance(order, Opening):
            return order
        try:
            _answer(pipe, station, order)
        except UnwantedError:
            return None


def _answer(pipe: Connection, station: Station, order: Order) -> None:
    begun, sending, opening = time.perf_counter(), 0.0, 0.0
    lost: dict[int, str] = {}
    try:
        actor = station.actor(order.recipe)
        opening = time.perf_counter() - begun
        for result in run_block(order.block, actor, station.lanes, lost):
            told = time.perf_counter()
            _send(pipe, RESULT, result)
            sending += time.perf_counter() - told
    except UnwantedError:
        raise
    except MachineError:
        pass  # `lost` tells
    except Exception as error:  # whatever a policy raises ends the run where it was begun
        _send(pipe, RAISED, _sendable(error))
        return
    wall = time.perf_counter() - begun
    _send(pipe, DONE, Took(wall, sending, opening, peak_memory(), lost))


def _send(pipe: Connection, kind: str, content: object) -> None:
    try:
        pipe.send((kind, content))
    except OSError as error:
        raise UnwantedError from error


def _sendable(error: Exception) -> Exception:
    """The error, or its words where it cannot be sent."""
    words = RuntimeError(describe(error))
    if type(error).__module__ == "__main__":
        return words
    ours, theirs = Pipe()
    with ours, theirs:
        try:
            ours.send(error)
            return error if str(theirs.recv()) == str(error) else words
        except Exception:  # an exception may refuse to be sent, or to be made again, in any way
            return words


def peak_memory() -> float:
    """MB that this process held at most; where the system does not say it, those of its parent count too."""
    try:
        with open("/proc/self/status") as file:
            return next(float(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # not POSIX
        return math.nan
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def serve(pipe_number: int, pulse_number: int) -> None:
    """The life of a worker process that runs whole blocks."""
    with at_work(pipe_number, pulse_number, rest=math.inf) as (pipe, pulse):
        try:
            opening: Opening | None = pipe.recv()
        except (EOFError, OSError):
            return
        warnings.showwarning = partial(_tell_warning, pipe)
        while opening is not None:
            load(opening.needs_torch)
            station = Station(partial(Lanes, opening.world, opening.lanes, 0, opening.timeout, pulse))
            _get_ready(pipe, station, pulse)
            opening = attend(pipe, station)
            station.close()


def load(needs_torch: bool, world: World | None = None) -> None:
    """Import what a worker needs, and build one environment, without its pictures: others share what it compiled."""
    if needs_torch:
        import torch

        torch.set_num_threads(1)
        discover("policies")
    if world is not None:
        dataclasses.replace(world, cameras={}).lane().close()


def _tell_warning(pipe: Connection, message, category, filename: str, lineno: int, *_) -> None:
    """In place of a line of this process: who began the run hears it, and says it once for all workers."""
    _send(pipe, WARNED, (str(message), filename, lineno))


def _get_ready(pipe: Connection, station: Station, pulse: Pulse) -> None:
    """Build environments until the first order is there."""
    for slot in range(station.lanes.num_envs):
        if pipe.poll():
            break
        station.lanes.build([slot])
    pulse.rest()
