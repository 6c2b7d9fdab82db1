"""Tasks that need memory, in plain MuJoCo: what must be done depends on something that is no longer to be seen.

World type `memory`, registered names `push-and-return` and `count-scoops`. A tool moves in a plane; the action is its
target position (m) at 10 Hz. Every task has a *common middle*: a clamp takes the tool and holds it at one pose for
`DWELL` = 20 control steps, whatever is asked. Then all that is observed is the same for every past, up to measuring
noise of 1 mm, so that the current observation tells nothing, for any policy. No clock or counter is observed.

The span between the last sign of the past and the choice is thus at least 20 steps: a window of 2-4 frames at a stride
of up to 4 steps (reach <= 12) does not bridge it; 16 frames at a stride of 4 (reach 60) do.

`labels()` splits success: *completion*, the movements were done; *context*, and what they did fits the past. A policy
without memory has context by chance: 1/2 in push-and-return; at most 1/4 in count-scoops (it goes home after each scoop
with some probability p, and does so after exactly two with p (1 - p)). These are parts of all starts; among completed
episodes a policy may do better by completing only those that it answers right. An answer ends the episode.
Measured: from 1000 starts a nearest-neighbour policy without memory, cloned from 60 demonstrations, completes 0.98 of
count-scoops with context in 0.26 of all; a probe from the middles of these rollouts to the past has AUC 0.50 (1752
states). From 1650 starts of push-and-return: 0.99, 0.48, and 0.51 (1633 states).
After PTP's LH-ALOHA and two-scoops tasks. The demonstrators are in `experts.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...configs.spec import SCENE, STATE, Embodiment
from ...configs.world import World, register_world
from ..task import TASKS, MuJoCoWorld, TaskEnv

RATE = 10.0  # Hz
DWELL = 20  # control steps that the clamp holds the tool
NOISE = 1e-3  # m, standard deviation of what is measured
CAUGHT = 0.02  # m from the clamp at which it takes the tool
KEY, CUE, HELD, COUNT, ANSWER, LOADED = range(6)  # places of what a task remembers, in `data.userdata`
XML = """
<mujoco>
  <size nuserdata="6"/>
  <option timestep="0.005" gravity="0 0 0"/>
  <visual><headlight ambient=".7 .7 .7" diffuse=".4 .4 .4" specular="0 0 0"/></visual>
  <default>
    <geom contype="0" conaffinity="0" condim="1" solref="0.01 1"/>
  </default>
  <worldbody>{world}</worldbody>
  <actuator>
    <position joint="tool.a" kp="400" kv="40"/>
    <position joint="tool.b" kp="400" kv="40"/>
  </actuator>
  {more}
</mujoco>
"""
PUSH = """
    <camera name="top" pos="0 0 1" projection="orthographic" fovy=".6"/>
    <geom type="plane" size=".3 .3 .1" rgba=".95 .95 .93 1"/>
    <geom type="box" pos="0 0 .001" size=".25 .032 .001" rgba=".8 .8 .78 1"/>
    <geom type="box" pos="-.2 0 .002" size=".05 .032 .001" rgba=".56 .8 .9 1"/>
    <geom type="box" pos=".2 0 .002" size=".05 .032 .001" rgba=".56 .8 .9 1"/>
    <geom type="cylinder" pos="0 -.14 .001" size=".03 .001" rgba=".7 .7 .7 1"/>
    <body name="lamp" mocap="true" pos="0 .2 -1"><geom type="cylinder" size=".03 .001" rgba=".2 .75 .3 1"/></body>
    <body name="tool" pos="0 0 .02">
      <joint name="tool.a" type="slide" axis="1 0 0"/>
      <joint name="tool.b" type="slide" axis="0 1 0"/>
      <geom type="sphere" size=".015" mass="1" rgba=".16 .47 .71 1" contype="1" conaffinity="2"/>
    </body>
    <body name="block" pos="0 0 .02">
      <joint name="block" type="slide" axis="1 0 0" range="-.22 .22" limited="true" damping="2"/>
      <geom type="box" size=".03 .03 .02" mass=".1" rgba=".88 .48 .37 1" contype="2" conaffinity="1"/>
    </body>
