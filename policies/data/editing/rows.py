"""Rows of kept episodes for the new dataset: all columns bit for bit, but where a row belongs is said anew."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..claims import Claims
from ..encode import Moments
from ..layout import PICTURES, TEXTS, DatasetError, Entry, Layout, read_tasks
from ..rows import files_of, read_rows
from ..tables import DatasetWarning
from .plan import Kept, Plan

TASK = "task_index"


@dataclass
class Source:
    """Data files of one dataset, of which the last one read is remembered."""

    layout: Layout
    texts: dict[int, str]
    members: dict[str, list[Entry]]
    last: tuple[str, object, dict[int, tuple[Entry, int]]] | None = None

    @classmethod
    def of(cls, layout: Layout) -> Source:
        return cls(layout, read_tasks(layout.root), files_of(layout))

    def table(self, entry: Entry, names: list[str]):
        """The rows of an episode, in the order of time, as a pyarrow table of the features that the file has.

        Raises:
            DatasetError: a missing or damaged file, rows that are not those which the episodes table promises.
        """
        if self.last is None or self.last[0] != entry.file:
            rows = read_rows(self.layout, entry.file, self.members[entry.file], names)
            there = [name for name in names if name in rows.table.column_names]  # type: ignore[attr-defined]
            places = {one.id: (one, first) for one, first in rows.places}
            self.last = entry.file, rows.table.select(there), places  # type: ignore[attr-defined]
        _, table, places = self.last
        return table.slice(places[entry.id][1], entry.length)  # type: ignore[attr-defined]


def new_rows(plan: Plan) -> Iterator[tuple[Kept, object]]:
    """Each kept episode with its rows as they are written, in order.

    Raises:
        DatasetError: as `Source.table`, and a file that lacks a column which the features promise.
    """
    sources = {id(layout): Source.of(layout) for layout in plan.layouts}
    numbers, begin = plan.tasks, 0
    names = [key for key, feature in plan.features.items() if feature.get("dtype") != "video"]
    for place, kept in enumerate(plan.episodes):
        source = sources[id(kept.layout)]
        table = source.table(kept.entry, names)
        lost = next((name for name in names if name not in table.column_names and name != TASK), None)
        if lost is not None:
            raise DatasetError(
                f"column '{lost}' is not in {kept.layout.root / kept.entry.file}, though meta/info.json promises it;"
                f" copy the file again, or leave it out: --drop {lost}"
            )
        table = _with_whole(table, "episode_index", np.full(kept.entry.length, place))
        table = _with_whole(table, "index", begin + np.arange(kept.entry.length))
        table = _with_whole(table, TASK, _tasks(table, kept, source, plan, numbers))
        begin += kept.entry.length
        yield kept, table


def _tasks(table, kept: Kept, source: Source, plan: Plan, numbers: dict[str, int]) -> np.ndarray:
    """(T,) number of the task of each row in the new dataset; the episodes table is believed, and a warning says so."""
    alone = numbers[kept.tasks[0]]
    file = str(kept.layout.root / kept.entry.file)
    old = Claims.of(table.select([TASK]).rename_columns(["index"]), file).index if TASK in table.column_names else None
    if old is None:
        return np.full(kept.entry.length, alone)
    told = {one: source.texts[one] for one in set(old.tolist()) if one in source.texts}
    new = {one: plan.renamed(text) for one, text in told.items()}
    if strange := next((text for one, text in told.items() if new[one] not in kept.tasks), None):
        warnings.warn(
            f"episode {kept.entry.id} in {file} has rows of the task '{strange}', the episodes table says"
            f" '{'; '.join(kept.entry.tasks)}', which is believed",
            DatasetWarning,
            stacklevel=2,
        )
    return np.array([numbers[new[one]] if new.get(one) in kept.tasks else alone for one in old.tolist()], np.int64)


def _with_whole(table, name: str, values: np.ndarray):
    import pyarrow as pa

    column = pa.array(np.asarray(values, np.int64))
    if name not in table.column_names:
        return table.append_column(name, column)
    return table.set_column(table.column_names.index(name), pa.field(name, pa.int64()), column)


def row_moments(plan: Plan, table) -> dict[str, Moments]:
    """Moments of the numbers of one episode, by feature."""
    found = {}
    for key, feature in plan.features.items():
        if feature.get("dtype") in (*PICTURES, *TEXTS) or key not in table.column_names:
            continue
        values = _numbers(table[key], feature, len(table))
        if values is not None:
            found[key] = Moments.of_rows(values)
    return found


def _numbers(column, feature: dict, rows: int) -> np.ndarray | None:
    """(T, ...) numbers of a column; None where it holds something else, or cells of other shapes."""
    import pyarrow as pa

    if column.null_count:
        return None
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    while isinstance(array, pa.ExtensionArray) or pa.types.is_nested(array.type):
        if pa.types.is_struct(array.type) or pa.types.is_map(array.type):
            return None
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return None
    shape = [int(size) for size in feature.get("shape") or (1,)]
    shape = [] if shape == [1] else shape
    values = array.to_numpy(zero_copy_only=False)
    return values.reshape(rows, *shape) if len(values) == rows * int(np.prod(shape)) else None
