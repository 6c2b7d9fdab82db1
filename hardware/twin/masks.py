"""Where each object is in a picture, without a network and without a GPU.

Each pixel is taken for a mixture of its background, which is known, and one colour of a body, which the Gaussians
know; the share of the mixture is the mask, so that outlines are found to a fraction of a pixel. What is no such mixture
(a hand, a stranger) is nobody's. Of the patches of an object's colours only those count that the twin expects, near
to where it has the object; where there is none, the largest. Objects of one colour are told apart by that alone.
Whoever has better masks (a segmentation network) hands them to the aligner instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .gaussians import Gaussians
from .splat import kernels

COLOURS = 4  # of an object's, or the robot's, palette
STRANGE = 4.0  # misfit in sigma from which on a pixel is nobody's


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours (P, 3) of bodies and whose they are (P,): the object's place in `objects`, -1 for the robot."""

    colours: np.ndarray
    owner: np.ndarray


def make_palette(gaussians: Gaussians, objects: Sequence[str]) -> Palette:
    """The main colours of each object, and of everything else that carries Gaussians."""
    place = np.array([objects.index(name) if name in objects else -1 for name in gaussians.bodies])
    owner = place[gaussians.body]
    colours, owners = [], []
    for number in range(-1, len(objects)):
        own = main_colours(gaussians.colour[owner == number])
        colours.append(own)
        owners += [number] * len(own)
    return Palette(np.concatenate(colours), np.array(owners, int))


def main_colours(colours: np.ndarray, count: int = COLOURS, near: float = 0.08) -> np.ndarray:
    """(P, 3): at most `count` of colours (n, 3), none nearer than `near` to another; k-means."""
    if not len(colours):
        return np.zeros((0, 3))
    middles = [np.median(colours, 0)]
    while len(middles) < count:
        away = np.linalg.norm(colours[:, None] - np.array(middles), axis=2).min(1)
        if away.max() < 2 * near:
            break
        middles.append(colours[away.argmax()])
    found = np.array(middles)
    for _ in range(5):
        nearest = np.linalg.norm(colours[:, None] - found, axis=2).argmin(1)
        found = np.array([colours[nearest == i].mean(0) if (nearest == i).any() else c for i, c in enumerate(found)])
    shares = np.bincount(nearest, minlength=len(found)) / len(colours)
    return found[shares > 0.03]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a picture shows.

    Args:
        masks: (objects, h, w) 0..1.
        trust: (h, w) 0..1, in what they say of a pixel.
        clear: 0..1, share of the background where it should be seen that is; little of it where a camera is covered.
    """

    masks: np.ndarray
    trust: np.ndarray
    clear: float = 1.0


def find_masks(
    picture: np.ndarray,
    background: np.ndarray,
    palette: Palette,
    expected: np.ndarray,
    empty: np.ndarray,
    sigma: float,
    reach: int,
) -> Seen:
    """Masks of a picture (h, w, 3), in the twin's colours.

    Args:
        expected: (objects, h, w) 0..1, where the twin has the objects.
        empty: (h, w) bool, where the twin has nothing before the background.
        sigma: noise of a channel, 0..1.
        reach: px around the expected mask within which a patch is the object's.
    """
    size = picture.shape[:2]
    masks, trust, plain = np.empty(expected.shape), np.empty(size), np.empty(size)
    own = palette.colours, palette.owner
    kernels().unmix(picture, background, *own, sigma, STRANGE, masks, trust, plain)
    for mask, there in zip(masks, expected, strict=True):
        mask *= patches(mask > 0.4, there > 0.3, reach)
    clear = float(plain[empty].mean()) if empty.any() else 1.0
    return Seen(masks, trust, clear)


def patches(found: np.ndarray, expected: np.ndarray, reach: int) -> np.ndarray:
    """(h, w) bool: the patches of `found` that touch `expected` widened by `reach` px, with a rim of 2 px; else the
    largest. Both are (h, w) bool."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.view(np.uint8), connectivity=8)
    if count < 2:
        return np.zeros(found.shape, bool)
    touched = np.bincount(labels[_widened(expected, reach) & found], minlength=count)
    touched[0] = 0
    chosen = np.flatnonzero(touched)
    if len(chosen):
        areas = stats[chosen, cv2.CC_STAT_AREA]
        chosen = chosen[areas >= 0.1 * areas.max()]
    else:
        chosen = np.array([1 + stats[1:, cv2.CC_STAT_AREA].argmax()])
    table = np.zeros(count, np.uint8)
    table[chosen] = 1
    return cv2.dilate(table[labels], np.ones((5, 5), np.uint8)).view(bool)


def _widened(mask: np.ndarray, reach: int) -> np.ndarray:
    """(h, w) bool: a mask (h, w) bool and what is at most `reach` px from it."""
    import cv2

    column, row, width, height = cv2.boundingRect(mask.view(np.uint8))
    rows = slice(max(0, row - reach), row + height + reach)
    columns = slice(max(0, column - reach), column + width + reach)
    disc, wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2), np.zeros(mask.shape, bool)
    if width:
        wide[rows, columns] = cv2.dilate(mask[rows, columns].astype(np.uint8), disc).view(bool)
    return wide
