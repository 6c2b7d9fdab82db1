"""A task and faults for tests, and a first example of a task: a point in the plane must reach a target.

It takes microseconds a step. `FaultyWorld` lets chosen starts crash, hang, kill their process or hand over nonsense at
a chosen step, in workers as well, which is why it lives here and not beside the tests.
"""

from __future__ import annotations

import errno
import os
import signal
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
    # crash: an exception; kill, abort: the process ends itself; hang: sleeps for an hour, deaf: and hears no signal,
    # spin: computes, slow: .1 s;
    # reset, hang_reset: cannot begin; memory, full: the machine has no room; or a kind of nonsense, see `_NONSENSE`
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


_ACTS = ("crash", "kill", "abort", "hang", "deaf", "spin", "slow", "memory", "full", "exit")
_BEGINS = ("reset", "hang_reset")
_NONSENSE = {  # what a lane hands over from the step on -> (what of it, the nonsense)
    "nan": ("state", lambda value: value * np.nan),
    "infinite": ("scene", lambda value: value / 0.0),
    "shape": ("state", lambda value: np.zeros(5, np.float32)),
    "scalar": ("state", lambda value: np.float32(0.25)),
    "text": ("state", lambda value: value.astype(str)),
    "huge": ("state", lambda value: np.full(2, 1e300)),
    "missing": ("state", None),
    "nothing": ("observation", lambda value: None),
    "reward": ("reward", lambda value: np.nan),
    "progress": ("progress", lambda value: 1.5),
    "success": ("success", lambda value: np.nan),
    "terminated": ("terminated", lambda value: "no"),
    "endless": ("terminated", lambda value: False),
    "sent": ("action.sent", lambda value: value[:1]),
    "sent_nan": ("action.sent", lambda value: value * np.nan),
    "info": ("progress", None),
}


class FaultyEnv(TaskEnv):
    """A `TaskEnv` to which the faults of its world happen."""

    def __init__(self, world: FaultyWorld, task):
        super().__init__(world, task)
        self._faults = world.faults

    def begin(self, seed: int, options: dict) -> None:
        super().begin(seed, options)
        self._strike(_BEGINS, 0)

    def act(self, action: np.ndarray) -> float:
        self._strike(_ACTS, self.ticks)
        return super().act(action)

    def sense(self) -> dict[str, np.ndarray]:
        seen = super().sense()
        with np.errstate(all="ignore"):
            for what, nonsense in self._nonsense():
                key = {"state": STATE, "scene": SCENE}.get(what)
                if what == "observation":
                    return nonsense(seen)
                if key and nonsense is None:
                    del seen[key]
                elif key:
                    seen[key] = nonsense(seen[key])
        return seen

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        reward, terminated, truncated, info = super().advance(action)
        told = {"reward": reward, "terminated": terminated, "truncated": truncated} | info
        for what, nonsense in self._nonsense():
            if what in told and nonsense is None:
                del told[what]
            elif what in told:
                told[what] = nonsense(told[what])
                told["truncated"] = told["truncated"] and nonsense is not _NONSENSE["endless"][1]
        return told.pop("reward"), told.pop("terminated"), told.pop("truncated"), told

    def _nonsense(self) -> list[tuple]:
        """What is handed over wrongly now."""
        due = [fault for fault in self._faults if fault.start == self.start and fault.step <= self.ticks]
        return [_NONSENSE[fault.kind] for fault in due if fault.kind in _NONSENSE]

    def _strike(self, kinds: tuple[str, ...], step: int) -> None:
        for fault in self._faults:
            due = fault.kind in kinds and fault.start == self.start and (fault.step == step or kinds is _BEGINS)
            if not due or (fault.once and Path(fault.once).exists()):
                continue
            if fault.once:
                Path(fault.once).touch()
            _happen(fault, step)


def _happen(fault: Fault, step: int) -> None:
    if fault.kind == "slow":
        time.sleep(0.1)
        return
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.kind == "abort":
        os.abort()
    if fault.kind == "deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    if fault.kind in ("hang", "hang_reset", "deaf"):
        time.sleep(3600)
    while fault.kind == "spin":
        pass
    if fault.kind == "memory":
        raise MemoryError("fault asked for")
    if fault.kind == "full":
        raise OSError(errno.ENOSPC, "fault asked for: no space left on device")
    if fault.kind == "exit":
        raise SystemExit(0)
    raise RuntimeError(f"fault asked for: start {fault.start} fails at step {step}")
