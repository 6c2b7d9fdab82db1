"""Parquet columns into contiguous float32 memory, episode after episode, with checks that name the place.

Which rows are whose says `rows.py`. Does not read pictures (see `frames`).
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from ...configs.episode import DONE, REWARD, SUCCESS
from .claims import AGAIN, INDEX, TIME
from .layout import LABELLED, DatasetError, Entry, Layout, read_tasks
from .mapping import MAPPED, example
from .rows import Rows, exchanged, files_of, read_rows, summary, unlisted
from .tables import DatasetWarning, read_table

TASK = "task_index"
LOST = 0.01  # part of a column's range that float32 may round its values by
NOISE = 1e-10  # part of a value: what varies less is the rounding of 64 bits


def load_columns(layout: Layout, names: tuple[str, ...], skip_missing: bool = False) -> dict[str, np.ndarray]:
    """Load numeric columns of all episodes, in the order of `layout.entries`.

    Labels count: see `labels.py`. A column that a file lacks is missing everywhere.

    Returns:
        name -> (N, D) float32, C-contiguous; scalars have D = 1, matrices are flattened.

    Args:
        skip_missing: leave out columns that are missing, and warn of rows that contradict the episodes table.

    Warns:
        DatasetWarning: rows that were put in order or left out, a clock that is not the stated one, lost episodes.

    Raises:
        DatasetError: a missing or damaged file, a missing column (unless `skip_missing`), no numbers, a wrong width,
            rows that are not those which the episodes table promises.
    """
    borders = np.cumsum([0, *(entry.length for entry in layout.entries)])
    starts = {entry.id: start for entry, start in zip(layout.entries, borders[:-1], strict=True)}

    out: dict[str, np.ndarray] = {}
    absent: set[str] = set()
    notes = [*layout.notes, *unlisted(layout)]
    begins: dict[str, tuple[Entry, int]] = {}
    texts = _texts(layout)
    for file, members in files_of(layout).items():
        rows = read_rows(layout, file, members, (*names, TASK) if texts else names, strict=not skip_missing)
        rows = rows.of(starts)
        table, places = rows.table, rows.places
        notes += [*rows.notes, *_other_tasks(rows, texts, file)]
        if rows.begins is not None:
            begins[file] = rows.places[0][0], rows.begins
        entries = [entry for entry, _ in places]

        for name in names:
            if name not in table.column_names:
                if _told_by_labels(name, entries):
                    out.setdefault(name, np.zeros((borders[-1], 1), np.float32))
                    continue
                if not skip_missing:
                    raise _missing(layout, name, file)
                absent.add(name)
                continue

            # rows of the file to rows of the dataset
            values = _numbers(table[name], name, file, layout.features, notes)
            column = out.setdefault(name, np.zeros((borders[-1], values.shape[1]), np.float32))
            for entry, first in places:
                start = starts[entry.id]
                column[start : start + entry.length] = values[first : first + entry.length]

        for entry in entries:
            _label(out, entry, starts[entry.id], table.column_names)

    if (pair := exchanged(begins)) is not None:
        said = f"the rows of {pair[0]} come after those of {pair[1]} by '{INDEX}', their episodes before"
        if not skip_missing:
            raise DatasetError(f"{said}: have the files changed places? {AGAIN}")
        notes.append(said)
    if notes:
        warnings.warn(summary(list(dict.fromkeys(notes))), DatasetWarning, stacklevel=3)
    return {name: values for name, values in out.items() if name not in absent}


def _told_by_labels(name: str, entries: list[Entry]) -> bool:
    return name in LABELLED and all(entry.success is not None for entry in entries)


def _label(columns: dict[str, np.ndarray], entry: Entry, start: int, recorded: list[str]) -> None:
    """Put what a label says into an episode's rows; of what was recorded only the success gives way."""
    if entry.success is None:
        return
    for name, value in ((SUCCESS, entry.success), (DONE, True), (REWARD, entry.success)):
        if name in columns and (name == SUCCESS or name not in recorded):
            columns[name][start : start + entry.length] = 0
            columns[name][start + entry.length - 1] = value


def _texts(layout: Layout) -> dict[int, str]:
    """task_index -> text, of a dataset with several tasks whose episodes name them; else empty."""
    several = len({entry.tasks for entry in layout.entries}) > 1
    return read_tasks(layout.root) if several and all(entry.tasks for entry in layout.entries) else {}


def _other_tasks(rows: Rows, texts: dict[int, str], file: str) -> list[str]:
    """Where the first row of an episode names a task that the episodes table does not give it."""
    if not texts or TASK not in rows.table.column_names:
        return []
    numbers = rows.table[TASK].to_pylist()
    for entry, first in rows.places:
        text = texts.get(numbers[first])
        if text is not None and text not in entry.tasks:
            said = f"episode {entry.id} in {file} has the task '{text}' by its rows ({TASK} {numbers[first]})"
            return [f"{said}, '{'; '.join(entry.tasks)}' by the episodes table, which is believed"]
    return []


