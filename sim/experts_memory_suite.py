"""Demonstrators of robosuite's memory tasks. They know the past from the lane, which a policy does not observe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .experts import register_expert
from .experts_grasp import CLOSE, Hand, Target
from .experts_suite import Placer, SquareExpert


class Rests:
    """What they share: they ask for nothing while the clamp holds."""

    def delta(self, env) -> np.ndarray:
        return env.clamped_action() if env.memory()["held"] else super().delta(env)


@register_expert("lift-and-return")
@dataclass(frozen=True)
class ReturnExpert(Rests, Placer):
    """Lift to the middle, rest in the clamp, back over the origin, down, let go, up."""

    travel: float = 0.98
    over: float = 0.015
    margin: float = 0.03  # m beside the origin that are good enough
    down: float = 0.008  # m above the table at which it lets go

    def _goal(self, env) -> np.ndarray:
        from .memory_return import MIDDLE, ORIGINS

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

    def carry(self, env, hand: Hand, target: Target) -> np.ndarray:
        if env.memory()["been"]:
            return self.bring(hand, env.cube(), self._goal(env))
        return self.move(hand, self._goal(env) - env.cube(), hand.yaw, CLOSE)


@register_expert("square-long")
@dataclass(frozen=True)
class SquareLongExpert(Rests, SquareExpert):
    """The nut over the peg and down into the clamp, straight up off the peg, down again, let go, up."""

    styles: ClassVar[dict[str, dict]] = {name: SquareExpert.styles[name] for name in ("quick", "slow", "high")}
    flaws: ClassVar[dict[str, dict]] = SquareExpert.flaws | {"forgets": {"forgets": True}}

    lower: float = 0.89  # m, height of the nut that it goes for
    off: float = 1.01  # m, height of the nut that it goes for when lifting it off the peg
    forgets: bool = False  # deliberate failure: takes a placing for one more

    def _count(self, env) -> int:
        count = env.memory()["count"]
        return count + bool(self.forgets and count)

    def done(self, env, hand: Hand) -> bool:
        from .memory_square import WANTED

        return bool(self._count(env) >= WANTED and not env.memory()["clear"])

    def carry(self, env, hand: Hand, target: Target) -> np.ndarray:
        nut, yaw = self._nut(env)
        memory, peg = env.memory(), self._peg(env)
        turn = self._turn(hand, yaw)
        if memory["count"] and not memory["clear"]:
            return self.move(hand, np.array([*peg[:2], self.off]) - nut, hand.yaw + turn, CLOSE)
        return self.bring(hand, nut, np.array([*peg[:2], self.lower]), turn)
