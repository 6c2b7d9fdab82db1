"""What sets one robosuite task apart: its environment, the numbers of its scene, its horizon.

A task with a scene of ours is one entry of `SUITE`. Scenes: positions in m, rotations as the first two columns of
their matrix, angles in rad, all in world coordinates, read from the simulator itself. Source of the tasks: robosuite
1.5 (Zhu et al. 2020, arXiv:2009.12293). Other environments of robosuite are described in `body.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

CAMERAS = ("agentview", "robot0_eye_in_hand", "frontview", "birdview", "sideview")


@dataclass(frozen=True)
class SuiteTask:
    """One robosuite task."""

    environment: str  # robosuite's name of it
    scene: dict[str, str]  # name -> unit of observation.environment_state
    look: Callable[[object, np.ndarray], list]  # (robosuite environment, gripper position) -> the scene's numbers
    horizon: int = 400
    arguments: dict = field(default_factory=dict)  # more arguments of the environment
    cameras: tuple[str, ...] = CAMERAS


def pose(name: str) -> dict[str, str]:
    """Names and units of a position and a 6-D rotation."""
    return metres(name) | {f"{name}.{column}{axis}": "1" for column in ("x_", "y_") for axis in "xyz"}


def metres(name: str) -> dict[str, str]:
    """Names and units of a position or of a way."""
    return {f"{name}.{axis}": "m" for axis in "xyz"}


def six(matrix: np.ndarray) -> np.ndarray:
    """(6,) first column, then second column of a rotation matrix of 9 numbers (row by row)."""
    return np.asarray(matrix).reshape(3, 3)[:, :2].T.ravel()


def turn(columns: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation matrix nearest to (6,) numbers: the first column kept in direction, the second made square.

    Two columns that are (nearly) zero or parallel say no rotation: raises ValueError.
    """
    x, y = np.asarray(columns, np.float64).reshape(2, 3)
    length = np.linalg.norm(x)
    if length > 1e-6:
        x = x / length
        y = y - x * (x @ y)
    if length <= 1e-6 or np.linalg.norm(y) <= 1e-6:
        raise ValueError(f"no rotation: the columns {columns} are zero or parallel")
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def body_pose(env, body: int) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) in m and 6-D rotation of a body of a robosuite environment, in world coordinates."""
    data = env.sim.data
    return np.array(data.body_xpos[body]), six(data.body_xmat[body])


def _lift(env, gripper: np.ndarray) -> list:
    position, rotation = body_pose(env, env.cube_body_id)
    return [position, rotation, position - gripper]


def _can(env, gripper: np.ndarray) -> list:
    position, rotation = body_pose(env, env.obj_body_id["Can"])
    return [position, rotation, position - gripper]


def _square(env, gripper: np.ndarray) -> list:
    position, rotation = body_pose(env, env.obj_body_id["SquareNut"])
    return [position, rotation, np.array(env.sim.data.site_xpos[env.object_site_ids[0]]) - gripper]


def _stack(env, gripper: np.ndarray) -> list:
    red, red_turn = body_pose(env, env.cubeA_body_id)
    green, green_turn = body_pose(env, env.cubeB_body_id)
    return [red, red_turn, green, green_turn, red - gripper, green - red]


def _door(env, gripper: np.ndarray) -> list:
    data = env.sim.data
    handle = np.array(data.site_xpos[env.door_handle_site_id])
    angles = [data.qpos[env.hinge_qpos_addr], data.qpos[env.handle_qpos_addr]]
    return [*body_pose(env, env.object_body_ids["door"]), handle, angles, handle - gripper]


SUITE = {
    "lift": SuiteTask("Lift", pose("cube") | metres("gripper_to_cube"), _lift, horizon=200),
    "can": SuiteTask("PickPlaceCan", pose("can") | metres("gripper_to_can"), _can),
    "square": SuiteTask("NutAssemblySquare", pose("nut") | metres("gripper_to_handle"), _square),
    "stack": SuiteTask(
        "Stack", pose("red") | pose("green") | metres("gripper_to_red") | metres("red_to_green"), _stack
    ),
    "door": SuiteTask(
        "Door",
        pose("door") | metres("handle") | {"hinge": "rad", "latch": "rad"} | metres("gripper_to_handle"),
        _door,
    ),
}
