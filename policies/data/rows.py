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

from .claims import EPISODE, FRAME, INDEX, TIME, Claims
from .layout import DatasetError, Entry, Layout
from .row_order import from_zero, order_of
from .tables import file_inside, read_table
from .timestamps import check_times, note_late

COUNTED = 100  # files that the table does not list, whose rows are counted
SHOWN = 4  # notes that one warning spells out


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
        claims = from_zero(Claims.of(table, where), entries, starts, lengths, layout.rate, where, notes)
        order = order_of(claims, entries, starts, lengths, where, notes)
        if order is not None:
            table = table.take(order)
        times = claims.times if order is None or claims.times is None else claims.times[order]
        check_times(times, entries, starts, layout.rate, where, notes)
        note_late(times, entries, starts, layout.rate, where, notes)
        alone = claims.episode is None and claims.index is not None and entries[0].first is None
        begins = int(claims.index[0]) if alone and claims.index is not None and len(claims.index) else None
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
