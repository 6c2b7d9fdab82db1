"""A training that was found possible: data, model, windows and their order put together, and the loop of them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import draccus
import numpy as np
import torch

from ...configs.devices import choose_device
from ...configs.files import replace_text
from ...configs.protocols import keeps
from ...configs.spec import vectors
from ..data.corrections import Learned, learned_steps
from ..data.dataset import Dataset, split_episodes
from ..data.layout import DatasetError
from ..data.mixing import SharedOrder, shared_order, shares_of
from ..data.open import open_dataset
from ..data.rewards import open_windows, rewards_of
from ..data.statistics import statistics
from ..data.task_spec import Mirror, TaskSpec
from ..data.weighting import WeightedOrder
from ..data.windows import RowReader, Windows
from ..kinds import CriticConfig, PolicyConfig, WorldModelConfig
from ..policy import Begins, Prepared, Scales, WindowSet
from .account import announce
from .checkpoint import load_weights
from .crew import ALONE, Crew, rank_seed
from .doors import Parent, write_begun
from .feed import source_of
from .loop import BatchOrder, Loop, Pace
from .memory import check_memory
from .optimizer import Best
from .pictures import eyes_of, fill_encoders, open_pictures, settled, take_encoders
from .pinned import pinned_task_spec
from .run import SETTINGS
from .settings import Settings, kind_of
from .side_evaluation import SideEvaluation
from .validate import Guesses, Validation

LOOKED_AT = 20_000  # windows at most that a model sees before it is trained


@dataclass(frozen=True)
class Possible:
    """A training that was found possible; nothing of it is written yet."""

    config: Settings
    dataset: Dataset
    run: Path
    model: torch.nn.Module
    task_spec: TaskSpec
    training: np.ndarray  # positions of the episodes that train
    held_out: np.ndarray
    windows: WindowSet
    pictures: Mapping[str, RowReader]
    order: BatchOrder | WeightedOrder | SharedOrder
    mirror: Mirror | None
    aside: SideEvaluation | None
    parent: Parent | None
    learned: Learned | None = None  # which steps are learned from; None: all


def prepare(
    config: Settings, dataset: Dataset, run: Path, *, checkpoint: Path | None = None, begun: Mapping | None = None
) -> Possible:
    """Build model and data of a run, and refuse what cannot be trained. Writes nothing.

    Args:
        checkpoint: where the run goes on from; it needs its parent and the weights of others no more.
        begun: what an interrupted run began with.
    """
    if config.threads:
        torch.set_num_threads(config.threads)

    config = _settled(config, dataset) if checkpoint is None else config
    learner, embodiment = config.learner, dataset.embodiment
    training, held_out = split_episodes(dataset, config.validation, config.seed)

    # scales: actions pinned per task, states by the dataset
    task_spec = pinned_task_spec(config, dataset, training)
    task_spec.check(embodiment)
    stats = statistics(dataset, vectors(learner.inputs), training)
    scales = Scales(
        action=(task_spec.scale.low, task_spec.scale.high),
        states={key: (tuple(one.mean.tolist()), tuple(one.std.tolist())) for key, one in stats.items()},
    )

    parent = Parent(config.init, learner, embodiment) if config.init and checkpoint is None else None
    if parent and begun:
        parent.check_unchanged(begun)
    torch.manual_seed(config.seed)
    model = learner.build(embodiment, scales)

    # weights that are there already, then what a frozen encoder makes of the pictures
    story = [*(parent.hand_on(model) if parent else fill_encoders(model))] if checkpoint is None else []
    if checkpoint is None and keeps(model, Begins):
        story += model.begin(dataset, training)
    story += freeze(model, config.freeze)
    if checkpoint is not None and eyes_of(model):
        take_encoders(model, checkpoint)
    if checkpoint is not None and isinstance(learner, WorldModelConfig):
        load_weights(model, checkpoint / "model.safetensors")  # its frozen parts read the data
    pictures = open_pictures(dataset, model, np.concatenate([training, held_out]))

    learned = _learned(config, dataset, training)
    windows = _windows(dataset, learner, training, pictures, model, learned)
    if keeps(model, Prepared):
        model.prepare(cast(Windows, windows).actions(LOOKED_AT))
    mirror = Mirror(task_spec.mirror, learner.inputs, task_spec.mirror_pictures) if config.mirror else None

    # refuse a judge that does not fit before hours are spent
    aside = _aside(config, run)
    if aside:
        aside.check(embodiment, learner.inputs)
    order = _order(config, dataset, training, windows, learned)

    announce(config, dataset, model, training, held_out)
    story += [learned.story] if learned else []
    print("\n".join(story), end="\n" if story else "")
    _check_space(run, config, model)
    return Possible(
        config, dataset, run, model, task_spec, training, held_out, windows, pictures, order, mirror, aside, parent,
        learned,
    )  # fmt: skip


def assemble(possible: Possible, crew: Crew = ALONE) -> Loop:
    """The loop of a training whose folder is there."""
    config, learner = possible.config, possible.config.learner
    if not crew.main:
        torch.manual_seed(rank_seed(config.seed, crew.rank))
    return Loop(
        possible.model,
        source_of(possible.windows, choose_device(config.device), config.resident_gb),
        possible.order,
        optimize=config.optimize,
        pace=Pace(
            steps=config.steps, log=config.log_every, validate=config.validate_every, save=config.save_every,
            keep=config.keep, keep_every=config.keep_every,
        ),
        run=possible.run,
        description={"kind": kind_of(learner), "config": learner},
        validate=_validation(possible),
        device=config.device,
        precision=config.precision,
        best=Best.none if possible.aside else config.best,
        transform=possible.mirror,
        wandb=config.wandb,
        aside=possible.aside,
        captured=config.captured,
        crew=crew,
        accumulate=config.accumulate,
        shard=config.shard,
    )  # fmt: skip


def open_data(config: Settings) -> Dataset:
    chosen: dict[str, Any] = {"episodes": config.episodes, "without": config.without, "sources": config.columns}
    if isinstance(config.learner, WorldModelConfig):
        return config.learner.open(config.data, config.embodiment, **chosen)
    if not config.learner.inputs:
        raise DatasetError(
            "`inputs` is empty: nothing would be observed; name what is, such as [observation.state] or"
            " [observation.images.top] (understudy inspect DATA lists what is there)"
        )
    more = config.weighting.columns if config.weighting else ()
    columns, rewards = (*config.learner.inputs, *more), rewards_of(config.learner)
    if rewards is not None:
        return rewards.open(config.data, columns, config.embodiment, **chosen)
    return open_dataset(config.data, embodiment=config.embodiment, columns=columns, **chosen)


def _windows(
    dataset: Dataset,
    learner: PolicyConfig | CriticConfig | WorldModelConfig,
    episodes: np.ndarray,
    pictures: Mapping[str, RowReader],
    model: torch.nn.Module,
    learned: Learned | None = None,
) -> WindowSet:
    """The windows that a learner is trained or validated on."""
    if isinstance(learner, WorldModelConfig):
        return learner.windows(dataset, episodes, model)
    return open_windows(dataset, learner, episodes, pictures, learned)


def _learned(config: Settings, dataset: Dataset, training: np.ndarray) -> Learned | None:
    """Which steps a policy learns from; what learns from outcomes, and what cannot leave steps out, takes all."""
    learner = config.learner
    if config.corrections is None and (not isinstance(learner, PolicyConfig) or rewards_of(learner) is not None):
        return None
    learned = learned_steps(dataset, config.corrections, training)
    if learned is not None and not getattr(learner, "mask_padding", False):
        raise ValueError(
            f"in {dataset.root} a person took over from a policy, and this kind of policy cannot leave the policy's "
            "own steps out (it has no mask_padding true): train another kind, or choose --episodes without take-overs"
        )
    return learned


def _order(
    config: Settings, dataset: Dataset, training: np.ndarray, windows: WindowSet, learned: Learned | None
) -> BatchOrder | WeightedOrder | SharedOrder:
    """Which of the `count` windows come when, of all processes. Raises ValueError where a step would find too few."""
    batch, count = config.whole_batch, len(windows)
    if batch > count and batch != config.batch:
        raise ValueError(
            f"a step takes {batch} windows ({config.processes or 1} processes, {config.accumulate} batches of "
            f"{config.batch} each), and there are {count}: give a smaller --batch"
        )
    if config.shares:
        kept = None if learned is None else learned.weights > 0
        order = shared_order(dataset, training, shares_of(config.shares), batch, config.seed, kept)
        each = zip(order.each, dataset.parts, strict=True)
        print(f"windows of each batch: {', '.join(f'{count} of {part.root}' for count, part in each)}")
        return order
    if config.weighting is None and learned is not None and not learned.even:
        return WeightedOrder(learned.weights[cast(Windows, windows).rows], batch, config.seed)
    if config.weighting is None:
        return BatchOrder(count, batch, config.seed)
    keys = tuple(key for key in config.learner.inputs if key in dataset.columns)
    weights = np.repeat(config.weighting.weights(dataset, training, keys), dataset.lengths[training])
    if learned is not None:
        starts = zip(dataset.starts[training], dataset.lengths[training], strict=True)
        weights = weights[np.concatenate([learned.weights[s : s + n] > 0 for s, n in starts])]
    return WeightedOrder(weights, batch, config.seed)


def _aside(config: Settings, run: Path) -> SideEvaluation | None:
    """Who judges checkpoints while training goes on, if anybody."""
    if config.eval is None:
        return None
    return SideEvaluation(
        run,
        config.eval,
        every=config.every,
        steps=config.steps,
        episodes=config.eval_episodes,
        seed=config.eval_seed,
        workers=config.eval_workers,
    )


def _validation(possible: Possible) -> Callable[[torch.nn.Module], dict[str, float]]:
    dataset, learner = possible.dataset, possible.config.learner
    if not len(possible.held_out):
        return lambda model: {}
    windows = _windows(dataset, learner, possible.held_out, possible.pictures, possible.model, possible.learned)
    if not len(windows):
        return lambda model: {}  # nobody took over in what is held out
    return Validation(windows.gather, len(windows), guesses=Guesses(dataset, possible.training))


def freeze(model: torch.nn.Module, parts: Sequence[str]) -> list[str]:
    """Take parts of a model out of training; what to say of it.

    Raises:
        ValueError: a part that is not there, naming those that are.
    """
    lines = []
    for part in parts:
        held = [value for name, value in model.named_parameters() if f"{name}.".startswith(f"{part}.")]
        if not held:
            known = dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters())
            raise ValueError(f"there is no part '{part}' to freeze; the parts are {', '.join(known)}, and theirs")
        for value in held:
            value.requires_grad_(False)
        lines.append(f"frozen: {part}, {sum(value.numel() for value in held) / 1e6:.2f} M parameters")
    if not any(value.requires_grad for value in model.parameters()):
        raise ValueError(f"all of the model is frozen ({', '.join(parts)}); leave something to train")
    return lines


def _settled(config: Settings, dataset: Dataset) -> Settings:
    """The settings with what they leave to another run or to the data."""
    given = config.learner
    learner = given.settle(dataset) if isinstance(given, WorldModelConfig) else settled(given, dataset)
    return config if learner == given else dataclasses.replace(config, **{config.learns: learner})


def _check_space(run: Path, config: Settings, model: torch.nn.Module) -> None:
    """Raises OSError where the checkpoints will not fit; the folder need not be there yet."""
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    wanted = 4 * weights * (config.keep + 2 + (config.steps // config.keep_every if config.keep_every else 0))
    there = next(folder for folder in (run, *run.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < wanted:
        raise OSError(
            f"no space left for checkpoints in {run}: {wanted / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free. "
            "Free some, lower `keep`, or choose another --out"
        )


def check_fits(possible: Possible, loop: Loop) -> None:
    """Refuse a training whose pictures would not fit into memory, in the precision that it computes in."""
    if loop.is_shared:  # its weights are in parts, which no encoder reads alone
        return
    with loop.crew.together(), loop.accelerator.autocast():
        batch = min(possible.config.batch, len(possible.windows))
        check_memory(loop.model, possible.windows.gather, batch, possible.config.learns)


def write_run(possible: Possible) -> None:
    """The folder's first files; config.yaml comes last and makes it a run."""
    run, parent = possible.run, possible.parent
    (run / "checkpoints").mkdir(exist_ok=True)
    replace_text(run / "task_spec.yaml", draccus.dump(possible.task_spec))
    settings = draccus.dump(possible.config)
    write_begun(run, possible.dataset, parent.folder if parent else None, settings)
    replace_text(run / SETTINGS, settings)
