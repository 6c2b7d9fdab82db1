"""How actions enter the dynamics: as maps where an action is a place in the picture, as added embeddings elsewhere.

A map has two channels for each action, how far its place lies to the right and below of each place of the latent,
squashed. A vector alone puts a pusher nowhere within a short training and can rank policies backwards, at equal
pictures; so maps are taken wherever one is stated. The embedding (of all actions so far, of how many they are, and of
Fourier features of the last one) shifts, scales and gates every block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import PictureMap, grid, waves


class Conditioning(nn.Module):
    """Actions (M, H, D) and how many of them count, k = 1..H -> maps (M, C, h, w) and a condition (M, K).

    Args:
        maps: places in the picture among the numbers of an action.
        octaves: of the last action's Fourier features; 0: none.
        extra: further numbers of the condition.
    """

    grid: Tensor
    steep: Tensor  # (2,)
    steps: Tensor  # (H,)

    def __init__(
        self,
        dims: int,
        horizon: int,
        size: tuple[int, int],
        maps: Sequence[PictureMap],
        width: int = 128,
        octaves: int = 3,
        extra: int = 0,
    ):
        super().__init__()
        self.horizon, self.maps, self.octaves = horizon, tuple(maps), octaves
        self.channels = 2 + 2 * sum(one.count for one in maps) * horizon
        self.embed = nn.Sequential(
            nn.Linear(horizon * (dims + 1) + 2 * octaves * dims + extra, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
        )  # fmt: skip
        self.register_buffer("grid", grid(size), persistent=False)
        self.register_buffer("steep", torch.tensor([float(size[1]), float(size[0])]) / 2, persistent=False)
        self.register_buffer("steps", torch.arange(horizon), persistent=False)

    def forward(self, actions: Tensor, scaled: Tensor, k: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of `actions` in units and `scaled`, both (M, H, D), of which the first k (M,) are done."""
        counted = (self.steps < k[:, None]).float()
        last = scaled[torch.arange(len(k), device=k.device), k - 1]
        parts = [(scaled * counted[..., None]).flatten(1), torch.nn.functional.one_hot(k - 1, self.horizon).float()]
        parts += [waves(last, self.octaves), *([] if extra is None else [extra])]
        channels = [self.grid.expand(len(k), -1, -1, -1)]
        for one in self.maps:
            away = (one.places(actions)[..., None, None] - self.grid) * self.steep[:, None, None]  # (M, H, P, 2, h, w)
            channels.append((away.tanh() * counted[:, :, None, None, None, None]).flatten(1, 3))
        return torch.cat(channels, 1), self.embed(torch.cat(parts, 1))
