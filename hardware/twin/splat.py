"""Draw Gaussians as cameras see them, and the same by which device: `CpuRenderer` (numba) or `GpuRenderer` (gsplat)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .gaussians import Camera, Gaussians


@dataclass(frozen=True, eq=False)
class Picture:
    """What a camera sees of Gaussians.

    Args:
        image: (h, w, 3) float32, 0..1.
        depth: (h, w) float32 m along the optical axis; inf where nothing is.
        masks: (bodies, h, w) float32: share of each pixel that is the body's, hidden parts not counted.
    """

    image: np.ndarray
    depth: np.ndarray
    masks: np.ndarray


class Renderer(Protocol):
    """Draws Gaussians."""

    def render(
        self, gaussians: Gaussians, poses: np.ndarray, camera: Camera, background: np.ndarray | None = None
    ) -> Picture:
        """Draw.

        Args:
            poses: (bodies, 4, 4), of each body in the world.
            background: (h, w, 3) 0..1, what is behind; None: black.
        """
        ...
