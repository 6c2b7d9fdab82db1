"""Pictures into files: lossless PNG bytes and h264 mp4, and the moments of what was written.

Knows nothing of datasets. Frames are uint8 (h, w, 3) RGB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PNG_EFFORT = 1  # of 9; the files are a little larger, the writing several times faster
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}  # as lerobot names them
LEVELS = 256  # of an uint8


@dataclass(frozen=True)
class Moments:
    """Count, mean, summed squared deviation, range and quantiles of a feature, float64.

    A quantile is the least value that at least so large a part does not exceed. All but they are exact under merging:
    merged quantiles are the means of the parts', weighted by their counts, as lerobot's are.
    """

    count: int
    mean: np.ndarray
    square: np.ndarray  # sum of squared deviations from the mean
    low: np.ndarray
    high: np.ndarray
    quantiles: dict[str, np.ndarray] = field(default_factory=dict)  # empty: of a dataset begun without them

    @classmethod
    def of_rows(cls, values: np.ndarray) -> Moments:
        """Of (T, ...) numbers, over T."""
        values = values.astype(np.float64)
        mean = values.mean(0)
        ranks = np.searchsorted(np.arange(1, len(values) + 1), _targets(len(values)))
        quantiles = dict(zip(QUANTILES, np.sort(values, 0)[ranks], strict=True))
        return cls(len(values), mean, np.square(values - mean).sum(0), values.min(0), values.max(0), quantiles)

    @classmethod
    def of_pictures(cls, frames: np.ndarray) -> Moments:
        """Of (T, h, w, 3) uint8, per channel in 0..1, shaped (3, 1, 1); counts frames, as lerobot does."""
        flat = frames.reshape(len(frames), -1, frames.shape[-1])
        means = flat.mean(1, dtype=np.float64) / 255
        spread = np.stack([frame.astype(np.float32).var(0, dtype=np.float64) for frame in flat]) / 255**2
        mean = means.mean(0)
        square = (spread + np.square(means - mean)).sum(0)
        parts = (mean, square, flat.min((0, 1)) / 255, flat.max((0, 1)) / 255)
        quantiles = zip(QUANTILES, _picture_quantiles(flat)[..., None, None], strict=True)
        return cls(len(frames), *(np.asarray(part, np.float64)[:, None, None] for part in parts), dict(quantiles))

    @classmethod
    def from_dict(cls, stats: dict) -> Moments:
        """What `to_dict` gave."""
        count, parts = int(stats["count"][0]), [np.asarray(stats[k], np.float64) for k in ("mean", "std", "min", "max")]
        quantiles = {name: np.asarray(stats[name], np.float64) for name in QUANTILES if name in stats}
        return cls(count, parts[0], np.square(parts[1]) * count, parts[2], parts[3], quantiles)

    def merge(self, other: Moments) -> Moments:
        """The moments of both together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        shared = [name for name in self.quantiles if name in other.quantiles]
        sums = {name: self.count * self.quantiles[name] + other.count * other.quantiles[name] for name in shared}
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.square + other.square + np.square(delta) * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            {name: total / count for name, total in sums.items()},
        )

    def to_dict(self) -> dict:
        """The statistics of lerobot, as lists."""
        std = np.sqrt(self.square / self.count)
        arrays = {"min": self.low, "max": self.high, "mean": self.mean, "std": std}
        arrays |= self.quantiles
        return {name: np.atleast_1d(value).tolist() for name, value in arrays.items()} | {"count": [self.count]}


def _targets(count: int) -> np.ndarray:
    """(5,) how many of `count` values must not exceed each quantile."""
    return np.array(list(QUANTILES.values())) * count


def _picture_quantiles(flat: np.ndarray) -> np.ndarray:
    """(T, pixels, C) uint8 -> (5, C) quantiles of each channel, in 0..1."""
    channels = flat.shape[-1]
    first = np.arange(channels) * LEVELS
    found = sum(np.bincount((frame + first).reshape(-1), minlength=channels * LEVELS) for frame in flat)
    counts = found.reshape(channels, LEVELS).cumsum(1)
    levels = [np.searchsorted(below, _targets(int(below[-1]))) for below in counts]
    return np.stack(levels, 1) / (LEVELS - 1)


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
