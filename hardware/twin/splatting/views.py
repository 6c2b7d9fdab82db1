"""MuJoCo's cameras as ours, ours as MuJoCo's, and pictures that MuJoCo draws: colours and who is where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ....sim.rendering import is_orthographic, renderer_class
from ..gaussians import Camera

if TYPE_CHECKING:
    import mujoco

FLIP = np.diag([1.0, -1.0, -1.0])  # OpenCV's camera axes <-> OpenGL's


def camera_of(model: mujoco.MjModel, data: mujoco.MjData, name: str, width: int, height: int) -> Camera:
    """A camera of the model where it is now, with so many pixels.

    Raises:
        LookupError: no such camera.
        ValueError: an orthographic one, which no pinhole is.
    """
    import mujoco

    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if number < 0:
        known = ", ".join(model.camera(i).name for i in range(model.ncam)) or "none"
        raise LookupError(f"the scene has no camera '{name}'. It has: {known}")
    if is_orthographic(model, number):
        raise ValueError(f"camera '{name}' is orthographic; a twin needs pinhole cameras")

    pose = np.eye(4)
    pose[:3, :3] = data.cam_xmat[number].reshape(3, 3) @ FLIP
    pose[:3, 3] = data.cam_xpos[number]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    sensor = model.cam_sensorsize[number]
    if sensor.any():
        fx, fy, right, up = model.cam_intrinsic[number]
        focal = np.array([fx / sensor[0] * width, fy / sensor[1] * height])
        middle = middle - [right / sensor[0] * width, up / sensor[1] * height]
    else:
        focal = np.full(2, height / 2 / np.tan(np.deg2rad(model.cam_fovy[number]) / 2))
    K = np.array([[focal[0], 0, middle[0]], [0, focal[1], middle[1]], [0, 0, 1]])
    return Camera(name, width, height, K, pose)


def add_camera(spec: mujoco.MjSpec, camera: Camera) -> None:
    """Put a camera of ours into a scene, at the same place, so that MuJoCo draws what it would see."""
    turn = camera.world_from_camera[:3, :3] @ FLIP
    axes = np.concatenate([turn[:, 0], turn[:, 1]])
    focal = [camera.K[0, 0], camera.K[1, 1]]
    offset = [(camera.width - 1) / 2 - camera.K[0, 2], (camera.height - 1) / 2 - camera.K[1, 2]]
    spec.worldbody.add_camera(
        name=camera.name,
        pos=camera.world_from_camera[:3, 3],
        xyaxes=axes,
        resolution=[camera.width, camera.height],
        sensor_size=[camera.width / 1000, camera.height / 1000],
        focal_pixel=focal,
        principal_pixel=offset,
    )


def looking_at(name: str, place: np.ndarray, target: np.ndarray, width: int, height: int, fovy: float = 45.0) -> Camera:
    """A camera at `place` (3,) m whose axis goes through `target`, upright, with `fovy` degrees from top to bottom."""
    forward = np.asarray(target, float) - place
    forward /= np.linalg.norm(forward)
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = place
    focal = height / 2 / np.tan(np.deg2rad(fovy) / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Camera(name, width, height, K, pose)


class Photographer:
    """Draws a scene with MuJoCo through cameras of ours, which must be in the model under their names.

    Close it, or use it in a `with`.
    """

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[Camera]):
        self.model, self.cameras = model, {camera.name: camera for camera in cameras}
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def __enter__(self) -> Photographer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def picture(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(h, w, 3) uint8."""
        renderer = self._renderer(camera)
        renderer.update_scene(data, camera)
        return renderer.render()

    def depth(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(h, w) float32 m along the optical axis."""
        renderer = self._renderer(camera)
        renderer.enable_depth_rendering()
        try:
            renderer.update_scene(data, camera)
            return renderer.render()
        finally:
            renderer.disable_depth_rendering()

    def bodies(self, data: mujoco.MjData, camera: str, without: Iterable[int] = ()) -> np.ndarray:
        """(h, w) number of the body that each pixel shows, as if some were not there; -1 where none is."""
        import mujoco

        renderer = self._renderer(camera)
        renderer.enable_segmentation_rendering()
        try:
            with self._hidden(without):
                renderer.update_scene(data, camera)
            number, kind = np.moveaxis(renderer.render(), -1, 0)
        finally:
            renderer.disable_segmentation_rendering()
        is_geom = kind == mujoco.mjtObj.mjOBJ_GEOM
        return np.where(is_geom, self.model.geom_bodyid[np.where(is_geom, number, 0)], -1)

    def without(self, data: mujoco.MjData, camera: str, bodies: Iterable[int]) -> np.ndarray:
        """The picture as if some bodies were not there."""
        with self._hidden(bodies):
            return self.picture(data, camera)

    def alone(
        self, data: mujoco.MjData, camera: str, body: int, others: Iterable[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A body as if `others` were not there: picture (h, w, 3) 0..1 and mask (h, w) 0 or 1."""
        with self._hidden(others):
            return self.picture(data, camera) / 255.0, (self.bodies(data, camera) == body).astype(float)

    @contextmanager
    def _hidden(self, bodies: Iterable[int]):
        hidden = np.isin(self.model.geom_bodyid, list(bodies))
        rgba, materials = self.model.geom_rgba[hidden], self.model.geom_matid[hidden]
        self.model.geom_rgba[hidden, 3], self.model.geom_matid[hidden] = 0, -1
        try:
            yield
        finally:
            self.model.geom_rgba[hidden], self.model.geom_matid[hidden] = rgba, materials

    def _renderer(self, camera: str):
        size = self.cameras[camera].height, self.cameras[camera].width
        if size not in self._renderers:
            self._renderers[size] = renderer_class()(self.model, *size)
        return self._renderers[size]
