"""What these tests share: tasks, a twin with its loop in this process, and who acts in it."""

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.hardware.twin.env import TwinWorld


@pytest.fixture(scope="session")
def task():
    """Push a T with an SO-101."""
    return read_world("so101-pusht")


class Actor:
    """Runs a twin's stage by the task's demonstrator, as its process would."""

    def __init__(self, world: TwinWorld):
        self.stage = world.stage()

    def begin(self, start):
        self.stage.begin(start, {})
        return self

    def act(self, steps, action=None):
        """`steps` control steps; the ticks that they took."""
        lane, ticks = self.stage.lane, []
        for _ in range(steps):
            self.stage.order(lane.expert_action() if action is None else np.asarray(action, np.float32))
            while not self.stage.done:
                ticks.append(self.stage.tick())
            self.stage.settle()
            lane.ticks += 1
        return ticks


@pytest.fixture
def twin(task):
    """(**settings of TwinWorld) -> an Actor."""
    made = []

    def make(**settings):
        made.append(Actor(TwinWorld(of=task, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.stage.close()
