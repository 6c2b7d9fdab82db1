"""What open-loop rollouts of known controls cost beside stepping, in one task of plain MuJoCo.

    understudy study open_loop_cost pusht-mujoco --envs 64 --steps 100 --threads 2

Prints a line of JSON; see `sim/open_loop.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from ...sim.open_loop import bench


@dataclass(frozen=True, kw_only=True)
class OpenLoopCost:
    """Time open-loop rollouts beside stepping."""

    RENAMED: ClassVar[dict[str, str]] = {"lanes": "envs"}  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("world",)

    world: str  # registered name of a task in plain MuJoCo
    envs: int = 64  # environments
    steps: int = 100  # control steps
    threads: int | None = None  # default: one per core
    repeats: int = 3  # of each measurement, in turn

    def run(self) -> None:
        print(json.dumps(bench(self.world, self.envs, self.steps, self.threads, self.repeats)))
