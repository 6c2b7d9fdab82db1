"""Square-long: place the nut twice, then leave it. How often it was placed is not to be seen (see `suite.py`).

The scene is robosuite's Square. The nut must be put over the peg, lifted off it, put over it again, and let go. Every
placing ends in the common middle: as soon as the nut is well down around the peg, the clamp holds hand and nut there.
When it opens, what is right is to lift after the first placing and to leave after the second, from the same state. So
the task counts, and the count is never observed: nut, hand and simulator are the same both times.

A placing counts once the nut was clear of the peg before it. `answer`: how often the nut had been placed when it was
left on the peg, or 3, one too many, at a third placing; either ends the episode, 2 is right. `labels()`: *completion*,
an answer was given; *context*, and it is 2; `count`, how often the nut was placed. A policy without memory leaves after
a placing with some probability p whatever the count, so that its context is p (1 - p), at most 1/4 of all starts, and
none at all where it is a function of the observation and the observation the same.

Span: at the second opening the last 20 steps tell nothing, and those in which the nut came down, some 10 to 20 before,
are alike both times. The lift before them shows, or the first middle: some 35 to 75 steps back. A window of 2 frames,
or of 4 at a stride of 4 (reach 12), does not bridge this by construction; 20 frames at a stride of 4 (reach 76) reach
back over all of it.
Measured, on held-out episodes of the expert from start 200000 on, begun in the first middle: a probe from the current
frame to the count has AUC 0.49, from 4 frames at a stride of 4 also 0.49 (800 states a class).
After PTP's long-horizon Square (arXiv:2505.09561). The demonstrator is in `experts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...configs.world import register_world
from .suite import TASKS, ClampLane, SuiteMemory

WANTED = 2  # placings
NEAR, FAR = (-0.2, -0.2), (0.0, 0.2)  # m, corners x, y of where the nut may lie
TILT = 0.4  # rad around "the handle points to the robot" that the nut may be turned
SEATED = 0.905  # m, height of a nut that is well down around the peg
CLEAR = 0.97  # m, height of a nut that is off the peg
AROUND = 0.01  # m beside the peg that a nut around it may be
AWAY = 0.06  # m between hand and handle: it has been let go
TURN = 0.002  # rad, standard deviation of the arm's joints at the middle


class SquareLane(ClampLane):
    """Square with a clamp at the foot of the peg. `clear`: the nut has been off the peg since it was last placed."""

    scene, steps, wobble, hidden = "square", 400, TURN, ("clear",)
    rules = {  # noqa: RUF012
        "wanted": WANTED,
        "starts": [NEAR, FAR, TILT],
        "seated": SEATED,
        "clear": CLEAR,
        "around": AROUND,
        "away": AWAY,
        "turn": TURN,
    }

    def forget(self) -> None:
        self.clear = 1

    def draw(self, rng: np.random.Generator) -> None:
        self.put(rng.uniform(NEAR, FAR), np.pi + rng.uniform(-TILT, TILT))

    def judge(self) -> tuple[bool, float]:
        if self.right():
            return True, 1.0
        if self.answer is not None:
            return False, 0.3
        if self.visits >= WANTED:
            left = 0.0 if self.clear else float(np.clip(self._gap() / AWAY, 0, 1))
            return False, 0.75 + 0.2 * left

        way = np.array([*self.peg()[:2], SEATED]) - self.nut()
        come = 1 - float(np.clip(np.linalg.norm(way) / 0.6, 0, 1))
        if not self.visits:
            return False, 0.3 * come
        lifted = float(np.clip(-way[2] / (CLEAR - SEATED), 0, 1))
        return False, 0.5 + 0.2 * come if self.clear else 0.3 + 0.2 * lifted

    def right(self) -> bool:
        return self.answer == WANTED

    def labels(self) -> dict:
        """How the episode stands: `completion`, `context` (None where there is no completion) and the `count`."""
        done = self.answer is not None
        return {"completion": done, "context": self.right() if done else None, "count": self.answer or self.visits}

    def memory(self) -> dict[str, int]:
        """What a demonstrator may know and a policy may not: `count` of placings, `held` (steps), `clear` (0, 1)."""
        return {"count": self.visits, "held": self.held, "clear": self.clear}

    def nut(self) -> np.ndarray:
        """(3,) m, where the middle of the nut is."""
        return np.array(self.suite.sim.data.body_xpos[self.suite.obj_body_id["SquareNut"]])

    def peg(self) -> np.ndarray:
        """(3,) m, where the middle of the peg is."""
        return np.array(self.suite.sim.data.body_xpos[self.suite.peg1_body_id])

    def joint(self) -> str:
        return self.suite.nuts[self.suite.nut_id].joints[0]

    def watch(self) -> None:
        """See whether the nut has been placed, lifted off, or left."""
        nut = self.nut()
        self.clear = int(self.clear or nut[2] > CLEAR)
        if self.clear and self._around(nut):
            if self.visits < WANTED:
                self.clamp()
            else:
                self.answer = WANTED + 1
        elif self.visits and not self.clear and self.suite.on_peg(nut, 0) and self._gap() > AWAY:
            self.answer = self.visits

    def clamp(self) -> None:
        super().clamp()
        self.clear = 0

    def way_to_middle(self) -> Iterator[bool]:
        self.put((-0.1, 0.0), np.pi)
        while True:
            yield self._around(self.nut())

    def _around(self, nut: np.ndarray) -> bool:
        return bool(np.abs(nut - self.peg())[:2].max() < AROUND and nut[2] < SEATED)

    def _gap(self) -> float:
        """Metres between hand and handle."""
        handle = self.suite.sim.data.site_xpos[self.suite.object_site_ids[self.suite.nut_id]]
        return float(np.linalg.norm(handle - self.gripper_pose()[0]))


TASKS["square-long"] = SquareLane
register_world("square-long", SuiteMemory(task="square-long"))
