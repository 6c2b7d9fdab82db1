"""Do corrections of a policy's own mistakes teach more than as many demonstrations?

    understudy study corrections --out study.json

For each seed: a few demonstrations; a weak policy of them; its episodes from fresh starts, in which the task's scripted
expert takes over where the policy makes no headway, and finishes (`understudy demos --takeover`); plain demonstrations
from the same starts. Then the policy is trained anew, on the few and on

- the corrections, of which the expert's steps alone are learned from;
- as many episodes of plain demonstrations;
- the first of these, with about as many steps of the expert's as the corrections have.

All trainings have the same settings, seed and number of optimiser steps. All policies act from the same reporting
starts and are compared in pairs. Every step is an ordinary command; one that has ended is noted and skipped, an
interrupted one is gone on with, by the same command. No setting was chosen by what it gave: corrections weigh twice as
much as demonstrations, so that they are about half of what is drawn (as in Sirius).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import words_of
from ...configs.world import REPORT_STARTS
from ..ledger.pairs import difference, join
from ..ledger.record import Record, read_record
from ..ledger.study import Study
from ..rollout.helped import TakeOverRule
from ..statistics.intervals import Interval
from ..statistics.paired import mcnemar
from ..statistics.seeds import over_seeds
from ._steps import DONE, Step

MODULE = "study corrections"
WEAK, CORRECTED, EPISODES, STEPS = "weak", "corrections", "as_many_episodes", "as_many_steps"
ARMS = {
    WEAK: "few demonstrations",
    CORRECTED: "and corrections",
    EPISODES: "and as many episodes of demonstrations",
    STEPS: "and as many expert steps of demonstrations",
}
COLUMNS = (
    "trained on", "episodes added", "expert steps added", "success", "above few demonstrations", "corrections above it",
    "of each", "pairs won, lost", "McNemar's p of each",
)  # fmt: skip
DATA_STARTS, APART = 300_000, 10_000  # env seeds of the first seed's data, and how far those of the others are away


@dataclass(frozen=True, kw_only=True)
class CorrectionsStudy:
    """Demonstrate, train, correct, train again, compare; about 15 minutes of one core."""

    root: Path = Path("out/corrections")  # where datasets, runs and records lie
    task: str = "so101-reach"  # a world with an expert
    config: str = "configs/train/so101_reach.yaml"  # of `understudy train`
    seeds: tuple[int, ...] = (0, 1, 2)  # each: other demonstrations and another training
    few: int = 10  # demonstrations of the weak policy
    added: int = 30  # episodes with the expert at hand, and demonstrations to compare with
    takeover: TakeOverRule = TakeOverRule()  # when the expert takes over
    weight: float = 2.0  # of a corrected step beside a demonstrated one
    action_noise: float = 0.02  # of what is executed in all data, as a fraction of half the action range
    steps: int = 800  # optimiser steps of each training
    batch: int = 64  # windows in each of them
    episodes: int = 100  # of each policy
    env_seed: int = REPORT_STARTS  # first env seed of these; below 1000: to choose settings
    only_table: bool = False  # nothing is run
    out: Path | None = None  # JSON of the table

    def __post_init__(self) -> None:
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds: {self.seeds}; two or more different ones, 0 or above, for an interval over them")
        for name in ("few", "added", "steps", "batch", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be at least 1")
        if max(self.few, self.added) > APART // 2:
            raise ValueError(f"few and added: at most {APART // 2}, for the seeds' initial conditions must not overlap")
        if self.weight <= 0:
            raise ValueError(f"weight: {self.weight}; corrections that are learned from weigh more than 0")

    def run(self) -> None:
        for seed in () if self.only_table else self.seeds:
            for step in steps(self, seed):
                step.do(self.root / DONE)
        study = table(self)
        study.tell(self.out)

    def folder(self, seed: int, name: str) -> Path:
        """Where something of a seed lies."""
        return self.root / f"seed{seed}" / name


def steps(settings: CorrectionsStudy, seed: int) -> Iterator[Step]:
    """The commands of a seed in order; some depend on what those before have written."""
    first = DATA_STARTS + APART * seed
    few, corrections, plain = (settings.folder(seed, f"{name}_data") for name in ("few", CORRECTED, "plain"))
    weak = settings.folder(seed, WEAK)
    yield _demos(settings, few, settings.few, first)
    yield from _trained(settings, seed, WEAK, [few], "all")
    rule = settings.takeover
    helped = ["--policy", str(weak), "--policy_seed", str(seed), "--takeover.after", str(rule.after)]
    helped += ["--takeover.gain", str(rule.gain), "--takeover.steps", str(rule.steps)]
    yield _demos(settings, corrections, settings.added, first + APART // 2, helped)
    yield _demos(settings, plain, settings.added, first + APART // 2)
    own = [] if settings.weight == 1 else ["--corrections.weight", str(settings.weight)]
    yield from _trained(settings, seed, CORRECTED, [few, corrections], "all", own)
    yield from _trained(settings, seed, EPISODES, [few, plain], "all")
    last = as_many(expert_steps(corrections), lengths(plain)) - 1
    yield from _trained(settings, seed, STEPS, [few, plain], f"all;0-{last}")


def _demos(settings: CorrectionsStudy, out: Path, episodes: int, first: int, more: Sequence[str] = ()) -> Step:
    words = ["demos", settings.task, *more, "--episodes", str(episodes), "--env_seed", str(first)]
    words += ["--action_noise", str(settings.action_noise), "--workers", "0", "--out", str(out)]
    return Step(words, out, [*words, "--resume", "true"])


def _trained(
    settings: CorrectionsStudy, seed: int, arm: str, data: Sequence[Path], episodes: str, more: Sequence[str] = ()
) -> Iterator[Step]:
    """Train, and act."""
    run, record = settings.folder(seed, arm), settings.folder(seed, f"{arm}_eval")
    words = ["train", settings.config, "--data", ",".join(map(str, data)), "--episodes", episodes, *more]
    words += ["--seed", str(seed), "--steps", str(settings.steps), "--batch", str(settings.batch)]
    words += ["--validate_every", str(settings.steps), "--save_every", str(settings.steps), "--threads", "1"]
    yield Step([*words, "--out", str(run)], run / "config.yaml", ["train", "--resume", str(run)])
    words = ["eval", "--policy", str(run), "--world", settings.task, "--episodes", str(settings.episodes)]
    words += ["--env_seed", str(settings.env_seed), "--videos", "0", "--workers", "0", "--threads", "1"]
    yield Step([*words, "--out", str(record)], record / "manifest.json", [*words, "--resume", str(record)])


def lengths(folder: Path) -> np.ndarray:
    """(M,) control steps of each episode."""
    from ...policies.data.open import open_dataset

    return np.asarray(open_dataset(str(folder)).lengths)


def expert_steps(folder: Path) -> int:
    """How many steps of a recording with take-overs are the expert's; of demonstrations, all."""
    from ...policies.data.corrections import DEMONSTRATED, PERSON, kinds_of
    from ...policies.data.open import open_dataset

    dataset = open_dataset(str(folder))
    kinds = kinds_of(dataset)
    return int(dataset.lengths.sum()) if kinds is None else int(np.isin(kinds, (PERSON, DEMONSTRATED)).sum())


