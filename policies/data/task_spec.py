"""A task's pinned facts about actions: the scale that becomes [-1, 1], and a mirror symmetry if it has one.

Policies of one task share the scale, so that their noise is the same noise and they can be composed. Kept in
`configs/task_specs/<task>.yaml`, and written to `RUN/task_spec.yaml` by every training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.settings.decode import decode
from ...configs.settings.load import load
from ...configs.spec import ACTION, Embodiment
from .windows import LATER

if TYPE_CHECKING:  # settings are read before torch is imported
    from torch import Tensor

FILE = "task_spec.yaml"
FORMER_FILE = "piece.yaml"  # of runs of earlier versions


@dataclass(frozen=True, kw_only=True)
class ActionScale:
    """The action range, per dimension and in the embodiment's units, that becomes [-1, 1]."""

    low: tuple[float, ...]  # lower end of each action dimension, which becomes -1
    high: tuple[float, ...]  # upper end of each action dimension, which becomes 1


@dataclass(frozen=True, kw_only=True)
class Reflection:
    """How one vector looks in the mirror: `mirrored = sign * vector[take] + plus`, per dimension."""

    take: tuple[int, ...]
    sign: tuple[float, ...]
    plus: tuple[float, ...]


class Flip(Enum):
    """How a picture looks in the mirror."""

    horizontal = "horizontal"  # left becomes right
    vertical = "vertical"  # top becomes bottom
    diagonal = "diagonal"  # rows become columns; square pictures
    antidiagonal = "antidiagonal"  # the other diagonal stays; square pictures

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures (..., h, w, 3) -> their mirror images."""
        if self is Flip.horizontal:
            return pictures.flip(-2)
        if self is Flip.vertical:
            return pictures.flip(-3)
        turned = pictures.transpose(-3, -2)
        return turned if self is Flip.diagonal else turned.flip(-3, -2)


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Facts pinned per task."""

    scale: ActionScale
    mirror: dict[str, Reflection] = field(default_factory=dict)  # key -> its reflection; empty: no symmetry
    mirror_pictures: dict[str, Flip] = field(default_factory=dict)  # key of a camera -> what the mirror does to it

    def check(self, embodiment: Embodiment) -> None:
        """Raises ValueError if the scale does not fit the action, or is none that float32 can tell from a point."""
        for name, bound in (("low", self.scale.low), ("high", self.scale.high)):
            if len(bound) != len(embodiment.action):
                raise ValueError(
                    f"the task spec's scale.{name} has {len(bound)} numbers, the action has {len(embodiment.action)} "
                    f"({', '.join(embodiment.action)})"
                )
        for name, low, high in zip(embodiment.action, self.scale.low, self.scale.high, strict=True):
            if not (np.isfinite([low, high]).all() and np.float32(low) < np.float32(high)):
                raise ValueError(
                    f"the task spec's scale of '{name}' is {low:g} .. {high:g}; it must rise, by more than float32 "
                    "rounds away. Of an action that is always the same, take half a unit to each side"
                )


def load_task_spec(path: str | Path) -> TaskSpec:
    """Read a task spec from YAML, from a run folder, or from `from:RUN`."""
    path = Path(os.path.expandvars(str(path).removeprefix("from:")))
    path = (
        next((path / name for name in (FILE, FORMER_FILE) if (path / name).is_file()), path / FILE)
        if path.is_dir()
        else path
    )
    if not path.is_file():
        raise FileNotFoundError(
            f"no task spec at {path}; give a file of configs/task_specs/ or from:RUN of an earlier training"
        )
    return decode(TaskSpec, load(path, TaskSpec))


class Mirror:
    """Reflects a random half of every batch: data augmentation by an exact symmetry of the task.

    Raises:
        ValueError: a key of the batch has no reflection, so the mirrored window would be inconsistent.
    """

    def __init__(
        self, reflections: Mapping[str, Reflection], inputs: tuple[str, ...], flips: Mapping[str, Flip] | None = None
    ):
        known: dict[str, Reflection | Flip] = {**reflections, **(flips or {})}
        missing = [key for key in (*inputs, ACTION) if key not in known]
        if missing:
            raise ValueError(f"the task spec's mirror says nothing about '{missing[0]}'; it knows {', '.join(known)}")
        self.maps = {key: known[key] for key in (*inputs, ACTION)}

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        import torch

        flip = torch.rand(len(batch[ACTION]), device=batch[ACTION].device) < 0.5
        held = [(name, kind) for key, kind in self.maps.items() for name in (key, LATER + key) if name in batch]
        changed = {name: _reflect(batch[name], flip, kind) for name, kind in held}
        return {**batch, **changed}


def _reflect(values: Tensor, flip: Tensor, reflection: Reflection | Flip) -> Tensor:
    import torch

    if isinstance(reflection, Flip):
        if values.dtype != torch.uint8:
            raise ValueError("embeddings of pictures cannot be mirrored; leave `mirror` out where encoders are frozen")
        return torch.where(_wide(flip, values), reflection(values), values).contiguous()
    take, sign, plus = _constants(
        tuple(reflection.take), tuple(reflection.sign), tuple(reflection.plus), values.dtype, values.device
    )
    return torch.where(_wide(flip, values), values[..., take] * sign + plus, values)


def _wide(flip: Tensor, values: Tensor) -> Tensor:
    """(B,) with as many dimensions as `values`."""
    return flip.view(-1, *[1] * (values.ndim - 1))


@lru_cache(maxsize=64)
def _constants(take: tuple, sign: tuple, plus: tuple, dtype, device) -> tuple[Tensor, Tensor, Tensor]:
    """A reflection's numbers, moved to a device once."""
    import torch

    return (
        torch.tensor(take, device=device),
        torch.tensor(sign, dtype=dtype, device=device),
        torch.tensor(plus, dtype=dtype, device=device),
    )
