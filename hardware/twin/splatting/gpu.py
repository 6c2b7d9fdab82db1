"""The renderer for machines with CUDA: gsplat draws. Alignment stays on the CPU; this is for large pictures and films.

gsplat's pixel (0, 0) has its middle at (0.5, 0.5), ours at (0, 0), so the principal point moves by half a pixel.
"""

from __future__ import annotations

import numpy as np

from ..gaussians import Camera, Gaussians
from ..splat import CpuRenderer, Picture, Renderer, as_picture, check, in_world


class GpuRenderer:
    """Draws with gsplat. ImportError: it is not installed. ValueError: torch finds no CUDA device."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ValueError("device cuda: torch finds no CUDA device here; cpu draws too")
        try:
            import gsplat
        except ModuleNotFoundError as error:
            raise ImportError("drawing Gaussians on a GPU needs gsplat: pip install gsplat") from error
        self._torch, self._rasterization = torch, gsplat.rasterization

    def render(
        self, gaussians: Gaussians, poses: np.ndarray, camera: Camera, background: np.ndarray | None = None
    ) -> Picture:
        """See `Renderer.render`."""
        from ._kernels import BLUR, NEAR

        check(gaussians, poses, camera, background)
        mean, quat = in_world(gaussians, poses)
        depth = camera.project(mean)[:, 2:]
        features = np.concatenate([gaussians.colour, depth, np.eye(len(gaussians.bodies))[gaussians.body]], 1)
        K = camera.K.copy()
        K[:2, 2] += 0.5

        arrays = mean, quat, gaussians.scale, gaussians.opacity, features, camera.camera_from_world[None], K[None]
        tensors = [self._torch.tensor(array, dtype=self._torch.float32, device="cuda") for array in arrays]
        size = {"width": camera.width, "height": camera.height}
        blended, covered, _ = self._rasterization(*tensors, **size, eps2d=BLUR, near_plane=NEAR)
        through = 1 - covered[0, ..., 0].cpu().numpy()
        return as_picture(blended[0].cpu().numpy(), through, background)


def open_renderer(device: str = "cpu") -> Renderer:
    """The renderer of a device: `cpu` (numba), `cuda` (gsplat).

    Raises:
        ImportError: what it needs is not installed.
        ValueError: another device, or no CUDA device here.
    """
    if device == "cpu":
        return CpuRenderer()
    if device != "cuda":
        raise ValueError(f"device '{device}' draws no Gaussians. Known: cpu, cuda")
    return GpuRenderer()