def as_many(wanted: int, lengths: np.ndarray) -> int:
    """How many of the first episodes have together as nearly as can be `wanted` steps; at least one."""
    return int(np.abs(np.cumsum(lengths) - wanted).argmin()) + 1


def table(settings: CorrectionsStudy) -> Study:
    """A row for each way to train."""
    records = {arm: [_record(settings, seed, arm) for seed in settings.seeds] for arm in ARMS}
    added = [_added(settings, seed) for seed in settings.seeds]
    rows = [_row(arm, records, [one[arm] for one in added]) for arm in ARMS]
    helped = [_helped(settings, seed) for seed in settings.seeds]
    return Study(
        title=f"Corrections beside as many demonstrations, {settings.task}",
        command=f"understudy {MODULE} {shlex.join(words_of(settings, without=('out', 'only_table', 'root')))}".strip(),
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"{settings.episodes} initial conditions, env seeds from {settings.env_seed}, the same for all; "
            f"{len(settings.seeds)} seeds, each with demonstrations, corrections and trainings of its own; success: "
            "Student's t over them, 95 %, never narrower than Wilson's of all episodes",
            "Differences: paired by initial condition, seed by seed; Student's t over the seeds, never narrower than "
            "Tango's interval of all pairs; pairs won and lost: where the corrections alone, the other alone succeeded",
            f"The weak policy learns from {settings.few} demonstrations. The expert takes over after "
            f"{settings.takeover.after} control steps that brought no {settings.takeover.gain:g} of progress, and "
            + (f"hands back after {settings.takeover.steps}; " if settings.takeover.steps else "finishes; ")
            + "take-overs by seed: "
            + ", ".join(f"in {led} of {episodes} episodes" for led, episodes in helped),
            f"Learned from with the corrections: the expert's steps alone, weight {settings.weight:g}; all trainings: "
            f"{settings.steps} steps of {settings.batch} windows; added: means over the seeds",
            "The expert is scripted and begins where the arm is: what it costs a person to take over is not in it",
        ),
    )


