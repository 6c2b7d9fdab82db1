"""How far a scene is from a picture of it, in pixels, whatever the light; and the two pictures over one another.

Where the pictures differ after the local brightness and contrast of each colour are taken out, the region is looked
for in the other picture by normalised cross-correlation: light has little say in it, and a region may have moved far.
Corners in and around it are then followed to a part of a pixel (pyramidal Lucas-Kanade), which also sees that a thing
was turned where it stands. A region that seems to be where it was, and has no corners, differs by its own thickness: so
wide is the seam along an edge that moved. What is found nowhere, such as a hand, or a thing that is missing, is counted
as lost. A shadow that moves is a thing that moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

NEARBY = 1 / 5  # of the longer side: the square around a pixel whose light is its light
FLOOR = 8.0  # grey levels of contrast that count as none
CHANGED = 0.6  # of normalised colours, from where on a pixel differs
SMALLEST = 2e-4  # part of the picture that a region takes at least
FEWEST = 6  # pixels that a region has at least
FOUND = 0.7  # correlation from which on a region is found again
TIE = 0.02  # correlations nearer than that are one; the nearest place counts
CORNERS = 40  # of a region that are followed
MOVED = 90  # percentile of its corners' displacements that is the region's: of a turned thing the middle stays
MOST = 24  # regions that are looked for, the largest first; the picture is another one where there are more
LIVE, RECORDED = (235, 70, 60), (40, 200, 230)  # RGB of the edges


@dataclass(frozen=True)
class Displacement:
    """Of a picture from a reference.

    Attributes:
        pixels: displacement of the region that has moved farthest, of those that are found; 0 where none has moved.
        lost: regions of either picture that are nowhere in the other.
        difference: mean absolute difference of the grey pictures as they are, 0..255; light counts in it.
    """

    pixels: float
    lost: int
    difference: float

    def within(self, pixels: float) -> bool:
        """Whether the scene is restored to `pixels`."""
        return self.lost == 0 and self.pixels <= pixels

    def __str__(self) -> str:
        lost = f", {self.lost} regions differ and are found nowhere" if self.lost else ""
        return f"{self.pixels:.1f} px away{lost}"


def displacement(reference: np.ndarray, picture: np.ndarray) -> Displacement:
    """How far `picture` is from `reference`, both (h, w, 3) uint8 RGB of one camera that stands still.

    Raises ValueError: pictures of other sizes.
    """
    import cv2

    if reference.shape != picture.shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in (reference, picture))
        raise ValueError(
            f"pictures of {sizes} pixels cannot be compared; the camera must give those that were recorded"
        )
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in (reference, picture)]
    difference = float(np.abs(grey[0] - grey[1]).mean())

    flat = [_without_light(image) for image in _as_bright(reference, picture)]
    seams = (np.abs(flat[0] - flat[1]).max(2) > CHANGED).astype(np.uint8)
    width = 2 * (max(seams.shape) // 80) + 1  # seams of one thing belong together
    changed = cv2.morphologyEx(seams, cv2.MORPH_CLOSE, np.ones((width, width), np.uint8))
    thick = 2 * cv2.distanceTransform(seams, cv2.DIST_L2, 3)
    number, labels, about, _ = cv2.connectedComponentsWithStats(changed)
    least = max(FEWEST, SMALLEST * changed.size)
    regions = sorted((n for n in range(1, number) if about[n][4] >= least), key=lambda n: -about[n][4])

    moved, lost = [0.0], max(0, len(regions) - MOST)
    for n in regions[:MOST]:
        far = _moved(flat, labels == n, about[n][:4], thick)
        moved, lost = (moved, lost + 1) if far is None else ([*moved, far], lost)
    return Displacement(max(moved), lost, difference)


def overlay(reference: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB: both half-transparent; edges that only the reference has in cyan, only `picture` in red."""
    import cv2

    blend = cv2.addWeighted(reference, 0.5, picture, 0.5, 0)
    grey = [cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0) for image in (reference, picture)]
    edges = [cv2.Canny(image, 40, 100) for image in grey]
    wide = [cv2.dilate(image, np.ones((3, 3), np.uint8)) for image in edges]
    for own, other, colour in ((edges[0], wide[1], RECORDED), (edges[1], wide[0], LIVE)):
        blend[(own > 0) & (other == 0)] = colour
    return blend


