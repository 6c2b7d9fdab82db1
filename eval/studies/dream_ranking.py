"""Does a dream rank policies as the truth does, and better than what needs no dream?

    understudy study dream_ranking --data $UNDERSTUDY_DATA/pusht_human/lerobot_v3
    understudy study dream_ranking --task so101-reach        # an arm, which is drawn and not dreamt
    understudy study dream_ranking --task so101-pusht        # one that pushes a thing

Demonstrations with pictures (of PushT by people, of the arm by its expert); policies that are to be learnt from, and
their episodes, failures among them; the dream, measured; the policies that are judged, in the truth, there once
more with other noise, and in the dream. None of their episodes trains it. Every step is an ordinary command and is
skipped where its result is there, so the same command goes on. At last the table: agreement of the dream beside a
second true run and cheap predictors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import command_of
from ..agree.agree import interval_text
from ..agree.verdict import agree
from ..ledger.dreams import refuse_unproven
from ..ledger.identity import Tested, matched, open_records
from ..ledger.record import Record
from ..ledger.study import Study, cell_of
from ..statistics.agreement import mmrv, pearson
from ._steps import DONE, Step

MODULE = "study dream_ranking"
WORKS = 0.5  # mean progress from which a policy works
TAUGHT = ("early", "some", "late")
SPOILT = 240  # episodes


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What differs between the tasks whose policies are ranked. Grids name `root`, too."""

    task: str
    title: str  # for people
    root: Path  # of everything that is made
    camera: str
    size: int  # px, height and width
    action_noise: float  # of the episodes that the dream learns from, as a fraction of half the action range
    episodes: int | None  # of the expert, which demonstrates; None: recordings of people are given as --data
    name: str  # in the names of the configs
    horizon: int | None = None  # control steps until an episode is cut; None: the task's own
    spoilt: float | None = None  # action noise of further episodes of the expert, which misses; None: no such

    @property
    def images(self) -> Path:
        """The demonstrations."""
        return self.root / "images"

    @property
    def policies(self) -> Path:
        """Of the judged policies, with their records."""
        return self.root / "policies"

    def demonstrate(self, data: str) -> list[str]:
        """The command that makes the demonstrations. Raises ValueError where recordings are missing, or of no use."""
        if self.episodes is None:
            if not data:
                raise ValueError(f"--data says where the human episodes of {self.task} are: a LeRobot dataset")
            return ["resim", self.task, "--data", data, "--out", str(self.images)]
        return ["demos", self.task, "--episodes", str(self.episodes), *self.recorded(self.images)]

    def recorded(self, out: Path, noise: float | None = None) -> list[str]:
        """Flags of `demos` for episodes that the dream learns from; `noise` in place of the usual action noise."""
        noise = self.action_noise if noise is None else noise
        words = ["--out", str(out), "--keep_failures", "true", "--action_noise", f"{noise:g}"]
        if self.horizon is not None:
            words += ["--world", f"{{type: mujoco, task: {self.task}, horizon: {self.horizon}}}"]
        return [*words, "--cameras", f"{{{self.camera}: [{self.size}, {self.size}]}}", "--pictures", "image"]


