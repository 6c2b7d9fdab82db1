"""One camera's picture of a tick beside what the twin draws: what is compared, where, and how much it counts.

Channels of all arrays (h, w, C): red, green, blue, one for each object, and the robot's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .gaussians import Camera
from .masks import Seen
from .splat import Drawing, kernels

UNSEEN = 0.25  # share of an object's outline that must be seen for a camera to have a say
CLEAR = 0.5  # share of the background that must be seen for the same


@dataclass(frozen=True, eq=False)
class Sight:
    """A picture in the twin's colours, and the twin's drawing of the bodies as physics has them.

    Args:
        picture: (h, w, 3).
        background, target, weights: (h, w, C).
        seen: None where whole pictures are compared.
    """

    camera: Camera
    picture: np.ndarray
    background: np.ndarray
    drawing: Drawing
    target: np.ndarray
    weights: np.ndarray
    seen: Seen | None

    def difference(self, drawing: Drawing) -> np.ndarray:
        """(h, w, C): a drawing minus the picture."""
        return drawing.over(self.background) - self.target

    def slopes(self, drawing: Drawing) -> np.ndarray:
        """(h, w, C): how the weighted mean square of the difference changes with the drawing."""
        return (2 / self.picture[..., 0].size) * self.weights * self.difference(drawing)

    def residual(self) -> float:
        """Root mean square difference of colours."""
        total = kernels().squares(self.drawing.image, self.drawing.through, self.background, self.picture)
        return float(np.sqrt(total / self.picture.size))

    def has_a_say(self) -> np.ndarray:
        """(objects,) bool: enough of an object's outline is seen, and the camera is not covered."""
        drawn = self.drawing.image[..., 3:-1].sum((0, 1))
        if self.seen is None:
            return drawn > 0
        shown = (self.seen.masks * self.seen.trust).sum((1, 2))
        return (shown > UNSEEN * np.maximum(drawn, 4)) & (self.seen.clear > CLEAR)

    def overlap(self, number: int, drawing: Drawing | None = None) -> float:
        """0..1: how much of an object's outline is where it is seen; of another drawing, if one is given."""
        if self.seen is None:
            return 1.0
        return kernels().overlap((drawing or self.drawing).image[..., 3 + number], self.seen.masks[number])

    def shift(self, number: int) -> np.ndarray:
        """(2,) px from the middle of an object's outline to the middle of what is seen of it."""
        if self.seen is None:
            return np.zeros(2)
        return _middle(self.seen.masks[number]) - _middle(self.drawing.image[..., 3 + number])


def whole_picture(camera: Camera, picture: np.ndarray, background: np.ndarray, drawing: Drawing) -> Sight:
    """Compare colours everywhere."""
    target, weights = np.zeros_like(background), np.zeros_like(background)
    target[..., :3], weights[..., :3] = picture, 1
    return Sight(camera, picture, background, drawing, target, weights, None)


def masked(
    camera: Camera, picture: np.ndarray, background: np.ndarray, drawing: Drawing, seen: Seen, colour: float
) -> Sight:
    """Compare where the objects are, and with the weight `colour` their colours; not where the robot is."""
    target, weights = np.empty_like(background), np.empty_like(background)
    kernels().compare(picture, seen.masks, seen.trust, drawing.image, colour, target, weights)
    return Sight(camera, picture, background, drawing, target, weights, seen)


def _middle(mask: np.ndarray) -> np.ndarray:
    """(2,) px, column and row of a mask's middle."""
    across, down = mask.sum(0), mask.sum(1)
    return np.array([across @ np.arange(len(across)), down @ np.arange(len(down))]) / max(mask.sum(), 1e-9)