def with_tasks(layout: Layout) -> Layout:
    """The layout with the tasks of episodes whose row of the episodes table names none, by the column `task_index`.

    Rows without tasks are what lerobot's conversion of image columns to videos writes.
    """
    unnamed = [entry for entry in layout.entries if not entry.tasks]
    texts = read_tasks(layout.root) if unnamed else {}
    if not texts:
        return layout

    tasks: dict[int, tuple[str, ...]] = {}
    ours = {entry.file for entry in unnamed}
    for file, members in files_of(layout).items():
        if file not in ours:
            continue
        rows = read_rows(layout, file, members, ["task_index"], strict=False)
        if "task_index" not in rows.table.column_names:
            continue
        indices = rows.table["task_index"].to_numpy()
        for entry, first in rows.places:
            numbers = dict.fromkeys(indices[first : first + entry.length].tolist())
            tasks[entry.id] = tuple(texts[number] for number in numbers if number in texts)

    entries = (dataclasses.replace(one, tasks=one.tasks or tasks.get(one.id, ())) for one in layout.entries)
    return dataclasses.replace(layout, entries=tuple(entries))


def check_finite(layout: Layout, columns: dict[str, np.ndarray], names: dict[str, tuple[str, ...]]) -> None:
    """Refuse NaN and infinities, by episode, frame and dimension. `names` are the dimensions' names, by column."""
    starts = np.cumsum([0, *(entry.length for entry in layout.entries)])
    for key, values in columns.items():
        bad = np.argwhere(~np.isfinite(values))
        if not len(bad):
            continue
        row, dim = bad[0]
        position = int(np.searchsorted(starts, row, "right")) - 1
        label = names[key][dim] if dim < len(names.get(key, ())) else str(dim)
        raise DatasetError(
            f"'{key}' is {values[row, dim]} in episode {layout.entries[position].id}, frame {row - starts[position]},"
            f" dimension {dim} ('{label}'), and in {len(bad) - 1} more places;"
            f" `understudy inspect {layout.root}` shows them. Repair the values or leave the episode out:"
            f" --without {layout.entries[position].id}"
        )


def _missing(layout: Layout, name: str, file: str) -> DatasetError:
    known = [key for key in layout.vectors if key in read_table(layout.root / file).column_names]
    hint = f"; read others in its place: --columns '{example(name, known)}'" if known and name in MAPPED else ""
    return DatasetError(
        f"column '{name}' is not in {layout.root / file}; available: {', '.join(known) or 'none'}{hint}"
    )


def _numbers(column, name: str, file: str, features: dict, notes: list[str]) -> np.ndarray:
    """(rows, D) float32 of an Arrow column of numbers or of lists of equal length; what is lost goes to the notes."""
    import pyarrow as pa

    if column.null_count and pa.types.is_nested(column.type):
        row = next(row for row, cell in enumerate(column) if not cell.is_valid)
        raise DatasetError(
            f"column '{name}' in {file} has {column.null_count} empty cells, the first in row {row}; fill them, or"
            " leave their episodes out: --without"
        )
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    rows = len(array)
    while isinstance(array, pa.ExtensionArray) or pa.types.is_nested(array.type):
        if pa.types.is_struct(array.type) or pa.types.is_map(array.type):
            break
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DatasetError(f"column '{name}' in {file} has dtype {column.type}, numbers are needed; convert the column")
    width = int(np.prod(features.get(name, {}).get("shape") or (1,)))
    if (short := _uneven(column, width)) is not None:
        raise DatasetError(
            f"column '{name}' in {file} holds {short[1]} numbers in row {short[0]} and {width} in others; write the"
            " file again, or leave that episode out: --without"
        )
    if len(array) != rows * width:
        raise DatasetError(
            f"column '{name}' in {file} holds {len(array)} numbers in {rows} rows, meta/info.json promises {width} a"
            " row; correct its shape in meta/info.json or write the file again"
        )
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    values = array.to_numpy(zero_copy_only=False).reshape(rows, width)
    if name != TIME:
        notes += rounded(values, name, file)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def rounded(values: np.ndarray, name: str, file: str) -> list[str]:
    """What float32 cannot hold of values (rows, D): great ones, and small changes of great ones; one sentence."""
    wide = values.dtype.itemsize > (4 if values.dtype.kind == "f" else 2)
    if not wide or not len(values):
        return []
    low, high = (np.asarray(edge, np.float64) for edge in (values.min(0), values.max(0)))
    size, most = np.maximum(np.abs(low), np.abs(high)), float(np.finfo(np.float32).max)
    if (great := np.isfinite(size) & (size > most)).any():
        return [f"'{name}' of {file} holds {size[great][0]:.4g}, which is more than float32 holds"]
    grain, span = np.spacing(size.astype(np.float32)).astype(np.float64), high - low
    lost = np.flatnonzero((grain > LOST * span) & (span > NOISE * size))
    if not lost.size:
        return []
    dim = int(lost[0])
    return [
        f"'{name}' of {file}, dimension {dim}, varies by {span[dim]:.3g} around {size[dim]:.6g} and is read in"
        f" steps of {grain[dim]:.2g} (float32): take an offset off and write it again"
    ]


def _uneven(column, width: int) -> tuple[int, int] | None:
    """(row, numbers) of the first row that holds more or fewer than others; fixed-size lists and scalars never do."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return None
    counts = pc.list_value_length(column)
    extremes = pc.min_max(counts)
    if extremes["min"] == extremes["max"]:
        return None
    counts = counts.to_numpy()
    row = int(np.flatnonzero(counts != (width if (counts == width).any() else counts[0]))[0])
    return row, int(counts[row])