"""
LATCH = '<equality><joint name="latch" joint1="block" polycoef="0 0 0 0 0" active="false"/></equality>'
SCOOP = """
    <camera name="side" pos="0 -1 .15" xyaxes="1 0 0 0 0 1" projection="orthographic" fovy=".6"/>
    <geom type="box" pos="0 .1 .15" size=".3 .01 .3" rgba=".95 .95 .93 1"/>
    <geom type="box" pos="-.2 0 .02" size=".04 .02 .02" rgba=".85 .65 .3 1"/>
    <geom type="box" pos="0 0 .02" size=".04 .02 .02" rgba=".4 .45 .5 1"/>
    <geom type="box" pos=".2 0 .005" size=".04 .02 .005" rgba=".7 .7 .7 1"/>
    <body name="load" mocap="true" pos="0 1 0"><geom type="sphere" size=".012" rgba=".85 .55 .1 1"/></body>
    <body name="tool" pos="0 -.04 0">
      <joint name="tool.a" type="slide" axis="1 0 0"/>
      <joint name="tool.b" type="slide" axis="0 0 1"/>
      <geom type="capsule" fromto="0 0 0 0 0 .08" size=".008" mass=".8" rgba=".16 .47 .71 1"/>
      <geom type="ellipsoid" size=".02 .015 .01" mass=".2" rgba=".16 .47 .71 1"/>
    </body>
