"""Tasks of an SO-101 on a table: reach a point, place a cube on a disc, push a T onto its goal with a stick.

Registers `so101-reach`, `so101-pick-place` and `so101-pusht`. All: 30 Hz, action = absolute joint targets in rad in the
order of `arm.SO101.joints`, state = joint positions in rad, world frame = frame of the arm's base (x forward, z up),
cameras `front` and `wrist`. Friction on the table is real (a free body on a plane). The T has gym-pusht's proportions
(bar 120 x 30, stem 30 x 90 px) at `SCALE` m per px; `pusht/pusht.py` has the planar task at 1 px = 1 mm.
Knows nothing of demonstrators (`experts.py`).
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from ...configs.spec import SCENE, STATE
from ..arms import Wiring
from ..task import Viewpoint, register_task
from .arm import SO101

RATE = 30.0  # Hz
TIMESTEP = 1 / 300  # s
PAN = np.array([0.0388353, 0.0])  # m, x and y of the shoulder's axis
CUBE = 0.024  # m, side
ZONE = 0.035  # m, radius of the disc
INSIDE = 0.02  # m, how near the middle of the disc the cube must come to rest
SCALE = 0.0005  # m per px of gym-pusht
T_HEIGHT = 0.016  # m
T_COLOUR = [0.45, 0.5, 0.58, 1]
STICK = 0.0065  # m, radius of the pusher (13 px; gym-pusht's has 15)
STICK_TIP = (0.045, 0.0, -0.006)  # m, its end in the frame of the hand's site
GOAL = (0.236, 0.016, -np.pi / 4)  # m, m, rad of the goal T
COVERED = 0.95  # part of the goal that must be covered, as in gym-pusht

CUBE_POSE = {f"cube.{axis}": "m" for axis in "xyz"} | {
    f"cube.{column}{axis}": "1" for column in ("x_", "y_") for axis in "xyz"
}
NEAR = 0.01  # m, a point that is reached
OBJECT = {"contype": 2, "conaffinity": 3}
GHOST = {"contype": 0, "conaffinity": 0}


class Tabletop:
    """What the tasks share: the arm on a table, two cameras, joint targets."""

    arm = SO101
    cameras = ("front", "wrist")
    viewpoint = Viewpoint((0.17, 0, 0.05), 0.6, 215, -38)  # from the side: the gripper hides nothing
    home = SO101.home
    _wired: tuple | None = None

    def table(self):
        """The arm at the origin of a table (z = 0), a light and the camera `front`."""
        import mujoco

        spec = self.arm.spec()
        spec.modelname = "tabletop"
        spec.option.timestep = TIMESTEP
        spec.visual.quality.offsamples = 0  # and no shadow: seven times the pictures a second on a CPU
        spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.35] * 3, [0.25] * 3

        world = spec.worldbody
        world.add_light(pos=[0.3, 0.3, 1.2], dir=[-0.1, -0.25, -1], diffuse=[0.6] * 3, castshadow=False)
        world.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0.8, 0.8, 0.1],
            rgba=[0.86, 0.85, 0.82, 1],
            friction=[0.6, 0.005, 0.0001],
            **OBJECT,
        )
        world.add_camera(name="front", pos=[0.5, 0, 0.38], xyaxes=[0, 1, 0, -0.651, 0, 0.759], fovy=48)
        return spec

    def wiring(self, model) -> Wiring:
        """Indices of the arm's joints in `model`."""
        if self._wired is None or self._wired[0] is not model:
            self._wired = model, Wiring.of(self.arm, model)
        return self._wired[1]

    def joints(self, model, data) -> np.ndarray:
        """(6,) joint positions, rad."""
        return data.qpos[self.wiring(model).qpos]

    def put_home(self, model, data, rng) -> None:
        """The arm at home, but for up to 0.05 rad in every joint, and told to stay there."""
        wiring = self.wiring(model)
        angles = np.array(self.home)
        angles[:-1] += rng.uniform(-0.05, 0.05, len(angles) - 1)
        data.qpos[wiring.qpos] = data.ctrl[wiring.ctrl] = np.clip(angles, self.arm.low, self.arm.high)

    def place(self, model, data, states) -> None:
        """The arm where the state says."""
        data.qpos[self.wiring(model).qpos] = states[STATE]

    def control(self, model, data, action) -> None:
        data.ctrl[self.wiring(model).ctrl] = action

    def rest(self, model, data) -> np.ndarray:
        return data.ctrl[self.wiring(model).ctrl].copy()


