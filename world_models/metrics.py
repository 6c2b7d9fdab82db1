"""How alike two films are: PSNR and SSIM of pictures in 0..1, (M, C, h, w) -> (M,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 7  # pixels of SSIM's square, uniform
K1, K2 = 0.01, 0.03
EQUAL = 1e-10  # mean squared error below which PSNR stops, 100 dB


def psnr(seen: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB."""
    return -10 * torch.log10((seen - true).square().flatten(1).mean(1).clamp(min=EQUAL))


def ssim(seen: Tensor, true: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) with a uniform square of `SIDE` pixels, mean over channels."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, SIDE, 1)

    first, second = mean(seen), mean(true)
    rest = SIDE * SIDE / (SIDE * SIDE - 1)  # unbiased
    vary_first, vary_second = ((mean(x * x) - m * m) * rest for x, m in ((seen, first), (true, second)))
    together = (mean(seen * true) - first * second) * rest
    over = (2 * first * second + K1**2) * (2 * together + K2**2)
    under = (first.square() + second.square() + K1**2) * (vary_first + vary_second + K2**2)
    return (over / under).flatten(1).mean(1)