def _row(arm: str, records: dict[str, list[Record]], added: Sequence[tuple[int, int]]) -> tuple:
    mine, corrected = records[arm], records[CORRECTED]
    won_of_each = [sum(record.column("success")) for record in mine]
    episodes = [len(record.column("success")) for record in mine]
    gained = _above(mine, records[WEAK]) if arm != WEAK else None
    cells = [ARMS[arm], *np.mean(added, 0).tolist(), over_seeds(won_of_each, episodes).interval, gained]
    if arm == CORRECTED:
        return (*cells, None, None, None, None)
    pairs = [join(other, ours) for other, ours in zip(mine, corrected, strict=True)]
    each = [both.success[:, 1].mean() - both.success[:, 0].mean() for both in pairs]
    won, lost = ([getattr(both, side) for both in pairs] for side in ("only_second", "only_first"))
    tests = [mcnemar(ours, theirs) for ours, theirs in zip(won, lost, strict=True)]
    return (
        *cells,
        _above(corrected, mine),
        ", ".join(f"{value:+.3f}" for value in each),
        f"{sum(won)}, {sum(lost)}",
        ", ".join(f"{p:.2g}" for p in tests),
    )


def _above(ours: Sequence[Record], theirs: Sequence[Record]) -> Interval:
    """Success of `ours` minus `theirs`, over the seeds."""
    found = difference(ours, theirs)
    assert found is not None, "every seed has both"
    return found[1]


def _record(settings: CorrectionsStudy, seed: int, arm: str) -> Record:
    """Raises ValueError for one that is not there or not finished."""
    folder = settings.folder(seed, f"{arm}_eval")
    if not (folder / "manifest.json").is_file() or not (record := read_record(folder)).manifest.get("complete", True):
        raise ValueError(f"the record {folder} is not finished: the same command without --only_table goes on")
    return record


def _added(settings: CorrectionsStudy, seed: int) -> dict[str, tuple[int, int]]:
    """Of each way to train: episodes and expert's steps beside the few demonstrations."""
    corrections, plain = settings.folder(seed, f"{CORRECTED}_data"), lengths(settings.folder(seed, "plain_data"))
    corrected = expert_steps(corrections)
    some = as_many(corrected, plain)
    return {
        WEAK: (0, 0),
        CORRECTED: (len(lengths(corrections)), corrected),
        EPISODES: (len(plain), int(plain.sum())),
        STEPS: (some, int(plain[:some].sum())),
    }


def _helped(settings: CorrectionsStudy, seed: int) -> tuple[int, int]:
    """(episodes with a take-over, episodes) of the corrections of a seed."""
    from ...policies.data.corrections import INTERVENTION, led_episodes
    from ...policies.data.open import open_dataset

    dataset = open_dataset(str(settings.folder(seed, f"{CORRECTED}_data")))
    led = led_episodes(dataset)
    assert led is not None, f"{dataset.root} has no column {INTERVENTION}"
    return int(led.sum()), len(led)
