"""Pictures into files: lossless PNG bytes and h264 mp4, and the moments of what was written.

Knows nothing of datasets. Frames are uint8 (h, w, 3) RGB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PNG_EFFORT = 1  # of 9; the files are a little larger, the writing several times faster


@dataclass(frozen=True)
class Moments:
    """Count, mean, summed squared deviation and range of a feature; float64, exact under merging."""

    count: int
    mean: np.ndarray
    square: np.ndarray  # sum of squared deviations from the mean
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of_rows(cls, values: np.ndarray) -> Moments:
        """Of (T, ...) numbers, over T."""
        values = values.astype(np.float64)
        mean = values.mean(0)
        return cls(len(values), mean, np.square(values - mean).sum(0), values.min(0), values.max(0))

    @classmethod
    def of_pictures(cls, frames: np.ndarray) -> Moments:
        """Of (T, h, w, 3) uint8, per channel in 0..1, shaped (3, 1, 1); counts frames, as lerobot does."""
        flat = frames.reshape(len(frames), -1, frames.shape[-1])
        means = flat.mean(1, dtype=np.float64) / 255
        spread = np.stack([frame.astype(np.float32).var(0, dtype=np.float64) for frame in flat]) / 255**2
        mean = means.mean(0)
        square = (spread + np.square(means - mean)).sum(0)
        parts = (mean, square, flat.min((0, 1)) / 255, flat.max((0, 1)) / 255)
        return cls(len(frames), *(np.asarray(part, np.float64)[:, None, None] for part in parts))

    @classmethod
    def from_dict(cls, stats: dict) -> Moments:
        """What `to_dict` gave."""
        count, parts = int(stats["count"][0]), [np.asarray(stats[k], np.float64) for k in ("mean", "std", "min", "max")]
        return cls(count, parts[0], np.square(parts[1]) * count, parts[2], parts[3])

    def merge(self, other: Moments) -> Moments:
        """The moments of both together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.square + other.square + np.square(delta) * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def to_dict(self) -> dict:
        """The five statistics of lerobot, as lists."""
        std = np.sqrt(self.square / self.count)
        arrays = {"min": self.low, "max": self.high, "mean": self.mean, "std": std}
        return {name: np.atleast_1d(value).tolist() for name, value in arrays.items()} | {"count": [self.count]}


def png(frame: np.ndarray) -> bytes:
    """Lossless PNG of one frame."""
    import cv2

    done, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT])
    if not done:
        raise ValueError(f"a frame of shape {frame.shape} and dtype {frame.dtype} could not be written as PNG")
    return data.tobytes()


def write_mp4(path: Path, frames: Iterable[np.ndarray], rate: float, quality: int = 23, group: int = 2) -> None:
    """Write frames of equal, even height and width as h264 mp4.

    Args:
        quality: constant rate factor, lower is better.
        group: every so many frames a key frame; 2 makes random access quick.

    Raises:
        ValueError: odd height or width, which h264 cannot hold.
    """
    from fractions import Fraction

    import av

    options = {"crf": str(quality), "g": str(group), "bf": "0", "preset": "veryfast"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=options)
                stream.height, stream.width = _even(frame)
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def _even(frame: np.ndarray) -> tuple[int, int]:
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(
            f"video needs an even height and width, got {height}x{width}; store pictures as images instead"
        )
    return height, width
