"""How each camera looks, in 48 numbers: enough to tell that two cameras were swapped, or that one lost its colours.

A look is the mean of some pictures, made as small as 4x4 in three colours. A policy keeps those of its training
(`Vision.looks`); what it sees when it acts, what other datasets show and what a fine-tuned policy knew are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from .frames import Frames

Look = Sequence[int]  # 4 x 4 x 3, 0..255, row by row
CELLS = (4, 4)
SAMPLES = 64  # pictures that a look is made of, at most
APART = 16.0  # levels that cameras must look apart, summed over two of them, before anything is said
COLOURFUL, COLOURLESS = 16, 2  # levels between the greatest and the least channel


def look_of(pictures: np.ndarray) -> tuple[int, ...]:
    """Pictures (M, h, w, 3) uint8 -> their look."""
    small = np.stack([_shrunk(picture) for picture in pictures]).astype(np.float64)
    return tuple(np.rint(small.mean(0)).astype(int).ravel().tolist())


def look_of_frames(frames: Frames, episodes: Sequence[int]) -> tuple[int, ...]:
    """The look of a camera's decoded pictures, sampled evenly over some episodes."""
    some = np.unique(np.linspace(0, len(episodes) - 1, min(SAMPLES, len(episodes))).astype(int))
    each = max(1, SAMPLES // len(some))
    parts = []
    for episode in (episodes[i] for i in some):
        pictures = frames.episode(int(episode))
        parts.append(pictures[np.unique(np.linspace(0, len(pictures) - 1, each).astype(int))])
    return look_of(np.concatenate(parts))


def is_grey(picture: np.ndarray) -> bool:
    """Whether a picture (h, w, 3) shows shades alone."""
    return int(np.ptp(picture, axis=-1).max()) <= COLOURLESS


def differences(known: Mapping[str, Look], seen: Mapping[str, Look]) -> Iterator[str]:
    """What is strange about cameras that are seen, beside how they looked before, in words.

    Args:
        known, seen: key of a camera -> look; only keys of both are compared.
    """
    shared, swapped = [key for key in known if key in seen], set()
    for one, other in combinations(shared, 2):
        straight = _apart(known[one], seen[one]) + _apart(known[other], seen[other])
        crossed = _apart(known[one], seen[other]) + _apart(known[other], seen[one])
        if straight > APART + 2 * crossed:
            swapped |= {one, other}
            yield f"'{one}' looks as '{other}' did before, and the other way round: are the two cameras swapped?"
    for key in (key for key in shared if key not in swapped):
        if _colour(known[key]) >= COLOURFUL and _colour(seen[key]) <= COLOURLESS:
            yield f"'{key}' shows no colours now, and did before: is the camera grey, or set so?"


def _shrunk(picture: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(picture, CELLS[::-1], interpolation=cv2.INTER_AREA)


def _apart(one: Look, other: Look) -> float:
    """Mean absolute difference in levels, 0..255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def _colour(look: Look) -> int:
    """The greatest distance between the channels of a cell."""
    cells = np.asarray(look).reshape(-1, 3)
    return int((cells.max(1) - cells.min(1)).max())
