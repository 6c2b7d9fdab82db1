"""A task of robosuite that needs memory: lift-and-return. What must be done depends on what is no longer to be seen.

World type `robosuite_memory`, registered name `lift-and-return`: the arm, observations and actions of `lift`. The cube
lies at one of two origins, 20 cm apart. It must be lifted to a common middle between and above them, and then be put
down at the origin that it came from. At the middle a clamp takes hand and cube: the whole simulator state becomes one
and the same, up to a small turn of the arm's joints that is drawn without regard to the origin, and stays for `DWELL`
control steps, whatever is asked (`action.sent` is the action that rests). So the observation there, pictures
included, tells nothing of the origin, for any policy, and neither does anything later until the hand has left the
middle. No clock or counter is observed. A window has to reach back `DWELL` steps at least.

`labels()` splits success: *completion*, the cube was put down at either origin after the middle; *context*, and it was
the right one. A policy without memory has context by chance, 1/2 of its completions. Putting down ends the episode.
After PTP's LH-ALOHA (arXiv:2505.09561), in the scene of robosuite's Lift.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..configs.plugins import lookup
from ..configs.spec import Embodiment
from ..configs.world import World, register_world
from .suite import Robosuite, SuiteLane

TASKS = ("lift-and-return",)
HORIZON = 300
DWELL = 20  # control steps that the clamp holds
ORIGINS = np.array([[0.0, -0.1], [0.0, 0.1]])  # m, x and y, right and left of the robot's middle
SCATTER = 0.015  # m around an origin at which the cube may lie
MIDDLE = np.array([0.0, 0.0, 0.98])  # m, of the cube
CAUGHT = 0.02  # m from the middle at which the clamp takes the cube
PLACED = 0.05  # m from an origin that count as there
AWAY = 0.05  # m between hand and cube: it has been let go
TURN = 0.005  # rad, standard deviation of the arm's joints at the middle
_MASK = 0xFFFFFFFFFFFFFFFF


@World.register_subclass("robosuite_memory")
@dataclass(frozen=True, kw_only=True)
class SuiteMemory(World):
    """A memory task in a scene of robosuite. Cameras are robosuite's."""

    task: str = "lift-and-return"
    model_seed: int = 0  # as of world type robosuite
    look: str = "stock"

    def __post_init__(self):
        lookup("memory task of robosuite", self.task, dict.fromkeys(TASKS))
        self.scene()

    def scene(self) -> Robosuite:
        """The scene that it is played in."""
        return Robosuite(
            task="lift",
            cameras=self.cameras,
            horizon=self.steps(),
            delay=self.delay,
            model_seed=self.model_seed,
            look=self.look,
        )

    def embodiment(self) -> Embodiment:
        return self.scene().embodiment()

    def lane(self) -> ReturnLane:
        return ReturnLane(self)

    def warm(self) -> None:
        """See `Robosuite.warm`."""
        self.scene().warm()

    def steps(self) -> int:
        return self.horizon or HORIZON

    def views(self) -> tuple[str, ...]:
        return self.scene().views()

    def fingerprint(self) -> dict:
        rules = {"dwell": DWELL, "origins": ORIGINS.tolist(), "middle": MIDDLE.tolist(), "scatter": SCATTER}
        own = {"type": "robosuite_memory", "rules": rules | {"caught": CAUGHT, "placed": PLACED, "turn": TURN}}
        return self.scene().fingerprint() | dataclasses.asdict(self) | {"horizon": self.steps()} | own


