"""Demonstrations and rollouts as plain arrays: a LeRobotDataset (v3.0, v2.1, v2.0) opened with pyarrow alone.

Low-dimensional columns are loaded once into contiguous float32 memory. Pictures stay on disk until `frames` decodes
them. Episodes lie one after the other, whatever files they came from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...configs.notebook import facts_html, facts_text
from ...configs.progress import counted
from ...configs.spec import IMAGES, Embodiment
from .embody import camera_features, camera_name
from .layout import LABELS, DatasetError, Layout

__all__ = ["Dataset", "DatasetError", "split_episodes"]

SHOWN = 8  # action dimensions that are named where one looks at a dataset


@dataclass(frozen=True, repr=False)
class Dataset:
    """M episodes of N frames in all; position m in 0..M-1 is not the episode's id."""

    layout: Layout
    embodiment: Embodiment
    columns: dict[str, np.ndarray]  # name -> (N, D) float32
    starts: np.ndarray  # (M,) int64, row of each episode's first frame
    lengths: np.ndarray  # (M,) int64
    hub: str | None = None  # hub id it was fetched from
    cameras: dict[str, str] = field(default_factory=dict)  # camera name -> feature key
    parts: tuple[Dataset, ...] = ()  # the datasets that this one joins

    @property
    def root(self) -> Path:
        return self.layout.root

    @property
    def version(self) -> str:
        return self.layout.version

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.layout.rate

    @property
    def features(self) -> dict[str, dict]:
        return self.layout.features

    @property
    def episode_ids(self) -> np.ndarray:
        """(M,) int64 ids as the dataset numbers them."""
        return np.array([entry.id for entry in self.layout.entries], np.int64)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The text of each episode's task, "" where none is given."""
        return tuple("; ".join(entry.tasks) for entry in self.layout.entries)

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def facts(self) -> dict[str, str]:
        """What there is to say of it, for people."""
        body, tasks = self.embodiment, dict.fromkeys(filter(None, self.tasks))
        actions = [f"{name} [{unit}]" for name, unit in zip(body.action, body.action_units, strict=True)]
        more = f" and {len(actions) - SHOWN} more" if len(actions) > SHOWN else ""
        seconds = len(self) / self.rate
        told = {
            "dataset": f"{self.hub or self.root} (LeRobot {self.version})",
            "size": f"{counted(len(self.lengths), 'episode')}, {counted(len(self), 'frame')} at {self.rate:g} Hz, "
            f"{seconds / 60:.1f} min",
            "action": ", ".join(actions[:SHOWN]) + more,
            "columns": ", ".join(f"{name} {values.shape[1:]}" for name, values in self.columns.items()),
        }
        told |= {"cameras": ", ".join(self.cameras)} if self.cameras else {}
        return told | ({"tasks": "; ".join(list(tasks)[:3]) + (" ..." if len(tasks) > 3 else "")} if tasks else {})

    def __repr__(self) -> str:
        return facts_text("Dataset", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(self.facts())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what is read (data files, borders, features, sizes of videos, labels); equal for a renamed copy."""
        if self.parts:
            return hashlib.sha256(" ".join(part.fingerprint for part in self.parts).encode()).hexdigest()[:16]
        digest = hashlib.sha256(json.dumps([self.rate, self.features], sort_keys=True).encode())
        for entry in self.layout.entries:
            sizes = [_size(self.root / clip.path) for clip in entry.clips.values()]
            digest.update(json.dumps([entry.id, entry.length, entry.tasks, sizes]).encode())
        for path in sorted({entry.file for entry in self.layout.entries}):
            with open(self.root / path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        if (self.root / LABELS).is_file():
            digest.update(self._labels() if self.layout.others else (self.root / LABELS).read_bytes())
        return digest.hexdigest()[:16]

    def _labels(self) -> bytes:
        """The labels of the episodes that are read."""
        return json.dumps([[entry.id, entry.success] for entry in self.layout.entries]).encode()

    def camera(self, name: str) -> str:
        """Feature key of a camera, given by name or key. Raises DatasetError listing the cameras."""
        name = name.removeprefix(IMAGES)
        if name not in self.cameras:
            raise _other_pictures(self.parts, name) or _no_camera(self.layout, name)
        return self.cameras[name]


def split_episodes(dataset: Dataset, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions of the training and of the validation episodes; `fraction` of the episodes validate.

    At least one episode trains; a fraction above 0 gives at least one validation episode if there are two or more.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the validation fraction must be at least 0 and below 1, got {fraction}")
    count = len(dataset.lengths)
    held = held_out_of(count, fraction)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def held_out_of(episodes: int, fraction: float) -> int:
    """How many of so many episodes validate."""
    return 0 if fraction == 0 else min(max(1, round(fraction * episodes)), episodes - 1)


def _other_pictures(parts: tuple[Dataset, ...], name: str) -> DatasetError | None:
    """What keeps a camera that all of several datasets have from being read as one."""
    if not parts or not all(name in part.cameras for part in parts):
        return None
    kinds = [part.features[part.cameras[name]] for part in parts]
    recorded = [
        f"{kind['dtype']} of {'x'.join(map(str, kind['shape']))} in {part.root}"
        for kind, part in zip(kinds, parts, strict=True)
    ]
    return DatasetError(
        f"camera '{name}' was recorded otherwise in the datasets that are to be one: {'; '.join(recorded)}. Name those "
        "of one size and kind, or leave this camera out"
    )


def _no_camera(layout: Layout, name: str) -> DatasetError:
    known = ", ".join(camera_features(layout)) or "none"
    if name in map(camera_name, layout.depth_cameras):
        return DatasetError(
            f"'{name}' of {layout.root} is a depth camera: it measures distances, which are read by nothing here;"
            f" cameras that see colours: {known}. Name one of those or leave pictures out"
        )
    if name in map(camera_name, layout.stored_pictures):
        return DatasetError(
            f"'{name}' of {layout.root} is a picture stored as numbers (uint8), no camera; convert it to a feature"
            f" of dtype `image` or `video`. Cameras: {known}"
        )
    return DatasetError(f"{layout.root} has no camera '{name}'; its cameras: {known}. Name one or leave pictures out")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
