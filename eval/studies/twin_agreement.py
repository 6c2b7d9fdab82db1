"""Do a twin offline and the reality that it is a twin of rank policies alike, by success and by progress?

    understudy study twin_agreement --out OUT.json

Scripted demonstrations of PushT; trainings that differ in how much of them they read, several checkpoints of each; each
checkpoint acts from the same starts in the twin offline and in a stand-in with other friction, damping, mass and
latency, with several seeds of its noise. With `--online` reality is what follows the twin while a policy acts in it, as
with an arm; without, the policy acts in the stand-in itself, which takes minutes instead of hours. Every step is an
ordinary command; one that has ended is noted and skipped, an interrupted one is gone on with, by the same command.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import words_of
from ...configs.plugins import lookup
from ..agree.verdict import agree
from ..ledger.identity import Tested, by_policy, open_records
from ..ledger.study import Study, cell_of
from ._steps import DONE, Step

MODULE = "understudy study twin_agreement"
TWIN = {"type": "pusht_arm"}
REAL = {"type": "pusht_arm", "friction": 0.25, "damping": 250.0}
CHANGES = {"friction": 1.3, "mass": 1.3, "damping": 0.8, "command_delay": 0.1}
SHARES = (0.06, 0.15, 0.4, 1.0)  # of the demonstrations that each training reads


@dataclass(frozen=True, kw_only=True)
class TwinAgreement:
    """Demonstrate, train, act in both, compare; about two hours on two cores."""

    root: Path = Path("out/twin_agreement")  # where datasets, runs and records lie
    demonstrations: int = 200  # scripted ones, of which each training reads a part
    steps: int = 6000  # optimiser steps of a training
    checkpoints: int = 2  # of each training, at even steps
    starts: int = 20  # initial conditions
    repeats: int = 3  # of each, with other noise of the policy
    horizon: int = 200  # control steps of an episode
    online: bool = False  # reality follows the twin, whose cameras correct it; else the policy acts in it itself
    by: str = "progress"  # what the table is about first: success | progress
    only_table: bool = False  # nothing is run
    out: Path | None = None  # JSON of the table

    def __post_init__(self) -> None:
        lookup("outcome", self.by, dict.fromkeys(("success", "progress")))
        if self.checkpoints < 1 or self.steps % self.checkpoints:
            raise ValueError(f"steps ({self.steps}) must be a multiple of checkpoints ({self.checkpoints})")
        if min(self.starts, self.repeats, self.demonstrations, self.horizon) < 1:
            raise ValueError("starts, repeats, demonstrations and horizon must be at least 1")

    def run(self) -> None:
        for step in () if self.only_table else steps(self):
            step.do(self.root / DONE)
        study = table(self)
        study.tell(self.out)


def worlds(settings: TwinAgreement) -> Mapping[str, dict]:
    """Name of a side -> the keys of its world."""
    twin = {"type": "twin", "of": TWIN, "horizon": settings.horizon}
    if settings.online:
        scene = str(settings.root / "scene")
        real = twin | {"real": {"of": REAL, "changes": CHANGES}, "scene": scene, "judge": "truth"}
    else:
        real = {"type": "stand_in", "of": REAL, "changes": CHANGES, "horizon": settings.horizon}
    return {"truth": real, "proxy": twin}


def steps(settings: TwinAgreement) -> Iterator[Step]:
    """The commands in order."""
    root, data = settings.root, settings.root / "demos"
    words = ["demos", "pusht", "--episodes", str(settings.demonstrations), "--action_noise", "0.02"]
    words += ["--out", str(data)]
    yield Step(words, data, [*words, "--resume", "true"])
    if settings.online:
        scene = root / "scene"
        words = ["twin", "build", "pusht-arm", "--out", str(scene)]
        yield Step(words, scene, words)

    each = settings.steps // settings.checkpoints
    kept = json.loads((data / "meta" / "info.json").read_text())["total_episodes"]  # those that succeeded
    for number, share in enumerate(SHARES):
        run, last = root / "runs" / str(number), max(2, round(share * kept)) - 1
        words = ["train", "configs/train/pusht_flow.yaml", "--data", str(data), "--out", str(run)]
        words += ["--episodes", f"0-{last}", "--seed", str(number), "--steps", str(settings.steps)]
        words += ["--save_every", str(each), "--keep_every", str(each), "--validate_every", str(settings.steps)]
        words += ["--threads", "1"]
        yield Step(words, run / "config.yaml", ["train", "--resume", str(run)])
    for side, world in worlds(settings).items():
        for number in range(len(SHARES)):
            for checkpoint in range(each, settings.steps + 1, each):
                for seed in range(settings.repeats):
                    yield _act(settings, side, world, number, checkpoint, seed)


def _act(settings, side: str, world: dict, number: int, checkpoint: int, seed: int) -> Step:
    """One checkpoint in one world with one seed of its noise."""
    policy = settings.root / "runs" / str(number) / "checkpoints" / f"{checkpoint:08d}"
    kind = f"{side}_online" if settings.online and side == "truth" else side
    record = settings.root / kind / str(seed) / f"{number}_{checkpoint}"
    words = ["eval", "--policy", str(policy), "--world", json.dumps(world)]
    words += ["--episodes", str(settings.starts), "--policy_seed", str(seed), "--videos", "0", "--workers", "0"]
    words += ["--block", "1"] if settings.online and side == "truth" else []
    return Step([*words, "--out", str(record)], record / "manifest.json", [*words, "--resume", str(record)])


def table(settings: TwinAgreement) -> Study:
    """Agreement by progress and by success, and per start."""
    kinds = {"truth": "truth_online" if settings.online else "truth", "proxy": "proxy"}
    sides = {side: merged(settings.root / kind, settings.repeats) for side, kind in kinds.items()}
    pairs = [(one, sides["proxy"][key]) for key, one in sides["truth"].items()]
    other = "success" if settings.by == "progress" else "progress"
    rows = []
    for by in (settings.by, other):
        found = agree(pairs, by, np.random.default_rng(0))
        r, mmrv = (cell_of(*found.measures[name]) for name in ("r", "mmrv"))
        rows.append((by, r, mmrv, cell_of(*found.bias), cell_of(*found.judged.accuracy) if found.judged else None))
    return Study(
        title=f"Ranking of {len(pairs)} PushT policies by a twin offline beside "
        + ("reality that follows it" if settings.online else "reality itself"),
        command=" ".join([MODULE, *words_of(settings, without=("out", "only_table", "root"))]),
        columns=("by", "Pearson r", "MMRV", "bias", "single outcomes equal"),
        rows=rows,
        notes=(
            f"{len(SHARES)} trainings, {settings.checkpoints} checkpoints each; {settings.starts} starts, each "
            f"{settings.repeats} times with other noise of the policy; intervals over starts and trainings.",
            f"Reality: {json.dumps(worlds(settings)['truth'])}",
        ),
    )


def merged(folder: Path, repeats: int) -> dict[tuple[str, str], Tested]:
    """All records of a side; a repeat of a start counts as an initial condition of its own."""
    found: dict[tuple[str, str], Tested] = {}
    for seed in range(repeats):
        records = open_records([folder / str(seed)])
        if half := [record.root for record in records if not record.manifest.get("complete", True)]:
            raise ValueError(f"the record {half[0]} is not finished: the same command without --only_table goes on")
        for key, tested in by_policy(records, folder.name).items():
            episodes = {(f"{name}, repeat {seed}", start): row for (name, start), row in tested.episodes.items()}
            before = found.get(key)
            if before is not None:
                episodes = {**before.episodes, **episodes}
                errors, files = before.errors + tested.errors, before.records + tested.records
                tested = dataclasses.replace(tested, errors=errors, records=files)
            found[key] = dataclasses.replace(tested, episodes=episodes)
    return found
