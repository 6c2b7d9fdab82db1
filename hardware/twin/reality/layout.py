"""The scene of a twin: a task of `sim/` with fixed cameras about it, and the joints that are followed.

A twin and what it follows are two models of one task, so that joints and starts mean the same in both. Cameras are
fixed in the world; one that rides on the arm can be watched, but corrects nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....configs.world import World
from ....sim.decor import movable_bodies
from ....sim.task import MuJoCoWorld, Task
from ..gaussians import Camera
from ..scene import put_cameras

if TYPE_CHECKING:
    import mujoco

FOVY = 42.0  # degrees, of the cameras that a scene gets by itself
AROUND = (math.radians(-55), math.radians(55))  # rad, where they stand about the objects, from the x axis
UP = math.radians(52)  # rad, above the table
STARTS = 24  # start ids that say where objects may be


@dataclass(frozen=True, kw_only=True)
class View:
    """A fixed camera: where it stands and looks, m, in the frame of the world, and its vertical angle in degrees."""

    at: tuple[float, float, float]
    to: tuple[float, float, float]
    fovy: float = FOVY

    def axes(self) -> np.ndarray:
        """(6,) MuJoCo's x and y axes of the camera: x right, y up in the picture."""
        back = np.subtract(self.at, self.to)
        back = back / np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        if np.linalg.norm(right) < 1e-6:
            right = np.array([1.0, 0.0, 0.0])
        right = right / np.linalg.norm(right)
        return np.concatenate([right, np.cross(back, right)])


@dataclass(frozen=True)
class Joints:
    """The joints that actuators drive, in the order of the actuators: names, indices into qpos, qvel and ctrl."""

    names: tuple[str, ...]
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    limits: tuple[tuple[float, float], ...]  # rad or m; of an unlimited joint -pi .. pi
    units: tuple[str, ...]  # rad or m

    @classmethod
    def of(cls, model: mujoco.MjModel) -> Joints:
        """Raises ValueError: an actuator of another kind than one joint's position, which nothing can follow."""
        import mujoco

        names, numbers = [], []
        for actuator in range(model.nu):
            joint = int(model.actuator_trnid[actuator, 0])
            single = model.jnt_type[joint] in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
            if model.actuator_trntype[actuator] != mujoco.mjtTrn.mjTRN_JOINT or not single:
                name = model.actuator(actuator).name
                raise ValueError(f"actuator '{name}' drives no single joint: a robot cannot follow this scene")
            names.append(model.joint(joint).name)
            numbers.append(joint)
        limits = [
            tuple(model.jnt_range[joint]) if model.jnt_limited[joint] else (-math.pi, math.pi) for joint in numbers
        ]
        return cls(
            names=tuple(names),
            qpos=model.jnt_qposadr[numbers].astype(int),
            qvel=model.jnt_dofadr[numbers].astype(int),
            ctrl=np.arange(model.nu),
            limits=tuple((float(low), float(high)) for low, high in limits),
            units=tuple("rad" if model.jnt_type[n] == mujoco.mjtJoint.mjJNT_HINGE else "m" for n in numbers),
        )


def task_of(world: World) -> Task:
    """The task of a world. Raises ValueError: one that is not a task in plain MuJoCo."""
    if not isinstance(world, MuJoCoWorld):
        kind = world.get_choice_name(type(world))
        raise ValueError(f"a twin needs a task in plain MuJoCo (pusht-arm, so101-pusht, ...), not one of type {kind}")
    return world.find()


def scene_of(task: Task, views: Mapping[str, View | Camera]) -> mujoco.MjSpec:
    """The task's scene with the cameras `views` in it, at places where it may have others of these names."""
    spec = task.scene()
    put_cameras(spec, tuple(view for view in views.values() if isinstance(view, Camera)))
    for name, view in views.items():
        if isinstance(view, Camera):
            continue
        for camera in [camera for camera in spec.cameras if camera.name == name]:
            spec.delete(camera)
        spec.worldbody.add_camera(name=name, pos=view.at, xyaxes=view.axes(), fovy=view.fovy)
    return spec


def default_views(task: Task) -> dict[str, View]:
    """Two cameras, "left" and "right", that see all places where the task's first starts put its objects."""
    import mujoco

    model = task.scene().compile()
    data, places = mujoco.MjData(model), []
    bodies = movable_bodies(model)
    for start in range(STARTS):
        mujoco.mj_resetData(model, data)
        task.reset(model, data, np.random.default_rng(start))
        mujoco.mj_forward(model, data)
        places.append(data.xipos[bodies].copy())
    middle = np.mean(np.concatenate(places), 0)
    radius = float(np.linalg.norm(np.concatenate(places) - middle, axis=1).max()) + 0.05

    distance = radius / math.sin(math.radians(FOVY / 2))
    views = {}
    for name, angle in zip(("right", "left"), AROUND, strict=True):
        way = np.array([math.cos(UP) * math.cos(angle), math.cos(UP) * math.sin(angle), math.sin(UP)])
        at = middle + distance * way
        (x, y, z), (a, b, c) = map(float, at), map(float, middle)
        views[name] = View(at=(x, y, z), to=(a, b, c))
    return views
