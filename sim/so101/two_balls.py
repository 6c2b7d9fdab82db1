"""Two tasks in one scene, which only their text tells apart: reach the red ball, or the blue one.

Both worlds begin alike from one env seed and show the same. A policy that was trained on both needs to be told which
holds (`policy.language`), and does the other where it is told the other: `understudy eval --task_text so101-blue-ball`.
"""

from __future__ import annotations

import numpy as np

from ...configs.spec import SCENE, STATE
from ..experts import register_expert
from ..task import register_task
from .arm import SO101
from .experts import ReachExpert
from .tabletop import GHOST, NEAR, RATE, Reach, _around

COLOURS = {"red": (0.85, 0.25, 0.2, 1), "blue": (0.2, 0.35, 0.85, 1)}
APART = 0.08  # m between the balls, at least


class TwoBalls(Reach):
    """Bring the point between the fingers to one of two balls. Scene: x, y, z (m) of the red and of the blue ball."""

    embodiment = SO101.embodiment(RATE, {f"{colour}.{axis}": "m" for colour in COLOURS for axis in "xyz"})
    wanted = "red"

    def scene(self):
        import mujoco

        spec = self.table()
        for colour, rgba in COLOURS.items():
            ball = spec.worldbody.add_body(name=colour, mocap=True)
            ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[NEAR, 0, 0], rgba=rgba, **GHOST)
        return spec

    def reset(self, model, data, rng) -> None:
        self.put_home(model, data, rng)
        places = [_around(rng), _around(rng)]
        while min(np.linalg.norm(places - np.array([0.168, 0.0]), axis=1)) < 0.05 or np.ptp(places, 0).max() < APART:
            places = [_around(rng), _around(rng)]
        for ball, place in enumerate(places):
            data.mocap_pos[ball] = *place, rng.uniform(0.03, 0.08)

    def observe(self, model, data) -> dict[str, np.ndarray]:
        return {STATE: self.joints(model, data), SCENE: data.mocap_pos.ravel()}

    def goal(self, data) -> np.ndarray:
        """(3,) m, where the hand is to come."""
        return data.mocap_pos[list(COLOURS).index(self.wanted)]

    def _away(self, data) -> float:
        return float(np.linalg.norm(data.site(self.arm.hand).xpos - self.goal(data)))


@register_task("so101-red-ball")
class RedBall(TwoBalls):
    """Reach the red ball; see `TwoBalls`."""


@register_task("so101-blue-ball")
class BlueBall(TwoBalls):
    """Reach the blue ball; see `TwoBalls`."""

    wanted = "blue"


@register_expert("so101-red-ball")
@register_expert("so101-blue-ball")
class BallExpert(ReachExpert):
    """Straight to the ball that is asked for, the hand down."""

    def goal(self, env) -> np.ndarray:
        return env.task.goal(env.data)
