"""Which rows of a data file are whose: what the episodes table promises, compared with what the rows say themselves.

Rows say it by `episode_index`, `frame_index`, `index` and `timestamp`, whichever of these a file has. Where they agree
with the table they are taken as they lie. Where they do not, but `episode_index` and `frame_index` are complete, rows
are read by these and put in order, and a note says so; what cannot be settled is refused by file and episode.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from .layout import DatasetError, Entry, Layout
from .tables import file_inside, read_table

EPISODE, FRAME, INDEX, TIME = "episode_index", "frame_index", "index", "timestamp"
SLOW = 0.05  # part by which a clock may differ from the rate that is stated
COUNTED = 100  # files that the table does not list, whose rows are counted
CLOCK = 1e6  # s; timestamps beyond are those of a clock, not of a film
SHOWN = 4  # notes that one warning spells out
AGAIN = "copy the data file and meta/ again, from the same dataset, or leave these episodes out of meta/"


@dataclass(frozen=True)
class Rows:
    """A data file whose rows of one episode lie together, in the order of time."""

    table: object  # pyarrow.Table
    places: tuple[tuple[Entry, int], ...]  # episode, its first row in the table
    notes: tuple[str, ...]  # what was odd, as sentences
    begins: int | None = None  # `index` of its first row where nothing else says whose the file is

    def of(self, ids: Container[int]) -> Rows:
        """The rows of these episodes alone, so that what is odd in others is not met."""
        kept = [(entry, first) for entry, first in self.places if entry.id in ids]
        if len(kept) == len(self.places):
            return self
        import pyarrow as pa

        table = pa.concat_tables([self.table.slice(first, entry.length) for entry, first in kept])  # type: ignore[attr-defined]
        ends = accumulate((entry.length for entry, _ in kept), initial=0)
        places = tuple((entry, end) for (entry, _), end in zip(kept, ends, strict=False))
        return dataclasses.replace(self, table=table, places=places)


def files_of(layout: Layout) -> dict[str, list[Entry]]:
    """Data file -> all episodes that the table gives it, for each file that holds an episode of `layout.entries`."""
    wanted = {entry.file for entry in layout.entries}
    files: dict[str, list[Entry]] = {file: [] for file in sorted(wanted)}
    for entry in (*layout.entries, *layout.others):
        if entry.file in files:
            files[entry.file].append(entry)
    return files


def read_rows(layout: Layout, file: str, entries: list[Entry], names: Iterable[str], strict: bool = True) -> Rows:
    """Columns `names` of a data file, where it has them, with the place of each episode.

    Args:
        entries: all episodes that the table gives the file.
        strict: refuse what contradicts the table. False: note it, and take rows as they lie where they can be counted.

    Raises:
        DatasetError: a missing or damaged file, or rows that are not those which the table promises.
    """
    table = read_table(file_inside(layout.root, file), [*dict.fromkeys((*names, EPISODE, FRAME, INDEX, TIME))])
    entries = sorted(entries, key=lambda entry: (entry.first or 0, entry.id))
    lengths = np.array([entry.length for entry in entries], np.int64)
    starts = np.cumsum(lengths) - lengths
    notes: list[str] = []
    where = str(layout.root / file)

    try:
        told = _from_zero(_Told.of(table, where), entries, starts, lengths, layout.rate, where, notes)
        order = _order(told, entries, starts, lengths, where, notes)
        if order is not None:
            table = table.take(order)
        times = told.times if order is None or told.times is None else told.times[order]
        _check_times(times, entries, starts, layout.rate, where, notes)
        _note_late(times, entries, starts, layout.rate, where, notes)
        alone = told.episode is None and told.index is not None and entries[0].first is None
        begins = int(told.index[0]) if alone and told.index is not None and len(told.index) else None
    except DatasetError as error:
        if strict or lengths.sum() != table.num_rows:
            raise
        notes.append(str(error))
        begins = None
    return Rows(table, tuple(zip(entries, starts.tolist(), strict=True)), tuple(notes), begins)


def exchanged(begins: dict[str, tuple[Entry, int]]) -> tuple[str, str] | None:
    """Two files of one episode each whose rows, by `index`, stand in the other order; None where none do.

    Args:
        begins: file -> its episode and the `index` of its first row, of files that say no `episode_index`.
    """
    files = sorted(begins, key=lambda file: begins[file][0].id)
    first = [begins[file][1] for file in files]
    if len(set(first)) < len(first):
        return None  # counted anew in each file
    return next(((a, b) for a, b, i, j in zip(files, files[1:], first, first[1:], strict=False) if i > j), None)


def unlisted(layout: Layout) -> list[str]:
    """A note on data files of which the episodes table knows nothing; empty where there are none."""
    import pyarrow
    import pyarrow.parquet

    listed = {entry.file for entry in (*layout.entries, *layout.others)}
    folders = {file.split("/")[0] for file in listed if "/" in file and not file.startswith("/")}
    found = [path for folder in folders for path in (layout.root / folder).rglob("*.parquet") if path.name[0] != "."]
    if len(found) <= len(listed):
        return []
    extra = sorted(path for path in found if path.relative_to(layout.root).as_posix() not in listed)
    if not extra:
        return []
    rows = 0
    for path in extra[:COUNTED]:
        with contextlib.suppress(pyarrow.ArrowException, OSError, ValueError):
            rows += pyarrow.parquet.read_metadata(path).num_rows
    known = sum(entry.length for entry in (*layout.entries, *layout.others))
    more = "" if len(extra) <= COUNTED else " or more"
    return [
        f"the episodes table lists {known} rows in {len(listed)} files; {rows}{more} more lie in {len(extra)} files"
        f" that it does not list, such as {extra[0]}: they are left out; copy meta/ again if they belong to it"
    ]


def summary(notes: list[str]) -> str:
    """Notes on a dataset as the text of one warning."""
    more = f"; and {len(notes) - SHOWN} more of the kind" if len(notes) > SHOWN else ""
    return "; ".join(notes[:SHOWN]) + more


@dataclass(frozen=True)
class _Told:
    """What the rows of a file say of themselves, (rows,) each; None where the column is missing or empty."""

    episode: np.ndarray | None
    frame: np.ndarray | None
    index: np.ndarray | None
    times: np.ndarray | None  # s
    rows: int

    @classmethod
    def of(cls, table, file: str) -> _Told:
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


def _order(
    told: _Told, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, file: str, notes: list[str]
) -> np.ndarray | None:
    """Rows of the file, episode after episode in time; None where they lie so. Raises DatasetError."""
    if told.episode is not None:
        return _by_episode(told, entries, starts, lengths, file, notes)
    return _by_index(told, entries, starts, lengths, file, notes)


def _by_episode(
    told: _Told, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, file: str, notes: list[str]
) -> np.ndarray | None:
    """Order by `episode_index`, and by `frame_index` or else `index` within an episode."""
    assert told.episode is not None
    rows = told.rows
    ids = np.array([entry.recorded_id for entry in entries], np.int64)
    if lengths.sum() == rows and _stays(told.episode, starts, ids):
        if told.frame is None and (told.index is None or _rises(told.index, starts)):
            return None
        if told.frame is not None and _counts(told.frame, starts, lengths):
            _check_index(told, entries, starts, file, notes)
            return None

    # which rows are whose
    sort = np.argsort(ids)
    place = np.searchsorted(ids[sort], told.episode).clip(max=len(ids) - 1)
    listed = np.flatnonzero(ids[sort][place] == told.episode)
    owner = sort[place[listed]]
    counts = np.bincount(owner, minlength=len(ids))
    if (wrong := np.flatnonzero(counts != lengths)).size:
        raise _miscounted(told.episode, entries[wrong[0]], int(counts[wrong[0]]), ids, file)

    # in which order
    time = told.frame if told.frame is not None else told.index if told.index is not None else np.arange(rows)
    order = listed[np.lexsort((time[listed], owner))]
    if told.frame is not None:
        _check_frames(told.frame[order], _frames(starts, lengths), entries, starts, file)
    elif told.index is not None and not _rises(told.index[order], starts):
        raise DatasetError(f"the column '{INDEX}' of {file} gives one number to two rows of an episode; {AGAIN}")
    by = f"{EPISODE} and {FRAME if told.frame is not None else INDEX}"
    return _noted(order, rows, entries, starts, file, by, notes)


def _by_index(
    told: _Told, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, file: str, notes: list[str]
) -> np.ndarray | None:
    """Order by `index`, of which the table says the first of each episode, checked by `frame_index`."""
    rows = told.rows
    firsts = [entry.first for entry in entries]
    known = np.array([0 if first is None else first for first in firsts], np.int64)
    filled = lengths.sum() == rows
    fits = filled and (told.frame is None or _counts(told.frame, starts, lengths))
    rises = filled and (told.index is None or _rises(told.index, starts))
    if fits and rises and (told.index is None or None in firsts or np.ptp(told.index[starts] - known) == 0):
        return None

    order, frames = None, _frames(starts, lengths)
    if told.index is not None and None not in firsts:
        order = _found(told.index, np.repeat(known, lengths) + frames)
    elif told.index is not None and filled and len(entries) == 1 and len(np.unique(told.index)) == rows:
        order = np.argsort(told.index)
    elif told.index is None and filled and len(entries) == 1 and told.frame is not None:
        order = np.argsort(told.frame, kind="stable")
    if order is not None:
        if told.frame is not None:
            _check_frames(told.frame[order], frames, entries, starts, file)
        return _noted(order, rows, entries, starts, file, INDEX if told.index is not None else FRAME, notes)

    if fits and rises and told.frame is not None:
        notes.append(f"the column '{INDEX}' of {file} does not begin where the episodes table says; read by {FRAME}")
        return None
    if filled and told.frame is not None:
        _check_frames(told.frame, frames, entries, starts, file)
    entry = _first_unfound(told.index, entries, known, None in firsts)
    raise DatasetError(
        f"the episodes table gives episode {entry.id} {entry.length} frames in {file}, which has {rows} rows"
        f" that do not fit; {AGAIN}"
    )


def _from_zero(
    told: _Told, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, rate: float, file: str, notes: list[str]
) -> _Told:
    """The same with a `frame_index` that begins at 0 in each episode, where it is complete but begins elsewhere.

    An episode with films must say by its timestamps that its first row is the first of its clip.
    """
    if told.frame is None or lengths.sum() != told.rows or not told.frame[starts].any():
        return told
    frame = told.frame - np.repeat(told.frame[starts], lengths)
    late = told.times is None or bool((np.abs(told.times[starts]) * rate > 0.5).any())
    if not _counts(frame, starts, lengths) or (late and any(entry.clips for entry in entries)):
        return told
    place = int(np.flatnonzero(told.frame[starts])[0])
    notes.append(
        f"'{FRAME}' of {file} begins at {told.frame[starts[place]]} in episode {entries[place].id}, not at 0:"
        " read in its order; rows before may have been left out"
    )
    return dataclasses.replace(told, frame=frame)


def _note_late(
    times: np.ndarray | None, entries: list[Entry], starts: np.ndarray, rate: float, file: str, notes: list[str]
) -> None:
    """Note episodes with films whose first timestamp is not 0, and no time of a clock either."""
    if times is None or not any(entry.clips for entry in entries):
        return
    first = times[starts].astype(np.float64)
    late = np.flatnonzero((np.abs(first) * rate > 0.5) & (np.abs(first) < CLOCK))
    if late.size:
        entry, begin = entries[late[0]], first[late[0]]
        notes.append(
            f"the timestamps of {file} begin at {begin:.4g} s in episode {entry.id}, not at 0; its first row gets the"
            f" first frame of its clip: if rows were cut off and the film was not, {abs(begin) * rate:.0f} frames"
            " beside the right one"
        )


def _frames(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for each episode."""
    frames = np.arange(lengths.sum())
    frames -= np.repeat(starts, lengths)
    return frames


