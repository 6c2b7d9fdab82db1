"""`understudy train`: put data, model and loop together. The composition root of learning."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import draccus
import numpy as np
import torch

from ...configs.parse import decode, load
from ...configs.protocols import keeps
from ...configs.spec import ACTION
from ..data.dataset import Dataset, split_episodes
from ..data.open import open_dataset
from ..data.rewards import Rewarded, open_windows, rewards_of
from ..data.statistics import action_range, nearly_constant, statistics
from ..data.task_spec import ActionScale, Mirror, TaskSpec, load_task_spec
from ..data.weighting import WeightedOrder, Weighting
from ..policy import CriticConfig, PolicyConfig, Prepared, Scales, UsesPast
from .checkpoint import find_checkpoint, load_weights
from .loop import BatchOrder, Best, Loop, Pace
from .optimizer import Optimize
from .run import SETTINGS
from .side_evaluation import SideEvaluation
from .validate import Guesses, Validation

LOOKED_AT = 20_000  # windows at most that a model sees before it is trained


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a policy on demonstrations, or a critic on what succeeded and what did not."""

    RENAMED: ClassVar[dict[str, str]] = {"piece": "task_spec"}  # former names that are still read

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    data: str = ""  # LeRobot dataset: folder or hub id
    policy: PolicyConfig | None = None  # what is trained
    critic: CriticConfig | None = None  # in place of a policy: what will rank action chunks
    out: Path | None = None  # run folder; default runs/<name of the dataset>
    steps: int = 20_000  # optimiser steps
    batch: int = 256  # windows a step
    weighting: Weighting | None = None  # draw windows of good episodes more often; none: all equally often
    optimize: Optimize = Optimize()
    task_spec: TaskSpec | None = None  # pinned action scale (and mirror) of the task
    scale: str | None = None  # the same from a file or an earlier run: from:RUN
    mirror: bool = False  # augment by the task spec's mirror symmetry
    embodiment: Path | None = None  # who acts, where the dataset does not say
    validation: float = 0.05  # part of the episodes held out
    seed: int = 0  # of weights, batches and noise
    device: str = "auto"  # auto | cpu
    precision: str = "no"  # no (float32) | bf16: the forward pass; weights and acting stay float32
    threads: int | None = None  # of torch on the CPU; default all cores
    best: Best = Best.action_error  # held-out scalar that marks `best`: action_error | loss | none
    log_every: int = 100
    validate_every: int = 1000
    save_every: int = 1000
    keep: int = 2  # newest checkpoints kept
    keep_every: int = 0  # multiples of this step are kept for good
    eval: Path | None = None  # config of `understudy eval`: judges checkpoints in a side process; success marks `best`
    every: int = 1000  # steps between judged checkpoints
    eval_episodes: int | None = None  # episodes of a judgement; default as many as the config says
    eval_seed: int = 0  # first env seed of a judgement; 0-999 are for choosing
    eval_workers: int = 0  # processes for the world of a judgement; results do not depend on it
    init: Path | None = None  # fine-tune from this run or checkpoint
    resume: Path | None = None  # go on with this run, exactly; takes its config.yaml
    wandb: bool = False  # log to Weights & Biases too

    @property
    def learner(self) -> PolicyConfig | CriticConfig:
        """What is trained."""
        return self.critic if self.policy is None else self.policy

    def check(self) -> None:
        """Raise ValueError unless there is data, and one thing to train that can be trained."""
        if not self.data or (self.policy is None) == (self.critic is None):
            raise ValueError(
                "give a config with `policy` and `data`, for example configs/train/pusht.yaml, or `critic` and `data`, "
                "for example configs/train/value_iql.yaml; and not both"
            )
        if self.critic is not None and not keeps(self.critic, Rewarded):
            kind = self.critic.get_choice_name(type(self.critic))
            raise ValueError(f"'{kind}' needs no training: understudy eval --candidates 10 --critic {kind}")
        if self.critic is not None and self.eval is not None:
            raise ValueError("`eval` lets what is trained act, but a critic does not; leave it out")

    def run(self) -> None:
        if self.resume:
            resume_run(self.resume)
        else:
            start_run(self)


