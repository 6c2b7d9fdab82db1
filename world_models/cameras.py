"""How a fixed camera of a task of ours sees points in space, so that they can be told as places in its pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from .blocks import PictureMap


def looked_up(one: PictureMap, cameras: tuple[str, ...], sizes: Mapping[str, tuple[int, int]]) -> PictureMap:
    """A map through a camera of a task with that camera's projection, and any other map as it is.

    Args:
        cameras: of the data, in the model's order.
        sizes: of the recorded pictures, (height, width) px.

    Raises:
        ValueError: no such camera in the data or in the task, one that moves, or one without perspective.
    """
    if not 0 <= one.camera < len(cameras):
        raise ValueError(f"a map names camera {one.camera}; there are {len(cameras)}: {', '.join(cameras)}")
    if not one.task:
        return one
    name = cameras[one.camera]
    height, width = sizes[name]
    found = projection(one.task, one.view or name, width / height)
    if one.projection and not np.allclose(one.projection, found, atol=1e-4):
        raise ValueError(
            f"the camera '{one.view or name}' of {one.task} is not where it was when this map was made; leave its "
            "`projection` out"
        )
    return dataclasses.replace(one, projection=found)


def projection(task: str, camera: str, aspect: float) -> tuple[float, ...]:
    """3 x 4, row by row: (x, y, z, 1) m in the task's world -> (u w, v w, w), w m in front of the camera, and u and v
    -1..1 from the left and upper border of a picture that is `aspect` times as wide as high.

    Raises:
        ValueError: no such task or camera, one that moves, or one without perspective.
    """
    import mujoco

    from ..configs.plugins import discover
    from ..sim.rendering import is_orthographic
    from ..sim.task import TASKS

    discover("sim")
    if task not in TASKS:
        raise ValueError(f"no task '{task}' to see points in; there are: {', '.join(sorted(TASKS))}")
    model = TASKS[task]().scene().compile()
    names = [model.camera(number).name for number in range(model.ncam)]
    if camera not in names:
        raise ValueError(
            f"{task} has no camera '{camera}' (it has {', '.join(names)}); say which one took the pictures: view: ..."
        )
    one = model.camera(camera)
    if model.body_weldid[model.cam_bodyid[one.id]] != 0:
        raise ValueError(
            f"the camera '{camera}' of {task} moves, so that a point has no place of its own in its pictures"
        )
    if is_orthographic(model, one.id):
        raise ValueError(
            f"the camera '{camera}' of {task} is orthographic: places in its pictures are in proportion to x and y, so "
            "give `low` and `high` and no `task`"
        )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    turn, place = data.cam_xmat[one.id].reshape(3, 3).T, data.cam_xpos[one.id]  # x right, y up, z back
    axes = np.column_stack([turn, -turn @ place])
    far = np.tan(np.deg2rad(model.cam_fovy[one.id]) / 2)
    seen = np.stack([axes[0] / (far * aspect), -axes[1] / far, -axes[2]])
    return tuple(float(value) for value in seen.ravel())