@register_task("so101-reach")
class Reach(Tabletop):
    """Bring the point between the fingers to a ball in the air. Scene: the ball's x, y, z (m)."""

    embodiment = SO101.embodiment(RATE, {"ball.x": "m", "ball.y": "m", "ball.z": "m"})
    horizon = 150

    def scene(self):
        import mujoco

        spec = self.table()
        ball = spec.worldbody.add_body(name="ball", mocap=True)
        ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[NEAR, 0, 0], rgba=[0.85, 0.35, 0.25, 1], **GHOST)
        return spec

    def reset(self, model, data, rng) -> None:
        self.put_home(model, data, rng)
        place, height = _around(rng), rng.uniform(0.03, 0.08)
        while np.linalg.norm(place - [0.168, 0.0]) < 0.05:  # where the hand begins
            place = _around(rng)
        data.mocap_pos[0] = *place, height

    def observe(self, model, data) -> dict[str, np.ndarray]:
        return {STATE: self.joints(model, data), SCENE: data.mocap_pos[0]}

    def place(self, model, data, states) -> None:
        super().place(model, data, states)
        data.mocap_pos[:] = states[SCENE].reshape(-1, 3)

    def success(self, model, data) -> bool:
        return bool(self._away(data) < NEAR)

    def progress(self, model, data) -> float:
        """1 at the ball, 0 from 0.25 m on."""
        return max(0.0, 1 - self._away(data) / 0.25)

    def _away(self, data) -> float:
        return float(np.linalg.norm(data.site(self.arm.hand).xpos - data.mocap_pos[0]))


@register_task("so101-pick-place")
class PickPlace(Tabletop):
    """Put the cube onto the disc and let go of it.

    State: 6 joint positions (rad). Scene: cube position (m) and 6-D rotation, middle of the disc x, y (m), all in the
    frame of the base. Success: the cube rests on the table within `INSIDE` of the middle, and no finger touches it.
    """

    embodiment = SO101.embodiment(RATE, CUBE_POSE | {"zone.x": "m", "zone.y": "m"})
    horizon = 450

    def scene(self):
        import mujoco

        spec = self.table()
        zone = spec.worldbody.add_body(name="zone", mocap=True)
        zone.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[ZONE, 0.0005, 0], rgba=[0.3, 0.62, 0.45, 1], **GHOST)
        cube = spec.worldbody.add_body(name="cube")
        cube.add_freejoint(name="cube")
        cube.add_geom(
            name="cube",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE / 2] * 3,
            mass=0.02,
            rgba=[0.78, 0.24, 0.2, 1],
            friction=[0.8, 0.01, 0.0002],
            condim=4,
            **OBJECT,
        )
        return spec

    def reset(self, model, data, rng) -> None:
        self.put_home(model, data, rng)
        cube, zone = _around(rng), _around(rng)
        while np.linalg.norm(cube - zone) < 0.08:
            zone = _around(rng)
        _lay(data, _start(model, "cube"), cube, CUBE / 2, rng.uniform(-np.pi, np.pi))
        data.mocap_pos[0] = *zone, 0.0005

    def observe(self, model, data) -> dict[str, np.ndarray]:
        cube = data.body("cube")
        scene = np.concatenate([cube.xpos, cube.xmat.reshape(3, 3)[:, :2].T.ravel(), data.mocap_pos[0, :2]])
        return {STATE: self.joints(model, data), SCENE: scene}

    def place(self, model, data, states) -> None:
        super().place(model, data, states)
        where, x, y, zone = np.split(states[SCENE].astype(float), [3, 6, 9])
        x = x / max(np.linalg.norm(x), 1e-6)  # what is read need be no rotation
        y = y - (x @ y) * x
        y = y / max(np.linalg.norm(y), 1e-6)
        import mujoco

        turn, start = np.zeros(4), _start(model, "cube")
        mujoco.mju_mat2Quat(turn, np.column_stack([x, y, np.cross(x, y)]).ravel())
        data.qpos[start : start + 7] = *where, *turn
        data.mocap_pos[0] = *zone, 0.0005

    def success(self, model, data) -> bool:
        return self.placed(data) and not self.touched(model, data) and _speed(model, data, "cube") < 0.02

    def placed(self, data) -> bool:
        """Whether the cube is down and within `INSIDE` of the middle of the disc."""
        cube = data.body("cube").xpos
        return bool(np.linalg.norm(cube[:2] - data.mocap_pos[0, :2]) < INSIDE and cube[2] < CUBE / 2 + 0.003)

    def touched(self, model, data) -> bool:
        """Whether any part of the arm touches the cube."""
        cube = model.geom("cube").id
        pairs = data.contact.geom
        others = pairs[(pairs == cube).any(1)].ravel()
        return bool((model.geom_contype[others] == 1).any())

    def progress(self, model, data) -> float:
        """A third for the hand at the cube, two thirds for the cube at the disc."""
        cube, hand = data.body("cube").xpos, data.site(self.arm.hand).xpos
        away = np.linalg.norm(cube - [*data.mocap_pos[0, :2], CUBE / 2])
        return float((1 - np.tanh(8 * np.linalg.norm(cube - hand))) / 3 + 2 * (1 - np.tanh(8 * away)) / 3)


