"""Small shared pieces of networks: embedding of one time, or of a time and the gap to a second one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FAST = 1000.0  # `scale` of the embedding of a single time
SMOOTH = 16.0  # of two times: one-step models differentiate by time, and fast waves would drown the rest


class TimeEmbedding(nn.Module):
    """Sinusoidal features of a time in (0, 1), followed by a two-layer perceptron: (M,) -> (M, width)."""

    def __init__(self, width: int, hidden: int, scale: float = FAST):
        super().__init__()
        half = width // 2
        frequencies = scale * torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Mish(), nn.Linear(hidden, width))

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], -1))


def embed_times(time: TimeEmbedding, gaps: TimeEmbedding | None, t: Tensor, gap: Tensor | None) -> Tensor:
    """(M,) or (1,) times, and gaps of networks with two times -> their embeddings added.

    Raises:
        ValueError: a gap where none is expected, or none where one is.
    """
    if (gap is None) != (gaps is None):
        raise ValueError("a network built for two times needs a gap, any other takes none")
    return time(t) if gap is None else time(t) + gaps(gap)
