"""Adaptive composition: at some noise levels only the heaviest parent is asked, which saves network evaluations.

After Adaptive Guidance (Castillo et al. 2023, arXiv 2312.12487), which drops one of the two evaluations of
classifier-free guidance once both agree, and replaces others by past ones. Here the levels are chosen beforehand, by
hand or by `calibrate` from how much the parents differ on held-out windows, and hold for all lanes: a lane's plan never
depends on its neighbours. At a skipped level the others are taken to differ from the asked parent as they last did on
this path (`reuse`), or not at all. The heaviest parent is the one with the greatest weight on some token, the first of
equals; so the owner of a tail is asked everywhere, and a parent with tokens that the asked one lacks is never skipped.

How far parents differ at a level is not yet what a plan loses there: the chunk is decided at the last levels, so that
sparing the noisy half of the path may cost a plan less than sparing the other half. `saving` measures it on plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Adapt:
    """Where on the path network evaluations are skipped."""

    RENAMED: ClassVar[dict[str, str]] = {"spare": "skip"}  # former names that are still read

    skip: tuple[tuple[float, float], ...] = ()  # ranges, from (included) to, of the angle 2/pi atan(s) in 0..1
    reuse: bool = True  # unasked parents differ from the asked one as they last did; false: they agree with it

    def __post_init__(self):
        for low, high in self.skip:
            if not 0 <= low < high <= 1:
                raise ValueError(f"a skipped range of angles must be 0 <= from < to <= 1, got {low}..{high}")

    def skips(self, s: float) -> bool:
        """Whether only the heaviest parent is asked at noise-to-signal ratio `s`."""
        angle = math.atan(s) * 2 / math.pi
        return any(low <= angle < high for low, high in self.skip)


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
        if self.adapt is None or not self.adapt.skip:
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
        if self.adapt.skips(s):
            return beside + self._apart[i] if self.adapt.reuse and i in self._apart else beside
        asked = self._ask(i, y, s)
        self._apart[i] = asked - beside
        return asked

    def _ask(self, i: int, y: Tensor, s: float) -> Tensor:
        self.counts[i] += 1
        return self.ask[i](y, s)
