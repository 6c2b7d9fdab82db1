"""PushT with an arm: the pusher of `pusht.py` is the tip of a stick that a Panda holds and its joints carry.

World type `pusht_arm`, registered name `pusht-arm`; embodiment, starts, block, goal and coverage are `pusht-mujoco`'s,
so that a policy of PushT runs in it unchanged. It is the simulated body of a digital twin of PushT.

A control step (0.1 s): the target drives gym-pusht's pusher law at `TIMESTEP`, open loop; every `TICK` inverse
kinematics turns where that pusher would be into joint angles; between them the joints' servos are told a straight line
and its velocity. Nothing else moves the stick: where the arm lags or is pushed back, the pusher is elsewhere, and the
observed state is the tip as measured. A target pulls as if at most `LEAP` away, or the torques would not suffice. A
Panda, because the table's far corners are 0.68 m away: an SO-101 reaches 0.4. The block is lighter than the other
world's (there 1 kg against a pusher that nothing stops) with the same damping per mass, which is the same law of
motion. What is not simulated: contact of the arm's links, and the arm in the camera "image", which shows what gym-pusht
draws; "front" shows the arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from ...configs.machine import versions
from ...configs.spec import SCENE, STATE
from ...configs.world import World, register_world
from ..task import TASKS, MuJoCoWorld
from .panda import AHEAD, REST, StickKinematics, panda
from .pusht import TIMESTEP, PushT, PushTMuJoCoLane, block_corners, gains, to_metres, to_px

BASE = (-0.376, 0.0, -0.25)  # m: 0.12 m left of the table, 0.25 m below it
STICK = 0.25  # m
HEIGHT = 0.02  # m, of the pusher above the table
BALL = 0.015  # m, the pusher
MASS = 0.05  # kg, the block
LEAP = 0.13  # m; so the wish has at most 14 m/s^2 and 0.65 m/s. The human episodes pass it in 7 of 22,207 steps
TICK, TICKS = 0.01, 10  # s, between two solutions of the inverse kinematics; how many of them in a control step
ARM = slice(3, 10)  # in qpos
PLACE, SPEED, ANGLES = slice(0, 2), slice(2, 4), slice(4, 11)  # in userdata: m, m/s, rad of what is wished now


class PushTArm(PushT):
    """The task; see the module. qpos: the block's centre of mass X, Y, turn, then the arm's seven joints, rad."""

    cameras = ("front", "image")

    def __init__(self, damping: float = 400.0, friction: float = 0.0, softness: float = 0.004):
        super().__init__(damping, friction, softness)
        self._kinematics: StickKinematics | None = None

    @property
    def kinematics(self) -> StickKinematics:
        """Of the arm where it stands here; built at first use."""
        if self._kinematics is None:
            self._kinematics = StickKinematics(BASE, STICK)
        return self._kinematics

    def scene(self):
        import mujoco

        # the other scene's block alone, lighter
        spec = super().scene()
        for thing in (*spec.actuators, spec.body("pusher")):
            spec.delete(thing)
        block = spec.body("block")
        block.mass, block.inertia = block.mass * MASS, block.inertia * MASS
        for joint in block.joints:
            joint.damping = joint.damping * MASS

        # the arm that holds the pusher
        spec.modelname, spec.nuserdata = "pusht-arm", ANGLES.stop
        spec.option.gravity = (0, 0, -9.81)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.attach(panda(STICK, BALL), prefix="", frame=spec.worldbody.add_frame(pos=BASE))
        self._pusher(spec.geom("pusher"), spec.geom("table"))

        sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384)
        sky.builtin = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT
        sky.rgb1, sky.rgb2 = (0.93, 0.94, 0.95), (0.75, 0.77, 0.8)
        spec.worldbody.add_camera(
            name="front", pos=[0.95, -0.65, 0.75], xyaxes=[0.565, 0.825, 0, -0.41, 0.28, 0.868], fovy=52
        )
        return spec

    def _pusher(self, pusher, table) -> None:
        """The ball meets the block as in the other scene: `table` has that scene's defaults of contact."""
        pusher.contype, pusher.conaffinity = 4, 1
        for name in ("solref", "solimp", "condim", "friction"):
            setattr(pusher, name, getattr(table, name))

    def put_pusher(self, data, place: np.ndarray) -> None:
        """Write the arm at rest, the tip at (2,) m."""
        angles = self.kinematics.settle(np.array([*place, HEIGHT])).angles
        data.qpos[ARM] = data.ctrl[:] = data.userdata[ANGLES] = angles
        data.qvel[ARM] = data.userdata[SPEED] = 0
        data.userdata[PLACE] = place

    def observe(self, model, data) -> dict[str, np.ndarray]:
        return {STATE: self.tip(data), SCENE: block_corners(self.block_pose(data)).ravel()}

    def tip(self, data) -> np.ndarray:
        """(2,) px, the pusher as it is."""
        return to_px(data.site("tip").xpos[:2])

    def rest(self, model, data) -> np.ndarray:
        return to_px(data.userdata[PLACE])

    def pushers(self, qpos: np.ndarray) -> np.ndarray:
        """(N, 2) px, where joint positions (N, nq) have the pusher."""
        return to_px(np.array([self.kinematics.forward(row)[0][:2] for row in qpos[:, ARM]]).reshape(-1, 2))

    def control(self, model, data, action) -> None:
        data.ctrl[:] = self.controls(data, np.asarray(action)[None])[0, -1]

    def controls(self, data, actions: np.ndarray) -> np.ndarray:
        """(T, 2) actions, px -> (T, n, 7) joint targets, rad, one for each physics step; moves the wish in `userdata`.

        They depend on the actions and that wish alone, not on where the arm is.
        """
        wish, each = data.userdata, round(TICK / TIMESTEP)
        place, speed, angles = wish[PLACE].copy(), wish[SPEED].copy(), wish[ANGLES].copy()
        parts = np.arange(1, each + 1)[:, None] / each

        rows = []
        for goal in to_metres(np.asarray(actions, float)):
            for _ in range(TICKS):
                place, speed = drive(place, speed, goal, each)
                then = self.kinematics.follow(angles, np.array([*place, HEIGHT]))
                rows.append(angles + (parts + AHEAD / TICK) * (then - angles))
                angles = then

        wish[PLACE], wish[SPEED], wish[ANGLES] = place, speed, angles
        return np.reshape(rows, (len(actions), TICKS * each, len(angles)))


