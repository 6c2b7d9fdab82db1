"""`understudy compose A B ...`: the weights of a mixture of policies, found by rollouts on validation starts.

The composition root of the search: opens parents and world, searches (`weight_search.py`) over episodes that it
records (`compose_stage.py`), writes the mixture as a checkpoint and reports it on fresh starts (`compose_fresh.py`),
beside its parents, a control of equal cost, and the weights that denoising errors predict (`predicted.py`). Nothing is
trained.
"""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..configs.lanes import Lanes
from ..configs.plugins import lookup
from ..configs.progress import Progress
from .compose_fresh import SEARCHED, checkpoint, evaluation, on_fresh_starts, open_mixture
from .compose_page import PAGE, write_composition
from .compose_report import MIXTURE, Report, plain, predicted_text
from .compose_stage import MixtureStage, slug
from .duel import OUTCOMES
from .evaluate import Eval, describe, fingerprint
from .gram import Error
from .ledger import MANIFEST, provenance, read_record
from .predicted import Predicted, predict_weights
from .results import SHIFT
from .weight_search import Found, Trials, Weights, grid, planned, simplex, successive_halving, top_two
from .worlds import read_world, start_set

if TYPE_CHECKING:
    from ..policies.agent import Agent
    from ..policies.mixture import Mixture

FILE = "search.json"
GRID, HALVING, BAYES, PREDICT = "grid", "successive-halving", "bayes", "predict"
EDGE = {1: 2, 2: 11, 3: 6, 4: 4}  # points an edge of the grid, by number of parents
FIXED = ("parents", "world", "seed", "policy_seed", "execute", "steps", "solver", "block")  # --resume keeps them


