"""`understudy compose A B ...`: the weights of a mixture of policies, found by rollouts.

The composition root of the search: opens parents and world, searches (`search.py`) over episodes that it
records (`stage.py`), writes the mixture as a checkpoint and reports it on fresh initial conditions (`fresh.py`),
beside its parents, a control of equal cost, and the weights that denoising errors predict (`predicted.py`). Nothing is
trained.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.devices import check_device, choose_device
from ...configs.documents import read_document, sealed
from ...configs.files import clear_leftovers, replace_text
from ...configs.progress import Progress
from ...configs.settings.renamed import former_names
from ...configs.world import looked_at, read_world, start_set
from ...policies.agent.open import check_policy
from ...policies.agent.stage import check_fit, check_saved, world_of
from ..evaluate.evaluate import Eval, describe
from ..ledger.dreams import check_world as check_dream
from ..ledger.provenance import provenance
from ..ledger.record import MANIFEST, read_record
from ..rollout.crew import Crew
from ..rollout.recipes import weight_of
from ..rollout.rollout import ArmError
from ..rollout.standing import check_paced, crew_for, paced
from .fresh import SEARCHED, evaluation, on_fresh_starts, open_mixture
from .page import PAGE, write_composition
from .predicted import Predicted, predict_weights
from .recipe import agent_of, instructed, recipe_of
from .report import MIXTURE, Report, plain, predicted_text
from .search import SearchResult, Trials, grid, planned, successive_halving, top_two
from .settings import BAYES, GRID, HALVING, PREDICT, Settings
from .stage import MixtureStage, slug

if TYPE_CHECKING:
    from ...policies.compositions.mixture import Mixture

FILE, FORMAT, KIND = "search.json", 1, "weight-search"
# --resume keeps them
FIXED = (
    *("parents", "world", "task_text", "env_seed", "policy_seed"),
    *("n_action_steps", "steps", "solver", "scheduler", "block"),
)


@dataclass(frozen=True, kw_only=True)
class Compose(Settings):
    """Find the weights of a mixture by rollouts, report it on fresh initial conditions, write it as a checkpoint."""

    def check_names(self) -> None:
        """Refuse names and paths that are not there, before anything heavy is imported; the folder comes last."""
        check_device(self.device)
        for policy in (*self.parents, *self.control):
            check_policy(policy)
        if not _acts(self) and self.task_text is not None:
            raise ValueError("--task_text is what policies act by, and nobody acts here: leave it out")
        if _acts(self):
            world = read_world(_world(self, tell=False))
            check_paced(self, world)
            for policy in self.parents:
                check_saved(policy, world)
        _check_folder(self)

    def run(self) -> None:
        report = compose(self)
        print(report.text())
        print(f"\nmixture         {self.folder / MIXTURE}\nreport          {self.folder / PAGE}")


def compose(config: Settings) -> Report:
    """Search, write the mixture, report it. Ctrl-C leaves a folder that --resume goes on with.

    Raises:
        ParentsError: policies that do not compose.
        ValueError: a folder in use, or other settings than it was begun with.
    """
    import torch

    from ...policies.load import save_mixture

    torch.set_num_threads(config.threads)
    if _acts(config):
        config = dataclasses.replace(config, world=_world(config))
        config = paced(config, read_world(config.world))
    config = dataclasses.replace(config, device=choose_device(config.device))
    _enter(config)
    mixture, paths = open_mixture(config, config.parents)
    text = instructed(config, mixture) if _acts(config) else None
    if text is not None:
        print(f"the policies read the text of their task: '{text}'", flush=True)
    predicted = _predict(config, mixture) if config.predict else None
    if text is not None:  # and no longer that of the demonstrations
        instructed(config, mixture)
    try:
        with _crew(config) if _acts(config) else nullcontext() as crew:  # its workers live through search and report
            result = _searched(config, mixture, paths, predicted, crew)
            save_mixture(config.folder / MIXTURE, mixture.weighted(result.chosen), paths)
            report = Report(config.parents, config.search, config.on, result, predicted=predicted)
            report = on_fresh_starts(config, report, crew, mixture.parents) if config.report else report
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; go on with --resume {config.folder}") from stop
    except ArmError as error:
        failed = error.__cause__ if isinstance(error.__cause__, ArmError) else error  # as no record of its own has it
        raise ArmError(f"{failed}; go on with --resume {config.folder}") from error
    _write(config, report)
    return report


def _acts(config: Settings) -> bool:
    """Whether anybody acts in a world."""
    return config.search != PREDICT or config.report > 0


def _world(config: Settings, tell: bool = True) -> dict | str:
    """As asked, of the search that is gone on with, or where the parents were trained."""
    if config.world is not None:
        return config.world
    if config.resume and (config.folder / FILE).is_file():
        return _today(read_search(config.folder / FILE)["settings"])["world"]
    return world_of(config.parents, tell=tell)


def _check_folder(config: Settings) -> None:
    """Raise FileNotFoundError or ValueError where a search cannot begin, or go on, in its folder."""
    if config.resume and not (config.folder / FILE).is_file():
        raise FileNotFoundError(f"'{config.folder}' holds no search: it has no {FILE}")
    if not config.resume and config.folder.exists():
        raise ValueError(f"'{config.folder}' exists; give another --out, or --resume {config.folder} to go on with it")


def _enter(config: Settings) -> None:
    """Make the folder, or check that it was begun with the same settings."""
    settings = {name: _listed(getattr(config, name)) for name in FIXED}
    _check_folder(config)
    if config.resume:
        clear_leftovers(config.folder)
        path = config.folder / FILE
        then = _today(read_search(path)["settings"])
        other = [f"{name} was {then.get(name)}, now {now}" for name, now in settings.items() if then.get(name) != now]
        if other:
            raise ValueError(f"'{config.folder}' was begun otherwise: {'; '.join(other)}")
        return
    config.folder.mkdir(parents=True)
    _write(config, None)


def _predict(config: Settings, mixture: Mixture) -> Predicted:
    predicted = predict_weights(
        mixture, config.parents, config.predict, error=config.error, windows=config.windows, seed=config.policy_seed
    )
    print("\n".join(predicted_text(predicted)), flush=True)
    return predicted


def _crew(config: Settings) -> Crew:
    """Who runs the episodes of the search and of the report."""
    searched = 0 if config.search == PREDICT else config.episodes * len(config.grid)
    return crew_for(
        read_world(config.world),
        config.workers,
        episodes=searched + config.report * (len(config.parents) + 1),
        block=config.block,
        timeout=config.timeout,
        threads=config.threads,
        device=config.device,
        weights=weight_of(*config.parents),
        engine=config.engine,
        address=config.address,
    )


def _searched(
    config: Settings, mixture: Mixture, paths: Sequence[Path], predicted: Predicted | None, crew: Crew | None
) -> SearchResult:
    """The search itself."""
    if config.search == PREDICT:
        weights = tuple(round(part, 9) for part in predicted.prediction.weights)
        return SearchResult(
            weights, (), len(config.grid) * config.episodes, "The weights are those of least denoising error."
        )

    settings = evaluation(config, str(config.folder / MIXTURE), config.episodes, config.env_seed)
    crew.enter(looked_at(crew.world, agent_of(config, mixture).pictures))
    check_fit("the mixture", mixture.embodiment, mixture.inputs, crew.world)
    before = _recorded(config.folder / SEARCHED)

    stage = _stage(config, settings, mixture, paths, crew)
    starts = range(config.env_seed, config.env_seed + config.episodes)
    trials = Trials(config.grid, starts, stage.evaluate, config.block, stage.expect)
    try:
        with Progress("searching", _most(config, trials), "episodes", done=before) as progress:
            stage.watch = lambda played: progress.update(before + played, _leading(trials))
            return _search(config, trials)
    finally:
        stage.close()


def _search(config: Settings, trials: Trials) -> SearchResult:
    if config.search == GRID:
        return grid(trials)
    if config.search == BAYES:
        return top_two(trials, config.budget or trials.full // 2, np.random.default_rng(config.env_seed))
    return successive_halving(trials, config.alpha, config.keep)


def _most(config: Settings, trials: Trials) -> int:
    """Episodes that the search takes at most."""
    if config.search == BAYES:
        return config.budget or trials.full // 2
    keep = config.keep if config.search == HALVING else 1
    return planned(len(trials.points), len(trials.starts), config.block, keep)


def _stage(config: Settings, settings: Eval, mixture: Mixture, paths: Sequence[Path], crew: Crew) -> MixtureStage:
    recipe = recipe_of(config, mixture, config.grid[0], paths)
    about = {"path": "+".join(config.parents), "type": MIXTURE, "step": None}
    about["config"] = {"parents": list(config.parents)}
    manifest = describe(settings, agent_of(config, mixture), about, crew.world)
    check_dream(manifest["world"], "this search")
    del manifest["starts"]["count"]
    return MixtureStage(
        folder=config.folder / SEARCHED,
        crew=crew,
        recipe=lambda weights: dataclasses.replace(recipe, weights=weights),
        parts=recipe.parts,
        manifest=manifest,
        columns={"initial_conditions": start_set(crew.world), "policy_seed": config.policy_seed},
        on=config.on,
    )


def _write(config: Settings, report: Report | None) -> None:
    """search.json, beside and renamed, and the page."""
    values = {"format": FORMAT, "kind": KIND, "complete": report is not None}
    values["settings"] = {item.name: _listed(getattr(config, item.name)) for item in dataclasses.fields(config)}
    values |= {"report": plain(report)} if report else {}
    text = json.dumps(sealed(values | provenance()), indent=1, allow_nan=False)
    replace_text(config.folder / FILE, text + "\n")
    if report:
        write_composition(report, values["settings"], config.folder)


def read_search(path: Path) -> dict:
    """What `search.json` holds, also of a search that has not ended.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else, damaged, or from a newer version.
    """
    values = read_document(path, KIND, FORMAT, ValueError)
    for name in ("settings", *(("report",) if values.get("complete") else ())):
        if not isinstance(values.get(name), dict):
            raise ValueError(f"{path} is damaged: it has no '{name}'")
    return values


def _listed(value):
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=lambda item: getattr(item, "value", str(item))))


def _recorded(folder: Path) -> int:
    return sum(len(read_record(manifest.parent).table) for manifest in folder.glob(f"*/{MANIFEST}"))


def _leading(trials: Trials) -> str:
    played = [weights for weights, got in trials.outcomes.items() if got]
    return f"leading {slug(trials.best(played)[0])}" if played else ""


def _today(settings: dict) -> dict:
    """Settings that an earlier version wrote, under today's names."""
    former = former_names(Settings)
    return {former.get(name, name): value for name, value in settings.items()}
