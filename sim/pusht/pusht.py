"""PushT in MuJoCo: gym-pusht's pusher, T-shaped block, walls and goal in metres (1 px = 1 mm), behind the same door.

World type `pusht_mujoco`, registered name `pusht-mujoco`. Embodiment, observations, actions, starts, coverage and
camera "image" are those of `gym_pusht.py`, in px, so that one policy runs in both worlds and rows join by env seed.
Inside, the table's middle is the origin, x points right and y up in the picture: X = (x - 256) mm, Y = (256 - y) mm.

gym-pusht is quasi-static: it kills all velocity 100 times a second, so a contact turns an impulse at a point into a
displacement through the inverse inertia alone, without friction at the contact. Here the block slides on two slide
joints and a hinge at its centre of mass, damped in proportion to mass and moment, which is the same law. The pusher
is too heavy to be stopped and its gains put the poles of its motion where gym-pusht's 100 Hz controller has them.
`pusht_replay.py` measures how near that comes to the human episodes. Knows nothing of arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...configs.machine import versions
from ...configs.spec import SCENE, STATE
from ...configs.world import World, register_world
from ..open_loop import read_state, write_state
from ..task import TASKS, MuJoCoWorld, TaskEnv
from .gym_pusht import EMBODIMENT, HORIZON, SIZE, SUCCESS

MIDDLE = SIZE / 2  # px
MM = 1e-3  # m in a px
GOAL = np.array([256.0, 256.0, np.pi / 4])  # px, px, rad: gym-pusht's pose of the goal
CENTRE = np.array([0.0, 45.0])  # px, the block's centre of mass in its own frame
CORNERS = np.array(  # px, in the block's frame: gym-pusht's keypoints, bar then stem
    [[-60, 0], [60, 0], [60, 30], [-60, 30], [-15, 30], [15, 30], [15, 120], [-15, 120]], float
)
TIMESTEP = 0.002  # s
GAINS, GAME_STEP = (100.0, 20.0), 0.01  # gym-pusht's k_p and k_v, and the step it applies them with, s
HEAVY = 1000.0  # kg, the pusher
XML = """
<mujoco model="pusht">
  <option timestep="{timestep}" gravity="0 0 0" cone="elliptic"/>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <default>
    <geom contype="0" conaffinity="0" solref="{softness} 1" solimp="0.99 0.999 0.0005" condim="{condim}"
      friction="{friction} 0.005 0.0001"/>
    <default class="wall"><geom rgba=".83 .83 .83 1"/></default>
    <default class="goal"><geom type="box" rgba=".56 .93 .56 1"/></default>
    <default class="block"><geom type="box" rgba=".56 .64 .72 1" contype="1" conaffinity="6"/></default>
  </default>
  <worldbody>
    <camera name="image" pos="0 0 1" projection="orthographic" fovy="0.512"/>
    <geom name="table" type="plane" pos="0 0 -.01" size=".256 .256 .1" rgba="1 1 1 1"/>
    <geom name="left" class="wall" type="box" pos="-.251 0 0" size=".002 .253 .02"/>
    <geom name="right" class="wall" type="box" pos=".25 0 0" size=".002 .253 .02"/>
    <geom name="up" class="wall" type="box" pos="0 .251 0" size=".253 .002 .02"/>
    <geom name="down" class="wall" type="box" pos="0 -.25 0" size=".253 .002 .02"/>
    <geom type="plane" pos="-.249 0 0" zaxis="1 0 0" size="1 1 .1" group="4" contype="2"/>
    <geom type="plane" pos=".248 0 0" zaxis="-1 0 0" size="1 1 .1" group="4" contype="2"/>
    <geom type="plane" pos="0 .249 0" zaxis="0 -1 0" size="1 1 .1" group="4" contype="2"/>
    <geom type="plane" pos="0 -.248 0" zaxis="0 1 0" size="1 1 .1" group="4" contype="2"/>
    <body name="goal" pos="{goal}">
      <geom class="goal" pos="0 -.015 -.007" size=".06 .015 .001"/>
      <geom class="goal" pos="0 -.075 -.007" size=".015 .045 .001"/>
    </body>
    <body name="block">
      <inertial pos="0 0 0" mass="1" diaginertia=".003 .003 .003"/>
      <joint name="block.x" type="slide" axis="1 0 0" damping="{damping}"/>
      <joint name="block.y" type="slide" axis="0 1 0" damping="{damping}"/>
      <joint name="block.turn" type="hinge" axis="0 0 1" damping="{turning}"/>
      <geom class="block" pos="0 .03 .02" size=".06 .015 .02"/>
      <geom class="block" pos="0 -.03 .02" size=".015 .045 .02"/>
    </body>
    <body name="pusher" pos="0 0 .02">
      <joint name="pusher.x" type="slide" axis="1 0 0"/>
      <joint name="pusher.y" type="slide" axis="0 1 0"/>
      <geom name="pusher" type="sphere" size=".015" mass="{heavy}" rgba=".25 .41 .88 1" contype="4" conaffinity="1"/>
    </body>
  </worldbody>
  <actuator>
    <position joint="pusher.x" kp="{kp}" kv="{kv}"/>
    <position joint="pusher.y" kp="{kp}" kv="{kv}"/>
  </actuator>
