"""The films of a record that a page may show: those inside the record, as they were written.

A row names its film by a path. Whoever makes a page puts what the path names into it, so a path that leads out of the
record, links resolved, would carry any file of this machine to whoever reads the page.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from .record import Record
from .verify import changed, inside


def film_paths(record: Record) -> dict[int, Path]:
    """Env seed -> film. One that has gone is left out; one that must not be shown too, with a warning that says why."""
    for text in film_faults(record):
        warnings.warn(f"{text}; it is left out", stacklevel=2)
    return {seed: path for seed, name in _named(record) if (path := _sound(record, name)) is not None}


def film_faults(record: Record) -> Iterator[str]:
    """The films that must not be shown, with the reason, a sentence each."""
    for seed, name in _named(record):
        if why := _fault(record, name):
            yield f"{record.root}: the film {name!r} of env seed {seed} {why}"


def _named(record: Record) -> list[tuple[int, str]]:
    names = zip(record.column("env_seed"), record.column("video"), strict=True)
    return [(seed, name) for seed, name in names if name]


def _sound(record: Record, name: str) -> Path | None:
    path = inside(record.root, name)
    return path if path is not None and path.is_file() and not _fault(record, name) else None


def _fault(record: Record, name: str) -> str:
    """Why a film must not be shown; "" for one that may be, or has gone."""
    path = inside(record.root, name)
    if path is None:
        return "lies outside of the record"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return "is no mp4"
    return "was changed since it was written" if any(changed(record.root, record.manifest, (name,))) else ""
