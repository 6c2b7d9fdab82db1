"""Demonstrator of robosuite's Door: grasp the handle from before it, turn it down until the latch is free, pull.

The hand points into the door, the fingers above and below the handle's bar, and turns as the handle does; from above it
would not fit between bar and door. All of it is feedback on the lane's present state. Positions in m, angles in rad,
world coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..experts import register_expert
from .grasp import CLOSE, OPEN, Grasper, Gripper


@dataclass(frozen=True)
class Handle:
    """The handle as it is now. Columns of `axes`: along it to its end, into the door, up from it."""

    pivot: np.ndarray  # (3,) m, on the axis that it turns around
    axes: np.ndarray  # (3, 3)
    turned: float  # rad, downwards
    hinge: np.ndarray  # (3,) m, on the axis that the door turns around
    opened: float  # rad

    @classmethod
    def of(cls, env) -> Handle:
        """Read a lane of Door."""
        suite, data = env.suite, env.suite.sim.data
        body = suite.object_body_ids["latch"]
        joint = suite.sim.model.joint_name2id(suite.door.joints[0])
        return cls(
            np.array(data.body_xpos[body]),
            np.array(data.body_xmat[body]).reshape(3, 3),
            float(data.qpos[suite.handle_qpos_addr]),
            np.array(data.xanchor[joint]),
            float(data.qpos[suite.hinge_qpos_addr]),
        )

    def point(self, along: float) -> np.ndarray:
        """(3,) a point of the handle's bar, `along` m from its pivot."""
        return self.pivot + self.axes @ np.array([along, -0.1, 0.0])

    def hand(self) -> np.ndarray:
        """(2, 3) x and y axis of a hand that points into the door, the fingers below and above it."""
        return np.stack([-self.axes[:, 2], -self.axes[:, 0]])


@register_expert("door")
@dataclass(frozen=True)
class DoorExpert(Grasper):
    """Before the handle, the fingers above and below it, close, turn, pull."""

    styles: ClassVar[dict[str, dict]] = {
        "quick": {"gain": 0.75},
        "slow": {"pace": 0.6},
        "high": {"hover": 0.12},
        "end": {"along": 0.12},
    }
    flaws: ClassVar[dict[str, dict]] = {"miss": {"beside": 0.1}, "tug": {"free": 0.3}}

    along: float = 0.1  # m from the pivot at which the handle is held
    free: float = 1.25  # rad that the handle is turned for the latch to let go
    spare: float = 0.2  # rad more than that to which it goes on turning
    past: float = 0.08  # rad that the door is open once the latch is past its frame
    lead: float = 0.7  # rad that the hand tries to be ahead of the handle
    press: float = 0.02  # m into the door that it goes for while it turns, so that the latch does not rub
    swing: float = 0.2  # rad that it tries to be ahead of the door
    aside: float = 0.01
    hover: float = 0.08
    slope: float = 0.5
    skew: float = 0.25

    def delta(self, env) -> np.ndarray:
        hand, handle = Gripper.of(env), Handle.of(env)
        point = handle.point(self.along)
        if self.beside:
            point = point + self.beside * handle.axes[:, 0]

        # how far beside the handle, how far turned off
        off = np.linalg.norm(np.cross(hand.axes, handle.hand()), axis=1).max()
        way = handle.axes.T @ (point - hand.position)  # along the handle, into the door, up
        side = float(np.linalg.norm(way[[0, 2]]))

        at = side < 3 * self.aside and abs(way[1]) < 2 * self.near
        if at and hand.width < self.held and hand.speed < self.still:
            return self._work(hand, handle)
        if side < 1.5 * self.aside and abs(way[1]) < self.near:
            return self._go(hand, point, handle.hand(), CLOSE)

        far = max(side / self.aside, off / self.skew)
        before = self.hover * np.clip((far - 1) / self.slope, 0, 1)
        return self._go(hand, point - before * handle.axes[:, 1], handle.hand(), OPEN)

    def _work(self, hand: Gripper, handle: Handle) -> np.ndarray:
        """Turn the handle; once the latch is free, swing the door with it."""
        ahead = np.clip(self.free + self.spare - handle.turned, 0, self.lead) * (handle.opened < self.past)
        turned = _turn(handle.axes[:, 1], float(ahead))
        axes = handle.hand() @ turned.T
        goal = handle.pivot + turned @ (handle.point(self.along) - handle.pivot)

        if handle.turned > self.free or handle.opened > self.past:
            swing = _turn(np.array([0.0, 0.0, 1.0]), self.swing)
            goal = handle.hinge + swing @ (goal - handle.hinge)
            axes = axes @ swing.T
        else:
            goal = goal + self.press * handle.axes[:, 1]
        return self._go(hand, goal, axes, CLOSE)

    def _go(self, hand: Gripper, goal: np.ndarray, axes: np.ndarray, grip: float) -> np.ndarray:
        """Part of the way to a position and to x and y axes (2, 3)."""
        step = np.clip(self.gain * (goal - hand.position) / self.reach, -self.pace, self.pace)
        turn = sum(np.cross(now, aim) for now, aim in zip(hand.axes, axes, strict=True))
        return np.array([*step, *np.clip(turn / self.turn, -self.spin, self.spin), grip])


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) rotation by `angle` around `axis`."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(angle * axis).as_matrix()
