"""robosuite's tasks as worlds: an arm, its default operational-space controller, 20 Hz.

World type `robosuite`: `lift`, `can`, `square`, `stack`, `door`, and any robosuite environment by its own name, with
any arm on a fixed base. State: gripper site position (m), its rotation as the first two columns of its matrix (the
hand's x axis, then its y axis, in world coordinates), finger joints. Action with `control: delta`: position delta (1 =
5 cm) and axis-angle delta (1 = 0.5 rad) in the frame of the robot's base, and gripper (-1 opens, +1 closes); with
`control: absolute`: position (m) and 6-D rotation of the gripper site in world coordinates, and gripper. Tasks of two
hands repeat this for each hand. Source: robosuite 1.5 (Zhu et al. 2020, arXiv:2009.12293). Its rendering is guarded,
see `rendering.py`; environments are built in `build.py`, described in `body.py` and `tasks.py`.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.lanes.lane import Lane
from ...configs.lanes.worker import Worker
from ...configs.machine import cache_folder, versions
from ...configs.plugins import lookup
from ...configs.spec import IMAGES, SCENE, STATE, Embodiment, Mode
from ...configs.world import World, register_world
from ..experts import expert_action
from .body import Hand, describe, find_task
from .build import RATE, ROBOTS, build, controller_config, draws
from .fast import Stepper, fits
from .look import CELLS, LOOKS, apply_look
from .state import read_state, write_state
from .tasks import SUITE, six, turn

PICTURE = 256  # px, side of a film picture
CONTROLS = ("delta", "absolute")
REFLECTION = 2  # mujoco.mjtRndFlag.mjRND_REFLECTION
DELTA = {name: (-1.0, 1.0) for name in ("dx", "dy", "dz", "rx", "ry", "rz")}
ABSOLUTE = {"x": (-0.6, 0.6), "y": (-0.7, 0.7), "z": (0.7, 1.6)}  # m, what the arms reach over table and bins
ABSOLUTE |= {name: (-1.0, 1.0) for name in ("x_x", "x_y", "x_z", "y_x", "y_y", "y_z")}
GRIPPER = {"gripper": (-1.0, 1.0)}
HAND = Hand()


@World.register_subclass("robosuite")
@dataclass(frozen=True, kw_only=True)
class Robosuite(World):
    """A task of robosuite. Cameras are robosuite's; pictures are upright."""

    model_seed: int = 0  # what robosuite draws when it builds the scene, such as the cube's size
    look: str = "stock"  # light: fewer triangles, no anti-aliasing; exact: as robosuite draws it
    robot: str = "Panda"  # the arm; two of them, or one with two arms, in robosuite's two-armed tasks
    control: str = "delta"  # absolute: actions are poses of the gripper with 6-D rotation

    def __post_init__(self):
        for what, name, names in (("look", self.look, LOOKS), ("robot", self.robot, ROBOTS)):
            lookup(what, name, dict.fromkeys(names))
        lookup("control", self.control, dict.fromkeys(CONTROLS))

        task = find_task(self.task, self.robot)
        cameras = describe(task.environment, self.robot).cameras if self.cameras else ()
        for name in self.cameras:
            lookup(f"camera of {self.task}", name, dict.fromkeys(cameras))

    @property
    def start_set(self) -> str:
        """What its start ids belong to."""
        return f"robosuite/{self.task}#{self.model_seed}" + (f"@{self.robot}" if self.robot != "Panda" else "")

    def embodiment(self) -> Embodiment:
        task = find_task(self.task, self.robot)
        hands = describe(task.environment, self.robot).hands
        state = {name: unit for hand in hands for name, unit in hand.state().items()}
        absolute = self.control == "absolute"
        limits = {name: limit for hand in hands for name, limit in _actions(hand, absolute).items()}

        return Embodiment(
            name=self.robot.lower(),
            action=tuple(limits),
            action_units=tuple("m" if absolute and name[-2:] in _ends("xyz") else "1" for name in limits),
            limits=tuple(limits.values()),
            rate=RATE,
            mode=Mode.absolute if absolute else Mode.delta,
            frame="world" if absolute else "base",
            rotation="6d" if absolute else "axis-angle",
            state=tuple(state),
            state_units=tuple(state.values()),
            scene=tuple(task.scene),
            scene_units=tuple(task.scene.values()),
            cameras={name: tuple(size) for name, size in self.cameras.items()},
        )

    def lane(self) -> SuiteLane:
        return SuiteLane(self)

    def warm(self) -> None:
        """Compile robosuite's numba functions once, so that workers that start together need not all do it."""
        installed = versions("robosuite", "numba")
        place = Path(sys.prefix).as_posix().replace("/", "_")
        done = cache_folder() / f"warm-{installed['robosuite']}-{installed['numba']}-{place}"
        if done.exists():
            return

        worker = Worker(self)
        worker.ask("reset", {0: (0, {})})
        worker.answer()
        worker.close()
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()

    def steps(self) -> int:
        return self.horizon or find_task(self.task, self.robot).horizon

    def views(self) -> tuple[str, ...]:
        return tuple(describe(find_task(self.task, self.robot).environment, self.robot).cameras)

    def fingerprint(self) -> dict:
        settings = {
            "type": "robosuite",
            "environment": find_task(self.task, self.robot).environment,
            "horizon": self.steps(),
            "versions": versions("robosuite", "mujoco", "numba"),
            "drawing": dataclasses.asdict(CELLS[self.look]) if self.look in CELLS else {},
        }
        return dataclasses.asdict(self) | settings | _physics(self.robot, self.control)


