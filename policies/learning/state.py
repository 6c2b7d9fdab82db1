"""What a resumed run needs of its last checkpoint, and of its logs, read with nothing believed.

A checkpoint that is damaged, of another network or of another optimiser is refused in one sentence before the loop
takes any of it. A log is no part of the state: lines of it that cannot be read are left out with one warning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.documents import read_object
from ...configs.files import read_lines
from .checkpoint import check_stated
from .integrity import TRAINING, CheckpointError, check_like, damaged, load_tensors, verify

if TYPE_CHECKING:  # a judge in a process of its own reads logs alone
    import torch
    from torch import Tensor, nn

FILES = ("weights.safetensors", "optimizer.safetensors", "rng.safetensors", "optimizer.json", "progress.json")


@dataclass(frozen=True)
class State:
    """The training state of a checkpoint, beside the weights."""

    step: int
    best: float
    seconds: float
    averaged: int
    marked: bool  # whether it was the best so far
    optimizer: dict[str, Tensor]
    groups: dict
    generators: dict[str, Tensor]


def read_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """The state in a checkpoint, checked against the model and optimiser that will take it; neither is changed.

    Raises:
        CheckpointError: naming the file, what is wrong with it, and the newest older checkpoint that is whole.
    """
    place = folder / TRAINING
    files = ("config.json", "embodiment.json", "model.safetensors", *(f"{TRAINING}/{name}" for name in FILES))
    verify(folder, files)
    check_stated(folder, model)
    try:
        for file in (folder / "model.safetensors", place / "weights.safetensors"):
            check_like(file, load_tensors(file), model.state_dict())
        progress = _progress(place / "progress.json", folder)
        groups = _groups(place / "optimizer.json", optimizer)
        moments = load_tensors(place / "optimizer.safetensors")
        _check_moments(place / "optimizer.safetensors", moments, optimizer, progress["step"])
        generators = load_tensors(place / "rng.safetensors")
        _check_generators(place / "rng.safetensors", generators)
    except CheckpointError as error:
        raise damaged(folder, str(error)) from error
    return State(**progress, optimizer=moments, groups=groups, generators=generators)


def read_rows(path: Path) -> list[dict]:
    """The rows of a log that say a step; the others are left out with a warning."""
    rows, bad = read_lines(path)
    whole = [row for row in rows if type(row.get("step")) is int]
    bad += len(rows) - len(whole)
    if bad:
        print(f"warning: {bad} line{'s' if bad > 1 else ''} of {path} could not be read and left out", flush=True)
    return whole


def _document(path: Path) -> dict:
    try:
        return read_object(path, CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); it is damaged or missing") from error


def _progress(path: Path, folder: Path) -> dict:
    """step, best, seconds, averaged and marked, which older ones do not say."""
    found = _document(path)
    kinds = {"step": "a step", "best": "a number", "seconds": "seconds", "averaged": "a number of steps"}
    for name, kind in kinds.items():
        value: Any = found.get(name)
        whole = type(value) is int and value >= 0
        number = type(value) in (int, float) and not math.isnan(value)
        fits = whole if name in ("step", "averaged") else number and (name == "best" or 0 <= value < math.inf)
        if not fits:
            raise CheckpointError(f"'{name}' in {path} is {value!r}, not {kind}; the file is damaged")
    if folder.name.isdigit() and int(folder.name) != found["step"]:
        raise CheckpointError(f"{path} says step {found['step']}, its folder {folder.name}; one of the two is wrong")
    return {name: found[name] for name in kinds} | {"marked": found.get("marked") is True}


def _groups(path: Path, optimizer: torch.optim.Optimizer) -> dict:
    """The groups of parameters, which must be those of `optimizer`; rates may differ, they are set at each step."""
    found, wanted = _document(path), optimizer.state_dict()["param_groups"]
    groups = found.get("param_groups")
    if not isinstance(groups, list) or len(groups) != len(wanted) or not all(isinstance(g, dict) for g in groups):
        raise CheckpointError(f"{path} does not hold the {len(wanted)} groups of parameters of this training")
    for group, ours in zip(groups, wanted, strict=True):
        if group.get("params") != ours["params"]:
            raise CheckpointError(f"'params' in {path} are not the {len(ours['params'])} parameters of this training")
        for name, value in ours.items():
            theirs = group.get(name, list(value) if isinstance(value, tuple) else value)
            if name == "lr" and _is_rate(theirs):
                continue
            if theirs != (list(value) if isinstance(value, tuple) else value):
                raise CheckpointError(f"'{name}' in {path} is {theirs!r}; this training has {value!r}")
    return found


def _is_rate(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _check_moments(path: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Every parameter has all of its moments or none, of its shape, finite, the second not negative."""
    import torch

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = {name.partition(".")[0] for name in tensors}
    wanted = {
        f"{index}.{name}": torch.empty((), device="meta") if name == "step" else value
        for index, value in enumerate(parameters)
        if str(index) in held
        for name in ("step", "exp_avg", "exp_avg_sq")
    }
    check_like(path, tensors, wanted)
    for name, value in tensors.items():
        if name.endswith(".exp_avg_sq") and bool((value < 0).any()):
            raise CheckpointError(f"'{name}' in {path} is a mean of squares and below 0; the file is damaged")
        if name.endswith(".step") and not 0 < value.item() <= step:
            raise CheckpointError(f"'{name}' in {path} is {value.item():g}, at step {step}; the file is damaged")
    if step and parameters and not tensors:
        raise CheckpointError(f"{path} holds no moments, at step {step}; the file is damaged")


def _check_generators(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The state of the CPU's generator can be taken, which is tried on one beside; of others only its kind is asked."""
    import torch

    if "cpu" not in tensors:
        raise CheckpointError(f"'cpu' is missing in {path}; the file is damaged")
    for name, values in tensors.items():
        if values.dtype != torch.uint8 or values.ndim != 1:
            raise CheckpointError(f"'{name}' in {path} is no state of a generator; the file is damaged")
    try:
        torch.Generator().set_state(tensors["cpu"])
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"'cpu' in {path} is no state of a generator ({error}); the file is damaged") from error
