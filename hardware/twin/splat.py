"""Draw Gaussians as cameras see them, on one core: the picture, and how it changes when they move.

`CpuRenderer` draws; `Drawing` is one drawn picture with what the way back needs. Gradients are analytic, with respect
to the centres in the picture, and through `Drawing.slope` to points in the world: how a Gaussian's outline turns and
grows as it moves, and how the order of depth changes, is left out, which is small for Gaussians of a few pixels. The
loops are `splatting/_kernels.py`; other devices are `splatting/gpu.py`. Knows nothing of MuJoCo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...configs.extras import pip_install
from .gaussians import Camera, Gaussians


@dataclass(frozen=True, eq=False)
class Picture:
    """What a camera sees of Gaussians.

    Args:
        image: (h, w, 3) float32, 0..1.
        depth: (h, w) float32 m along the optical axis, mean over what is seen; inf where nothing is.
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

        Raises:
            ValueError: shapes that do not fit.
        """
        ...


class CpuRenderer:
    """Draws with numba on one core; needs the extra `twin`."""

    def __init__(self) -> None:
        kernels()

    def render(
        self, gaussians: Gaussians, poses: np.ndarray, camera: Camera, background: np.ndarray | None = None
    ) -> Picture:
        """See `Renderer.render`."""
        check(gaussians, poses, camera, background)
        mean, quat = in_world(gaussians, poses)
        bodies = len(gaussians.bodies)

        # colours, depth and one channel for each body are blended alike
        depth = camera.project(mean)[:, 2:]
        features = np.concatenate([gaussians.colour, depth, np.eye(bodies)[gaussians.body]], 1)
        drawing = draw(mean, quat, gaussians.scale, gaussians.opacity, features, camera)
        return as_picture(drawing.image, drawing.through, background)


@dataclass(frozen=True, eq=False)
class Drawing:
    """One drawn picture of C channels, without its background, and what its derivatives need.

    Args:
        image: (h, w, C).
        through: (h, w), share of the light of the background that comes through.
        centre: (N, 2) px.
        slope: (N, 2, 3) px per m in the world.
        features: (N, C).
        inside: what only the kernels need: order, conic, window, opacity, last.
    """

    image: np.ndarray
    through: np.ndarray
    centre: np.ndarray
    slope: np.ndarray
    features: np.ndarray
    inside: tuple

    def over(self, background: np.ndarray) -> np.ndarray:
        """(h, w, C): the picture before a background (h, w, C)."""
        return self.image + self.through[..., None] * background

    def gradients(self, slopes: np.ndarray, background: np.ndarray) -> Gradients:
        """Of a scalar loss whose slopes with respect to `over(background)` are (h, w, C)."""
        order, conic, window, opacity, last = self.inside
        changes = np.empty((len(self.centre), 5))
        behind = (slopes * background).sum(-1) * self.through
        common = order, self.centre, conic, window, opacity
        kernels().pull_back(*common, self.features, self.through, last, slopes, behind, changes)
        return Gradients(changes[:, :2], changes[:, 2], changes[:, 3])

    def feature_gradients(self, slopes: np.ndarray) -> np.ndarray:
        """(N, C) the same with respect to the features."""
        order, conic, window, opacity, last = self.inside
        changes = np.empty((len(self.centre), slopes.shape[-1]))
        kernels().blame(order, self.centre, conic, window, opacity, self.through, last, slopes, changes)
        return changes

    def mean_gradients(self, slopes: np.ndarray, background: np.ndarray) -> np.ndarray:
        """(N, 3) the same with respect to the means, in the world's frame, per m."""
        return np.einsum("nij,ni->nj", self.slope, self.gradients(slopes, background).centre)

    def jacobian(self, moving: np.ndarray, velocity: np.ndarray, background: np.ndarray, channels: Sequence[int]):
        """How some channels of the picture change with K numbers that move some Gaussians.

        Args:
            moving: (N,) bool, which.
            velocity: (N, 3, K) m of each mean for a unit of each number; rows of others are not read.
            background: (h, w, C).
            channels: which of the C, in the order wanted.

        Returns:
            The box of the picture that may change (first and last column, first and last row), and the Jacobian of it,
            (rows, columns, channels, K); None where no Gaussian that moves is seen.
        """
        order, conic, window, opacity, last = self.inside
        seen = window[moving & (window[:, 1] >= window[:, 0]) & (window[:, 3] >= window[:, 2])]
        if not len(seen):
            return None
        box = np.array([seen[:, 0].min(), seen[:, 1].max(), seen[:, 2].min(), seen[:, 3].max()])
        motion = np.zeros((len(moving), 2, velocity.shape[2]))
        motion[moving] = self.slope[moving] @ velocity[moving]
        jacobian = np.empty((box[3] - box[2] + 1, box[1] - box[0] + 1, len(channels), velocity.shape[2]))
        common = order, self.centre, conic, window, opacity, self.features, self.through, last
        kernels().push_forward(*common, background, np.asarray(channels), motion, moving, box, jacobian)
        return box, jacobian


