"""Recordings in other formats than LeRobotDataset, and the registry of those that are read. A new format is one file.

A format says whether a folder is its own, and gives the embodiment and the episodes that the folder holds. Writing them
is not its affair (`../convert.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ....configs.episode import Episode
from ....configs.spec import Embodiment
from ..films import read_film


class FormatError(ValueError):
    """A recording that cannot be converted; the message names the file and what to do."""


@dataclass(frozen=True)
class Recording:
    """What lies in a folder of another format."""

    embodiment: Embodiment
    episodes: Sequence[str]  # names, in order
    notes: tuple[str, ...] = ()  # what was taken to be so, in words


class Format(Protocol):
    """Reads one format."""

    layout: str  # which files where, in words

    def holds(self, root: Path) -> bool:
        """Whether a folder is laid out so. Opens no file."""
        ...

    def open(self, root: Path) -> Recording:
        """Raises FormatError: a file that is missing, damaged or inconsistent."""
        ...

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        """One episode. Raises FormatError: a film shorter than its rows, columns that do not fit."""
        ...


FORMATS: dict[str, Format] = {}


def register_format(name: str):
    """Give a class that reads a format a name; a class decorator. A name given twice is an error."""

    def register(kind):
        if name in FORMATS:
            raise ValueError(f"format '{name}' is registered already")
        FORMATS[name] = kind()
        return kind

    return register


def read_film_frames(path: Path, count: int, what: str) -> np.ndarray:
    """The first `count` frames of a film, uint8 (count, h, w, 3) RGB.

    Raises:
        FormatError: the film is not there, or shorter.
        DatasetError: it cannot be decoded.
    """
    from ..decode import read_frames

    if not path.is_file():
        raise FormatError(f"{path} is missing, the film of {what}; copy it, or leave the episode out")
    film = read_film(path, what)
    if len(film.stamps) < count:
        raise FormatError(
            f"{path} has {len(film.stamps)} frames, but {what} has {count} rows that each need one; copy the film "
            "again, or leave the episode out"
        )
    return np.stack([*read_frames(film, np.arange(count), what)])


def outcome(steps: int, success: bool) -> dict:
    """Columns of an episode of which only its success is known: reached at the last step, or never."""
    won = np.zeros(steps, bool)
    won[-1] = success
    part = won.astype(np.float32)
    return {"reward": part, "progress": part.copy(), "success": won, "terminated": success, "truncated": not success}