</mujoco>
"""


class PushT:
    """The task, a `Task` of `task.py`; see the module. qpos: block's centre of mass X, Y, turn, then pusher X, Y.

    Args:
        damping: 1/s, how fast the block comes to rest; alike for sliding and turning.
        friction: between pusher and block; gym-pusht has none.
        softness: s, time constant of a contact.
    """

    embodiment = EMBODIMENT
    horizon = HORIZON
    cameras = ("image",)

    def __init__(self, damping: float = 400.0, friction: float = 0.0, softness: float = 0.004):
        self.damping, self.friction, self.softness = damping, friction, softness
        self._goal = polygons(block_corners(GOAL))

    def scene(self):
        import mujoco

        kp, kv = (HEAVY * gain for gain in gains(TIMESTEP))
        x, y = to_metres(GOAL[:2])
        text = XML.format(
            timestep=TIMESTEP,
            softness=self.softness,
            condim=3 if self.friction else 1,
            friction=max(self.friction, 1e-5),
            damping=self.damping,
            turning=self.damping * 0.003,
            heavy=HEAVY,
            goal=f'{x} {y} 0" axisangle="0 0 1 {-np.rad2deg(GOAL[2])}',
            kp=kp,
            kv=kv,
        )
        return mujoco.MjSpec.from_string(text)

    def reset(self, model, data, rng) -> None:
        """The start that gym-pusht draws from the same seed."""
        drawn = [rng.integers(50, 450), rng.integers(50, 450), rng.integers(100, 400), rng.integers(100, 400)]
        self.put(data, np.array([*drawn, rng.uniform(-np.pi, np.pi)], float))

    def put(self, data, state: np.ndarray) -> None:
        """Write a start given as gym-pusht's five numbers: pusher x, y, block x, y in px, angle in rad.

        As there, the block is placed with angle 0 and then turned about its centre of mass.
        """
        data.qpos[:2] = to_metres(np.asarray(state[2:4]) + CENTRE)
        data.qpos[2] = -state[4]
        self.put_pusher(data, to_metres(np.asarray(state[:2], float)))

    def put_pusher(self, data, place: np.ndarray) -> None:
        """Write the pusher at rest at (2,) m."""
        data.qpos[3:5] = data.ctrl[:] = place

    def observe(self, model, data) -> dict[str, np.ndarray]:
        return {STATE: to_px(data.qpos[3:5]), SCENE: block_corners(self.block_pose(data)).ravel()}

    def control(self, model, data, action) -> None:
        data.ctrl[:] = to_metres(np.asarray(action, float))

    def controls(self, data, actions: np.ndarray) -> np.ndarray:
        """(T, 2) actions, px -> (T, n, nu): what they write into `data.ctrl`, n times in a control step."""
        return to_metres(np.asarray(actions, float))[:, None]

    def rest(self, model, data) -> np.ndarray:
        return to_px(data.qpos[3:5])

    def success(self, model, data) -> bool:
        return self.coverage(data) > SUCCESS

    def progress(self, model, data) -> float:
        return min(1.0, self.coverage(data) / SUCCESS)

    def coverage(self, data) -> float:
        """Part of the goal that the block covers, 0..1."""
        return float(self.coverages(data.qpos[None])[0])

    def coverages(self, qpos: np.ndarray) -> np.ndarray:
        """(N,) the same for joint positions (N, nq)."""
        import shapely

        corners = np.array([block_corners(block_pose(row)) for row in qpos]).reshape(-1, 8, 2)
        blocks = shapely.multipolygons(shapely.polygons(corners.reshape(-1, 2, 4, 2)))
        return shapely.area(shapely.intersection(self._goal, blocks)) / self._goal.area

    def pushers(self, qpos: np.ndarray) -> np.ndarray:
        """(N, 2) px, where joint positions (N, nq) have the pusher."""
        return to_px(qpos[:, 3:5])

    def block_pose(self, data) -> np.ndarray:
        """(3,) float64: x, y in px and angle in rad of the block, as gym-pusht keeps them."""
        return block_pose(data.qpos)


def to_metres(px: np.ndarray) -> np.ndarray:
    """(..., 2) from gym-pusht's px, y down, to metres from the table's middle, y up."""
    return (px - MIDDLE) * np.array([MM, -MM])


def to_px(metres: np.ndarray) -> np.ndarray:
    """The inverse of `to_metres`."""
    return metres / np.array([MM, -MM]) + MIDDLE


def turned(angle: float) -> np.ndarray:
    """(2, 2): `points @ turned(angle)` turns rows by `angle` rad, in px coordinates."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def block_pose(qpos: np.ndarray) -> np.ndarray:
    """(3,) gym-pusht's x, y in px and angle in rad of a block at joint positions (3 or more,)."""
    angle = -qpos[2]
    return np.array([*(to_px(qpos[:2]) - CENTRE @ turned(angle)), angle])


