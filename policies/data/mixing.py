"""Several datasets in fixed shares: how many windows of each batch come from each, whatever their sizes.

Each dataset is read through in shuffled rounds of its own; a small one comes round more often. Without shares, all
windows of all datasets are one pool, in which a large dataset drowns a small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from .dataset import Dataset


class SharesError(ValueError):
    """Shares that cannot be; the message says what to do."""


def shares_of(text: str) -> tuple[float, ...]:
    """`2,1` -> (2.0, 1.0). Raises SharesError for what is no numbers."""
    try:
        return tuple(float(part) for part in str(text).strip("[]() ").split(",") if part.strip())
    except ValueError as error:
        raise SharesError(f"--shares {text} is no list of numbers; write for example 2,1") from error


def check_shares(shares: Sequence[float], datasets: int, weighting: bool, batch: int) -> None:
    """Refuse shares without opening anything.

    Args:
        datasets: how many are named.
        weighting: whether episodes are weighted, too.

    Raises:
        SharesError: not one positive share a dataset, two that contradict each other, a batch that is too small.
    """
    if not shares:
        return
    told = ",".join(f"{share:g}" for share in shares)
    if weighting:
        raise SharesError(
            f"--shares {told} and `weighting` both say how often a window is drawn; leave one of them out"
        )
    if len(shares) != datasets or datasets < 2:
        raise SharesError(
            f"--shares {told} is {len(shares)} numbers for {datasets} dataset{'s' if datasets != 1 else ''}; give one "
            "for each of --data A,B, in their order"
        )
    if not all(0 < share < float("inf") for share in shares):
        raise SharesError(f"--shares {told}: a share is above 0; leave a dataset that is not wanted out of --data")
    if min(counts(shares, batch)) < 1:
        raise SharesError(
            f"--shares {told} leave no window of a batch of {batch} to one dataset; raise its share or --batch"
        )


def counts(shares: Sequence[float], batch: int) -> list[int]:
    """Windows of a batch from each dataset: largest remainders, sum `batch`."""
    exact = np.asarray(shares, np.float64) / sum(shares) * batch
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: batch - whole.sum()]] += 1
    return whole.tolist()


class SharedOrder:
    """Which windows make the batch of a step: a function of (seed, step) alone.

    Args:
        members: positions of the windows of each dataset.
        shares: see `counts`.
        batch: windows a step.
    """

    def __init__(self, members: Sequence[np.ndarray], shares: Sequence[float], batch: int, seed: int):
        self.batch, self.each = batch, counts(shares, batch)
        self._streams = [_Rounds(some, (seed, place)) for place, some in enumerate(members)]

    def indices(self, step: int) -> Tensor:
        """(batch,) int64 positions of the windows of step `step`, dataset by dataset."""
        import torch

        parts = zip(self._streams, self.each, strict=True)
        return torch.from_numpy(np.concatenate([stream.take(step * each, each) for stream, each in parts]))


def shared_order(
    dataset: Dataset,
    training: np.ndarray,
    shares: Sequence[float],
    batch: int,
    seed: int,
    kept: np.ndarray | None = None,
) -> SharedOrder:
    """The order of the windows of the training episodes (positions), of a dataset that is several.

    `kept` (N,) bool: the rows at which there is a window; by default all.

    Raises:
        SharesError: one of the datasets has no training episode.
    """
    of_episode = np.repeat(np.arange(len(dataset.parts)), [len(part.lengths) for part in dataset.parts])
    of_window = np.repeat(of_episode[training], dataset.lengths[training])
    if kept is not None:
        places = zip(dataset.starts[training], dataset.lengths[training], strict=True)
        of_window = of_window[np.concatenate([kept[start : start + count] for start, count in places])]
    members = [np.flatnonzero(of_window == place) for place in range(len(dataset.parts))]
    for part, some in zip(dataset.parts, members, strict=True):
        if not len(some):
            raise SharesError(
                f"no step of {part.root} trains (held out, or not learned from), so it has no share of a batch; give "
                "another --seed or a "
                "smaller --validation"
            )
    return SharedOrder(members, shares, batch, seed)


class _Rounds:
    """An endless sequence of shuffled rounds of some numbers."""

    def __init__(self, members: np.ndarray, key: tuple[int, int]):
        self._members, self._key = np.asarray(members, np.int64), key
        self._round, self._order = -1, self._members

    def take(self, first: int, count: int) -> np.ndarray:
        """(count,) from place `first` on."""
        rounds, places = np.divmod(np.arange(first, first + count), len(self._members))
        return np.array([self._shuffled(number)[place] for number, place in zip(rounds, places, strict=True)], np.int64)

    def _shuffled(self, number: int) -> np.ndarray:
        if number != self._round:
            rng = np.random.default_rng((*self._key, int(number)))
            self._round, self._order = number, rng.permutation(self._members)
        return self._order
