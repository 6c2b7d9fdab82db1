"""What a twin's scene is made of, as hashes: whoever changes a file or a property of a body makes another twin.

Parts: Gaussians, cameras, backgrounds, roles, the files of an MJCF scene (its includes, meshes and textures too), and
the physics as MuJoCo compiles it: names, masses, inertias, shapes, meshes, joints, contacts, actuators and options.
Numbers of the physics are rounded to 5 digits, and what is next to nothing is 0, so that another version of MuJoCo is
not another scene.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from .gaussians import ARRAYS, CAMERAS, NAMES, read_cameras, read_json
from .mjcf import digest, hash_files, mjcf_files
from .scene import CARD, background_name, is_file, scene_spec

NOTHING = 1e-12  # a number that is no more is 0: the cosine of a right angle
PHYSICS = (  # arrays of a compiled model
    "body_parentid", "body_dofnum", "body_geomnum",
    "body_pos", "body_quat", "body_mass", "body_inertia", "body_ipos", "body_iquat",
    "body_gravcomp", "geom_type", "geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_contype",
    "geom_conaffinity", "geom_condim", "geom_margin", "geom_solref", "geom_solimp", "geom_rgba", "jnt_type", "jnt_pos",
    "jnt_axis", "jnt_range", "jnt_limited", "jnt_stiffness", "dof_damping", "dof_armature", "dof_frictionloss",
    "actuator_trnid", "actuator_trntype", "actuator_gear", "actuator_dyntype", "actuator_dynprm", "actuator_gaintype",
    "actuator_gainprm", "actuator_biastype", "actuator_biasprm", "actuator_ctrllimited", "actuator_ctrlrange",
    "actuator_forcelimited", "actuator_forcerange", "qpos0", "qpos_spring", "geom_gap", "geom_solmix", "geom_priority",
    "jnt_solref", "jnt_solimp", "jnt_margin", "dof_solref", "dof_solimp", "mesh_vertnum", "mesh_facenum", "mesh_vert",
    "mesh_face", "hfield_size", "hfield_data", "pair_geom1", "pair_geom2", "pair_friction", "exclude_signature",
    "eq_type", "eq_obj1id", "eq_obj2id", "eq_data", "tendon_stiffness", "tendon_damping", "tendon_range", "wrap_objid",
    "wrap_prm",
)  # fmt: skip
OPTIONS = ("timestep", "gravity", "integrator", "cone", "impratio", "density", "viscosity", "wind", "disableflags")


def identity_of(folder: Path) -> dict[str, str]:
    """Part -> what it is.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
    """
    card, cameras = read_json(folder / CARD), read_cameras(folder)
    source = str(card["source"])
    files = hash_files(mjcf_files(Path(source))) if is_file(source) else ""
    pictures = [folder / background_name(camera.name) for camera in cameras]
    return {
        "gaussians": hash_files((folder / ARRAYS, folder / NAMES)),
        "cameras": hash_files((folder / CAMERAS,)),
        "backgrounds": hash_files(pictures),
        "roles": digest([json.dumps([card.get("objects"), card.get("robot")]).encode()]),
        "source": source,
        "files": files,
        "physics": physics_of(source, files),
    }


@lru_cache(maxsize=8)
def physics_of(source: str, files: str = "") -> str:
    """A hash of what MuJoCo compiles of a world of ours or of an MJCF file. `files`: a hash of what that reads."""
    model = scene_spec(source).compile()
    parts = [bytes(model.names), *(_rounded(np.asarray(getattr(model.opt, name))) for name in OPTIONS)]
    parts += [_rounded(np.asarray(getattr(model, name))) for name in PHYSICS if hasattr(model, name)]
    return digest(parts)


def _rounded(values: np.ndarray) -> bytes:
    """Numbers to 5 digits; whole ones as they are."""
    if values.dtype.kind != "f":
        return values.astype(np.int64).tobytes()
    numbers: np.ndarray = np.asarray(values, float).ravel()
    numbers = np.where(np.abs(numbers) < NOTHING, 0.0, numbers)
    size = np.floor(np.log10(np.where(numbers == 0, 1.0, np.abs(numbers))))
    digits = np.rint(numbers / 10.0 ** (size - 4)).astype(np.int64)
    over = np.abs(digits) >= 10**5  # 0.999999 is 1, and so is what is just above
    digits, size = np.where(over, digits // 10, digits), size + over
    return digits.tobytes() + np.where(digits == 0, 0, size).astype(np.int64).tobytes()
