"""Demonstrators of robosuite's tasks: Lift, Can, Square, Stack. They see positions and directions of the objects.

Each is a function of the lane's present state. What they share is in `grasp.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..experts import register_expert
from .grasp import CLOSE, MIDDLE, Grasper, Gripper, Target, heading, within_reach, wrap

QUARTER = np.pi / 2


def _place(env, body: int) -> tuple[np.ndarray, float]:
    """Position (3,) and yaw of a body."""
    data = env.suite.sim.data
    return np.array(data.body_xpos[body]), heading(data.body_xmat[body])


@register_expert("lift")
@dataclass(frozen=True)
class LiftExpert(Grasper):
    """Up with the cube, the hand as it came."""

    up: float = 0.83  # m, height of a cube that has left the table

    def target(self, env, hand: Gripper) -> Target:
        return Target(np.array(env.suite.sim.data.body_xpos[env.suite.cube_body_id]))

    def lifted(self, target: Target) -> bool:
        return bool(target.position[2] > self.up)

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
        way = target.position - hand.position
        return self.move(hand, np.array([way[0], way[1], 0.2]), 0.0, CLOSE)


@dataclass(frozen=True)
class Placer(Grasper):
    """Carries to a goal: up first, over it, down a second funnel, let go."""

    travel: float = 1.0  # m, height of what is carried on its way
    spin: float = 0.5
    over: float = 0.02  # m beside the goal that count as over it
    straight: float = 0.1  # rad off the goal's direction that count as aligned
    lag: float = 0.05  # m below the way's height at which it still moves on

    def bring(self, hand: Gripper, there: np.ndarray, goal: np.ndarray, turn: float = 0.0) -> np.ndarray:
        """Move what is at `there` (3,) to `goal` (3,) and turn it by `turn` rad, without touching what is around."""
        way = goal - there
        aside = float(np.linalg.norm(way[:2]))
        off = max(aside / self.over, abs(turn) / self.straight)
        height = goal[2] + (self.travel - goal[2]) * np.clip(off - 1, 0, 1)
        if aside > self.over:
            way[:2] *= np.clip(1 - (height - there[2]) / self.lag, 0, 1)
        way[2] = height - there[2]
        return self.move(hand, way, hand.yaw + turn, CLOSE)


@register_expert("can")
@dataclass(frozen=True)
class CanExpert(Placer):
    """The can from the near bin over the walls into its own bin; from low above it lets go."""

    styles: ClassVar[dict[str, dict]] = {
        name: fields
        for name, fields in Grasper.styles.items()
        if name != "side"  # topples
    }

    travel: float = 1.02
    over: float = 0.05
    ground: float = 0.84
    drop: float = 0.90  # m, height of the can at which it is let go
    margin: float = 0.06  # m beside the middle of its bin that are good enough

    def _can(self, env) -> np.ndarray:
        suite = env.suite
        return np.array(suite.sim.data.body_xpos[suite.obj_body_id[suite.objects[suite.object_id].name]])

    def _goal(self, env) -> np.ndarray:
        suite = env.suite
        return np.array([*suite.target_bin_placements[suite.object_id][:2], self.drop - 0.02])

    def target(self, env, hand: Gripper) -> Target:
        return Target(self._can(env))

    def done(self, env, hand: Gripper) -> bool:
        can = self._can(env)
        return bool(np.abs(can - self._goal(env))[:2].max() < self.margin and can[2] < self.drop)

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
        return self.bring(hand, self._can(env), self._goal(env))


@register_expert("square")
@dataclass(frozen=True)
class SquareExpert(Placer):
    """The nut by its handle, turned the short way to the peg's sides, over the peg, down around it, let go."""

    travel: float = 0.99
    over: float = 0.004
    straight: float = 0.06
    skew: float = 0.1
    aside: float = 0.01
    held: float = 0.05
    grip: float = 0.004  # m above the middle of the handle, for the finger tips
    wrist: float = 2.1  # rad that the hand may be turned from the middle of its range
    threaded: float = 0.935  # m, height of a nut whose hole the peg has entered

    def _nut(self, env) -> tuple[np.ndarray, float]:
        return _place(env, env.suite.obj_body_id[env.suite.nuts[env.suite.nut_id].name])

    def _peg(self, env) -> np.ndarray:
        return np.array(env.suite.sim.data.body_xpos[env.suite.peg1_body_id])

    def target(self, env, hand: Gripper) -> Target:
        suite = env.suite
        site = suite.sim.model.site_name2id(suite.nuts[suite.nut_id].important_sites["handle"])
        handle = np.array(suite.sim.data.site_xpos[site]) + np.array([0, 0, self.grip])
        return Target(handle, within_reach(self._nut(env)[1], np.pi))

    def astray(self, env) -> float:
        return self._nut(env)[1] + super().astray(env) / 6  # off the end of the handle, not onto the ring

    def done(self, env, hand: Gripper) -> bool:
        nut, peg = self._nut(env)[0], self._peg(env)
        return bool(np.abs(nut - peg)[:2].max() < 0.015 and nut[2] < self.threaded)

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
        nut, yaw = self._nut(env)
        goal = np.array([*self._peg(env)[:2], self.threaded - 0.02])
        return self.bring(hand, nut, goal, self._turn(hand, yaw))

    def _turn(self, hand: Gripper, yaw: float) -> float:
        """The smallest turn to a side of the peg, the handle not away from the robot (out of reach)."""
        turns = [wrap(side - yaw) for side in (np.pi, QUARTER, -QUARTER)]
        return min(turns, key=lambda turn: abs(turn) + 9 * (abs(hand.yaw + turn - MIDDLE) > self.wrist))


@register_expert("stack")
@dataclass(frozen=True)
class StackExpert(Placer):
    """The red cube onto the green one."""

    travel: float = 0.93
    over: float = 0.01
    crowded: float = 0.1  # m between the cubes at which a finger may land on the other one

    def _cubes(self, env) -> tuple[np.ndarray, np.ndarray]:
        xpos = env.suite.sim.data.body_xpos
        return np.array(xpos[env.suite.cubeA_body_id]), np.array(xpos[env.suite.cubeB_body_id])

    def _rise(self, env) -> float:
        return float(env.suite.cubeA.size[2] + env.suite.cubeB.size[2])

    def target(self, env, hand: Gripper) -> Target:
        position, yaw = _place(env, env.suite.cubeA_body_id)
        way = (self._cubes(env)[1] - position)[:2]
        if np.linalg.norm(way) > self.crowded:
            return Target(position, within_reach(yaw, QUARTER))

        # the fingers open along (-sin, cos) of the direction: not over the other cube
        beside = min((yaw, yaw + QUARTER), key=lambda side: abs(way @ np.array([-np.sin(side), np.cos(side)])))
        return Target(position, within_reach(beside, np.pi))

    def done(self, env, hand: Gripper) -> bool:
        red, green = self._cubes(env)
        gap = red - green
        return bool(np.abs(gap[:2]).max() < 0.012 and abs(gap[2] - self._rise(env)) < 0.008)

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
        red, green = self._cubes(env)
        return self.bring(hand, red, green + np.array([0, 0, self._rise(env)]))
