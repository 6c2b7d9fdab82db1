"""Implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169): values of actions in the data alone.

    V(s) towards the expectile of min_j Qtarget_j(s, a),    Q_j(s, a) towards r + gamma mask V(s')

Nothing is asked about actions that nobody tried. With `window.horizon` h above 1 the action is a chunk of h, r the
discounted sum of its rewards and s' what is seen h steps later; the critic then reads h actions of a plan. The policy
that the paper extracts is left out: here the critic ranks the plans of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...configs.spec import Embodiment
from ..policy import CriticConfig, Scales
from .value import QNetwork, ValueConfig, ValueModel, average, expectile_weight, scalars_of, target_of


@CriticConfig.register_subclass("iql")
@dataclass(frozen=True, kw_only=True)
class IQLConfig(ValueConfig):
    """Implicit Q-learning."""

    expectile: float = 0.7  # quantile or expectile of the values of the data's actions that counts as the state's value

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise ValueError(f"an expectile is within 0 and 1, got {self.expectile}")

    def build(self, embodiment: Embodiment, scales: Scales) -> IQL:
        return IQL(self, embodiment, scales)


class IQL(ValueModel):
    """A twin critic and a state value."""

    def __init__(self, config: IQLConfig, embodiment: Embodiment, scales: Scales):
        super().__init__(config, embodiment, scales, config.window.horizon)
        self.q = QNetwork(config, embodiment, scales, actions=self.reads, count=config.ensemble)
        self.v = QNetwork(config, embodiment, scales, actions=0, count=1)
        self.target = target_of(self.q)

    @property
    def ranks(self) -> QNetwork:
        return self.target

    @property
    def targets(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return ((self.target, self.q),)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Both regressions, added."""
        actions, counts = self.chunk(batch).flatten(1), self.counts(batch)
        with torch.no_grad():
            held = self.target(batch, actions).amin(0)
            wanted = batch["reward"] + batch["discount"] * self.v(self.later(batch))[0]
        v = self.v(batch)[0]
        state = average(expectile_weight(held - v, self.config.expectile) * (held - v).square(), counts)
        raw = self.q.raw(self.q.encode(batch), actions)
        action = average(self.q.error(raw, wanted), counts)
        return state + action, scalars_of(state_loss=state, action_loss=action, q=held, v=v)