class ReturnLane(SuiteLane):
    """Lift with two origins and a clamp in the middle. An answer ends it: terminated if right, else truncated."""

    def __init__(self, world: SuiteMemory):
        super().__init__(world.scene())
        self._name = world.task
        self.origin, self.held, self.been, self.answer = 0, 0, False, None
        self._common = self._lift_once()

    def begin(self, seed: int, options: dict) -> None:
        super().begin(seed, options)
        rng = np.random.default_rng([seed & _MASK, 5])
        self.origin, self.held, self.been, self.answer = int(rng.integers(2)), 0, False, None
        self._put(ORIGINS[self.origin] + rng.uniform(-SCATTER, SCATTER, 2))

    def act(self, action: np.ndarray) -> float:
        if self.held:
            self.held -= 1
        else:
            super().act(action)
            self._watch()
        return self.judge()[1]

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        clamped = bool(self.held)
        reward, terminated, truncated, info = super().advance(action)
        if clamped:
            info["action.sent"] = self.clamped_action()
        return reward, terminated, truncated or (self.answer is not None and not terminated), info

    def judge(self) -> tuple[bool, float]:
        cube, home = self.cube(), np.array([*ORIGINS[self.origin], 0.82])
        if self.answer is not None and self.answer == self.origin:
            return True, 1.0
        goal = home if self.been else MIDDLE
        return False, 0.5 * self.been + 0.45 * float(np.clip(1 - np.linalg.norm(goal - cube) / 0.2, 0, 1))

    def labels(self) -> dict:
        """How the episode stands: `completion`, `context` (None where there is no completion) and the `origin`."""
        done = self.answer in (0, 1)
        return {"completion": done, "context": self.answer == self.origin if done else None, "origin": self.origin}

    def memory(self) -> dict[str, int]:
        """What a demonstrator may know and a policy may not: `origin` (0, 1), `been` at the middle, `held` (steps)."""
        return {"origin": self.origin, "been": int(self.been), "held": self.held}

    def cube(self) -> np.ndarray:
        """(3,) m, where the cube is."""
        return np.array(self.suite.sim.data.body_xpos[self.suite.cube_body_id])

    def clamped_action(self) -> np.ndarray:
        """(7,) what is executed while the clamp holds: no motion, the gripper closed."""
        return np.append(np.zeros(6, np.float32), np.float32(1.0))

    def _watch(self) -> None:
        """See whether the clamp takes the cube, or whether it has been put down after that."""
        cube = self.cube()
        if not self.been:
            if np.linalg.norm(cube - MIDDLE) < CAUGHT:
                self._clamp()
            return
        gap = np.linalg.norm(cube - self.gripper_pose()[0])
        if gap > AWAY and cube[2] < self.rest_height + 0.005 and self.answer is None:
            gaps = np.linalg.norm(ORIGINS - cube[:2], axis=1)
            self.answer = int(gaps.argmin()) if gaps.min() < PLACED else -1

    def _clamp(self) -> None:
        """The common state, its arm turned a little, drawn from the start by a generator of its own."""
        self.been, self.held = True, DWELL
        self.set_state(self._common)
        before = self._grip()
        data, joints = self.suite.sim.data, self.suite.robots[0]._ref_joint_pos_indexes
        turned = np.random.default_rng([self.start & _MASK, 6]).normal(0, TURN, len(joints))
        cube = data.get_joint_qpos(self.suite.cube.joints[0]).copy()
        data.qpos[joints] += turned
        self.suite.sim.forward()
        data.set_joint_qpos(self.suite.cube.joints[0], _carried(cube, before, self._grip()))
        self.suite.sim.forward()
        self.set_state(self.get_state())  # the controllers tend to where the arm is now

    def _grip(self) -> tuple[np.ndarray, np.ndarray]:
        data, site = self.suite.sim.data, self.suite.robots[0].eef_site_id["right"]
        return np.array(data.site_xpos[site]), np.array(data.site_xmat[site]).reshape(3, 3)

    def _put(self, place: np.ndarray) -> None:
        """Lay the cube at x, y as robosuite has turned it."""
        data = self.suite.sim.data
        pose = data.get_joint_qpos(self.suite.cube.joints[0]).copy()
        pose[:2] = place
        data.set_joint_qpos(self.suite.cube.joints[0], pose)
        self.suite.sim.forward()

    def _lift_once(self) -> np.ndarray:
        """The state in which a cube from between the origins hangs still at the middle."""
        from .experts_memory_suite import ReturnExpert

        super().begin(0, {})
        self._put(np.zeros(2))
        self.rest_height = float(self.suite.model.mujoco_arena.table_offset[2] + self.suite.cube.size[2])
        expert = ReturnExpert()
        for _ in range(200):
            super().act(np.clip(expert.delta(self), -1, 1).astype(np.float32))
            if np.linalg.norm(self.cube() - MIDDLE) < CAUGHT / 2:
                break
        else:
            raise RuntimeError("the cube of this scene cannot be lifted to the middle")
        self.suite.sim.data.qvel[:] = 0
        self.suite.sim.data.time = 0
        self.suite.sim.forward()
        return self.get_state()


def _carried(pose: np.ndarray, before: tuple, after: tuple) -> np.ndarray:
    """(7,) position and quaternion (w first) of a thing that moved with the hand: (position, matrix) before, after."""
    from scipy.spatial.transform import Rotation

    (place, old), (moved, new) = before, after
    turn = new @ old.T
    turned = Rotation.from_matrix(turn) * Rotation.from_quat(pose[[4, 5, 6, 3]])
    return np.concatenate([moved + turn @ (pose[:3] - place), turned.as_quat()[[3, 0, 1, 2]]])


for _name in TASKS:
    register_world(_name, SuiteMemory(task=_name))
