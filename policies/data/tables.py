"""Files of a dataset's `meta/` and its tables, read without being believed: what comes out is what it is due to be.

JSON, lines of JSON and Parquet, cells of a table as whole numbers, seconds or texts, and paths that stay inside the
dataset's folder. What is damaged or something else is refused by file and place. Nothing here knows the format.
"""

from __future__ import annotations

import json
import math
import os
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from ...configs.pointers import is_pointer, why_unread

SMALL = 2**16  # rows of a file
MOST = 2**53  # above, no count is plausible


class DatasetError(ValueError):
    """A dataset that cannot be used as asked; the message says where and what to do."""


class DatasetWarning(UserWarning):
    """Something of a dataset was left out."""


def read_json(path: Path, todo: str) -> Any:
    """What a JSON file holds. Raises DatasetError naming it and what to do."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        refuse_pointer(path)
        raise DatasetError(f"{path} is damaged ({error}); {todo}") from error


def json_lines(path: Path) -> list[dict]:
    """The rows of a file with one JSON table a line. Raises DatasetError naming the line."""
    refuse_pointer(path)
    rows = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error}); copy it again") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} is damaged in line {number} ({error}); copy it again") from error
        if row is not None:
            if not isinstance(row, dict):
                raise DatasetError(f"{path} is damaged: line {number} is no table of names and values; copy it again")
            rows.append(row)
    return rows


def refuse_pointer(path: Path) -> None:
    """Raise DatasetError if git-lfs left a note in place of a file."""
    if is_pointer(path):
        raise DatasetError(f"{path} cannot be read: {why_unread(path, '')}")


def read_table(path: Path, columns: list[str] | None = None):
    """A parquet file as a pyarrow table. Raises DatasetError naming a missing or damaged file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            have = file.schema_arrow.names
            wanted = have if columns is None else [name for name in columns if name in have]
            many = file.metadata.num_rows > SMALL  # below, threads cost more than they save
            table = file.read(None if columns is None else wanted, use_threads=many)
    except FileNotFoundError as error:
        raise DatasetError(f"the file {path} is missing; copy it again or remove its episodes from meta/") from error
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        refuse_pointer(path)
        raise DatasetError(
            f"the file {path} is damaged or cut short ({error}); copy it again or remove its episodes from meta/"
        ) from error
    twice = next((name for name in wanted if have.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"the file {path} has two columns '{twice}'; remove one of them")
    return table


def file_inside(root: Path, relative: str) -> Path:
    """A file that a dataset names, which must not leave the dataset's folder, also not by a link.

    Links into the blobs of a hub cache are what such a cache consists of. Absolute paths are those of datasets that
    were joined, which were looked at before.

    Raises:
        DatasetError: the path leads out of the folder.
    """
    path = root / relative
    if os.path.isabs(relative):
        return path
    refuse_leaving(relative, str(root))
    if not any(map(os.path.islink, accumulate(relative.split("/"), os.path.join, initial=str(root)))):
        return path  # as nearly always; resolving costs more
    target, home = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if not target.is_relative_to(home) and not _is_blob(target):
        raise DatasetError(
            f"{path} is a link that leaves the dataset's folder, to {target}; put the file itself there instead"
        )
    return path


def refuse_leaving(relative: str, where: str) -> None:
    """Raise DatasetError for a path that is absolute or climbs out of its folder; links are not looked at."""
    parts = re.split(r"[/\\]", relative)
    if not relative or relative[0] in "/\\" or ".." in parts or "\0" in relative or re.match(r"[A-Za-z]:", relative):
        raise DatasetError(
            f"{where} names the file {relative!r}, which is not inside the dataset's folder; write a path below it"
        )


def _is_blob(path: Path) -> bool:
    """Whether a file lies among the contents of a hub cache: datasets--OWNER--NAME/blobs/HASH."""
    repository, folder, name = path.parts[-3:] if len(path.parts) > 3 else ("", "", "")
    known = re.match(r"(datasets|models|spaces)--", repository) and folder == "blobs"
    return bool(known and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name))


def table_rows(path: Path, columns: list[str] | None = None) -> list[dict]:
    try:
        return read_table(path, columns).to_pylist()
    except (ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"the file {path} is damaged ({error}); copy it again") from error


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether a value is a whole number from 0 on, also one that went through floats."""
    return is_number(value) and 0 <= value < MOST and value == int(value)  # type: ignore[operator, call-overload]


def is_absent(value: object) -> bool:
    """Whether a cell says "not there": nothing, or the NaN that pandas makes of nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Cells:
    """One row of an episodes table, whose cells are believed only as what they are due to be."""

    __slots__ = ("cells", "file")

    def __init__(self, cells: dict, file: Path):
        self.cells, self.file = cells, file

    def whole(self, key: str) -> int:
        """A whole number from 0 on. Raises KeyError: no such column; DatasetError: another value."""
        value = self.cells[key]
        if type(value) is int and 0 <= value < MOST:
            return value
        if not is_whole(value):
            raise self._odd(key, "a whole number from 0 on")
        return int(value)

    def maybe(self, key: str) -> int | None:
        """The same, None where the cell or its column is not there."""
        value = self.cells.get(key)
        return None if value is None or is_absent(value) else self.whole(key)

    def seconds(self, key: str) -> float | None:
        value = self.cells.get(key)
        if is_absent(value):
            return None
        if not is_number(value):
            raise self._odd(key, "a number of seconds")
        return float(value)  # type: ignore[arg-type]

    def tasks(self) -> tuple[str, ...]:
        """The texts of `tasks`; a lone text is one task."""
        value = self.cells.get("tasks")
        if type(value) is list and len(value) == 1 and type(value[0]) is str:
            return (value[0],)
        if is_absent(value):
            return ()
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) or is_absent(text) for text in texts):
            raise self._odd("tasks", "a list of texts")
        return tuple(text for text in texts if not is_absent(text))

    def _odd(self, key: str, due: str) -> DatasetError:
        who = self.cells.get("episode_index")
        return DatasetError(
            f"'{key}' of episode {short(who)} in {self.file} is {short(self.cells[key])}, {due} is due;"
            " correct it or copy meta/ again"
        )
