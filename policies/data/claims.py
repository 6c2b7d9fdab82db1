"""What the rows of a data file say of themselves: whose they are, and which place and time in the episode they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .layout import DatasetError

EPISODE, FRAME, INDEX, TIME = "episode_index", "frame_index", "index", "timestamp"
AGAIN = "copy the data file and meta/ again, from the same dataset, or leave these episodes out of meta/"


@dataclass(frozen=True)
class Claims:
    """What the rows of a file say of themselves, (rows,) each; None where the column is missing or empty."""

    episode: np.ndarray | None
    frame: np.ndarray | None
    index: np.ndarray | None
    times: np.ndarray | None  # s
    rows: int

    @classmethod
    def of(cls, table, file: str) -> Claims:
        episode, frame, index = (_whole(table, name, file) for name in (EPISODE, FRAME, INDEX))
        return cls(episode, frame, index, _seconds(table), table.num_rows)


def _plain(column):
    """An Arrow column without lists of one number around its values; None where it is empty."""
    import pyarrow as pa

    while pa.types.is_nested(column.type) and hasattr(column.type, "value_type"):
        inner = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
        if len(inner) != len(column):
            return None
        column = inner
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return None if column.null_count == len(column) else column


def _whole(table, name: str, file: str) -> np.ndarray | None:
    """A column of whole numbers. Raises DatasetError where it holds something else."""
    import pyarrow as pa

    column = _plain(table[name]) if name in table.column_names else None
    if column is None:
        return None
    kind = column.type
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    values = _array(column) if numbers else np.empty(0)
    whole = numbers and (values.dtype.kind in "iu" or bool((values == np.rint(values)).all()))
    if not whole or column.null_count:
        what = f"holds {kind}" if not numbers else "has cells that are empty or no whole numbers"
        raise DatasetError(f"the column '{name}' of {file} {what}; write whole numbers, or leave the column out")
    return values if values.dtype == np.int64 else values.astype(np.int64)


def _seconds(table) -> np.ndarray | None:
    import pyarrow as pa

    column = _plain(table[TIME]) if TIME in table.column_names else None
    if column is None:
        return None
    if pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
        units = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
        values = _array(column.cast(pa.int64()))
        return (values - values[0]) / units if len(values) and values.dtype.kind == "i" else None
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    return _array(column)


def _array(column) -> np.ndarray:
    """Values of an Arrow column of numbers, without a copy where it is one piece."""
    if column.num_chunks == 1 and not column.null_count:
        return column.chunk(0).to_numpy()
    return column.to_numpy()
