"""Optimiser, learning rate and weight averaging of the one training loop, and their state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from ...configs.protocols import keeps

if TYPE_CHECKING:  # settings are read before torch is imported
    import torch
    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel


class Best(Enum):
    """Which held-out scalar marks `best` by its minimum. None foretells success reliably; rollouts do."""

    action_error = "action_error"  # or the loss, of a model that does not plan
    loss = "loss"
    none = "none"  # `best` is never marked, and `last` acts


@dataclass(frozen=True, kw_only=True)
class Optimize:
    """How weights are moved."""

    RENAMED: ClassVar[dict[str, str]] = {"final": "min_lr_ratio"}  # former names that are still read

    lr: float = 3e-4  # learning rate at its peak
    warmup: int = 500  # steps of the linear rise of the learning rate
    min_lr_ratio: float = 0.0  # learning rate at the end of the cosine decay, as a fraction of lr
    weight_decay: float = 1e-4  # weight decay of AdamW
    betas: tuple[float, float] = (0.9, 0.99)  # betas of AdamW
    clip_norm: float = 1.0  # greatest norm of the gradient
    ema: float = 0.9995  # decay of the averaged weights (EMA); it rises to this from 0.1

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of the step numbered `step` (from 0) of `steps`: linear rise, then half a cosine."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        part = (step - self.warmup) / max(steps - self.warmup, 1)
        return self.lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + math.cos(math.pi * min(part, 1.0))) / 2)

    def share(self, count: int) -> float:
        """Share of the new weights in the average that follows them, after `count` steps before."""
        return 1 - min(self.ema, (1 + count) / (10 + count)) if count else 1.0

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Parts of a model that move slower than others are its `groups()`, each {params, pace}."""
        import torch

        from ..policy import Paced

        moved = model.groups() if keeps(model, Paced) else model.parameters()
        return torch.optim.AdamW(moved, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)

    def average(self, model: nn.Module) -> AveragedModel:
        """A copy of `model` whose weights follow it exponentially, faster at first."""
        import torch
        from torch.optim.swa_utils import AveragedModel

        def follow(averaged: list[Tensor], current: list[Tensor], count) -> None:
            torch._foreach_lerp_(averaged, current, self.share(int(count)))

        return AveragedModel(model, multi_avg_fn=follow)


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """(tensors by "<parameter>.<name>", JSON-able groups) of an optimiser's state."""
    import torch

    state = optimizer.state_dict()
    tensors = {f"{i}.{name}": value for i, values in state["state"].items() for name, value in values.items()}
    groups = [{**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]]
    return {name: torch.as_tensor(value) for name, value in tensors.items()}, {"param_groups": groups}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], document: dict) -> None:
    """Undo `optimizer_state`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": _tuples(document["param_groups"])})


def generator_state() -> dict[str, Tensor]:
    """State of torch's global generators."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_generators(states: dict[str, Tensor]) -> None:
    """Undo `generator_state`; GPUs that are not here now are passed over."""
    import torch

    torch.set_rng_state(states["cpu"])
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda.{i}"], i)


def _tuples(groups: Iterable[dict]) -> list[dict]:
    return [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in groups]
