"""How a model in training is judged on held-out episodes: by its loss and what the loss tells; of a policy, also by the
error of the actions it would execute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ...configs.protocols import keeps
from ...configs.spec import ACTION
from ..data.dataset import Dataset
from ..policy import LaneNoise, Planner, executed_of, half_range, past_of


class Validation:
    """Callable on the acting model -> named scalars. The same windows and the same noise at every call.

    Args:
        gather: positions -> batch, of the held-out windows.
        count: how many held-out windows there are.
        most: how many are used, spread evenly.
        batch: windows a forward pass.
        guesses: what a policy must beat; their errors are told beside its own.
    """

    def __init__(
        self,
        gather: Callable[[Tensor], dict[str, Tensor]],
        count: int,
        *,
        most: int = 1024,
        batch: int = 256,
        guesses: Guesses | None = None,
    ):
        self.gather = gather
        self.chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64)))
        self.batch, self.guesses = batch, guesses

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
                errors = {"action_error": action_error(model, batch)}
                errors |= self.guesses.errors(model, batch) if self.guesses else {}
                for name, (error, valid) in errors.items():
                    sums[name] += float((error * valid).sum())
                    weights[name] += float(valid.sum())
        return {name: sums[name] / weights[name] for name in sums if weights[name]}


def account(step: int, scalars: Mapping[str, float]) -> str:
    """A line of held-out loss and action error, with what needs no policy beside it; empty of nothing held out."""
    loss, error, mean = (scalars.get(f"validation/{name}") for name in ("loss", "action_error", "mean_action_error"))
    if loss is None:
        return ""
    planned = "" if error is None else f", action error {error:.3g}"
    guess = "" if mean is None else f" ({mean:.3g} by the mean action; 1 = half of the action range)"
    return f"step {step}: held-out loss {loss:.3g}{planned}{guess}"


class Guesses:
    """Guesses without a policy: the mean action of the training episodes, and the action before now, repeated."""

    def __init__(self, dataset: Dataset, training: np.ndarray):
        member = np.zeros(len(dataset.lengths), bool)
        member[training] = True
        actions = dataset.columns[ACTION]
        self.mean = torch.from_numpy(actions[np.repeat(member, dataset.lengths)].mean(0, dtype=np.float64)).float()
        self.actions = torch.from_numpy(actions)
        self.firsts = torch.from_numpy(dataset.starts)

    def errors(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """name -> (error (B, E), valid (B, E)), as `action_error`; nothing was done before an episode's first step."""
        rows, device = batch["index"].cpu(), batch[ACTION].device
        wanted, valid = _executed(model, batch)
        last = self.actions[(rows - 1).clamp_min(0)][:, None].to(device)
        began = torch.isin(rows, self.firsts).to(device)[:, None]
        return {
            "mean_action_error": (_distance(model, self.mean.to(device) - wanted), valid),
            "last_action_error": (_distance(model, last - wanted), valid * ~began),
        }


def action_error(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Distance between the planned and the demonstrated actions of the first E steps.

    Returns:
        (error (B, E), valid (B, E)): root mean square over action dimensions, in units of the scaled action space
        (1 = half of the action range); valid is 0 where the episode had ended.
    """
    rows = batch["index"].cpu().numpy()
    past = past_of(batch, model.window, model.inputs)
    plans = model.plan(past, 1, LaneNoise(0, rows, np.zeros_like(rows)))
    wanted, valid = _executed(model, batch)
    return _distance(model, plans.future[:, 0, : executed_of(model)] - wanted), valid


def _executed(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(demonstrated actions (B, E, D) of the steps that would be executed, valid (B, E))."""
    recalled = len(model.window.recall)
    steps = slice(recalled, recalled + executed_of(model))
    return batch[ACTION][:, steps], batch["action.valid"][:, steps].to(batch[ACTION].dtype)


def _distance(model: nn.Module, difference: Tensor) -> Tensor:
    """(B, E) root mean square of differences (B, E, D) in units, in the scaled action space."""
    return (difference / half_range(model).to(difference)).square().mean(-1).sqrt()
