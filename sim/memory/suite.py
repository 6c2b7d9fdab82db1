"""Tasks of robosuite that need memory: what they share, a world and a lane with a clamp at a *common middle*.

World type `robosuite_memory`, registered names `lift-and-return` (`lift_and_return.py`) and `square-long`
(`square_long.py`): the arm, observations and actions of the scene that they are played in. What must be done depends
on what is no longer to be seen. At the middle a clamp takes hand and object: the whole simulator state becomes one and
the same, up to a small turn of the arm's joints that is drawn without regard to the past, and stays for `DWELL` control
steps, whatever is asked (`action.sent` is the action that rests). So the observation there, pictures included, tells
nothing of the past, for any policy, and neither does anything later until the hand has left the middle. No clock or
counter is observed. A window has to reach back `DWELL` steps at least.

`labels()` splits success into *completion*, the movements were done, and *context*, and they fit the past. A right
answer terminates the episode, a wrong one truncates it. After PTP's tasks (arXiv:2505.09561). Knows no task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...configs.plugins import discover, lookup
from ...configs.rng import rng_of
from ...configs.spec import Embodiment
from ...configs.world import World
from ..experts import Manner
from ..robosuite.suite import Robosuite, SuiteLane

DWELL = 20  # control steps that the clamp holds
TASKS: dict[str, type[ClampLane]] = {}


@World.register_subclass("robosuite_memory")
@dataclass(frozen=True, kw_only=True)
class SuiteMemory(World):
    """A memory task in a scene of robosuite. Cameras are robosuite's."""

    task: str = "lift-and-return"
    model_seed: int = 0  # as of world type robosuite
    look: str = "stock"

    def __post_init__(self):
        self.scene()

    def find(self) -> type[ClampLane]:
        """The lanes of the task. Raises LookupError for an unknown task."""
        if self.task not in TASKS:
            discover("sim")
        return lookup("memory task of robosuite", self.task, TASKS)

    def scene(self) -> Robosuite:
        """The scene that it is played in."""
        return Robosuite(
            task=self.find().scene,
            cameras=self.cameras,
            horizon=self.steps(),
            delay=self.delay,
            model_seed=self.model_seed,
            look=self.look,
        )

    def embodiment(self) -> Embodiment:
        return self.scene().embodiment()

    def lane(self) -> ClampLane:
        return self.find()(self)

    def warm(self) -> None:
        """See `Robosuite.warm`."""
        self.scene().warm()

    def steps(self) -> int:
        return self.horizon or self.find().steps

    def views(self) -> tuple[str, ...]:
        return self.scene().views()

    def fingerprint(self) -> dict:
        rules = {"dwell": DWELL} | self.find().rules
        own = {"horizon": self.steps(), "type": "robosuite_memory", "rules": rules}
        return self.scene().fingerprint() | dataclasses.asdict(self) | own


