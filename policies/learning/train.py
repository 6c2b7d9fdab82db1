"""`understudy train`: put data, model and loop together. The composition root of learning."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import draccus
import numpy as np
import torch

from ...configs.devices import choose_device, choose_precision, computes_bf16
from ...configs.files import clear_leftovers, replace_text
from ...configs.owner import InUseError, Owned, owned
from ...configs.parse import parse
from ...configs.protocols import keeps
from ...configs.settings.fields import default_of
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
from .account import announce, announce_change, compare_with_guesses
from .checkpoint import load_weights
from .checks import check_names
from .crew import ALONE, Crew, Elsewhere, crew_of, rank_seed
from .doors import (
    Parent,
    changed,
    check_body,
    check_dataset,
    is_whole,
    read_begun,
    read_settings,
    replaced,
    warn_of_edits,
    write_begun,
    write_settings,
)
from .feed import source_of
from .links import step_of
from .loop import BatchOrder, Interrupted, Loop, Pace
from .memory import check_memory
from .optimizer import Best
from .pictures import eyes_of, fill_encoders, open_pictures, settled, take_encoders
from .pinned import check_inside, pinned_task_spec
from .places import check_free, clear, locate
from .processes import check_launcher, size_of
from .run import SETTINGS
from .settings import Settings, kind_of, take_resume
from .side_evaluation import SideEvaluation
from .stages import Staged, staged
from .validate import Guesses, Validation

INTERRUPTED = 130  # exit status of a process whose training another one was asked to end
LOOKED_AT = 20_000  # windows at most that a model sees before it is trained


@dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Train a policy on demonstrations, a critic on what succeeded and what did not, or a world model on both."""

    @classmethod
    def from_words(cls, words: list[str]) -> Train | Resume | Staged:
        """A training, one of several stages, or with --resume the words that stand beside it."""
        resume = take_resume(words)
        if resume is not None:
            return Resume(resume, tuple(words))
        path = words.pop(0) if words and words[0].endswith((".yaml", ".yml")) else None
        if path and (stages := staged(path, words, _train_stage, resume_run)):
            stages.check(partial(parse, cls))
            return stages
        config = parse(cls, path, words)
        if config.resume is not None and path is not None:
            raise ValueError(f"--resume takes the settings of its run; {path} is not read. Leave it out")
        return config

    def run(self) -> None:
        if self.resume:
            fields = [item for item in dataclasses.fields(self) if item.name != "resume"]
            changes = {item.name: getattr(self, item.name) for item in fields}
            asked = {item.name for item in fields if changes[item.name] != default_of(item)}
            resume_run(self.resume, {name: changes[name] for name in sorted(asked)})
        else:
            start_run(self)


@dataclass(frozen=True)
class Resume:
    """`train --resume RUN`: go on with a run, or from one of its checkpoints."""

    path: Path  # run or RUN/checkpoints/STEP
    words: tuple[str, ...]  # beside --resume

    def run(self) -> None:
        resume_run(self.path, self.words)


def start_run(config: Train) -> None:
    """Train from the beginning. Refuses a run folder that holds something; one refused later leaves none.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: before anything heavy is done.
    """
    config.check()
    check_names(config)
    check_launcher(config)
    with crew_of(size_of(config.processes), config.device) as crew:
        _start(config if crew.size == 1 else dataclasses.replace(config, processes=crew.size), crew)


def _start(config: Train, crew: Crew) -> None:
    config, run = _settle_precision(config, crew), config.folder
    with crew.together():
        if crew.main:
            check_free(run, lambda run: is_whole(run, Train))
    possible = crew.in_turn(lambda: _found_possible(config, run))
    with ExitStack() as held:
        with crew.together():
            if crew.main:
                held.enter_context(_alone(run))
                check_free(run, lambda run: is_whole(run, Train))  # another may have begun in the meantime
                clear(run)
                _write(possible)
        try:
            loop = assemble(possible, crew)
            _check_memory(possible, loop)
        except (Exception, Elsewhere):  # nothing is trained: the same command may be tried again
            if crew.main:
                clear(run)
            raise
        _fit(loop, config)


def _settle_precision(config: Train, crew: Crew) -> Train:
    """The settings with what `auto` stands for on this machine, which a resumed training keeps."""
    device = choose_device(config.device)
    settled = dataclasses.replace(config, precision=choose_precision(config.precision, device))
    if crew.main and not computes_bf16(device):
        if config.precision == "bf16":
            slow = f"this {device} has no instructions for bf16, which take several times as long as float32"
            print(f"note: {slow}; --precision auto trains in float32 here", file=sys.stderr)
        elif config.precision == "auto":
            print(f"trains in float32: this {device} has no instructions for bf16")
    return settled


def _found_possible(config: Train, run: Path) -> Possible:
    possible = prepare(config, _open(config), run)
    check_inside(config, possible.dataset, possible.task_spec, possible.training)
    return possible


def _train_stage(file: str, words: list[str]) -> None:
    """One stage of several, from its beginning."""
    start_run(parse(Train, file, words))


