"""Videos and picture columns to RGB frames, with PyAV and OpenCV.

Which frame of a film belongs to which row, `films` tells. Knows nothing of the cache.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .embody import picture_size
from .films import Alignment, Film, align_clips, cannot_decode, decoding, read_film
from .layout import DatasetError, Entry, Layout
from .rows import Rows, files_of, read_rows
from .suspects import noted
from .tables import DatasetWarning, file_inside, refuse_leaving, refuse_pointer

Crop = tuple[int, int, int, int]  # top, left, height, width in pixels of the recorded picture
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # how these files begin
TAGGED = (1, 4, 7, 9)  # colour matrices that PyAV before 17 takes for BT.601: BT.709, FCC, SMPTE 240M, BT.2020
UPRIGHT = 1 | 128  # cv2.IMREAD_COLOR, IMREAD_IGNORE_ORIENTATION: as recorded and as lerobot reads, whatever EXIF says
BT601, FULL = 5, 2  # the matrix that is none of these, and the range of 0 to 255, as FFmpeg numbers them


def middle_of(recorded: tuple[int, int], size: tuple[int, int]) -> Crop:
    """The middle of a recorded picture (height, width) that has the proportions of `size`, as large as it can be."""
    height, width = recorded
    tall, wide = min(height, round(width * size[0] / size[1])), min(width, round(height * size[1] / size[0]))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def fit(picture: np.ndarray, size: tuple[int, int], crop: Crop | None = None) -> np.ndarray:
    """Crop and resize uint8 (h, w, 3) to `size` (height, width); without a crop the middle of the right proportions."""
    import cv2

    height, width = picture.shape[:2]
    if crop is None and height * size[1] != width * size[0]:
        crop = middle_of((height, width), size)
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
        DatasetError: a file that is missing, damaged or too short, a film whose clips do not fit it, pictures of
            another size than the features say where that size is asked for.
    """
    read = _from_video if layout.features[key]["dtype"] == "video" else _from_column
    checked = _SizeCheck(layout, key, tuple(size), crop)
    for entry, pictures in read(layout, key, entries):
        yield entry, (fit(checked(picture, entry), size, crop) for picture in pictures)


class _SizeCheck:
    """Compares the size of pictures with what `meta/info.json` says; warns once."""

    def __init__(self, layout: Layout, key: str, size: tuple[int, int], crop: Crop | None):
        self._key, self._info, self._warned = key, layout.root / "meta" / "info.json", False
        try:
            self._stated: tuple[int, int] | None = picture_size(layout.features[key])
        except DatasetError:
            self._stated = None
        self._strict = size == self._stated and crop is None

    def __call__(self, picture: np.ndarray, entry: Entry) -> np.ndarray:
        if self._stated and picture.shape[:2] != self._stated and not self._warned:
            (height, width), (tall, wide) = picture.shape[:2], self._stated
            differ = (
                f"the pictures of '{self._key}' are {height}x{width} (episode {entry.id}), {self._info} says"
                f" {tall}x{wide}"
            )
            if self._strict:
                raise DatasetError(f"{differ}; correct the shape there, or ask for pictures of another size")
            warnings.warn(f"{differ}; they are fitted to the size asked for", DatasetWarning, stacklevel=4)
            self._warned = True
        return picture


def _from_video(layout: Layout, key: str, entries: list[Entry]) -> Iterator[tuple[Entry, Iterator[np.ndarray]]]:
    films: dict[str, tuple[Film, Alignment]] = {}
    warned = False
    for entry in entries:
        path, what = entry.clips[key].path, f"episode {entry.id}"
        if path not in films:
            film = read_film(file_inside(layout.root, path), what)
            films[path] = film, align_clips(layout, key, path, film)
            if (odd := films[path][1].warning) and not warned:
                warnings.warn(f"{odd} (other films of this camera may be alike)", DatasetWarning, stacklevel=4)
                warned = True
        film, found = films[path]
        if entry.id in found.lacking:
            raise DatasetError(found.lacking[entry.id])
        yield entry, read_frames(film, found.frames[entry.id], what)


def sample_pictures(layout: Layout, key: str, entry: Entry, places: np.ndarray) -> list[np.ndarray]:
    """The frames `places` (ascending) of an episode as recorded, each uint8 (h, w, 3).

    Raises:
        DatasetError: as `decode_episodes` does.
    """
    what = f"episode {entry.id}"
    if layout.features[key]["dtype"] == "video":
        path = entry.clips[key].path
        film = read_film(file_inside(layout.root, path), what)
        found = align_clips(layout, key, path, film)
        if entry.id in found.lacking:
            raise DatasetError(found.lacking[entry.id])
        numbers = found.frames[entry.id][places]
        return [picture for number in numbers for picture in read_frames(film, np.array([number]), what)]
    rows = _picture_rows(layout, key, entry.file, files_of(layout)[entry.file])
    first = next(first for one, first in rows.places if one is entry)
    cells = rows.table[key].slice(first, entry.length).take(places.tolist())
    return list(_unpack(layout.root, cells, f"{key} of {what}"))


