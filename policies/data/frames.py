"""Pictures of a dataset, decoded once: cropped, resized and kept as memory-mapped uint8, one file an episode.

The cache lies in `$UNDERSTUDY_CACHE/frames` (default `~/.cache/understudy`), is keyed by content (source file, borders
of the episode, crop, size) and bounded by `$UNDERSTUDY_CACHE_GB` (default 50): the files used longest ago go first.
Files are written beside and renamed, so several processes may share it. How to decode stands in `decode`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...configs.files import replace_file
from ...configs.progress import Progress
from .dataset import Dataset
from .decode import Crop, decode_episodes
from .embody import picture_size
from .layout import DatasetError, Entry, expand_path
from .open import fetch

SPARE = 256 * 2**20  # bytes of the disk that are never filled
EDGE = 2**16  # bytes at both ends of a source file that tell its content


class Frames:
    """Pictures of some episodes, read by dataset row."""

    def __init__(self, files: dict[int, Path], starts: np.ndarray, size: tuple[int, int]):
        self._files, self._starts, self._size = files, starts, size
        self._open: dict[int, np.ndarray] = {}

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Dataset rows of any shape -> uint8 (*shape, h, w, 3), a copy."""
        flat = rows.reshape(-1)
        episodes = np.searchsorted(self._starts, flat, "right") - 1
        steps = flat - self._starts[episodes]
        out = np.empty((len(flat), *self._size, 3), np.uint8)
        for i, (position, step) in enumerate(zip(episodes.tolist(), steps.tolist(), strict=True)):
            out[i] = self._episode(position)[step]
        return out.reshape(*rows.shape, *self._size, 3)

    @property
    def files(self) -> dict[int, Path]:
        """File of each episode, by position."""
        return self._files

    @property
    def starts(self) -> np.ndarray:
        """(M,) row of each episode's first frame."""
        return self._starts

    def episode(self, position: int) -> np.ndarray:
        """All pictures of an episode, uint8 (n, h, w, 3), a copy."""
        return np.array(self._episode(position))

    def _episode(self, position: int) -> np.ndarray:
        if position not in self._open:
            self._open[position] = np.asarray(np.load(self._files[position], mmap_mode="r"))
        return self._open[position]


def open_frames(
    dataset: Dataset,
    camera: str,
    size: tuple[int, int] | None = None,
    episodes: Iterable[int] | None = None,
    crop: Crop | None = None,
) -> Frames:
    """Pictures of a camera at (height, width), decoded into the cache where they are not there yet.

    Args:
        size: wanted height and width, default as recorded.
        episodes: positions of episodes, default all.
        crop: (top, left, height, width) of the recorded picture; None cuts the middle to the wanted proportions.

    Raises:
        DatasetError: no such camera, missing or damaged videos, no room in the cache or on the disk.
    """
    key = dataset.camera(camera)
    size = tuple(size or _stated_size(dataset, key))
    positions = [int(m) for m in (range(len(dataset.lengths)) if episodes is None else episodes)]
    _require_pictures(dataset, camera, positions)
    folder = cache_folder()
    entries = dataset.layout.entries
    files = {m: folder / f"{_key(dataset, key, entries[m], size, crop)}.npy" for m in positions}
    todo = {m: path for m, path in files.items() if not path.exists()}
    for path in files.values():
        if path.exists():
            os.utime(path)
    if todo:
        frame = size[0] * size[1] * 3
        inputs = {m: int(dataset.lengths[m]) * frame for m in positions}
        make_room(folder, set(files.values()), sum(inputs.values()), sum(inputs[m] for m in todo))
        _decode(dataset, key, todo, size, crop)
    return Frames(files, dataset.starts, size)


def _stated_size(dataset: Dataset, key: str) -> tuple[int, int]:
    try:
        return picture_size(dataset.features[key])
    except DatasetError as error:
        raise DatasetError(f"camera '{key}' of {dataset.root}: {error}") from error


def episodes_with_pictures(dataset: Dataset, camera: str) -> np.ndarray:
    """Positions of the episodes whose video is on disk (all, for image columns)."""
    key = dataset.camera(camera)
    if dataset.features[key]["dtype"] == "image":
        return np.arange(len(dataset.lengths))
    there = [m for m, entry in enumerate(dataset.layout.entries) if _has_video(dataset.root, entry, key)]
    return np.array(there, np.int64)


