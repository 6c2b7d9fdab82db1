"""Regression of the chunk by mean squared error: the baseline that a field is measured against.

The same networks as the generative policies, asked once with an empty chunk (zeros) at a fixed time, as PTP's
regression arm does (arXiv 2505.09561). It draws nothing: all candidates of a lane are equal. Recalled tokens, dose,
given actions and padding mean what they mean in `tokens.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...configs.spec import Embodiment
from ..networks.network import Context
from ..networks.states import check_offered
from ..policy import LaneNoise, Past, Plans, PolicyConfig, Scales
from .tokens import TokenConfig, TokenPolicy

TIME = 0.5  # what the network is told instead of a noise level


@PolicyConfig.register_subclass("regression")
@dataclass(frozen=True, kw_only=True)
class RegressionConfig(TokenConfig):
    """Regression policy."""

    def build(self, embodiment: Embodiment, scales: Scales) -> RegressionPolicy:
        check_offered(self.inputs, embodiment)
        return RegressionPolicy(self, embodiment, scales)


class RegressionPolicy(TokenPolicy):
    """A `Planner` and `Trainable` with one answer a lane."""

    def answer(self, context: Context, values: Tensor, held: Tensor) -> Tensor:
        """The chunk (B, T, D) in the scaled space; `values` and `held` as in `TokenPolicy.recollect`."""
        out = self.network(values, values.new_full((1,), TIME), context)
        return torch.where(held[..., None], values, out)

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """`n` times the same plan a lane."""
        chunk = self.action_scale.unscale(self.answer(*self.recollect(past.at(self.window))))
        chunk = chunk[:, None].expand(-1, n, -1, -1)
        recalled = len(self.window.recall)
        return Plans(chunk[:, :, :recalled], chunk[:, :, recalled:], past.now)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the scaled actions over the tokens that count."""
        clean = self.action_scale.scale(batch["action"])
        error = (self.answer(self.context(batch), *self.held(batch, clean)) - clean).square().mean(-1)
        weights = self.weights(batch, error)
        return (error * weights).sum() / weights.sum(), {}
