"""A residual perceptron over the whole chunk of actions: the cheapest denoiser on a CPU.

Each block is modulated by time and observation (adaptive layer norm: Peebles & Xie 2023). The modulations of all blocks
are one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embed import TimeEmbedding
from .network import NetworkConfig


@NetworkConfig.register_subclass("mlp")
@dataclass(frozen=True, kw_only=True)
class MLPConfig(NetworkConfig):
    """Residual perceptron with adaptive layer norm."""

    width: int = 384  # of the residual stream
    depth: int = 3  # residual blocks
    expand: int = 2  # hidden width of a block, in units of `width`
    condition_width: int = 256  # width of the modulating vector
    dropout: float = 0.0  # inside each block

    def build(self, tokens: int, dims: int, condition: int) -> MLPDenoiser:
        return MLPDenoiser(self, tokens, dims, condition)


class MLPDenoiser(nn.Module):
    """(x, t, context) -> output of x's shape. See `network.Denoiser`."""

    def __init__(self, config: MLPConfig, tokens: int, dims: int, condition: int):
        super().__init__()
        width, hidden, inner = config.width, config.width * config.expand, config.condition_width
        self.time = TimeEmbedding(inner, 2 * inner)
        self.observation = nn.Sequential(nn.Linear(condition, 2 * inner), nn.Mish(), nn.Linear(2 * inner, inner))
        self.modulate = nn.Linear(inner, 3 * width * config.depth)
        self.enter = nn.Linear(tokens * dims, width)
        self.rise = nn.ModuleList(nn.Linear(width, hidden) for _ in range(config.depth))
        self.fall = nn.ModuleList(nn.Linear(hidden, width) for _ in range(config.depth))
        self.leave = nn.Linear(width, tokens * dims)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def encode(self, condition: Tensor) -> Tensor:
        """(B, C) observation features -> (B, inner) context, once a plan."""
        return self.observation(condition)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """x (M, T, D), t (M,) or (1,) in (0, 1), context (M, inner) -> (M, T, D)."""
        modulation = self.modulate(F.mish(self.time(t) + context)).chunk(3 * len(self.rise), -1)
        h = self.enter(x.flatten(1))
        for i, (rise, fall) in enumerate(zip(self.rise, self.fall, strict=True)):
            shift, scale, gate = modulation[3 * i : 3 * i + 3]
            inner = torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale)
            h = torch.addcmul(h, 1 + gate, fall(self.dropout(F.mish(rise(inner)))))
        return self.leave(F.layer_norm(h, h.shape[-1:])).view_as(x)
