"""PushT as gym-pusht simulates it: a round pusher moves a T-shaped block onto its outline, seen from above.

World type `gym_pusht`, registered name `pusht`. State: pusher x, y in px. Scene: gym-pusht's 8 keypoints of the T.
Action: the pusher's target x, y in px at 10 Hz. The MuJoCo version of the task is another world. Source: gym-pusht 0.1
(Hugging Face), after the Diffusion Policy benchmark (Chi et al. 2023).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...configs.lanes.lane import Lane
from ...configs.machine import versions
from ...configs.spec import IMAGES, SCENE, STATE, Embodiment
from ...configs.world import World, register_world
from ..experts import expert_action

SIZE = 512.0  # px, side of the arena
SUCCESS = 0.95  # part of the outline that must be covered
HORIZON = 300
PICTURE = 256  # px, side of a film picture
KEYPOINTS = tuple(f"kp{number}.{axis}" for number in range(8) for axis in "xy")

EMBODIMENT = Embodiment(
    name="pusht",
    action=("x", "y"),
    action_units=("px", "px"),
    limits=((0.0, SIZE), (0.0, SIZE)),
    rate=10.0,
    state=("x", "y"),
    state_units=("px", "px"),
    scene=KEYPOINTS,
    scene_units=("px",) * len(KEYPOINTS),
)


@World.register_subclass("gym_pusht")
@dataclass(frozen=True, kw_only=True)
class GymPushT(World):
    """gym-pusht behind our door. Its one camera is "image", drawn at the size asked for."""

    task: str = "pusht"

    def __post_init__(self):
        if self.task != "pusht":
            raise LookupError(f"unknown task '{self.task}' of world type gym_pusht. Known: pusht")
        unknown = set(self.cameras) - {"image"}
        if unknown:
            raise LookupError(f"unknown camera '{min(unknown)}' of pusht. Known: image")

    def embodiment(self) -> Embodiment:
        return EMBODIMENT.with_cameras(self.cameras)

    def lane(self) -> PushTLane:
        return PushTLane(self)

    def steps(self) -> int:
        return self.horizon or HORIZON

    def views(self) -> tuple[str, ...]:
        return ("image",)

    def fingerprint(self) -> dict:
        packages = versions("gym-pusht", "pymunk", "shapely", "opencv-python-headless")
        return dataclasses.asdict(self) | {"type": "gym_pusht", "horizon": self.steps(), "versions": packages}


class PushTLane(Lane):
    """One gym-pusht. Reset option `state`: (pusher x, y, block x, y, angle) for gym-pusht's `reset_to_state`."""

    def __init__(self, world: GymPushT):
        super().__init__(world)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # pygame's
            from gym_pusht.envs.pusht import PushTEnv  # bare: gym-pusht's own time limit is not wanted

        self._game = PushTEnv(obs_type="state", render_mode="rgb_array")
        self._coverage = 0.0

    def begin(self, seed: int, options: dict) -> None:
        self._game._last_action = None
        self._game.reset(seed=seed, options={"reset_to_state": options.get("state")})
        self._coverage = float(self._game._get_coverage())

    def act(self, action: np.ndarray) -> float:
        _, reward, _, _, info = self._game.step(action)
        self._coverage = float(info["coverage"])
        return reward

    def sense(self) -> dict[str, np.ndarray]:
        game = self._game
        obs = {
            STATE: np.array(game.agent.position, np.float32),
            SCENE: game.get_keypoints(game._block_shapes).astype(np.float32).ravel(),
        }
        for name, (height, width) in self.embodiment.cameras.items():
            obs[IMAGES + name] = game._get_img(game._draw(), width=width, height=height)
        return obs

    def draw(self, states: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """What the cameras see in a state, by their names; None where pusher and keypoints are not both told."""
        if not self._put(states):
            return None
        game, sizes = self._game, self.embodiment.cameras.items()
        return {name: game._get_img(game._draw(), width=width, height=height) for name, (height, width) in sizes}

    def score(self, states: Mapping[str, np.ndarray]) -> tuple[bool, float] | None:
        """Success and progress of a state; None as of `draw`."""
        if not self._put(states):
            return None
        self._coverage = float(self._game._get_coverage())
        return self.judge()

    def _put(self, states: Mapping[str, np.ndarray]) -> bool:
        """Pusher and block as told, if both are; what is simulated is lost.

        The block stands where its own corners are nearest to the keypoints (a rigid least-squares fit).
        """
        if STATE not in states or SCENE not in states:
            return False
        game = self._game
        if not hasattr(game, "_block_shapes"):  # gym-pusht lays its table at the first reset
            self.begin(0, {})
        corners = np.vstack([[tuple(corner) for corner in shape.get_vertices()] for shape in game._block_shapes])
        told = states[SCENE].reshape(-1, 2).astype(float)
        own, seen = (points - points.mean(0) for points in (corners, told))
        angle = float(np.arctan2((own[:, 0] * seen[:, 1] - own[:, 1] * seen[:, 0]).sum(), (own * seen).sum()))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        game.agent.position = states[STATE].astype(float).tolist()
        game.block.angle, game.block.position = angle, (told.mean(0) - turn @ corners.mean(0)).tolist()
        return True

    def judge(self) -> tuple[bool, float]:
        return self._coverage > SUCCESS, min(1.0, self._coverage / SUCCESS)

    def rest(self) -> np.ndarray:
        return np.array(self._game.agent.position, np.float32)

    def render(self) -> np.ndarray:
        game = self._game
        return game._get_img(game._draw(), width=PICTURE, height=PICTURE, render_action=True)

    def block_pose(self) -> np.ndarray:
        """(3,) float64: x, y in px and angle in rad of the block, as gym-pusht keeps them."""
        return np.array([*self._game.block.position, self._game.block.angle])

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the scripted demonstrator does now, see `experts.py`."""
        return expert_action("pusht", self, noise)

    def close(self) -> None:
        self._game.close()


register_world("pusht", GymPushT())
