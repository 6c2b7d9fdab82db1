"""Recordings for `twin_tracking`: a script pushes a block about in another world than the twin's, two cameras film it.

That world is PushT in MuJoCo with other physics, cameras and colours, and with things that the twin does not know.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...hardware.twin.gaussians import Camera
from ...hardware.twin.scene import TwinScene, put_cameras
from ...hardware.twin.splatting.views import Photographer
from ...sim.pusht.expert import centre_of_mass, waypoint
from ...sim.pusht.plan import OUTLINE, RADIUS
from ...sim.pusht.pusht import CENTRE, PushT, block_pose, to_metres, to_px, turned

if TYPE_CHECKING:
    import mujoco

RATE = 60.0  # Hz, ticks
GO, PUSH = 260.0, 110.0  # px/s, how fast the script moves the pusher to the block, and with it
RUN_UP, BACK = 12.0, 30.0  # px before a push and after it
FAR = 90.0  # px from the table's middle from where on pushes lead back
STRANGERS = ((0.8, 0.6, 0.5, 1.0), (0.35, 0.4, 0.45, 1.0))  # colours: skin, and a grey near the block's


@dataclass(frozen=True, kw_only=True)
class Reality:
    """How the world that is called real differs from the twin's. Raises ValueError: numbers that are no world's."""

    damping: float = 0.6  # factor, of the block on the table
    mass: float = 1.4  # factor, of the block; its inertia too
    shift: tuple[float, float] = (0.004, -0.006)  # m, of the block's centre of mass
    friction: float = 0.4  # between pusher and block; the twin has none
    stiction: float = 6.0  # N, that the table holds the block with
    lag: int = 1  # ticks that commands reach it later
    delay: int = 1  # ticks from exposure to picture
    noise: float = 0.02  # of a channel, 0..1
    gain: tuple[float, float, float] = (0.9, 1.0, 0.95)  # of red, green, blue
    offset: tuple[float, float, float] = (0.04, 0.0, -0.02)  # added to red, green, blue after that
    misplaced: float = 0.002  # m, standard deviation of each coordinate of a camera's place
    misaimed: float = 0.002  # rad, the same of its turns
    strangers: int = 2  # things that move about the block and that the twin does not know

    def __post_init__(self) -> None:
        rest = self.friction, self.stiction, self.noise, self.lag, self.delay, self.misplaced, self.misaimed
        if min(self.damping, self.mass) <= 0 or min(*rest, self.strangers) < 0:
            raise ValueError("reality: damping and mass must be positive, the others not negative")


@dataclass(frozen=True, eq=False)
class Take:
    """One recording of T ticks.

    Args:
        commands: (T, 2) m, where the pusher shall be.
        pictures: camera -> (T, h, w, 3) uint8, exposed at the end of each tick.
        truth: (T, 3) the block then: m, m, rad.
        start: (nq,) joint positions before the first tick.
        delay: ticks from exposure to picture.
    """

    commands: np.ndarray
    pictures: dict[str, np.ndarray]
    truth: np.ndarray
    start: np.ndarray
    delay: int


def record(scene: TwinScene, reality: Reality, seconds: float, seed: int) -> Take:
    """Push the real block about and film it."""
    import mujoco

    rng = np.random.default_rng(seed)
    model = real_model(scene, reality, rng)
    data = mujoco.MjData(model)
    PushT().reset(model, data, rng)
    data.qpos[:2] *= 0.4  # nearer to the middle, where the script has room
    mujoco.mj_forward(model, data)

    begun, ticks = data.qpos.copy(), round(seconds * RATE)
    script, told = Script(rng), [data.ctrl.copy()] * (reality.lag + 1)
    commands, truth = [], []
    pictures: dict[str, list[np.ndarray]] = {camera.name: [] for camera in scene.cameras}
    with Photographer(model, scene.cameras) as photographer:
        for tick in range(ticks):
            told = [*told[1:], to_metres(script.target(data.qpos))]
            commands.append(told[-1])
            data.ctrl[:] = told[0]
            advance(model, data, (tick + 1) / RATE)
            wander(data, tick / RATE)
            truth.append(data.qpos[:3].copy())
            for name, film in pictures.items():
                film.append(expose(photographer.picture(data, name), reality, rng))
    films = {name: np.array(film) for name, film in pictures.items()}
    return Take(np.array(commands), films, np.array(truth), begun, reality.delay)


def real_model(scene: TwinScene, reality: Reality, rng: np.random.Generator) -> mujoco.MjModel:
    """The other world, with the twin's cameras in it, nearly."""
    import mujoco

    spec = PushT(friction=reality.friction).scene()
    put_cameras(spec, tuple(_shifted(camera, reality, rng) for camera in scene.cameras))
    for number in range(reality.strangers):
        stranger = spec.worldbody.add_body(name=f"stranger{number}", mocap=True)
        look = {"rgba": STRANGERS[number % len(STRANGERS)], "contype": 0, "conaffinity": 0}
        stranger.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.035, 0.02, 0.02], **look)
    model = spec.compile()
    body = model.body("block").id
    dofs = slice(0, 3)
    model.body_mass[body] *= reality.mass
    model.body_inertia[body] *= reality.mass
    model.body_ipos[body, :2] += reality.shift
    model.dof_damping[dofs] *= reality.damping * reality.mass
    arm = math.sqrt(model.body_inertia[body, 2] / model.body_mass[body])
    model.dof_frictionloss[dofs] = reality.stiction * np.array([1, 1, arm])
    return model