@register_task("so101-pusht")
class StickPushT(Tabletop):
    """Push the T onto its goal with the stick in the hand.

    State: 6 joint positions (rad). Scene: T x, y (m) and cos, sin of its angle, in the frame of the base. The origin of
    the T is the middle of the upper edge of its bar, its stem points along its -y. Success: `COVERED` of the goal.
    """

    embodiment = SO101.embodiment(RATE, {"t.x": "m", "t.y": "m", "t.cos": "1", "t.sin": "1"})
    horizon = 600
    home = (0.0, -0.75, 0.7, 1.55, 0.0, 0.0)

    def scene(self):
        import mujoco

        spec = self.table()
        capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
        stick = dict(type=capsule, size=[STICK, 0, 0], rgba=[0.2, 0.4, 0.75, 1], density=0)
        tip = np.array(STICK_TIP)
        ends = spec.site(self.arm.hand).pos + [tip - [0.075, 0, 0], tip - [STICK, 0, 0]]
        spec.body("gripper").add_geom(name="stick", fromto=ends.ravel(), contype=1, conaffinity=0, **stick)
        spec.geom("stick").friction = [0.2, 0.005, 0.0001]

        # goal and T, of the same boxes
        goal = spec.worldbody.add_body(name="goal", pos=[*GOAL[:2], 0], quat=_turned(GOAL[2]))
        block = spec.worldbody.add_body(name="t")
        block.add_freejoint(name="t")
        whole = sum(half[0] * half[1] for _, half in T_BOXES)
        for centre, half in T_BOXES:
            box = dict(type=mujoco.mjtGeom.mjGEOM_BOX)
            goal.add_geom(pos=[*centre, 0.0004], size=[*half, 0.0004], rgba=[0.55, 0.82, 0.55, 1], **box, **GHOST)
            area = half[0] * half[1] / whole
            block.add_geom(
                pos=[*centre, 0],
                size=[*half, T_HEIGHT / 2],
                mass=0.05 * area,
                rgba=[0.45, 0.5, 0.58, 1],
                **box,
                **OBJECT,
            )
        return spec

    def reset(self, model, data, rng) -> None:
        self.put_home(model, data, rng)
        while True:
            middle, angle = rng.uniform([0.19, -0.08], [0.26, 0.08]), rng.uniform(-np.pi, np.pi)
            place = middle + T_MIDDLE * np.array([-np.sin(angle), np.cos(angle)])
            if coverage(place, angle) < 0.5:
                break
        _lay(data, _start(model, "t"), place, T_HEIGHT / 2, angle)

    def observe(self, model, data) -> dict[str, np.ndarray]:
        place, angle = self.block(model, data)
        return {STATE: self.joints(model, data), SCENE: np.array([*place, np.cos(angle), np.sin(angle)])}

    def place(self, model, data, states) -> None:
        super().place(model, data, states)
        x, y, cos, sin = states[SCENE].tolist()
        _lay(data, _start(model, "t"), np.array([x, y]), T_HEIGHT / 2, np.arctan2(sin, cos))

    def block(self, model, data) -> tuple[np.ndarray, float]:
        """Origin (2,) m and angle (rad) of the T on the table."""
        body = data.body("t")
        return body.xpos[:2].copy(), float(np.arctan2(body.xmat[3], body.xmat[0]))

    def success(self, model, data) -> bool:
        return coverage(*self.block(model, data)) > COVERED

    def progress(self, model, data) -> float:
        return min(1.0, coverage(*self.block(model, data)) / COVERED)