RANKINGS = {
    one.task: one
    for one in (
        Ranking(
            task="pusht", title="PushT", root=Path("out/dream_ranking"), camera="image", size=96, action_noise=0.1,
            episodes=None, name="pusht",
        ),
        Ranking(
            task="so101-reach", title="SO-101 reaching", root=Path("out/dream_ranking_so101_reach"), camera="front",
            size=64, action_noise=0.02, episodes=200, name="so101_reach",
        ),
        Ranking(
            task="so101-pusht", title="SO-101 PushT", root=Path("out/dream_ranking_so101_pusht"), camera="front",
            size=80, action_noise=0.002, episodes=240, name="so101_pusht", horizon=300, spoilt=0.02,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DreamRanking:
    """Train, let act, dream, and compare; hours on two cores."""

    data: str = ""  # of pusht: LeRobot dataset of human episodes; not needed where the policies have acted
    task: str = "pusht"  # pusht | so101-reach | so101-pusht; an arm's expert demonstrates, and the arm is drawn
    by: str = "progress"  # success | progress
    only_table: bool = False  # nothing is run
    out: Path | None = None  # JSON of the table

    def __post_init__(self):
        if self.task not in RANKINGS:
            raise ValueError(f"no ranking of '{self.task}'; tasks: {', '.join(RANKINGS)}")
        if self.data and RANKINGS[self.task].episodes is not None:
            raise ValueError(f"--data is of no use: the expert of {self.task} demonstrates; leave it out")

    def run(self) -> None:
        ranking = RANKINGS[self.task]
        for step in () if self.only_table else steps(ranking, self.data):
            step.do(ranking.root / DONE)
        study = table(ranking.policies, self)
        study.tell(self.out)


def steps(ranking: Ranking, data: str) -> Iterator[Step]:
    """The commands in order."""
    root, images = ranking.root, ranking.images
    sets = [root / f"episodes_{name}" for name in TAUGHT]
    if ranking.episodes is not None:
        yield _recorded(ranking.demonstrate(data), images)
    elif not images.exists():
        yield Step(ranking.demonstrate(data), images, None)
    if ranking.spoilt is not None:
        sets.insert(0, root / "episodes_spoilt")
        words = ["demos", ranking.task, "--episodes", str(SPOILT), "--env_seed", "300000"]
        yield _recorded([*words, *ranking.recorded(sets[0], ranking.spoilt)], sets[0])
    teachers = root / "teachers"
    words = ["run", f"configs/grid/dream_rollouts_{ranking.name}.yaml"]
    yield Step(words, teachers, words, looks=True)
    for number, (name, episodes) in enumerate(zip(TAUGHT, sets[-len(TAUGHT) :], strict=True)):
        words = ["demos", ranking.task, "--policy", str(teachers / name / "seed101" / "run"), "--episodes", "40"]
        words = [*words, *ranking.recorded(episodes), "--env_seed", str(200_000 + 1000 * number)]
        yield _recorded(words, episodes)
    everything = ",".join(map(str, [images, *sets]))
    dream = root / "dream"
    words = ["train", f"configs/train/dream_{ranking.name}.yaml", "--data", everything, "--out", str(dream)]
    yield Step(words, dream, words)
    words = ["eval", "--world-model", str(dream / "video"), "--data", everything, "--out", str(root / "measured")]
    yield Step(words, root / "measured", None)
    words = ["run", f"configs/grid/dream_ranking_{ranking.name}.yaml"]
    yield Step(words, ranking.policies, words, looks=True)


def _recorded(words: list[str], out: Path) -> Step:
    """`demos`, which keeps what it has recorded."""
    return Step(words, out, [*words, "--resume", "true"])


def table(folder: Path, config: DreamRanking) -> Study:
    """A row for the dream, the second true run, and each cheap predictor.

    Raises:
        DreamGateError: the dream may not rank policies, or one of them acts in it by what is misread.
    """
    sides = {name: open_records([path.parent for path in sorted(folder.glob(f"*/seed*/{name}/manifest.json"))])
             for name in ("truth", "again", "dream", "ruled")}  # fmt: skip
    refuse_unproven([*sides["dream"], *sides["ruled"]])
    pairs, rng = matched(sides["truth"], sides["dream"]), np.random.default_rng(0)
    found = agree(pairs, config.by, rng, again=matched(sides["truth"], sides["again"]))
    twice = agree(matched(sides["truth"], sides["again"]), config.by, rng)
    told = {"the dream": found, "a second true run": twice}
    if sides["ruled"]:
        told["the dream, by the rules of the task"] = agree(matched(sides["truth"], sides["ruled"]), config.by, rng)
    rows: list[tuple] = [
        (name, *(cell_of(*one.measures[measure]) for measure in ("r", "mmrv"))) for name, one in told.items()
    ]
    truth = np.array([_mean(one, config.by) for one, _ in pairs])
    for name, values in predictors(sides["truth"], pairs, truth).items():
        r = float(pearson(truth=truth, proxy=values))
        rows.append((name, None if math.isnan(r) else round(r, 3), round(float(mmrv(truth=truth, proxy=values)), 3)))
    judged = found.judged.accuracy if found.judged else None
    again = found.again.accuracy if found.again else None
    return Study(
        title=f"Ranking of {len(pairs)} {RANKINGS[config.task].title} policies by {config.by}",
        command=command_of(config, MODULE, without=("out", "only_table")),
        columns=("predictor", "Pearson r", "MMRV"),
        rows=rows,
        notes=(
            f"Bias of the dream {interval_text(found.bias)}; mean error of a policy {found.lined[0]:.3f}, by a line of "
            f"other trainings {found.lined[1]:.3f}.",
            f"Single outcomes equal: dream {judged}, second true run {again}.",
            f"Noise ceiling: r {interval_text(found.ceiling)}.",
            f"{min(len(one.episodes) for one, _ in pairs)} initial conditions, paired, of each policy. Intervals are "
            "over trainings and initial conditions. Working or broken is told by the truth itself, at half of the "
            "progress.",
            f"Mean {config.by} in the truth, there once more, and in the dream: {means(sides, pairs, config.by)}.",
        ),
    )


def means(sides: Mapping[str, Sequence[Record]], pairs: Sequence[tuple[Tested, Tested]], by: str) -> str:
    """Of each policy, the best first."""
    again = {one.records[0]: other for one, other in matched(sides["truth"], sides["again"])}
    told = []
    for true, dreamt in sorted(pairs, key=lambda pair: -_mean(pair[0], by)):
        values = ", ".join(f"{_mean(one, by):.3f}" for one in (true, again[true.records[0]], dreamt))
        told.append(f"{Path(true.records[0]).parents[1].name} {values}")
    return "; ".join(told)


def predictors(
    records: Sequence[Record], pairs: Sequence[tuple[Tested, Tested]], truth: np.ndarray
) -> dict[str, np.ndarray]:
    """What needs no dream: name -> (k,) in the order of `pairs`."""
    said = {str(record.root): record.manifest["policy"] for record in records}
    policies = [said[one.records[0]] for one, _ in pairs]
    return {
        "training steps": np.array([float(policy.get("step") or math.nan) for policy in policies]),
        "held-out loss (less is better)": -np.array([held_out_loss(Path(str(one["path"]))) for one in policies]),
        "a constant": np.ones(len(pairs)),
        "works or broken": (truth > WORKS).astype(float),
    }


def held_out_loss(policy: Path) -> float:
    """The last that the training of a policy noted, which is the run or a checkpoint in it; NaN where it noted none."""
    files = (folder / "metrics.jsonl" for folder in (policy, *policy.parents[:2]))
    file = next((file for file in files if file.is_file()), None)
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file else []
    return next((float(line["validation/loss"]) for line in reversed(lines) if "validation/loss" in line), math.nan)


def _mean(tested: Tested, by: str) -> float:
    return float(np.mean([outcome[by == "progress"] for outcome in tested.episodes.values()]))