class SuiteLane(Lane):
    """One robosuite environment: built once with `model_seed`, then begun softly with one generator a start."""

    def __init__(self, world: Robosuite):
        super().__init__(world)
        self._name, self._task = world.task, find_task(world.task, world.robot)
        self._absolute, self._look = world.control == "absolute", world.look
        self.hands = describe(self._task.environment, world.robot).hands
        task = self._task
        self.suite = build(task.environment, world.model_seed, world.robot, world.control, **task.arguments)
        self._columns = _columns(self.suite, self.hands)
        self._fast = fits(self.suite)
        self._stepper = Stepper(self.suite) if self._fast else None
        self._reward = 0.0

    def begin(self, seed: int, options: dict) -> None:
        with draws(self.suite, seed):
            self.suite.reset()
        self._stepper = Stepper(self.suite) if self._fast else None
        self._reward = float(self.suite.reward(None))

    def act(self, action: np.ndarray) -> float:
        step = self._stepper.step if self._stepper else self._slowly
        self._reward = step(self._command(action))
        return self._reward

    def sense(self) -> dict[str, np.ndarray]:
        hands = [np.concatenate([*self.gripper_pose(hand), self.fingers(hand)]) for hand in self.hands]
        obs = {STATE: np.concatenate(hands).astype(np.float32)}
        if self.embodiment.scene:
            scene = np.concatenate([np.ravel(part) for part in self._task.look(self.suite, hands[0][:3])])
            obs[SCENE] = scene.astype(np.float32)
        for name, size in self.embodiment.cameras.items():
            obs[IMAGES + name] = self._draw(name, *size)
        return obs

    def judge(self) -> tuple[bool, float]:
        success = bool(self.suite._check_success())
        return success, 1.0 if success else float(np.clip(self._reward, 0.0, 0.99))

    def get_state(self) -> np.ndarray:
        """(S,) float64: all that the future depends on, see `state.py`."""
        return read_state(self.suite)

    def set_state(self, state: np.ndarray) -> None:
        """Go on from a state of `get_state`, of this lane or of another of the same world: to the last bit as there.

        What is observed until the next step is the state itself; robosuite's own observations lag it by 2 ms.
        """
        write_state(self.suite, state)
        self._reward = float(self.suite.reward(None))

    def rest(self) -> np.ndarray:
        """No motion: zeros, or with absolute control the pose of now; the gripper stays as it is."""
        if not self._absolute:
            return super().rest()
        parts = [(*self.gripper_pose(hand), [0.0] * hand.grips) for hand in self.hands]
        return np.concatenate([number for hand in parts for number in hand]).astype(np.float32)

    def as_action(self, delta: np.ndarray) -> np.ndarray:
        """A delta action, (7,) for each hand that grips, in this world's control: itself, or the pose that it means.

        Experts think in deltas and end with this. Valid for arms whose base is not turned, such as the Panda's.
        """
        if not self._absolute:
            return delta
        parts, rest = [], np.asarray(delta, np.float64)
        for hand in self.hands:
            own, rest = rest[: 6 + hand.grips], rest[6 + hand.grips :]
            position, columns = self.gripper_pose(hand)
            moved = np.clip(own[:6], -1, 1) * ([0.05] * 3 + [0.5] * 3)
            turned = _rotation(moved[3:]) @ turn(columns)
            parts += [position + moved[:3], six(turned), own[6:]]
        return np.concatenate(parts)

    def render(self) -> np.ndarray:
        return self._draw("agentview", PICTURE, PICTURE, mirror=False)

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the task's scripted demonstrator does now, see `experts.py`."""
        return expert_action(self._name, self, noise)

    def gripper_pose(self, hand: Hand = HAND) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and 6-D rotation of the site between the fingers, in world coordinates."""
        data, site = self.suite.sim.data, self.suite.robots[hand.robot].eef_site_id[hand.arm]
        return np.array(data.site_xpos[site]), six(data.site_xmat[site])

    def fingers(self, hand: Hand = HAND) -> np.ndarray:
        """Finger joints; of a Panda (2,) in m: open at 0.04 and -0.04."""
        indexes = self.suite.robots[hand.robot]._ref_gripper_joint_pos_indexes[hand.arm]
        return np.array(self.suite.sim.data.qpos[indexes]) if hand.fingers else np.zeros(0)

    def finger_speeds(self, hand: Hand = HAND) -> np.ndarray:
        """Speeds of the finger joints; of a Panda (2,) m/s."""
        indexes = self.suite.robots[hand.robot]._ref_gripper_joint_vel_indexes[hand.arm]
        return np.array(self.suite.sim.data.qvel[indexes]) if hand.fingers else np.zeros(0)

    def close(self) -> None:
        self.suite.close()

    def _slowly(self, command: np.ndarray) -> float:
        """A control step of robosuite's own."""
        return float(self.suite.step(command)[1])

    def _command(self, action: np.ndarray) -> np.ndarray:
        """An action of ours in the order and form of robosuite's."""
        if self._absolute:
            parts, rest = [], np.asarray(action, np.float64)
            for hand in self.hands:
                own, rest = rest[: 9 + hand.grips], rest[9 + hand.grips :]
                parts += [own[:3], _vector(turn(own[3:9])), own[9:]]
            action = np.concatenate(parts)
        command = np.zeros(self.suite.action_dim)
        command[self._columns] = action
        return command

    def _draw(self, camera: str, height: int, width: int, mirror: bool = True) -> np.ndarray:
        """Upright picture; the GL context is made at the first one. Reflections where the look has them."""
        sim = self.suite.sim
        if sim._render_context_offscreen is None:
            from robosuite.utils.binding_utils import MjRenderContextOffscreen

            self._mirrors = apply_look(sim.model._model, self._look)
            context = MjRenderContextOffscreen(sim, device_id=-1)
            context.vopt.geomgroup[:2] = 0, 1  # visual meshes, not the collision shapes
        sim._render_context_offscreen.scn.flags[REFLECTION] = (
            mirror and sim.model.camera_name2id(camera) in self._mirrors
        )
        return sim.render(camera_name=camera, width=width, height=height)[::-1].copy()


