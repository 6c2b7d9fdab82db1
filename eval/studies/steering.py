r"""What a critic's choice among candidates does to a policy: success against the policy alone, paired, with controls.

    understudy study steering --policies RUN0 RUN1 RUN2 --critics CRITIC --world lift \
        --records out/steer --out study.json

The policies are training seeds of one recipe. Arms, all from the same initial conditions: the policy alone; the best
of K for each K; K candidates drawn by a softmax, for each temperature; and the controls, a random pick (which must
equal the policy alone) and the critic over candidates that owe nothing to the policy. Each arm of each policy is an
ordinary evaluation record; finished ones are kept and unfinished ones gone on with. Refused: a critic that was
trained on rollouts of a policy that is judged. Initial conditions that its data share with the evaluation are counted
in the notes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.command import command_of
from ...configs.world import REPORT_STARTS
from ...policies.critics.open import critic_checkpoints
from ...policies.learning.checkpoint import fingerprint
from ..demos.policies import RECORDING, written_starts
from ..evaluate.evaluate import Eval, evaluate
from ..ledger.pairs import difference, join
from ..ledger.record import MANIFEST, Record, read_record
from ..ledger.study import Study
from ..ledger.summary import chosen
from ..statistics.seeds import over_seeds

COLUMNS = ("choice", "critic", "K", "temperature", "success", "above the policy alone", "of each", "score", "spreads")


@dataclass(frozen=True)
class SteeringArm:
    """One way to choose."""

    name: str  # how candidates are chosen: the policy alone, best, softmax, random pick, any action
    critic: str | None = None
    candidates: int = 1
    temperature: float = 0.0
    proposal: str = "policy"

    @property
    def folder(self) -> str:
        """Name of its records' folder."""
        who = "" if self.critic is None else "-" + "".join(c if c.isalnum() else "_" for c in self.critic)
        return f"{self.name.replace(' ', '_')}{who}-K{self.candidates}-T{self.temperature:g}"


@dataclass(frozen=True, kw_only=True)
class SteeringStudy:
    """Steer policies by critics in many ways, from the same initial conditions."""

    RENAMED: ClassVar[dict[str, str]] = {
        "seed": "env_seed",
        "execute": "n_action_steps",
    }  # former names that are still read

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    policies: tuple[str, ...]  # runs or checkpoints, training seeds of one recipe
    critics: tuple[str, ...]  # as --critic of `understudy eval`
    world: dict | str  # registered name, YAML file, or its keys
    records: Path  # folder for the records of all arms
    out: Path  # JSON of the table
    candidates: tuple[int, ...] = (10,)  # K of the best
    temperatures: tuple[float, ...] = ()  # of a softmax among the first K
    controls: bool = True  # a random pick, and the critic over any actions, both of the first K
    episodes: int = 200  # of each way to choose
    env_seed: int = REPORT_STARTS  # first env seed
    policy_seed: int = 0  # of the policy's noise
    n_action_steps: int | None = None  # E; default the policy's own
    steps: int | None = None  # of the policy's sampler; default its own
    block: int = 8  # worlds that act at once
    workers: int = 0  # processes for the world; 0: in this one

    def run(self) -> None:
        """Act, print the table, write it. Raises ValueError for a critic that knows a policy that it judges."""
        notes = fresh(self)
        by_arm = {}
        for arm in arms(self):
            by_arm[arm] = [_record(self, arm, path, place) for place, path in enumerate(self.policies)]
        study = study_of(self, by_arm, notes)
        print(f"{study.title}\n\n{study.markdown()}\n\n" + "\n".join(f"{note}." for note in study.notes))
        print(f"written: {study.write(self.out)}")


def arms(config: SteeringStudy) -> list[SteeringArm]:
    """All ways to choose, the policy alone first."""
    first, ways = config.candidates[0], [SteeringArm("the policy alone")]
    if config.controls:
        ways.append(SteeringArm("random pick", "random", first))
    for critic in config.critics:
        ways += [SteeringArm("best", critic, count) for count in config.candidates]
        ways += [SteeringArm("softmax", critic, first, temperature) for temperature in config.temperatures]
        if config.controls:
            ways.append(SteeringArm("any action", critic, first, proposal="uniform"))
    return ways


