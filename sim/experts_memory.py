"""Demonstrators of the memory tasks: they know the past from the lane, which a policy does not observe."""

from __future__ import annotations

import numpy as np

from .experts import register_expert

STEP = 0.05  # m asked for in one control step


def toward(now: np.ndarray, target) -> np.ndarray:
    """(2,) the next target position on the straight way."""
    way = np.asarray(target) - now
    return now + way * min(1.0, STEP / max(float(np.linalg.norm(way)), 1e-9))


@register_expert("push-and-return")
class PushAndReturnExpert:
    """Round below the block to the side that it is pushed from, then along the rail; home while the latch holds it."""

    beside = 0.065  # m between pusher and block before it is pushed
    below = -0.1  # m, y to travel at

    def act(self, env) -> np.ndarray:
        memory, now, block = env.memory(), env.data.qpos[:2], float(env.data.qpos[2])
        if env.data.eq_active[0]:
            return toward(now, env.task.clamp if now[1] < self.below + 0.03 else (now[0], self.below))
        way = memory["cue"] if memory["count"] else -memory["cue"]
        side = block - way * self.beside
        if way * (block - now[0]) > 0.035 and abs(now[1]) < 0.015:
            return toward(now, (now[0] + way, 0.0))
        if abs(now[0] - side) < 0.015:
            return toward(now, (side, 0.0))
        return toward(now, (side if now[1] < self.below + 0.03 else now[0], self.below))


@register_expert("count-scoops")
class CountScoopsExpert:
    """Up, across, down: to the bowl when empty, to the pot when loaded, home after enough scoops."""

    def act(self, env) -> np.ndarray:
        task, memory, now = env.task, env.memory(), env.data.qpos[:2]
        if memory["held"]:
            return np.array(task.clamp)
        place = task.pot if memory["loaded"] else task.bowl if memory["count"] < task.wanted else task.home
        if abs(now[0] - place) < 0.015:
            return toward(now, (place, 0.02))
        return toward(now, (place if now[1] > task.high - 0.04 else now[0], task.high))
