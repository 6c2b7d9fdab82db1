"""`understudy demos`: a task's scripted expert acts from many starts; what succeeds becomes a LeRobot dataset.

The same loop as an evaluation, with an expert in place of a policy. The expert sees the simulator's privileged state,
in the lane's own process. Disturbing what is executed (`shake`) while keeping the expert's label clean shows a learner
how to recover.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..configs.lanes import Lanes
from ..configs.progress import Progress
from ..sim.experts import Manner
from .metrics import wilson
from .record import DatasetWriter
from .rollout import Result, in_order, rollout
from .worlds import read_world, start_set


@dataclass(frozen=True, kw_only=True)
class Demos:
    """Let a scripted expert, a person or policies act; write a LeRobot dataset."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("task",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("sim",)

    task: str  # a world with an expert; `understudy list experts` names them
    episodes: int = 50  # starts that are tried; those that fail are left out
    seed: int = 100_000  # first start id; 100000 and up are for data
    out: str  # dataset folder to write; must not exist
    by: str = "expert"  # expert | keyboard | gamepad: who acts
    policy: tuple[str, ...] = ()  # runs or checkpoints that act instead, each from an equal share of the starts
    policy_seed: int = 0  # with policy: of the noise that it plans with
    execute: int | None = None  # with policy: E, actions executed of each plan; default its own
    resume: bool = False  # with policy: go on with the recording in `out`; all else as it was
    world: dict | str | None = None  # default: the world named like the task
    workers: int = 0  # processes for the world; 0: in this one
    block: int = 8  # starts that act at the same time
    noise: float = 0.0  # of the actions of an expert or policy, in half ranges of the limits; recorded
    style: str = ""  # how the expert acts: names of its styles, each start draws one; mixed: all of them
    fail: float = 0.0  # probability of a start at which the expert fails on purpose; see keep_failures
    shake: float = 0.0  # of what is executed, in half ranges of the limits; the recorded action stays clean
    keep_failures: bool = False  # write episodes without success too
    cameras: dict[str, tuple[int, int]] | None = None  # pictures to record, name -> [height, width]
    pictures: str = "video"  # image | video: how pictures are stored

    def run(self) -> None:
        out = self.folder
        if out.exists() and not (self.resume and self.policy):
            raise FileExistsError(f"'{out}' exists already; give another --out")
        if self.episodes < 1 or self.seed < 0 or self.block < 1:
            raise ValueError(f"no such starts: {self.episodes} episodes from {self.seed} in blocks of {self.block}")
        if self.policy:
            from .gather import record_policies

            record_policies(self)
            return
        if self.by != "expert":
            from .teleoperate import teleoperate

            teleoperate(self)
            return
        world = read_world(self.world or self.task, cameras=self.cameras)
        _check_expert(world.task, self.manner)
        with closing(Lanes(world, self.block, self.workers)) as lanes:
            begun = time.perf_counter()
            writer, results = self._record(lanes, out)
        spent = time.perf_counter() - begun
        print(_account(out, writer, results, spent))

    @property
    def folder(self) -> Path:
        """Where the dataset is written."""
        return Path(os.path.expandvars(self.out))

    @property
    def manner(self) -> Manner:
        """How the expert acts."""
        return Manner(self.noise, self.style, self.fail)

    def _record(self, lanes: Lanes, out: Path) -> tuple[DatasetWriter, list[dict]]:
        """Run all starts; episodes are on disk, in the order of their starts, as soon as they may be."""
        expert = ExpertActor(lanes, self.manner)
        starts = range(self.seed, self.seed + self.episodes)
        writer, rows = DatasetWriter(out, lanes.embodiment, pictures=self.pictures), []
        columns = {"start_set": start_set(lanes.world), "options": {"shake": self.shake} if self.shake else None}
        try:
            with Progress("demonstrating", len(starts), "episodes") as progress:
                for result in in_order(rollout(expert, lanes, starts, keep=True, **columns), starts):
                    self._add(writer, result)
                    rows.append(result.row)
                    progress.update(len(rows), f"success {sum(row['success'] for row in rows)}/{len(rows)}")
        finally:
            if not writer.episodes:
                shutil.rmtree(out)
        return writer, rows

    def _add(self, writer: DatasetWriter, result: Result) -> None:
        if result.episode is not None and (result.row["success"] or self.keep_failures):
            writer.add(result.episode)


class ExpertActor:
    """The experts of the lanes as an actor that looks at every step.

    Args:
        manner: how they act; a number is the noise of their actions, in half ranges of the limits.
    """

    execute = 1
    look = ()

    def __init__(self, lanes: Lanes, manner: Manner | float = 0.0):
        self.lanes, self.manner = lanes, manner

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Nothing to remember: an expert sees the state."""

    def act(self) -> np.ndarray:
        slots = np.flatnonzero(self.lanes.running).tolist()
        actions = np.zeros((self.lanes.num_envs, 1, *self.lanes.single_action_space.shape), np.float32)
        for slot, action in enumerate(self.lanes.call("expert_action", self.manner, slots=slots)):
            if action is not None:
                actions[slot, 0] = action
        return actions

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """Nothing to remember."""


def _check_expert(task: str, manner: Manner) -> None:
    """Refuse a task that nobody demonstrates, or not in this manner. Raises LookupError listing what is known."""
    if not 0 <= manner.fail <= 1:
        raise ValueError(f"fail is a probability, got {manner.fail}")
    manner.of(task, 0)


def _account(out: Path, writer: DatasetWriter, rows: list[dict], spent: float) -> str:
    won, errors = sum(row["success"] for row in rows), sum(bool(row["error"]) for row in rows)
    lines = [
        f"expert success  {wilson(won, len(rows))}   {won} of {len(rows)}, Wilson 95 %",
        f"time            {spent:.1f} s, {len(rows) / spent:.2f} episodes/s",
    ]
    lines += [f"errors          {errors} episodes, left out"] if errors else []
    if not writer.episodes:
        raise ValueError("\n".join([*lines, "no episode succeeded: nothing is written (--keep_failures writes all)"]))
    return "\n".join([f"{out}: {writer.episodes} episodes, {writer.frames} steps", *lines])
