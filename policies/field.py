"""Noise levels, head conversions, and the one sampler of every generative model here.

All is written in the coordinate `y = x0 + s * noise`, where s > 0 is the noise-to-signal ratio. Diffusion (epsilon, x0
and v heads) and flow matching are thin conversions into the clean estimate `D(y, s) = E[x0 | y, s]`, which is all that
solvers see. The angle `t = 2/pi * atan(s)` in (0, 1) is the time of the variance-preserving cosine path:
alpha = cos(pi t / 2), sigma = sin(pi t / 2), x_t = alpha x0 + sigma noise = y alpha.

Sources: Song et al. 2021 (DDIM), Karras et al. 2022 (the s coordinate, Heun), Lu et al. 2022 (DPM-Solver++ 2M),
Salimans & Ho 2022 (v head). This file knows nothing of networks, observations or actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]


class PredictionType(Enum):
    """What a network predicts."""

    epsilon = "epsilon"  # the noise
    x0 = "x0"  # the clean value
    v = "v"  # alpha * noise - sigma * x0 (Salimans & Ho 2022)
    flow = "flow"  # noise - x0, the velocity of the straight path x = (1 - t) x0 + t noise


class Solver(Enum):
    """How the path from noise to the clean value is walked."""

    ddim = "ddim"  # first order, one evaluation a step
    dpmpp = "dpmpp"  # DPM-Solver++(2M): second order, one evaluation a step
    heun = "heun"  # second order, two evaluations a step


def angle_of(s: Tensor) -> Tensor:
    """Noise-to-signal ratio -> time t in (0, 1) of the cosine path."""
    return torch.atan(s) * (2 / math.pi)


def ratio_of(t: Tensor) -> Tensor:
    """Time t in (0, 1) of the cosine path -> noise-to-signal ratio."""
    return torch.tan(t * (math.pi / 2))


def to_clean(prediction_type: PredictionType, out: Tensor, y: Tensor, s: Tensor | float) -> Tensor:
    """Network output -> clean estimate. `s` broadcasts against `y`; any shape."""
    if prediction_type is PredictionType.x0:
        return out
    if prediction_type is PredictionType.epsilon:
        return y - s * out
    if prediction_type is PredictionType.flow:
        return (y - s * out) / (1 + s)
    return (y - s * out * (1 + s * s) ** 0.5) / (1 + s * s)


def from_clean(prediction_type: PredictionType, clean: Tensor, y: Tensor, s: Tensor | float) -> Tensor:
    """Clean value -> what the network should output; the inverse of `to_clean`, also the training target."""
    if prediction_type is PredictionType.x0:
        return clean
    noise = (y - clean) / s
    if prediction_type is PredictionType.epsilon:
        return noise
    if prediction_type is PredictionType.flow:
        return noise - clean
    return (noise - s * clean) / (1 + s * s) ** 0.5


def noise_levels(steps: int, low: float, high: float) -> list[float]:
    """`steps` falling levels, evenly spaced in the angle from `high` towards 0, then 0 itself (steps + 1 numbers).

    Raises:
        ValueError: so many steps that the last level would fall below `low`, where the field is not defined.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least 1 step, got {steps}")
    top = math.atan(high)
    levels = [math.tan(top * (1 - i / steps)) for i in range(steps)]
    if levels[-1] < low * (1 - 1e-6):
        most = int(top / math.atan(low))
        raise ValueError(
            f"{steps} steps reach below the field's noise range; at most {most} fit in [{low:g}, {high:g}]"
        )
    return [*levels, 0.0]


def sample(
    field: Denoise,
    noise: Tensor,
    levels: list[float],
    *,
    solver: Solver = Solver.ddim,
    clip: float | None = 1.0,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Walk from noise to a clean sample.

    Args:
        field: `D(y, s)`, the clean estimate.
        noise: standard normal, any shape; the start is `levels[0] * noise`.
        levels: falling noise-to-signal ratios, the last one 0.
        clip: bound of the clean estimate, None for none. It is applied to the composed field, here and only here.
        known: (values, mask), both of the sample's shape: entries under the mask are given (prefix conditioning) and
            are noised along the path instead of being denoised.
    Returns:
        The sample, of the shape of `noise`.
    """

    def clean_at(y: Tensor, s: float) -> Tensor:
        clean = field(y, s)
        clean = clean if clip is None else clean.clamp(-clip, clip)
        return clean if known is None else torch.where(known[1], known[0], clean)

    def hold(y: Tensor, s: float) -> Tensor:
        return y if known is None else torch.where(known[1], known[0] + s * noise, y)

    walk = {Solver.ddim: _ddim, Solver.dpmpp: _dpmpp, Solver.heun: _heun}[solver]
    return walk(clean_at, hold, hold(levels[0] * noise, levels[0]), levels)


def _ddim(clean_at, hold, y, levels):
    for s, after in zip(levels[:-1], levels[1:], strict=True):
        clean = clean_at(y, s)
        y = hold(clean + (after / s) * (y - clean), after)
    return y


def _dpmpp(clean_at, hold, y, levels):
    before = None  # (clean, s) of the step before
    for s, after in zip(levels[:-1], levels[1:], strict=True):
        clean = clean_at(y, s)
        ahead = clean
        if before is not None and after > 0:
            ratio = math.log(before[1] / s) / math.log(s / after)
            ahead = clean + (clean - before[0]) / (2 * ratio)
        y = hold(ahead + (after / s) * (y - ahead), after)
        before = (clean, s)
    return y


def _heun(clean_at, hold, y, levels):
    for s, after in zip(levels[:-1], levels[1:], strict=True):
        clean = clean_at(y, s)
        slope = (y - clean) / s
        guess = hold(y + (after - s) * slope, after)
        if after > 0:
            slope = (slope + (guess - clean_at(guess, after)) / after) / 2
        y = hold(y + (after - s) * slope, after)
    return y
