"""Mean, spread and range of a dataset's columns over chosen episodes: computed, never read from its own file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import Dataset
from .layout import DatasetError

FLOOR = 1e-4  # a spread below this part of the dimension's size counts as constant


@dataclass(frozen=True)
class Stats:
    """Each (D,) float32 in the column's units. `std` is 1 where the dimension is constant."""

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
    member = np.zeros(len(dataset.lengths), bool)
    member[chosen] = True
    rows = np.repeat(member, dataset.lengths)
    return {key: _describe(_values(dataset, key)[rows]) for key in keys}


def _values(dataset: Dataset, key: str) -> np.ndarray:
    if key not in dataset.columns:
        raise DatasetError(f"no column '{key}' is loaded from {dataset.root}; available: {', '.join(dataset.columns)}")
    return dataset.columns[key]


def _describe(values: np.ndarray) -> Stats:
    mean, std = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    std = np.where(std > FLOOR * np.maximum(np.abs(mean), FLOOR), std, 1.0)
    return Stats(mean.astype(np.float32), std.astype(np.float32), values.min(0), values.max(0))
