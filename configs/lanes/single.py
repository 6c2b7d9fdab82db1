"""One copy of a world as a plain `gymnasium.Env`, in this process: what `understudy.make(world)` gives.

What the lane of the world promises is checked here as in `Lanes`, and so is what it is asked for. Knows no policy.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from ..world import World
from .handover import Handover


class WorldEnv(gymnasium.Env):
    """A world to act in.

        env = understudy.make("lift")
        obs, info = env.reset(seed=1000)
        obs, reward, terminated, truncated, info = env.step(action)

    Observations and actions have the keys, names and units of `embodiment`. `seed` is the env seed: the same one is the
    same initial condition everywhere, `understudy eval` too; without one it is drawn. `info` holds `success` (bool),
    `progress` (0..1) and, after a step, `action.sent` (D,): what was really executed. The first success terminates; the
    world's horizon truncates. Reset `options`: `action_noise`, see `Lane.reset`.

    Attributes:
        world: its settings.
        embodiment: who acts: names, units, limits and rate of the actions, and what is observed.
        lane: the simulation inside.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"

    def __init__(self, world: World):
        self.world, self.embodiment = world, world.embodiment()
        observations, self.action_space = self.embodiment.spaces()
        self.observation_space = observations
        self._dtypes = {key: space.dtype for key, space in observations.items()}
        self.metadata = self.metadata | {"render_fps": self.embodiment.rate}
        self.lane: Any = world.lane()  # a Lane, or an environment that keeps its promises
        self._promised = Handover(world)
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Begin an episode: (observation key -> array, info)."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        obs, info = self.lane.reset(seed=start, options=options)
        success, progress = self._promised.outcome(info)
        self._running = True
        return self._seen(obs), dict(info) | {"success": success, "progress": progress}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step with `action` (D,) in units of the embodiment; what lies outside its limits is clipped.

        Raises:
            ResetNeeded: no episode runs.
            ValueError: another shape, or not finite.
        """
        if not self._running:
            raise ResetNeeded("no episode runs: it has not begun, or has ended; call reset(seed=...)")
        asked, names = np.asarray(action, np.float32), self.embodiment.action
        if asked.shape != (len(names),):
            raise ValueError(f"an action is ({len(names)},), the numbers {', '.join(names)}; got {asked.shape}")
        if not np.isfinite(asked).all():
            raise ValueError(f"the action is not finite: {asked}")
        obs, reward, terminated, truncated, info = self.lane.step(asked)
        success, progress = self._promised.outcome(info)
        told = dict(info) | {"success": success, "progress": progress, "action.sent": self._promised.sent(info)}
        self._running = not (terminated or truncated)
        return self._seen(obs), self._promised.reward(reward), bool(terminated), bool(truncated), told

    def render(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB, the picture now."""
        return self.lane.render()

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """(D,) float32, what the task's scripted expert does now. Raises LookupError where there is none."""
        return self.lane.expert_action(noise)

    def close(self) -> None:
        """Let the simulation go."""
        self.lane.close()

    def __repr__(self) -> str:
        kind = self.world.get_choice_name(type(self.world))
        return f"WorldEnv({kind}/{self.world.task}, {len(self.embodiment.action)} actions, {self.embodiment.rate:g} Hz)"

    __str__ = __repr__

    def _seen(self, obs) -> dict[str, np.ndarray]:
        """The observation as the space has it."""
        checked = self._promised.observation(obs)
        return {key: np.asarray(checked[key], dtype) for key, dtype in self._dtypes.items()}
