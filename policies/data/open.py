"""The one door to recordings: a folder, a hub id, or several of them as one, opened as a `Dataset`.

Finds the folder, reads where things are (`layout.py`), loads the columns that are wanted (`columns.py`), and refuses
what is missing or not finite before anything is trained on it. Pictures stay in their files (`frames.py`). Readers of
further formats stand behind this door (`imports.py`); nobody else opens recordings.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...configs.spec import ACTION, IMAGES, SCENE, STATE
from .choose import ALL, choose, shares
from .columns import check_finite, load_columns, with_tasks
from .dataset import Dataset, _no_camera
from .embody import camera_features, camera_name, dimension_names, embodiment_of
from .layout import INFO, DatasetError, Layout, expand_path, read_layout
from .mapping import mapped
from .tables import DatasetWarning


def open_dataset(
    source: str | Path,
    *,
    embodiment: str | Path | None = None,
    columns: tuple[str, ...] | None = None,
    check: bool = True,
    episodes: str = ALL,
    without: str = "",
    sources: Mapping[str, str | Sequence[str]] | None = None,
) -> Dataset:
    """Open a LeRobotDataset folder (`$VAR` expanded), a hub id such as "lerobot/pusht", or several as one: "A,B".

    A recording of another format (`formats/`) is converted once, into the cache, and opened from there.

    Labels given by `understudy label` count (`labels.py`).

    Args:
        embodiment: YAML file for a dataset without `meta/embodiment.json`; what it leaves out is guessed.
        columns: what will be read; cameras by `observation.images.NAME`. None: every numeric column.
        episodes, without: which episodes are read, such as "0-5,7-9", and which are left out (`choose.py`).
        sources: column -> the recorded column, or columns to be joined, that are read in its place (`mapping.py`).
        check: refuse missing columns, NaN and infinities in actions and observations. False is for looking only.

    Raises:
        DatasetError: saying what is wrong where, and what to do.
    """
    if several := _several(source):
        from .several import join

        chosen = zip(shares(episodes, several, "episodes"), shares(without, several, "without"), strict=True)
        return join(
            tuple(
                open_dataset(
                    one, embodiment=embodiment, columns=columns, check=check,
                    episodes=some, without=left, sources=sources,
                )
                for one, (some, left) in zip(several, chosen, strict=True)
            )
        )  # fmt: skip
    root, hub = _locate(source)
    layout = mapped(with_tasks(choose(read_layout(root), episodes, without)), sources or {})
    cameras = camera_features(layout)
    _warn_of_depth(layout)
    wanted = _wanted(layout, cameras, columns, check)
    loaded = _load(layout, wanted, skip_missing=not check)
    if check:
        dimensions = {key: dimension_names(layout.features[key]) for key in loaded if key in layout.features}
        check_finite(layout, {key: loaded[key] for key in loaded if key in (ACTION, STATE, SCENE)}, dimensions)
        _warn_of_gaps(layout, {key: loaded[key] for key in loaded if key not in (ACTION, STATE, SCENE)})
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


def _load(layout: Layout, names: tuple[str, ...], skip_missing: bool = False) -> dict[str, np.ndarray]:
    """`load_columns`, also of columns that are made of others."""
    if not layout.sources:
        return load_columns(layout, names, skip_missing)
    recorded = dataclasses.replace(layout, features=layout.recorded, sources={}, recorded={})
    wanted = dict.fromkeys(source for name in names for source in layout.sources.get(name, (name,)))
    loaded = load_columns(recorded, tuple(wanted), skip_missing)

    out = {}
    for name in names:
        parts = layout.sources.get(name, (name,))
        if all(part in loaded for part in parts):
            out[name] = loaded[parts[0]] if len(parts) == 1 else np.concatenate([loaded[part] for part in parts], 1)
    return out


def _warn_of_gaps(layout: Layout, columns: dict[str, np.ndarray]) -> None:
    """Name further columns that hold NaN or infinities; what learns from one refuses it."""
    for key, values in columns.items():
        if bad := int((~np.isfinite(values)).any(1).sum()):
            warnings.warn(
                f"{layout.root}: '{key}' is NaN or infinite in {bad} of {len(values)} rows",
                DatasetWarning,
                stacklevel=3,
            )


def _several(source: str | Path) -> list[str]:
    """The parts of `A,B`; empty for one dataset, also for one whose name has a comma."""
    from .several import SEPARATOR

    names = [name.strip() for name in str(source).split(SEPARATOR) if name.strip()]
    return names if len(names) > 1 and not expand_path(source).exists() else []


def _locate(source: str | Path) -> tuple[Path, str | None]:
    path = expand_path(source)
    if path.is_file() or (path.is_dir() and not (path / INFO).is_file()):
        from .imports import imported

        return imported(path), None
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) or str(source).startswith("."):
        return path, None
    return fetch(str(source), ["meta/*", "meta/**", "data/**"]), str(source)


def fetch(hub: str, patterns: list[str]) -> Path:
    """Download part of a hub dataset (kept in the hub's cache). Raises DatasetError when it cannot."""
    from ..hub import HubError
    from ..hub import fetch as fetch_files

    try:
        return fetch_files(hub, "dataset", patterns)
    except HubError as error:
        raise DatasetError(str(error)) from error


def _warn_of_depth(layout: Layout) -> None:
    if layout.depth_cameras:
        names = ", ".join(map(camera_name, layout.depth_cameras))
        warning = f"{layout.root}: left out what depth cameras measured, which are not read as pictures: {names}"
        warnings.warn(warning, DatasetWarning, stacklevel=3)


def _wanted(layout: Layout, cameras: dict[str, str], columns: tuple[str, ...] | None, check: bool) -> tuple[str, ...]:
    if columns is None:
        return tuple(dict.fromkeys((*layout.vectors, ACTION))) if check else layout.vectors
    for name in columns:
        if name.startswith(IMAGES) and name.removeprefix(IMAGES) not in cameras:
            raise _no_camera(layout, name.removeprefix(IMAGES))
    return tuple(dict.fromkeys((*(name for name in columns if not name.startswith(IMAGES)), ACTION)))
