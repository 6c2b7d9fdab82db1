"""What an object stands on, and how far it is from where pictures have it.

Along a line of sight a picture says little: free in space, the best fit tilts a thing that lies on a table by tens of
degrees while the arm hides half of it, and lifts it by centimetres. What lifts and tilts things is the arm; pictures
shift and turn what stands, see `pull.py`. Nothing here knows of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

REACH = 0.03  # m, at which a turn counts as a move


def standing(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray | None:
    """Unit vector (3,) out of what `body` stands on, by its contacts now with what cannot move; None: on nothing."""
    if not data.ncon:
        return None
    pairs = model.geom_bodyid[data.contact.geom]
    fixed = model.body_weldid[pairs] == 0
    first, second = (pairs[:, 0] == body) & fixed[:, 1], (pairs[:, 1] == body) & fixed[:, 0]
    touching = np.flatnonzero(first | second)
    if not len(touching):
        return None
    normals = data.contact.frame[touching, :3] * np.where(second[touching], 1.0, -1.0)[:, None]  # from first to second
    total = normals.sum(0)
    length = float(np.linalg.norm(total))
    return None if length < 0.5 * len(normals) else total / length


@dataclass(frozen=True)
class Gap:
    """From where a body is to where pictures have it: its centre's move (3,) m, its turn (3,) rad."""

    move: np.ndarray
    turn: np.ndarray


def gap_of(data: mujoco.MjData, body: int, pose: np.ndarray) -> Gap:
    """How far pictures that have a body at `pose` (4, 4) want it moved."""
    import cv2

    now = np.eye(4)
    now[:3, :3], now[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body]
    change, centre = pose @ np.linalg.inv(now), data.xipos[body]
    move = change[:3, :3] @ centre + change[:3, 3] - centre
    return Gap(move, cv2.Rodrigues(change[:3, :3])[0][:, 0])


def along(up: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """(6,) the part of a twist or wrench that shifts along a ground with normal `up` (3,) and turns about it."""
    move, turn = twist[:3], twist[3:]
    return np.concatenate([move - (move @ up) * up, (turn @ up) * up])