def _shifted(camera: Camera, reality: Reality, rng: np.random.Generator) -> Camera:
    from scipy.spatial.transform import Rotation

    pose = camera.world_from_camera.copy()
    pose[:3, 3] += reality.misplaced * rng.standard_normal(3)
    pose[:3, :3] = Rotation.from_rotvec(reality.misaimed * rng.standard_normal(3)).as_matrix() @ pose[:3, :3]
    return dataclasses.replace(camera, world_from_camera=pose)


def wander(data: mujoco.MjData, now: float) -> None:
    """Move the strangers round the block, now nearer and now farther, at `now` s."""
    import mujoco

    for number in range(len(data.mocap_pos)):
        angle = (0.5 + 0.2 * number) * now + 2.5 * number
        away = 0.13 + 0.03 * math.sin(0.9 * now + number)
        data.mocap_pos[number] = *(data.qpos[:2] + away * np.array([math.cos(angle), math.sin(angle)])), 0.02
        data.mocap_quat[number] = math.cos(angle / 2), 0, 0, math.sin(angle / 2)
    mujoco.mj_kinematics(data.model, data)


def expose(picture: np.ndarray, reality: Reality, rng: np.random.Generator) -> np.ndarray:
    """A picture as the real camera gives it, uint8."""
    seen = picture / 255.0 * reality.gain + reality.offset
    seen += reality.noise * rng.standard_normal(picture.shape)
    return np.clip(np.rint(seen * 255), 0, 255).astype(np.uint8)


def advance(model: mujoco.MjModel, data: mujoco.MjData, until: float) -> None:
    """Step the physics up to a time, s, and bring the positions of bodies up to date."""
    import mujoco

    steps = round((until - data.time) / model.opt.timestep)
    mujoco.mj_step(model, data, steps)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)


@dataclass
class Script:
    """Pushes the block from one side after the other, through its middle or past it; px, as gym-pusht has them."""

    rng: np.random.Generator
    begin: np.ndarray = field(default_factory=lambda: np.zeros(2))
    way: np.ndarray = field(default_factory=lambda: np.zeros(2))
    left: float = 0.0  # px of the push that are to come
    back: float = 0.0  # px of the way back
    phase: str = "choose"
    place: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))  # where the pusher is told to be
    next: np.ndarray = field(default_factory=lambda: np.zeros(2))
    wait: int = 0

    def target(self, qpos: np.ndarray) -> np.ndarray:
        """(2,) px, where the pusher shall be at the end of this tick."""
        pose, now = centre_of_mass(block_pose(qpos)), to_px(qpos[3:5])
        if np.isnan(self.place).any():
            self.place = now.copy()
        if self.phase == "choose":
            self._choose(pose)
            self.phase, self.wait = "go", 0
        if self.phase == "go":
            self._go(pose, now)
        elif self.phase == "push":
            self._move(self.way, PUSH)
            self.left -= PUSH / RATE
            if self.left <= 0:
                self.phase, self.left = "back", BACK
        else:
            self._move(-self.way, GO)
            self.left -= GO / RATE
            if self.left <= 0:
                self.phase = "choose"
        return self.place.copy()

    def _go(self, pose: np.ndarray, now: np.ndarray) -> None:
        if self.wait <= 0:
            self.next, self.wait = waypoint(pose, now, self.begin), 6
        self.wait -= 1
        step = self.next - self.place
        far = float(np.linalg.norm(step))
        self._move(step / max(far, 1e-9), min(GO, far * RATE))
        if np.linalg.norm(self.begin - now) < 4:
            self.phase = "push"

    def _move(self, way: np.ndarray, speed: float) -> None:
        self.place = np.clip(self.place + way * speed / RATE, 20, 492)

    def _choose(self, pose: np.ndarray) -> None:
        """A place on the outline and a direction, inward; towards the middle where the block is far from it."""
        outline = (OUTLINE - CENTRE) @ turned(pose[2]) + pose[:2]
        home = np.array([256.0, 256.0]) - pose[:2]
        best = -np.inf
        for _ in range(60):
            edge = self.rng.integers(len(outline))
            one, other = outline[edge], outline[(edge + 1) % len(outline)]
            along = (other - one) / np.linalg.norm(other - one)
            inward = np.array([-along[1], along[0]])
            contact = one + self.rng.uniform(0.15, 0.85) * (other - one)
            begin = contact - inward * (RADIUS + RUN_UP)
            free = (begin > 25).all() and (begin < 487).all()
            score = inward @ home * (np.linalg.norm(home) > FAR) + self.rng.uniform(0, 20)
            if free and score > best:
                best, self.begin, self.way = score, begin, inward
        if np.isinf(best):
            self.begin, self.way = np.array([256.0, 256.0]), np.array([1.0, 0.0])
        self.left = RUN_UP + self.rng.uniform(30, 80)
