"""What a training says of itself: what is trained on what, what a resume changes, and how good it became."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...configs.devices import choose_device, device_name
from ...configs.progress import counted
from ...configs.protocols import keeps
from ...configs.spec import ACTION
from ..data.dataset import Dataset
from ..data.pace import pace_warning
from ..data.rewards import rewards_of
from ..data.statistics import nearly_constant
from ..policy import UsesPast
from .settings import Settings


def announce(
    config: Settings, dataset: Dataset, model: torch.nn.Module, training: np.ndarray, held_out: np.ndarray
) -> None:
    """What is trained, on how much of which data, and what is odd about that."""
    learner: Any = config.learner
    count = sum(parameter.numel() for parameter in model.parameters())
    frames = int(dataset.lengths[training].sum())
    kind = learner.get_choice_name(type(learner))
    device = device_name(choose_device(config.device))
    print(
        f"training {kind}{_arm(model)} ({count / 1e6:.2f} M parameters) on {device}: "
        f"{counted(len(training), 'episode')}, {counted(frames, 'window')}; "
        f"{counted(len(held_out), 'episode')} held out"
    )
    if not len(held_out):
        print(f"warning: {nothing_held_out(config.validation)}")
    if config.whole_batch != config.batch:
        shared = ", weights shared out" if config.shard else ""
        print(
            f"{counted(config.whole_batch, 'window')} a step: {config.processes or 1} x {config.accumulate} x "
            f"{config.batch} (processes, batches, windows){shared}"
        )
    if rewards := rewards_of(learner):
        print(rewards.account(dataset, training))
    _tell_of_constants(dataset, (*learner.inputs, ACTION), training)
    if unknown := dataset.embodiment.unknown_in_short:
        print(
            f"warning: not specified: {unknown}. It trains all the same; a real arm would refuse it (--embodiment FILE)"
        )
    if pace := pace_warning(dataset):
        print(f"warning: {pace}")


def nothing_held_out(validation: float) -> str:
    """Why no episode of a training is held out, and what that means."""
    why, mend = ("validation is 0", "--validation 0.1 holds some out")
    if validation:
        why, mend = ("the data have one episode alone", "record more")
    return (
        f"no episode is held out ({why}): there will be no held-out loss or error and no checkpoint `best` by them, "
        f"and `eval --data` of these data cannot say how well it does on what it was not trained on; {mend}"
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


def announce_change(before: Settings, now: Settings, step: int) -> None:
    """What a resume changes, and what longer training means for the learning rate."""
    for item in dataclasses.fields(now):
        then, value = getattr(before, item.name), getattr(now, item.name)
        if then != value:
            print(f"{item.name} is {value} from here on (it was {then}); noted in config.yaml")
    if before.steps != now.steps:
        rates = [config.optimize.rate(step, config.steps) for config in (before, now)]
        print(
            f"the learning rate, whose decay would have ended at step {before.steps}, is computed anew to end at step "
            f"{now.steps}: at step {step} it is {rates[1]:.3g} in place of {rates[0]:.3g}"
        )


def compare_with_guesses(scalars: Mapping[str, float]) -> None:
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
    elif last is not None and error >= last:
        print(
            "these plans are no better yet than repeating the last action, which needs no policy and does no task: too "
            "little training to tell whether the policy will work (it may still: held-out error does not foretell it)"
        )
