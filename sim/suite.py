"""robosuite's tasks as worlds: a Panda, its default operational-space controller, 20 Hz.

World type `robosuite`. Now: `lift`. Another task of the suite is one entry of `SUITE`. State: gripper site position
(m), its rotation as the first two columns of its matrix (the hand's x axis, then its y axis, in world coordinates),
finger joints (m). Action: position delta (1 = 5 cm) and axis-angle delta (1 = 0.5 rad) in the frame of the robot's
base, and gripper (-1 opens, +1 closes). Source: robosuite 1.5 (Zhu et al. 2020, arXiv:2009.12293). Its rendering is
guarded, see `rendering.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..configs.lane import Lane
from ..configs.lane_worker import Worker
from ..configs.machine import cache_folder, versions
from ..configs.plugins import lookup
from ..configs.spec import IMAGES, SCENE, STATE, Embodiment, Mode
from ..configs.world import World, register_world
from .experts import expert_action

RATE = 20.0  # Hz
PICTURE = 256  # px, side of a film picture
LOOKS = ("stock", "light")
REFLECTION = 2  # mujoco.mjtRndFlag.mjRND_REFLECTION


def pose(name: str) -> dict[str, str]:
    """Names and units of a position and a 6-D rotation."""
    metres = {f"{name}.{axis}": "m" for axis in "xyz"}
    return metres | {f"{name}.{column}{axis}": "1" for column in ("x_", "y_") for axis in "xyz"}


@dataclass(frozen=True)
class SuiteTask:
    """What sets one robosuite task apart."""

    environment: str  # robosuite's name of it
    scene: dict[str, str]  # name -> unit of observation.environment_state
    look: Callable[[object, np.ndarray], list]  # (robosuite environment, gripper position) -> the scene's numbers
    horizon: int = 400
    arguments: dict = field(default_factory=dict)  # more arguments of the environment
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand", "frontview", "birdview", "sideview")


def _lift_scene(env, gripper: np.ndarray) -> list:
    position, rotation = body_pose(env, env.cube_body_id)
    return [position, rotation, position - gripper]


SUITE = {
    "lift": SuiteTask(
        environment="Lift",
        scene=pose("cube") | {f"gripper_to_cube.{axis}": "m" for axis in "xyz"},
        look=_lift_scene,
        horizon=200,
    ),
}


@World.register_subclass("robosuite")
@dataclass(frozen=True, kw_only=True)
class Robosuite(World):
    """A task of robosuite. Cameras are robosuite's; pictures are upright."""

    model_seed: int = 0  # what robosuite draws when it builds the scene, such as the cube's size
    look: str = "stock"  # light: no reflections, no anti-aliasing; four times the pictures a second on a CPU

    def __post_init__(self):
        task = lookup("robosuite task", self.task, SUITE)
        lookup("look", self.look, dict.fromkeys(LOOKS))
        for name in self.cameras:
            lookup(f"camera of {self.task}", name, dict.fromkeys(task.cameras))

    def embodiment(self) -> Embodiment:
        state = pose("gripper") | {"finger.left": "m", "finger.right": "m"}
        scene = SUITE[self.task].scene
        return Embodiment(
            name="panda",
            action=("dx", "dy", "dz", "rx", "ry", "rz", "gripper"),
            action_units=("1",) * 7,
            limits=((-1.0, 1.0),) * 7,
            rate=RATE,
            mode=Mode.delta,
            frame="base",
            rotation="axis-angle",
            state=tuple(state),
            state_units=tuple(state.values()),
            scene=tuple(scene),
            scene_units=tuple(scene.values()),
            cameras={name: tuple(size) for name, size in self.cameras.items()},
        )

    def lane(self) -> SuiteLane:
        return SuiteLane(self)

    def warm(self) -> None:
        """Compile robosuite's numba functions once, so that workers that start together need not all do it."""
        known = versions("robosuite", "numba")
        done = (
            cache_folder()
            / f"warm-{known['robosuite']}-{known['numba']}-{Path(sys.prefix).as_posix().replace('/', '_')}"
        )
        if done.exists():
            return
        worker = Worker(self)
        worker.ask("reset", {0: (0, {})})
        worker.answer()
        worker.close()
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()

    def steps(self) -> int:
        return self.horizon or SUITE[self.task].horizon

    def fingerprint(self) -> dict:
        settings = {
            "type": "robosuite",
            "environment": SUITE[self.task].environment,
            "horizon": self.steps(),
            "versions": versions("robosuite", "mujoco", "numba"),
        }
        return dataclasses.asdict(self) | settings | _physics()


