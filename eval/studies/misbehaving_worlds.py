"""Thousands of episodes in a world that misbehaves at every tenth: what the other episodes notice of it.

    understudy study misbehaving_worlds --out eval/records/trust/misbehaving_worlds.json

A small untrained policy acts in the plane task `point`, from the same initial conditions undisturbed, in this process,
and with workers. At every tenth one the environment hands over nonsense (NaN, another shape, a missing key, ...),
raises, hangs, crashes, or its worker is killed once. Each of these must become a row with an error, except for the
killed worker and a full machine, which are tried again; all other rows must equal those of the undisturbed run bit for
bit, and memory must not grow. Rows are kept as digests, so that the study's own memory does not grow with them.
"""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import ClassVar

from ...configs.command import command_of
from ...configs.lanes.lanes import Lanes
from ...configs.progress import Progress
from ...configs.spec import SCENE, STATE, Window
from ...configs.world import REPORT_STARTS, start_set
from ..ledger.study import Study
from ..ledger.table import INCIDENTAL
from ..rollout.rollout import rollout

HANDED_OVER = (
    "nan", "infinite", "shape", "scalar", "text", "huge", "missing", "nothing", "reward", "progress", "success",
    "terminated", "sent", "sent_nan", "info",
)  # fmt: skip
BROKEN = ("crash", "reset", "exit", "hang", "spin")
OF_PROCESSES = ("abort", "kill")  # need workers
TRIED_AGAIN = ("memory", "kill")  # faults of the machine, which happen once
WARM = 0.2  # of the episodes, after which memory is measured first


@dataclass(frozen=True, kw_only=True)
class MisbehavingWorlds:
    """Act where every tenth environment misbehaves, and compare with the undisturbed run."""

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    episodes: int = 2000  # of each run
    every: int = 10  # the environment of every so many episodes misbehaves
    env_seed: int = REPORT_STARTS  # first env seed
    horizon: int = 30  # control steps of an episode
    workers: tuple[int, ...] = (0, 2)  # a run with each number of processes
    timeout: float = 2.0  # s that a control step may take
    block: int = 8  # episodes at a time
    out: Path | None = None  # JSON of the table

    def run(self) -> None:
        study = measure(self)
        study.tell(self.out)


@dataclass
class Seen:
    """What one run gave: digests of the rows, why episodes failed, memory of this process in MB."""

    digests: dict[int, str]
    errors: dict[int, str]
    warm: float
    end: float


def measure(config: MisbehavingWorlds) -> Study:
    """A row for each run."""
    import torch

    from ...sim.task import MuJoCoWorld

    torch.set_num_threads(1)
    starts = range(config.env_seed, config.env_seed + config.episodes)
    plain = MuJoCoWorld(task="point", horizon=config.horizon)
    undisturbed = act(config, plain, 0, "undisturbed")
    rows = [("undisturbed", len(undisturbed.digests), 0, 0, 0, 0, *_memory(undisturbed))]

    for workers in config.workers:
        with tempfile.TemporaryDirectory() as memory:
            world, kinds = misbehaving(config, workers, Path(memory))
            seen = act(config, world, workers, f"{workers} workers")
        other = {start for start in starts if seen.digests.get(start) != undisturbed.digests[start]}
        differ = other - kinds.keys()
        failed = {start for start, kind in kinds.items() if kind not in TRIED_AGAIN}
        wrong = (failed ^ seen.errors.keys()) | (other & (kinds.keys() - failed))
        name = f"misbehaving, {workers} workers" if workers else "misbehaving, one process"
        rows.append((name, len(seen.digests), len(kinds), len(seen.errors), len(wrong), len(differ), *_memory(seen)))

    return Study(
        title=f"A world that misbehaves at every {config.every}th episode",
        command=command_of(config, "study misbehaving_worlds", without=("out",)),
        columns=(
            "run", "episodes", "misbehaving", "rows with an error", "of them unlike expected", "other rows that differ",
            "memory, MB", "at the end, MB",
        ),
        rows=rows,
        notes=(
            f"Env seeds {starts.start} to {starts.stop - 1} of {start_set(plain)}, horizon {config.horizon}, a small "
            "untrained policy, the same in all runs; rows are compared bit for bit, without times and attempts.",
            f"In turn: {', '.join(_kinds(1))}; {' and '.join(OF_PROCESSES)} only with workers. Expected is a row with "
            f"an error, but for {' and '.join(TRIED_AGAIN)}, which happen once and must leave the undisturbed row.",
            f"Memory: resident, of the process that collects the rows, after {WARM:.0%} of the episodes and at the "
            f"end. Time limit of a control step: {config.timeout:g} s.",
        ),
    )  # fmt: skip


def misbehaving(config: MisbehavingWorlds, workers: int, folder: Path) -> tuple:
    """The world, and env seed -> what goes wrong there."""
    from ...sim.testing import Fault, FaultyWorld

    chosen = range(config.env_seed + config.every - 1, config.env_seed + config.episodes, config.every)
    kinds = dict(zip(chosen, cycle(_kinds(workers)), strict=False))
    faults = tuple(
        Fault(start, start % 7 + 1, kind, once=str(folder / str(start)) if kind in TRIED_AGAIN else "")
        for start, kind in kinds.items()
    )
    return FaultyWorld(task="point", horizon=config.horizon, faults=faults), kinds


def act(config: MisbehavingWorlds, world, workers: int, name: str) -> Seen:
    """One run over all env seeds."""
    starts, seen = range(config.env_seed, config.env_seed + config.episodes), Seen({}, {}, 0.0, 0.0)
    with (
        Progress(name, len(starts), "episodes") as progress,
        closing(Lanes(world, config.block, workers, config.timeout)) as lanes,
    ):
        for result in rollout(_agent(world, config.block), lanes, starts):
            text = json.dumps({key: value for key, value in result.row.items() if key not in INCIDENTAL})
            seen.digests[result.start] = hashlib.sha256(text.encode() + result.actions.tobytes()).hexdigest()[:16]
            if result.row["error"]:
                seen.errors[result.start] = result.row["error"]
            progress.update(len(seen.digests))
            if len(seen.digests) == round(WARM * config.episodes):
                seen.warm = resident()
        seen.end = resident()
    return seen


def resident() -> float:
    """MB of memory that this process holds; the highest so far where the system does not say it."""
    gc.collect()
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _kinds(workers: int) -> tuple[str, ...]:
    return (*HANDED_OVER, *BROKEN, "memory", *(OF_PROCESSES if workers else ()))


def _memory(seen: Seen) -> Iterator[float]:
    return (round(part, 1) for part in (seen.warm, seen.end))


def _agent(world, lanes: int):
    """An untrained diffusion policy: its noise is keyed by env seed and replanning, bent by what it saw."""
    import torch

    from ...policies.agent.agent import Agent
    from ...policies.learning.checkpoint import blank_scales
    from ...policies.models.diffusion import DiffusionConfig
    from ...policies.networks.mlp import MLPConfig

    torch.manual_seed(0)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=6)
    embodiment = world.embodiment()
    planner = config.build(embodiment, blank_scales(embodiment)).eval()
    return Agent(planner, lanes=lanes, n_action_steps=6, seed=7)
