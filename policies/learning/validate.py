"""How a model in training is judged on held-out episodes: by its loss and what the loss tells; of a policy, also by the
error of the actions it would execute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ...configs.protocols import keeps
from ..policy import LaneNoise, Planner, past_of


class Validation:
    """Callable on the acting model -> named scalars. The same windows and the same noise at every call.

    Args:
        gather: positions -> batch, of the held-out windows.
        count: how many held-out windows there are.
        most: how many are used, spread evenly.
        batch: windows a forward pass.
    """

    def __init__(
        self, gather: Callable[[Tensor], dict[str, Tensor]], count: int, *, most: int = 1024, batch: int = 256
    ):
        self.gather = gather
        self.chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64)))
        self.batch = batch

    def __call__(self, model: nn.Module) -> dict[str, float]:
        torch.manual_seed(0)
        device = next(model.parameters()).device
        sums, weights = defaultdict(float), defaultdict(float)
        for indices in self.chosen.split(self.batch):
            batch = {key: value.to(device) for key, value in self.gather(indices).items()}
            loss, scalars = model.loss(batch)
            for name, value in ({"loss": float(loss)} | scalars).items():
                sums[name] += value * len(indices)
                weights[name] += len(indices)
            if keeps(model, Planner):
                error, valid = action_error(model, batch)
                sums["action_error"] += float((error * valid).sum())
                weights["action_error"] += float(valid.sum())
        return {name: sums[name] / weights[name] for name in sums if weights[name]}


def action_error(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Distance between the planned and the demonstrated actions of the first E steps.

    Returns:
        (error (B, E), valid (B, E)): root mean square over action dimensions, in units of the scaled action space
        (1 = half of the action range); valid is 0 where the episode had ended.
    """
    rows = batch["index"].cpu().numpy()
    past = past_of(batch, model.window, model.inputs)
    plans = model.plan(past, 1, LaneNoise(0, rows, np.zeros_like(rows)))
    recalled, n_action_steps = len(model.window.recall), model.n_action_steps
    wanted = batch["action"][:, recalled : recalled + n_action_steps]
    difference = (plans.future[:, 0, :n_action_steps] - wanted) / model.action_scale.std
    valid = batch["action.valid"][:, recalled : recalled + n_action_steps]
    return difference.square().mean(-1).sqrt(), valid.to(difference.dtype)
