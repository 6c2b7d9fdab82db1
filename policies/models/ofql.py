"""One-step flow Q-learning (arXiv 2508.13904): a policy of one evaluation, trained with a critic of its own.

    L = L_FBC - alpha E[min_j Q_j(s, a)],    a = noise - u(noise, 0, 1; s),    alpha = eta / E|Q|

L_FBC is the average-velocity loss of `one_step.py`; the action is one jump, so that the critic's gradient reaches the
policy through a single evaluation. The twin critic values the E actions that are executed of a plan:

    Q_j(s, a_0..a_(E-1)) towards the rewards of E steps + gamma^E mask min_j Qtarget_j(s', a'),    a' one jump at s'

with the policy as it is now (diffusion Q-learning, arXiv 2208.06193, takes an averaged one there). Rewards, masks and
executed actions are those of critics (`data/rewards.py`). The critic serves training only: the policy acts alone,
and beside it stands ranking the plans of a policy that never saw a reward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...configs.spec import Embodiment
from ..critics.value import QNetwork, ValueConfig, fill, frozen, polyak_update, scalars_of, target_of
from ..data.rewards import Rewards
from ..data.windows import LATER, VALID
from ..field import PredictionType
from ..networks.network import Context
from ..networks.states import refuse_pictures
from ..policy import PolicyConfig, Scales
from .one_step import OneStepConfig, OneStepPolicy


@PolicyConfig.register_subclass("ofql")
@dataclass(frozen=True, kw_only=True)
class OFQLConfig(OneStepConfig):
    """One-step flow Q-learning on state vectors."""

    rewards: Rewards = Rewards()
    eta: float = 0.1  # weight of the critic beside imitation; tuned within 0.001..0.5 by the paper
    widths: tuple[int, ...] = (256, 256)  # hidden widths of each of the critic's networks
    ensemble: int = 2  # number of the critic's networks
    tau: float = 0.005  # part of the way that the target networks follow at each step

    def __post_init__(self):
        super().__post_init__()
        if self.window.recall:
            raise ValueError("ofql plans future actions only; leave window.recall out")
        if self.eta < 0 or self.sampler.steps != 1:
            raise ValueError(f"ofql needs eta >= 0 and one jump a plan, got {self.eta} and {self.sampler.steps}")

    @property
    def ahead(self) -> int:
        """Control steps to the observation that is bootstrapped from."""
        return self.n_action_steps

    @property
    def judged(self) -> ValueConfig:
        """The critic's settings."""
        return ValueConfig(
            window=dataclasses.replace(self.window, horizon=self.n_action_steps), inputs=self.inputs,
            rewards=self.rewards,
            widths=self.widths, ensemble=self.ensemble, tau=self.tau, input_bound=self.input_bound,
        )  # fmt: skip

    def build(self, embodiment: Embodiment, scales: Scales) -> OFQLPolicy:
        refuse_pictures(self.inputs, embodiment)
        return OFQLPolicy(self, embodiment, scales)


class OFQLPolicy(OneStepPolicy):
    """A one-step policy and the critic that it is trained with."""

    def __init__(self, config: OFQLConfig, embodiment: Embodiment, scales: Scales):
        super().__init__(config, PredictionType.flow, embodiment, scales, two_times=True)
        self.q = QNetwork(config.judged, embodiment, scales, actions=config.n_action_steps, count=config.ensemble)
        self.target = target_of(self.q)

    @torch.no_grad()
    def stepped(self) -> None:
        """Let the target networks follow; the training loop calls it after each step of the optimiser."""
        polyak_update(((self.target, self.q),), self.config.tau)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Imitation, the critic's regression and what the policy gains by it, added."""
        imitation, numbers = super().loss(batch)
        actions = self.action_scale.scale(batch["action"]).clamp(-1, 1)
        held = fill(actions[:, : self.n_action_steps], batch["action.valid"][:, : self.n_action_steps]).flatten(1)
        features = self.q.encode(batch)
        error = (self.q.raw(features, held) - self.backup(batch)).square().mean()
        with frozen(self.q):
            values = self.q.raw(features, self.jump(self.context(batch))).amin(0)
        alpha = self.config.eta / values.detach().abs().mean().clamp_min(1e-6)
        numbers = numbers | scalars_of(imitation=imitation, td=error, q=values)
        return imitation + error - alpha * values.mean(), numbers

    @torch.no_grad()
    def backup(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B,) what the critic is regressed on."""
        later = {key: batch[LATER + key] for key in (*self.inputs, VALID)}
        actions = self.jump(self.context(later | {"action.valid": batch["action.valid"]}))
        return batch["reward"] + batch["discount"] * self.target.raw(self.target.encode(later), actions).amin(0)

    def jump(self, context: Context) -> Tensor:
        """The executed part of a plan for each lane, scaled (B, E * D), with gradient."""
        lanes = len(context[0] if isinstance(context, tuple) else context)
        noise = torch.randn(
            lanes, self.window.horizon, len(self.embodiment.action), device=self.action_scale.std.device
        )
        ones = noise.new_ones(lanes)
        nothing = torch.zeros_like(noise), torch.zeros_like(noise[..., 0], dtype=torch.bool)
        plan = noise - self.velocity(noise, torch.zeros_like(ones), ones, context, *nothing)
        return plan[:, : self.n_action_steps].clamp(-1, 1).flatten(1)
