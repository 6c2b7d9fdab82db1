"""A twin's scene in a folder: Gaussians, cameras, the pictures behind, and a card that says from what it was built.

    gaussians.safetensors, gaussians.json, cameras.json    see gaussians.py
    background.CAMERA.png                                   what the camera sees without objects and robot
    scene.json                                              the card: world or MJCF, roles, checks

The physics is not copied: the card names a world of ours, or an MJCF file with its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.files import replace_file, replace_folder, replace_text
from .bodies import Roles
from .gaussians import VERSION, Camera, Gaussians, read_cameras, read_json, write_cameras
from .mjcf import hash_files, mjcf_files

if TYPE_CHECKING:
    import mujoco

CARD = "scene.json"


@dataclass(frozen=True, eq=False)
class TwinScene:
    """What a twin needs to look at its scene.

    Args:
        source: a registered world, or the path of an MJCF file.
        backgrounds: camera -> (h, w, 3) 0..1.
        checks: what the builder measured.
    """

    gaussians: Gaussians
    cameras: tuple[Camera, ...]
    roles: Roles
    source: str
    backgrounds: Mapping[str, np.ndarray]
    checks: Mapping = field(default_factory=dict)

    def spec(self, cameras: bool = True) -> mujoco.MjSpec:
        """A fresh description of the scene's physics; with the twin's cameras in it, so that MuJoCo can draw them.

        Raises:
            FileNotFoundError, ValueError: the MJCF file is gone, or another than when the scene was built.
        """
        spec = scene_spec(self.source)
        if cameras:
            put_cameras(spec, self.cameras)
        return spec

    def save(self, folder: Path) -> Path:
        """Write the folder in one step. FileExistsError: it is there and no twin's."""
        refuse_other(folder)
        return replace_folder(folder, self._fill)

    def _fill(self, folder: Path) -> None:
        self.gaussians.save(folder)
        write_cameras(folder, self.cameras)
        for name, picture in self.backgrounds.items():
            write_picture(folder / background_name(name), picture)
        card = {
            "version": VERSION,
            "source": self.source,
            "sha256": file_hash(self.source),
            "files": hash_files(mjcf_files(Path(self.source))) if is_file(self.source) else "",
            "objects": list(self.roles.objects),
            "robot": list(self.roles.robot),
            "checks": dict(self.checks),
        }
        replace_text(folder / CARD, json.dumps(card, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> TwinScene:
        """What `save` wrote.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, of another version, or does not fit the others.
        """
        card = read_json(folder / CARD)
        if card.get("version") != VERSION:
            raise ValueError(f"{folder / CARD}: version {card.get('version')}, and this program reads {VERSION}")
        missing = {"source", "objects", "robot"} - set(card)
        if missing:
            raise ValueError(f"{folder / CARD} does not say {', '.join(sorted(missing))}")
        if card.get("sha256") != file_hash(card["source"]):
            raise ValueError(f"{card['source']} is gone or has changed since {folder} was built; build it again")
        if card.get("files") and card["files"] != hash_files(mjcf_files(Path(card["source"]))):
            raise ValueError(f"a file that {card['source']} reads has changed since {folder} was built; build it again")
        cameras = read_cameras(folder)
        backgrounds = {camera.name: _background(folder, camera) for camera in cameras}
        roles = Roles(tuple(card["objects"]), tuple(card["robot"]))
        return cls(Gaussians.load(folder), cameras, roles, card["source"], backgrounds, card.get("checks", {}))


def refuse_other(folder: Path) -> None:
    """FileExistsError: a folder that is there and no twin's, or a file."""
    if folder.exists() and not (folder / CARD).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and holds something else than a twin's scene; name another --out")


def scene_spec(source: str) -> mujoco.MjSpec:
    """The physics of a world of ours, or of an MJCF file.

    Raises:
        LookupError: a name that is neither a file nor a world with a MuJoCo scene of ours, naming the known ones.
        ValueError: MuJoCo cannot read the file.
    """
    import mujoco

    if is_file(source):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no MJCF file {source}")
        try:
            return mujoco.MjSpec.from_file(str(path))
        except Exception as error:  # MuJoCo raises ValueError or its own errors, by version
            raise ValueError(f"MuJoCo cannot read {source}: {error}") from error
    return find_task(source).scene()


def find_task(world: str):
    """The task of a world of ours. LookupError: none, naming those that there are."""
    from ...configs.plugins import discover, lookup
    from ...sim.task import TASKS

    discover("sim")
    return lookup("world with a MuJoCo scene (or an MJCF file, .xml)", world, TASKS)()


def is_file(source: str) -> bool:
    """Whether it names an MJCF file rather than a world."""
    return source.endswith((".xml", ".mjcf")) or "/" in source


def put_cameras(spec: mujoco.MjSpec, cameras: tuple[Camera, ...]) -> None:
    """The cameras in the scene; those of the scene's own with one of these names give way."""
    from .splatting.views import add_camera

    for camera in cameras:
        own = spec.camera(camera.name)
        if own is not None:
            spec.delete(own)
        add_camera(spec, camera)


def background_name(camera: str) -> str:
    """File of a camera's background picture."""
    return f"background.{camera}.png"


def write_picture(path: Path, picture: np.ndarray) -> None:
    """A picture (h, w, 3) 0..1 as PNG."""
    import cv2

    pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
    done, coded = cv2.imencode(".png", pixels[..., ::-1])
    if not done:
        raise ValueError(f"OpenCV cannot write {path}")
    replace_file(path, lambda beside: beside.write_bytes(coded.tobytes()))


def read_picture(path: Path) -> np.ndarray:
    """(h, w, 3) 0..1 of a picture file. FileNotFoundError, or ValueError: no picture."""
    import cv2

    if not path.is_file():
        raise FileNotFoundError(f"no picture {path}")
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is no picture that OpenCV reads")
    return pixels[..., ::-1] / 255.0


def file_hash(source: str) -> str:
    """SHA-256 of an MJCF file; empty for a world of ours or where there is no such file."""
    if not is_file(source) or not Path(source).is_file():
        return ""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def _background(folder: Path, camera: Camera) -> np.ndarray:
    picture = read_picture(folder / background_name(camera.name))
    if picture.shape != (camera.height, camera.width, 3):
        size = f"{picture.shape[1]} x {picture.shape[0]}"
        raise ValueError(
            f"{folder / background_name(camera.name)} is {size}, its camera {camera.width} x {camera.height}"
        )
    return picture
