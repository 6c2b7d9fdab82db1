"""A residual perceptron over the whole chunk of actions: the cheapest denoiser on a CPU.

Each block is modulated by time and observation (adaptive layer norm: Peebles & Xie 2023). The modulations of all blocks
are one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activate import mish
from .embed import FAST, SMOOTH, TimeEmbedding, embed_times
from .network import Layout, NetworkConfig


@NetworkConfig.register_subclass("mlp")
@dataclass(frozen=True, kw_only=True)
class MLPConfig(NetworkConfig):
    """Residual perceptron with adaptive layer norm."""

    RENAMED: ClassVar[dict[str, str]] = {"expand": "mlp_ratio"}  # former names that are still read

    width: int = 384  # width of the residual stream
    depth: int = 3  # residual blocks
    mlp_ratio: int = 2  # hidden width of a block, in units of `width`
    condition_width: int = 256  # width of the modulating vector
    dropout: float = 0.0  # dropout inside each block

    def build(self, layout: Layout, two_times: bool = False) -> MLPDenoiser:
        return MLPDenoiser(self, layout, two_times)


class MLPDenoiser(nn.Module):
    """(x, t, context, gap) -> output of x's shape. See `network.Denoiser`. Times of tokens and padding are not used."""

    masked: ClassVar[bool] = False

    def __init__(self, config: MLPConfig, layout: Layout, two_times: bool = False):
        super().__init__()
        width, hidden, inner = config.width, config.width * config.mlp_ratio, config.condition_width
        numbers = len(layout.actions) * layout.dims
        self.layout = layout
        self.time = TimeEmbedding(inner, 2 * inner, SMOOTH if two_times else FAST)
        self.observation = nn.Sequential(nn.Linear(layout.flat, 2 * inner), nn.Mish(), nn.Linear(2 * inner, inner))
        self.modulate = nn.Linear(inner, 3 * width * config.depth)
        self.enter = nn.Linear(numbers, width)
        self.rise = nn.ModuleList(nn.Linear(width, hidden) for _ in range(config.depth))
        self.fall = nn.ModuleList(nn.Linear(hidden, width) for _ in range(config.depth))
        self.leave = nn.Linear(width, numbers)
        self.dropout = nn.Dropout(config.dropout)
        self.gap = TimeEmbedding(inner, 2 * inner, SMOOTH) if two_times else None
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def passes(self) -> tuple[int, int]:
        """All of the chunk goes through one residual stream."""
        return self.enter.in_features, self.enter.out_features

    def encode(self, frames: Tensor, seen: Tensor, present: Tensor) -> Tensor:
        """(B, O, F) observation features -> (B, inner) context, once a plan."""
        return self.observation(self.layout.flatten(frames))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, gap: Tensor | None = None) -> Tensor:
        """x (M, T, D), t and gap (M,) or (1,), context (M, inner) -> (M, T, D)."""
        time = embed_times(self.time, self.gap, t, gap)
        modulation = self.modulate(mish(time + context)).chunk(3 * len(self.rise), -1)
        h = self.enter(x.flatten(1))
        for i, (rise, fall) in enumerate(zip(self.rise, self.fall, strict=True)):
            shift, scale, gate = modulation[3 * i : 3 * i + 3]
            inner = torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale)
            h = torch.addcmul(h, 1 + gate, fall(self.dropout(mish(rise(inner)))))
        return self.leave(F.layer_norm(h, h.shape[-1:])).view_as(x)
