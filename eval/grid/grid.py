"""`understudy run GRID.yaml`: many trainings and evaluations over settings and seeds, resumable, one table out.

A cell is one setting with one seed: an ordinary `understudy train`, then an ordinary `understudy eval` for each entry
of `eval`, in processes of their own, so that anybody can repeat a cell by hand (`cell.json` holds its commands). The
same command again goes on: finished cells are skipped, broken ones resumed, settings and seeds that were added are run.
A cell whose settings are no longer those it was run with is refused by name. This file reads a grid and lists its
cells; `cells.py` says how far they are, `run.py` runs them, `table.py` counts.

    name: lift-width
    out: out/lift-width
    train: {config: configs/train/lift.yaml, set: {data: out/lift_demos, steps: 3000}}
    eval: {lift: {config: configs/eval/lift.yaml, set: {episodes: 100, videos: 0}}}
    seeds: [0, 1, 2]
    vary: {narrow: {policy.network.width: 64}, wide: {policy.network.width: 256}}   # named settings, and/or
    cross: {policy.prediction_type: [v, epsilon]}                                   # all combinations of values
    foreign: {lerobot_act: {config: configs/foreign/lift_act.yaml, set: {steps: 3000}}}   # trained by stock lerobot
    against: narrow                                     # setting that the others are compared with, pair by pair
    looks: 1                                            # planned groups that the seeds come in, see `table.py`
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from draccus.utils import DraccusException

from ...configs.engines import LOCAL, check_engine
from ...configs.parse import parse
from ...configs.settings.decode import decode
from ...configs.settings.refusals import UsageError

ONLY = "plain"  # name of the setting of a grid that varies nothing but seeds
OWN = ("seed", "out", "resume")  # flags that the grid sets itself
OWN_OF_LEROBOT = ("seed", "output_dir", "resume", "config_path")  # of lerobot-train


@dataclass(frozen=True, kw_only=True)
class Part:
    """What all cells have in common in their training, or in one evaluation."""

    config: dict | str = field(default_factory=dict)  # a YAML file of `understudy train`, or its keys
    set: dict = field(default_factory=dict)  # dotted key -> value, on top


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Train and evaluate over settings and seeds; run it again to go on."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ()
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    name: str = ""  # title of the table; default the name of `out`
    out: Path | None = None  # folder of all cells and of the table
    train: Part = Part()  # what is trained
    eval: dict[str, dict] = field(default_factory=dict)  # name -> config and set of an evaluation
    seeds: tuple[int, ...] = (0,)  # training seeds; every setting is trained with each
    vary: dict[str, dict] = field(default_factory=dict)  # setting -> {dotted key of training: value}
    cross: dict[str, list] = field(default_factory=dict)  # dotted key of training -> values, all combinations
    foreign: dict[str, dict] = field(default_factory=dict)  # setting -> config and set of stock lerobot's training
    against: str = ""  # setting that all others are compared with, over pairs of the same seed and initial condition
    looks: int = 1  # groups of equal size that the seeds come in; the settings are compared after each, see the table
    jobs: int = 1  # cells at a time
    shard: str = ""  # I/N: every N-th cell from the I-th on (1/4 .. 4/4), for an array of jobs that share `out`
    engine: str = "local"  # of all evaluations: local (workers of this machine) | ray (of a cluster, see --address)
    address: str = ""  # with --engine ray: HOST:PORT of its head; by default the one here; local: a new one, here
    dry_run: bool = False  # list the cells, how far they are and their commands; run nothing

    def __post_init__(self):
        if self.out is None or not self.train.config:
            raise ValueError("a grid needs `out` and `train: {config: ...}`; `understudy run GRID.yaml`")
        if self.jobs < 1 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"no such grid: {self.jobs} jobs, seeds {list(self.seeds)}")
        read_shard(self.shard)
        check_engine(self.engine, self.address, None)
        if self.looks < 1 or len(self.seeds) % self.looks:
            raise ValueError(f"{len(self.seeds)} seeds do not make {self.looks} groups of equal size")

    @property
    def title(self) -> str:
        return self.name or self.out.name


def read_shard(text: str) -> tuple[int, int]:
    """(which, of how many) of "I/N", counted from 1; (1, 1) where nothing is asked for.

    Raises:
        ValueError: no such part.
    """
    if not text:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    which, number = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= which <= number:
        raise ValueError(f"--shard {text}: write I/N, such as 1/4, counted from 1 to N as `--array=1-4` does")
    return which, number


@dataclass(frozen=True)
class Step:
    """One command of a cell."""

    name: str  # train, or the name of an evaluation
    words: tuple[str, ...]  # of the command line, after `understudy`
    place: Path  # the run or record folder that it writes
    log: Path
    config: object  # the settings that the words mean: Train, LerobotTrain or Eval

    @property
    def command(self) -> str:
        """What a reader types."""
        return shlex.join(["understudy", *self.words])


@dataclass(frozen=True)
class Cell:
    """One setting with one seed; its steps come one after another, training first."""

    setting: str
    seed: int
    folder: Path
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.seed}"


def cells(grid: Grid) -> list[Cell]:
    """All cells, settings in the order of the grid, seeds within.

    Raises:
        UsageError: a key that training or evaluation does not know, settings that cannot be told apart.
    """
    listed = [
        _cell(grid, name, seed, lambda folder, changes=changes, seed=seed: _trained_here(grid, changes, seed, folder))
        for name, changes in settings(grid)
        for seed in grid.seeds
    ]
    listed += [
        _cell(grid, name, seed, lambda folder, name=name, seed=seed: _trained_by_lerobot(name, grid, seed, folder))
        for name in grid.foreign
        for seed in grid.seeds
    ]
    names = dict.fromkeys(cell.setting for cell in listed)
    if grid.against and grid.against not in names:
        raise UsageError(f"against: no setting is named '{grid.against}'; there are {', '.join(names)}")
    folders = {}
    for cell in listed:
        other = folders.setdefault(cell.folder, cell)
        if other is not cell:
            raise UsageError(f"settings '{other.setting}' and '{cell.setting}' would share {cell.folder}; rename one")
    return listed


def settings(grid: Grid) -> Iterator[tuple[str, dict]]:
    """(name, changes of training): each of `vary` with each combination of `cross`."""
    ends = [key.rpartition(".")[2] for key in grid.cross]
    labels = [end if ends.count(end) == 1 else key for key, end in zip(grid.cross, ends, strict=True)]
    for name, changes in (grid.vary or {"": {}}).items():
        for values in itertools.product(*grid.cross.values()):
            crossed = dict(zip(grid.cross, values, strict=True))
            parts = [f"{label}={_text(value)}" for label, value in zip(labels, values, strict=True)]
            yield " ".join(filter(None, [str(name), *parts])) or ONLY, dict(changes) | crossed


def _cell(grid: Grid, setting: str, seed: int, training: Callable[[Path], Step]) -> Cell:
    from ..evaluate.evaluate import Eval

    folder = grid.out / re.sub(r"[^\w.=-]+", "-", setting) / f"seed{seed}"
    steps = [training(folder)]
    run = steps[0].place
    for name, raw in grid.eval.items():
        if not re.fullmatch(r"[\w.=-]+", name) or name in ("train", "run"):
            raise UsageError(f"'{name}' cannot name an evaluation: it becomes a folder beside `run`")
        part = decode(Part, raw)
        own = {"policy": run, "out": folder / name}
        if grid.engine != LOCAL:
            own |= {"engine": grid.engine} | ({"address": grid.address} if grid.address else {})
        steps.append(_step(name, Eval, part, dict(part.set), own, "eval", folder))
    return Cell(setting, seed, folder, tuple(steps))


def _trained_here(grid: Grid, changes: Mapping, seed: int, folder: Path) -> Step:
    from ...policies.learning.train import Train

    own = {"seed": seed, "out": folder / "run"}
    return _step("train", Train, grid.train, dict(grid.train.set) | dict(changes), own, "train", folder)


def _trained_by_lerobot(setting: str, grid: Grid, seed: int, folder: Path) -> Step:
    from ...policies.foreign.train import LerobotTrain

    part = decode(Part, grid.foreign[setting])
    if not isinstance(part.config, str) or not part.config:
        raise UsageError(
            f"foreign.{setting} needs `config`, a YAML file of lerobot-train's flags as configs/foreign has"
        )
    if taken := [key for key in part.set if key in OWN_OF_LEROBOT]:
        raise UsageError(f"foreign.{setting}: '{taken[0]}' is set by the grid itself")
    run = folder / "run"
    flags = [f"--{key}={_text(value)}" for key, value in (part.set | {"seed": seed, "output_dir": run}).items()]
    try:
        config = LerobotTrain.from_words([part.config, *flags])
    except (ValueError, OSError) as error:
        raise UsageError(f"foreign.{setting}: {error}") from error
    if not config.steps:
        raise UsageError(f"foreign.{setting}: say how many `steps` it trains, in {part.config} or in `set`")
    return Step("train", ("lerobot-train", part.config, *flags), run, folder / "train.log", config)


def _step(name: str, verb_class, part: Part, changes: dict, own: dict, verb: str, folder: Path) -> Step:
    for key in changes:
        if key in OWN and (key in own or key == "resume"):
            raise UsageError(f"{name}: '{key}' is set by the grid itself")
    path = part.config if isinstance(part.config, str) else None
    keys = {} if path else dict(part.config)
    flags = [f"--{key}={_text(value)}" for key, value in (keys | changes | own).items()]
    try:
        config = parse(verb_class, path, list(flags))
    except (ValueError, LookupError, OSError, DraccusException) as error:
        raise UsageError(f"{name}: {error.__cause__ or error}") from error
    words = (verb, *([path] if path else []), *flags)
    return Step(name, words, own["out"], folder / f"{name}.log", config)


def _text(value) -> str:
    """A value as a word of the command line; what is no text is written as JSON, which is YAML too."""
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value)
