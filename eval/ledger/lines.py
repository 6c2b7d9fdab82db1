"""The rows of a record while it grows: a line of JSON each, with a checksum, so that a killed writer loses none."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from ...configs.former import current_names
from .table import COLUMNS, REMEDY, RecordError, one_line, table_of

CHECKSUM = "crc32"  # of a line of `episodes.jsonl`, beside its columns


def line_of(row: Mapping) -> str:
    """A row as a line of `episodes.jsonl`, with a checksum of its content."""
    text = json.dumps(row)
    return f'{text[:-1]}, "{CHECKSUM}": {_checksum(row)}}}\n'


def _checksum(row: Mapping) -> int:
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())


def table_of_lines(path: Path):
    """The rows of a run that did not close, as its table."""
    import pyarrow as pa

    rows = read_rows(path)
    try:
        return table_of(rows)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as cause:
        raise RecordError(f"{path} holds a row with a value of another type ({one_line(cause)}). {REMEDY}") from cause


def read_rows(path: Path, key: str = "env_seed", columns: Collection[str] = tuple(COLUMNS)) -> list[dict]:
    """The rows of all whole lines, told apart by the whole number `key`.

    A killed writer may leave half of the last one, without its end, which is dropped without a word; any other damaged
    line is dropped with a warning, and its episode is run again by --resume.
    """
    rows: dict[int, dict] = {}
    places: dict[int, int] = {}
    lines = path.read_bytes().split(b"\n")
    last = max((i for i, line in enumerate(lines) if line.strip(b" \0")), default=-1)
    for i, line in enumerate(lines[: last + 1]):
        row = _row_of(line)
        if row is None:
            if i + 1 < len(lines):  # its end was written
                text = f"{path}, line {i + 1} is damaged and left out: its episode is missing until --resume runs it"
                warnings.warn(text, stacklevel=2)
            continue
        if wrong := sorted(set(columns) - set(row)):
            raise RecordError(f"{path}, line {i + 1}: column '{wrong[0]}' is missing. {REMEDY}")
        if not isinstance(row[key], int):
            raise RecordError(f"{path}, line {i + 1}: {key} is {row[key]!r}. {REMEDY}")
        if (seed := row[key]) in rows:
            raise RecordError(
                f"{path}: {key.replace('_', ' ')} {seed} has two rows, lines {places[seed]} and {i + 1}. {REMEDY}"
            )
        rows[seed], places[seed] = row, i + 1
    return list(rows.values())


def _row_of(line: bytes) -> dict | None:
    """What one line holds, with today's names; None: damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    told = row.pop(CHECKSUM, None)
    if told is not None and told != _checksum(row):
        return None
    return current_names(row)
