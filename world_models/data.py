"""What world models read of a dataset: pictures of all cameras together, executed actions, states and outcomes.

A window holds the frames at `observe` offsets up to now and the executed actions between them; only windows that lie
inside an episode are taken. Outcomes are those of the frame: `next.success` and `next.progress` of a row belong to the
frame after it. The frame after an episode's last action is not recorded; the last one stands in for it, a control step
too old, or nothing would show what success looks like.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..configs.episode import PROGRESS, SENT, SUCCESS
from ..configs.spec import IMAGES, SCENE, STATE, Window
from ..policies.data.columns import load_columns
from ..policies.data.dataset import Dataset
from ..policies.data.decode import fit
from ..policies.data.embeddings import Embeddings, open_embeddings
from ..policies.data.frames import Frames, open_frames
from ..policies.data.layout import DatasetError
from ..policies.data.open import open_dataset
from ..policies.data.rewards import executed
from ..policies.data.windows import RowReader, Windows

SEEN = f"{IMAGES}all"  # key of a batch: all cameras, or the latents that stand for them
OUTCOME, JUDGED = "outcome", "judged"  # keys of a batch: (B, 2) success and progress now, (B, 2) whether known


class JointFrames:
    """Pictures of several cameras at one size, side by side: uint8 (..., cameras, h, w, 3) by dataset row."""

    def __init__(self, cameras: Sequence[Frames]):
        self._cameras = cameras

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Dataset rows of any shape -> uint8 (*shape, cameras, h, w, 3)."""
        return np.stack([frames.read(rows) for frames in self._cameras], rows.ndim)

    @property
    def files(self) -> dict[int, Path]:
        """A path for each episode, by position, that tells all its pictures from others."""
        first, *others = self._cameras
        if not others:
            return first.files
        stems = {m: [path.stem, *(more.files[m].stem for more in others)] for m, path in first.files.items()}
        names = {m: hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32] for m, parts in stems.items()}
        return {m: path.with_name(f"{names[m]}.npy") for m, path in first.files.items()}

    @property
    def starts(self) -> np.ndarray:
        """(M,) row of each episode's first frame."""
        return self._cameras[0].starts

    def episode(self, position: int) -> np.ndarray:
        """All pictures of an episode, uint8 (n, cameras, h, w, 3)."""
        return np.stack([frames.episode(position) for frames in self._cameras], 1)


def open_joint(
    dataset: Dataset, cameras: Sequence[str], size: tuple[int, int], episodes: Sequence[int] | np.ndarray
) -> JointFrames:
    """Pictures of these cameras at (height, width), of episodes at these positions. Raises DatasetError."""
    return JointFrames([open_frames(dataset, name, size, sorted(map(int, episodes))) for name in cameras])


