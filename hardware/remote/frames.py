"""Which observations of a history go over the line: each once. The same rule on both sides says what is still held.

A frame belongs to a lane and a tick, the control step of its episode; before an episode its first frame stands. The
client compares what it is asked to tell with what it told before, so that a history that was put together otherwise
is told anew and never mixed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np

from .messages import Frames
from .wire import WireError

Held = list[dict[str, dict[int, np.ndarray]]]  # lane -> key -> tick -> frame


class Told:
    """The client's side: what the server holds of each lane."""

    def __init__(self, reach: int):
        self._reach = reach
        self.forget()

    def forget(self) -> None:
        """The server holds nothing."""
        self._held: Held = []
        self._now = np.zeros(0, np.int64)

    def news(
        self, obs: Mapping[str, np.ndarray], times: tuple[int, ...], now: np.ndarray
    ) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """What has to be told so that the server holds these observations, which counts as told.

        Args:
            obs: key -> (B, O, ...).
            times: O offsets in control steps.
            now: (B,) ticks.

        Returns:
            (B,) bool, lanes that begin anew; key -> (lane, tick, values) of M frames.
        """
        if len(now) != len(self._held):
            self._held, self._now = [{} for _ in now], np.full(len(now), -1)
            fresh: np.ndarray = np.ones(len(now), bool)
        else:
            fresh = now < self._now
        self._now = now.copy()

        for lane in np.flatnonzero(fresh):
            self._held[lane] = {}
        ticks = ticks_of(times, now)
        news = {key: self._of_key(key, values, ticks) for key, values in obs.items()}
        forget_before(self._held, now, self._reach)
        return fresh, news

    def _of_key(self, key: str, values: np.ndarray, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places: dict[tuple[int, int], int] = {}  # (lane, tick) -> position of what is new
        for lane, row in enumerate(ticks.tolist()):
            held = self._held[lane].setdefault(key, {})
            for position, tick in enumerate(row):
                before = places.get((lane, tick))
                known = held.get(tick) if before is None else values[lane, before]
                if known is None or not np.array_equal(known, values[lane, position]):
                    places[lane, tick] = position
        index = tuple(np.array([(lane, at) for (lane, _), at in places.items()], np.int64).reshape(-1, 2).T)
        news = values[index]
        for (lane, tick), frame in zip(places, news, strict=True):
            self._held[lane][key][tick] = frame
        return index[0], ticks[index], news


def ticks_of(times: tuple[int, ...], now: np.ndarray) -> np.ndarray:
    """(B, O) tick of each observed frame."""
    return np.maximum(now[:, None] + np.asarray(times, np.int64)[None], 0)


def forget_before(held: Held, now: np.ndarray, reach: int) -> None:
    """Drop what no later window of this reach reads."""
    for lane, first in zip(held, (now - reach).tolist(), strict=True):
        for frames in lane.values():
            for tick in [tick for tick in frames if tick < first]:
                del frames[tick]


def as_frames(lane: np.ndarray, tick: np.ndarray, values: np.ndarray, quality: int | None) -> Frames:
    """Observations as they are sent; pictures as JPEG of a `quality` (1..100), None: as they are."""
    if quality is None or values.dtype != np.uint8:
        return Frames(lane=lane, tick=tick, values=values, jpeg=None)
    import cv2

    coded = [cv2.imencode(".jpg", one[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1] for one in values]
    return Frames(lane=lane, tick=tick, values=None, jpeg=tuple(one.tobytes() for one in coded))


def open_jpegs(coded: tuple[bytes, ...], size: tuple[int, int], place: str) -> np.ndarray:
    """(M, h, w, 3) uint8 RGB. Raises WireError: no JPEG, or of another size; asked before it is decoded."""
    import cv2

    pictures = np.empty((len(coded), *size, 3), np.uint8)
    for picture, data in zip(pictures, coded, strict=True):
        if (came := jpeg_size(data)) != tuple(size):
            what = "no JPEG" if came is None else f"of {came[0]}x{came[1]}"
            raise WireError(f"a picture of {place} is {what}; {size[0]}x{size[1]} (height x width) is expected")
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if found is None or found.shape != picture.shape:
            raise WireError(f"a picture of {place} cannot be decoded")
        picture[:] = found[..., ::-1]
    return pictures


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that the header of a JPEG says; None of anything else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as picture:
            return picture.height, picture.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