def start_run(config: Train) -> None:
    """Train from the beginning. Refuses a run folder that exists.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: before anything heavy is done.
    """
    config.check()
    run = config.out or Path("runs") / Path(config.data.rstrip("/")).name
    if run.exists():
        raise FileExistsError(f"{run} exists; choose another --out, or go on with: understudy train --resume {run}")
    loop = assemble(config, _open(config), run)
    if config.init:
        load_weights(loop.model, find_checkpoint(config.init) / "model.safetensors")
    _fit(loop)


def resume_run(run: Path) -> None:
    """Go on with a run from its last checkpoint, bit for bit as if it had not stopped."""
    if not (run / SETTINGS).is_file():
        raise FileNotFoundError(f"{run} is not a run: it has no config.yaml")
    config = decode(Train, load(run / SETTINGS))
    loop = assemble(config, _open(config), run)
    if (run / "last").exists():
        loop.restore((run / "last").resolve())
        print(f"resuming {run} at step {loop.step} of {config.steps}")
    else:
        print(f"{run} has no checkpoint yet; training from the beginning")
        loop.log.forget_after(0)
    _fit(loop)


def assemble(config: Train, dataset: Dataset, run: Path) -> Loop:
    """Build the loop of a run: data, model, validation. Writes the run's config.yaml and task_spec.yaml."""
    if config.threads:
        torch.set_num_threads(config.threads)

    learner, embodiment = config.learner, dataset.embodiment
    training, held_out = split_episodes(dataset, config.validation, config.seed)

    # scales: actions pinned per task, states by the dataset
    task_spec = pinned_task_spec(config, dataset, training)
    task_spec.check(embodiment)
    stats = statistics(dataset, learner.inputs, training)
    scales = Scales(
        action=(task_spec.scale.low, task_spec.scale.high),
        states={key: (tuple(stats[key].mean.tolist()), tuple(stats[key].std.tolist())) for key in learner.inputs},
    )

    torch.manual_seed(config.seed)
    model = learner.build(embodiment, scales)

    windows = open_windows(dataset, learner, training)
    if keeps(model, Prepared):
        model.prepare(windows.actions(LOOKED_AT))
    mirror = Mirror(task_spec.mirror, learner.inputs) if config.mirror else None

    # refuse a judge that does not fit before hours are spent
    aside = _aside(config, run)
    if aside:
        aside.check(embodiment, learner.inputs)
    order = _order(config, dataset, training, len(windows))

    _announce(config, dataset, model, training, held_out)
    _prepare(run, config, task_spec, model)

    return Loop(
        model,
        windows.gather,
        order,
        optimize=config.optimize,
        pace=Pace(
            steps=config.steps, log=config.log_every, validate=config.validate_every, save=config.save_every,
            keep=config.keep, keep_every=config.keep_every,
        ),
        run=run,
        description={"kind": "policy" if config.critic is None else "critic", "config": learner},
        validate=_validation(dataset, learner, training, held_out),
        device=config.device,
        precision=config.precision,
        best=Best.none if aside else config.best,
        transform=mirror,
        wandb=config.wandb,
        aside=aside,
    )  # fmt: skip


def _open(config: Train) -> Dataset:
    more = config.weighting.columns if config.weighting else ()
    columns, rewards = (*config.learner.inputs, *more), rewards_of(config.learner)
    if rewards is not None:
        return rewards.open(config.data, columns, config.embodiment)
    return open_dataset(config.data, embodiment=config.embodiment, columns=columns)


def _order(config: Train, dataset: Dataset, training: np.ndarray, count: int) -> BatchOrder | WeightedOrder:
    """Which of the `count` windows come when."""
    if config.weighting is None:
        return BatchOrder(count, config.batch, config.seed)
    keys = tuple(key for key in config.learner.inputs if key in dataset.columns)
    weights = np.repeat(config.weighting.weights(dataset, training, keys), dataset.lengths[training])
    return WeightedOrder(weights, config.batch, config.seed)


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


