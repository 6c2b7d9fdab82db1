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
REACH = 0.03  # m, at which a turn counts as a move
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


@dataclass(frozen=True)
class Gap:
    """From where a body is to where pictures have it: its centre's move (3,) m, its turn (3,) rad; its speed, m/s."""

    move: np.ndarray
    turn: np.ndarray
    speed: float

    @property
    def size(self) -> float:
        """m, a turn counted at `REACH`."""
        return float(np.linalg.norm(self.move) + REACH * np.linalg.norm(self.turn))


def gap_of(data: mujoco.MjData, body: int, pose: np.ndarray) -> Gap:
    """How far pictures that have a body at `pose` (4, 4) want it moved."""
    now = np.eye(4)
    now[:3, :3], now[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body]
    change, centre = pose @ np.linalg.inv(now), data.xipos[body]
    skew = (change[:3, :3] - change[:3, :3].T) / 2
    turn = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    move = change[:3, :3] @ centre + change[:3, 3] - centre
    return Gap(move, turn, float(np.linalg.norm(data.cvel[body, 3:])))


def along(up: np.ndarray, wrench: np.ndarray) -> np.ndarray:
    """(6,) the part of a wrench that shifts along a ground with normal `up` (3,) and turns about it."""
    force, torque = wrench[:3], wrench[3:]
    return np.concatenate([force - (force @ up) * up, (torque @ up) * up])


def overcome(ground: Ground, gap: Gap) -> np.ndarray:
    """(6,) N and N m that take friction away from a wanted move; of what slides already, friction is overcome."""
    flat, turn = gap.move - (gap.move @ ground.up) * ground.up, float(gap.turn @ ground.up)
    size = float(np.sqrt(flat @ flat + (ground.arm * turn) ** 2))
    if size < 1e-9 or ground.friction <= 0:
        return np.zeros(6)
    share = OVERCOME * min(1.0, size / WHOLE) / (1 + (gap.speed / SLOW) ** 2)
    force = share * ground.friction * flat / size
    torque = share * ground.friction * ground.arm**2 * turn / size * ground.up
    return np.concatenate([force, torque])
