"""How a fixed camera of a task of ours sees points in space, so that they can be told as places in its pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..configs.spec import UNKNOWN_UNIT, Embodiment, Mode
from ..policies.data.decode import middle_of
from .blocks import PictureMap

Size = tuple[int, int]  # (height, width) px
FEWEST = 0.1  # share of the places of a map that must lie in the picture, or the map is not that of the data


def looked_up(one: PictureMap, cameras: tuple[str, ...], recorded: Mapping[str, Size], size: Size) -> PictureMap:
    """A map through a camera of a task with that camera's projection, and any other map as it is.

    Args:
        cameras: of the data, in the model's order.
        recorded: sizes of their pictures.
        size: of the pictures as the model reads them, cut to these proportions.

    Raises:
        ValueError: no such camera in the data or in the task, one that moves, or one without perspective.
    """
    if not 0 <= one.camera < len(cameras):
        raise ValueError(f"a map names camera {one.camera}; there are {len(cameras)}: {', '.join(cameras)}")
    if not one.task:
        return one
    name = cameras[one.camera]
    found = projection(one.task, one.view or name, recorded[name], size)
    if one.projection and not np.allclose(one.projection, found, atol=1e-4):
        raise ValueError(
            f"the camera '{one.view or name}' of {one.task} is not where it was when this map was made; leave its "
            "`projection` out"
        )
    return dataclasses.replace(one, projection=found)


def check_points(one: PictureMap, names: Sequence[str], units: Sequence[str], what: str) -> None:
    """Refuse a map of numbers that are not there, or that a camera of a task would see as points though not in m.

    Raises:
        ValueError: naming them.
    """
    one.check(names, what)
    if not one.task:
        return
    if wrong := [f"{names[at]} in {units[at]}" for at in one.metres if units[at] not in ("m", UNKNOWN_UNIT)]:
        raise ValueError(
            f"a camera of {one.task} sees points in m; {what} has {', '.join(wrong)}. Convert the dataset, or state "
            "its units with --embodiment FILE"
        )


def check_targets(one: PictureMap, body: Embodiment) -> None:
    """As `check_points`, of actions; refuse also what says no places of the world. Raises ValueError."""
    check_points(one, body.action, body.action_units, "an action")
    if not one.task:
        return
    if body.states("mode") and body.mode is not Mode.absolute:
        raise ValueError(f"a camera of {one.task} sees places; actions of '{body.name}' are {body.mode.value}")
    if body.states("frame") and body.frame != "world":
        raise ValueError(
            f"a camera of {one.task} sees places in the world; actions of '{body.name}' are in {body.frame}"
        )


def in_picture(one: PictureMap, vectors: np.ndarray, camera: str, what: str) -> str:
    """How many of the places that recorded vectors (N, D) tell lie in the picture, in words.

    Raises:
        ValueError: hardly any; whoever learnt them would look for everything at the border.
    """
    places = one.places(torch.from_numpy(np.asarray(vectors, np.float32)))
    share = float((places.abs() <= 1).all(-1).float().mean())
    told = f"{what}: {100 * share:.0f} % of the recorded places lie in the picture of {camera}"
    if share < FEWEST:
        meant = f"are they in m, in the frame of {one.task}?" if one.task else "are `low` and `high` its corners?"
        raise ValueError(f"{told}; {meant}")
    return told


def projection(task: str, camera: str, recorded: Size, size: Size) -> tuple[float, ...]:
    """3 x 4, row by row: (x, y, z, 1) m in the task's world -> (u w, v w, w), w m in front of the camera, and u and v
    -1..1 from the left and upper border of a picture as it is read.

    Args:
        recorded: size of its pictures.
        size: at which they are read; of other proportions, the middle is cut out.

    Raises:
        ValueError: no such task or camera, one that moves, or one without perspective.
    """
    import mujoco

    from ..configs.plugins import discover
    from ..sim.rendering import is_orthographic, stands
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
    if not stands(model, one.id):
        raise ValueError(
            f"the camera '{camera}' of {task} moves, so that a point has no place of its own in its pictures"
        )
    if is_orthographic(model, one.id):
        raise ValueError(
            f"the camera '{camera}' of {task} is orthographic: places in its pictures are in proportion to x and y, so "
            "give `low` and `high` and no `task`"
        )
    if model.cam_sensorsize[one.id].any():
        raise ValueError(
            f"the camera '{camera}' of {task} is given by a sensor and focal lengths, which is not read here; give its "
            "fovy"
        )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    turn, place = data.cam_xmat[one.id].reshape(3, 3).T, data.cam_xpos[one.id]  # x right, y up, z back
    axes = np.column_stack([turn, -turn @ place])
    far = np.tan(np.deg2rad(model.cam_fovy[one.id]) / 2)
    (height, width), (top, left, tall, wide) = recorded, middle_of(recorded, size)
    x, y, away = axes[0] / (far * width / height), -axes[1] / far, -axes[2]  # -1..1 of the recorded picture
    x = x * width / wide + away * ((width - 2 * left) / wide - 1)
    y = y * height / tall + away * ((height - 2 * top) / tall - 1)
    return tuple(float(value) for value in np.stack([x, y, away]).ravel())
