"""From where pictures have the objects to what is done about it: what stands on something is moved, the rest is pulled.

Friction on a table swallows a small force, and what is just above it cannot be measured out: with forces a thing stays
some millimetres off, or jumps. So an object that stands on something is moved: its pose by a bounded share of what
pictures want, along the ground and about its normal. The robot does not yield: what of the move would lead into a
contact with it, or with another object, is left out. Velocities stay as they are, and physics goes on from there. What
hangs or flies gets the wrench that pictures ask for.

The twin's own past is moved with it: the pictures that are still to come show what was then, and the same error would
be found and corrected again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .resting import REACH, Gap, along, standing

if TYPE_CHECKING:
    import mujoco

LINGERS = 0.2  # s that a thing counts as standing after its last contact with what it stood on


class Supports:
    """What bodies stand on; contacts that are missing for a few steps are bridged."""

    def __init__(self, model: mujoco.MjModel, bodies: Iterable[int]):
        self.model, self.bodies = model, tuple(int(body) for body in bodies)
        self._last: dict[int, tuple[float, np.ndarray]] = {}

    def look(self, data: mujoco.MjData) -> dict[int, np.ndarray]:
        """Body -> unit vector (3,) out of what it stands on; of those that stand on something."""
        for body in self.bodies:
            up = standing(self.model, data, body)
            if up is not None:
                self._last[body] = (data.time, up)
        return {body: up for body, (when, up) in self._last.items() if 0 <= data.time - when <= LINGERS}


def shift(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    body: int,
    up: np.ndarray,
    gap: Gap,
    share: float,
    most: float,
    past: Iterable[np.ndarray] = (),
) -> np.ndarray:
    """Move a body that stands on a ground with normal `up` (3,) by a share of a gap; (6,) the twist made, m and rad.

    Args:
        most: m, the longest such move, a turn counted at `REACH`.
        past: earlier joint positions (nq,), moved alike.
    """
    import mujoco

    twist = along(up, share * np.concatenate([gap.move, gap.turn]))
    for normal in obstacles(model, data, body):
        twist[:3] -= max(0.0, float(twist[:3] @ normal)) * normal
    twist = along(up, twist)
    size = float(np.linalg.norm(twist[:3]) + REACH * np.linalg.norm(twist[3:]))
    twist *= min(1.0, most / max(size, 1e-12))

    change = change_of(model, data, body, twist)
    for values in (data.qpos, *past):
        mujoco.mj_integratePos(model, values, change, 1.0)
    return twist


def obstacles(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
    """(n, 3) unit vectors out of `body` at its contacts with what moves: the robot, other objects."""
    if not data.ncon:
        return np.zeros((0, 3))
    pairs = model.geom_bodyid[data.contact.geom]
    moves = model.body_weldid[pairs] != 0
    first, second = (pairs[:, 0] == body) & moves[:, 1], (pairs[:, 1] == body) & moves[:, 0]
    found = np.flatnonzero(first | second)
    return data.contact.frame[found, :3] * np.where(first[found], 1.0, -1.0)[:, None]  # from first to second


def change_of(model: mujoco.MjModel, data: mujoco.MjData, body: int, twist: np.ndarray) -> np.ndarray:
    """(nv,) how the joints that carry `body` move when its centre of mass moves by `twist` (6,), m and rad."""
    import mujoco

    move, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacBodyCom(model, data, move, turn, body)
    both = np.concatenate([move, turn])
    own = np.flatnonzero(np.abs(both).max(0) > 1e-9)
    change = np.zeros(model.nv)
    change[own] = np.linalg.lstsq(both[:, own], twist, rcond=1e-9)[0]
    return change
