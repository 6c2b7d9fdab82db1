"""The workers of a Ray cluster as an engine: `--engine ray --address HOST:PORT`.

Source: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications" (arXiv:1712.05889). A worker is
an actor that takes as many cores as a policy has threads; a block of env seeds is one call of it, whose results stream
back as episodes end. Ray restarts and repeats nothing here: what is lost the crew gives to another worker, and only
the episodes that had not come. What policies are made of is put into the object store, which sends it to a node once.

Every node is asked first whether it would compute the same (`sameness.py`), and again each worker that comes later.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ....configs.cores import Workers
from ....configs.ends import SIGNALS
from ....configs.lanes.process import WorkerDied
from ....configs.plugins import PLUGINS
from ....configs.protocols import keeps
from ....configs.world import World
from ..engine import Hand
from ..hands import Crewed
from ..recipes import Reads, Recipe
from ..station import Opening
from .foreman import Foreman
from .hand import RayHand
from .parcel import pack
from .sameness import Needs, OtherMachineError, facts, needs_of, refuse_other

HERE = "local"  # address: a cluster of this machine alone, begun now and ended with the command
PATIENCE = 120.0  # s that a node has to answer
TELL = 30.0  # s without any worker after which that is said
DATA = "UNDERSTUDY_DATA"  # variable that settings of data and worlds begin with
PACKED = 64  # recipes whose parcels are remembered


class Cluster:
    """A Ray cluster that this process is connected to.

    Args:
        address: HOST:PORT of its head; "": the one that this machine is part of; "local": a new one, here.
        threads: of torch in each worker.

    Raises:
        ConnectionError: there is no cluster.
        OtherMachineError: it runs another Ray or Python.
    """

    def __init__(self, address: str = "", threads: int = 1):
        connect(address)
        self.threads = threads
        self._needs: Needs | None = None  # what all nodes have
        self._ours: dict[str, str] = {}
        self._packed: list[tuple[Recipe, Mapping[str, str]]] = []  # recipe, place -> parcel
        self._put: dict[str, Any] = {}  # name -> reference to its content
        self._sent = 0.0  # MB
        self._idle: float | None = None  # since when no worker is up

    def __str__(self) -> str:
        count = len(self.nodes())
        return f"{count} node{'s' * (count > 1)} with {self.cores():g} cores"

    def nodes(self) -> list[dict]:
        """Those that are up."""
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def cores(self) -> float:
        """Of all nodes, as they were told to Ray."""
        return sum(node["Resources"].get("CPU", 0.0) for node in self.nodes())

    def choose(self, asked: int | None, blocks: int) -> Workers:
        """The workers asked for, else as many as there are cores for, and blocks to run."""
        room = int(self.cores() // self.threads)
        if asked is not None:
            if asked < 1:
                raise ValueError(f"a cluster needs at least one worker, got {asked}")
            more = f"; only {room} at a time until the cluster grows" if asked > room else ""
            return Workers(asked, f"as asked{more}")
        if room < 1:
            raise ValueError(
                f"no node of the cluster has {self.threads} cores: start nodes with more, or lower --threads"
            )
        return Workers(min(room, max(1, blocks)), f"{blocks} blocks" if blocks < room else f"{room} fit")

    # -- an engine

    def hands(self, crew: Crewed, count: int) -> Sequence[Hand]:
        self.agree(crew.world)
        return [RayHand(crew, number, self, self.threads) for number in range(count)]

    def wait(self, hands: Sequence[Hand], timeout: float) -> Sequence[Hand]:
        import ray

        ours = [hand for hand in hands if isinstance(hand, RayHand)]
        speaking = [hand for hand in ours if hand.order is not None and hand.pipe is not None]
        coming = [hand.greeting for hand in ours if hand.awaited and hand.greeting is not None]
        waited = [*(hand.pipe.answers for hand in speaking if hand.pipe is not None), *coming]
        self._tell_waiting(len(speaking), len(ours))
        if not waited:
            time.sleep(min(timeout, 0.1))
            return []
        ray.wait(waited, num_returns=1, timeout=timeout, fetch_local=False)
        heard, _ = ray.wait(waited, num_returns=len(waited), timeout=0, fetch_local=False)
        said = {id(one) for one in heard}
        return [hand for hand in speaking if hand.pipe is not None and id(hand.pipe.answers) in said]

    def told(self) -> dict:
        return {"engine": "ray", "nodes": len(self.nodes()), "policies_mb": round(self._sent, 3)}

    def close(self) -> None:
        """The connection stays for the next run of this process; workers are gone with their hands."""
        self._put.clear()
        self._packed.clear()

    # -- for the hands

    def hire(self, threads: int) -> Any:
        """A new worker, as soon as there is room."""
        import ray

        environment = {name: os.environ[name] for name in (PLUGINS, DATA) if name in os.environ}
        options = {"num_cpus": threads, "num_gpus": 0, "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(Foreman).options(**options, scheduling_strategy="SPREAD").remote(environment, os.getcwd())

    def greet(self, actor: Any, opening: Opening) -> Any:
        """What a worker has; known when it is up."""
        return actor.greet.remote(self._needs, opening)

    def check(self, known: Mapping[str, Any]) -> None:
        """Raise OtherMachineError where a worker would not compute the same."""
        refuse_other(f"node {known['node']}", known["facts"], self._ours)

    def has_come(self, reference: Any) -> bool:
        import ray

        return bool(ray.wait([reference], timeout=0, fetch_local=False)[0])

    def fetch(self, reference: Any) -> Any:
        """What came of a call.

        Raises:
            WorkerDied: nothing will, or the machine has failed.
            Exception: what the call raised.
        """
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise WorkerDied(f"a worker of the cluster failed: {error.cause}", None, True) from error
            raise error.cause from error
        except ray.exceptions.RayError as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise WorkerDied(f"a worker of the cluster was lost: {first}", None, True) from error

    def dismiss(self, actor: Any) -> None:
        """End a worker at once."""
        import ray

        ray.kill(actor, no_restart=True)

    def packed(self, recipe: Recipe, shelf: str) -> tuple[Recipe, dict[str, Any]]:
        """The recipe as it reads on a node whose parcels lie on `shelf`, and the parcels by name."""
        if not keeps(recipe, Reads):
            return recipe, {}
        parcels = next((parcels for known, parcels in self._packed if known == recipe), None)
        if parcels is None:
            parcels = {place: self._store(place) for place in recipe.places()}
            self._packed = [*self._packed[1 - PACKED :], (recipe, parcels)]
        moved = recipe.moved({place: f"{shelf}/{name}" for place, name in parcels.items()})
        return moved, {name: self._put[name] for name in parcels.values()}

    def _store(self, place: str) -> str:
        import ray

        parcel = pack(place)
        if parcel.name not in self._put:
            self._put[parcel.name] = ray.put(parcel.content)
            self._sent += parcel.content.nbytes / 1e6
        return parcel.name

    # -- whether all nodes compute the same

    def agree(self, world: World) -> None:
        """Ask every node whether it has what this world needs, as it is here.

        Raises:
            OtherMachineError: naming the node, what differs there, and what to do.
        """
        needs = needs_of(world)
        if needs == self._needs:
            return
        ours = facts(needs)
        for node, theirs in _ask(self.nodes(), needs):
            refuse_other(f"node {node}", theirs, ours)
        self._needs, self._ours = needs, ours

    def _tell_waiting(self, up: int, asked: int) -> None:
        now = time.monotonic()
        if up or not asked:
            self._idle = None
        elif self._idle is None:
            self._idle = now
        elif now - self._idle > TELL:
            self._idle = now
            print(f"waiting for a worker of the cluster; it has {self}, see `ray status`", file=sys.stderr, flush=True)


def connect(address: str) -> None:
    """Connect this process to a cluster, once; one that it is connected to already is used.

    Raises:
        ConnectionError, OtherMachineError, ValueError: saying what to do.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy machine takes longer than 20 s
    import ray

    if ray.is_initialized():
        return
    if address.startswith("ray://"):
        raise ValueError(f"--address {address}: give HOST:PORT of the head (6379), from a machine that is part of it")
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address == HERE:
        how["include_dashboard"] = False
    try:
        with _signals_kept():
            ray.init(address=address or "auto", **how)
    except ConnectionError as error:
        where = f"at {address}" if address else "on this machine"
        raise ConnectionError(
            f"no Ray cluster answers {where} ({_first(error)}). Begin one with `ray start --head` here and "
            "`ray start --address HOST:6379` on the others; --address local tries one on this machine alone"
        ) from error
    except RuntimeError as error:
        raise OtherMachineError(f"the cluster cannot be joined: {' '.join(str(error).split())}") from error
    except Exception as error:  # Ray has no kind of its own for a node that does not start in time
        raise ConnectionError(
            f"Ray did not start here: {_first(error)}. Where the machine is busy, try again; its logs are in /tmp/ray"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray answers SIGTERM itself, by leaving at once: give the signals back to who listened before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _ask(nodes: Sequence[Mapping[str, Any]], needs: Needs) -> Iterator[tuple[str, dict[str, str]]]:
    """(name of a node, what it has) of each. Raises OtherMachineError where one cannot tell."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place, wanted = __package__ or "", dataclasses.astuple(needs)

    def tell() -> dict[str, str]:  # sent by its content: a node without us can say so
        from importlib import import_module

        try:
            sameness = import_module(f"{place}.sameness")
        except ImportError as error:
            return {"understudy": f"absent ({error})"}
        return sameness.facts(sameness.Needs(*wanted))

    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[ray.remote(tell).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()] = node
    for reference, node in asked.items():
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            yield name, ray.get(reference, timeout=PATIENCE)
        except ray.exceptions.GetTimeoutError as error:
            raise OtherMachineError(f"node {name} has not answered within {PATIENCE:g} s; see `ray status`") from error
        except ray.exceptions.RayError as error:
            raise OtherMachineError(f"node {name} cannot say what it has: {_first(error)}") from error


def _first(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
