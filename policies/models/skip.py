"""A fixed linear map beside a denoiser's network, so that the network need not carry the noise.

The targets v, epsilon and flow hold all of the noise: T x D independent numbers, which a network whose narrowest layer
is narrower cannot pass, so that it leaves noise in its plans. But they are linear in the noisy input, and part of it
is known without looking: of y = x0 + s noise, the linear least-squares estimate of x0 along a principal direction of
the chunks, of second moment p, is p / (p + s^2) y. What that makes of the target is added to the network's output:

    out = network(x, s) + sum over directions u of gain(p, s) u (u . x),    x = y / sqrt(1 + s^2)

where gain is the regression of the target on x. It is the preconditioning of Karras et al. 2022 (table 1, c_skip) with
the data's spread for each direction instead of one number; a spread of 1 in all directions is no map at all for v.
Along directions in which chunks hardly differ the noise is removed by the map alone, for every noise level; the network
is left with as many numbers as there are directions in which they do. Targets and loss stay what they were.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..field import PredictionType

MOST = 512  # directions that have a number of their own; the others share their mean


class LinearSkip(nn.Module):
    """x (M, T, D) at noise-to-signal ratios s (M,) or (1,) -> what the map adds to the network's output.

    Args:
        prediction_type: of the network; x0 holds no noise and gains nothing.
        blocks: tokens that may be mixed, by their numbers in 0..T-1. Tokens of no block get nothing.
        dims: D.
    """

    directions: Tensor  # (R, T * D) orthonormal rows
    power: Tensor  # (R,) mean square of the scaled chunks along each
    member: Tensor  # (T * D,) 1 where the map acts; 0 everywhere until it is fitted
    rest: Tensor  # () mean square along each direction that is left out

    def __init__(self, prediction_type: PredictionType, tokens: int, blocks: list[list[int]], dims: int):
        super().__init__()
        self.prediction_type, self.blocks, self.dims = prediction_type, blocks, dims
        self.register_buffer("member", torch.zeros(tokens * dims))
        count = min(sum(map(len, blocks)) * dims, MOST)
        self.register_buffer("directions", torch.zeros(count, tokens * dims))
        self.register_buffer("power", torch.ones(count))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def fit(self, chunks: Tensor, present: Tensor) -> None:
        """Take the directions from scaled chunks (n, T, D); tokens with `present` (n, T) False are not counted."""
        found: list[tuple[float, Tensor]] = []
        for block in self.blocks:
            whole = present[:, block].all(1)
            part = chunks[whole][:, block].flatten(1).double()
            power, directions = torch.linalg.eigh(part.T @ part / max(len(part), 1))
            placed = chunks.new_zeros(len(power), *chunks.shape[1:], dtype=torch.float64)
            placed[:, block] = directions.T.unflatten(1, (len(block), self.dims))
            found += zip(power.clamp_min(0).tolist(), placed.flatten(1), strict=True)

        # the strongest are kept
        found.sort(key=lambda pair: pair[0], reverse=True)
        count = len(self.power)
        self.directions.copy_(torch.stack([direction for _, direction in found[:count]]))
        self.power.copy_(torch.tensor([power for power, _ in found[:count]]))
        left = [power for power, _ in found[count:]]
        self.rest.fill_(sum(left) / len(left) if left else 0.0)
        self.member.view(chunks.shape[1:])[[token for block in self.blocks for token in block]] = 1.0

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # which would round what is to be exact to 8 bits
            wide, flat = s[:, None], x.flatten(1).to(self.directions.dtype)
            rest = gain(self.prediction_type, self.rest, wide)
            along = flat @ self.directions.T * (gain(self.prediction_type, self.power, wide) - rest)
            return (along @ self.directions + rest * self.member * flat).view_as(x)


def gain(prediction_type: PredictionType, power: Tensor, s: Tensor) -> Tensor:
    """The least-squares factor of a target on x = (x0 + s noise) / sqrt(1 + s^2), where x0 has mean square `power`."""
    spread = power + s * s
    if prediction_type is PredictionType.v:
        return s * (1 - power) / spread
    if prediction_type is PredictionType.epsilon:
        return s * torch.sqrt(1 + s * s) / spread
    if prediction_type is PredictionType.flow:
        return (s - power) * torch.sqrt(1 + s * s) / spread
    return torch.zeros_like(spread)  # x0: what it holds of x is for the network to say
