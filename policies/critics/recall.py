"""Self-verification of past-token prediction: keep the plan whose past is the one that was really executed.

A policy with recalled tokens reconstructs in each plan what it did. The score of a plan is minus the mean squared
distance between this reconstruction and the executed actions, over the recalled tokens and the action's dimensions, in
the scaled action space (so that no dimension outweighs another by its unit). After PTP, arXiv 2505.09561, section on
test-time verification; there as here nothing is trained.

Where it cannot tell, it abstains by equal scores, and the agent then keeps the first candidate, whose noise is that of
a single plan: until all recalled actions have been executed (`whole`), N candidates act as one would. This file knows
nothing of networks; observations are encoded once by the policy that draws the candidates.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ...configs.spec import Embodiment, Window
from ..policy import Critic, CriticConfig, Past, Planner, Plans, Scales, half_range, past_is_given


@CriticConfig.register_subclass("recall")
@dataclass(frozen=True, kw_only=True)
class RecallConfig(CriticConfig):
    """Prefers plans whose past was executed; needs no training."""

    recall: tuple[int, ...] = (-1,)  # offsets of the compared actions; beside a policy they are the policy's own
    whole: bool = True  # judge once all of them were executed; false: by those that were

    def build(self, embodiment: Embodiment, scales: Scales) -> RecallCritic:
        low, high = (torch.tensor(side) for side in scales.action)
        return RecallCritic(self.recall, (high - low) / 2, self.whole)

    def beside(self, planner: Planner) -> RecallCritic:
        """The critic of this policy's plans. Raises ValueError if they have no past."""
        if not planner.window.recall:
            raise ValueError("the policy predicts no past actions (its window.recall is empty); 'recall' cannot judge")
        if past_is_given(planner):
            raise ValueError("the policy is given its past actions, so that all its plans agree; 'recall' cannot judge")
        config = dataclasses.replace(self, recall=planner.window.recall)
        return RecallCritic(config.recall, half_range(planner), config.whole)


@CriticConfig.register_subclass("recall_partly")
@dataclass(frozen=True, kw_only=True)
class PartlyRecallConfig(RecallConfig):
    """Like recall, by what was executed so far; for windows about as long as an episode."""

    whole: bool = False


class RecallCritic(Critic):
    """A `Critic` by the distance of `plans.past` to what was executed.

    Args:
        recall: K offsets of the past actions, equal to those of the plans.
        half: (D,) half of the range of each action, in its unit: 1 in the scaled space.
        whole: abstain for lanes in which not all K actions were executed yet.
    """

    inputs: tuple[str, ...] = ()
    reads = 0

    def __init__(self, recall: tuple[int, ...], half: Tensor, whole: bool = True):
        self.window = Window(observe=(0,), recall=recall, horizon=1)
        self.half, self.whole = half, whole

    def distance(self, past: Past, plans: Plans) -> Tensor:
        """(B, N) mean squared distance in the scaled space over the executed ones of the recalled actions, 0 for none.

        Raises:
            ValueError: the plans recall another number of actions.
        """
        past = past.at(self.window)
        if plans.past.shape[2] != len(self.window.recall):
            raise ValueError(
                f"plans recall {plans.past.shape[2]} actions, the critic compares {len(self.window.recall)}"
            )
        off = ((plans.past - past.actions[:, None]) / self.half.to(plans.past.device)).square().mean(-1)
        valid = past.action_valid[:, None].to(off.dtype)
        return (off * valid).sum(-1) / valid.sum(-1).clamp_min(1)

    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N), higher is better; equal within a lane where it cannot tell."""
        scores = -self.distance(past, plans)
        if not self.whole:
            return scores
        full = past.at(self.window).action_valid.all(1, keepdim=True)
        return torch.where(full, scores, 0.0)