def _as_bright(reference: np.ndarray, picture: np.ndarray) -> list[np.ndarray]:
    """Both with each colour as bright as in the brighter one (median of the ratios), and as much of it cut off."""
    ratio = np.median((reference.reshape(-1, 3)[::7] + 1.0) / (picture.reshape(-1, 3)[::7] + 1.0), 0)
    factors = np.maximum(1, 1 / ratio), np.maximum(1, ratio)
    pairs = zip((reference, picture), factors, strict=True)
    return [np.minimum(image * factor.astype(np.float32), 255) for image, factor in pairs]


def _without_light(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32, each colour by its mean and its deviation nearby."""
    import cv2

    fine = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.float32)
    square = 2 * [2 * round(NEARBY * max(image.shape[:2]) / 2) + 1]
    mean = cv2.blur(fine, square)
    spread = np.sqrt(np.maximum(cv2.blur(fine * fine, square) - mean * mean, 0))
    return (fine - mean) / (spread + FLOOR)


def _moved(flat: list[np.ndarray], mask: np.ndarray, box: np.ndarray, thick: np.ndarray) -> float | None:
    """How far a region has moved, px; None: what is in it is nowhere in the other picture."""
    import cv2

    h, w = mask.shape
    margin = max(4, h // 60)
    x, y = max(0, int(box[0]) - margin), max(0, int(box[1]) - margin)
    right, low = min(w, int(box[0] + box[2]) + margin), min(h, int(box[1] + box[3]) + margin)
    best: tuple[float, np.ndarray, int] | None = None
    for source in (0, 1):  # a thing that has moved far is at the region in one of them only
        patch = flat[source][y:low, x:right]
        if patch.std(axis=(0, 1)).max() < CHANGED / 4:
            continue
        correlation, shift = _found(patch, flat[1 - source], (x, y))
        if best is None or correlation > best[0]:
            best = correlation, shift, source
    if best is None or best[0] < FOUND:
        return None
    _, shift, source = best
    around = cv2.dilate(mask.astype(np.uint8), np.ones((margin, margin), np.uint8))
    followed, far = _followed(flat[source], flat[1 - source], around, shift), float(np.hypot(*shift))
    if followed is not None:
        return followed
    return far if far >= 1 else float(thick[mask].max())


def _found(patch: np.ndarray, image: np.ndarray, place: tuple[int, int]) -> tuple[float, np.ndarray]:
    """(correlation, shift (2,) px in x and y) of the nearest of the best places of a patch that was at `place`."""
    import cv2

    scores = cv2.matchTemplate(image, patch, cv2.TM_CCOEFF_NORMED)
    scores[~np.isfinite(scores)] = -1.0
    best = float(scores.max())
    rows, columns = np.nonzero(scores >= best - TIE)
    shifts = np.stack([columns - place[0], rows - place[1]], 1).astype(float)
    near = int(np.hypot(*shifts.T).argmin())
    return best, shifts[near]


def _followed(source: np.ndarray, target: np.ndarray, mask: np.ndarray, shift: np.ndarray) -> float | None:
    """Displacement of a region's corners, begun where the region was found; None: fewer than three are followed."""
    import cv2

    before, after = (np.clip(128 + 40 * image.mean(2), 0, 255).astype(np.uint8) for image in (source, target))
    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.05, 3, mask=mask)
    if corners is None:
        return None
    guess = corners + np.asarray(shift, np.float32)
    follow = partial(cv2.calcOpticalFlowPyrLK, winSize=(15, 15), maxLevel=1, flags=cv2.OPTFLOW_USE_INITIAL_FLOW)
    there, good, error = follow(before, after, corners, guess.copy())
    back, also, _ = follow(after, before, there, corners.copy())
    near = np.abs(np.asarray(back) - corners).max(axis=(1, 2)) < 1
    fits = np.asarray(good, bool).ravel() & np.asarray(also, bool).ravel() & near & (np.asarray(error).ravel() < 20)
    if fits.sum() < 3:
        return None
    return float(np.percentile(np.hypot(*(np.asarray(there) - corners)[fits].reshape(-1, 2).T), MOVED))
