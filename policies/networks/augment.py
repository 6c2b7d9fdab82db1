"""How pictures are varied in training, on whole batches, on the device that holds them; untouched when acting.

Random shift (Yarats et al. 2021, DrQ) and jitter of brightness, contrast and saturation. All frames of a window are
varied alike, for a policy reads motion from their difference. Randomness comes from torch's global generator, so that a
resumed training draws on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in brightness (ITU-R BT.601)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far pictures are varied; 0 leaves a property alone."""

    shift: int = 4  # pixels in each direction; the border is repeated
    brightness: float = 0.2  # jitter: factors are drawn from 1 - x .. 1 + x
    contrast: float = 0.2  # jitter, likewise
    saturation: float = 0.2  # jitter, likewise

    def __post_init__(self):
        if self.shift < 0 or not all(0 <= x < 1 for x in (self.brightness, self.contrast, self.saturation)):
            raise ValueError("augmentation needs a shift of 0 or more pixels, and jitter within 0 and 1")

    def __call__(self, pictures: Tensor) -> Tensor:
        """Windows of pictures (B, O, 3, h, w) in [0, 1] -> the same, each window varied by draws of its own."""
        return self._jitter(self._shift(pictures)) if len(pictures) else pictures

    def _shift(self, pictures: Tensor) -> Tensor:
        if not self.shift:
            return pictures
        count, frames, _, height, width = pictures.shape
        draws = torch.randint(0, 2 * self.shift + 1, (2, count), device=pictures.device)
        rows, columns = (
            (torch.arange(length, device=pictures.device) + draw[:, None] - self.shift).clamp(0, length - 1)
            for length, draw in zip((height, width), draws, strict=True)
        )
        rows = rows[:, None, None, :, None].expand(-1, frames, 3, -1, width)
        columns = columns[:, None, None, None, :].expand(-1, frames, 3, height, -1)
        return pictures.gather(3, rows).gather(4, columns)

    def _jitter(self, pictures: Tensor) -> Tensor:
        brightness, contrast, saturation = (self._factor(x, pictures) for x in self._strengths)
        weights = _grey(pictures.dtype, pictures.device)[:, None, None]
        if self.brightness:
            pictures = (pictures * brightness).clamp(0, 1)
        if self.contrast:
            mean = (pictures * weights).sum(2, keepdim=True).mean((1, 3, 4), keepdim=True)
            pictures = torch.lerp(mean.expand_as(pictures), pictures, contrast).clamp(0, 1)
        if self.saturation:
            grey = (pictures * weights).sum(2, keepdim=True)
            pictures = torch.lerp(grey.expand_as(pictures), pictures, saturation).clamp(0, 1)
        return pictures

    @property
    def _strengths(self) -> tuple[float, float, float]:
        return self.brightness, self.contrast, self.saturation

    def _factor(self, strength: float, like: Tensor) -> Tensor:
        draws = torch.rand(len(like), 1, 1, 1, 1, dtype=like.dtype, device=like.device)
        return 1 + strength * (2 * draws - 1)


@lru_cache(maxsize=8)
def _grey(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights (3,) of the colours, moved to a device once."""
    return torch.tensor(GREY, dtype=dtype, device=device)


def crop_middle(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (..., h, w) -> the middle of (..., height, width)."""
    height, width = pictures.shape[-2:]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return pictures[..., top : top + size[0], left : left + size[1]]


def crop_random(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Windows of pictures (B, O, 3, h, w) -> (B, O, 3, height, width), one place for all frames of a window."""
    count, frames, _, height, width = pictures.shape
    device = pictures.device
    top = torch.randint(0, height - size[0] + 1, (count, 1), device=device)
    left = torch.randint(0, width - size[1] + 1, (count, 1), device=device)
    rows = (top + torch.arange(size[0], device=device))[:, None, None, :, None]
    columns = (left + torch.arange(size[1], device=device))[:, None, None, None, :]
    cut = pictures.gather(3, rows.expand(-1, frames, 3, -1, width))
    return cut.gather(4, columns.expand(-1, frames, 3, size[0], -1))


__all__ = ["Augment", "crop_middle", "crop_random"]
