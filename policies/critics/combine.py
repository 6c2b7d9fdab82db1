"""Critics combined: one sieves and another ranks, or several add up their scores made comparable.

A critic that cannot tell gives equal scores to all plans of a lane; it then keeps all of them, or adds nothing. The
scores here depend on the other candidates of the lane, by their nature. Nothing is known of what the parts measure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...configs.spec import Window
from ..policy import Combination, Critic, Past, Plans


class Combined(Critic, Combination):
    """What combinations share: they see and need what their parts do.

    Raises:
        ValueError: parts that score different numbers of future actions, the first alone not counted.
    """

    def __init__(self, *parts: Critic):
        self.parts = parts
        self.window = Window.union(*(part.window for part in parts))
        self.inputs = tuple(dict.fromkeys(key for part in parts for key in part.inputs))
        read = sorted({part.reads for part in parts} - {0, 1})
        if len(read) > 1:
            raise ValueError(f"the critics score different numbers of future actions: {read}")
        self.reads = read[0] if read else max(part.reads for part in parts)


class FilterThenRank(Combined):
    """The `keep` best plans by `first`, ranked by `then`; plans as good as the last kept one stay too."""

    def __init__(self, first: Critic, keep: int, then: Critic):
        super().__init__(first, then)
        if keep < 1:
            raise ValueError(f"a filter must keep at least 1 plan, got {keep}")
        self.keep = keep

    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N): the scores of `then`, minus infinity for plans that were sieved out."""
        sieve, rank = (part.score(past, plans) for part in self.parts)
        kept = sieve >= sieve.topk(min(self.keep, sieve.shape[1]), 1).values[:, -1:]
        return rank.masked_fill(~kept, float("-inf"))


class Weighted(Combined):
    """The weighted sum of each critic's z-scores within a lane."""

    def __init__(self, parts: tuple[Critic, ...], weights: tuple[float, ...]):
        super().__init__(*parts)
        if len(parts) != len(weights) or not parts:
            raise ValueError(f"{len(parts)} critics cannot have {len(weights)} weights")
        self.weights = weights

    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N), higher is better."""
        pairs = zip(self.weights, self.parts, strict=True)
        return sum(weight * within(part.score(past, plans)) for weight, part in pairs)


def within(scores: Tensor) -> Tensor:
    """(B, N) scores -> z-scores within each lane; zeros where all are equal."""
    spread = scores.std(1, correction=0, keepdim=True)
    centred = scores - scores.mean(1, keepdim=True)
    return torch.where(spread > 0, centred / spread.clamp_min(torch.finfo(scores.dtype).tiny), 0.0)