"""


class MemoryTask:
    """What the tasks share: a tool in a plane, a clamp, noise. `userdata` holds what is not observed."""

    horizon = 200
    clamp: np.ndarray  # (2,) m, where the tool is held

    def start(self, data, rng: np.random.Generator, tool) -> None:
        """Put the tool near `tool` (m) and draw the key of the noise."""
        data.userdata[KEY] = rng.integers(2**31)
        data.qpos[:2] = data.ctrl[:] = np.asarray(tool) + rng.uniform(-0.02, 0.02, 2)

    def measured(self, data, values) -> np.ndarray:
        """`values` (m) with the measuring noise of now, a function of start and time alone."""
        rng = np.random.default_rng([int(data.userdata[KEY]), round(data.time * RATE)])
        return np.asarray(values) + NOISE * rng.standard_normal(len(values))

    def control(self, model, data, action) -> None:
        data.ctrl[:] = self.clamp if data.userdata[HELD] else action

    def hold(self, data) -> bool:
        """Let the clamp count down; True in the step in which it opens."""
        if not data.userdata[HELD]:
            return False
        data.userdata[HELD] -= 1
        return not data.userdata[HELD]

    def rest(self, model, data) -> np.ndarray:
        return data.qpos[:2]

    def labels(self, data) -> dict[str, bool]:
        """completion: an answer was given; context: and it is the right one."""
        return {"completion": bool(data.userdata[ANSWER]), "context": bool(self.success(None, data))}


def _body(name: str, axes: tuple[str, str], limits: tuple, scene: dict[str, str]) -> Embodiment:
    return Embodiment(
        name=name,
        action=axes,
        action_units=("m", "m"),
        limits=limits,
        rate=RATE,
        state=axes,
        state_units=("m", "m"),
        scene=tuple(scene),
        scene_units=tuple(scene.values()),
    )


class PushAndReturn(MemoryTask):
    """A block on a rail begins left or right. Push it to the middle, where a latch catches it; bring the pusher home,
    where the clamp holds it; when latch and clamp have opened (`free` = 1), push the block back to where it came from.

    State: pusher x, y (m). Scene: block x (m), free (0 or 1). Reaching a side answers.
    """

    embodiment = _body("pusher", ("x", "y"), ((-0.3, 0.3), (-0.3, 0.3)), {"block.x": "m", "free": "1"})
    cameras = ("top",)
    clamp = np.array([0.0, -0.14])
    middle, side = 0.012, 0.15  # m: |x| of the block that counts as the middle, and as a side

    def scene(self):
        import mujoco

        return mujoco.MjSpec.from_string(XML.format(world=PUSH, more=LATCH))

    def reset(self, model, data, rng) -> None:
        self.start(data, rng, self.clamp)
        data.userdata[CUE] = rng.choice([-1, 1])
        data.qpos[2] = data.userdata[CUE] * rng.uniform(0.16, 0.2)
        data.eq_active[0] = False

    def after(self, model, data) -> None:
        """What happens between two control steps: the latch, the clamp, the answer."""
        memory, block = data.userdata, data.qpos[2]
        if self.hold(data):
            memory[COUNT], data.eq_active[0] = 1, False
            data.mocap_pos[0, 2] = 0.002
        elif memory[COUNT]:
            memory[ANSWER] = memory[ANSWER] or (abs(block) > self.side) * np.sign(block)
        elif not data.eq_active[0]:
            data.eq_active[0] = memory[CUE] * block < self.middle
        elif not memory[HELD] and np.linalg.norm(data.qpos[:2] - self.clamp) < CAUGHT:
            memory[HELD] = DWELL

    def observe(self, model, data) -> dict[str, np.ndarray]:
        seen = self.measured(data, data.qpos[:3])
        return {STATE: seen[:2], SCENE: np.array([seen[2], data.userdata[COUNT]])}

    def success(self, model, data) -> bool:
        return bool(data.userdata[ANSWER] and data.userdata[ANSWER] == data.userdata[CUE])

    def progress(self, model, data) -> float:
        memory, block = data.userdata, data.qpos[2]
        if memory[COUNT]:
            return 0.6 + 0.39 * float(np.clip(memory[CUE] * block / self.side, 0, 1))
        if data.eq_active[0]:
            return 0.3 + 0.3 * (1 - min(1.0, float(np.linalg.norm(data.qpos[:2] - self.clamp)) / 0.3))
        return 0.3 * (1 - min(1.0, abs(float(block)) / 0.22))


class CountScoops(MemoryTask):
    """Bring two spoonfuls from the bowl (left) to the pot (middle), then lay the spoon down at home (right).

    A scoop is a dip into the bowl and then into the pot, where the clamp holds the emptied spoon. State: spoon x, z
    (m). Scene: loaded, held (0 or 1). Nothing shows how often it was done. Laying the spoon down after a first scoop
    answers.
    """

    embodiment = _body("spoon", ("x", "z"), ((-0.3, 0.3), (0.0, 0.3)), {"loaded": "1", "held": "1"})
    cameras = ("side",)
    horizon = 250
    scoops = 2  # that are asked for
    bowl, pot, home = -0.2, 0.0, 0.2  # m, their x
    low, wide, high = 0.06, 0.03, 0.18  # m: z of a dip, half a width, z to travel at
    clamp = np.array([0.0, 0.04])

    def scene(self):
        import mujoco

        return mujoco.MjSpec.from_string(XML.format(world=SCOOP, more=""))

    def reset(self, model, data, rng) -> None:
        self.start(data, rng, (self.bowl, self.high))

    def over(self, data, place: float) -> bool:
        """Whether the spoon is above or in a place."""
        return abs(data.qpos[0] - place) < self.wide

    def after(self, model, data) -> None:
        """What happens between two control steps: load, clamp and answer."""
        memory = data.userdata
        opens = self.hold(data)
        dipped = data.qpos[1] < self.low and not opens and not memory[HELD]

        if dipped and self.over(data, self.bowl):
            memory[LOADED] = 1
        elif dipped and self.over(data, self.pot) and memory[LOADED]:
            memory[LOADED], memory[COUNT], memory[HELD] = 0, memory[COUNT] + 1, DWELL
        elif dipped and self.over(data, self.home) and memory[COUNT]:
            memory[ANSWER] = memory[ANSWER] or memory[COUNT]

        data.mocap_pos[0] = (data.qpos[0], -0.06, data.qpos[1]) if memory[LOADED] else (0, 1, 0)

    def observe(self, model, data) -> dict[str, np.ndarray]:
        return {STATE: self.measured(data, data.qpos[:2]), SCENE: np.minimum(data.userdata[[LOADED, HELD]], 1)}

    def success(self, model, data) -> bool:
        return bool(data.userdata[ANSWER] == self.scoops)

    def progress(self, model, data) -> float:
        count, loaded = data.userdata[COUNT], data.userdata[LOADED]
        done = 2 * min(count, self.scoops) + (loaded if count < self.scoops else 0)
        return 0.9 * float(done) / (2 * self.scoops)


@World.register_subclass("memory")
@dataclass(frozen=True, kw_only=True)
class MemoryWorld(MuJoCoWorld):
    """A task of this file."""

    def lane(self) -> MemoryLane:
        return MemoryLane(self, self.find())

    def fingerprint(self) -> dict:
        return super().fingerprint() | {"type": "memory", "dwell": DWELL, "noise": NOISE}


class MemoryLane(TaskEnv):
    """One copy. An answer ends the episode: terminated when it is right, truncated when it is wrong."""

    def act(self, action: np.ndarray) -> float:
        super().act(action)
        self.task.after(self.model, self.data)
        return self.judge()[1]

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        reward, terminated, truncated, info = super().advance(action)
        answered = bool(self.data.userdata[ANSWER])
        return reward, terminated, truncated or (answered and not terminated), info

    def labels(self) -> dict[str, bool]:
        """How the episode stands: `completion` and `context`."""
        return self.task.labels(self.data)

    def memory(self) -> dict[str, float]:
        """What a demonstrator may know and a policy may not: `cue`, `held` (steps left), `count`, `loaded`."""
        data = self.data.userdata
        return {"cue": data[CUE], "held": data[HELD], "count": data[COUNT], "loaded": data[LOADED]}


def _register(name: str, task: Callable[[], MemoryTask]) -> None:
    TASKS[name] = task
    register_world(name, MemoryWorld(task=name))


_register("push-and-return", PushAndReturn)
_register("count-scoops", CountScoops)
