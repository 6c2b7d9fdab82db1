"""The settings of `understudy demos`: who acts, from which initial conditions, and what is written.

Experts (`demos.py`), policies (`policies.py`) and a person (`person.py`) read the same ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.lanes.pulse import TIMEOUT
from ...configs.world import DATA_STARTS
from ...sim.experts import Manner


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Let a scripted expert, a person or policies act; write a LeRobot dataset."""

    RENAMED: ClassVar[dict[str, str]] = {
        "seed": "env_seed",
        "shake": "action_noise",
        "execute": "n_action_steps",
    }  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("task",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("sim",)

    task: str  # a world with an expert; `understudy list experts` names them
    episodes: int = 50  # initial conditions that are tried; those that fail are left out
    env_seed: int = DATA_STARTS  # first env seed; 100000 and up are for data
    out: str  # dataset folder to write; must not exist
    by: str = "expert"  # expert | keyboard | gamepad: who acts
    policy: tuple[str, ...] = ()  # runs or checkpoints that act instead, each in an equal share of the episodes
    policy_seed: int = 0  # with policy: of the policy's noise
    n_action_steps: int | None = None  # with policy: E, executed actions of each chunk; default its own
    ensemble: float | None = None  # with policy: decay of temporal ensembling, -inf: none; default its own
    resume: bool = False  # go on with the recording in `out`, or begin it; all else as it was
    world: dict | str | None = None  # default: the world named like the task
    workers: int | None = None  # processes that each run whole blocks; default: as the machine allows; 0: this one
    timeout: float = TIMEOUT  # s that the world may take for a control step; 60 times that an episode; 0: no limit
    block: int = 8  # initial conditions that act at the same time
    noise: float = 0.0  # of the actions of an expert or policy, in half ranges of the limits; recorded
    style: str = ""  # how the expert acts: names of its styles, each episode draws one; mixed: all of them
    fail: float = 0.0  # probability of an episode in which the expert fails on purpose; see keep_failures
    action_noise: float = 0.0  # of what is executed, in half ranges of the limits; the recorded action stays clean
    keep_failures: bool = False  # write episodes without success too
    cameras: dict[str, tuple[int, int]] | None = None  # pictures to record, name -> [height, width]
    pictures: str = "video"  # image | video: how pictures are stored

    @property
    def folder(self) -> Path:
        """Where the dataset is written."""
        return Path(os.path.expandvars(self.out))

    @property
    def manner(self) -> Manner:
        """How the expert acts."""
        return Manner(self.noise, self.style, self.fail)
