"""Networks of critics: an ensemble of perceptrons that give one number each, and a tanh-Gaussian over actions.

They know nothing of observations, rewards or scaling; actions are in the scaled space, [-1, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPREAD = (-5.0, 2.0)  # bounds of the logarithm of a Gaussian's standard deviation


def perceptron(inputs: int, widths: tuple[int, ...], outputs: int, layer_norm: bool) -> nn.Sequential:
    """Linear layers with SiLU, and layer normalisation before it where asked for."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), *([nn.LayerNorm(width)] if layer_norm else []), nn.SiLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Heads(nn.Module):
    """`count` perceptrons of their own weights: (..., inputs) -> (count, ...). Their outputs begin around `start`."""

    def __init__(self, inputs: int, widths: tuple[int, ...], count: int, layer_norm: bool, start: float = 0.0):
        super().__init__()
        self.heads = nn.ModuleList(perceptron(inputs, widths, 1, layer_norm) for _ in range(count))
        for head in self.heads:
            nn.init.constant_(head[-1].bias, start)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([head(x).squeeze(-1) for head in self.heads])


class TanhGaussian(nn.Module):
    """A Gaussian squashed into (-1, 1)."""

    def __init__(self, inputs: int, widths: tuple[int, ...], actions: int, layer_norm: bool):
        super().__init__()
        self.body = perceptron(inputs, widths, 2 * actions, layer_norm)

    def sample(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """x (B, inputs) -> n actions each (n, B, A), differentiable, and their log densities (n, B)."""
        mean, spread = self.body(x).chunk(2, -1)
        spread = spread.clamp(*SPREAD)
        noise = torch.randn(n, *mean.shape, dtype=mean.dtype, device=mean.device)
        before = mean + spread.exp() * noise
        gauss = -0.5 * noise.square() - spread - 0.5 * math.log(2 * math.pi)
        squash = 2 * (math.log(2) - before - F.softplus(-2 * before))  # log of the derivative of tanh
        return before.tanh(), (gauss - squash).sum(-1)
