"""Calibrated conservative Q-learning (Nakamoto et al. 2023, arXiv 2303.05479), as V-GPS trains it (arXiv 2410.13816).

    y = r + gamma mask max_i min_j Qtarget_j(s', a_i),    a_i of 4 actions of the actor at s' ("max-target backup")
    L_TD = mean (Q_j(s, a) - y)^2
    L_CQL = mean (logsumexp over 12 actions of (q - log density) - Q_j(s, a))
    L = L_TD + alpha L_CQL

The 12 are four uniform ones, of log density D log 1/2, four of the actor at s and four of the actor at s'. For those of
the actor, and only those, q = max(Q_j(s, .), Monte-Carlo return of the data): values are not pushed below what the data
achieved. The actor, with an encoder of its own, is that of soft actor-critic: a tanh-Gaussian that maximises min_j Q_j,
with an automatic temperature; no entropy enters the backup. It serves training only.

With `window.horizon` above 1 the action is a chunk, as in `iql.py`; D then counts all its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...configs.spec import Embodiment
from ..networks.heads import TanhGaussian
from ..policy import CriticConfig, Scales
from .value import QNetwork, Reader, ValueConfig, ValueModel, average, frozen, scalars_of, target_of


@CriticConfig.register_subclass("calql")
@dataclass(frozen=True, kw_only=True)
class CalQLConfig(ValueConfig):
    """Calibrated conservative Q-learning."""

    alpha: float = 5.0  # weight of the conservative term
    samples: int = 4  # actions of each kind in it, and of the actor in the backup
    calibrated: bool = True  # false: conservative Q-learning without the returns
    entropy: float | None = None  # target entropy of the actor, in nats; by default minus the dimension of an action
    actor_pace: float = 1 / 3  # learning rate of the actor, as a part of the critic's

    def __post_init__(self):
        super().__post_init__()
        if self.samples < 1 or self.alpha < 0:
            raise ValueError(f"samples must be at least 1 and alpha at least 0, got {self.samples} and {self.alpha}")

    def build(self, embodiment: Embodiment, scales: Scales) -> CalQL:
        return CalQL(self, embodiment, scales)


class Actor(Reader):
    """A tanh-Gaussian of what is observed."""

    def __init__(self, config: ValueConfig, embodiment: Embodiment, scales: Scales, actions: int):
        super().__init__(config, embodiment, scales)
        self.gauss = TanhGaussian(self.features, config.widths, actions, config.layer_norm)

    def sample(self, obs: Mapping[str, Tensor], n: int) -> tuple[Tensor, Tensor]:
        """`n` scaled actions for each observation (n, B, A) and their log densities (n, B)."""
        return self.gauss.sample(self.encode(obs), n)


class CalQL(ValueModel):
    """A twin critic and the actor that it is trained with."""

    def __init__(self, config: CalQLConfig, embodiment: Embodiment, scales: Scales):
        super().__init__(config, embodiment, scales, config.window.horizon)
        self.numbers = self.reads * len(embodiment.action)
        self.q = QNetwork(config, embodiment, scales, actions=self.reads, count=config.ensemble)
        self.actor = Actor(config, embodiment, scales, self.numbers)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.target = target_of(self.q)

    @property
    def ranks(self) -> QNetwork:
        return self.target

    @property
    def targets(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return ((self.target, self.q),)

    def groups(self) -> list[dict]:
        """Parameters and the part of the learning rate that they move by."""
        acting = [*self.actor.parameters(), self.log_temperature]
        return [
            {"params": list(self.q.parameters()), "pace": 1.0},
            {"params": acting, "pace": self.config.actor_pace},
        ]

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Critic, actor and temperature, added; no part reaches another's weights."""
        counts, n = self.counts(batch), self.config.samples
        features, actions = self.q.encode(batch), self.chunk(batch).flatten(1)
        ours, density = self.actor.sample(batch, n)
        theirs, later_density = self.actor.sample(self.later(batch), n)
        raw = self.q.raw(features, actions)
        error = average(self.q.error(raw, self.backup(batch, theirs.detach())), counts)
        uniform = 2 * torch.rand_like(ours) - 1
        tried = torch.cat([uniform, ours.detach(), theirs.detach()])
        densities = torch.cat([torch.full_like(density, self.numbers * math.log(0.5)), density, later_density]).detach()
        gap = average(self.conservative(self.q.value(raw), features, tried, densities, batch["return"]), counts)
        acting, temperature = self.act(features.detach(), ours, density, counts)
        numbers = scalars_of(td=error, gap=gap, actor=acting, q=self.q.value(raw), entropy=-density)
        return error + self.config.alpha * gap + acting + temperature, numbers

    @torch.no_grad()
    def backup(self, batch: Mapping[str, Tensor], later: Tensor) -> Tensor:
        """(B,) what Q is regressed on; `later` (n, B, A) are the actor's actions after the chunk."""
        values = self.target.value(self.target.raw(self.target.encode(self.later(batch)), later))
        return batch["reward"] + batch["discount"] * values.amin(0).amax(0)

    def conservative(self, held: Tensor, features: Tensor, tried: Tensor, densities: Tensor, returns: Tensor) -> Tensor:
        """(count, B) how far values of tried actions exceed those of the data.

        Args:
            held: (count, B) values of the data's actions.
            features: (B, F).
            tried: (3 n, B, A): uniform ones, the actor's now, the actor's later.
            densities: (3 n, B) logarithms.
            returns: (B,) Monte-Carlo.
        """
        values = self.q.value(self.q.raw(features, tried))
        if self.config.calibrated:
            n = self.config.samples
            values = torch.cat([values[:, :n], torch.maximum(values[:, n:], returns)], 1)
        return (values - densities).logsumexp(1) - held

    def act(self, features: Tensor, ours: Tensor, density: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the actor and of its temperature, of the first of its actions (n, B, A)."""
        with frozen(self.q):
            values = self.q.value(self.q.raw(features, ours[0])).amin(0)
        acting = average(self.log_temperature.detach().exp() * density[0] - values, counts)
        entropy = -float(self.numbers) if self.config.entropy is None else self.config.entropy
        return acting, -self.log_temperature * average((density[0] + entropy).detach(), counts)
