"""Files that git-lfs did not fetch: a clone without it holds a note of where each large file is."""

from __future__ import annotations

from pathlib import Path

POINTER = b"version https://git-lfs"  # how such a note begins


def is_pointer(path: str | Path) -> bool:
    """Whether a file is a note of git-lfs; False if there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False


def why_unread(path: str | Path, error: object) -> str:
    """Why a file could not be read: the error, or what to do where git-lfs left a note in its place."""
    if is_pointer(path):
        return (
            "it is not the file itself but a note of git-lfs where to find it: run `git lfs pull` in its folder,"
            " or download it again"
        )
    return str(error)
