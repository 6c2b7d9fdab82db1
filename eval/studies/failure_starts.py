"""Do demonstrations from where a policy failed in a twin teach more than as many from fresh initial conditions?

    understudy study failure_starts --out study.json

For each seed: a few demonstrations in the twin; a policy of them, which acts in the twin offline from many initial
conditions; demonstrations from those at which it failed (`understudy demos --starts`), and from fresh ones. Then the
policy is trained anew, on the few and on either; as many are learnt from of both. All trainings have the same settings,
seed and number of optimiser steps, and the last checkpoint acts: nothing is chosen. All three policies act from fresh
initial conditions in the twin offline and in a stand-in for reality with other physics and latency. Seeds share neither
demonstrations nor initial conditions, so that an interval over seeds holds for both.

After Real-is-Sim (arXiv 2504.03597), which reports 57 % with 30 demonstrations, 80 % with 30 more from failures, and
about as much with 30 more plain ones. Every step is an ordinary command; one that has ended is noted and skipped, an
interrupted one is gone on with, by the same command.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...configs.command import words_of
from ...configs.world import DATA_STARTS, REPORT_STARTS, read_world
from ..ledger.pairs import difference, join
from ..ledger.record import Record, read_record
from ..ledger.study import Study
from ..statistics.intervals import Interval
from ..statistics.seeds import over_seeds
from ._steps import DONE, Step
from .corrections import lengths

MODULE = "study failure_starts"
BASE, FAILED, FRESH = "few", "failed", "fresh"
ARMS = {
    BASE: "few demonstrations",
    FAILED: "and as many where these failed",
    FRESH: "and as many from fresh starts",
}
TWIN, REALITY = "twin", "reality"
JUDGES = {TWIN: "the twin offline", REALITY: "the stand-in"}
COLUMNS = (
    "judged in", "trained on", "demonstrations", "expert steps", "success", "above few demonstrations",
    "failures above it", "of each seed", "pairs won, lost",
)  # fmt: skip
FIRST, APART = 400_000, 10_000  # env seeds of the first seed's data, and how far those of the others are away


@dataclass(frozen=True, kw_only=True)
class Physics:
    """How the stand-in differs from the twin (`Changes` of type stand_in)."""

    friction: float = 1.3  # factor, of the contacts of everything
    mass: float = 1.3  # factor, of what no motor drives; where nothing else moves, of the arm
    damping: float = 0.8  # factor, of the joints that nothing drives
    command_delay: float = 0.1  # s from a command to the servos


@dataclass(frozen=True, kw_only=True)
class FailureStarts:
    """Demonstrate, train, find failures in the twin, demonstrate there and elsewhere, train again, compare."""

    root: Path = Path("out/failure_starts")  # where datasets, runs and records lie
    task: str = "so101-reach"  # a world in plain MuJoCo with an expert
    config: str = "configs/train/so101_reach.yaml"  # of `understudy train`
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)  # each: other demonstrations, initial conditions and trainings
    few: int = 15  # demonstrations of the first policy
    added: int = 15  # demonstrations from failures, at most, and as many from fresh starts
    tried: int = 60  # initial conditions from which the first policy looks for failures
    action_noise: float = 0.02  # of what is executed in all data, as a fraction of half the action range
    steps: int = 800  # optimiser steps of each training
    batch: int = 64  # windows in each of them
    episodes: int = 40  # of each policy in either world, of each seed
    env_seed: int = REPORT_STARTS  # first env seed of these; below 1000: to choose settings
    reality: Physics = Physics()  # what is other in the stand-in
    only_table: bool = False  # nothing is run
    out: Path | None = None  # JSON of the table

    def __post_init__(self) -> None:
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds: {self.seeds}; two or more different ones, 0 or above, for an interval over them")
        for name in ("few", "added", "tried", "steps", "batch", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be at least 1")
        if max(self.few, self.added, self.tried) > APART // 4:
            raise ValueError(
                f"few, added and tried: at most {APART // 4}, for the seeds' initial conditions must not overlap"
            )
        last = self.env_seed + (max(self.seeds) + 1) * self.episodes
        for name, end in (("reporting", REPORT_STARTS), ("data", DATA_STARTS)):
            if self.env_seed < end < last:
                raise ValueError(
                    f"env_seed {self.env_seed}: with {self.episodes} episodes of each seed it reaches {last - 1}, and "
                    f"env seeds from {end} on are for {name}"
                )
        if not 0 <= self.env_seed < DATA_STARTS:
            raise ValueError(f"env_seed: {self.env_seed}; those from {DATA_STARTS} on are for data, not for judging")

    def run(self) -> None:
        if not self.only_table:
            for world in worlds(self).values():
                read_world(world)  # a task that has no stand-in is refused before anything is made
        for seed in () if self.only_table else self.seeds:
            for step in steps(self, seed):
                step.do(self.root / DONE)
        study = table(self)
        study.tell(self.out)

    def folder(self, seed: int, name: str) -> Path:
        """Where something of a seed lies."""
        return self.root / f"seed{seed}" / name


def worlds(settings: FailureStarts) -> Mapping[str, dict]:
    """Who judges -> the keys of its world."""
    task = read_world(settings.task)
    of = {"type": task.get_choice_name(type(task)), "task": task.task}
    return {
        TWIN: {"type": "twin", "of": of},
        REALITY: {"type": "stand_in", "of": of, "changes": asdict(settings.reality)},
    }


def steps(settings: FailureStarts, seed: int) -> Iterator[Step]:
    """The commands of a seed in order; the last trainings depend on what those before have written."""
    first, twin = FIRST + APART * seed, json.dumps(worlds(settings)[TWIN])
    few, failed, fresh = (settings.folder(seed, f"{arm}_data") for arm in ARMS)
    yield _demos(settings, few, ["--episodes", str(settings.few), "--env_seed", str(first)])
    yield _trained(settings, seed, BASE, [few], "all")
    tried = settings.folder(seed, "tried")
    yield _act(settings, seed, BASE, twin, tried, first + APART // 4, settings.tried)
    added = ["--episodes", str(settings.added)]
    yield _demos(settings, failed, [*added, "--starts", str(tried)])
    yield _demos(settings, fresh, [*added, "--env_seed", str(first + APART // 2)])
    last = min(len(lengths(failed)), len(lengths(fresh))) - 1
    for arm, more in ((FAILED, failed), (FRESH, fresh)):
        yield _trained(settings, seed, arm, [few, more], f"all;0-{last}")
    report = settings.env_seed + settings.episodes * seed
    for arm in ARMS:
        for judge, world in worlds(settings).items():
            record = settings.folder(seed, f"{arm}_{judge}")
            yield _act(settings, seed, arm, json.dumps(world), record, report, settings.episodes)


def _demos(settings: FailureStarts, out: Path, starts: Sequence[str]) -> Step:
    words = ["demos", settings.task, "--world", json.dumps(worlds(settings)[TWIN]), *starts]
    words += ["--action_noise", str(settings.action_noise), "--workers", "0", "--out", str(out)]
    return Step(words, out, [*words, "--resume", "true"])


def _trained(settings: FailureStarts, seed: int, arm: str, data: Sequence[Path], episodes: str) -> Step:
    """All demonstrations are learnt from: none is held out."""
    run = settings.folder(seed, arm)
    words = ["train", settings.config, "--data", ",".join(map(str, data)), "--episodes", episodes, "--validation", "0"]
    words += ["--seed", str(seed), "--steps", str(settings.steps), "--batch", str(settings.batch)]
    words += ["--best", "none", "--save_every", str(settings.steps), "--threads", "1", "--out", str(run)]
    return Step(words, run / "config.yaml", ["train", "--resume", str(run)])


def _act(settings: FailureStarts, seed: int, arm: str, world: str, record: Path, first: int, episodes: int) -> Step:
    words = ["eval", "--policy", str(settings.folder(seed, arm)), "--world", world, "--policy_seed", str(seed)]
    words += ["--episodes", str(episodes), "--env_seed", str(first), "--videos", "0", "--workers", "0"]
    words += ["--threads", "1"]
    return Step([*words, "--out", str(record)], record / "manifest.json", [*words, "--resume", str(record)])


def table(settings: FailureStarts) -> Study:
    """A row for each way to train in each world."""
    tried = [_record(settings, seed, "tried") for seed in settings.seeds]
    rows = []
    for judge in JUDGES:
        records = {arm: [_record(settings, seed, f"{arm}_{judge}") for seed in settings.seeds] for arm in ARMS}
        learnt = {arm: np.mean([_learnt(settings, seed, arm) for seed in settings.seeds], 0) for arm in ARMS}
        rows += [_row(judge, arm, records, learnt[arm]) for arm in ARMS]
    total = settings.episodes * len(settings.seeds)
    return Study(
        title=f"Demonstrations from failures beside as many from fresh starts, {settings.task}",
        command=f"understudy {MODULE} {shlex.join(words_of(settings, without=('out', 'only_table', 'root')))}".strip(),
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"{total} initial conditions in each world, env seeds from {settings.env_seed}, the same for all ways to "
            f"train, {settings.episodes} of each of {len(settings.seeds)} seeds; each seed has demonstrations, initial "
            "conditions and trainings of its own",
            "Success: Student's t over the seeds, 95 %, never narrower than Wilson's of all; differences: paired "
            "by initial condition, Student's t over the seeds, never narrower than Tango's interval of all pairs",
            "Pairs won and lost: where failures alone, the other alone succeeded",
            f"Failures: of {settings.tried} initial conditions for data, in the twin offline, by seed: "
            + ", ".join(str(record.column("success").count(False)) for record in tried),
            f"All trainings: {settings.steps} steps of {settings.batch} windows, the last checkpoint acts; "
            "demonstrations and expert steps that are learnt from: means over the seeds",
            f"Reality is a stand-in: {json.dumps(worlds(settings)[REALITY]['changes'])}; mass of what no motor drives, "
            "or of the arm where nothing else moves",
            "The expert is scripted, and demonstrates from the initial condition, not from where the policy got stuck; "
            "what it costs to look for failures is not in it",
        ),
    )


def _row(judge: str, arm: str, records: dict[str, list[Record]], learnt: np.ndarray) -> tuple:
    mine, failed = records[arm], records[FAILED]
    won_of_each, episodes = ([count(record.column("success")) for record in mine] for count in (sum, len))
    gained = None if arm == BASE else _above(mine, records[BASE])
    cells = (JUDGES[judge], ARMS[arm], *learnt.tolist(), over_seeds(won_of_each, episodes).interval, gained)
    if arm == FAILED:
        return (*cells, None, None, None)
    pairs = [join(other, ours) for other, ours in zip(mine, failed, strict=True)]
    each = [(both.only_second - both.only_first) / len(both.starts) for both in pairs]
    won, lost = (sum(getattr(both, side) for both in pairs) for side in ("only_second", "only_first"))
    return (*cells, _above(failed, mine), ", ".join(f"{value:+.2f}" for value in each), f"{won}, {lost}")


def _above(ours: Sequence[Record], theirs: Sequence[Record]) -> Interval:
    """Success of `ours` minus `theirs`, over the seeds."""
    found = difference(ours, theirs)
    assert found is not None, "every seed has both"
    return found[1]


def _learnt(settings: FailureStarts, seed: int, arm: str) -> tuple[int, int]:
    """(demonstrations, expert steps) that a training read."""
    few = lengths(settings.folder(seed, f"{BASE}_data"))
    if arm == BASE:
        return len(few), int(few.sum())
    both = {name: lengths(settings.folder(seed, f"{name}_data")) for name in (FAILED, FRESH)}
    more = both[arm][: min(map(len, both.values()))]
    return len(few) + len(more), int(few.sum() + more.sum())


def _record(settings: FailureStarts, seed: int, name: str) -> Record:
    """Raises ValueError for one that is not there, not finished, or in which episodes ended in an error."""
    folder = settings.folder(seed, name)
    if not (folder / "manifest.json").is_file() or not (record := read_record(folder)).manifest.get("complete", True):
        raise ValueError(f"the record {folder} is not finished: the same command without --only_table goes on")
    if lost := sum(map(bool, record.column("error"))):
        raise ValueError(f"{lost} episodes of {folder} ended in an error: they say nothing of the policy. Remove it")
    return record
