"""`last` and `best` of a run: which checkpoints they name.

Each is a relative link, replaced by rename. Copies through a hub, a zip or a bucket turn links into folders: such a
folder is a copy of its checkpoint, and the next save puts a link in its place. Where links are impossible (exFAT, some
shares) a small file holds the words that the link would.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ...configs.files import HALF, replace_file, replace_text

NAMES = ("last", "best")
CHECKPOINTS = "checkpoints"
PROGRESS = Path("training_state") / "progress.json"


def linked(run: Path, name: str) -> Path | None:
    """The checkpoint folder that `run/name` means; None where it is not there, or names what is not there."""
    place = run / name
    if place.is_dir():
        return place.resolve() if (place / "config.json").is_file() or place.is_symlink() else None
    if place.is_file() and not place.is_symlink():
        return _named(run, place)
    return None


def names_nothing(run: Path, name: str) -> bool:
    """Whether `run/name` is there but names no checkpoint that is there."""
    return os.path.lexists(run / name) and linked(run, name) is None


def numbered(run: Path) -> list[Path]:
    """The checkpoints of a run by step, oldest first."""
    inside = (run / CHECKPOINTS).glob("*")
    return sorted((path for path in inside if path.name.isdigit() and path.is_dir()), key=lambda path: int(path.name))


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint: by its name, else (a copy under another name) by what it says itself."""
    if folder.name.isdigit():
        return int(folder.name)
    try:
        step = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return step if type(step) is int else None


def point(run: Path, name: str, folder: Path) -> None:
    """Let `run/name` mean a checkpoint from now on, in one step; a copy that lies there is moved aside first."""
    place, target = run / name, os.path.relpath(folder, run)
    aside = place.with_name(f".{name}.{os.getpid()}{HALF}")
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
    try:
        replace_file(place, lambda fresh: fresh.symlink_to(target))
    except (OSError, NotImplementedError):  # no links here
        replace_text(place, Path(target).as_posix() + "\n")
    shutil.rmtree(aside, ignore_errors=True)


def _named(run: Path, place: Path) -> Path | None:
    """The checkpoint that a small file names; it lies in the run."""
    try:
        text = place.read_bytes()[:1000].decode().strip()
    except UnicodeDecodeError:
        return None
    folder = (run / text).resolve() if text and "\0" not in text else run
    return folder if folder.parent == (run / CHECKPOINTS).resolve() and folder.is_dir() else None
