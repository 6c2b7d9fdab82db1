"""Small films of chosen episodes, made anew from what a dataset keeps, so that a page can carry them.

Bounded in frames that are decoded and in bytes; which episodes have no film is said.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ....policies.data.dataset import Dataset
from ....policies.data.decode import decode_episodes, fit, sample_pictures
from ....policies.data.embody import picture_size
from ....policies.data.frames import episodes_with_pictures
from ....policies.data.layout import DatasetError

TALL, TALL_OF_MANY = 240, 160  # px of a film, of each of more than two cameras
FRAMES = 200  # of a film, at most; a longer episode is thinned out
LONG = 3_000  # frames of an episode above which single frames are sought instead of all decoded
DECODED = 12_000  # frames that are decoded in all, about
BYTES = 24 * 2**20  # of all films of a page
QUALITY, GROUP = 30, 25  # constant rate factor; frames from key frame to key frame
EDGE_TALL = 96  # px of the first and last pictures


@dataclass
class Films:
    """What a page shows of the cameras."""

    films: dict[tuple[int, str], str] = field(default_factory=dict)  # (position, camera) -> base64 of an mp4
    edges: dict[tuple[int, str], tuple[str, str]] = field(default_factory=dict)  # first and last picture, data URIs
    remarks: list[str] = field(default_factory=list)  # what is not shown, a sentence each


def make_films(dataset: Dataset, chosen: Sequence[int]) -> Films:
    """Films of the episodes at the positions `chosen`; what cannot be read is a remark and hinders nothing."""
    made, there = Films(), {camera: set(episodes_with_pictures(dataset, camera)) for camera in dataset.cameras}
    tall = TALL if len(dataset.cameras) <= 2 else TALL_OF_MANY
    decoded, size, without = 0, 0, []
    broken: set[str] = set()

    # From both ends and the middle, so that whatever is left out lies between.
    for m in _far_apart(chosen):
        cameras = [camera for camera in dataset.cameras if m in there[camera] and camera not in broken]
        cost = int(dataset.lengths[m]) if dataset.lengths[m] <= LONG else 5 * FRAMES
        if cameras and made.films and (decoded + cost * len(cameras) > DECODED or size > BYTES):
            without.append(int(dataset.episode_ids[m]))
            continue
        for camera in cameras:
            try:
                frames = list(_frames(dataset, camera, m, tall))
            except DatasetError as error:
                made.remarks.append(f"camera {camera} is not shown: {error}")
                broken.add(camera)
                continue
            film = _encode(frames, len(frames) * dataset.rate / dataset.lengths[m])
            made.films[m, camera] = base64.b64encode(film).decode()
            made.edges[m, camera] = (_picture(frames[0]), _picture(frames[-1]))
            decoded, size = decoded + cost, size + len(film)

    if without:
        shown = ", ".join(map(str, sorted(without)))
        made.remarks.append(f"no film of episodes {shown}: the page is kept small; show fewer with --episodes")
    return made


def _far_apart(chosen: Sequence[int]) -> list[int]:
    """The same positions, any first few of them spread out."""
    ordered = list(dict.fromkeys([*chosen[:1], *chosen[-1:]]))
    gaps = [list(chosen[1:-1])]
    while gaps:
        gap = gaps.pop(0)
        if gap:
            middle = len(gap) // 2
            ordered.append(gap[middle])
            gaps += [gap[:middle], gap[middle + 1 :]]
    return ordered


def _frames(dataset: Dataset, camera: str, m: int, tall: int) -> Iterator[np.ndarray]:
    """Up to `FRAMES` pictures spread evenly over an episode, of even height and width."""
    key, entry = dataset.camera(camera), dataset.layout.entries[m]
    places = np.unique(np.linspace(0, entry.length - 1, min(entry.length, FRAMES)).astype(int))
    if entry.length > LONG:
        pictures = sample_pictures(dataset.layout, key, entry, places)
        size = _size(pictures[0].shape[:2], tall)
        yield from (fit(picture, size) for picture in pictures)
        return
    size, wanted = _size(picture_size(dataset.features[key]), tall), set(places.tolist())
    for _, decoded in decode_episodes(dataset.layout, key, [entry], size):
        yield from (picture for i, picture in enumerate(decoded) if i in wanted)


def _size(shape: tuple[int, int], tall: int) -> tuple[int, int]:
    """(height, width), even, at most `tall` high and never enlarged beyond what h264 needs."""
    scale = min(1.0, tall / shape[0])
    height, width = (max(16, 2 * round(side * scale / 2)) for side in shape)
    return height, width


def _encode(frames: Sequence[np.ndarray], rate: float) -> bytes:
    from ....policies.data.encode import write_mp4

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, frames, rate, quality=QUALITY, group=GROUP)
        return path.read_bytes()


def _picture(frame: np.ndarray) -> str:
    height, width = frame.shape[:2]
    return data_uri_of(fit(frame, (EDGE_TALL, max(1, round(width * EDGE_TALL / height)))))


def data_uri_of(picture: np.ndarray) -> str:
    """A picture, uint8 (h, w, 3) RGB, as the data URI of a JPEG."""
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} could not be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
