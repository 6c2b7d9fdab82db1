"""The settings of `understudy demos`: who acts, from which initial conditions, and what is written.

Experts (`demos.py`), policies (`policies.py`) and a person (`person.py`) read the same ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.engines import LOCAL, check_engine
from ...configs.lanes.pulse import TIMEOUT
from ...configs.world import DATA_STARTS
from ...sim.experts import Manner
from ..rollout.helped import TakeOverRule


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

    task: str  # the task, by the name of a world that has an expert (understudy list experts)
    episodes: int = 50  # episodes that are tried, one from each evaluation seed; those that fail are left out
    env_seed: int = DATA_STARTS  # first seed of the initial conditions; 100000 and up are for data
    # an evaluation record: the expert begins where its policy failed, at most --episodes times, in place of env_seed
    starts: str | None = None
    out: str  # the dataset folder to write, which must be new
    # who acts: expert | keyboard | gamepad; with --robot a leader arm of lerobot's alone, such as so101_leader,
    # so100_leader, koch_leader or omx_leader: --by.type so101_leader --by.port PORT --by.id ME
    by: dict | str = "expert"
    policy: tuple[str, ...] = ()  # runs or checkpoints that act instead, each in an equal share of the episodes
    policy_seed: int = 0  # with --policy: seed of the policy's sampling noise
    n_action_steps: int | None = None  # with --policy: actions executed of each action chunk; by default its own number
    ensemble: float | None = None  # with --policy: decay of temporal ensembling, -inf: none; by default its own
    # with --policy: the task's scripted expert takes over where the policy makes no headway, and every step says whose
    # it was (bool column `intervention`), for `train --corrections`: --takeover.after 15, .gain and .steps
    takeover: TakeOverRule | None = None
    resume: bool = False  # goes on with the recording in --out, or begins it; all else as it was
    world: dict | str | None = None  # a name, a YAML file, or its keys; by default the world named like the task
    workers: int | None = None  # processes, each for whole blocks; by default as the machine allows; 0: this one
    engine: str = "local"  # whose workers they are: local (of this machine) | ray (of a cluster, see --address)
    address: str = ""  # with --engine ray: HOST:PORT of its head; by default the one here; local: a new one, here
    timeout: float = TIMEOUT  # seconds that a control step may take, an episode 60 times as long; 0: no limit
    block: int = 8  # parallel environments
    noise: float = 0.0  # std of noise on actions, as a fraction of half the action range; it is recorded
    style: str = ""  # styles of the expert, of which each episode draws one; mixed: all of them
    fail: float = 0.0  # probability of an episode in which the expert fails on purpose; see keep_failures
    action_noise: float = 0.0  # std of noise on what is executed only (DART), as a fraction of half the action range
    keep_failures: bool = False  # writes episodes without success too
    # with --robot: writes episodes, too, whose steps came so late that they took over 5 % longer than their frames say
    keep_late: bool = False
    cameras: dict[str, tuple[int, int]] | None = None  # pictures: '{agentview: [84, 84]}', height and width
    pictures: str = "video"  # how pictures are stored: image | video
    # an arm in place of a world, led by hand: one of ours or lerobot's, a YAML file, or its keys (--robot.type NAME)
    robot: dict | str | None = None
    port: str | None = None  # of the robot
    calibration: str | None = None  # lerobot's calibration file of the robot; default: its usual place
    seconds: float | None = None  # with --robot: length of an episode; by default until ENTER
    pause: float | None = None  # with --robot: s between episodes, to lay things out; by default until ENTER

    def __post_init__(self):
        check_engine(self.engine, self.address, self.workers)
        if self.engine != LOCAL and (self.robot is not None or self.by != "expert"):
            raise ValueError(f"--engine {self.engine} is for experts and policies: a person, or an arm, acts here")
        if self.takeover is not None and not self.policy:
            raise ValueError("--takeover is from a policy: give --policy RUN. On an arm: understudy deploy --takeover")
        if self.takeover is not None and self.noise:
            raise ValueError(
                "--noise with --takeover would blur what the expert corrects; --action_noise disturbs what is executed "
                "and leaves the labels clean"
            )

    @property
    def folder(self) -> Path:
        """Where the dataset is written."""
        return Path(os.path.expandvars(self.out))

    @property
    def manner(self) -> Manner:
        """How the expert acts."""
        return Manner(self.noise, self.style, self.fail)