def joint(pictures: Mapping[str, np.ndarray], cameras: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Live pictures (h, w, 3) uint8 of these cameras as `open_joint` gives recorded ones: (cameras, height, width, 3).

    They must be as large as the recorded ones were: what is drawn small differs from what is drawn large and reduced.
    """
    return torch.from_numpy(np.stack([fit(pictures[name], size) for name in cameras]))


def open_data(
    source: str | Path, cameras: Sequence[str], states: Sequence[str], embodiment: str | Path | None, **chosen: Any
) -> Dataset:
    """The dataset with executed actions, and with states and outcomes where it has them.

    Raises:
        DatasetError: no such camera, or states that are asked for and missing.
    """
    dataset = open_dataset(source, embodiment=embodiment, columns=tuple(states), **chosen)
    for name in cameras:
        dataset.camera(name)
    outcomes = _optional(dataset, (SUCCESS, PROGRESS))
    return dataclasses.replace(dataset, columns=dataset.columns | outcomes | {SENT: executed(dataset)})


def offered_states(dataset: Dataset) -> tuple[str, ...]:
    """Keys of the state vectors that a dataset records."""
    return tuple(key for key in (STATE, SCENE) if key in dataset.features)


def _optional(dataset: Dataset, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns that every part of the dataset holds."""
    parts = [load_columns(part.layout, names, skip_missing=True) for part in dataset.parts or (dataset,)]
    shared = [name for name in names if all(name in part and np.isfinite(part[name]).all() for part in parts)]
    return {name: np.concatenate([part[name][:, :1] for part in parts]) for name in shared}


def outcomes(dataset: Dataset) -> dict[str, np.ndarray]:
    """`OUTCOME` (N, 2) float32, success and progress of each frame; `JUDGED` (N, 2) bool, whether they are known."""
    values, known = np.zeros((2, len(dataset), 2), np.float32)
    first = np.zeros(len(dataset), bool)
    first[dataset.starts] = True
    last = dataset.starts + dataset.lengths - 1
    for place, name in enumerate((SUCCESS, PROGRESS)):
        if name not in dataset.columns:
            continue
        after = dataset.columns[name][:, 0]
        values[1:, place] = after[:-1]
        values[last, place] = after[last]
        known[:, place] = ~first
        known[last, place] = 1
    return {OUTCOME: values, JUDGED: known.astype(bool)}


class InsideWindows:
    """The windows that lie inside an episode, with `SEEN`, executed actions, states and outcomes.

    Args:
        frames: offsets of the frames that are read, the last one 0.
        seen: reads what stands for the pictures.
        more: further pictures of the same frames, by key.

    Raises:
        DatasetError: no episode is long enough.
    """

    def __init__(
        self,
        dataset: Dataset,
        episodes: np.ndarray,
        frames: tuple[int, ...],
        seen: RowReader,
        states: tuple[str, ...],
        more: Mapping[str, RowReader] | None = None,
    ):
        reach = -frames[0]
        window = Window(observe=frames, recall=tuple(range(-reach, 0)), horizon=1)
        told: dict[str, Any] = {"rows": outcomes(dataset), "acted": SENT, "pictures": {SEEN: seen, **(more or {})}}
        self._windows = Windows(dataset, window, (SEEN, *(more or ()), *states), episodes, **told)
        places = np.concatenate([np.arange(dataset.lengths[m]) for m in episodes])
        self._kept = np.flatnonzero(places >= reach)
        if not len(self._kept):
            raise DatasetError(
                f"no episode of {dataset.root} has the {reach + 1} frames that a step of training reads; lower the "
                f"horizon, the longest has {int(dataset.lengths[episodes].max())}"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """The windows at positions (B,) as a batch; `action` (B, reach + 1, D) ends with that for now."""
        return self._windows.gather(self._kept[np.asarray(indices)])


class Encoded:
    """Latents of a dataset's pictures, read by row: (..., C, h, w) float32."""

    def __init__(self, reader: Embeddings, shape: tuple[int, ...]):
        self._reader, self.shape = reader, shape  # C, h, w

    @property
    def files(self) -> dict[int, Path]:
        """A file for each episode, by position, whose name tells its latents from others."""
        return self._reader.files

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Dataset rows of any shape -> (*shape, C, h, w)."""
        return self._reader.read(rows).reshape(*rows.shape, *self.shape)


def encoded(
    dataset: Dataset, frames: JointFrames, encode: Callable[[Tensor], Tensor], name: str, shape: tuple[int, ...]
) -> Encoded:
    """Latents of all frames, computed once and kept beside the decoded pictures.

    Args:
        encode: pictures (M, cameras, h, w, 3) uint8 -> (M, C, h, w).
        name: tells what `encode` does from everything else.
    """

    def flat(pictures: Tensor) -> Tensor:
        return encode(pictures).flatten(1)

    lengths = dataset.lengths.tolist()
    reader, _ = open_embeddings(frames, flat, name, int(np.prod(shape)), lengths, "pictures")  # type: ignore[arg-type]
    return Encoded(reader, shape)