# (centre, half size) in m of the bar and the stem, in the frame of the T
T_BOXES = (
    (np.array([0.0, -15.0]) * SCALE, np.array([60.0, 15.0]) * SCALE),
    (np.array([0.0, -75.0]) * SCALE, np.array([15.0, 45.0]) * SCALE),
)
T_AREA = sum(4 * half[0] * half[1] for _, half in T_BOXES)  # m^2
T_MIDDLE = -sum(4 * half[0] * half[1] * centre[1] for centre, half in T_BOXES) / T_AREA  # m, edge to centre of mass


def coverage(place: np.ndarray, angle: float) -> float:
    """Part of the goal, 0..1, that a T at `place` (2,) m with `angle` rad covers; from points 1 mm apart."""
    return _covered(float(place[0]), float(place[1]), float(angle))


@lru_cache(64)  # a step asks for success and for progress, of one pose
def _covered(x: float, y: float, angle: float) -> float:
    points = _goal_points() - np.array([x, y])
    cosine, sine = np.cos(angle), np.sin(angle)
    inside = points @ np.array([[cosine, -sine], [sine, cosine]])
    hit = [(np.abs(inside - centre) <= half).all(1) for centre, half in T_BOXES]
    return float(np.logical_or(*hit).mean())


@cache
def _goal_points() -> np.ndarray:
    """(n, 2) m, points that fill the goal evenly."""
    cosine, sine = np.cos(GOAL[2]), np.sin(GOAL[2])
    points = [centre + _grid(half) for centre, half in T_BOXES]
    return np.concatenate(points) @ np.array([[cosine, sine], [-sine, cosine]]) + GOAL[:2]


def _grid(half: np.ndarray, step: float = 0.001) -> np.ndarray:
    counts = np.round(2 * half / step).astype(int)
    axes = [(np.arange(n) + 0.5) / n * 2 * h - h for n, h in zip(counts, half, strict=True)]
    return np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)


def _around(rng: np.random.Generator) -> np.ndarray:
    """(2,) m, a place on the table that the hand reaches pointing down, also above it."""
    reach, angle = rng.uniform(0.14, 0.21), rng.uniform(-0.9, 0.9)
    return PAN + reach * np.array([np.cos(angle), np.sin(angle)])


def _lay(data, start: int, place: np.ndarray, height: float, angle: float) -> None:
    """Write the pose of a free body whose qpos begins at `start`."""
    data.qpos[start : start + 7] = *place, height, *_turned(angle)


def _start(model, joint: str) -> int:
    return int(model.joint(joint).qposadr[0])


def _speed(model, data, joint: str) -> float:
    start = int(model.joint(joint).dofadr[0])
    return float(np.linalg.norm(data.qvel[start : start + 3]))


def _turned(angle: float) -> list[float]:
    """Quaternion of a turn about z."""
    return [np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)]