def cache_folder() -> Path:
    """Where decoded pictures are kept; made if it is not there."""
    folder = expand_path(os.environ.get("UNDERSTUDY_CACHE") or "~/.cache/understudy") / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _has_video(root: Path, entry: Entry, key: str) -> bool:
    return key in entry.clips and (root / entry.clips[key].path).is_file()


def _require_pictures(dataset: Dataset, camera: str, positions: list[int]) -> None:
    key = dataset.camera(camera)
    entries = dataset.layout.entries
    there = set(episodes_with_pictures(dataset, camera).tolist())
    missing = [m for m in positions if m not in there]
    if missing and dataset.hub:
        fetch(dataset.hub, sorted({entries[m].clips[key].path for m in missing if key in entries[m].clips}))
        there = set(episodes_with_pictures(dataset, camera).tolist())
        missing = [m for m in missing if m not in there]
    if missing:
        example = entries[missing[0]].clips.get(key)
        have = f"take those that have one (--episodes {ranges(entries[m].id for m in sorted(there))})" if there else ""
        raise DatasetError(
            f"{dataset.root} has no video of camera '{camera}' for {len(missing)} of {len(positions)} episodes:"
            f" {ranges(entries[m].id for m in missing)} (for example {example.path if example else 'none listed'});"
            f" copy the videos, {have or 'or train without this camera'}"
        )


def _key(dataset: Dataset, key: str, entry: Entry, size: tuple[int, int], crop: Crop | None) -> str:
    """Name of the cache file: tells what is in it."""
    clip = entry.clips.get(key)
    source = dataset.root / (clip.path if clip else entry.file)
    stat = source.stat()
    with open(source, "rb") as file:
        head = file.read(EDGE)
        file.seek(max(0, stat.st_size - EDGE))
        edges = hashlib.sha256(head + file.read()).hexdigest()
    borders = [entry.id, entry.first, entry.length, clip.start if clip else None, dataset.rate]
    identity = [2, key, edges, stat.st_size, stat.st_mtime_ns, borders, size, crop]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def make_room(folder: Path, keep: set[Path], wanted: int, new: int) -> None:
    """Evict what was used longest ago until the bound and the disk can take `new` more bytes."""
    bound = int(float(os.environ.get("UNDERSTUDY_CACHE_GB") or 50) * 1e9)
    if wanted > bound:
        raise DatasetError(
            f"the decoded pictures need {wanted} bytes ({wanted / 1e9:.1f} GB), more than the cache may hold ({bound}"
            " bytes); raise UNDERSTUDY_CACHE_GB, ask for smaller pictures or use fewer episodes"
        )
    held = {path: path.stat() for path in folder.glob("*.npy")}
    total = sum(stat.st_size for stat in held.values())
    for path in sorted(held.keys() - keep, key=lambda path: held[path].st_mtime):
        if total + new <= bound and new + SPARE <= shutil.disk_usage(folder).free:
            break
        path.unlink(missing_ok=True)
        total -= held[path].st_size
    free = shutil.disk_usage(folder).free
    if new + SPARE > free:
        raise DatasetError(
            f"decoding needs {new} bytes ({new / 1e9:.1f} GB) in {folder} but {free} are free; make room, set"
            " UNDERSTUDY_CACHE to a folder on another disk, or ask for smaller pictures"
        )


def _decode(dataset: Dataset, key: str, todo: dict[int, Path], size: tuple[int, int], crop: Crop | None) -> None:
    entries = {dataset.layout.entries[m]: path for m, path in todo.items()}
    done, total = 0, sum(entry.length for entry in entries)
    with Progress(f"decoding {key}", total, "frames") as progress:
        for entry, pictures in decode_episodes(dataset.layout, key, list(entries), size, crop):

            def write(beside: Path, pictures=pictures, shape=(entry.length, *size, 3)) -> None:
                nonlocal done
                with open(beside, "wb") as file:
                    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                    for picture in pictures:
                        file.write(picture.tobytes())
                        done += 1
                        progress.update(done)

            replace_file(entries[entry], write)


def ranges(ids: Iterable[int]) -> str:
    """0, 1, 2, 5 -> "0-2, 5"."""
    parts: list[list[int]] = []
    for i in ids:
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    shown = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts[:12])
    return shown + (", ..." if len(parts) > 12 else "")