class ClampLane(SuiteLane):
    """A scene with a clamp. A subclass says how it begins and watches for the middle and for the answer.

    `held`: steps that the clamp still holds; `visits`: how often it took hold; `answer`: what the episode was answered
    with, None while it was not. These and what a subclass names in `hidden` belong to the state and are not observed.
    """

    scene: ClassVar[str]  # robosuite's task
    steps: ClassVar[int]  # horizon
    rules: ClassVar[dict]  # numbers that belong to the fingerprint
    wobble: ClassVar[float]  # rad, standard deviation of the arm's joints at the middle
    hidden: ClassVar[tuple[str, ...]] = ()  # more attributes that are remembered

    def __init__(self, world: SuiteMemory):
        super().__init__(world.scene())
        self._name = world.task
        self.held, self.visits, self.answer = 0, 0, None
        self.forget()
        self._common = self._go_once(Manner().expert(world.task, 0))

    def forget(self) -> None:
        """Set what `hidden` names to what it is before a start is drawn."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator) -> None:
        """Draw a start: what is remembered, and where the object lies."""
        raise NotImplementedError

    def watch(self) -> None:
        """After a control step: clamp at the middle, or note the answer."""
        raise NotImplementedError

    def joint(self) -> str:
        """Name of the object's free joint."""
        raise NotImplementedError

    def way_to_middle(self) -> Iterator[bool]:
        """Put the object where a common way begins, then say step by step whether the middle is reached."""
        raise NotImplementedError

    def right(self) -> bool:
        """Whether the answer is the right one."""
        raise NotImplementedError

    def begin(self, seed: int, options: dict) -> None:
        super().begin(seed, options)
        self.held, self.visits, self.answer = 0, 0, None
        self.forget()
        self.draw(rng_of(seed, 5))

    def act(self, action: np.ndarray) -> float:
        if self.held:
            self.held -= 1
        else:
            super().act(action)
            self.watch()
        return self.judge()[1]

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        clamped = bool(self.held)
        reward, terminated, truncated, info = super().advance(action)
        if clamped:
            info["action.sent"] = self.clamped_action()
        return reward, terminated, truncated or (self.answer is not None and not terminated), info

    def get_state(self) -> np.ndarray:
        """(S,) float64: as of a lane of robosuite, and what is remembered. The next clamp goes by the start as well."""
        memory = [getattr(self, name) for name in self._remembered()]
        numbers = [np.nan if value is None else value for value in memory]
        return np.concatenate([super().get_state(), numbers])

    def set_state(self, state: np.ndarray) -> None:
        names = self._remembered()
        super().set_state(state[: -len(names)])
        for name, value in zip(names, state[-len(names) :], strict=True):
            setattr(self, name, None if np.isnan(value) else int(value))

    def clamped_action(self) -> np.ndarray:
        """(7,) what is executed while the clamp holds: no motion, the gripper closed."""
        return np.append(np.zeros(6, np.float32), np.float32(1.0))

    def clamp(self) -> None:
        """The common state, its arm turned a little, drawn from the start and the visit by a generator of its own."""
        super().set_state(self._common)
        before = self._grip()

        # turn the arm, the object moves with the hand
        data, joints = self.suite.sim.data, self.suite.robots[0]._ref_joint_pos_indexes
        rng = rng_of(self.start, 6, self.visits)
        pose = data.get_joint_qpos(self.joint()).copy()
        data.qpos[joints] += rng.normal(0, self.wobble, len(joints))
        self.suite.sim.forward()
        data.set_joint_qpos(self.joint(), _carried(pose, before, self._grip()))
        self.suite.sim.forward()

        super().set_state(super().get_state())  # the controllers tend to where the arm is now
        self.held, self.visits = DWELL, self.visits + 1

    def put(self, place, yaw: float | None = None) -> None:
        """Lay the object at x, y (m), turned to `yaw` (rad) or left as robosuite has turned it."""
        data = self.suite.sim.data
        pose = data.get_joint_qpos(self.joint()).copy()
        pose[:2] = place
        if yaw is not None:
            pose[3:] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
        data.set_joint_qpos(self.joint(), pose)
        self.suite.sim.forward()

    def _remembered(self) -> tuple[str, ...]:
        return ("held", "visits", "answer", *self.hidden)

    def _grip(self) -> tuple[np.ndarray, np.ndarray]:
        data, site = self.suite.sim.data, self.suite.robots[0].eef_site_id["right"]
        return np.array(data.site_xpos[site]), np.array(data.site_xmat[site]).reshape(3, 3)

    def _go_once(self, expert) -> np.ndarray:
        """The state in which the hand holds the object still at the middle, however it came there."""
        super().begin(0, {})

        for step, there in enumerate(self.way_to_middle()):
            if there:
                break
            if step == self.steps:
                raise RuntimeError(f"the expert of {self._name} does not reach the middle in this scene")
            super().act(np.clip(expert.delta(self), -1, 1).astype(np.float32))

        # still
        self.suite.sim.data.qvel[:] = 0
        self.suite.sim.data.time = 0
        self.suite.sim.forward()
        return super().get_state()


def _carried(pose: np.ndarray, before: tuple, after: tuple) -> np.ndarray:
    """(7,) position and quaternion (w first) of a thing that moved with the hand: (position, matrix) before, after."""
    from scipy.spatial.transform import Rotation

    (place, old), (moved, new) = before, after
    turn = new @ old.T
    turned = Rotation.from_matrix(turn) * Rotation.from_quat(pose[[4, 5, 6, 3]])
    return np.concatenate([moved + turn @ (pose[:3] - place), turned.as_quat()[[3, 0, 1, 2]]])