@dataclass(frozen=True, kw_only=True)
class Compose:
    """Find the weights of a mixture of policies by rollouts, report it on fresh starts, write it as a checkpoint."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("parents",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "policies.networks", "sim")

    parents: tuple[str, ...]  # two or more runs or checkpoints, also of mixtures
    world: dict | str = "pusht"  # registered name, YAML file, or its keys
    search: str = HALVING  # grid | successive-halving | bayes | predict: how weights are found
    points: int | None = None  # weights an edge of the grid; default 11 for two parents, 6 for three
    episodes: int = 50  # validation starts, the same for all weights
    seed: int = 0  # first validation start, 0-999
    on: str = "success"  # success | progress: what is searched for
    keep: float = 0.5  # successive-halving: part of the weights that goes on after a rung; 1: only tests drop any
    alpha: float = 0.05  # successive-halving: chance that tests drop the best weights; 0: no tests
    budget: int | None = None  # bayes: episodes; default half of the grid's
    report: int = 200  # fresh starts for the mixture, its parents and the control; 0: none
    report_seed: int = 1000  # first fresh start, 1000 and up
    control: tuple[str, ...] = ()  # other training seeds of A, mixed with A at equal weights: costs as much
    predict: str | None = None  # dataset of demonstrations: weights of least denoising error, beside the search
    error: Error = Error.epsilon  # epsilon | x0 | v: in which coordinate denoising is wrong
    windows: int = 1024  # predict: most windows of the demonstrations
    out: str | None = None  # folder of records, mixture, search.json and report; must not exist
    resume: str | None = None  # go on with this folder; parents, world, noise and starts as they were
    workers: int = 0  # processes for the world; 0: in this one
    block: int = 8  # starts that act at the same time
    execute: int | None = None  # E, actions executed of each plan; default the least of the parents'
    steps: int | None = None  # of all samplers; default the parents' own
    solver: str | None = None  # of all samplers: ddim | dpmpp | heun
    policy_seed: int = 0  # of the policies' noise, the same for all weights
    videos: int = 0  # fresh episodes to film of each
    threads: int = 1  # of torch on the CPU
    device: str = "cpu"  # cpu | cuda

    def __post_init__(self):
        if len(self.parents) < 2:
            raise ValueError("compose needs at least two policies: understudy compose RUN RUN --out DIR")
        lookup("search", self.search, dict.fromkeys((GRID, HALVING, BAYES, PREDICT)))
        lookup("outcome", self.on, OUTCOMES)
        if self.out is None and self.resume is None:
            raise ValueError("give --out DIR for a new search, or --resume DIR to go on with one")
        if self.search == PREDICT and not self.predict:
            raise ValueError("--search predict needs demonstrations: --predict DATA")
        if self.episodes < 1 or self.report < 0 or self.block < 1:
            raise ValueError(
                f"no such search: {self.episodes} starts, {self.report} fresh ones, blocks of {self.block}"
            )
        if not 0 <= self.seed <= self.seed + self.episodes <= SHIFT:
            asked = f"{self.seed}-{self.seed + self.episodes - 1}"
            raise ValueError(f"weights are chosen on starts 0-{SHIFT - 1}, not on {asked}; those are for reports")
        if self.report and self.report_seed < SHIFT:
            raise ValueError(
                f"--report-seed {self.report_seed} is among the starts on which weights are chosen (0-{SHIFT - 1}); a"
                f" report needs fresh ones, {SHIFT} and up"
            )

    @property
    def folder(self) -> Path:
        return Path(os.path.expandvars(self.resume or self.out))

    @property
    def grid(self) -> list[Weights]:
        """The weights that may be chosen."""
        return simplex(len(self.parents), self.points or EDGE.get(len(self.parents), 3))

    def run(self) -> None:
        report = compose(self)
        print(report.text())
        print(f"\nmixture         {self.folder / MIXTURE}\nreport          {self.folder / PAGE}")


def compose(config: Compose) -> Report:
    """Search, write the mixture, report it. Ctrl-C leaves a folder that --resume goes on with.

    Raises:
        ParentsError: policies that do not compose.
        ValueError: a folder in use, or other settings than it was begun with.
    """
    import torch

    from ..policies.learning.checkpoint import save_mixture

    torch.set_num_threads(config.threads)
    _enter(config)
    mixture, paths = open_mixture(config, config.parents)
    predicted = _predict(config, mixture) if config.predict else None
    try:
        found = _found(config, mixture, predicted)
        save_mixture(config.folder / MIXTURE, mixture.weighted(found.chosen), paths)
        report = Report(config.parents, config.search, config.on, found, predicted=predicted)
        report = on_fresh_starts(config, report) if config.report else report
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; go on with --resume {config.folder}") from stop
    _write(config, report)
    return report


def _enter(config: Compose) -> None:
    """Make the folder, or check that it was begun with the same settings."""
    settings = {name: _listed(getattr(config, name)) for name in FIXED}
    if config.resume:
        path = config.folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"'{config.folder}' holds no search: it has no {FILE}")
        then = json.loads(path.read_text())["settings"]
        other = [f"{name} was {then.get(name)}, now {now}" for name, now in settings.items() if then.get(name) != now]
        if other:
            raise ValueError(f"'{config.folder}' was begun otherwise: {'; '.join(other)}")
        return
    if config.folder.exists():
        raise ValueError(f"'{config.folder}' exists; give another --out, or --resume {config.folder} to go on with it")
    config.folder.mkdir(parents=True)
    _write(config, None)


def _predict(config: Compose, mixture: Mixture) -> Predicted:
    found = predict_weights(
        mixture, config.parents, config.predict, error=config.error, windows=config.windows, seed=config.policy_seed
    )
    print("\n".join(predicted_text(found)), flush=True)
    return found


def _found(config: Compose, mixture: Mixture, predicted: Predicted | None) -> Found:
    """The search itself."""
    if config.search == PREDICT:
        weights = tuple(round(part, 9) for part in predicted.prediction.weights)
        return Found(weights, (), len(config.grid) * config.episodes, "The weights are those of least denoising error.")
    world = read_world(config.world)
    settings = evaluation(config, str(config.folder / MIXTURE), config.episodes, config.seed)
    mixture.embodiment.check(world.embodiment(), mixture.needs)
    before = _recorded(config.folder / SEARCHED)
    with closing(Lanes(world, config.block, config.workers)) as lanes:
        stage = _stage(config, settings, mixture, lanes)
        trials = Trials(config.grid, range(config.seed, config.seed + config.episodes), stage.evaluate, config.block)
        try:
            with Progress("searching", _most(config, trials), "episodes", done=before) as progress:
                stage.watch = lambda played: progress.update(before + played, _leading(trials))
                return _search(config, trials)
        finally:
            stage.close()


def _search(config: Compose, trials: Trials) -> Found:
    if config.search == GRID:
        return grid(trials)
    if config.search == BAYES:
        return top_two(trials, config.budget or trials.full // 2, np.random.default_rng(config.seed))
    return successive_halving(trials, config.alpha, config.keep)


def _most(config: Compose, trials: Trials) -> int:
    """Episodes that the search takes at most."""
    if config.search == BAYES:
        return config.budget or trials.full // 2
    keep = config.keep if config.search == HALVING else 1
    return planned(len(trials.points), len(trials.starts), config.block, keep)


def _stage(config: Compose, settings: Eval, mixture: Mixture, lanes: Lanes) -> MixtureStage:
    parts = [fingerprint(checkpoint(path)) for path in config.parents]
    about = {"path": "+".join(config.parents), "type": MIXTURE, "step": None}
    about["config"] = {"parents": list(config.parents)}
    manifest = describe(settings, _agent(config, mixture), about, lanes.world)
    del manifest["starts"]["count"]
    return MixtureStage(
        folder=config.folder / SEARCHED,
        lanes=lanes,
        actor=lambda weights: _agent(config, mixture.weighted(weights).to(config.device)),
        parts=parts,
        manifest=manifest,
        columns={"start_set": start_set(lanes.world), "seed": config.policy_seed},
        on=config.on,
    )


def _agent(config: Compose, mixture: Mixture) -> Agent:
    from ..policies.agent import Agent

    return Agent(mixture, lanes=config.block, execute=mixture.execute, seed=config.policy_seed)


def _write(config: Compose, report: Report | None) -> None:
    """search.json, beside and renamed, and the page."""
    values = {"format": 1, "kind": "weight-search", "complete": report is not None}
    values["settings"] = {item.name: _listed(getattr(config, item.name)) for item in dataclasses.fields(config)}
    values |= {"report": plain(report)} if report else {}
    beside = config.folder / f".{FILE}.{os.getpid()}"
    beside.write_text(json.dumps(values | provenance(), indent=1, default=str, allow_nan=False) + "\n")
    beside.replace(config.folder / FILE)
    if report:
        write_composition(report, values["settings"], config.folder)


def _listed(value):
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=lambda one: getattr(one, "value", str(one))))


def _recorded(folder: Path) -> int:
    return sum(len(read_record(one.parent).table) for one in folder.glob(f"*/{MANIFEST}"))


def _leading(trials: Trials) -> str:
    played = [weights for weights, got in trials.outcomes.items() if got]
    return f"leading {slug(trials.best(played)[0])}" if played else ""
