"""Who may act besides an agent: the experts of the environments, any actor with noise on its actions, and recordings.

Each is an `Actor` of `rollout.py` and acts in the one loop. What is drawn is keyed by env seed and step, so that
episodes do not depend on which environment they run in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.rng import rng_of
from ...sim.experts import Manner
from .rollout import NO_START, Actor


class ExpertActor:
    """The experts of the environments as an actor that looks at every step.

    Args:
        manner: how they act; a number is the noise of their actions, in half ranges of the limits.
    """

    n_action_steps = 1
    look = ()

    def __init__(self, lanes: Lanes, manner: Manner | float = 0.0):
        self.lanes, self.manner = lanes, manner

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Nothing to remember: an expert sees the state."""

    def act(self) -> np.ndarray:
        return self.act_in(np.flatnonzero(self.lanes.running).tolist())

    def act_in(self, slots: Sequence[int]) -> np.ndarray:
        """(B, 1, D), zeros in other slots than these."""
        actions = np.zeros((self.lanes.num_envs, 1, *self.lanes.single_action_space.shape), np.float32)
        for slot, action in enumerate(self.lanes.call("expert_action", self.manner, slots=slots)):
            if action is None:
                continue
            if np.shape(action) == actions.shape[2:] and np.isfinite(action).all():
                actions[slot, 0] = action
            else:
                self.lanes.fail(slot, f"the expert's action must be {actions.shape[2]} finite numbers, got {action}")
        return actions

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """Nothing to remember."""


class NoisyActor:
    """Acts like `actor` with Gaussian noise on each action, keyed by (seed, env seed, step).

    Args:
        limits: ((low, high), ...) of each action; what is asked stays inside.
        noise: standard deviation in half ranges of the limits.
        lanes: B.
    """

    def __init__(self, actor: Actor, limits, noise: float, lanes: int, seed: int = 0):
        self.actor, self.noise, self.seed = actor, noise, seed
        self.n_action_steps, self.look = actor.n_action_steps, actor.look
        self._low, self._high = np.asarray(limits, np.float32).T
        self._starts, self._now = np.full(lanes, NO_START, np.int64), np.zeros(lanes, np.int64)

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        self._starts[mask], self._now[mask] = np.asarray(starts)[mask], 0
        self.actor.reset(starts, mask, obs)

    def act(self) -> np.ndarray:
        actions = self.actor.act()
        keys = zip(self._starts.tolist(), self._now.tolist(), strict=True)
        draws = [rng_of(self.seed, start, now, 3) for start, now in keys]
        noise = np.stack([draw.standard_normal(actions.shape[1:], np.float32) for draw in draws])
        half = (self._high - self._low) / 2
        return np.clip(actions + np.float32(self.noise) * noise * half, self._low, self._high)

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        self._now += valid.sum(1)
        self.actor.observe(obs, sent, valid)


class TapeActor:
    """Plays recorded actions again, env seed by env seed: shows an episode a second time, for example to film it.

    Args:
        tapes: env seed -> (T, D) float32 actions. After its end a tape repeats its last action.
        lanes: B.
    """

    look = ()

    def __init__(self, tapes: Mapping[int, np.ndarray], lanes: int, n_action_steps: int = 8):
        self.tapes, self.n_action_steps = tapes, n_action_steps
        self._dims = next((tape.shape[1] for tape in tapes.values()), 1)
        self._starts, self._now = np.full(lanes, NO_START), np.zeros(lanes, np.int64)

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        self._starts[mask], self._now[mask] = starts[mask], 0

    def act(self) -> np.ndarray:
        actions = np.zeros((len(self._starts), self.n_action_steps, self._dims), np.float32)
        for slot, (start, now) in enumerate(zip(self._starts.tolist(), self._now.tolist(), strict=True)):
            tape = self.tapes.get(start, ())
            if len(tape):
                actions[slot] = tape[np.minimum(now + np.arange(self.n_action_steps), len(tape) - 1)]
        return actions

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        self._now += valid.sum(1)
