"""What the cameras of a dataset show, by a few frames of a few episodes: a strip to draw, and what is odd about them.

Films are compared with the clips that lie in them; a camera that is black, shows one shade or stands still is told, and
so is one whose pictures cannot be read, which hinders nobody who does not ask for it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ...configs.progress import counted
from ...configs.spec import STATE
from ...policies.data.dataset import Dataset
from ...policies.data.decode import fit, sample_pictures
from ...policies.data.embody import picture_size
from ...policies.data.films import align_clips, read_film
from ...policies.data.frames import episodes_with_pictures
from ...policies.data.layout import DatasetError
from ...policies.data.tables import DatasetWarning, file_inside

STRIP = 8  # frames of an episode that are looked at
EPISODES = 5  # of a camera
FILMS = 24  # whose times are read
TALL = 120  # height of the frames of a strip, px
DARK, ALIKE, FLAT = 16, 3, 1.0  # levels of 255: black at most, differences that coding makes, spread of one shade


@dataclass(frozen=True)
class Look:
    """One camera, as far as it was looked at."""

    camera: str
    strip: np.ndarray | None  # (h, w, 3) uint8, frames of the first episode side by side
    note: str  # why there is no strip; empty where there is one
    warnings: tuple[str, ...]


def look_at_cameras(dataset: Dataset) -> tuple[Look, ...]:
    """A look at every camera; says what cannot be read, and raises nothing for it."""
    return tuple(_look(dataset, camera) for camera in dataset.cameras)


def _look(dataset: Dataset, camera: str) -> Look:
    there = episodes_with_pictures(dataset, camera)
    if not len(there):
        return Look(camera, None, "no video on disk", ())

    key = dataset.camera(camera)
    odd = [*_odd_films(dataset, key, there)] if dataset.features[key]["dtype"] == "video" else []
    seen: dict[int, np.ndarray] = {}
    strip, unread = None, []
    chosen = there[np.unique(np.linspace(0, len(there) - 1, EPISODES).astype(int))].tolist()
    for m in chosen:
        try:
            places, pictures, told = _sample(dataset, key, m)
        except DatasetError as error:
            unread.append(str(error))
            continue
        odd += told
        if strip is None:
            height, width = pictures[0].shape[:2]
            size = (TALL, max(1, round(width * TALL / height)))
            strip = np.concatenate([fit(picture, size) for picture in pictures], axis=1)
        odd += _other_size(dataset, key, pictures[0])
        if len({picture.shape for picture in pictures}) == 1:
            seen[m] = np.stack(pictures)
            odd += _stops(dataset, camera, m, places, seen[m])
    if unread:
        more = (
            f" (and so in {len(unread)} of the {counted(len(chosen), 'episode')} looked at)" if len(unread) > 1 else ""
        )
        odd.append(f"camera '{camera}' cannot be read: {unread[0]}{more}")
    odd += [f"camera '{camera}' {what}" for what in _dull(dataset, seen)]
    return Look(camera, strip, "" if strip is not None else unread[0], tuple(dict.fromkeys(odd)))


def _sample(dataset: Dataset, key: str, m: int) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Places, frames there, and warnings about the pictures other than those about whole films."""
    entry = dataset.layout.entries[m]
    places = np.unique(np.linspace(0, entry.length - 1, STRIP).astype(int))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        pictures = sample_pictures(dataset.layout, key, entry, places)
    told = [str(one.message) for one in caught if issubclass(one.category, DatasetWarning)]
    return places, pictures, told


def _odd_films(dataset: Dataset, key: str, there: np.ndarray):
    """What the times of films say, in a sentence for each kind of oddity."""
    entries = [dataset.layout.entries[m] for m in there]
    paths = list(dict.fromkeys(entry.clips[key].path for entry in entries))
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, FILMS).astype(int))]
    found = []
    for path in chosen:
        try:
            film = read_film(file_inside(dataset.root, path), f"the episodes of {path}")
            aligned = align_clips(dataset.layout, key, path, film)
        except DatasetError as error:
            found.append(str(error))
        else:
            found += [*filter(None, [aligned.warning]), *aligned.lacking.values()]
    yield from found[:3]
    if len(found) > 3:
        yield (
            f"of {counted(len(chosen), 'film')} of '{key}' that were looked at, {len(found) - 3} more oddities are "
            "not listed"
        )


def _other_size(dataset: Dataset, key: str, picture: np.ndarray):
    try:
        stated = picture_size(dataset.features[key])
    except DatasetError as error:
        yield f"'{key}': {error}"
        return
    if picture.shape[:2] != stated:
        (height, width), (tall, wide) = picture.shape[:2], stated
        yield (
            f"the pictures of '{key}' are {height}x{width}, meta/info.json says {tall}x{wide}; correct the shape there"
        )


def _dull(dataset: Dataset, seen: dict[int, np.ndarray]):
    """What is said of a camera that shows nothing, or always the same."""
    black = [m for m, pictures in seen.items() if np.percentile(pictures, 99.5) <= DARK]
    flat = [m for m, pictures in seen.items() if m not in black and max(p.std() for p in pictures) < FLAT]
    dull = {*black, *flat}
    still = [m for m, pictures in seen.items() if m not in dull and _pairs(pictures).all() and len(pictures) > 1]
    for found, what in (
        (black, "is black"),
        (flat, "shows one shade without any detail"),
        (still, "stands still, showing the same picture all the time,"),
    ):
        if found:
            ids = ", ".join(str(dataset.episode_ids[m]) for m in found)
            yield (
                f"{what} in {len(found)} of {counted(len(seen), 'episode')} looked at: {ids}; leave it or these "
                "episodes out"
            )


def _stops(dataset: Dataset, camera: str, m: int, places: np.ndarray, pictures: np.ndarray):
    """A camera that stands still in half of an episode or more, while the state goes on changing."""
    still = _pairs(pictures)
    if still.all() or np.percentile(pictures, 99.5) <= DARK:
        return  # which is told of the whole camera
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return
    first, end = (int(i) for i in runs[np.argmax(runs[:, 1] - runs[:, 0])])
    if end - first < len(still) / 2:
        return
    begin, last = int(places[first]), int(places[end])
    states = dataset.columns.get(STATE)
    rows = dataset.starts[m] + np.arange(begin, last + 1)
    if states is None or np.ptp(states[rows], axis=0).any():
        yield (
            f"camera '{camera}' stands still from about frame {begin} to frame {last} of episode"
            f" {dataset.episode_ids[m]}, which has {dataset.lengths[m]}; look at it, or leave the episode out"
        )


def _pairs(pictures: np.ndarray) -> np.ndarray:
    """(n - 1,) bool: whether a frame shows what the one before it shows."""
    differences = np.abs(np.diff(pictures.astype(np.int16), axis=0))
    return differences.reshape(len(differences), -1).max(1, initial=0) <= ALIKE
