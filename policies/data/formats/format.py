"""Recordings in other formats than LeRobotDataset, and the registry of those that are read. A new format is one file.

A format says whether a file or folder is its own, and gives the embodiment and the episodes that lie there. Writing
them is not its affair (`../imports.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ....configs.episode import Episode
from ....configs.plugins import lookup
from ....configs.spec import UNKNOWN, UNKNOWN_UNIT, Embodiment, Mode
from ..columns import rounded
from ..films import read_film
from ..tables import DatasetWarning


class FormatError(ValueError):
    """A recording that cannot be converted; the message names the file and what to do."""


@dataclass(frozen=True)
class Recording:
    """What lies in a file or folder of another format."""

    embodiment: Embodiment
    episodes: Sequence[str]  # names, in order
    notes: tuple[str, ...] = ()  # what was taken to be so, in words
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # further columns -> names of the dimensions
    unsaid: tuple[str, ...] = ()  # columns that our recordings have and that nobody recorded here
    about: Mapping[str, object] = field(default_factory=dict)  # what else the files say, kept as JSON
    subsets: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name -> names of its episodes
    inside: Any = None  # what the format found out, for its own use


class Format(Protocol):
    """Reads one format."""

    layout: str  # which files where, in words

    def holds(self, root: Path) -> bool:
        """Whether a file or folder is laid out so. Looks at names, and at a file's first bytes at most."""
        ...

    def open(self, root: Path) -> Recording:
        """Raises FormatError: a file that is missing, damaged or inconsistent."""
        ...

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        """One episode. Raises FormatError: a film shorter than its rows, columns that do not fit."""
        ...


FORMATS: dict[str, Format] = {}
GUESSED_RATE = 10.0  # Hz, of recordings that state none


def register_format(name: str):
    """Give a class that reads a format a name; a class decorator. A name given twice is an error."""

    def register(kind):
        if name in FORMATS:
            raise ValueError(f"format '{name}' is registered already")
        FORMATS[name] = kind()
        return kind

    return register


def find_format(root: Path, name: str = "") -> tuple[str, Format]:
    """The format of a file or folder, with its name. The formats must have been registered.

    Raises:
        FormatError: nothing there, or none of the known formats. LookupError: an unknown name.
    """
    if not root.exists():
        raise FormatError(f"there is no file and no folder {root}")
    if name:
        lookup("format", name, FORMATS)
    found = [(key, one) for key, one in FORMATS.items() if name in ("", key) and one.holds(root)]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{key}: {one.layout}" for key, one in FORMATS.items() if name in ("", key))
    if found:
        raise FormatError(f"{root} may be of several formats, {', '.join(key for key, _ in found)}; give --format")
    raise FormatError(f"{root} is laid out as none of the formats that are read: {known}")


def counted(key: str, width: int) -> tuple[str, ...]:
    """Names of the dimensions of a vector that names none: `key.0`, `key.1`; a lone one is `key`."""
    return (key,) if width == 1 else tuple(f"{key}.{place}" for place in range(width))


def silent_body(
    name: str,
    action: tuple[str, ...],
    low: np.ndarray,
    high: np.ndarray,
    *,
    rate: float | None,
    state: tuple[str, ...] = (),
    scene: tuple[str, ...] = (),
    cameras: Mapping[str, tuple[int, int]] | None = None,
    **meaning: Any,
) -> Embodiment:
    """Who recorded files that state no unit: limits are the data's, and so on; `rate` None is guessed, too.

    Args:
        low, high: (D,) least and greatest action of the data.
        meaning: mode, frame, rotation, where the files say them.
    """
    limits = tuple((float(a), float(b) if b > a else float(a) + 1.0) for a, b in zip(low, high, strict=True))
    known: dict[str, Any] = {"mode": Mode.unknown, "frame": UNKNOWN, "rotation": UNKNOWN} | meaning
    return Embodiment(
        name=name,
        action=action,
        action_units=(UNKNOWN_UNIT,) * len(action),
        limits=limits,
        rate=GUESSED_RATE if rate is None else rate,
        state=state,
        state_units=(UNKNOWN_UNIT,) * len(state),
        scene=scene,
        scene_units=(UNKNOWN_UNIT,) * len(scene),
        cameras=dict(cameras or {}),
        guessed=("limits",) if rate is not None else ("limits", "rate"),
        **known,
    )


def check_finite(values: np.ndarray, what: str) -> None:
    """Raise FormatError for NaN or infinities in (T, ...) numbers, naming the first row."""
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise FormatError(f"{what} is NaN or infinite in row {row}; repair it, or leave the episode out: --without")


def in_float32(values: np.ndarray, what: str) -> np.ndarray:
    """(T, ...) numbers as float32 (T, D). Warns where it is too coarse for them, as it is for seconds since 1970."""
    rows = values.reshape(len(values), -1)
    if rounded(rows, what, ""):
        warnings.warn(
            f"{what} holds numbers too great for what they change by, so float32 loses part of it; take an offset off",
            DatasetWarning,
            stacklevel=2,
        )
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


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
