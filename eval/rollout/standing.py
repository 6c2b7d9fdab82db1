"""Who gets a crew: one for so many episodes on this machine, or the one that a run before has left standing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Protocol, TypeVar, cast

from ...configs.cores import Workers, choose_workers
from ...configs.devices import choose_device, surely_cpu
from ...configs.engines import LOCAL, RAY
from ...configs.lanes.nursery import Nursery, can_fork
from ...configs.lanes.pulse import TIMEOUT
from ...configs.settings.fields import default_of
from ...configs.world import World
from .crew import Crew, nursery_of
from .rollout import horizon_of


class _Settings(Protocol):
    """Those of a verb whose policies act."""

    @property
    def block(self) -> int: ...


Chosen = TypeVar("Chosen", bound=_Settings)


UNPACED = {  # setting -> (what a world by the clock takes beside the default, why no more)
    "block": (1, "one environment acts at a time by the clock, the others would stand and be late"),
    "videos": (0, "a film plays an episode again, and by the clock nothing happens twice"),
}


def check_paced(config: object, world: World) -> None:
    """Refuse settings (a dataclass) of a verb that a world by the clock would ignore, or be late by.

    Raises:
        ValueError: naming the flag; nothing is opened or written yet.
    """
    if not world.by_the_clock:
        return
    check_workers(world, getattr(config, "workers", None), getattr(config, "engine", LOCAL))
    usual = {item.name: default_of(item) for item in fields(cast(Any, config))}
    for name, (only, why) in UNPACED.items():
        if name in usual and (given := getattr(config, name)) not in (only, usual[name]):
            raise ValueError(f"--{name} {given}: {why}: leave it out, or give --{name} {only}")


def check_workers(world: World, asked: int | None, engine: str) -> None:
    """Refuse workers that a world by the clock has no use for. Raises ValueError."""
    if world.moves_arm and (asked or engine != LOCAL):
        raise ValueError("there is one arm, which this process moves: leave --workers and --engine out")
    if world.by_the_clock and engine == LOCAL and (asked or 0) > 1:
        raise ValueError(
            f"--workers {asked}: this world goes by the clock, and what runs beside it makes its steps late: leave "
            "--workers out, or let time be simulated (clock: simulated of an emulated arm, pace: free of a twin)"
        )


def paced(config: Chosen, world: World) -> Chosen:
    """Settings (a dataclass) as this world permits: by the clock one environment acts at a time, and nothing twice.

    Raises ValueError as `check_paced`; that no film is made by default is said.
    """
    check_paced(config, world)
    if not world.by_the_clock:
        return config
    if not getattr(config, "videos", 0):
        return replace(cast(Any, config), block=1)
    print(f"films           none: {UNPACED['videos'][1]}", flush=True)
    return replace(cast(Any, config), block=1, videos=0)


def crew_for(
    world: World,
    asked: int | None,
    *,
    episodes: int,
    block: int = 8,
    timeout: float = TIMEOUT,
    threads: int = 1,
    device: str = "cpu",
    weights: float = 0.0,
    quiet: bool = False,
    engine: str = LOCAL,
    address: str = "",
) -> Crew:
    """A crew for so many episodes on this machine, its number of workers chosen where none is asked for, and printed.

    Args:
        threads: of torch in each worker.
        device: where the policy computes; on a GPU it stays in this process.
        weights: bytes of the policy.
        engine: who runs the blocks, `engine.py`.
        address: of the cluster.

    Raises:
        ValueError: a policy on a GPU, with an engine that computes on CPUs; workers for one arm, or several on this
            machine by the clock.
        ConnectionError, OtherMachineError: no such cluster, or nodes that would not compute the same.
    """
    check_workers(world, asked, engine)
    if world.by_the_clock:  # the others would stand, and be late, while one acts
        block, asked = 1, asked or (0 if engine == LOCAL else 1)
    if engine == RAY:
        if choose_device(device) != "cpu":
            raise ValueError("with --engine ray policies compute on the CPUs of the nodes: add --device cpu")
        return _of_cluster(world, asked, episodes, block, timeout, threads, address)
    on_gpu = choose_device(device) != "cpu"
    one = 1 if on_gpu else threads
    chosen = _choose(world, asked, episodes, block, one, 0 if on_gpu else weights)
    settings = world, block, chosen.count, timeout, on_gpu
    if _standing:
        crew = _standing.get(settings, lambda: Crew(*settings[:4], overlap=on_gpu))
    else:
        crew = Crew(*settings[:4], overlap=on_gpu, nursery=_take_expected(world))
    crew.account.why = chosen.why
    if not quiet and asked is None:
        print(f"workers         {chosen}; --workers changes it", flush=True)
    return crew


def _of_cluster(
    world: World, asked: int | None, episodes: int, block: int, timeout: float, threads: int, address: str
) -> Crew:
    """A crew of workers of a cluster, as many as asked for, else as it has cores for and blocks to run."""
    from .cluster.connect import Cluster

    def make() -> Crew:
        cluster = Cluster(address, threads)
        chosen = cluster.choose(asked, math.ceil(episodes / block))
        crew = Crew(world, block, chosen.count, timeout, engine=cluster)
        crew.account.why = chosen.why
        print(f"workers         {chosen}, of {cluster}", flush=True)
        if world.by_the_clock and chosen.count > 1:
            print("deadlines       by the clock, workers that share a node make each other's steps late", flush=True)
        return crew

    settings = world, block, asked or math.ceil(episodes / block), timeout, threads, RAY, address
    return _standing.get(settings, make) if _standing else make()


def expect(
    world: World,
    asked: int | None,
    *,
    episodes: int,
    block: int = 8,
    threads: int = 1,
    device: str = "cpu",
    weights: float = 0.0,
    engine: str = LOCAL,
    address: str = "",
) -> None:
    """Begin to load what the workers of a `crew_for` with these settings will need, while this process loads it too.

    Nothing happens where that crew would have no workers, or where only torch can tell.
    """
    global _expected
    if _expected is not None:
        _expected[1].close()
        _expected = None
    if world.by_the_clock or engine != LOCAL or not (surely_cpu(device) and can_fork()):
        return
    if _choose(world, asked, episodes, block, threads, weights).count > 1:
        _expected = world, nursery_of(world)


_expected: tuple[World, Nursery] | None = None


def _take_expected(world: World) -> Nursery | None:
    global _expected
    if _expected is None or _expected[0] != world:
        return None
    (_, nursery), _expected = _expected, None
    return nursery


def _choose(world: World, asked: int | None, episodes: int, block: int, threads: int, weights: float) -> Workers:
    return choose_workers(
        asked,
        blocks=math.ceil(episodes / block),
        steps=episodes * horizon_of(world),
        threads=threads,
        draws=bool(world.embodiment().cameras),
        weights=weights,
    )


class Standing:
    """The crew that was used last, kept for the next run that asks for one like it."""

    def __init__(self) -> None:
        self._held: tuple[tuple, Crew] | None = None

    def get(self, settings: tuple, make: Callable[[], Crew]) -> Crew:
        """The crew held for these settings, else a new one."""
        if self._held is None or self._held[0] != settings:
            self.close()
            self._held = settings, make()
            self._held[1].stays = True
        return self._held[1]

    def close(self) -> None:
        """End its workers."""
        if self._held is not None:
            self._held[1].close()
            self._held = None


_standing: Standing | None = None


@contextmanager
def standing() -> Iterator[Standing]:
    """Inside, the workers of a run live on for the next one."""
    global _standing
    before, _standing = _standing, Standing()
    try:
        yield _standing
    finally:
        _standing.close()
        _standing = before
