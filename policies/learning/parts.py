"""The parts that the windows of a step are computed in, by several processes or one after the other.

The gradient of a step is that of the mean over all of its windows. Where a loss is a mean over tokens of which some are
padding, parts hold different numbers of tokens; so each part counts by its share, and a mean of means is avoided.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...configs.protocols import keeps
from ..policy import Counted
from .crew import Crew


def parts_of(
    model: nn.Module, batch: dict[str, Tensor], count: int, crew: Crew
) -> list[tuple[dict[str, Tensor], float]]:
    """(part, its share of what the mean of a step is over) of `count` parts of this process's windows.

    Shares of all processes add up to 1.
    """
    if count == 1 and crew.size == 1:
        return [(batch, 1.0)]
    size = len(next(iter(batch.values()))) // count
    parts = [{key: value[place * size : (place + 1) * size] for key, value in batch.items()} for place in range(count)]
    held = [_held(model, part) for part in parts]
    (whole,) = crew.total([sum(held)])
    return [(part, number / whole) for part, number in zip(parts, held, strict=True)]


def _held(model: nn.Module, part: Mapping[str, Tensor]) -> float:
    """What the mean of a loss is over: tokens where a model counts them, else windows."""
    return model.count(part) if keeps(model, Counted) else float(len(next(iter(part.values()))))
