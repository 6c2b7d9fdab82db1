"""Demonstrations and rollouts as plain arrays: a LeRobotDataset (v3.0, v2.1, v2.0) opened with pyarrow alone.

Low-dimensional columns are loaded once into contiguous float32 memory. Pictures stay on disk until `frames` decodes
them. Episodes lie one after the other, whatever files they came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...configs.spec import ACTION, IMAGES, SCENE, STATE, Embodiment
from .columns import check_finite, load_columns
from .embody import camera_features, dimension_names, embodiment_of
from .layout import LABELS, DatasetError, Layout, expand_path, read_layout

__all__ = ["Dataset", "DatasetError", "open_dataset", "split_episodes"]


@dataclass(frozen=True)
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

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content (data files, borders, features, sizes of videos, labels); equal for a renamed copy."""
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
            digest.update((self.root / LABELS).read_bytes())
        return digest.hexdigest()[:16]

    def camera(self, name: str) -> str:
        """Feature key of a camera, given by name or key. Raises DatasetError listing the cameras."""
        name = name.removeprefix(IMAGES)
        if name not in self.cameras:
            raise _no_camera(self.layout, name)
        return self.cameras[name]


def open_dataset(
    source: str | Path,
    *,
    embodiment: str | Path | None = None,
    columns: tuple[str, ...] | None = None,
    check: bool = True,
) -> Dataset:
    """Open a LeRobotDataset folder (`$VAR` expanded), a hub id such as "lerobot/pusht", or several as one: "A,B".

    Labels given by `understudy label` count (`labels.py`).

    Args:
        embodiment: YAML piece for a dataset without `meta/embodiment.json`; what it leaves out is guessed.
        columns: what will be read; cameras by `observation.images.NAME`. None: every numeric column.
        check: refuse missing columns, NaN and infinities in actions and observations. False is for looking only.

    Raises:
        DatasetError: saying what is wrong where, and what to do.
    """
    if several := _several(source):
        from .joint import join

        return join(tuple(open_dataset(one, embodiment=embodiment, columns=columns, check=check) for one in several))
    root, hub = _locate(source)
    layout = read_layout(root)
    cameras = camera_features(layout)
    wanted = _wanted(layout, cameras, columns, check)
    loaded = load_columns(layout, wanted, skip_missing=not check)
    if check:
        told = {key: dimension_names(layout.features[key]) for key in loaded if key in layout.features}
        check_finite(layout, {key: loaded[key] for key in loaded if key in (ACTION, STATE, SCENE)}, told)
    lengths = np.array([entry.length for entry in layout.entries], np.int64)
    return Dataset(
        layout=layout,
        embodiment=embodiment_of(layout, loaded, embodiment),
        columns=loaded,
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        hub=hub,
        cameras=cameras,
    )


def split_episodes(dataset: Dataset, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions of the training and of the validation episodes; `fraction` of the episodes validate.

    At least one episode trains; a fraction above 0 gives at least one validation episode if there are two or more.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the validation fraction must be at least 0 and below 1, got {fraction}")
    count = len(dataset.lengths)
    held = 0 if fraction == 0 else min(max(1, round(fraction * count)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def _wanted(layout: Layout, cameras: dict[str, str], columns: tuple[str, ...] | None, check: bool) -> tuple[str, ...]:
    if columns is None:
        return tuple(dict.fromkeys((*layout.vectors, ACTION))) if check else layout.vectors
    for name in columns:
        if name.startswith(IMAGES) and name.removeprefix(IMAGES) not in cameras:
            raise _no_camera(layout, name.removeprefix(IMAGES))
    return tuple(dict.fromkeys((*(name for name in columns if not name.startswith(IMAGES)), ACTION)))


def _no_camera(layout: Layout, name: str) -> DatasetError:
    known = ", ".join(camera_features(layout)) or "none"
    return DatasetError(f"{layout.root} has no camera '{name}'; its cameras: {known}. Name one or leave pictures out")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _several(source: str | Path) -> list[str]:
    """The parts of `A,B`; empty for one dataset, also for one whose name has a comma."""
    from .joint import SEPARATOR

    names = [name.strip() for name in str(source).split(SEPARATOR) if name.strip()]
    return names if len(names) > 1 and not expand_path(source).exists() else []


def _locate(source: str | Path) -> tuple[Path, str | None]:
    path = expand_path(source)
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) or str(source).startswith("."):
        return path, None
    return fetch(str(source), ["meta/*", "meta/**", "data/**"]), str(source)


def fetch(hub: str, patterns: list[str]) -> Path:
    """Download part of a hub dataset (kept in the hub's cache). Raises DatasetError when it cannot."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(huggingface_hub.snapshot_download(hub, repo_type="dataset", allow_patterns=patterns))
    except (OSError, HfHubHTTPError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DatasetError(
            f"'{hub}' is no folder here and could not be fetched from the hub ({reason});"
            " check the spelling and the network, or give the path of a local copy"
        ) from error
