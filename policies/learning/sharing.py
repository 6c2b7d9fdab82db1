"""Weights shared out among processes: each keeps a part of the weights, their average, the gradients and the moments.

By torch's `fully_shard` (FSDP2). While a step is computed, every process holds the weights whole; between steps, its
part. What is saved is whole, and the same as without sharing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .crew import Crew


class Shared:
    """A model and its average, shared out.

    Args:
        objective: the model within its forward pass; takes the weights of the main process.
        average: the averaged model within the same.
    """

    def __init__(self, objective: nn.Module, average: nn.Module, acting: nn.Module, crew: Crew):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        for value in (*objective.state_dict().values(), *average.state_dict().values()):
            dist.broadcast(value, 0)
        self._acting = copy.deepcopy(acting).cpu() if crew.main else None
        mesh = init_device_mesh(torch.device(crew.device).type, (crew.size,))
        for module in (objective, average):
            fully_shard(module, mesh=mesh)

    def acting(self, average: nn.Module, device: torch.device) -> nn.Module | None:
        """The averaged model, whole, on the main process; all must ask."""
        weights = whole(average.state_dict())
        if self._acting is not None:
            self._acting.to(device).load_state_dict(weights)
        return self._acting


def whole(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with those that are shared out put together; all processes must ask."""
    return {name: _whole(value) for name, value in values.items()}


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


@torch.no_grad()
def take(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Read whole weights into a model that is shared out."""
    for name, mine in model.state_dict().items():
        mine.copy_(part_like(mine, values[name]))


def part_like(mine: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, shared out as `mine` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(mine, DTensor):
        return value
    return distribute_tensor(value.to(mine.device), mine.device_mesh, mine.placements)
