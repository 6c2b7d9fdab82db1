"""Randomness for code that draws from torch's global generator, keyed by row of a batch.

lerobot's policies draw their noise from the global generator, one call for the whole batch: a lane's noise would then
depend on its place and on its neighbours. `keyed` takes the draws of the common functions (`randn`, `rand`, their
`_like` forms, `normal`, `multinomial`) whose first dimension is a multiple of the rows, and lets each row draw from a
generator of its own, seeded by its key. One batched call then equals one call a row, up to rounding.

A draw of another kind reaches the global generator; `Draws.strayed` says so, and the caller has to call row by row. The
global generators are put back as they were in any case. This file knows nothing of policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..policy import LaneNoise


def row_seeds(rng: LaneNoise, n: int) -> list[int]:
    """One seed a row, B * n in all, lanes first; those of the first candidates do not depend on n."""
    halves = (rng.uniform(n, 2).double() * 2**24).long().flatten(0, 1)
    return [high * 2**24 + low for high, low in halves.tolist()]


class Draws:
    """What happened under `keyed`."""

    strayed = False  # whether the global generator was drawn from


@contextmanager
def keyed(seeds: Sequence[int], device: torch.device) -> Iterator[Draws]:
    """Under it, row i of a batch of `len(seeds)` rows draws from its own generator; see the module."""
    draws, cuda = Draws(), [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        _seed_global(seeds[0], cuda)
        before = _states(cuda)
        with _Rows(seeds):
            yield draws
        draws.strayed = any(not torch.equal(*pair) for pair in zip(before, _states(cuda), strict=True))


class _Rows(TorchFunctionMode):
    """Answers the common drawing functions row by row."""

    def __init__(self, seeds: Sequence[int]):
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        answer = _ANSWERS.get(func)
        found = None if answer is None or kwargs.get("generator") is not None else answer(self, *args, **kwargs)
        return func(*args, **kwargs) if found is None else found

    def rows(self, shape: Sequence[int], draw) -> Tensor | None:
        """(shape) drawn in one part a row along the first dimension; None if the rows do not divide it."""
        count = len(self.generators)
        if not shape or shape[0] % count:
            return None
        part = (shape[0] // count, *shape[1:])
        return torch.cat([draw(part, generator) for generator in self.generators])

    def fresh(self, draw, *size, **options) -> Tensor | None:
        size = options.pop("size", size)
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        dtype, device = options.get("dtype"), options.get("device")
        found = self.rows(tuple(shape), lambda part, generator: draw(part, generator=generator))
        return None if found is None else found.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def like(self, draw, other: Tensor, **options) -> Tensor | None:
        options = {"dtype": options.get("dtype") or other.dtype, "device": options.get("device") or other.device}
        return self.fresh(draw, other.shape, **options)

    def normal(self, mean=0.0, std=1.0, size=None, **options) -> Tensor | None:
        if size is None or isinstance(mean, Tensor) or isinstance(std, Tensor):
            return None
        found = self.fresh(torch.randn, size, **options)
        return None if found is None else found * std + mean

    def multinomial(self, weights: Tensor, num_samples: int, replacement: bool = False, **_) -> Tensor | None:
        count = len(self.generators)
        if weights.ndim != 2 or len(weights) % count:
            return None
        parts = zip(weights.detach().cpu().chunk(count), self.generators, strict=True)
        picks = [torch.multinomial(part, num_samples, replacement, generator=own) for part, own in parts]
        return torch.cat(picks).to(weights.device)


_ANSWERS = {
    torch.randn: lambda rows, *args, **kwargs: rows.fresh(torch.randn, *args, **kwargs),
    torch.rand: lambda rows, *args, **kwargs: rows.fresh(torch.rand, *args, **kwargs),
    torch.randn_like: lambda rows, *args, **kwargs: rows.like(torch.randn, *args, **kwargs),
    torch.rand_like: lambda rows, *args, **kwargs: rows.like(torch.rand, *args, **kwargs),
    torch.normal: _Rows.normal,
    torch.multinomial: _Rows.multinomial,
}


def _seed_global(seed: int, cuda: list[torch.device]) -> None:
    """`torch.manual_seed` of these devices alone; that of all formats a stack trace for each kind that is not there."""
    torch.default_generator.manual_seed(seed)
    for device in cuda:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _states(cuda: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]
