"""`understudy demos`: a task's scripted expert acts in many episodes; those that succeed become a LeRobot dataset.

The same loop as an evaluation, with an expert in place of a policy. The expert sees the simulator's privileged state,
in the environment's own process. Disturbing what is executed (`action_noise`) while keeping the expert's label clean
shows a learner how to recover.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ...configs.progress import Progress, counted
from ...configs.world import DATA_STARTS, World, read_world, start_set
from ...policies.data.writer import DatasetWriter
from ...sim.experts import Manner
from ..rollout.crew import Crew
from ..rollout.recipes import ExpertRecipe
from ..rollout.rollout import Result, in_order
from ..rollout.standing import check_paced, crew_for
from ..statistics.intervals import wilson
from .recording import check_folder, recording
from .settings import Settings
from .starts import Starts, starts_of

OF_POLICIES = ("n_action_steps", "ensemble", "policy_seed")  # settings that nobody else has a use for
OF_ROBOTS = ("port", "calibration", "seconds", "pause", "keep_late")
OF_CREWS = ("workers", "block")  # an arm that is led is one


@dataclass(frozen=True, kw_only=True)
class Demos(Settings):
    """Let a scripted expert, a person or policies act; write a LeRobot dataset."""

    def check_names(self) -> None:
        """Refuse a robot that is not there, before simulators are imported."""
        if self.robot is not None:
            from ...hardware.open import check_robot

            check_robot(self.robot)

    def _refuse_ignored(self) -> None:
        """Refuse settings of who does not act."""
        of = {"policies: give --policy RUN": OF_POLICIES if not self.policy else ()}
        of |= {"a robot: give --robot NAME": OF_ROBOTS if self.robot is None else ()}
        of |= {"the scripted expert: leave --robot out": ("starts",) if self.robot is not None else ()}
        of |= {"a simulator's environments: leave --robot out": OF_CREWS if self.robot is not None else ()}
        for whose, flags in of.items():
            for flag in flags:
                if getattr(self, flag) != getattr(Settings, flag):
                    raise ValueError(f"--{flag} is of {whose}, or leave it out")

    def run(self) -> None:
        out = self.folder
        self._refuse_ignored()
        if self.robot is not None:
            from .arm import record_on_arm

            record_on_arm(self)
            return
        if self.resume and not self.policy and self.by != "expert":
            raise ValueError("what a person recorded is not gone on with; leave --resume out and give another --out")
        check_folder(out, self.resume)
        for flag, least in (("episodes", 1), ("block", 1), ("env_seed", 0)):
            if getattr(self, flag) < least:
                raise ValueError(f"--{flag} {getattr(self, flag)}: it must be at least {least}")
        if self.starts is not None and (self.policy or self.by != "expert"):
            raise ValueError("--starts is for the scripted expert: leave --policy and --by out")
        if self.starts is not None and self.env_seed != DATA_STARTS:
            raise ValueError(
                "--env_seed begins seeds in a row; --starts takes those of the record: leave one of them out"
            )
        if self.policy:
            from .policies import record_policies

            record_policies(self)
            return
        if self.by != "expert":
            from .person import teleoperate

            teleoperate(self)
            return
        world = read_world(self.world or self.task, cameras=self.cameras)
        _check_expert(world, self.manner)
        self._check_task(world)
        check_paced(self, world)
        starts = starts_of(self, world)
        with self._crew(world, len(starts.seeds)) as crew:
            begun = time.perf_counter()
            crew.start(needs_torch=False)
            writer, results = self._record(crew, starts)
        spent = time.perf_counter() - begun
        print(_account(out, writer, results, starts, spent))

    def _check_task(self, world: World) -> None:
        """Refuse a --world of another task than the one that is asked for. Raises LookupError, ValueError."""
        if self.task != world.task and read_world(self.task).task != world.task:
            raise ValueError(
                f"--world is of the task {world.task}, not {self.task}: what is demonstrated is the world's task. Say "
                f"demos {world.task}, or give a world of {self.task}"
            )

    def _crew(self, world: World, episodes: int) -> Crew:
        """Who runs the episodes."""
        return crew_for(
            world, self.workers, episodes=episodes, block=self.block, timeout=self.timeout,
            engine=self.engine, address=self.address,
        )  # fmt: skip

    def _record(self, crew: Crew, chosen: Starts) -> tuple[DatasetWriter, list[dict]]:
        """Run all env seeds; episodes are on disk, in their order, as soon as they may be."""
        starts, card = chosen.seeds, expert_card(self, crew.world, chosen)
        rows: list[dict] = []
        columns = {
            "initial_conditions": start_set(crew.world),
            "options": {"action_noise": self.action_noise} if self.action_noise else None,
        }
        with recording(self.folder, crew.world.embodiment(), card, self) as (writer, written):
            # they are written in order: what comes before the last one is done, whether it was kept or not
            first = sum(start <= max(written) for start in starts) if written else 0
            todo, done = starts[first:], starts[:first]
            with Progress("demonstrating", len(starts), "episodes", done=len(done)) as progress:
                acted = crew.run(ExpertRecipe(self.manner), starts, keep=True, skip=done, **columns)
                for result in in_order(acted, todo):
                    self._add(writer, result)
                    rows.append(result.row)
                    won = sum(row["success"] for row in rows)
                    progress.update(len(done) + len(rows), f"success {won}/{len(rows)}")
        return writer, rows

    def _add(self, writer: DatasetWriter, result: Result) -> None:
        if result.episode is not None and (result.row["success"] or self.keep_failures):
            writer.add(result.episode)


def expert_card(settings: Settings, world: World, starts: Starts) -> dict:
    """What a dataset of an expert's episodes says of itself: JSON-able, equal for equal recordings."""
    names = ("noise", "style", "fail", "action_noise", "keep_failures", "pictures")
    how = {name: getattr(settings, name) for name in names} | {"cameras": world.embodiment().cameras}
    card = {"by": "expert", "starts": starts.card, "how": how, "world": world.fingerprint()}
    return json.loads(json.dumps(card, default=str))


def _check_expert(world: World, manner: Manner) -> None:
    """Refuse a world or task in which nobody demonstrates, or not in this manner. Raises LookupError, ValueError."""
    if not 0 <= manner.fail <= 1:
        raise ValueError(f"fail is a probability, got {manner.fail}")
    if world.undemonstrated:
        raise ValueError(world.undemonstrated)
    if not world.task:
        raise ValueError("--world names no task, so nobody knows what to demonstrate: give it one (task: NAME)")
    manner.of(world.task, 0)


def _account(out: Path, writer: DatasetWriter, rows: list[dict], starts: Starts, spent: float) -> str:
    if not rows:
        return f"{out}: {counted(writer.episodes, 'episode')}, {counted(writer.frames, 'step')}; all were there already"
    won, errors = sum(row["success"] for row in rows), sum(bool(row["error"]) for row in rows)
    lines = [
        f"expert success  {wilson(won, len(rows))}   {won} of {len(rows)}, Wilson 95 %",
        f"time            {spent:.1f} s, {len(rows) / spent:.2f} episodes/s",
    ]
    lines += [f"starts          {starts.found}"] if starts.found else []
    lines += [f"errors          {counted(errors, 'episode')}, left out"] if errors else []
    if not writer.episodes:
        raise ValueError("\n".join([*lines, "no episode succeeded: nothing is written (--keep_failures writes all)"]))
    return "\n".join([f"{out}: {counted(writer.episodes, 'episode')}, {counted(writer.frames, 'step')}", *lines])
