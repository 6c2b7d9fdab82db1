"""A task and faults for tests, and a first example of a task: a point in the plane must reach a target.

It takes microseconds a step. `FaultyWorld` lets chosen starts crash, hang or kill their process at a chosen step, in
workers as well, which is why it lives here and not beside the tests.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..configs.spec import SCENE, STATE, Embodiment, Mode
from ..configs.world import World
from .experts import register_expert
from .task import MuJoCoWorld, TaskEnv, register_task

REACH = 0.05  # m, distance that counts as reached
XML = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="top" pos="0 0 2.6"/>
    <geom type="plane" size="1.2 1.2 .1" rgba=".9 .9 .88 1"/>
    <body name="point" pos="0 0 .05">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <geom type="sphere" size=".05" mass="1" rgba=".16 .47 .71 1" contype="0" conaffinity="0"/>
    </body>
    <body name="target" mocap="true" pos="0 0 .01">
      <geom type="cylinder" size=".05 .01" rgba=".88 .48 .37 1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator>
    <velocity joint="x" kv="40"/>
    <velocity joint="y" kv="40"/>
  </actuator>
</mujoco>
"""


@register_task("point")
class Point:
    """State: position x, y of the point (m). Scene: target x, y (m). Action: velocity x, y (m/s) at 20 Hz."""

    embodiment = Embodiment(
        name="point",
        action=("x", "y"),
        action_units=("m/s", "m/s"),
        limits=((-1.0, 1.0), (-1.0, 1.0)),
        rate=20.0,
        mode=Mode.velocity,
        state=("x", "y"),
        state_units=("m", "m"),
        scene=("target.x", "target.y"),
        scene_units=("m", "m"),
    )
    horizon = 60
    cameras = ("top",)

    def scene(self):
        import mujoco

        return mujoco.MjSpec.from_string(XML)

    def reset(self, model, data, rng) -> None:
        target = rng.uniform(-0.8, 0.8, 2)
        angle = rng.uniform(-np.pi, np.pi)
        data.mocap_pos[0, :2] = target
        data.qpos[:2] = target + rng.uniform(0.4, 0.9) * np.array([np.cos(angle), np.sin(angle)])

    def observe(self, model, data) -> dict[str, np.ndarray]:
        return {STATE: data.qpos[:2], SCENE: data.mocap_pos[0, :2]}

    def control(self, model, data, action) -> None:
        data.ctrl[:] = action

    def rest(self, model, data) -> np.ndarray:
        return np.zeros(2)

    def success(self, model, data) -> bool:
        return bool(self._distance(data) < REACH)

    def progress(self, model, data) -> float:
        return max(0.0, 1 - self._distance(data))

    def _distance(self, data) -> float:
        return float(np.linalg.norm(data.qpos[:2] - data.mocap_pos[0, :2]))


@register_expert("point")
class PointExpert:
    """Straight to the target, slower near it."""

    def act(self, env: TaskEnv) -> np.ndarray:
        error = env.data.mocap_pos[0, :2] - env.data.qpos[:2]
        return 4 * error / max(1.0, 4 * np.linalg.norm(error))


@dataclass(frozen=True)
class Fault:
    """What goes wrong, in which start, at which step (0 = the first)."""

    start: int
    step: int
    # crash: an exception; kill: the process ends itself; hang: sleeps for an hour; reset: cannot begin
    kind: str = "crash"
    once: str = ""  # path of a file that remembers that it has happened; empty: it happens every time


@World.register_subclass("faulty")
@dataclass(frozen=True, kw_only=True)
class FaultyWorld(MuJoCoWorld):
    """A registered task with faults."""

    task: str = "point"
    faults: tuple[Fault, ...] = ()

    def lane(self) -> FaultyEnv:
        return FaultyEnv(self, self.find())


class FaultyEnv(TaskEnv):
    """A `TaskEnv` to which the faults of its world happen."""

    def __init__(self, world: FaultyWorld, task):
        super().__init__(world, task)
        self._faults = world.faults

    def begin(self, seed: int, options: dict) -> None:
        super().begin(seed, options)
        self._strike(("reset",), 0)

    def act(self, action: np.ndarray) -> float:
        self._strike(("crash", "kill", "hang"), self.ticks)
        return super().act(action)

    def _strike(self, kinds: tuple[str, ...], step: int) -> None:
        for fault in self._faults:
            due = fault.kind in kinds and (fault.start, fault.step) == (self.start, step)
            if not due or (fault.once and Path(fault.once).exists()):
                continue
            if fault.once:
                Path(fault.once).touch()
            if fault.kind == "kill":
                os.kill(os.getpid(), 9)
            if fault.kind == "hang":
                time.sleep(3600)
            raise RuntimeError(f"fault asked for: start {self.start} fails at step {step}")