class SuiteLane(Lane):
    """One robosuite environment: built once with `model_seed`, then begun softly with one generator a start."""

    def __init__(self, world: Robosuite):
        super().__init__(world)
        self._name, self._task = world.task, SUITE[world.task]
        self.suite = build(self._task, world.model_seed, world.look)
        self._reward = 0.0

    def begin(self, seed: int, options: dict) -> None:
        with _draws(self.suite, seed):
            self.suite.reset()
        self._reward = float(self.suite.reward())

    def act(self, action: np.ndarray) -> float:
        _, reward, _, _ = self.suite.step(action)
        self._reward = float(reward)
        return self._reward

    def sense(self) -> dict[str, np.ndarray]:
        gripper, rotation = self.gripper_pose()
        obs = {
            STATE: np.concatenate([gripper, rotation, self.fingers()]).astype(np.float32),
            SCENE: np.concatenate(self._task.look(self.suite, gripper)).astype(np.float32),
        }
        for name, size in self.embodiment.cameras.items():
            obs[IMAGES + name] = self._draw(name, *size)
        return obs

    def judge(self) -> tuple[bool, float]:
        success = bool(self.suite._check_success())
        return success, 1.0 if success else float(np.clip(self._reward, 0.0, 0.99))

    def render(self) -> np.ndarray:
        return self._draw("agentview", PICTURE, PICTURE, mirror=False)

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the task's scripted demonstrator does now, see `experts.py`."""
        return expert_action(self._name, self, noise)

    def gripper_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in m and 6-D rotation of the site between the fingers, in world coordinates."""
        data, site = self.suite.sim.data, self.suite.robots[0].eef_site_id["right"]
        return np.array(data.site_xpos[site]), six(data.site_xmat[site])

    def fingers(self) -> np.ndarray:
        """(2,) finger joints in m: open at 0.04 and -0.04."""
        robot = self.suite.robots[0]
        return np.array(self.suite.sim.data.qpos[robot._ref_gripper_joint_pos_indexes["right"]])

    def finger_speeds(self) -> np.ndarray:
        """(2,) m/s of the finger joints."""
        robot = self.suite.robots[0]
        return np.array(self.suite.sim.data.qvel[robot._ref_gripper_joint_vel_indexes["right"]])

    def close(self) -> None:
        self.suite.close()

    def _draw(self, camera: str, height: int, width: int, mirror: bool = True) -> np.ndarray:
        """Upright picture; the GL context is made at the first one. Without `mirror` (reflections) twice as fast."""
        sim = self.suite.sim
        if sim._render_context_offscreen is None:
            from robosuite.utils.binding_utils import MjRenderContextOffscreen

            context = MjRenderContextOffscreen(sim, device_id=-1)
            context.vopt.geomgroup[:2] = 0, 1  # visual meshes, not the collision shapes
        sim._render_context_offscreen.scn.flags[REFLECTION] = mirror
        return sim.render(camera_name=camera, width=width, height=height)[::-1].copy()


def build(task: SuiteTask, model_seed: int, look: str = "stock"):
    """A robosuite environment without observables or renderer, reset hard once and softly from then on."""
    suite = open_robosuite()
    from robosuite.environments.base import REGISTERED_ENVS

    takes_seed = _takes_seed(REGISTERED_ENVS[task.environment])
    with contextlib.nullcontext() if takes_seed else _global_draws(model_seed):
        env = suite.make(
            task.environment,
            robots="Panda",
            control_freq=int(RATE),
            reward_shaping=True,
            reward_scale=1.0,
            ignore_done=True,  # the lane owns the horizon
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            **({"seed": model_seed} if takes_seed else {}),
            **task.arguments,
        )
        if look == "light":
            env.set_xml_processor(lighten)
        env.reset()
    env.hard_reset = False
    env._observables.clear()  # they would be refreshed at every physics step; the lane reads the simulator itself
    return env


def open_robosuite():
    """The package, imported without its advertisements and with the rendering guard in place."""
    logging.getLogger("robosuite_logs").addFilter(_only_errors)
    import robosuite

    from .rendering import guard_robosuite

    guard_robosuite()
    return robosuite


def lighten(xml: str) -> str:
    """The scene without reflections, multi-sampling and large shadow maps: the same picture but for edges and sheen."""
    xml = re.sub(r'reflectance="[^"]*"', 'reflectance="0"', xml)
    quality = '<visual><quality offsamples="0" shadowsize="512"/></visual>'
    return xml.replace("<worldbody>", quality + "<worldbody>", 1)


def six(matrix: np.ndarray) -> np.ndarray:
    """(6,) first column, then second column of a rotation matrix of 9 numbers (row by row)."""
    return np.asarray(matrix).reshape(3, 3)[:, :2].T.ravel()


def body_pose(env, body: int) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) in m and 6-D rotation of a body of a robosuite environment, in world coordinates."""
    data = env.sim.data
    return np.array(data.body_xpos[body]), six(data.body_xmat[body])


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def _draws(env, seed: int) -> Iterator[None]:
    """Let everything that robosuite draws in a reset come from one generator of `seed`."""
    rng = np.random.default_rng(seed)
    env.rng = rng
    placement = getattr(env, "placement_initializer", None)
    samplers = [placement, *getattr(placement, "samplers", {}).values()] if placement else []
    for sampler in samplers:
        sampler.rng = rng
    with contextlib.nullcontext() if _takes_seed(type(env)) else _global_draws(seed):
        yield


def _takes_seed(environment: type) -> bool:
    """Whether this robosuite draws from generators of its own (1.5.2 does, 1.5.1 does not)."""
    return "seed" in inspect.signature(environment).parameters


@contextlib.contextmanager
def _global_draws(seed: int) -> Iterator[None]:
    """robosuite 1.5.1 draws from numpy's global generator: seed it, and put it back as it was."""
    before = np.random.get_state()
    np.random.seed(np.random.SeedSequence(seed & 0xFFFFFFFFFFFFFFFF).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(before)


def _physics() -> dict:
    """robosuite's own settings that change a result."""
    open_robosuite()
    import robosuite.macros as macros
    from robosuite.controllers import load_composite_controller_config

    controller = load_composite_controller_config(robot="Panda")
    return {"controller": controller, "timestep": macros.SIMULATION_TIMESTEP, "rate": RATE}


for _name in SUITE:
    register_world(_name, Robosuite(task=_name))
