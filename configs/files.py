"""Files and folders that are there whole or not at all: written beside under a hidden name, then renamed.

Whoever looks, or goes on after a kill, finds the old content or the new, never a part. Two processes may write the same
path: the later one wins. What a killed process left beside keeps the name `.NAME.PID.part` or `.NAME.PID.half` and is
never read; `clear_leftovers` removes it, and who goes on in a folder, or begins in one, does so first.

`read_lines` reads logs, in which a kill or a power loss may have left half a line.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

PART, HALF = ".part", ".half"  # endings of a file, of a folder, that is being written
LEFTOVER = re.compile(r"\..+\.(\d{1,9})\.(?:part|half)")  # what `_beside` names


def replace_text(path: Path, text: str) -> Path:
    """Put `text` (UTF-8) in place of the file `path` in one step; its folder is made. Returns the path.

    Raises:
        OSError: no space or no permission; the old file stays and nothing lies beside it.
    """
    return replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write(beside)` make a file (or link) and put it in place of `path` in one step; its folder is made.

    Raises:
        OSError: no space or no permission.
        Exception: what `write` raises. In both cases the old file stays and nothing lies beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path, PART)
    beside.unlink(missing_ok=True)
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def replace_folder(folder: Path, fill: Callable[[Path], object], *, settle: bool = False) -> Path:
    """Let `fill(beside)` make and fill a folder and put it in place of `folder`, whose parent is made.

    An old folder is removed just before the rename: nobody sees a part, but for that moment there is none.

    Args:
        settle: flush every file to the disk first, so that after a power loss, too, the rename never precedes the
            content.

    Raises:
        OSError: no space or no permission.
        Exception: what `fill` raises. In both cases an old folder stays and nothing lies beside it.
    """
    beside = _beside(folder, HALF)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        fill(beside)
        if settle:
            _settle(beside)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def new_folder(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Let `fill(beside)` fill a folder and put it where none is, in one step; an empty one counts as none.

    Raises:
        FileExistsError: there is one that holds something.
        Exception: what `fill` raises. In all cases nothing lies beside.
    """
    beside = _beside(folder, HALF)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        fill(beside)
        beside.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(f"'{folder}' exists already") from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def clear_leftovers(folder: Path) -> None:
    """Remove what dead processes left half written: in `folder` and below, and beside it under its own name.

    For who alone works there now. What a process that lives is writing stays, and so do files of other names.
    """
    beside = folder.parent.glob(f".{glob.escape(folder.name)}.*") if folder.parent.is_dir() else ()
    _clear(beside)
    for place, folders, files in os.walk(folder):
        gone = _clear(Path(place) / name for name in (*files, *folders))
        folders[:] = [name for name in folders if name not in gone]


def _clear(paths: Iterable[Path]) -> set[str]:
    """Remove those of `paths` that a dead process left half written; their names."""
    gone = set()
    for path in paths:
        left = LEFTOVER.fullmatch(path.name)
        if left is None or _works(int(left[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        gone.add(path.name)
    return gone


def _works(pid: int) -> bool:
    """Whether another process of this number lives; this one has left nothing yet."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def read_lines(path: Path) -> tuple[list[dict], int]:
    """(rows, lines that could not be read) of a log with one JSON object a line; a last line cut off is not counted.

    Rows of a log that is not there are none.
    """
    text = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""
    lines = text.split("\n")
    cut = lines.pop()  # "" unless the writer was killed in the middle of it
    rows, damaged = [], 0
    for line in [*lines, cut]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line is not cut and line.strip():
            damaged += 1
    return rows, damaged


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{ending}")


def _settle(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
