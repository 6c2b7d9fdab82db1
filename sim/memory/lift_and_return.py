"""Lift-and-return: put the cube down where it came from, after a common middle (see `suite.py`).

The scene is robosuite's Lift. The cube lies at one of two origins, 20 cm apart. It must be lifted to a middle between
and above them, where the clamp holds it, and then be put down at the origin that it came from.

`labels()`: *completion*, the cube was put down at either origin after the middle; *context*, and it was the right one.
A policy without memory has context by chance, 1/2 of its completions. Putting down ends the episode.
After PTP's LH-ALOHA (arXiv:2505.09561). The demonstrator is in `experts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...configs.world import register_world
from .suite import TASKS, ClampLane, SuiteMemory

ORIGINS = np.array([[0.0, -0.1], [0.0, 0.1]])  # m, x and y, right and left of the robot's middle
SCATTER = 0.015  # m around an origin at which the cube may lie
MIDDLE = np.array([0.0, 0.0, 0.98])  # m, of the cube
CAUGHT = 0.02  # m from the middle at which the clamp takes the cube
PLACED = 0.05  # m from an origin that count as there
AWAY = 0.05  # m between hand and cube: it has been let go
TURN = 0.005  # rad, standard deviation of the arm's joints at the middle


class ReturnLane(ClampLane):
    """Lift with two origins and a clamp in the middle. `answer`: the origin at which the cube was put down, or -1."""

    scene, steps, wobble, hidden = "lift", 300, TURN, ("origin",)
    rules = {  # noqa: RUF012
        "origins": ORIGINS.tolist(),
        "middle": MIDDLE.tolist(),
        "scatter": SCATTER,
        "caught": CAUGHT,
        "placed": PLACED,
        "turn": TURN,
    }

    def forget(self) -> None:
        self.origin = 0

    def draw(self, rng: np.random.Generator) -> None:
        self.origin = int(rng.integers(2))
        self.put(ORIGINS[self.origin] + rng.uniform(-SCATTER, SCATTER, 2))

    def judge(self) -> tuple[bool, float]:
        if self.right():
            return True, 1.0
        goal = np.array([*ORIGINS[self.origin], 0.82]) if self.visits else MIDDLE
        near = float(np.clip(1 - np.linalg.norm(goal - self.cube()) / 0.2, 0, 1))
        return False, 0.5 * bool(self.visits) + 0.45 * near

    def right(self) -> bool:
        return self.answer is not None and self.answer == self.origin

    def labels(self) -> dict:
        """How the episode stands: `completion`, `context` (None where there is no completion) and the `origin`."""
        done = self.answer in (0, 1)
        return {"completion": done, "context": self.answer == self.origin if done else None, "origin": self.origin}

    def memory(self) -> dict[str, int]:
        """What a demonstrator may know and a policy may not: `origin` (0, 1), `been` at the middle, `held` (steps)."""
        return {"origin": self.origin, "been": self.visits, "held": self.held}

    def cube(self) -> np.ndarray:
        """(3,) m, where the cube is."""
        return np.array(self.suite.sim.data.body_xpos[self.suite.cube_body_id])

    def joint(self) -> str:
        return self.suite.cube.joints[0]

    def watch(self) -> None:
        """See whether the clamp takes the cube, or whether it has been put down after that."""
        cube = self.cube()
        if not self.visits:
            if np.linalg.norm(cube - MIDDLE) < CAUGHT:
                self.clamp()
            return
        gap = np.linalg.norm(cube - self.gripper_pose()[0])
        if gap > AWAY and cube[2] < self.rest_height + 0.005 and self.answer is None:
            gaps = np.linalg.norm(ORIGINS - cube[:2], axis=1)
            self.answer = int(gaps.argmin()) if gaps.min() < PLACED else -1

    def way_to_middle(self) -> Iterator[bool]:
        self.put(np.zeros(2))
        self.rest_height = float(self.suite.model.mujoco_arena.table_offset[2] + self.suite.cube.size[2])
        while True:
            yield bool(np.linalg.norm(self.cube() - MIDDLE) < CAUGHT / 2)


TASKS["lift-and-return"] = ReturnLane
register_world("lift-and-return", SuiteMemory(task="lift-and-return"))