def read_frames(film: Film, numbers: np.ndarray, what: str = "the episode") -> Iterator[np.ndarray]:
    """The frames `numbers` (ascending) of a film, uint8 (h, w, 3) RGB, found by their time.

    Raises:
        DatasetError: the file cannot be decoded, or a frame is not there.
    """
    import av

    wanted = film.stamps[numbers].tolist()
    done = 0
    try:
        for seek in (True, False) if numbers[0] > 0 else (False,):  # from the start if the frame sought is passed by
            with noted(film.path, what), decoding(film.path) as (container, stream):
                if seek:
                    container.seek(wanted[0], stream=stream)
                for frame in container.decode(stream):
                    if frame.pts == wanted[done]:
                        yield _colours(frame, film.path)
                        done += 1
                        if done == len(wanted):
                            return
                    elif frame.pts is not None and frame.pts > wanted[done]:
                        break
            if done:
                break
    except (av.FFmpegError, IndexError) as error:
        raise cannot_decode(film.path, error, what) from error
    raise cannot_decode(film.path, f"frame {numbers[done]} of it is broken", what)


def _colours(frame, path: Path) -> np.ndarray:
    """A decoded frame as uint8 (h, w, 3) RGB, by the colours that its film is tagged with."""
    _refuse_deep(frame.format.name.startswith("gray") and frame.format.components[0].bits > 8, path)
    if frame.colorspace not in TAGGED:
        return frame.to_ndarray(format="rgb24")
    full = {"src_color_range": FULL, "dst_color_range": FULL} if frame.color_range == FULL else {}
    return frame.to_ndarray(format="rgb24", src_colorspace=frame.colorspace, dst_colorspace=BT601, **full)


def _depth(data: bytes) -> tuple[int, int]:
    """Bits a channel and channels, alpha left out, of an encoded picture; from the header where that says it."""
    import cv2

    if data[:8] == PNG:
        bits, kind = data[24], data[25]
        return bits, 1 if kind in (0, 4) else 3
    if data[:2] == JPEG:
        return 8, 3
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return 8 * whole.dtype.itemsize, 1 if whole.ndim == 2 else 3


def read_picture(data: bytes) -> tuple[np.ndarray, int, int] | None:
    """An encoded picture as uint8 (h, w, 3) RGB, the bits a channel and the channels that it had; None of none."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), UPRIGHT) if data else None
    return None if picture is None else (cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), *_depth(data))


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
        rows = _picture_rows(layout, key, file, members)
        for entry, first in rows.places:
            if entry in wanted:
                cells = rows.table[key].slice(first, entry.length)
                yield entry, _unpack(layout.root, cells, f"{key} of episode {entry.id}")


def _picture_file(root: Path, relative: str, what: str) -> bytes | None:
    """The bytes of a picture that lies in a file of its own; None if it is not there."""
    refuse_leaving(relative, what)
    path = file_inside(root, relative)
    if not path.is_file():
        return None
    refuse_pointer(path)
    return path.read_bytes()


def _picture_rows(layout: Layout, key: str, file: str, members: list[Entry]) -> Rows:
    rows = read_rows(layout, file, members, [key], strict=False)
    if key not in rows.table.column_names:
        raise DatasetError(f"the picture column '{key}' is not in {layout.root / file}; copy the file again")
    return rows


def _unpack(root: Path, column: Iterable, what: str) -> Iterator[np.ndarray]:
    """Pictures of an Arrow column of {bytes, path}."""
    import cv2

    for frame, cell in enumerate(column):
        value = cell.as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            data = _picture_file(root, value["path"], f"frame {frame} of {what}")
        data = data if isinstance(data, bytes) else None
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), UPRIGHT) if data else None
        except cv2.error as error:  # too large a size in a damaged header, for one
            reason = str(error).strip().rpartition("failed)")[2].strip()
            raise DatasetError(
                f"frame {frame} of {what} cannot be decoded ({reason}); copy the data file again"
            ) from error
        if picture is None:
            raise DatasetError(f"frame {frame} of {what} is no readable picture; copy the data file again")
        bits, channels = _depth(data)
        _refuse_deep(bits > 8 and channels == 1, what)
        if bits > 8 and frame == 0:
            cut = f"{what} holds pictures of {bits} bits a channel, of which 8 are read; depth is to be left out"
            warnings.warn(cut, DatasetWarning, stacklevel=4)
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
