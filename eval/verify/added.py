"""Hashes that were added to a record long after it was written, and say so.

Records of earlier versions hold none. `added_hashes.txt` notes the sha256 of each of their files as they were on the
day when it was made: from then on a change is found, of before it says nothing. `sha256sum -c` reads it, too.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from ...configs.files import replace_text
from ...policies.learning.integrity import sha256
from ..ledger.table import RecordError

ADDED = "added_hashes.txt"
NOTE = "made after the record was written: what its files were on that day; it says nothing of the time before"
DAY, LINE = re.compile(r"# added (\d{4}-\d{2}-\d{2}), .*"), re.compile(r"([0-9a-f]{64})  (.+)")
FILMS = "videos/"  # copies of records may leave them out


def add(place: Path) -> int:
    """Note the hash of every file of a record that has none; how many files that are. Never replaces what is there."""
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != ADDED)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [f"{sha256(path)}  {path.relative_to(place).as_posix()}" for path in files]
    replace_text(place / ADDED, "\n".join([f"# added {today}, {NOTE}", *lines]) + "\n")
    return len(files)


def added_on(place: Path) -> str:
    """The day on which hashes were added to a record; "" where none were. Raises RecordError for a damaged file."""
    return _read(place)[0] if (place / ADDED).is_file() else ""


def changed_since(place: Path) -> Iterator[str]:
    """What is no more as it was on that day, in words. Raises RecordError for a damaged file."""
    day, hashes = _read(place)
    for name, digest in hashes.items():
        path = place / name
        if not path.is_file():
            if not name.startswith(FILMS):
                yield f"{path} is missing; it was there on {day}"
        elif sha256(path) != digest:
            yield f"{path} is not the file that it was on {day} (its sha256 differs)"


def _read(place: Path) -> tuple[str, dict[str, str]]:
    """The day, and the hash of each file."""
    try:
        first, *rest = (place / ADDED).read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{place / ADDED} cannot be read ({error}); remove it, and add hashes again") from error
    day, lines = DAY.fullmatch(first), [LINE.fullmatch(line) for line in rest]
    if day is None or not lines or None in lines:
        raise RecordError(f"{place / ADDED} does not say what was there when; remove it, and add hashes again")
    hashes = {line[2]: line[1] for line in lines if line}
    if strange := next((name for name in hashes if name.startswith("/") or ".." in Path(name).parts), None):
        raise RecordError(f"{place / ADDED} names '{strange}', which is no file of the record; do not trust it")
    return day[1], hashes
