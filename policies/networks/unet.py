"""The one-dimensional convolutional U-Net of Diffusion Policy (Chi et al. 2023), with FiLM at every residual block.

Same layers and sizes as the published network, computed differently: the FiLM projections of all blocks are one matrix
product, and its observation part is taken once a plan, since Linear(Mish([time, obs])) splits into a part for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .activate import mish
from .embed import FAST, SMOOTH, TimeEmbedding, embed_times
from .network import Layout, NetworkConfig


@NetworkConfig.register_subclass("unet")
@dataclass(frozen=True, kw_only=True)
class UNetConfig(NetworkConfig):
    """1-D U-Net over time; the number of tokens must be divisible by 2 ** (levels - 1)."""

    channels: tuple[int, ...] = (64, 128, 256)  # channels of each level
    kernel: int = 5  # width of a convolution, in tokens
    groups: int = 8  # groups of group normalisation
    time_width: int = 128  # width of the embedding of the noise level
    film_scale: bool = True  # FiLM scales and shifts; false: only shifts

    def build(self, layout: Layout, two_times: bool = False) -> UNetDenoiser:
        factor, tokens = 2 ** (len(self.channels) - 1), len(layout.actions)
        if tokens % factor:
            raise ValueError(
                f"a U-Net of {len(self.channels)} levels needs a multiple of {factor} tokens, got {tokens}"
            )
        return UNetDenoiser(self, layout, two_times)


class _Film(nn.Module):
    """FiLM projections of all blocks: Linear(Mish([time, observation])) as two products added."""

    def __init__(self, time: int, condition: int, widths: list[int]):
        super().__init__()
        self.widths = widths
        self.time = nn.Linear(time, sum(widths))
        self.observation = nn.Linear(condition, sum(widths), bias=False)

    def encode(self, condition: Tensor) -> Tensor:
        return self.observation(mish(condition))

    def forward(self, time: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        return (self.time(mish(time)) + context).unsqueeze(-1).split(self.widths, 1)


class _Block(nn.Module):
    """Convolution, group norm, Mish; FiLM; the same again; plus the (projected) input."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig):
        super().__init__()
        pad = config.kernel // 2
        self.first = nn.Conv1d(inputs, outputs, config.kernel, padding=pad)
        self.second = nn.Conv1d(outputs, outputs, config.kernel, padding=pad)
        self.norm_first = nn.GroupNorm(config.groups, outputs)
        self.norm_second = nn.GroupNorm(config.groups, outputs)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.film_width = outputs * (2 if config.film_scale else 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        h = mish(self.norm_first(self.first(x)))
        if film.shape[1] == h.shape[1]:
            h = h + film
        else:
            scale, shift = film.chunk(2, 1)
            h = torch.addcmul(shift, scale, h)
        return mish(self.norm_second(self.second(h))) + self.skip(x)


class UNetDenoiser(nn.Module):
    """(x, t, context, gap) -> output of x's shape. See `network.Denoiser`. Times of tokens and padding are not used."""

    masked: ClassVar[bool] = False

    def __init__(self, config: UNetConfig, layout: Layout, two_times: bool = False):
        super().__init__()
        channels, dims = config.channels, layout.dims
        self.layout = layout
        pairs = list(zip((dims, *channels[:-1]), channels, strict=True))
        self.time = TimeEmbedding(config.time_width, 4 * config.time_width, SMOOTH if two_times else FAST)
        self.down = nn.ModuleList(nn.ModuleList([_Block(a, b, config), _Block(b, b, config)]) for a, b in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(b, b, 3, 2, 1) for b in channels[:-1])
        self.middle = nn.ModuleList(_Block(channels[-1], channels[-1], config) for _ in range(2))
        self.up = nn.ModuleList(
            nn.ModuleList([_Block(2 * b, a, config), _Block(a, a, config)]) for a, b in reversed(pairs[1:])
        )
        self.grow = nn.ModuleList(nn.ConvTranspose1d(a, a, 4, 2, 1) for a, _ in reversed(pairs[1:]))
        self.last = nn.Conv1d(channels[0], channels[0], config.kernel, padding=config.kernel // 2)
        self.last_norm = nn.GroupNorm(config.groups, channels[0])
        self.leave = nn.Conv1d(channels[0], dims, 1)
        self.film = _Film(config.time_width, layout.flat, [b.film_width for b in self._blocks()])
        self.gap = TimeEmbedding(config.time_width, 4 * config.time_width, SMOOTH) if two_times else None

    def _blocks(self) -> list[_Block]:
        return [*(b for pair in self.down for b in pair), *self.middle, *(b for pair in self.up for b in pair)]

    @property
    def passes(self) -> tuple[int, int]:
        """Each action goes through the channels of the first level."""
        return self.leave.out_channels, self.leave.in_channels

    def encode(self, frames: Tensor, seen: Tensor, present: Tensor) -> Tensor:
        """(B, O, F) observation features -> (B, all FiLM widths) context, once a plan."""
        return self.film.encode(self.layout.flatten(frames))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, gap: Tensor | None = None) -> Tensor:
        """x (M, T, D), t and gap (M,) or (1,), context (M, ...) -> (M, T, D)."""
        films = iter(self.film(embed_times(self.time, self.gap, t, gap), context))
        h, kept = x.transpose(1, 2), []
        for i, (first, second) in enumerate(self.down):
            h = second(first(h, next(films)), next(films))
            kept.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        for block in self.middle:
            h = block(h, next(films))
        for (first, second), grow in zip(self.up, self.grow, strict=True):
            h = grow(second(first(torch.cat([h, kept.pop()], 1), next(films)), next(films)))
        return self.leave(mish(self.last_norm(self.last(h)))).transpose(1, 2)
