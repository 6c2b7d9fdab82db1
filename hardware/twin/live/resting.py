"""What pictures may do to an object that stands on something: shift it and turn it there, not lift or tilt it.

Along a line of sight a picture says little, so that a force along it is mostly noise; one camera alone can so lift a
thing off its table and turn it over. What lifts things is the arm. And what stands does not begin to move until its
friction is overcome: a correction gets that much more, in its own direction, as long as the thing rests (limit surface
of Howe and Cutkosky, 1996, taken as an ellipsoid). Nothing here knows of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

OVERCOME = 0.9  # part of the friction that is added
SLOW = 0.02  # m/s, at which a thing still half rests
WHOLE = 0.001  # m, a wanted move from which on all of it is added


@dataclass(frozen=True)
class Ground:
    """What a body stands on: unit vector (3,) out of it, friction that it can bear, N, and at which distance, m."""

    up: np.ndarray
    friction: float
    arm: float


def standing(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> Ground | None:
    """What `body` stands on, by its contacts now with what cannot move; None: on nothing."""
    import mujoco

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
    if length < 0.5 * len(normals):
        return None

    wrench, bears, moment = np.zeros(6), 0.0, 0.0
    for number in touching.tolist():
        mujoco.mj_contactForce(model, data, number, wrench)
        bear = float(wrench[0] * data.contact.friction[number, 0]) if data.contact.dim[number] > 1 else 0.0
        bears += bear
        moment += bear * float(np.linalg.norm(data.contact.pos[number] - data.xipos[body]))
    return Ground(total / length, bears, moment / bears if bears > 0 else 0.0)


def along(ground: Ground, wrench: np.ndarray) -> np.ndarray:
    """(6,) the part of a wrench that shifts along the ground and turns about its normal."""
    force, torque = wrench[:3], wrench[3:]
    return np.concatenate([force - (force @ ground.up) * ground.up, (torque @ ground.up) * ground.up])


def overcome(ground: Ground, move: np.ndarray, turn: float, speed: float) -> np.ndarray:
    """(6,) N and N m that take friction away from a wanted move (3,) m and turn, rad about the ground's normal.

    `speed` (m/s) is that of the body now: of what slides already, friction is overcome.
    """
    flat = move - (move @ ground.up) * ground.up
    size = float(np.sqrt(flat @ flat + (ground.arm * turn) ** 2))
    if size < 1e-9 or ground.friction <= 0:
        return np.zeros(6)
    share = OVERCOME * min(1.0, size / WHOLE) / (1 + (speed / SLOW) ** 2)
    force = share * ground.friction * flat / size
    torque = share * ground.friction * ground.arm**2 * turn / size * ground.up
    return np.concatenate([force, torque])