def drive(place: np.ndarray, speed: np.ndarray, goal: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pusher's law brings it from `place` (2,) m and `speed` (2,) m/s in `steps` of `TIMESTEP`, to `goal`."""
    kp, kv = _gains()
    for _ in range(steps):
        way = goal - place
        way = way * min(1.0, LEAP / max(math.hypot(*way), 1e-9))
        speed = speed + TIMESTEP * (kp * way - kv * speed)
        place = place + TIMESTEP * speed
    return place, speed


@cache
def _gains() -> tuple[float, float]:
    return gains(TIMESTEP)


@World.register_subclass("pusht_arm")
@dataclass(frozen=True, kw_only=True)
class PushTArmWorld(MuJoCoWorld):
    """PushT whose pusher is held by a Panda. Cameras: "image", gym-pusht's view without the arm, and "front"."""

    task: str = "pusht-arm"
    damping: float = 400.0  # 1/s, how fast the block comes to rest
    friction: float = 0.0  # between pusher and block
    softness: float = 0.004  # s, time constant of a contact

    start_set = "gym_pusht/pusht"  # an env seed draws the same initial condition in all worlds of PushT

    def __post_init__(self):
        if self.task != "pusht-arm":
            raise LookupError(f"unknown task '{self.task}' of world type pusht_arm. Known: pusht-arm")

    def find(self) -> PushTArm:
        unknown = set(self.cameras) - set(PushTArm.cameras)
        if unknown:
            raise LookupError(f"unknown camera '{min(unknown)}' of pusht-arm. Known: {', '.join(PushTArm.cameras)}")
        return PushTArm(self.damping, self.friction, self.softness)

    def lane(self) -> PushTArmLane:
        return PushTArmLane(self, self.find())

    def fingerprint(self) -> dict:
        facts = super().fingerprint()
        control = {"leap": LEAP, "tick": TICK, "ahead": AHEAD, "height": HEIGHT, "rest": REST.tolist()}
        packages = facts["versions"] | versions("shapely", "robosuite")
        return facts | {"type": "pusht_arm", "control": control, "versions": packages}


class PushTArmLane(PushTMuJoCoLane):
    """One copy. Reset option `state` as in `pusht.py`."""

    def act(self, action: np.ndarray) -> float:
        import mujoco

        for row in self.task.controls(self.data, action[None])[0]:
            self.data.ctrl[:] = row
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        return self.judge()[1]

    def _draw(self, camera: str, height: int, width: int) -> np.ndarray:
        """The camera "image" does not see the arm, but for the pusher."""
        hidden = (self.model.geom_group == 1) & (np.arange(self.model.ngeom) != self.model.geom("pusher").id)
        seen = self.model.geom_rgba[hidden, 3]
        self.model.geom_rgba[hidden, 3] *= camera != "image"
        try:
            return super()._draw(camera, height, width)
        finally:
            self.model.geom_rgba[hidden, 3] = seen


TASKS["pusht-arm"] = PushTArm
register_world("pusht-arm", PushTArmWorld())
