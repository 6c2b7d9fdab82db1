"""The settings of `understudy compose`: which policies, how weights are found, what is reported.

Refuses here, before anything is loaded, what makes no search: too few policies, env seeds that are for reporting.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.engines import check_engine
from ...configs.lanes.pulse import TIMEOUT
from ...configs.plugins import lookup
from ...configs.world import REPORT_STARTS
from ..ledger.table import OUTCOMES
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
    world: dict | str | None = (
        None  # a registered name, a YAML file, or its keys; by default where the policies were trained
    )
    task_text: str | None = None  # instruction for policies that read one; by default the world's task
    search: str = HALVING  # grid | successive-halving | bayes | predict: how weights are found
    points: int | None = None  # weights along an edge of the grid; default 11 for two parents, 6 for three
    episodes: int = 50  # initial conditions of the search, the same for all weights
    env_seed: int = 0  # first evaluation seed of the search, 0-999
    on: str = "success"  # success | progress: what is searched for
    keep: float = 0.5  # successive-halving: part of the weights that goes on after a rung; 1: only tests drop any
    alpha: float = 0.05  # successive-halving: chance that tests drop the best weights; 0: no tests
    budget: int | None = None  # bayes: episodes; default half of the grid's
    report: int = 200  # fresh initial conditions for the mixture, its parents and the control; 0: none
    report_seed: int = REPORT_STARTS  # first fresh evaluation seed, 1000 and up
    control: tuple[str, ...] = ()  # other training seeds of A, mixed with A at equal weights: costs as much
    predict: str | None = None  # dataset of demonstrations: weights of least denoising error, beside the search
    error: Error = Error.epsilon  # epsilon | x0 | v: in which coordinate denoising is wrong
    windows: int = 1024  # predict: most windows of the demonstrations
    out: str | None = None  # folder of records, mixture, search.json and report; must not exist
    resume: str | None = None  # goes on with this folder; parents, world, noise and env seeds as they were
    workers: int | None = None  # processes, each for whole blocks; by default as the machine allows; 0: this one
    engine: str = "local"  # whose workers they are: local (of this machine) | ray (of a cluster, see --address)
    address: str = ""  # with --engine ray: HOST:PORT of its head; by default the one here; local: a new one, here
    timeout: float = TIMEOUT  # seconds that a control step may take, an episode 60 times as long; 0: no limit
    block: int = 8  # parallel environments
    n_action_steps: int | None = None  # actions executed of each action chunk; by default the least of the parents'
    steps: int | None = None  # denoising steps of all samplers; by default the parents' own
    solver: str | None = None  # solver of all samplers: ddim | dpmpp | heun
    scheduler: str | None = None  # class of diffusers in place of a solver, such as UniPCMultistepScheduler
    policy_seed: int = 0  # seed of the policies' sampling noise, the same for all weights
    videos: int = 0  # fresh episodes to film of each
    threads: int = 1  # CPU threads that torch uses
    device: str = "auto"  # where to compute: auto (a GPU if there is one) | cpu | cuda | cuda:N

    def __post_init__(self):
        if len(self.parents) < 2:
            raise ValueError("compose needs at least two policies: understudy compose RUN RUN --out DIR")
        check_engine(self.engine, self.address, self.workers)
        lookup("search", self.search, dict.fromkeys((GRID, HALVING, BAYES, PREDICT)))
        lookup("outcome", self.on, OUTCOMES)

        if self.out is None and self.resume is None:
            raise ValueError("give --out DIR for a new search, or --resume DIR to go on with one")
        if self.search == PREDICT and not self.predict:
            raise ValueError("--search predict needs demonstrations: --predict DATA")

        if self.episodes < 1 or self.report < 0 or self.block < 1:
            raise ValueError(
                f"--episodes and --block must be at least 1, --report at least 0; got {self.episodes}, {self.block} "
                f"and {self.report}"
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
