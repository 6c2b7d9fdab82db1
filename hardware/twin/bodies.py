"""Bodies of a MuJoCo scene as a twin needs them: who is an object, who is the robot, and Gaussians for both.

Objects are moved by the correction; the robot is drawn, for it hides what is behind it, and never corrected; what
cannot move is background. The Gaussians lie flat on the surfaces of the shapes that cameras see, in the colours of
their materials; `splatting/fit.py` makes them from pictures. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .gaussians import Gaussians, join
from .splat import place
from .splatting.surfaces import Samples, sample_body, surface_area

if TYPE_CHECKING:
    import mujoco

WIDE, THIN = 0.55, 0.1  # standard deviations of a Gaussian along and across its surface, in distances of neighbours
OPACITY = 0.95
FEWEST = 6  # Gaussians of a body
CLOSEST = 0.004  # m between neighbours on the robot, which needs no more


@dataclass(frozen=True)
class Roles:
    """Names of bodies: those to correct, and those that are drawn but not corrected. All others are background."""

    objects: tuple[str, ...]
    robot: tuple[str, ...]


def find_roles(model: mujoco.MjModel, objects: Sequence[str] = (), robot: Sequence[str] = ()) -> Roles:
    """Who is what. Names that are not given are found.

    Robot: bodies that something drives or that hang together with such, and those that only a program moves (mocap).
    Objects: other bodies that can move.

    Raises:
        LookupError: no body of a given name, naming the known ones.
        ValueError: an object that cannot move; a body that is both; or no object at all.
    """
    names = [model.body(i).name for i in range(model.nbody)]
    for name in (*objects, *robot):
        if name not in names[1:]:
            raise LookupError(f"the scene has no body '{name}'. It has: {', '.join(filter(None, names[1:])) or 'none'}")
    if both := set(objects) & set(robot):
        raise ValueError(f"body '{min(both)}' is named as an object and as the robot's")

    driven = driven_trees(model)
    moving = [i for i in range(1, model.nbody) if model.body_weldid[i] and names[i]]
    found_robot = [names[i] for i in range(1, model.nbody) if model.body_rootid[i] in driven and names[i]]
    found_robot += [names[i] for i in range(1, model.nbody) if model.body_mocapid[i] >= 0]
    robot = tuple(robot) or tuple(name for name in found_robot if name not in objects)
    found = [names[i] for i in moving if model.body_dofnum[i] and names[i] not in (*robot, *found_robot)]
    objects = tuple(objects) or tuple(found)

    for name in objects:
        if not model.body_weldid[names.index(name)]:
            raise ValueError(f"object '{name}' cannot move in this scene: give its body a joint (<freejoint/>)")
    if not objects:
        raise ValueError("the scene has no object: no body that can move and that no actuator moves; name --objects")
    return Roles(objects, robot)


def carry(
    model: mujoco.MjModel,
    roles: Roles,
    *,
    count: int = 250,
    robot_count: int = 200,
    rng: np.random.Generator,
    groups: tuple[int, ...] = (0, 1, 2),
) -> Gaussians:
    """Gaussians on all bodies with a role: `count` on each object, `robot_count` on the robot, by area.

    Bodies with nothing to be seen get none and are left out. ValueError: an object that nobody sees.
    """
    ids = {name: model.body(name).id for name in (*roles.objects, *roles.robot)}
    areas = {name: surface_area(model, ids[name], groups) for name in roles.robot}
    whole = max(sum(areas.values()), 1e-12)
    robot_count = min(robot_count, round(whole / CLOSEST**2))
    wanted = dict.fromkeys(roles.objects, count)
    wanted |= {name: max(FEWEST, round(robot_count * area / whole)) for name, area in areas.items() if area > 0}

    parts = []
    for name, many in wanted.items():
        samples = sample_body(model, ids[name], many, rng, groups)
        if samples is None and name in roles.objects:
            raise ValueError(f"object '{name}' has no shape that a camera sees, in the geom groups {list(groups)}")
        if samples is not None:
            parts.append(flat(name, samples))
    return join(parts)


def flat(name: str, samples: Samples) -> Gaussians:
    """Discs on a surface, one for each point, that together cover it."""
    n = len(samples.points)
    distance = np.sqrt(samples.area / n)
    scale = np.tile([WIDE * distance, WIDE * distance, THIN * distance], (n, 1))
    return Gaussians(
        (name,),
        mean=samples.points,
        quat=_upright(samples.normals),
        scale=scale,
        colour=np.clip(samples.colours, 0, 1),
        opacity=np.full(n, OPACITY),
        body=np.zeros(n, np.int64),
    )


def body_ids(model: mujoco.MjModel, names: Sequence[str]) -> np.ndarray:
    """(n,) numbers of bodies in a model. LookupError: one is not there."""
    import mujoco

    ids = np.array([mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in names], int)
    if (ids < 0).any():
        raise LookupError(f"the twin's model has no body '{names[int(np.argmin(ids))]}', which carries Gaussians")
    return ids


def body_poses(data: mujoco.MjData, ids: np.ndarray) -> np.ndarray:
    """(n, 4, 4) poses of bodies in the world, as they are now."""
    poses = np.zeros((len(ids), 4, 4))
    poses[:, :3, :3] = data.xmat[ids].reshape(-1, 3, 3)
    poses[:, :3, 3], poses[:, 3, 3] = data.xpos[ids], 1
    return poses


def in_body(gaussians: Gaussians, pose: np.ndarray) -> Gaussians:
    """Gaussians of one body, given in the world's frame, in the frame of the body at `pose` (4, 4)."""
    return place(gaussians, np.linalg.inv(pose)[None])


def driven_trees(model: mujoco.MjModel) -> set[int]:
    """Numbers of the root bodies of what actuators drive."""
    import mujoco

    driven = set()
    for kind, (target, _) in zip(model.actuator_trntype, model.actuator_trnid, strict=True):
        if kind in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT):
            driven.add(int(model.body_rootid[model.jnt_bodyid[target]]))
        elif kind in (mujoco.mjtTrn.mjTRN_SITE, mujoco.mjtTrn.mjTRN_SLIDERCRANK):
            driven.add(int(model.body_rootid[model.site_bodyid[target]]))
        elif kind == mujoco.mjtTrn.mjTRN_BODY:
            driven.add(int(model.body_rootid[target]))
        elif kind == mujoco.mjtTrn.mjTRN_TENDON:
            driven |= _of_tendon(model, int(target))
    return driven


def _of_tendon(model: mujoco.MjModel, tendon: int) -> set[int]:
    import mujoco

    first = int(model.tendon_adr[tendon])
    wraps = range(first, first + int(model.tendon_num[tendon]))
    roots = set()
    for wrap in wraps:
        target = int(model.wrap_objid[wrap])
        if model.wrap_type[wrap] == mujoco.mjtWrap.mjWRAP_JOINT:
            roots.add(int(model.body_rootid[model.jnt_bodyid[target]]))
        elif model.wrap_type[wrap] == mujoco.mjtWrap.mjWRAP_SITE:
            roots.add(int(model.body_rootid[model.site_bodyid[target]]))
    return roots


def _upright(normals: np.ndarray) -> np.ndarray:
    """(n, 4) quaternions that turn z to each normal."""
    w = 1 + normals[:, 2]
    quat = np.stack([w, -normals[:, 1], normals[:, 0], np.zeros(len(normals))], 1)
    quat[w < 1e-6] = 0, 1, 0, 0
    return quat / np.linalg.norm(quat, axis=1, keepdims=True)
