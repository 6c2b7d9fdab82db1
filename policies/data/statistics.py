"""Mean, spread and range of a dataset's columns over chosen episodes: computed, never read from its own file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import Dataset
from .layout import DatasetError

CONSTANT = 1e-6  # a spread below this, or below this part of the greatest value, is rounding noise: no scale


@dataclass(frozen=True)
class Stats:
    """Each (D,) float32 in the column's units. `std` is 1 where the dimension is constant, but for rounding noise."""

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray


def statistics(dataset: Dataset, keys: tuple[str, ...], episodes: np.ndarray | None = None) -> dict[str, Stats]:
    """Statistics of `keys` over the episodes at these positions (default all).

    Raises:
        DatasetError: a key that is not loaded, or no episodes.
    """
    chosen = np.arange(len(dataset.lengths)) if episodes is None else np.asarray(episodes)
    if not len(chosen):
        raise DatasetError("statistics need at least one episode")
    rows = _rows(dataset, chosen)
    return {key: _describe(_values(dataset, key)[rows]) for key in keys}


def _rows(dataset: Dataset, episodes: np.ndarray) -> np.ndarray:
    """(N,) bool, rows of these episodes."""
    member = np.zeros(len(dataset.lengths), bool)
    member[episodes] = True
    return np.repeat(member, dataset.lengths)


def _values(dataset: Dataset, key: str) -> np.ndarray:
    if key not in dataset.columns:
        raise DatasetError(f"no column '{key}' is loaded from {dataset.root}; available: {', '.join(dataset.columns)}")
    return dataset.columns[key]


def _describe(values: np.ndarray) -> Stats:
    mean, std, least, greatest = values.mean(0, dtype=np.float64), spread_of(values), values.min(0), values.max(0)
    std = np.where(std > noise_floor(least, greatest), std, 1.0)
    return Stats(mean.astype(np.float32), std.astype(np.float32), least, greatest)


def spread_of(values: np.ndarray) -> np.ndarray:
    """(D,) float64 standard deviations of values (N, D)."""
    return values.std(0, dtype=np.float64)


def noise_floor(least: np.ndarray, greatest: np.ndarray) -> np.ndarray:
    """(D,) float64: what float32 cannot tell from constant, for values between `least` and `greatest`."""
    size = np.maximum(np.abs(least.astype(np.float64)), np.abs(greatest.astype(np.float64)))
    return CONSTANT * np.maximum(size, 1.0)


def nearly_constant(dataset: Dataset, keys: tuple[str, ...], episodes: np.ndarray) -> list[tuple[str, int, float]]:
    """(key, dimension, standard deviation) of what moves by no more than rounding noise, but does move."""
    rows = _rows(dataset, episodes)
    found = []
    for key in keys:
        values = _values(dataset, key)[rows]
        spread, floor = spread_of(values), noise_floor(values.min(0), values.max(0))
        found += [(key, int(dim), float(spread[dim])) for dim in np.flatnonzero((spread > 0) & (spread <= floor))]
    return found


def action_range(stats: Stats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(low, high) that become [-1, 1]: the smallest and the greatest action of each dimension.

    A constant one, but for rounding noise, lies in the middle of a range that float32 can tell from a point: half a
    unit to each side, or a ten-thousandth of a value beyond 5,000.
    """
    low, high = stats.min.astype(np.float64), stats.max.astype(np.float64)
    still = high - low <= noise_floor(stats.min, stats.max)
    middle = (low + high) / 2
    half = np.maximum(0.5, 1e-4 * np.abs(middle))
    low, high = np.where(still, middle - half, low), np.where(still, middle + half, high)
    return tuple(low.tolist()), tuple(high.tolist())