def _actions(hand: Hand, absolute: bool) -> dict[str, tuple[float, float]]:
    names = (ABSOLUTE if absolute else DELTA) | (GRIPPER if hand.grips else {})
    return {hand.prefix + name: limit for name, limit in names.items()}


def _ends(axes: str) -> tuple[str, ...]:
    return (*axes, *(f".{axis}" for axis in axes))


def _columns(env, hands: tuple[Hand, ...]) -> list[int]:
    """Where in robosuite's action each number of ours belongs."""
    starts = np.cumsum([0, *(robot.action_dim for robot in env.robots)])
    columns = []
    for hand in hands:
        parts = env.robots[hand.robot].composite_controller._action_split_indexes
        for part in (hand.arm, f"{hand.arm}_gripper") if hand.grips else (hand.arm,):
            columns += [int(starts[hand.robot]) + column for column in range(*parts[part])]
    return columns


def _vector(matrix: np.ndarray) -> np.ndarray:
    """(3,) axis times angle in rad of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix).as_rotvec()


def _rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) rotation matrix of an axis times an angle in rad."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def _physics(robot: str, control: str) -> dict:
    """robosuite's own settings that change a result."""
    config = controller_config(robot, control)
    import robosuite.macros as macros

    return {"controller": config, "timestep": macros.SIMULATION_TIMESTEP, "rate": RATE}


for _name in SUITE:
    register_world(_name, Robosuite(task=_name))