@dataclass(frozen=True, eq=False)
class Gradients:
    """Of a loss: with respect to centres (N, 2) px, opacity (N,) and the logarithm of the size in the picture (N,)."""

    centre: np.ndarray
    opacity: np.ndarray
    size: np.ndarray


def draw(
    mean: np.ndarray,
    quat: np.ndarray,
    scale: np.ndarray,
    opacity: np.ndarray,
    features: np.ndarray,
    camera: Camera,
    within: np.ndarray | None = None,
) -> Drawing:
    """Draw Gaussians given in the world's frame (m), with features (N, C) instead of colours.

    Args:
        within: (N,) bool: only the part of the picture that these may touch is drawn, with all that is seen there; the
            rest is left empty. None: all of it.
    """
    inner, pose = kernels(), camera.camera_from_world
    rotation, shift = np.ascontiguousarray(pose[:3, :3]), pose[:3, 3].copy()
    flat = inner.project(mean, quat, scale, rotation, shift, camera.K, camera.width, camera.height)
    centre, conic, depth, window, slope = flat
    if within is not None:
        first, last = window[within][:, ::2], window[within][:, 1::2]
        seen = (last >= first).all(1)
        low, high = first[seen].min(0, initial=max(camera.width, camera.height)), last[seen].max(0, initial=-1)
        window[:, ::2], window[:, 1::2] = np.maximum(window[:, ::2], low), np.minimum(window[:, 1::2], high)

    order = np.argsort(depth, kind="stable")
    features = np.ascontiguousarray(features)
    size = camera.height, camera.width
    image, through, last = np.empty((*size, features.shape[1])), np.empty(size), np.empty(size, np.int64)
    inner.composite(order, centre, conic, window, opacity, features, image, through, last)
    return Drawing(image, through, centre, slope, features, (order, conic, window, opacity, last))


def in_world(gaussians: Gaussians, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (N, 3) m and quaternions (N, 4) in the world's frame; `poses` (bodies, 4, 4)."""
    turns, shifts = np.ascontiguousarray(poses[:, :3, :3]), np.ascontiguousarray(poses[:, :3, 3])
    return kernels().carry(turns, shifts, gaussians.body, gaussians.mean, gaussians.quat)


def place(gaussians: Gaussians, poses: np.ndarray) -> Gaussians:
    """The Gaussians where their bodies are, in the world's frame; `poses` (bodies, 4, 4)."""
    mean, quat = in_world(gaussians, poses)
    return dataclasses.replace(gaussians, mean=mean, quat=quat)


def as_picture(blended: np.ndarray, through: np.ndarray, background: np.ndarray | None) -> Picture:
    """Channels red, green, blue, depth, bodies (h, w, 4 + bodies) -> a picture."""
    covered = 1 - through
    depth = np.where(covered > 1e-3, blended[..., 3] / np.maximum(covered, 1e-3), np.inf)
    image = blended[..., :3] if background is None else blended[..., :3] + through[..., None] * background
    masks = np.moveaxis(blended[..., 4:], -1, 0)
    return Picture(image.astype(np.float32), depth.astype(np.float32), masks.astype(np.float32))


def check(gaussians: Gaussians, poses: np.ndarray, camera: Camera, background: np.ndarray | None) -> None:
    """Raises ValueError: poses or a background of another shape than these Gaussians and this camera want."""
    if poses.shape != (len(gaussians.bodies), 4, 4):
        raise ValueError(f"poses have shape {poses.shape}, and {len(gaussians.bodies)} bodies want (bodies, 4, 4)")
    if not np.isfinite(poses).all():
        raise ValueError("a pose of a body is not finite: did the simulation diverge?")
    if background is not None and background.shape != (camera.height, camera.width, 3):
        size = (camera.height, camera.width, 3)
        raise ValueError(f"the background of camera {camera.name} has shape {background.shape}, not {size}")


def kernels():
    """The compiled loops. ImportError: numba is not installed, and how to install it."""
    try:
        from .splatting import _kernels as module
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise ImportError(f"drawing Gaussians on the CPU needs numba: {pip_install('twin')}") from error
    return module
