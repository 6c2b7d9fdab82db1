"""`understudy bench cluster`: episodes a second on one raylet and on two, the pieces, and 1,000 workers simulated.

Two raylets of Ray run on this machine with one core each. One worker, on one of them, and two, one on each, run the
same blocks with random actions in alternation, every episode to its horizon; workers that are there already, so that a
ratio speaks of the work alone. Measured beside: how long a block takes, the CPU time of the head for each block, and
how long a worker needs until it is up. From these pieces a simulation tells where more workers stop to help: the head
hands out one block after the other, and the last block ends when it ends. What it leaves out: the network, files that
nodes share, and other people's jobs.
"""

from __future__ import annotations

import heapq
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ...configs.world import REPORT_STARTS, World
from ..rollout.account import Account
from ..rollout.crew import Crew
from ..rollout.recipes import Recipe
from ..rollout.station import Took
from .scaling import RandomRecipe

SIMULATED = (1, 2, 10, 100, 1_000)  # workers
EACH = 20  # blocks a worker, simulated


@dataclass
class Noting(Account):
    """Remembers each block, too."""

    walls: list[float] = field(default_factory=list)  # s of each block

    def take(self, worker: int, took: Took) -> None:
        super().take(worker, took)
        self.walls.append(took.wall)


@dataclass(frozen=True)
class Pieces:
    """What one block costs.

    Args:
        walls: s of each measured block in its worker.
        head: CPU s of the head for each block.
        start: s until a worker is up.
    """

    walls: tuple[float, ...]
    head: float
    start: float


def compare_cluster(world: World, *, block: int, n_action_steps: int, episodes: int, rounds: int) -> dict:
    """Episodes a second with one and with two raylets, in `rounds` rounds; the pieces; the simulation."""
    recipe = RandomRecipe(world.embodiment().limits, block, n_action_steps)
    laps: dict[int, list[dict]] = {1: [], 2: []}
    with _two_raylets() as address:
        for turn in range(rounds):
            for count in (1, 2) if turn % 2 == 0 else (2, 1):
                laps[count].append(_lap(world, recipe, block, count, episodes, address))
    ratios = [two["rate"] / one["rate"] for one, two in zip(laps[1], laps[2], strict=True)]
    alone = laps[1]
    pieces = Pieces(
        walls=tuple(wall for lap in alone for wall in lap["walls"]),
        head=statistics.median(lap["head"] for lap in alone),
        start=statistics.median(lap["start"] for lap in alone),
    )
    return {
        "one_raylet": statistics.median(lap["rate"] for lap in laps[1]),
        "two_raylets": statistics.median(lap["rate"] for lap in laps[2]),
        "times": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "pieces": {
            "block_s": statistics.mean(pieces.walls),
            "head_ms_a_block": 1000 * pieces.head,
            "start_s": pieces.start,
        },
        "simulated": [simulate(pieces, count, count * EACH) for count in SIMULATED],
    }


def simulate(pieces: Pieces, workers: int, blocks: int, seed: int = 0) -> dict:
    """So many blocks on so many workers: s in all, what part of the workers' time was work, how busy the head was.

    Whoever is free first asks the head, which serves one after the other; the times of blocks are drawn from those
    measured.
    """
    walls = np.random.default_rng(seed).choice(np.asarray(pieces.walls), blocks)
    free = [pieces.start] * workers  # when each worker asks next
    heapq.heapify(free)
    head, end = 0.0, 0.0
    for wall in walls.tolist():
        head = max(head, heapq.heappop(free)) + pieces.head
        heapq.heappush(free, head + wall)
        end = max(end, head + wall)
    work = end - pieces.start
    return {
        "workers": workers,
        "blocks": blocks,
        "seconds": end,
        "efficiency": float(walls.sum()) / (workers * work),
        "head": blocks * pieces.head / work,
    }


def table(result: Mapping) -> str:
    """The result as text."""
    low, high = result["range"]
    pieces = result["pieces"]
    lines = [
        f"one raylet      {result['one_raylet']:8.2f} episodes/s",
        f"two raylets     {result['two_raylets']:8.2f} episodes/s, {result['times']:.2f} times one "
        f"({low:.2f} to {high:.2f} over the rounds)",
        f"a block         {pieces['block_s']:8.2f} s, of the head {pieces['head_ms_a_block']:.1f} ms of CPU time",
        f"a worker is up  {pieces['start_s']:8.1f} s after it was asked for",
        f"simulated from these, {EACH} blocks a worker:",
        f"{'workers':>10}{'seconds':>10}{'efficiency':>12}{'head busy':>11}",
    ]
    for row in result["simulated"]:
        lines.append(
            f"{row['workers']:>10}{row['seconds']:>10.0f}{100 * row['efficiency']:>10.0f} %{100 * row['head']:>9.0f} %"
        )
    return "\n".join(lines)


def _lap(world: World, recipe: Recipe, block: int, workers: int, episodes: int, address: str) -> dict:
    """The second of two runs of one crew, whose workers are there."""
    from ..rollout.cluster.connect import Cluster

    starts = range(REPORT_STARTS, REPORT_STARTS + episodes)
    begun = time.perf_counter()
    with Crew(world, block, workers, engine=Cluster(address)) as crew:
        crew.start(recipe.needs_torch)
        first = list(crew.run(recipe, starts[: block * workers]))
        start = time.perf_counter() - begun
        account = crew.account = Noting(workers)
        begun, spent = time.perf_counter(), time.process_time()
        rows = [*first, *crew.run(recipe, starts)]
        rate, head = episodes / (time.perf_counter() - begun), time.process_time() - spent
    if errors := [result.row["error"] for result in rows if result.row["error"]]:
        raise RuntimeError(f"an episode failed: {errors[0]}")
    return {"rate": rate, "head": head / account.blocks, "walls": account.walls, "start": start - max(account.walls)}


@contextmanager
def _two_raylets() -> Iterator[str]:
    """The address of a cluster of this machine, of two raylets with one core each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()
