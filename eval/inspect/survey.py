"""What is in a dataset and what is odd about it, as plain data; `inspect` prints it and `sheet` draws it.

Looks at numbers and at which video files exist; decodes no picture, which `cameras` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...configs.episode import DONE, REWARD, SENT, SUCCESS
from ...configs.progress import counted
from ...configs.spec import ACTION, SCENE, STATE
from ...policies.data.bent import bent_warning
from ...policies.data.dataset import Dataset
from ...policies.data.embody import dimension_names
from ...policies.data.frames import episodes_with_pictures, ranges
from ...policies.data.layout import BOOKKEEPING
from ...policies.data.pace import pace_warning
from .numbers import StoredPicture, stored_pictures

GAP = 0.1  # part of a step by which a timestamp may be off
TIME = "timestamp"
WIDE = 64  # numbers of a column that are shown one by one; more are summed up


@dataclass(frozen=True)
class Dimension:
    """One number of one column."""

    column: str
    name: str
    unit: str  # "" where units make no sense
    low: float  # of the finite values; NaN if there are none
    high: float
    mean: float
    std: float
    bad: int  # NaN and infinite values

    @property
    def constant(self) -> bool:
        """An action or an observation that never changes."""
        return self.column.startswith(("action", "observation.")) and self.low == self.high


@dataclass(frozen=True)
class Survey:
    """All dimensions of all loaded columns, and sentences about what is odd."""

    dimensions: tuple[Dimension, ...]
    warnings: tuple[str, ...]
    stored: tuple[StoredPicture, ...] = ()  # pictures that are columns of numbers


def survey(dataset: Dataset) -> Survey:
    """Look through a dataset that was opened with `check=False`."""
    dimensions = tuple(
        _dimension(key, name, unit, values)
        for key, column in dataset.columns.items()
        if key not in (TIME, "task_index", *BOOKKEEPING)
        for name, unit, values in _parts(dataset, key, column)
    )
    stored = stored_pictures(dataset)
    warnings = [*_blind(dataset), *_missing(dataset), *_bad(dataset, dimensions), *_constant(dataset, dimensions)]
    warnings += [*_units(dataset), *_gaps(dataset), *_limits(dataset), *_videos(dataset), *_stored(stored)]
    warnings += [said for said in (pace_warning(dataset), bent_warning(dataset)) if said]
    return Survey((*dimensions, *map(_picture, stored)), tuple(warnings), stored)


def _parts(dataset: Dataset, key: str, column: np.ndarray):
    """Name, unit and values of each dimension; a wide column is one."""
    if column.shape[1] > WIDE:
        shape = "x".join(map(str, dataset.features[key].get("shape") or column.shape[1:]))
        return [
            (
                f"{counted(column.shape[1], 'number')} ({shape} {dataset.features[key].get('dtype')})",
                "",
                column.reshape(-1),
            )
        ]
    return zip(*_labels(dataset, key), column.T, strict=True)


def _picture(one: StoredPicture) -> Dimension:
    name = f"{int(np.prod(one.shape))} numbers ({'x'.join(map(str, one.shape))} uint8, {counted(one.frames, 'frame')})"
    return Dimension(one.column, name, "", one.low, one.high, one.mean, one.std, 0)


def _stored(stored: tuple[StoredPicture, ...]):
    for one in stored:
        yield (
            f"'{one.column}' is a picture stored as numbers ({'x'.join(map(str, one.shape))} uint8): no camera, and not"
            " loaded. To use it, convert the dataset so that it is a feature of dtype `image` or `video`"
        )


def _blind(dataset: Dataset):
    """Said of a dataset in which nothing is observed."""
    observed = [key for key in (*dataset.columns, *dataset.layout.stored_pictures) if key.startswith("observation.")]
    if observed or dataset.cameras:
        return
    other = [key for key in dataset.layout.vectors if key not in (ACTION, TIME, "task_index", REWARD, DONE, SUCCESS)]
    other += dataset.layout.stored_pictures
    hint = f"; its other columns: {', '.join(other)}. If one of them is the state, name it {STATE}" if other else ""
    yield (
        f"nothing is observed: neither {STATE}, {SCENE} nor a camera is there, so a policy could only act blindly"
        f" and training is refused{hint}"
    )


def _labels(dataset: Dataset, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    body = dataset.embodiment
    stated = {
        ACTION: (body.action, body.action_units),
        SENT: (body.action, body.action_units),
        STATE: (body.state, body.state_units),
        SCENE: (body.scene, body.scene_units),
    }
    names = dimension_names(dataset.features[key])
    names = ("",) if names == ("0",) else names
    labels = stated.get(key, ((), ()))
    return labels if len(labels[0]) == len(names) else (names, ("",) * len(names))


def _dimension(key: str, name: str, unit: str, values: np.ndarray) -> Dimension:
    good = values[np.isfinite(values)].astype(np.float64)
    bad = len(values) - len(good)
    good = good if len(good) else np.array([np.nan])
    return Dimension(key, name, unit, *(float(f()) for f in (good.min, good.max, good.mean, good.std)), bad)


def _missing(dataset: Dataset):
    for key in dict.fromkeys((*dataset.layout.vectors, ACTION)):
        if key not in dataset.columns:
            yield f"column '{key}' is missing from the data files"


def _bad(dataset: Dataset, dimensions: tuple[Dimension, ...]):
    for key in dict.fromkeys(d.column for d in dimensions if d.bad):
        rows = np.flatnonzero(~np.isfinite(dataset.columns[key]).all(1))
        names = ", ".join(d.name for d in dimensions if d.column == key and d.bad)
        yield (
            f"'{key}' has NaN or infinite values in {counted(len(rows), 'frame')} ({_where(dataset, rows)}), "
            f"dimensions {names}"
        )


def _constant(dataset: Dataset, dimensions: tuple[Dimension, ...]):
    for key in (ACTION, STATE, SCENE):
        names = [d.name for d in dimensions if d.column == key and d.constant]
        if names:
            yield f"'{key}' never changes in {', '.join(names)}"
        column = dataset.columns.get(key)
        if column is not None and column.shape[1] > WIDE and not names:
            still = np.flatnonzero(column.min(0) == column.max(0))
            if len(still):
                yield (
                    f"'{key}' never changes in {len(still)} of its {counted(column.shape[1], 'number')}, the first "
                    f"is {still[0]}"
                )


def _units(dataset: Dataset):
    if unknown := dataset.embodiment.unknown_in_short:
        yield (
            f'not specified: {unknown} (shown as "?"): enough to train and to compare, but an arm refuses it; to say '
            "what they are: --embodiment FILE, or meta/embodiment.json in the dataset"
        )


def _gaps(dataset: Dataset):
    if TIME not in dataset.columns:
        return
    steps = np.diff(dataset.columns[TIME][:, 0].astype(np.float64)) * dataset.rate
    inside = np.ones(len(steps), bool)
    inside[dataset.starts[1:] - 1] = False  # from one episode to the next
    rows = np.flatnonzero(inside & ~(np.abs(steps - 1) < GAP)) + 1
    if len(rows):
        worst = rows[np.nanargmax(np.abs(steps[rows - 1] - 1))]
        yield (
            f"timestamps do not advance by 1/{dataset.rate:g} s at {counted(len(rows), 'frame')} "
            f"({_where(dataset, rows)}); the largest step is {steps[worst - 1] / dataset.rate:.3g} s"
        )


def _limits(dataset: Dataset):
    if ACTION not in dataset.columns:
        return
    low, high = np.asarray(dataset.embodiment.limits, np.float32).reshape(-1, 2).T
    action = dataset.columns[ACTION]
    slack = 1e-4 * (high - low)
    rows = np.flatnonzero(((action < low - slack) | (action > high + slack)).any(1))
    if len(rows):
        yield f"actions leave the embodiment's limits in {counted(len(rows), 'frame')} ({_where(dataset, rows)})"


def _videos(dataset: Dataset):
    for camera, key in dataset.cameras.items():
        there = set(episodes_with_pictures(dataset, camera).tolist())
        missing = [i for m, i in enumerate(dataset.episode_ids.tolist()) if m not in there]
        if missing:
            yield f"camera '{camera}' has no video on disk for {counted(len(missing), 'episode')}: {ranges(missing)}"
        rate = (dataset.features[key].get("info") or {}).get("video.fps", dataset.rate)
        if rate != dataset.rate:
            yield f"camera '{camera}' runs at {rate:g} Hz, the dataset at {dataset.rate:g} Hz"


def _where(dataset: Dataset, rows: np.ndarray) -> str:
    m = int(np.searchsorted(dataset.starts, rows[0], "right")) - 1
    return f"first in episode {dataset.episode_ids[m]}, frame {rows[0] - dataset.starts[m]}"
