"""Small shared pieces of networks: embedding of time, residual perceptrons."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a time in (0, 1), followed by a two-layer perceptron: (M,) -> (M, width)."""

    def __init__(self, width: int, hidden: int, scale: float = 1000.0):
        super().__init__()
        half = width // 2
        frequencies = scale * torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Mish(), nn.Linear(hidden, width))

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], -1))
