"""Find by which forces the twin's bodies come to where cameras see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .gaussians import Camera, Gaussians

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """How bodies are aligned with pictures."""

    mode: str = "mask+se3"  # gaussian, mask or mask+se3


@dataclass(frozen=True, eq=False)
class Correction:
    """What one tick of alignment found. Rows of arrays are bodies, in the order of `Gaussians.bodies`.

    Args:
        ids: (bodies,) the bodies' numbers in the MuJoCo model.
        wrench: (bodies, 6) N and N m at the centre of mass, in the world's frame, as `data.xfrc_applied` wants it.
        pose: (bodies, 4, 4) where the pictures have the bodies.
        residual: camera -> root mean square difference between picture and twin, 0..1, before the correction.
        conflict: (bodies,) 0..1, how much of the wanted force a contact of the twin's has opposed lately.
    """

    ids: np.ndarray
    wrench: np.ndarray
    pose: np.ndarray
    residual: Mapping[str, float] = field(default_factory=dict)
    conflict: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def apply(self, data: mujoco.MjData) -> None:
        """Write the wrench; it acts in every step until it is overwritten or cleared."""
        data.xfrc_applied[self.ids] = self.wrench


class Aligner:
    """Compares pictures with the twin, tick after tick.

    Args:
        gaussians: of all bodies that the cameras see.
        cameras: all cameras; a tick may bring pictures of some of them.
    """

    def __init__(self, gaussians: Gaussians, cameras: Sequence[Camera], settings: AlignSettings | None = None):
        self.gaussians, self.cameras = gaussians, {camera.name: camera for camera in cameras}
        self.settings = settings or AlignSettings()

    def correct(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        images: Mapping[str, np.ndarray],
        masks: Mapping[str, np.ndarray] | None = None,
        poses: np.ndarray | None = None,
    ) -> Correction:
        """Compare and say what to push.

        Args:
            images: camera -> uint8 (h, w, 3).
            masks: camera -> (bodies, h, w) 0..1, where each body is seen; None: found from the colours.
            poses: (bodies, 4, 4) where the twin's bodies were when the pictures were taken; None: as in `data`.
        """
        raise NotImplementedError
