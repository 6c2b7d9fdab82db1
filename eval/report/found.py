"""What lies under folders: episode records, trainings, and pages that we wrote. Looks, and opens nothing else."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...policies.learning.examine import is_run
from ..ledger.record import MANIFEST, OPEN_LOOP, REPORT, WORLD_MODEL, Record, read_manifest, read_record
from ..ledger.table import RecordError

INNER = {"checkpoints", "videos", "tb", "training_state", "__pycache__"}  # folders of ours that hold none of these
DATASET = ("meta", "info.json")
HEAD = 200_000  # bytes of a page in which its title stands
TITLE = re.compile(r"<title>(.*?)</title>", re.S)
KICKER = re.compile(r'<p class="kicker">(.*?)</p>', re.S)  # our pages have one: what kind of page it is


@dataclass(frozen=True)
class Page:
    """A page that stands alone."""

    path: Path
    title: str
    kind: str  # Comparison, Dataset, ...


@dataclass
class Found:
    """All of it, in the order of paths."""

    records: list[Record] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # why something that looks like a record cannot be read


def find(folders: Iterable[str | Path]) -> Found:
    """What lies in the folders and below them, each thing once. Links are not followed.

    Raises:
        FileNotFoundError: a folder that is not there.
    """
    found, seen = Found(), set()
    for folder in map(_folder, folders):
        for place in _walk(folder):
            if (real := place.resolve()) not in seen:
                seen.add(real)
                _look(place, found)
    return found


def _folder(given: str | Path) -> Path:
    folder = Path(os.path.expandvars(given)).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{given}' to look for records and trainings in")
    return folder


def _walk(folder: Path) -> Iterator[Path]:
    for place, inner, _ in os.walk(folder):
        here = Path(place)
        stops = here.joinpath(*DATASET).is_file()
        inner[:] = [] if stops else sorted(name for name in inner if name not in INNER and not name.startswith("."))
        yield here


def _look(place: Path, found: Found) -> None:
    if (place / MANIFEST).is_file():
        _look_at_record(place, found)
    elif is_run(place):
        found.runs.append(place)
    for path in sorted(place.glob("*.html")):
        alone = path.name != REPORT or not any(record.root == place for record in found.records)
        if alone and (page := _page(path)) is not None:
            found.pages.append(page)


def _look_at_record(place: Path, found: Found) -> None:
    """A record of episodes; records of another kind have their page alone."""
    try:
        if read_manifest(place).get("kind") in (OPEN_LOOP, WORLD_MODEL):
            return
        record = read_record(place)
    except (RecordError, OSError) as error:
        found.unread.append(str(error))
        return
    if len(record.rows):
        found.records.append(record)
    else:
        found.unread.append(f"{place} holds no episode yet")


def _page(path: Path) -> Page | None:
    """A page of ours by its head; None for any other HTML."""
    with path.open("rb") as file:
        head = file.read(HEAD).decode("utf-8", errors="replace")
    title, kicker = TITLE.search(head), KICKER.search(head)
    if title is None or kicker is None:
        return None
    return Page(path, *(" ".join(html.unescape(part[1]).split()) for part in (title, kicker)))
