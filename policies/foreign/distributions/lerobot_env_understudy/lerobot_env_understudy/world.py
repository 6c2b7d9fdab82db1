"""A world as `EnvConfig`, and as the environment that lerobot's evaluation loop steps.

Observations get the names that lerobot's loop renames to those of a dataset: `agent_pos` becomes `observation.state`,
`environment_state` stays, `pixels` are the cameras. An env seed is the initial condition that it is in
`understudy eval`.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

import understudy
from understudy.api import read_world_of
from understudy.configs.spec import IMAGES, SCENE, STATE

GYM_ID = "lerobot_env_understudy/World-v0"
VECTORS = {STATE: "agent_pos", SCENE: "environment_state"}


@EnvConfig.register_subclass("understudy")
@dataclass
class UnderstudyWorld(EnvConfig):
    """A world by its name, or by a YAML file of understudy."""

    task: str | None = "lift"  # as `understudy list worlds` has it, or a YAML file
    fps: int = 0  # of the world; what is given here is compared with it
    cameras: dict[str, list[int]] = field(default_factory=dict)  # name -> [height, width]; default the world's own
    episode_length: int | None = None  # control steps; default the world's own
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked = dict(self._asked)
        world = read_world_of(asked.pop("world"), **asked)
        body = world.embodiment()
        if self.fps not in (0, round(body.rate)):
            raise ValueError(f"--env.fps={self.fps}, but '{self.task}' runs at {body.rate:g} Hz; leave it out")
        self.fps, self.episode_length = round(body.rate), world.steps()
        kinds = {STATE: FeatureType.STATE, SCENE: FeatureType.ENV}
        self.features = {"action": PolicyFeature(FeatureType.ACTION, (len(body.action),))}
        self.features_map = {"action": "action"}
        for key, names in body.offers().items():
            if key.startswith(IMAGES):
                name, shape = f"pixels/{key.removeprefix(IMAGES)}", (*body.cameras[key.removeprefix(IMAGES)], 3)
                self.features[name] = PolicyFeature(FeatureType.VISUAL, shape)
            else:
                name = VECTORS[key]
                self.features[name] = PolicyFeature(kinds[key], (len(names),))
            self.features_map[name] = key

    @property
    def _asked(self) -> dict[str, Any]:
        cameras = {"cameras": {name: tuple(size) for name, size in self.cameras.items()}} if self.cameras else {}
        horizon = {"horizon": self.episode_length} if self.episode_length else {}
        return {"world": self.task} | cameras | horizon

    @property
    def package_name(self) -> str:
        return "lerobot_env_understudy"

    @property
    def gym_id(self) -> str:
        return GYM_ID

    @property
    def gym_kwargs(self) -> dict:
        return self._asked


class WorldForLerobot(gymnasium.Env):
    """A world under lerobot's names. An episode that has ended stands still until it is reset with a seed.

    lerobot's loop steps all environments until the slowest has ended, and gymnasium resets those that ended before:
    their steps do not count, so they are not simulated.
    """

    def __init__(self, world: str, **changes: Any):
        self.world = understudy.make(world, **changes)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(self.world.embodiment.rate)}
        self.render_mode = "rgb_array"
        self.action_space = self.world.action_space
        self.observation_space = gymnasium.spaces.Dict(_renamed(self.world.observation_space, gymnasium.spaces.Dict))
        self._max_episode_steps = self.world.world.steps()
        self.task = self.task_description = self.world.world.task
        self._seen: dict = {}
        self._seeded = self._ended = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode; see the class."""
        if seed is None and self._seeded and self._ended and not options:
            return self._seen, {"is_success": False}
        self._seeded, self._ended = seed is not None, False
        obs, info = self.world.reset(seed=seed)
        self._seen = _renamed(obs, dict)
        return self._seen, {"is_success": bool(info["success"])}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """One control step; nothing of an episode that has ended."""
        if self._ended:
            return self._seen, 0.0, False, False, {"is_success": False}
        obs, reward, terminated, truncated, info = self.world.step(np.asarray(action, np.float32))
        self._seen, self._ended = _renamed(obs, dict), terminated or truncated
        return self._seen, float(reward), terminated, truncated, {"is_success": bool(info["success"])}

    def render(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB."""
        return self.world.render()

    def close(self) -> None:
        """Let the simulation go."""
        self.world.close()


def _renamed(obs, group) -> dict:
    """Values by our keys under the names of lerobot's loop; the cameras are one `group`."""
    named = {VECTORS[key]: obs[key] for key in obs if key in VECTORS}
    pictures = {key.removeprefix(IMAGES): obs[key] for key in obs if key.startswith(IMAGES)}
    return named | ({"pixels": group(pictures)} if pictures else {})


if GYM_ID not in gymnasium.registry:
    gymnasium.register(GYM_ID, entry_point=f"{__name__}:WorldForLerobot")
