"""Adaptive composition: at some noise levels only the heaviest parent is asked, which saves network evaluations.

After Adaptive Guidance (Castillo et al. 2023, arXiv 2312.12487), which drops one of the two evaluations of
classifier-free guidance once both agree, and replaces others by past ones. Here the levels are chosen beforehand, by
hand or by `calibrate` from how much the parents differ on held-out windows, and hold for all lanes: a lane's plan never
depends on its neighbours. At a spared level the others are taken to differ from the asked parent as they last did on
this path (`reuse`), or not at all. The heaviest parent is the one with the greatest weight on some token, the first of
equals; so the owner of a tail is asked everywhere, and a parent with tokens that the asked one lacks is never spared.

How far parents differ at a level is not yet what a plan loses there: the chunk is decided at the last levels, so that
sparing the noisy half of the path may cost a plan less than sparing the other half. `saving` measures it on plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .field import noise_levels
from .policy import LaneNoise

if TYPE_CHECKING:
    from .mixture import Mixture


@dataclass(frozen=True, kw_only=True)
class Adapt:
    """Where on the path network evaluations are spared."""

    spare: tuple[tuple[float, float], ...] = ()  # ranges, from (included) to, of the angle 2/pi atan(s) in 0..1
    reuse: bool = True  # unasked parents differ from the asked one as they last did; false: they agree with it

    def __post_init__(self):
        for low, high in self.spare:
            if not 0 <= low < high <= 1:
                raise ValueError(f"a spared range of angles must be 0 <= from < to <= 1, got {low}..{high}")

    def spares(self, s: float) -> bool:
        """Whether only the heaviest parent is asked at noise-to-signal ratio `s`."""
        angle = math.atan(s) * 2 / math.pi
        return any(low <= angle < high for low, high in self.spare)


class Asked:
    """Asks parents along one path.

    Args:
        ask: one function a parent, (y, s) -> its estimate for its own tokens; y holds all tokens.
        within: within(i, j) takes the tokens of parent i out of an estimate of parent j; None where j lacks some.
        counts: evaluations of each parent so far, counted on.
    """

    def __init__(
        self, adapt: Adapt | None, ask: Sequence[Callable], within: Callable[..., Tensor | None], counts: list[int]
    ):
        self.adapt, self.ask, self.within, self.counts = adapt, ask, within, counts
        self._apart: dict[int, Tensor] = {}  # parent -> how it last differed from the heaviest

    def __call__(self, y: Tensor, s: float, weights: Sequence[float]) -> list[Tensor | None]:
        """The estimate of each parent whose weight is above 0."""
        if self.adapt is None or not self.adapt.spare:
            return [self._ask(i, y, s) if weight > 0 else None for i, weight in enumerate(weights)]
        first = max(range(len(weights)), key=lambda i: (weights[i], -i))
        found: list[Tensor | None] = [None] * len(weights)
        found[first] = self._ask(first, y, s)
        for i, weight in enumerate(weights):
            if i != first and weight > 0:
                found[i] = self._other(i, first, found[first], y, s)
        return found

    def _other(self, i: int, first: int, leading: Tensor, y: Tensor, s: float) -> Tensor:
        beside = self.within(i, first, leading)
        if beside is None:
            return self._ask(i, y, s)
        if self.adapt.spares(s):
            return beside + self._apart[i] if self.adapt.reuse and i in self._apart else beside
        asked = self._ask(i, y, s)
        self._apart[i] = asked - beside
        return asked

    def _ask(self, i: int, y: Tensor, s: float) -> Tensor:
        self.counts[i] += 1
        return self.ask[i](y, s)


@dataclass(frozen=True)
class Disagreement:
    """Distance of the composed estimate from the heaviest parent's at one level: root mean square, scaled space."""

    level: float  # noise-to-signal ratio
    apart: float


@torch.no_grad()
def disagreement(mixture: Mixture, batches: Iterable[Mapping[str, Tensor]], seed: int = 0) -> list[Disagreement]:
    """What would change at each of the sampler's levels if only the heaviest parent were asked, on held-out windows.

    Args:
        batches: of `learning.windows.Windows.gather`, with the window and needs of the mixture.
        seed: of the noise.
    """
    from .learning.validate import past_of

    whole, lone = mixture.adapted(None), mixture.adapted(Adapt(spare=((0.0, 1.0),), reuse=False))
    generator, sums, count, levels = torch.Generator().manual_seed(seed), None, 0, []
    for batch in batches:
        past = past_of(batch, mixture.window, mixture.needs)
        fields = [each.field(past, 1) for each in (whole, lone)]
        levels = noise_levels(mixture.sampler.steps, fields[0].low, fields[0].high)[:-1]
        clean = mixture.action_scale.scale(batch["action"])[:, None]
        sums = torch.zeros(len(levels), dtype=torch.float64) if sums is None else sums
        for row, level in enumerate(levels):
            y = clean + level * torch.randn(clean.shape, generator=generator).to(clean)
            sums[row] += (fields[0](y, level) - fields[1](y, level)).double().square().sum().cpu()
        count += clean.numel()
    if not count:
        raise ValueError("disagreement is measured on held-out windows; there are none")
    return [Disagreement(level, math.sqrt(total / count)) for level, total in zip(levels, sums.tolist(), strict=True)]


def calibrate(told: Sequence[Disagreement], tolerance: float, reuse: bool = True) -> Adapt:
    """Spare the levels at which the parents agree within `tolerance` (of `disagreement`); the ranges meet half-way."""
    angles = [math.atan(one.level) * 2 / math.pi for one in told]
    edges = [1.0, *((a + b) / 2 for a, b in zip(angles[:-1], angles[1:], strict=True)), 0.0]
    pairs = zip(edges[1:], edges[:-1], told, strict=True)
    return Adapt(spare=tuple((low, high) for low, high, one in pairs if one.apart <= tolerance), reuse=reuse)


@dataclass(frozen=True)
class Saving:
    """What sparing saves and costs, on plans for held-out windows."""

    spared: float  # part of the network evaluations that are not made
    change: float  # root mean square change of the plans, scaled action space
    noise: float  # the same between plans from two draws of the noise, for comparison
    windows: int


@torch.no_grad()
def saving(mixture: Mixture, adapt: Adapt, batches: Iterable[Mapping[str, Tensor]], seed: int = 0) -> Saving:
    """Compare plans with and without sparing, from the same noise; `batches` as for `disagreement`."""
    from .learning.validate import past_of

    whole, sparing, other = mixture.adapted(None), mixture.adapted(adapt), mixture.adapted(None)
    squares, windows, count = np.zeros(2), 0, 0
    for batch in batches:
        past = past_of(batch, mixture.window, mixture.needs)
        rows = np.arange(windows, windows + len(past.now))
        noise = [LaneNoise(each, rows, np.zeros_like(rows)) for each in (seed, seed, seed + 1)]
        told = zip((whole, sparing, other), noise, strict=True)
        plans = [each.plan(past, 1, rng).future / mixture.action_scale.std for each, rng in told]
        squares += [float((plan - plans[0]).double().square().sum()) for plan in plans[1:]]
        windows, count = windows + len(rows), count + plans[0].numel()
    if not count:
        raise ValueError("a saving is measured on held-out windows; there are none")
    change, drawn = np.sqrt(squares / count)
    part = 1 - sum(sparing.evaluations) / sum(whole.evaluations)
    return Saving(part, float(change), float(drawn), windows)
