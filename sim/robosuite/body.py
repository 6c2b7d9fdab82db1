"""What a robosuite environment says of itself: its hands, its scene and its cameras.

For a task of `SUITE` with a Panda all is known beforehand; for any other environment or arm one copy is built, once in
a process, and asked. A scene that is not ours is robosuite's own object state, with rotations as the first two columns
of their matrix.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np

from ...configs.plugins import lookup
from .build import build, environments
from .tasks import SUITE, SuiteTask, metres, pose, six

PREFIX = "robosuite/"


@dataclass(frozen=True)
class Hand:
    """One hand of the robots of an environment."""

    robot: int = 0  # which robot
    arm: str = "right"  # which arm of it
    prefix: str = ""  # of its names: "" where there is one hand
    fingers: tuple[tuple[str, str], ...] = (("finger.left", "m"), ("finger.right", "m"))  # (name, unit)
    grips: bool = True  # whether its action has a number for the gripper

    def state(self) -> dict[str, str]:
        """Names and units of what is observed of it."""
        return {self.prefix + name: unit for name, unit in (pose("gripper") | dict(self.fingers)).items()}


@dataclass(frozen=True)
class Body:
    """The hands of an environment, and its cameras."""

    hands: tuple[Hand, ...] = (Hand(),)
    cameras: tuple[str, ...] = ()


def find_task(name: str, robot: str = "Panda") -> SuiteTask:
    """A task of ours, or any robosuite environment, with or without `robosuite/` before its name.

    Raises:
        LookupError: listing the known tasks.
    """
    short = name.removeprefix(PREFIX)
    if short in SUITE:
        return SUITE[short]
    tasks = {task.environment: task for task in SUITE.values()}
    if short in tasks:
        return tasks[short]
    if not re.fullmatch(r"[A-Z]\w*", short):
        lookup("robosuite task", short, SUITE)
    lookup("robosuite task", short, SUITE | dict.fromkeys(environments()))
    return _described(short, robot)


@functools.cache
def describe(environment: str, robot: str) -> Body:
    """Ask a copy of an environment for its hands and cameras; those of a Panda alone are known."""
    tasks = {task.environment: task for task in SUITE.values()}
    if robot == "Panda" and environment in tasks:
        return Body(cameras=tasks[environment].cameras)

    env = build(environment, robot=robot)
    try:
        several = len(env.robots) > 1 or len(env.robots[0].arms) > 1
        pairs = [(number, arm) for number, robot in enumerate(env.robots) for arm in robot.arms]
        hands = [_hand(env, number, arm, several) for number, arm in pairs]
        return Body(tuple(hands), tuple(env.sim.model.camera_names))
    finally:
        env.close()


def objects(env) -> dict[str, np.ndarray]:
    """robosuite's object state now, sensor by sensor; rotations as six numbers."""
    readings, numbers = {}, {}
    for name, sensor, modality, active in env.sensors:
        value = readings[name] = np.array(sensor(readings), np.float64)
        if modality == "object" and active:
            numbers[name] = _six_of_quaternion(value) if name.endswith("quat") else np.atleast_1d(value).ravel()
    return numbers


def _hand(env, number: int, arm: str, several: bool) -> Hand:
    import mujoco

    robot, model = env.robots[number], env.sim.model
    start, end = robot.composite_controller._action_split_indexes.get(f"{arm}_gripper", (0, 0))
    names = robot.gripper[arm].joints if robot.has_gripper[arm] else []
    kinds = [model.jnt_type[model.joint_name2id(name)] for name in names]
    units = ["m" if kind == mujoco.mjtJoint.mjJNT_SLIDE else "rad" for kind in kinds]
    sides = ["left", "right"] if units == ["m", "m"] else range(len(units))
    fingers = tuple((f"finger.{side}", unit) for side, unit in zip(sides, units, strict=True))
    prefix = f"robot{number}." if len(env.robots) > 1 else f"{arm}." if several else ""
    return Hand(number, arm, prefix, fingers, end > start)


@functools.cache
def _described(environment: str, robot: str) -> SuiteTask:
    """A task made of what robosuite itself tells of an environment's objects."""
    env = build(environment, robot=robot)
    try:
        scene = {}
        for name, value in objects(env).items():
            scene |= _named(name, len(value))
        return SuiteTask(environment, scene, lambda env, gripper: list(objects(env).values()))
    finally:
        env.close()


def _named(name: str, size: int) -> dict[str, str]:
    if name.endswith("_pos") and size == 3:
        return metres(name.removesuffix("_pos"))
    if name.endswith("quat") and size == 6:
        columns = [f"{column}_{axis}" for column in "xy" for axis in "xyz"]
        return {f"{name.removesuffix('_quat')}.{column}": "1" for column in columns}
    unit = "rad" if name.endswith("qpos") else "m" if "_to_" in name and size == 3 else "1"
    return {f"{name}.{number}" if size > 1 else name: unit for number in range(size)}


def _six_of_quaternion(xyzw: np.ndarray) -> np.ndarray:
    import mujoco

    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.roll(xyzw, 1))
    return six(matrix)