def resume_run(path: Path, beside: Sequence[str] | Mapping[str, object] = ()) -> None:
    """Go on with a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        path: run folder, or one of its checkpoints.
        beside: words of the command line, or settings by name, that are to be changed.

    Raises:
        ValueError, FileNotFoundError: naming a flag that cannot be changed, a changed dataset, a damaged file.
    """
    path = Path(os.path.expandvars(path))
    run, checkpoint = locate(path)
    before = read_settings(run, Train)
    config = replaced(run, before, beside) if isinstance(beside, Mapping) else changed(run, before, beside)
    size = size_of(before.processes or 1, f"{run}, as it began,")
    check_launcher(config)
    with crew_of(size, config.device) as crew:
        _go_on(run, checkpoint, before, config, crew)


def _go_on(run: Path, checkpoint: Path | None, before: Train, config: Train, crew: Crew) -> None:
    begun = read_begun(run)
    warn_of_edits(run, begun)
    moved = [f"--{name}" for name in ("data", "embodiment") if getattr(config, name) != getattr(before, name)]

    def found_possible() -> Possible:
        dataset = _open(config)
        check_dataset(run, begun, dataset, moved)
        if checkpoint is not None:
            check_body(run, checkpoint, dataset.embodiment, config.learner.inputs)
        return prepare(config, dataset, run, checkpoint=checkpoint, begun=begun)

    with ExitStack() as held:
        with crew.together():
            if crew.main:
                held.enter_context(_alone(run))
                clear_leftovers(run)  # half-made links of a killed training
        possible = crew.in_turn(found_possible)
        loop = assemble(possible, crew)
        _check_memory(possible, loop)
        if checkpoint is not None:
            at = step_of(checkpoint)
            if config.steps != before.steps and at is not None and config.steps < at:
                raise ValueError(f"{run} is at step {at} already; --steps {config.steps} would go back")
            loop.restore(checkpoint)
            print(f"resuming {run} at step {loop.step} of {config.steps}")
        else:
            print(f"{run} has no checkpoint yet; training from the beginning")
            loop.log.forget_after(0)
        if config != before and crew.main:
            write_settings(run, draccus.dump(config))
            announce_change(before, config, loop.step)
        _fit(loop, config)


@dataclass(frozen=True)
class Possible:
    """A training that was found possible; nothing of it is written yet."""

    config: Train
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
    config: Train, dataset: Dataset, run: Path, *, checkpoint: Path | None = None, begun: Mapping | None = None
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
        model.prepare(windows.actions(LOOKED_AT))
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


def _open(config: Train) -> Dataset:
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


def _learned(config: Train, dataset: Dataset, training: np.ndarray) -> Learned | None:
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
    config: Train, dataset: Dataset, training: np.ndarray, windows: WindowSet, learned: Learned | None
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


def _aside(config: Train, run: Path) -> SideEvaluation | None:
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


def _settled(config: Train, dataset: Dataset) -> Train:
    """The settings with what they leave to another run or to the data."""
    given = config.learner
    learner = given.settle(dataset) if isinstance(given, WorldModelConfig) else settled(given, dataset)
    return config if learner == given else dataclasses.replace(config, **{config.learns: learner})


def _check_space(run: Path, config: Train, model: torch.nn.Module) -> None:
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


def _check_memory(possible: Possible, loop: Loop) -> None:
    """Refuse a training whose pictures would not fit into memory, in the precision that it computes in."""
    if loop.is_shared:  # its weights are in parts, which no encoder reads alone
        return
    with loop.crew.together(), loop.accelerator.autocast():
        batch = min(possible.config.batch, len(possible.windows))
        check_memory(loop.model, possible.windows.gather, batch, possible.config.learns)


def _write(possible: Possible) -> None:
    """The folder's first files; config.yaml comes last and makes it a run."""
    run, parent = possible.run, possible.parent
    (run / "checkpoints").mkdir(exist_ok=True)
    replace_text(run / "task_spec.yaml", draccus.dump(possible.task_spec))
    settings = draccus.dump(possible.config)
    write_begun(run, possible.dataset, parent.folder if parent else None, settings)
    replace_text(run / SETTINGS, settings)


def _alone(run: Path) -> Owned:
    """Take a run folder, which is made, for this training. Raises ValueError where another one works in it."""
    run.mkdir(parents=True, exist_ok=True)
    try:
        return owned(run)
    except InUseError as error:
        raise ValueError(
            f"another `understudy train` works in {run}; wait for it, stop it, or choose another --out"
        ) from error


def _fit(loop: Loop, config: Train) -> None:
    started, began, cpu = loop.seconds, loop.step, sum(os.times()[:2])
    try:
        loop.fit()
    except Interrupted:
        if loop.crew.main:
            raise
        raise Elsewhere(INTERRUPTED) from None
    wall, cpu = loop.seconds - started, sum(os.times()[:2]) - cpu
    print(f"trained to step {loop.step} in {wall:.0f} s ({cpu:.0f} CPU s); checkpoint {loop.run / 'last'}")
    if loop.crew.size > 1 and wall:
        print(f"{loop.crew.size} processes: {(loop.step - began) * config.whole_batch / wall:.3g} windows/s together")
    compare_with_guesses(loop.validated)
