"""A small toolbox for experts that grasp, shared by all tasks of robosuite: see, approach down a funnel, close, carry.

An expert is a frozen dataclass derived from `Grasper`: it says where to grasp (`target`) and what to do with what it
holds (`carry`). Everything is feedback on the lane's present state, without memory, so that a policy can learn it and
disturbances are recovered from. Positions in m and angles in rad, world coordinates; the hand points straight down and
its fingers open along the direction `yaw` + 90 degrees. Knows no task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...configs.rng import rng_of

CLOSE, OPEN = 1.0, -1.0
MIDDLE = 0.5  # rad, yaw about in the middle of a Panda's last joint, over the table


@dataclass(frozen=True)
class Gripper:
    """The gripper as it is now."""

    position: np.ndarray  # (3,) m
    axes: np.ndarray  # (2, 3) the hand's x axis (along which the fingers open), then its y axis
    width: float  # m between the fingers
    speed: float  # m/s at which that changes, without sign

    @classmethod
    def of(cls, env) -> Gripper:
        """Read a lane of robosuite."""
        position, axes = env.gripper_pose()
        (left, right), (left_speed, right_speed) = env.fingers(), env.finger_speeds()
        return cls(position, axes.reshape(2, 3), left - right, abs(left_speed - right_speed))

    @property
    def yaw(self) -> float:
        return float(np.arctan2(-self.axes[0, 0], self.axes[0, 1]))


@dataclass(frozen=True)
class Target:
    """Where to grasp: the point between the fingers, and the hand's direction there."""

    position: np.ndarray  # (3,) m
    yaw: float | None = None  # rad; None: as it comes


def frame(yaw: float) -> np.ndarray:
    """(2, 3) x and y axis of a hand that points straight down at `yaw`."""
    return np.array([[-np.sin(yaw), np.cos(yaw), 0.0], [np.cos(yaw), np.sin(yaw), 0.0]])


def wrap(angle: float, period: float = 2 * np.pi) -> float:
    """The same angle within half a period of 0."""
    return float((angle + period / 2) % period - period / 2)


def within_reach(yaw: float, period: float) -> float:
    """The direction equal to `yaw` up to multiples of `period` that is nearest to the middle of the wrist's range."""
    return MIDDLE + wrap(yaw - MIDDLE, period)


def heading(matrix: np.ndarray) -> float:
    """Yaw of a body from its rotation matrix, 9 numbers row by row."""
    return float(np.arctan2(matrix[3], matrix[0]))


@dataclass(frozen=True)
class Grasper:
    """Over the target with open fingers, down a funnel, close, then `carry`. Fields are the hand-writing."""

    styles: ClassVar[dict[str, dict]] = {
        "quick": {"gain": 0.75},
        "slow": {"pace": 0.5},
        "high": {"hover": 0.12, "slope": 2.0},
        "side": {"slant": 0.05},
    }
    flaws: ClassVar[dict[str, dict]] = {"miss": {"beside": 0.08}, "drop": {"spill": 0.01, "pace": 0.5}}

    gain: float = 0.5  # part of the remaining way to ask for in one step
    pace: float = 1.0  # largest action
    reach: float = 0.05  # m that an action of 1 asks for
    turn: float = 1.0  # rad, about, that an action of 1 corrects
    spin: float = 1.0  # largest rotation action
    hover: float = 0.06  # m above the target while not over it
    slope: float = 1.0  # widths of the funnel over which it rises from 0 to `hover`
    slant: float = 0.0  # m to the left of the target while above it: comes from the side
    straight: float = 0.04  # m above the target from which on it goes straight down
    aside: float = 0.02  # m beside the target that count as over it
    skew: float = 0.2  # rad off the target's direction that count as aligned
    near: float = 0.015  # m above or below the target at which the fingers close
    held: float = 0.066  # m between the fingers: less than open, no less than what is grasped
    still: float = 0.02  # m/s between the fingers: they have met it
    beside: float = 0.0  # m, deliberate failure: this far beside the target
    spill: float = np.inf  # m, deliberate failure: lets go this far above where it was grasped
    ground: float = 0.82  # m, height at which the target rests

    def target(self, env, hand: Gripper) -> Target:
        """Where to grasp now."""
        raise NotImplementedError

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
        """The action (7,) while something is held."""
        raise NotImplementedError

    def done(self, env, hand: Gripper) -> bool:
        """Whether what was carried is where it belongs: let go, and up."""
        return False

    def lifted(self, target: Target) -> bool:
        """Whether the target is so high that the hand must be holding it."""
        return False

    def astray(self, env) -> float:
        """Direction in rad in which a deliberate miss goes, keyed by the start."""
        return float(rng_of(env.start, 4).uniform(-np.pi, np.pi))

    def act(self, env) -> np.ndarray:
        """The action now, in the lane's control."""
        return env.as_action(self.delta(env))

    def delta(self, env) -> np.ndarray:
        """(7,) position and rotation deltas and gripper; may exceed the limits."""
        hand = Gripper.of(env)
        if self.done(env, hand):
            return self.move(hand, np.array([0.0, 0.0, 0.2 if hand.width > self.held else 0.0]), hand.yaw, OPEN)

        target = self.target(env, hand)
        if self.beside:  # a deliberate miss
            angle = self.astray(env)
            aim = target.position + self.beside * np.array([np.cos(angle), np.sin(angle), 0.0])
            target = Target(aim, target.yaw)

        way = target.position - hand.position
        at = np.linalg.norm(way[:2]) < self.aside and abs(way[2]) < self.near
        gripped = hand.width < self.held and hand.speed < self.still

        if at and target.position[2] > self.ground + self.spill:
            return self.move(hand, np.zeros(3), hand.yaw, OPEN)
        if at and (gripped or self.lifted(target)):
            return self.carry(env, hand, target)
        return self.approach(hand, target, way, CLOSE if at else OPEN)

    def approach(self, hand: Gripper, target: Target, way: np.ndarray, grip: float) -> np.ndarray:
        """Towards the target, the higher the farther beside it or the more turned away from it."""
        if self.slant:
            left = self.slant * np.clip((-way[2] - self.straight) / self.hover, 0, 1)
            way = way + np.array([0.0, left, 0.0])
        off = np.linalg.norm(way[:2]) / self.aside
        yaw = 0.0 if target.yaw is None else target.yaw
        if target.yaw is not None:
            off = max(off, abs(yaw - hand.yaw) / self.skew)
        above = self.hover * np.clip((off - 1) / self.slope, 0, 1)
        return self.move(hand, way + np.array([0.0, 0.0, above]), yaw, grip)

    def move(self, hand: Gripper, way: np.ndarray, yaw: float, grip: float) -> np.ndarray:
        """Part of `way`, turned towards straight down at `yaw`; no faster than `pace`."""
        step = np.clip(self.gain * way / self.reach, -self.pace, self.pace)
        axes = zip(hand.axes, frame(yaw), strict=True)
        turn = np.clip(sum(np.cross(axis, aim) for axis, aim in axes) / self.turn, -self.spin, self.spin)
        return np.array([*step, *turn, grip])
