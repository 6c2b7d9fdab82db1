"""What sparing network evaluations of a mixture would change (`adapt.py`), measured on held-out windows.

`disagreement` compares denoised estimates level by level, and `calibrate` turns that into an `Adapt`; `saving` compares
whole plans, which is what counts. Both draw their noise from a seed and leave the mixture as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..field import noise_levels
from ..policy import LaneNoise, past_of
from .adapt import Adapt

if TYPE_CHECKING:
    from .mixture import Mixture


@dataclass(frozen=True)
class Disagreement:
    """Distance of the composed estimate from the heaviest parent's at one level: root mean square, scaled space."""

    level: float  # noise-to-signal ratio
    apart: float


@torch.no_grad()
def disagreement(mixture: Mixture, batches: Iterable[Mapping[str, Tensor]], seed: int = 0) -> list[Disagreement]:
    """What would change at each of the sampler's levels if only the heaviest parent were asked, on held-out windows.

    Args:
        batches: of `data.windows.Windows.gather`, with the window and needs of the mixture.
        seed: of the noise.
    """
    whole, lone = mixture.adapted(None), mixture.adapted(Adapt(skip=((0.0, 1.0),), reuse=False))
    generator, sums, count, levels = torch.Generator().manual_seed(seed), None, 0, []
    for batch in batches:
        past = past_of(batch, mixture.window, mixture.inputs)
        fields = [each.field(past, 1) for each in (whole, lone)]
        levels = noise_levels(mixture.sampler.steps, fields[0].sigma_min, fields[0].sigma_max)[:-1]
        clean = mixture.action_scale.scale(batch["action"])[:, None]
        sums = torch.zeros(len(levels), dtype=torch.float64) if sums is None else sums
        for row, level in enumerate(levels):
            y = clean + level * torch.randn(clean.shape, generator=generator).to(clean)
            sums[row] += (fields[0](y, level) - fields[1](y, level)).double().square().sum().cpu()
        count += clean.numel()
    if not count:
        raise ValueError("disagreement is measured on held-out windows; there are none")
    return [Disagreement(level, math.sqrt(total / count)) for level, total in zip(levels, sums.tolist(), strict=True)]


def calibrate(disagreements: Sequence[Disagreement], tolerance: float, reuse: bool = True) -> Adapt:
    """Spare the levels at which the parents agree within `tolerance` (of `disagreement`); the ranges meet half-way."""
    angles = [math.atan(one.level) * 2 / math.pi for one in disagreements]
    edges = [1.0, *((a + b) / 2 for a, b in zip(angles[:-1], angles[1:], strict=True)), 0.0]
    pairs = zip(edges[1:], edges[:-1], disagreements, strict=True)
    return Adapt(skip=tuple((low, high) for low, high, one in pairs if one.apart <= tolerance), reuse=reuse)


@dataclass(frozen=True)
class Saving:
    """What sparing saves and costs, on plans for held-out windows."""

    skipped: float  # part of the network evaluations that are not made
    change: float  # root mean square change of the plans, scaled action space
    noise: float  # the same between plans from two draws of the noise, for comparison
    windows: int


@torch.no_grad()
def saving(mixture: Mixture, adapt: Adapt, batches: Iterable[Mapping[str, Tensor]], seed: int = 0) -> Saving:
    """Compare plans with and without sparing, from the same noise; `batches` as for `disagreement`."""
    whole, skipping, other = mixture.adapted(None), mixture.adapted(adapt), mixture.adapted(None)
    squares, windows, count = np.zeros(2), 0, 0
    for batch in batches:
        past = past_of(batch, mixture.window, mixture.inputs)
        rows = np.arange(windows, windows + len(past.now))
        noise = [LaneNoise(each, rows, np.zeros_like(rows)) for each in (seed, seed, seed + 1)]
        drawn = zip((whole, skipping, other), noise, strict=True)
        plans = [each.plan(past, 1, rng).future / mixture.action_scale.std for each, rng in drawn]
        squares += [float((plan - plans[0]).double().square().sum()) for plan in plans[1:]]
        windows, count = windows + len(rows), count + plans[0].numel()
    if not count:
        raise ValueError("a saving is measured on held-out windows; there are none")
    change, drawn = np.sqrt(squares / count)
    part = 1 - sum(skipping.evaluations) / sum(whole.evaluations)
    return Saving(part, float(change), float(drawn), windows)
