"""Which code this is: a hash of the sources that act, for processes that must compute the same on several machines."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

FOLDERS = ("configs", "policies", "sim", "world_models", "hardware", "eval")
SOURCES = (".py", ".xml")
SKIPPED = ("__pycache__", "records", "studies", "distributions")  # nobody acts by them


@cache
def our_code() -> str:
    """Hash of the sources that act."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for folder in FOLDERS:
        add_sources(digest, root / folder)
    return digest.hexdigest()[:16]


def add_sources(digest, place: Path) -> None:
    """Add the sources in a folder, or one file, to a hash."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.suffix in SOURCES)
    for file in files:
        inside = file.relative_to(place)
        if not set(SKIPPED) & set(inside.parts):
            digest.update(f"{inside.as_posix()}\n".encode() + file.read_bytes())
