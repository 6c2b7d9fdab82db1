"""Pictures that a dataset stores as a column of numbers: summed up from a few frames, never loaded as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...policies.data.dataset import Dataset
from ...policies.data.layout import DatasetError
from ...policies.data.tables import file_inside

FRAMES = 2000  # that are looked at
SHOWN = 8  # of them that are kept to be drawn


@dataclass(frozen=True)
class StoredPicture:
    """A summary of a column whose rows are pictures as numbers."""

    column: str
    shape: tuple[int, ...]
    frames: int  # that were looked at
    low: float
    high: float
    mean: float
    std: float
    shown: np.ndarray  # (n, *shape) uint8


def stored_pictures(dataset: Dataset) -> tuple[StoredPicture, ...]:
    """One for each such column that is in the data files and has the shape that is stated."""
    return tuple(one for key in dataset.layout.stored_pictures if (one := _summary(dataset, key)) is not None)


def _summary(dataset: Dataset, key: str) -> StoredPicture | None:
    shape = tuple(dataset.features[key]["shape"])
    blocks = [block.reshape(-1, *shape) for block in _blocks(dataset, key) if block.size % np.prod(shape) == 0]
    if not sum(len(block) for block in blocks):
        return None
    values = np.concatenate(blocks)
    shown = values[np.unique(np.linspace(0, len(values) - 1, SHOWN).astype(int))]
    low, high, mean, std = (float(f()) for f in (values.min, values.max, values.mean, values.std))
    return StoredPicture(key, shape, len(values), low, high, mean, std, shown)


def _blocks(dataset: Dataset, key: str) -> Iterator[np.ndarray]:
    """Numbers of the column, flat, until enough frames were seen; as many of each file."""
    import pyarrow
    import pyarrow.parquet

    files = sorted({entry.file for entry in dataset.layout.entries})
    each = max(1, FRAMES // len(files))
    for file in files[:FRAMES]:
        try:
            with pyarrow.parquet.ParquetFile(file_inside(dataset.root, file)) as table:
                if key in table.schema_arrow.names:
                    batch = next(table.iter_batches(each, columns=[key]), None)
                    yield np.empty(0, np.uint8) if batch is None else _flat(batch.column(0))
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DatasetError(f"the file {dataset.root / file} is damaged or missing ({error})") from error


def _flat(array) -> np.ndarray:
    import pyarrow as pa

    while isinstance(array, pa.ExtensionArray) or pa.types.is_nested(array.type):
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    return array.to_numpy(zero_copy_only=False).astype(np.uint8)
