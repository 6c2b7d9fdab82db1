"""Videos and picture columns to RGB frames, with PyAV and OpenCV.

Frames of an episode are found in a video by their time, counted from the clip's start. Knows nothing of the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .layout import DatasetError, Entry, Layout, file_inside, refuse_leaving, refuse_pointer
from .rows import files_of, read_rows

Crop = tuple[int, int, int, int]  # top, left, height, width in pixels of the recorded picture


def fit(picture: np.ndarray, size: tuple[int, int], crop: Crop | None = None) -> np.ndarray:
    """Crop and resize uint8 (h, w, 3) to `size` (height, width); without a crop the middle of the right proportions."""
    import cv2

    height, width = picture.shape[:2]
    if crop is None and height * size[1] != width * size[0]:
        tall, wide = min(height, round(width * size[0] / size[1])), min(width, round(height * size[1] / size[0]))
        crop = ((height - tall) // 2, (width - wide) // 2, tall, wide)
    if crop is not None:
        top, left, tall, wide = crop
        if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
            raise DatasetError(
                f"the crop {crop} (top, left, height, width) leaves the recorded picture of {height}x{width}"
            )
        picture = picture[top : top + tall, left : left + wide]
    if picture.shape[:2] == tuple(size):
        return np.ascontiguousarray(picture)
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def decode_episodes(
    layout: Layout, key: str, entries: list[Entry], size: tuple[int, int], crop: Crop | None = None
) -> Iterator[tuple[Entry, Iterator[np.ndarray]]]:
    """Each entry with the iterator of its `length` fitted pictures; consume one before asking for the next.

    Raises:
        DatasetError: a file that is missing, damaged or too short.
    """
    read = _from_video if layout.features[key]["dtype"] == "video" else _from_column
    for entry, pictures in read(layout, key, entries):
        yield entry, (fit(picture, size, crop) for picture in pictures)


def _from_video(layout: Layout, key: str, entries: list[Entry]) -> Iterator[tuple[Entry, Iterator[np.ndarray]]]:
    for entry in entries:
        clip = entry.clips[key]
        path = file_inside(layout.root, clip.path)
        yield entry, read_clip(path, clip.start, entry.length, layout.rate, f"episode {entry.id}")


def read_clip(path: Path, start: float, length: int, rate: float, what: str = "the clip") -> Iterator[np.ndarray]:
    """`length` frames of a video from `start` seconds on, uint8 (h, w, 3) RGB, found by their time.

    Raises:
        DatasetError: the file cannot be decoded, or a frame is not there.
    """
    import av

    expected = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if start > 0:
                container.seek(int(max(0.0, start - 0.5 / rate) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                index = round((float(frame.pts * stream.time_base) - start) * rate)
                if index > expected or expected >= length:
                    break
                if index == expected:
                    _refuse_deep(frame.format.name.startswith("gray") and frame.format.components[0].bits > 8, path)
                    yield frame.to_ndarray(format="rgb24")
                    expected += 1
    except (av.FFmpegError, IndexError) as error:
        refuse_pointer(path)
        raise DatasetError(
            f"the video {path} cannot be decoded ({error}); copy it again or leave {what} out"
        ) from error
    if expected < length:
        raise DatasetError(
            f"the video {path} lacks frame {expected} of the {length} of {what}; copy it again or leave the episode out"
        )


def _refuse_deep(deep: bool, what: str | Path) -> None:
    """Raise DatasetError for one channel of more than 8 bits: distances, which 8 bits of colour would falsify."""
    if deep:
        raise DatasetError(
            f"{what} holds no colours but one channel of more than 8 bits, as depth cameras give; leave this camera out"
        )


def _from_column(layout: Layout, key: str, entries: list[Entry]) -> Iterator[tuple[Entry, Iterator[np.ndarray]]]:
    wanted = set(entries)
    for file, members in files_of(layout).items():
        if wanted.isdisjoint(members):
            continue
        rows = read_rows(layout, file, members, [key], strict=False)
        table = rows.table
        if key not in table.column_names:
            raise DatasetError(f"the picture column '{key}' is not in {layout.root / file}; copy the file again")
        for entry, first in rows.places:
            if entry in wanted:
                yield entry, _unpack(layout.root, table[key].slice(first, entry.length), f"{key} of episode {entry.id}")


def _picture_file(root: Path, relative: str, what: str) -> bytes | None:
    """The bytes of a picture that lies in a file of its own; None if it is not there."""
    refuse_leaving(relative, what)
    path = file_inside(root, relative)
    if not path.is_file():
        return None
    refuse_pointer(path)
    return path.read_bytes()


def _unpack(root: Path, column: Iterable, what: str) -> Iterator[np.ndarray]:
    """Pictures of an Arrow column of {bytes, path}."""
    import cv2

    for frame, cell in enumerate(column):
        value = cell.as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            data = _picture_file(root, value["path"], f"frame {frame} of {what}")
        raw = np.frombuffer(data, np.uint8) if data else None
        picture = cv2.imdecode(raw, cv2.IMREAD_COLOR) if data else None
        if picture is None:
            raise DatasetError(f"frame {frame} of {what} is no readable picture; copy the data file again")
        if frame == 0:  # one is enough: a column holds pictures of one kind
            whole = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
            _refuse_deep(whole is not None and whole.ndim == 2 and whole.dtype != np.uint8, what)
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
