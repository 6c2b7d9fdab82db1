"""Controls of steering: what choosing among plans gives where the critic, or the policy, contributes nothing.

`RandomCritic` picks blindly among the policy's plans, so that what is left is the effect of having several.
`UniformPlanner` gives a critic any actions at all in place of the policy's plans, so that what is left is the critic's
own. Neither is trained; both draw by lane, so that episodes repeat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...configs.spec import Embodiment, Window
from ..policy import Critic, CriticConfig, Executes, LaneNoise, Past, Planner, Plans, Scales, executed_of


@CriticConfig.register_subclass("random")
@dataclass(frozen=True, kw_only=True)
class RandomConfig(CriticConfig):
    """Prefers no plan to another: the control of steering; needs no training."""

    def build(self, embodiment: Embodiment, scales: Scales) -> RandomCritic:
        return RandomCritic()

    def beside(self, planner: Planner) -> RandomCritic:
        """The same for every policy."""
        return RandomCritic()


class RandomCritic(Critic):
    """A `Critic` whose score is a hash of the plan's bits: uniform, and blind to what the plan is worth."""

    window = Window(observe=(0,), horizon=1)
    inputs: tuple[str, ...] = ()
    reads = 0

    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N) uniform in [0, 1); equal plans get equal scores."""
        bits = plans.future.detach().cpu().float().flatten(2).contiguous().view(torch.int32).numpy().astype(np.uint64)
        odd = np.random.default_rng(0).integers(2**63, size=bits.shape[-1], dtype=np.uint64) * 2 + 1
        mixed = (bits * odd).sum(-1, dtype=np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # finaliser of SplitMix64
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        top = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(40)
        return torch.from_numpy(top.astype(np.float32) / 2**24).to(plans.future.device)


class UniformPlanner(Executes, Planner):
    """A `Planner` that owes nothing to a policy: each plan holds one action, drawn evenly within the limits.

    Args:
        like: the planner whose place it takes: embodiment, window, E.
    """

    def __init__(self, like: Planner):
        self.embodiment, self.window, self.inputs = like.embodiment, like.window, tuple(like.inputs)
        self.n_action_steps = executed_of(like, self.window.horizon)
        self._low, self._high = torch.tensor(like.embodiment.limits, dtype=torch.float32).T

    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane; their version of the past is what was executed."""
        held = self._low + rng.uniform(n, 1, len(self._low)) * (self._high - self._low)
        future = held.to(past.actions.device).expand(-1, -1, self.window.horizon, -1)
        return Plans(past.at(self.window).actions[:, None].expand(-1, n, -1, -1), future, past.now)

    def to(self, device: str) -> UniformPlanner:
        """It has no weights."""
        return self
