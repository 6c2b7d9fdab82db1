"""From where pictures have the objects to what is done about it: what rests is moved, what the arm touches is pushed.

On a table, friction swallows a small force and no force above it can be measured out: the thing would stay some
millimetres off, or jump. So an object that stands on something, and that the robot does not touch, is moved: its pose by
a bounded share of what pictures want, along the table and about its normal, its velocity untouched. Where the robot
touches it, a wrench acts instead, so that contact decides. What hangs or flies gets the wrench that pictures ask for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .resting import Gap, Ground, along, gap_of, overcome, standing

if TYPE_CHECKING:
    import mujoco

LINGERS = 0.2  # s that a thing counts as standing after its last contact with what it stood on
EXP = os.environ.get("TWEXP", "")
REACH = 0.03

class Supports:
    """What each body stands on, with the patience that contacts of single steps want."""

    def __init__(self, model: mujoco.MjModel, bodies: Iterable[int]):
        self.model, self.bodies = model, tuple(int(body) for body in bodies)
        self._last: dict[int, tuple[float, Ground]] = {}

    def look(self, data: mujoco.MjData) -> dict[int, Ground]:
        """By number of the body, of those that stand on something."""
        for body in self.bodies:
            ground = standing(self.model, data, body)
            if ground is not None:
                self._last[body] = (data.time, ground)
        return {body: ground for body, (when, ground) in self._last.items() if 0 <= data.time - when <= LINGERS}


def touched(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
    """(n, 3) unit vectors out of `body` at its contacts with what moves."""
    if not data.ncon:
        return np.zeros((0, 3))
    pairs = model.geom_bodyid[data.contact.geom]
    moves = model.body_weldid[pairs] != 0
    first, second = (pairs[:, 0] == body) & moves[:, 1], (pairs[:, 1] == body) & moves[:, 0]
    found = np.flatnonzero(first | second)
    return data.contact.frame[found, :3] * np.where(first[found], 1.0, -1.0)[:, None]  # from first to second


def displace(model: mujoco.MjModel, qpos: Iterable[np.ndarray], change: np.ndarray) -> None:
    """Add a change (nv,) to joint positions, in place."""
    import mujoco

    for values in qpos:
        mujoco.mj_integratePos(model, values, change, 1.0)


def change_of(model: mujoco.MjModel, data: mujoco.MjData, body: int, twist: np.ndarray) -> np.ndarray:
    """(nv,) how the joints that carry `body` move, for its centre of mass to move by `twist` (6,), m and rad."""
    import mujoco

    move, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacBodyCom(model, data, move, turn, body)
    both = np.concatenate([move, turn])
    own = np.flatnonzero(np.abs(both).max(0) > 1e-9)
    change = np.zeros(model.nv)
    change[own] = np.linalg.lstsq(both[:, own], twist, rcond=1e-9)[0]
    return change
