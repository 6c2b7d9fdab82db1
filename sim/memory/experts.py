"""Demonstrators of the memory tasks: they know the past from the lane, which a policy does not observe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..experts import register_expert
from ..robosuite.experts import Placer, SquareExpert
from ..robosuite.grasp import CLOSE, Gripper, Target


def toward(now: np.ndarray, target, most: float) -> np.ndarray:
    """(2,) the next target position on the straight way, at most `most` m away."""
    way = np.asarray(target) - now
    return now + way * min(1.0, most / max(float(np.linalg.norm(way)), 1e-9))


@dataclass(frozen=True)
class Rememberer:
    """What these demonstrators share: a pace, and a flaw, to act as another past would ask for."""

    step: float = 0.05  # m asked for in one control step
    forgets: bool = False  # takes the past to be another once the clamp has opened

    styles: ClassVar[dict] = {"calm": {"step": 0.03}, "hasty": {"step": 0.07}}
    flaws: ClassVar[dict] = {"forgets": {"forgets": True}}

    def believed(self, env) -> dict[str, float]:
        """What the lane remembers, or what a demonstrator that forgets takes for it."""
        memory = env.memory()
        if self.forgets and memory["count"]:
            memory |= {"cue": -memory["cue"], "count": memory["count"] + 1}
        return memory


@register_expert("push-and-return")
@dataclass(frozen=True)
class PushAndReturnExpert(Rememberer):
    """Round below the block to the side that it is pushed from, then along the rail; home while the latch holds it."""

    beside: ClassVar[float] = 0.065  # m between pusher and block before it is pushed
    below: ClassVar[float] = -0.1  # m, y to travel at

    def act(self, env) -> np.ndarray:
        now, block = env.data.qpos[:2], float(env.data.qpos[2])
        return toward(now, self._next(self.believed(env), env, now, block), self.step)

    def _next(self, memory: dict, env, now: np.ndarray, block: float):
        low = now[1] < self.below + 0.03
        if env.data.eq_active[0]:
            return env.task.clamp if low else (now[0], self.below)
        way = memory["cue"] if memory["count"] else -memory["cue"]
        side = block - way * self.beside

        # push; touch; else round below
        if way * (block - now[0]) > 0.035 and abs(now[1]) < 0.015:
            return now[0] + way, 0.0
        if abs(now[0] - side) < 0.015:
            return side, 0.0
        return side if low else now[0], self.below


@register_expert("count-scoops")
@dataclass(frozen=True)
class CountScoopsExpert(Rememberer):
    """Up, across, down: to the bowl when empty, to the pot when loaded, home after enough scoops."""

    def act(self, env) -> np.ndarray:
        task, memory, now = env.task, self.believed(env), env.data.qpos[:2]
        if memory["held"]:
            return np.array(task.clamp)
        place = task.pot if memory["loaded"] else task.bowl if memory["count"] < task.scoops else task.home
        if abs(now[0] - place) < 0.015:
            return toward(now, (place, 0.02), self.step)
        return toward(now, (place if now[1] > task.high - 0.04 else now[0], task.high), self.step)


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
        from .lift_and_return import MIDDLE, ORIGINS

        memory = env.memory()
        return np.array([*ORIGINS[memory["origin"]], env.rest_height]) if memory["been"] else MIDDLE

    def target(self, env, hand: Gripper) -> Target:
        return Target(env.cube())

    def lifted(self, target: Target) -> bool:
        return bool(target.position[2] > 0.85)

    def done(self, env, hand: Gripper) -> bool:
        cube, goal = env.cube(), self._goal(env)
        there = np.linalg.norm((cube - goal)[:2]) < self.margin and cube[2] < goal[2] + self.down
        return bool(env.memory()["been"] and there)

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
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

    def done(self, env, hand: Gripper) -> bool:
        from .square_long import WANTED

        return bool(self._count(env) >= WANTED and not env.memory()["clear"])

    def carry(self, env, hand: Gripper, target: Target) -> np.ndarray:
        nut, yaw = self._nut(env)
        memory, peg = env.memory(), self._peg(env)
        turn = self._turn(hand, yaw)
        if memory["count"] and not memory["clear"]:
            return self.move(hand, np.array([*peg[:2], self.off]) - nut, hand.yaw + turn, CLOSE)
        return self.bring(hand, nut, np.array([*peg[:2], self.lower]), turn)
