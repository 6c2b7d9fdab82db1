"""In which order the rows of a data file are read, and whether they are those that the episodes table promises.

Where rows and table agree, rows are taken as they lie; where `episode_index` and `frame_index` are complete, in their
order, with a note. Rows in order are those of episode after episode: `starts` and `lengths` say where each lies.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .claims import AGAIN, EPISODE, FRAME, INDEX, Claims
from .layout import DatasetError, Entry


def order_of(
    claims: Claims, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, file: str, notes: list[str]
) -> np.ndarray | None:
    """Rows of the file, episode after episode in time; None where they lie so. Raises DatasetError."""
    if claims.episode is not None:
        return _by_episode(claims, entries, starts, lengths, file, notes)
    return _by_index(claims, entries, starts, lengths, file, notes)


def _by_episode(
    claims: Claims, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, file: str, notes: list[str]
) -> np.ndarray | None:
    """Order by `episode_index`, and by `frame_index` or else `index` within an episode."""
    assert claims.episode is not None
    rows = claims.rows
    ids = np.array([entry.recorded_id for entry in entries], np.int64)
    if lengths.sum() == rows and _stays(claims.episode, starts, ids):
        if claims.frame is None and (claims.index is None or _rises(claims.index, starts)):
            return None
        if claims.frame is not None and _counts(claims.frame, starts, lengths):
            _check_index(claims, entries, starts, file, notes)
            return None

    # which rows are whose
    sort = np.argsort(ids)
    place = np.searchsorted(ids[sort], claims.episode).clip(max=len(ids) - 1)
    listed = np.flatnonzero(ids[sort][place] == claims.episode)
    owner = sort[place[listed]]
    counts = np.bincount(owner, minlength=len(ids))
    if (wrong := np.flatnonzero(counts != lengths)).size:
        raise _miscounted(claims.episode, entries[wrong[0]], int(counts[wrong[0]]), ids, file)

    # in which order
    time = claims.frame if claims.frame is not None else claims.index if claims.index is not None else np.arange(rows)
    order = listed[np.lexsort((time[listed], owner))]
    if claims.frame is not None:
        _check_frames(claims.frame[order], _frames(starts, lengths), entries, starts, file)
    elif claims.index is not None and not _rises(claims.index[order], starts):
        raise DatasetError(f"the column '{INDEX}' of {file} gives one number to two rows of an episode; {AGAIN}")
    by = f"{EPISODE} and {FRAME if claims.frame is not None else INDEX}"
    return _noted(order, rows, entries, starts, file, by, notes)


def _by_index(
    claims: Claims, entries: list[Entry], starts: np.ndarray, lengths: np.ndarray, file: str, notes: list[str]
) -> np.ndarray | None:
    """Order by `index`, of which the table says the first of each episode, checked by `frame_index`."""
    rows = claims.rows
    firsts = [entry.first for entry in entries]
    known = np.array([0 if first is None else first for first in firsts], np.int64)
    filled = lengths.sum() == rows
    fits = filled and (claims.frame is None or _counts(claims.frame, starts, lengths))
    rises = filled and (claims.index is None or _rises(claims.index, starts))
    if fits and rises and (claims.index is None or None in firsts or np.ptp(claims.index[starts] - known) == 0):
        return None

    order, frames = None, _frames(starts, lengths)
    if claims.index is not None and None not in firsts:
        order = _found(claims.index, np.repeat(known, lengths) + frames)
    elif claims.index is not None and filled and len(entries) == 1 and len(np.unique(claims.index)) == rows:
        order = np.argsort(claims.index)
    elif claims.index is None and filled and len(entries) == 1 and claims.frame is not None:
        order = np.argsort(claims.frame, kind="stable")
    if order is not None:
        if claims.frame is not None:
            _check_frames(claims.frame[order], frames, entries, starts, file)
        return _noted(order, rows, entries, starts, file, INDEX if claims.index is not None else FRAME, notes)

    if fits and rises and claims.frame is not None:
        notes.append(f"the column '{INDEX}' of {file} does not begin where the episodes table says; read by {FRAME}")
        return None
    if filled and claims.frame is not None:
        _check_frames(claims.frame, frames, entries, starts, file)
    entry = _first_unfound(claims.index, entries, known, None in firsts)
    raise DatasetError(
        f"the episodes table gives episode {entry.id} {entry.length} frames in {file}, which has {rows} rows"
        f" that do not fit; {AGAIN}"
    )


def from_zero(
    claims: Claims,
    entries: list[Entry],
    starts: np.ndarray,
    lengths: np.ndarray,
    rate: float,
    file: str,
    notes: list[str],
) -> Claims:
    """The same with a `frame_index` that begins at 0 in each episode, where it is complete but begins elsewhere.

    An episode with films must say by its timestamps that its first row is the first of its clip.
    """
    if claims.frame is None or lengths.sum() != claims.rows or not claims.frame[starts].any():
        return claims
    frame = claims.frame - np.repeat(claims.frame[starts], lengths)
    late = claims.times is None or bool((np.abs(claims.times[starts]) * rate > 0.5).any())
    if not _counts(frame, starts, lengths) or (late and any(entry.clips for entry in entries)):
        return claims
    place = int(np.flatnonzero(claims.frame[starts])[0])
    notes.append(
        f"'{FRAME}' of {file} begins at {claims.frame[starts[place]]} in episode {entries[place].id}, not at 0:"
        " read in its order; rows before may have been left out"
    )
    return dataclasses.replace(claims, frame=frame)


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
        entry, at = place_of(int(off[0]), entries, starts)
        raise DatasetError(
            f"episode {entry.id} in {file} has {FRAME} {frame[off[0]]} where {at} is due: of its {entry.length} rows"
            f" some are lost, stand twice, or are counted otherwise; {AGAIN}"
        )


def _check_index(claims: Claims, entries: list[Entry], starts: np.ndarray, file: str, notes: list[str]) -> None:
    """`index` may begin anywhere but must not contradict `frame_index`, unless timestamps settle it (judged later)."""
    if claims.index is None:
        return
    if _rises(claims.index, starts):
        _note_jumps(claims.index, entries, starts, file, notes)
        return
    later = claims.index[1:] > claims.index[:-1]
    later[starts[1:] - 1] = True
    entry, at = place_of(int(np.flatnonzero(~later)[0]), entries, starts)
    said = f"'{FRAME}' and '{INDEX}' of {file} contradict each other in episode {entry.id} from frame {at} on"
    if claims.times is None or not _rises(claims.times, starts):
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


def place_of(row: int, entries: list[Entry], starts: np.ndarray) -> tuple[Entry, int]:
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
        entry, _ = place_of(int(np.flatnonzero(~later)[0]) + 1, entries, starts)
        notes.append(
            f"the rows of {file} do not lie as the episodes table says (first seen at episode {entry.id});"
            f" they are put in order by {by}"
        )
    return None if rows == len(order) and later.all() else order
