"""Demonstrator of lift-and-return. It knows from the lane where the cube came from, which a policy does not observe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .experts import register_expert
from .experts_grasp import CLOSE, Hand, Target
from .experts_suite import Placer


@register_expert("lift-and-return")
@dataclass(frozen=True)
class ReturnExpert(Placer):
    """Lift to the middle, rest in the clamp, back over the origin, down, let go, up."""

    travel: float = 0.98
    over: float = 0.015
    margin: float = 0.03  # m beside the origin that are good enough
    down: float = 0.008  # m above the table at which it lets go

    def _goal(self, env) -> np.ndarray:
        from .memory_suite import MIDDLE, ORIGINS

        memory = env.memory()
        return np.array([*ORIGINS[memory["origin"]], env.rest_height]) if memory["been"] else MIDDLE

    def target(self, env, hand: Hand) -> Target:
        return Target(env.cube())

    def lifted(self, target: Target) -> bool:
        return bool(target.position[2] > 0.85)

    def done(self, env, hand: Hand) -> bool:
        cube, goal = env.cube(), self._goal(env)
        there = np.linalg.norm((cube - goal)[:2]) < self.margin and cube[2] < goal[2] + self.down
        return bool(env.memory()["been"] and there)

    def delta(self, env) -> np.ndarray:
        if env.memory()["held"]:
            return env.clamped_action()
        return super().delta(env)

    def carry(self, env, hand: Hand, target: Target) -> np.ndarray:
        if env.memory()["been"]:
            return self.bring(hand, env.cube(), self._goal(env))
        return self.move(hand, self._goal(env) - env.cube(), hand.yaw, CLOSE)