def _stays(values: np.ndarray, starts: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether every episode holds its number and no other."""
    same = values[1:] == values[:-1]
    same[starts[1:] - 1] = True
    return bool(same.all()) and np.array_equal(values[starts], wanted)


def _counts(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> bool:
    """Whether every episode counts 0, 1, 2, ...: whole numbers that rise from 0 to one less than its length."""
    ends = starts + lengths - 1
    return not values[starts].any() and np.array_equal(values[ends], lengths - 1) and _rises(values, starts)


def _rises(values: np.ndarray, starts: np.ndarray) -> bool:
    """Whether values increase within every episode."""
    later = values[1:] > values[:-1]
    later[starts[1:] - 1] = True
    return bool(later.all())


def _found(index: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Row of each wanted number; None unless each stands there once."""
    if not len(index):
        return None
    sort = np.argsort(index, kind="stable")
    left, right = (np.searchsorted(index[sort], wanted, side) for side in ("left", "right"))
    return sort[left] if (right - left == 1).all() else None


def _first_unfound(index: np.ndarray | None, entries: list[Entry], firsts: np.ndarray, unknown: bool) -> Entry:
    """The episode that a message names."""
    if index is None or unknown:
        return entries[-1]
    for entry, first in zip(entries, firsts.tolist(), strict=True):
        if ((index >= first) & (index < first + entry.length)).sum() != entry.length:
            return entry
    return entries[0]


def _check_frames(frame: np.ndarray, frames: np.ndarray, entries: list[Entry], starts: np.ndarray, file: str) -> None:
    """Raise DatasetError unless each episode counts 0, 1, 2, ..."""
    off = np.flatnonzero(frame != frames)
    if off.size:
        entry, at = _at(int(off[0]), entries, starts)
        raise DatasetError(
            f"episode {entry.id} in {file} has {FRAME} {frame[off[0]]} where {at} is due: of its {entry.length} rows"
            f" some are lost, stand twice, or are counted otherwise; {AGAIN}"
        )


def _check_index(told: _Told, entries: list[Entry], starts: np.ndarray, file: str, notes: list[str]) -> None:
    """`index` may begin anywhere but must not contradict `frame_index`, unless timestamps settle it (judged later)."""
    if told.index is None:
        return
    if _rises(told.index, starts):
        _note_jumps(told.index, entries, starts, file, notes)
        return
    later = told.index[1:] > told.index[:-1]
    later[starts[1:] - 1] = True
    entry, at = _at(int(np.flatnonzero(~later)[0]), entries, starts)
    said = f"'{FRAME}' and '{INDEX}' of {file} contradict each other in episode {entry.id} from frame {at} on"
    if told.times is None or not _rises(told.times, starts):
        raise DatasetError(f"{said}; {AGAIN}, or leave out the wrong one of the two columns")
    notes.append(f"{said}; read by {FRAME}, as the timestamps say too")


def _note_jumps(index: np.ndarray, entries: list[Entry], starts: np.ndarray, file: str, notes: list[str]) -> None:
    """Note episodes in which `index` leaves numbers out: the rows that had them are not there."""
    ends = np.append(starts[1:], len(index)) - 1
    gone = index[ends] - index[starts] - (ends - starts)
    if gone.any():
        place = int(np.flatnonzero(gone)[0])
        notes.append(
            f"'{INDEX}' of {file} leaves out {gone[place]} numbers within episode {entries[place].id}, which"
            f" '{FRAME}' counts on: {gone.sum()} rows of {(gone > 0).sum()} episodes may be lost"
        )


def _at(row: int, entries: list[Entry], starts: np.ndarray) -> tuple[Entry, int]:
    """Episode and frame of a row that is in order."""
    position = int(np.searchsorted(starts, row, "right")) - 1
    return entries[position], row - int(starts[position])


def _miscounted(episode: np.ndarray, entry: Entry, count: int, ids: np.ndarray, file: str) -> DatasetError:
    others = np.setdiff1d(episode, ids)
    also = f"; {_few(others)} are in the file, which the table does not give it" if others.size else ""
    return DatasetError(
        f"episode {entry.id} has {count} rows in {file} ('{EPISODE}' is {entry.recorded_id}), the episodes table says"
        f" {entry.length}{also}; {AGAIN}"
    )


def _few(ids: np.ndarray) -> str:
    return f"rows of episode {', '.join(map(str, ids[:4].tolist()))}{', ...' if len(ids) > 4 else ''}"


def _noted(
    order: np.ndarray, rows: int, entries: list[Entry], starts: np.ndarray, file: str, by: str, notes: list[str]
) -> np.ndarray | None:
    """The order, None where it changes nothing; what is odd about it goes to the notes."""
    if rows > len(order):
        notes.append(
            f"{file} has {rows} rows, the episodes table lists {len(order)} of them;"
            f" the other {rows - len(order)} are left out"
        )
    later = order[1:] > order[:-1]
    if not later.all():
        entry, _ = _at(int(np.flatnonzero(~later)[0]) + 1, entries, starts)
        notes.append(
            f"the rows of {file} do not lie as the episodes table says (first seen at episode {entry.id});"
            f" they are put in order by {by}"
        )
    return None if rows == len(order) and later.all() else order


def _check_times(
    times: np.ndarray | None, entries: list[Entry], starts: np.ndarray, rate: float, file: str, notes: list[str]
) -> None:
    """Timestamps go on, and at the stated rate. Raises DatasetError where they go back."""
    if times is None or len(times) < 2:
        return
    step = 1 / rate
    steps = np.diff(times).astype(np.float64, copy=False)
    steps[starts[1:] - 1] = step
    ends = np.append(starts[1:], len(times)) - 1
    edges = times[np.concatenate([starts, ends])]
    grain = float(np.spacing(np.abs(edges).max())) if times.dtype.kind == "f" else 0.0

    # what cannot be judged
    low, high = float(steps.min()), float(steps.max())
    counts = ends - starts
    spans = times[ends].astype(np.float64) - times[starts].astype(np.float64)
    if not np.isfinite([low, high]).all():
        notes.append(f"the timestamps of {file} hold NaN or infinite values")
        return
    if not spans.any() and low >= 0 and counts.any() and grain < step / 4:
        notes.append(f"the timestamps of {file} never change within an episode")
        return

    # back, or not on
    if low < -max(step / 2, 2 * grain):
        row = int(steps.argmin())
        entry, at = _at(row, entries, starts)
        raise DatasetError(
            f"the timestamps of episode {entry.id} in {file} go back from {times[row]} s at frame {at} to"
            f" {times[row + 1]} s: its rows are not in the order of time, or are of two recordings; {AGAIN}"
        )
    if grain > step / 4:
        notes.append(
            f"the timestamps of {file} are kept as {times.dtype} around {float(np.abs(edges).max()):.6g} s, in steps of"
            f" {grain:.2g} s, too coarse for {rate:g} frames a second"
        )
        return
    if low <= 0:
        entry, at = _at(int(steps.argmin()), entries, starts)
        notes.append(
            f"in {file} time does not go on at {int((steps <= 0).sum())} frames (episode {entry.id}, frame {at + 1})"
        )

    # at which rate, single long steps apart
    long = np.flatnonzero(steps > 1.5 * step + 2 * grain) if high > 1.5 * step + 2 * grain else np.empty(0, np.int64)
    if 0 < len(long) <= max(1, len(steps) // 10):
        entry, at = _at(int(long[0]), entries, starts)
        notes.append(
            f"in {file} {steps[long[0]]:.3g} s pass from frame {at} to {at + 1} of episode {entry.id}, {step:.3g} s are"
            f" due, and {len(long) - 1} times more: frames may be missing"
        )
        np.subtract.at(spans, np.searchsorted(starts, long, "right") - 1, steps[long] - step)
    off = np.abs(spans * rate - counts) > np.maximum(SLOW * counts, 1)
    if off.any() or abs(spans.sum() * rate - counts.sum()) > SLOW * counts.sum():
        wrong = off if off.any() else np.ones(len(off), bool)
        found = counts[wrong].sum() / spans[wrong].sum() if spans[wrong].sum() > 0 else 0.0
        notes.append(
            f"the timestamps of {file} tell of {found:.4g} frames a second (episode {entries[int(wrong.argmax())].id}),"
            f" meta/info.json says fps {rate:g}: correct the one that is wrong"
        )
