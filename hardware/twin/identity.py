"""What a twin's scene is made of, as hashes: whoever changes a file or a property of a body makes another twin.

Parts: Gaussians, cameras, backgrounds, roles, the files of an MJCF scene (its includes, meshes and textures too), and
the physics as MuJoCo compiles it: names, masses, inertias, shapes, meshes, joints, contacts and actuators. Numbers of
the physics are rounded to 5 digits, so that another version of MuJoCo is not another scene.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .gaussians import ARRAYS, CAMERAS, NAMES, read_cameras, read_json
from .scene import CARD, background_name, is_file, scene_spec

LENGTH = 16  # hexadecimal digits of a part
PHYSICS = (  # arrays of a compiled model
    "body_parentid", "body_pos", "body_quat", "body_mass", "body_inertia", "body_ipos", "body_iquat",
    "body_gravcomp", "geom_type", "geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_contype",
    "geom_conaffinity", "geom_condim", "geom_margin", "geom_solref", "geom_solimp", "geom_rgba", "jnt_type", "jnt_pos",
    "jnt_axis", "jnt_range", "jnt_limited", "jnt_stiffness", "dof_damping", "dof_armature", "dof_frictionloss",
    "actuator_trnid", "actuator_gainprm", "actuator_biasprm", "actuator_ctrlrange", "actuator_forcerange", "qpos0",
    "mesh_vertnum", "mesh_facenum", "mesh_vert", "mesh_face", "pair_friction", "eq_data",
)  # fmt: skip


def identity_of(folder: Path) -> dict[str, str]:
    """Part -> what it is.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
    """
    card, cameras = read_json(folder / CARD), read_cameras(folder)
    source = str(card["source"])
    files = _files(mjcf_files(Path(source))) if is_file(source) else ""
    pictures = [folder / background_name(camera.name) for camera in cameras]
    return {
        "gaussians": _files((folder / ARRAYS, folder / NAMES)),
        "cameras": _files((folder / CAMERAS,)),
        "backgrounds": _files(pictures),
        "roles": _digest([json.dumps([card.get("objects"), card.get("robot")]).encode()]),
        "source": source,
        "files": files,
        "physics": physics_of(source, files),
    }


@lru_cache(maxsize=8)
def physics_of(source: str, files: str = "") -> str:
    """A hash of what MuJoCo compiles of a world of ours or of an MJCF file. `files`: a hash of what that reads."""
    model = scene_spec(source).compile()
    parts = [bytes(model.names), _rounded(np.array([model.opt.timestep, *model.opt.gravity]))]
    parts += [_rounded(np.asarray(getattr(model, name))) for name in PHYSICS if hasattr(model, name)]
    return _digest(parts)


def mjcf_files(path: Path) -> list[Path]:
    """An MJCF file and all that it reads: includes, meshes, textures, height fields."""
    found, folders, waiting = [path], {"mesh": "", "texture": "", "hfield": "", "skin": ""}, [path]
    assets: list[tuple[str, str]] = []
    while waiting:
        for element in ElementTree.parse(waiting.pop()).iter():
            name = element.get("file")
            if element.tag == "compiler":
                every = element.get("assetdir", "")
                given = {"mesh": element.get("meshdir") or every, "texture": element.get("texturedir") or every}
                folders |= {kind: where for kind, where in given.items() if where}
            elif name and element.tag == "include":
                found.append(path.parent / name)
                waiting.append(path.parent / name)
            elif name:
                assets.append((element.tag, name))
    found += [path.parent / os.path.join(folders.get(kind, folders["mesh"]), name) for kind, name in assets]
    return list(dict.fromkeys(found))


def _files(paths: Iterable[Path]) -> str:
    parts = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} of a twin's scene is missing; build the scene again")
        parts += [path.name.encode(), path.read_bytes()]
    return _digest(parts)


def _rounded(values: np.ndarray) -> bytes:
    """Numbers to 5 digits; whole ones as they are."""
    if values.dtype.kind != "f":
        return values.astype(np.int64).tobytes()
    numbers = np.asarray(values, float).ravel()
    size = np.floor(np.log10(np.where(numbers == 0, 1.0, np.abs(numbers))))
    digits = np.rint(numbers / 10.0 ** (size - 4)).astype(np.int64)
    return digits.tobytes() + np.where(digits == 0, 0, size).astype(np.int64).tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:LENGTH]
