"""Bring a camera's colours to the twin's: one affine map for each picture, fitted to the background that it shows.

Exposure, white balance and the light of the day differ between the twin's colours and a picture's, and a difference
that is alike everywhere would push every body in every tick. The background picture is the common measure: least
squares with a ridge towards no change, and Huber's weights, so that hands, shadows and things that the twin does not
know have little say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .splat import kernels

ROUNDS = 3  # of reweighting
HUBER = 0.05  # difference of a channel from which on a pixel counts less
RIDGE = 1e-3  # as if this share of the pixels said that nothing changed
FEWEST = 50  # pixels to fit to


@dataclass(frozen=True, eq=False)
class ColourMap:
    """`camera = twin @ gain.T + offset`, for colours (..., 3) in 0..1."""

    gain: np.ndarray
    offset: np.ndarray

    @classmethod
    def identity(cls) -> ColourMap:
        return cls(np.eye(3), np.zeros(3))

    def to_camera(self, colours: np.ndarray) -> np.ndarray:
        """Colours of the twin as the camera would show them."""
        return colours @ self.gain.T + self.offset

    def to_twin(self, colours: np.ndarray) -> np.ndarray:
        """Colours of the camera as the twin has them. Not clipped."""
        inverse = np.linalg.inv(self.gain)
        flat = colours.reshape(-1, 3) @ inverse.T - inverse @ self.offset
        return flat.reshape(colours.shape)


def fit_colours(picture: np.ndarray, background: np.ndarray, seen: np.ndarray, step: int = 2) -> ColourMap:
    """The map from a background (h, w, 3) to a picture of it (h, w, 3), both 0..1.

    Args:
        seen: (h, w) bool, pixels where the background should be seen. Too few: no map, that is the identity.
        step: px between those that are looked at.
    """
    fit, count = kernels().fit_affine(picture, background, seen, step, ROUNDS, HUBER, RIDGE)
    if count < FEWEST:
        return ColourMap.identity()
    gain, offset = fit[:3].T, fit[3]
    if np.linalg.cond(gain) > 20:
        return ColourMap.identity()
    return ColourMap(gain, offset)
