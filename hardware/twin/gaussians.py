"""What a twin's bodies look like: Gaussians that bodies carry, and the cameras that see them.

Plain files: `gaussians.safetensors` (the arrays) and `gaussians.json` (names of the bodies, version), `cameras.json`.
Frames: Gaussians in the frame of their body (m), bodies in the world's; a camera's frame is OpenCV's (x right, y down,
z forward); pixel (0, 0) has its middle at (0, 0).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.files import replace_file, replace_text

VERSION = 1
ARRAYS, NAMES, CAMERAS = "gaussians.safetensors", "gaussians.json", "cameras.json"
SHAPES = {"mean": (3,), "quat": (4,), "scale": (3,), "colour": (3,), "opacity": (), "body": ()}


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N Gaussians on bodies. All but the last of the arrays are float64.

    Args:
        bodies: names of the bodies, as in the MuJoCo model.
        mean: (N, 3) m, in the frame of the body.
        quat: (N, 4) w, x, y, z: from the Gaussian's axes to the body's.
        scale: (N, 3) m, standard deviations along the Gaussian's axes.
        colour: (N, 3) red, green, blue, 0..1.
        opacity: (N,) 0..1.
        body: (N,) int64, whose it is: an index into `bodies`.

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, a scale that is not positive, a colour or an
            opacity outside 0..1, a quaternion of length 0, or a body that is not there.
    """

    bodies: tuple[str, ...]
    mean: np.ndarray
    quat: np.ndarray
    scale: np.ndarray
    colour: np.ndarray
    opacity: np.ndarray
    body: np.ndarray

    def __post_init__(self) -> None:
        for name, rest in SHAPES.items():
            value = np.asarray(getattr(self, name), np.int64 if name == "body" else np.float64)
            if value.shape != (len(np.atleast_1d(self.mean)), *rest):
                raise ValueError(
                    f"{name} of Gaussians has shape {value.shape}, not (N, ...) = {(len(self.mean), *rest)}"
                )
            if not np.isfinite(value).all():
                raise ValueError(f"{name} of Gaussians: {int((~np.isfinite(value)).sum())} numbers are not finite")
            object.__setattr__(self, name, value)
        self._check_ranges()
        object.__setattr__(self, "quat", self.quat / np.linalg.norm(self.quat, axis=1, keepdims=True))

    def _check_ranges(self) -> None:
        if len(set(self.bodies)) != len(self.bodies):
            raise ValueError(f"two bodies of Gaussians have one name: {', '.join(self.bodies)}")
        wrong = {
            "scale: not positive": self.scale <= 0,
            "colour: outside 0..1": (self.colour < 0) | (self.colour > 1),
            "opacity: outside 0..1": (self.opacity < 0) | (self.opacity > 1),
            "quat: of length 0": np.linalg.norm(self.quat, axis=1) < 1e-9,
            f"body: not within 0..{len(self.bodies) - 1}": (self.body < 0) | (self.body >= len(self.bodies)),
        }
        for what, where in wrong.items():
            if where.any():
                raise ValueError(f"Gaussians, {what}, first at number {int(np.argwhere(where)[0][0])}")

    def __len__(self) -> int:
        return len(self.mean)

    def of(self, *names: str) -> Gaussians:
        """Those of some bodies alone; indices into the shorter `bodies`. LookupError: no such body."""
        unknown = [name for name in names if name not in self.bodies]
        if unknown:
            raise LookupError(f"no Gaussians of a body '{unknown[0]}'. There are: {', '.join(self.bodies)}")
        new = np.full(len(self.bodies), -1)
        new[[self.bodies.index(name) for name in names]] = range(len(names))
        kept = new[self.body] >= 0
        parts = {name: getattr(self, name)[kept] for name in SHAPES}
        return Gaussians(names, **parts | {"body": new[parts["body"]]})

    def save(self, folder: Path) -> Path:
        """Write the two files into `folder`, which is made."""
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in SHAPES}
        replace_file(folder / ARRAYS, lambda path: save_file(arrays, path))
        about = {"version": VERSION, "bodies": list(self.bodies), "count": len(self)}
        return replace_text(folder / NAMES, json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Gaussians:
        """What `save` wrote.

        Raises:
            FileNotFoundError: one of the two files is not there.
            ValueError: a damaged file, one of another version, or contents that `Gaussians` refuses.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        about = read_json(folder / NAMES)
        if about.get("version") != VERSION:
            raise ValueError(f"{folder / NAMES}: version {about.get('version')}, and this program reads {VERSION}")
        if not (folder / ARRAYS).exists():
            raise FileNotFoundError(f"{folder / ARRAYS} is missing beside {NAMES}")
        try:
            arrays = load_file(folder / ARRAYS)
        except SafetensorError as error:
            raise ValueError(f"{folder / ARRAYS} is damaged: {error}") from error
        if set(arrays) != set(SHAPES):
            raise ValueError(f"{folder / ARRAYS} holds {', '.join(sorted(arrays))}, not {', '.join(sorted(SHAPES))}")
        return cls(tuple(about["bodies"]), **arrays)


def join(parts: Sequence[Gaussians]) -> Gaussians:
    """All Gaussians of several sets, in their order; bodies of one name become one."""
    bodies = tuple(dict.fromkeys(name for part in parts for name in part.bodies))
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in SHAPES if name != "body"}
    body = [np.array([bodies.index(name) for name in part.bodies], np.int64)[part.body] for part in parts]
    return Gaussians(bodies, **arrays, body=np.concatenate(body))


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion.

    Args:
        name: as images are named.
        width, height: px.
        K: (3, 3) px, focal lengths and principal point.
        world_from_camera: (4, 4), the camera's pose.

    Raises:
        ValueError: shapes or numbers that are none of a camera's.
    """

    name: str
    width: int
    height: int
    K: np.ndarray
    world_from_camera: np.ndarray

    def __post_init__(self) -> None:
        for name, shape in (("K", (3, 3)), ("world_from_camera", (4, 4))):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"camera {self.name}: {name} must be {shape[0]} x {shape[1]} finite numbers")
            object.__setattr__(self, name, value)
        turn = self.world_from_camera[:3, :3]
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
            raise ValueError(f"camera {self.name}: world_from_camera has no rotation in its upper left 3 x 3")
        if not (self.width > 0 and self.height > 0 and self.K[0, 0] > 0 and self.K[1, 1] > 0):
            raise ValueError(f"camera {self.name}: width, height and focal lengths must be positive")

    @property
    def camera_from_world(self) -> np.ndarray:
        """(4, 4), the inverse of the pose."""
        return np.linalg.inv(self.world_from_camera)

    def resized(self, width: int, height: int) -> Camera:
        """The same view in another number of pixels."""
        x, y = width / self.width, height / self.height
        K = self.K.copy()
        K[0, :2], K[1, 1] = K[0, :2] * x, K[1, 1] * y
        K[0, 2], K[1, 2] = (self.K[0, 2] + 0.5) * x - 0.5, (self.K[1, 2] + 0.5) * y - 0.5
        return dataclasses.replace(self, width=width, height=height, K=K)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) m in the world's frame -> (..., 3): px right, px down, and m along the optical axis."""
        seen = points @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]
        flat = seen @ self.K.T
        return np.concatenate([flat[..., :2] / flat[..., 2:], seen[..., 2:]], -1)


def write_cameras(folder: Path, cameras: Sequence[Camera]) -> Path:
    """Write `cameras.json` into `folder`."""
    rows = [
        {"name": camera.name, "width": camera.width, "height": camera.height, "K": camera.K.tolist()}
        | {"world_from_camera": camera.world_from_camera.tolist()}
        for camera in cameras
    ]
    return replace_text(folder / CAMERAS, json.dumps({"version": VERSION, "cameras": rows}, indent=1) + "\n")


def read_cameras(folder: Path) -> tuple[Camera, ...]:
    """The cameras of a folder. FileNotFoundError: no such file. ValueError: a file that does not say cameras."""
    about = read_json(folder / CAMERAS)
    try:
        cameras = tuple(Camera(**row) for row in about["cameras"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CAMERAS} is no list of cameras: {error}") from error
    names = [camera.name for camera in cameras]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{folder / CAMERAS} has two cameras '{twice[0]}'")
    if not cameras:
        raise ValueError(f"{folder / CAMERAS} has no camera")
    return cameras


def read_json(path: Path) -> dict:
    """A JSON object. FileNotFoundError, or ValueError: not one."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; understudy twin build writes it")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(about, Mapping):
        raise ValueError(f"{path} holds no JSON object")
    return dict(about)