def pinned_task_spec(config: Train, dataset: Dataset, training: np.ndarray) -> TaskSpec:
    """The task spec given, or one from the dataset's smallest and greatest actions."""
    if config.scale:
        return load_task_spec(config.scale)
    if config.task_spec:
        return config.task_spec
    low, high = action_range(statistics(dataset, (ACTION,), training)[ACTION])
    return TaskSpec(scale=ActionScale(low=low, high=high))


def _validation(
    dataset: Dataset, learner: PolicyConfig | CriticConfig, training: np.ndarray, held_out: np.ndarray
) -> Callable[[torch.nn.Module], dict[str, float]]:
    if not len(held_out):
        return lambda model: {}
    windows = open_windows(dataset, learner, held_out)
    return Validation(windows.gather, len(windows), guesses=Guesses(dataset, training))


def _announce(config, dataset, model, training, held_out) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    frames = int(dataset.lengths[training].sum())
    kind = config.learner.get_choice_name(type(config.learner))
    print(
        f"training {kind}{_arm(model)} ({count / 1e6:.2f} M parameters) on "
        f"{len(training)} episodes, {frames} windows; {len(held_out)} episodes held out"
    )
    if rewards := rewards_of(config.learner):
        print(rewards.account(dataset, training))
    _tell_of_constants(dataset, (*config.learner.inputs, ACTION), training)
    if dataset.embodiment.unknown_units:
        print(
            f"warning: nobody states the unit of {', '.join(dataset.embodiment.unknown_units)}; deploy will refuse it"
        )


def _tell_of_constants(dataset: Dataset, keys: tuple[str, ...], training: np.ndarray) -> None:
    """Name what moves by rounding noise only: it is read as a constant."""
    names = dataset.embodiment.offers() | {ACTION: dataset.embodiment.action}
    for key, dim, spread in nearly_constant(dataset, tuple(key for key in keys if key in dataset.columns), training):
        print(
            f"warning: '{names[key][dim]}' of {key} is nearly constant (standard deviation {spread:.2g}, rounding "
            "noise); it is taken as a constant"
        )


def _arm(model: torch.nn.Module) -> str:
    """How the model uses the past, in words, where it says so."""
    return f", {model.arm}" if keeps(model, UsesPast) else ""


def _prepare(run: Path, config: Train, task_spec: TaskSpec, model: torch.nn.Module) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "checkpoints").mkdir(exist_ok=True)
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    wanted = 4 * weights * (config.keep + 2 + (config.steps // config.keep_every if config.keep_every else 0))
    free = shutil.disk_usage(run).free
    if free < wanted:
        raise OSError(
            f"no space left for checkpoints in {run}: {wanted / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free. "
            "Free some, lower `keep`, or choose another --out"
        )
    if not (run / SETTINGS).exists():
        (run / "task_spec.yaml").write_text(draccus.dump(task_spec))
        (run / SETTINGS).write_text(draccus.dump(config))


def _fit(loop: Loop) -> None:
    started, cpu = loop.seconds, sum(os.times()[:2])
    loop.fit()
    wall, cpu = loop.seconds - started, sum(os.times()[:2]) - cpu
    print(f"trained to step {loop.step} in {wall:.0f} s ({cpu:.0f} CPU s); checkpoint {loop.run / 'last'}")
    _compare_with_guesses(loop.validated)


def _compare_with_guesses(scalars: Mapping[str, float]) -> None:
    """Say how well the held-out actions are planned, beside what needs no policy."""
    names = ("action_error", "mean_action_error", "last_action_error")
    error, mean, last = (scalars.get(f"validation/{name}") for name in names)
    if error is None or mean is None:
        return
    repeated = "" if last is None else f", {last:.3g} by repeating the last one"
    print(f"held-out action error {error:.3g}; {mean:.3g} by the mean action{repeated} (1 = half of the action range)")
    if error >= mean:
        print(
            "warning: these plans are no better than the mean action. Train longer, look at the scales and at "
            "`understudy inspect`, or try prediction_type: x0 or policy.type: regression to see what can be learnt"
        )
