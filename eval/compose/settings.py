"""The settings of `understudy compose`: which policies, how weights are found, what is reported.

Refuses here, before anything is loaded, what makes no search: too few policies, env seeds that are for reporting.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.lanes.pulse import TIMEOUT
from ...configs.plugins import lookup
from ...configs.world import REPORT_STARTS
from ..ledger.record import OUTCOMES
from .gram import Error
from .search import Weights, simplex

GRID, HALVING, BAYES, PREDICT = "grid", "successive-halving", "bayes", "predict"
EDGE = {1: 2, 2: 11, 3: 6, 4: 4}  # points an edge of the grid, by number of parents


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Find the weights of a mixture by rollouts, report it on fresh initial conditions, write it as a checkpoint."""

    RENAMED: ClassVar[dict[str, str]] = {
        "seed": "env_seed",
        "execute": "n_action_steps",
    }  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("parents",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    parents: tuple[str, ...]  # two or more runs or checkpoints, also of mixtures
    world: dict | str = "pusht"  # registered name, YAML file, or its keys
    search: str = HALVING  # grid | successive-halving | bayes | predict: how weights are found
    points: int | None = None  # weights an edge of the grid; default 11 for two parents, 6 for three
    episodes: int = 50  # initial conditions of the search, the same for all weights
    env_seed: int = 0  # first env seed of the search, 0-999
    on: str = "success"  # success | progress: what is searched for
    keep: float = 0.5  # successive-halving: part of the weights that goes on after a rung; 1: only tests drop any
    alpha: float = 0.05  # successive-halving: chance that tests drop the best weights; 0: no tests
    budget: int | None = None  # bayes: episodes; default half of the grid's
    report: int = 200  # fresh initial conditions for the mixture, its parents and the control; 0: none
    report_seed: int = REPORT_STARTS  # first fresh env seed, 1000 and up
    control: tuple[str, ...] = ()  # other training seeds of A, mixed with A at equal weights: costs as much
    predict: str | None = None  # dataset of demonstrations: weights of least denoising error, beside the search
    error: Error = Error.epsilon  # epsilon | x0 | v: in which coordinate denoising is wrong
    windows: int = 1024  # predict: most windows of the demonstrations
    out: str | None = None  # folder of records, mixture, search.json and report; must not exist
    resume: str | None = None  # go on with this folder; parents, world, noise and env seeds as they were
    workers: int | None = None  # processes that each run whole blocks; default: as the machine allows; 0: this one
    timeout: float = TIMEOUT  # s that the world may take for a control step; 60 times that an episode; 0: no limit
    block: int = 8  # environments that act at the same time
    n_action_steps: int | None = None  # E, executed actions of each chunk; default the least of the parents'
    steps: int | None = None  # of all samplers; default the parents' own
    solver: str | None = None  # of all samplers: ddim | dpmpp | heun
    scheduler: str | None = None  # instead of a solver: a class of diffusers, such as UniPCMultistepScheduler
    policy_seed: int = 0  # of the policies' noise, the same for all weights
    videos: int = 0  # fresh episodes to film of each
    threads: int = 1  # of torch on the CPU
    device: str = "cpu"  # cpu | cuda

    def __post_init__(self):
        if len(self.parents) < 2:
            raise ValueError("compose needs at least two policies: understudy compose RUN RUN --out DIR")
        lookup("search", self.search, dict.fromkeys((GRID, HALVING, BAYES, PREDICT)))
        lookup("outcome", self.on, OUTCOMES)

        if self.out is None and self.resume is None:
            raise ValueError("give --out DIR for a new search, or --resume DIR to go on with one")
        if self.search == PREDICT and not self.predict:
            raise ValueError("--search predict needs demonstrations: --predict DATA")

        if self.episodes < 1 or self.report < 0 or self.block < 1:
            raise ValueError(
                f"no such search: {self.episodes} initial conditions, {self.report} fresh ones, blocks of {self.block}"
            )

        if not 0 <= self.env_seed <= self.env_seed + self.episodes <= REPORT_STARTS:
            asked = f"{self.env_seed}-{self.env_seed + self.episodes - 1}"
            raise ValueError(
                f"weights are chosen on env seeds 0-{REPORT_STARTS - 1}, not on {asked}; those are for reports"
            )
        if self.report and self.report_seed < REPORT_STARTS:
            raise ValueError(
                f"--report_seed {self.report_seed} is among the env seeds on which weights are chosen"
                f" (0-{REPORT_STARTS - 1}); a report needs fresh ones, {REPORT_STARTS} and up"
            )

    @property
    def folder(self) -> Path:
        return Path(os.path.expandvars(self.resume or self.out))

    @property
    def grid(self) -> list[Weights]:
        """The weights that may be chosen."""
        return simplex(len(self.parents), self.points or EDGE.get(len(self.parents), 3))
