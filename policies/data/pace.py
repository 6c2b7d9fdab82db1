"""Whether episodes took as long as their frames say: the moments that were recorded against the dataset's rate.

A frame of a dataset stands for 1/rate s. A recorder that a busy machine kept from its steps leaves frames out, so the
same motion has fewer of them: what is replayed or learnt from it then moves faster than what was led. Recordings of
arms hold the moment of each command, `time.commanded`, and of each reading, `time.captured`, s since the episode began.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from .columns import load_columns
from .dataset import Dataset
from .tables import DatasetWarning

CAPTURED, COMMANDED = "time.captured", "time.commanded"
ALLOWED = 0.05  # part of its length by which an episode may be off
FEW = 2  # steps that never count: one step that was late


@dataclass(frozen=True)
class Pace:
    """How long one episode took, and how long its frames say."""

    episode: int
    took: float  # s
    stamped: float  # s

    @property
    def faster(self) -> float:
        """How many times as fast as recorded it moves at the stated rate."""
        return self.took / self.stamped


def pace_of(moments: np.ndarray, rate: float, episode: int = 0) -> Pace | None:
    """Of an episode whose moments (T,) s do not fit its rate; None where they do."""
    if len(moments) < 2:
        return None
    took, stamped = float(moments[-1]) - float(moments[0]), (len(moments) - 1) / rate
    off = abs(took - stamped)
    return Pace(episode, took, stamped) if off > max(ALLOWED * stamped, FEW / rate) else None


def off_pace(dataset: Dataset) -> list[Pace]:
    """The episodes that took longer or less than their frames say, the worst first; none where nobody wrote it down."""
    found = []
    for part in dataset.parts or (dataset,):
        moments = _moments(part)
        if moments is None:
            continue
        for begin, length, episode in zip(part.starts, part.lengths, part.episode_ids.tolist(), strict=True):
            pace = pace_of(moments[begin : begin + length], part.rate, episode)
            found += [] if pace is None else [pace]
    return sorted(found, key=lambda pace: -abs(pace.took - pace.stamped) / pace.stamped)


def pace_warning(dataset: Dataset) -> str:
    """What to know before an arm, or a policy, takes the frames at their rate; empty where they are true."""
    found = off_pace(dataset)
    if not found:
        return ""
    worst = found[0]
    return (
        f"{len(found)} of {len(dataset.lengths)} episodes did not take the time that their frames say: episode "
        f"{worst.episode} took {worst.took:.1f} s (time.commanded), its frames are {worst.stamped:.1f} s at "
        f"{dataset.rate:g} Hz, so a replay or what learns from it moves {worst.faster:.2f}x as fast as it was recorded"
    )


def _moments(dataset: Dataset) -> np.ndarray | None:
    """(N,) s of each frame, where they were recorded."""
    for name in (COMMANDED, CAPTURED):
        if name in dataset.columns:
            return dataset.columns[name][:, 0].astype(float)
        if name in dataset.layout.vectors:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DatasetWarning)  # was said when it was opened
                loaded = load_columns(dataset.layout, (name,), skip_missing=True)
            if name in loaded:
                return loaded[name][:, 0].astype(float)
    return None
