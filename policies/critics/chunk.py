"""A critic of long chunks and, distilled from it, one of their beginnings (decoupled Q-chunking, arXiv 2512.10926).

    Q(s, a_0..a_(h-1)) towards sum_(k<h) gamma^k r_k + gamma^h mask Vtarget(s_h)
    P(s, a_0..a_(E-1)) towards Q(s, a_0..a_(h-1)), by an expectile above 1/2: optimistic about the rest of the chunk
    V(s) towards the quantile of min_j P_j(s, a)

Value travels h steps at a time, but plans are ranked by P, which reads only the E = `prefix` actions that the agent
executes before it plans anew. By default values stay within what the rewards can add up to and are learnt by
cross-entropy, as published. Chunks that cross the end of an episode: after success nothing more is bootstrapped and the
rest of the actions is noise (`value.fill`); those that a time-out cut short are bootstrapped from the last
observation, or left out with `bootstrap_timeouts: false`, as published for data of long episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...configs.spec import Embodiment, Window
from ..policy import CriticConfig, Scales
from .value import QNetwork, ValueConfig, ValueModel, average, expectile_weight, scalars_of, target_of


@CriticConfig.register_subclass("chunk")
@dataclass(frozen=True, kw_only=True)
class ChunkConfig(ValueConfig):
    """Chunk critic with a distilled prefix critic."""

    window: Window = Window(observe=(0,), horizon=16)  # horizon: h, actions of a chunk
    prefix: int = 8  # E, actions that chunks are ranked by; as many as the agent executes
    quantile: float = 0.9  # quantile or expectile of the values of the data's actions that counts as the state's value
    distil: float = 0.8  # expectile of the chunks' values, taken as their beginning's
    bounded: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.prefix <= self.window.horizon:
            raise ValueError(f"prefix must be within 1..{self.window.horizon} (the chunk), got {self.prefix}")
        if not (0 < self.quantile < 1 and 0 < self.distil < 1):
            raise ValueError(f"quantile and distil are within 0 and 1, got {self.quantile} and {self.distil}")

    def build(self, embodiment: Embodiment, scales: Scales) -> ChunkCritic:
        return ChunkCritic(self, embodiment, scales)


class ChunkCritic(ValueModel):
    """Values of chunks, of their beginnings, and of states."""

    def __init__(self, config: ChunkConfig, embodiment: Embodiment, scales: Scales):
        super().__init__(config, embodiment, scales, config.prefix)
        self.q = QNetwork(config, embodiment, scales, actions=config.window.horizon, count=config.ensemble)
        self.prefix = QNetwork(config, embodiment, scales, actions=config.prefix, count=config.ensemble)
        self.v = QNetwork(config, embodiment, scales, actions=0, count=1)
        self.target = target_of(self.v)

    @property
    def ranks(self) -> QNetwork:
        return self.prefix

    @property
    def targets(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return ((self.target, self.v),)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The three regressions, added."""
        chunk, counts = self.chunk(batch), self.counts(batch)
        with torch.no_grad():
            wanted = batch["reward"] + batch["discount"] * self.target(self.later(batch))[0]
        raw = self.q.raw(self.q.encode(batch), chunk.flatten(1))
        whole = average(self.q.error(raw, wanted), counts)
        values = self.q.value(raw).detach()
        begun = self.prefix.raw(self.prefix.encode(batch), chunk[:, : self.config.prefix].flatten(1))
        held = self.prefix.value(begun).detach()
        part = average(expectile_weight(values - held, self.config.distil) * self.prefix.error(begun, values), counts)
        above = held.amin(0) - self.v(batch)[0]
        state = average(expectile_weight(above, self.config.quantile) * above.abs(), counts)
        numbers = scalars_of(chunk_loss=whole, prefix_loss=part, state_loss=state, q=values, prefix_q=held)
        return whole + part + state, numbers
