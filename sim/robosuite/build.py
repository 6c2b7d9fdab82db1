"""Build a robosuite environment as the lanes use it, and let its draws come from one generator.

Knows nothing of worlds or of what is observed. robosuite and mujoco are imported inside the functions.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import logging
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from ...configs.plugins import lookup
from ...configs.rng import unsigned

RATE = 20.0  # Hz
ROBOTS = ("Panda", "Sawyer", "IIWA", "Jaco", "Kinova3", "UR5e", "XArm7", "Baxter")  # arms on a fixed base


def build(
    environment: str,
    model_seed: int = 0,
    robot: str = "Panda",
    control: str = "delta",
    **arguments,
):
    """A robosuite environment without renderer, reset hard once and softly from then on.

    Its observables would be refreshed at every physics step; they are taken out and kept as `env.sensors`, a list of
    (name, sensor) of those that tell of objects or of the robot.
    """
    suite = open_robosuite()
    made = lookup("robosuite environment", environment, environments())
    takes_seed = _takes_seed(made)

    with contextlib.nullcontext() if takes_seed else global_draws(model_seed), compiled_once():
        env = suite.make(
            environment,
            robots=[robot] * _robots(made, robot),
            controller_configs=controller_config(robot, control) if control != "delta" else None,
            control_freq=int(RATE),
            reward_shaping=True,
            reward_scale=1.0,
            ignore_done=True,  # the lane owns the horizon
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            **({"seed": model_seed} if takes_seed else {}),
            **arguments,
        )
        env.reset()

    _soften(env)
    return env


def open_robosuite():
    """The package, imported without its advertisements and with the rendering guard in place.

    Raises:
        ImportError: a MuJoCo whose calls it does not know; its own metadata put no bound.
    """
    logging.getLogger("robosuite_logs").addFilter(_only_errors)
    import mujoco

    check_mujoco(mujoco.__version__)
    import robosuite

    from ..rendering import guard_robosuite

    guard_robosuite()
    return robosuite


def check_mujoco(version: str) -> None:
    """Raise ImportError for a MuJoCo that robosuite 1.5 does not know."""
    if tuple(int(part) for part in version.split(".")[:2]) >= (3, 10):
        raise ImportError(
            f"robosuite cannot build a world beside mujoco {version}, whose calls changed in 3.10; install"
            " 'mujoco>=3.3,<3.10' (`understudy doctor` says how)"
        )


def environments() -> dict[str, type]:
    """robosuite's environments by name."""
    open_robosuite()
    from robosuite.environments.base import REGISTERED_ENVS

    return REGISTERED_ENVS


def controller_config(robot: str, control: str) -> dict:
    """robosuite's own controller settings of an arm; `absolute` lets them take poses in world coordinates."""
    open_robosuite()
    from robosuite.controllers import load_composite_controller_config

    config = load_composite_controller_config(robot=robot)
    if control == "absolute":
        for part in config["body_parts"].values():
            part.update(input_type="absolute", input_ref_frame="world")
    return config


class Draws(np.random.Generator):
    """A generator whose choice among names does not depend on the order in which a set happened to list them."""

    def choice(self, a, *args, **kwargs):
        named = isinstance(a, list) and all(isinstance(name, str) for name in a)
        return super().choice(sorted(a) if named else a, *args, **kwargs)


@contextlib.contextmanager
def draws(env, seed: int) -> Iterator[None]:
    """Let everything that robosuite draws in a reset come from one generator of `seed`."""
    rng = Draws(np.random.PCG64(seed))
    env.rng = rng
    placement = getattr(env, "placement_initializer", None)
    samplers = [placement, *getattr(placement, "samplers", {}).values()] if placement else []
    for sampler in samplers:
        sampler.rng = rng
    with contextlib.nullcontext() if _takes_seed(type(env)) else global_draws(seed):
        yield


@contextlib.contextmanager
def global_draws(seed: int) -> Iterator[None]:
    """robosuite 1.5.1 draws from numpy's global generator: seed it, and put it back as it was."""
    before = np.random.get_state()
    np.random.seed(np.random.SeedSequence(unsigned(seed)).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(before)


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Inside, robosuite gets a copy of a scene that this process has compiled before, where the XML is the same.

    Compiling is half of what it takes to build an environment, and the lanes of a world differ in nothing. The arm by
    itself, of which robosuite only keeps a reference, is one model for all; so is the scene in which an environment is
    made, which its first reset replaces.
    """
    from robosuite.models.base import MujocoXML
    from robosuite.utils.binding_utils import MjSim

    before = MjSim.__dict__["from_xml_string"], MujocoXML.get_model

    def get_model(self, mode: str = "mujoco"):
        if mode != "mujoco":
            return before[1](self, mode)
        return _compiled(ElementTree.tostring(self.root, encoding="unicode"))

    made_first = itertools.count()

    def from_xml_string(made, xml: str):
        return made(copy.copy(_compiled(xml)) if next(made_first) else _passing(xml))

    MjSim.from_xml_string = classmethod(from_xml_string)
    MujocoXML.get_model = get_model
    try:
        yield
    finally:
        MjSim.from_xml_string, MujocoXML.get_model = before


@functools.lru_cache(maxsize=4)  # an arm, and a scene as it is made and as its first reset makes it again
def _compiled(xml: str):
    import mujoco

    return mujoco.MjModel.from_xml_string(xml)


@functools.lru_cache(maxsize=2)
def _passing(xml: str):
    return copy.copy(_compiled(xml))


def _soften(env) -> None:
    """Only soft resets from now on, and no observables."""
    env.hard_reset = False
    env.sensors = [
        (name, sensed._sensor, sensed.modality, sensed.is_active())
        for name, sensed in env._observables.items()
        if sensed.modality != "image" and sensed.is_enabled()
    ]
    env._observables.clear()

    for names in ("object_id_to_sensors", "nut_id_to_sensors"):  # a soft reset would look for them among these
        if hasattr(env, names):
            setattr(env, names, {})


def _robots(environment: type, robot: str) -> int:
    """How many robots an environment takes: two for its two-armed tasks, one if the robot has two arms."""
    from robosuite.environments.manipulation.two_arm_env import TwoArmEnv
    from robosuite.models.robots.robot_model import REGISTERED_ROBOTS

    return 2 if issubclass(environment, TwoArmEnv) and len(REGISTERED_ROBOTS[robot].arms) == 1 else 1


@functools.cache
def _takes_seed(environment: type) -> bool:
    """Whether this robosuite draws from generators of its own (1.5.2 does, 1.5.1 does not)."""
    return "seed" in inspect.signature(environment).parameters or any(
        "seed" in inspect.signature(base.__init__).parameters for base in environment.__mro__[1:-1]
    )


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