def block_corners(pose: np.ndarray) -> np.ndarray:
    """(8, 2) px: gym-pusht's keypoints of a block at pose (x, y in px, angle in rad)."""
    return CORNERS @ turned(pose[2]) + pose[:2]


def polygons(corners: np.ndarray):
    """Bar and stem as gym-pusht hands them to shapely."""
    from shapely.geometry import MultiPolygon, Polygon

    return MultiPolygon([Polygon(corners[:4]), Polygon(corners[4:])])


def gains(timestep: float) -> tuple[float, float]:
    """k_p (1/s^2) and k_v (1/s) that give the pusher, at this step, the poles of gym-pusht's controller at its own."""
    kp, kv = GAINS
    trace, product = 2 - kv * GAME_STEP - kp * GAME_STEP**2, 1 - kv * GAME_STEP
    poles = np.roots([1, -trace, product]).real ** (timestep / GAME_STEP)
    kv = (1 - poles.prod()) / timestep
    return float((2 - kv * timestep - poles.sum()) / timestep**2), float(kv)


@World.register_subclass("pusht_mujoco")
@dataclass(frozen=True, kw_only=True)
class PushTMuJoCo(MuJoCoWorld):
    """PushT in MuJoCo. Its one camera is "image", gym-pusht's view."""

    task: str = "pusht-mujoco"
    damping: float = 400.0  # 1/s, how fast the block comes to rest
    friction: float = 0.0  # between pusher and block
    softness: float = 0.004  # s, time constant of a contact

    start_set = "gym_pusht/pusht"  # an env seed draws the same initial condition in both worlds

    def __post_init__(self):
        if self.task != "pusht-mujoco":
            raise LookupError(f"unknown task '{self.task}' of world type pusht_mujoco. Known: pusht-mujoco")

    def find(self) -> PushT:
        unknown = set(self.cameras) - {"image"}
        if unknown:
            raise LookupError(f"unknown camera '{min(unknown)}' of pusht-mujoco. Known: image")
        return PushT(self.damping, self.friction, self.softness)

    def lane(self) -> PushTMuJoCoLane:
        return PushTMuJoCoLane(self, self.find())

    def fingerprint(self) -> dict:
        facts = super().fingerprint()
        return facts | {"type": "pusht_mujoco", "versions": facts["versions"] | versions("shapely")}


class PushTMuJoCoLane(TaskEnv):
    """One copy. Reset option `state`: (pusher x, y, block x, y, angle), as in `gym_pusht.py`."""

    def begin(self, seed: int, options: dict) -> None:
        super().begin(seed, options)
        if options.get("state") is not None:
            import mujoco

            self.task.put(self.data, np.asarray(options["state"], float))
            mujoco.mj_forward(self.model, self.data)

    def judge(self) -> tuple[bool, float]:
        coverage = self.task.coverage(self.data)
        return coverage > SUCCESS, min(1.0, coverage / SUCCESS)

    def get_state(self) -> np.ndarray:
        """(S,) float64: all that the future depends on."""
        return read_state(self.model, self.data)

    def set_state(self, state: np.ndarray) -> None:
        """Go on from a state of `get_state`, of this lane or of another of the same world: to the last bit as there."""
        write_state(self.model, self.data, state)

    def block_pose(self) -> np.ndarray:
        """(3,) float64: x, y in px and angle in rad of the block, as gym-pusht keeps them."""
        return self.task.block_pose(self.data)


TASKS["pusht-mujoco"] = PushT
register_world("pusht-mujoco", PushTMuJoCo())
