"""The settings of `understudy compare`. Refusals that need nothing else are here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...configs.engines import LOCAL, check_engine
from ...configs.lanes.pulse import TIMEOUT
from ...configs.world import REPORT_STARTS
from .on_arm import OnArm


@dataclass(frozen=True, kw_only=True)
class Settings(OnArm):
    """Say which policy is better: compare finished records, or let two policies act until that is decided.

    Records of open-loop errors are joined by episode; with --data DATASET two policies are judged by recorded episodes.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "seed": "env_seed",
        "execute": "n_action_steps",
    }  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("what",)

    what: tuple[str, ...]  # two or more records; or two policies (runs or checkpoints), which then act
    alpha: float = 0.05  # probability of naming a better policy where there is none, two-sided
    out: str | None = (
        None  # folder of the report and compare.json; of a live comparison also of both records, and then new
    )
    name: str = ""  # title of the report; default: Which is better: A or B?
    resume: str | None = None  # live: goes on with this folder; all else as it was
    data: str | None = None  # judges two policies by recorded episodes of this dataset, open-loop: nobody acts
    world: dict | str | None = (
        None  # live: a registered name, a YAML file, or its keys; by default where both policies were trained
    )
    until_decided: bool = False  # live: stops when decided or hopeless; else --max pairs are run, a fixed number
    max: int = 500  # live: greatest number of pairs of episodes
    on: str = "success"  # live: what decides, success | progress
    test: str = "betting"  # live: betting (paired) | table (success only; B acts from evaluation seeds of its own)
    imagine: str | None = None  # live: world model whose dreams of the same starts stand beside the pairs, if that pays
    past: tuple[str, ...] = ()  # with --imagine: true records of A and B from other starts, which tell whether it pays
    imagined: int = 4000  # with --imagine: imagined pairs that the mean of the dreams is taken from
    dreams: int = 1  # with --imagine: dreams of each start and policy
    give_up: float = 0.05  # live: stops when the chance of a verdict falls below this; 0: never
    env_seed: int = REPORT_STARTS  # live: first evaluation seed
    policy_seed: int = 0  # live: seed of the policies' sampling noise
    other_seed: int | None = None  # live: seed of the noise of B, if it is to be another one
    operator: str = ""  # live: name of the person who scores every trial at the terminal, in blinded order
    workers: int | None = None  # live: processes, each for whole blocks; by default by the machine; 0: this one
    engine: str = "local"  # live: whose workers they are: local (of this machine) | ray (of a cluster, see --address)
    address: str = ""  # live: with --engine ray: HOST:PORT of its head; by default the one here; local: a new one, here
    timeout: float = TIMEOUT  # live: seconds that a control step may take, an episode 60 times as long; 0: no limit
    block: int = 8  # live: parallel environments
    n_action_steps: int | None = None  # live: actions executed of each action chunk; by default the policy's own number
    proposal: str = "policy"  # live: policy | noiseless: both without sampling noise, each a function of what it sees
    ensemble: float | None = None  # live: decay of temporal ensembling, -inf: none; by default each policy's own
    videos: int = 6  # live: films of each, first where one alone succeeded
    threads: int = 1  # live: CPU threads that torch uses
    device: str = "auto"  # live: where to compute, auto (a GPU if there is one) | cpu | cuda | cuda:N

    def __post_init__(self):
        check_engine(self.engine, self.address, self.workers)
        if self.engine != LOCAL and self.operator:
            raise ValueError("--operator scores what happens here: leave --engine out")
        if len(self.what) < 2:
            raise ValueError("compare needs at least two records or policies: understudy compare A B")
        if not 0 < self.alpha < 1 or self.max < 1 or self.block < 1:
            raise ValueError(
                f"--alpha must be between 0 and 1, --max and --block at least 1; got {self.alpha}, {self.max} and "
                f"{self.block}"
            )