def fresh(config: SteeringStudy) -> list[str]:
    """What the critics' data share with the evaluation, in sentences.

    Raises:
        ValueError: a critic that was trained on rollouts of one of the policies.
    """
    from ...policies.learning.checkpoint import find_checkpoint
    from ...policies.learning.run import training

    judged = {fingerprint(find_checkpoint(path)): path for path in config.policies}
    starts, notes = set(range(config.env_seed, config.env_seed + config.episodes)), []
    for critic in config.critics:
        for folder in critic_checkpoints(critic):
            sources = str((training(folder) or {}).get("data") or "").split(",")
            roots = [Path(source.strip()) for source in sources if source.strip() and Path(source.strip()).is_dir()]
            for root in roots:
                card = json.loads((root / RECORDING).read_text()) if (root / RECORDING).is_file() else {}
                actors = [actor["fingerprint"] for actor in card.get("who", ())]
                own = [judged[actor] for actor in actors if actor in judged]
                if own:
                    raise ValueError(f"{critic} was trained on {root}, which {own[0]} recorded; take other rollouts")

            shared = sum(len(starts & written_starts(root)) for root in roots)
            data = ", ".join(map(str, roots)) or "data that are not at hand"
            notes.append(f"{critic} was trained on {data}; {shared} of its episodes began where one judged here did")
    return notes


def study_of(config: SteeringStudy, by_arm: dict[SteeringArm, list[Record]], notes: Sequence[str]) -> Study:
    """A row for each arm."""
    alone = next(iter(by_arm.values()))
    rows = []
    for arm, records in by_arm.items():
        counts = [(sum(record.column("success")), len(record.table)) for record in records]
        against = difference(records, alone)[1] if records is not alone else None
        pairs = [join(base, record).success for base, record in zip(alone, records, strict=True)]
        each = ", ".join(f"{both[:, 1].mean() - both[:, 0].mean():+.3f}" for both in pairs)

        # What the critic said of its choices.
        scores = [choice for choice in map(chosen, records) if choice is not None]
        value = float(np.mean([choice.value.estimate for choice in scores])) if scores else None
        away = [(choice.value.estimate - choice.mean) / choice.spread for choice in scores if choice.spread]

        how = (arm.name, arm.critic, arm.candidates, arm.temperature if arm.critic else None)
        rows.append(
            (*how, over_seeds(*zip(*counts, strict=True)).interval, against, each if against else None, value,
             float(np.mean(away)) if away else None)
        )  # fmt: skip

    trained = f"{len(config.policies)} training seeds" if len(config.policies) > 1 else "one training"
    return Study(
        title=f"Steering {_common(config.policies)} by critics, in {alone[0].column('task')[0]}",
        command=_command(config),
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"{config.episodes} initial conditions, env seeds from {config.env_seed}, the same for all; {trained}; "
            "success: Wilson of one training, Student's t over several, 95 %",
            "Above the policy alone: paired by initial condition; Tango's interval of one training, of several "
            "Student's t, never narrower than Tango's of all pairs; of each: the differences by training",
            "Score: of the chosen candidate, in the critic's unit; spreads: above the mean candidate, standard "
            "deviations of a replanning's candidates. Temperature in the same unit",
            "Random pick must equal the policy alone; any action: K candidates that each hold an action drawn evenly",
            *notes,
        ),
    )


def _record(config: SteeringStudy, arm: SteeringArm, policy: str, place: int) -> Record:
    """The finished record of an arm of a policy: kept, gone on with, or made."""
    folder = config.records / arm.folder / str(place)
    settings = Eval(
        policy=policy, world=config.world, episodes=config.episodes, env_seed=config.env_seed,
        policy_seed=config.policy_seed,
        candidates=arm.candidates, critic=arm.critic, temperature=arm.temperature, proposal=arm.proposal,
        n_action_steps=config.n_action_steps, steps=config.steps, block=config.block, workers=config.workers, videos=0,
        **{"resume" if (folder / MANIFEST).is_file() else "out": str(folder)},
    )  # fmt: skip
    print(f"{arm.folder}, {policy}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    evaluate(settings)
    return read_record(folder)


def _common(policies: Sequence[str]) -> str:
    """What the paths of one recipe's training seeds begin with."""
    return os.path.commonpath([os.path.relpath(path) for path in policies]) or Path(policies[0]).name


def _command(config: SteeringStudy) -> str:
    return command_of(config, "study steering", without=("workers",))
