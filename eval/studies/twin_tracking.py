"""How near a digital twin stays to what its cameras see, by the way it is corrected, over 30 s of pushing.

    understudy study twin_tracking --out OUT.json

"Real" is a second MuJoCo world of PushT: the block is heavier, its centre of mass is elsewhere, friction and damping
differ, it moves one tick later, its cameras have noise, other colours and a delay and are not quite where the twin
believes, and things that the twin does not know move about the block. The twin gets the same commands and
the pictures of two cameras, nothing else. A script pushes the real block about, again and again from another side. All
ways of correction follow the same recordings.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...hardware.twin.align import Aligner, AlignSettings
from ...hardware.twin.bodies import body_poses
from ...hardware.twin.build import Build, build
from ...hardware.twin.gaussians import Camera
from ...hardware.twin.scene import TwinScene, put_cameras
from ...hardware.twin.splatting.views import Photographer
from ...sim.pusht.expert import centre_of_mass, waypoint
from ...sim.pusht.plan import OUTLINE, RADIUS
from ...sim.pusht.pusht import CENTRE, PushT, block_pose, to_metres, to_px, turned
from ..ledger.study import Study
from ..statistics.intervals import Interval

if TYPE_CHECKING:
    import mujoco

RATE = 60.0  # Hz, ticks
GO, PUSH = 260.0, 110.0  # px/s, how fast the script moves the pusher to the block, and with it
RUN_UP, BACK = 12.0, 30.0  # px before a push and after it
FAR = 90.0  # px from the table's middle from where on pushes lead back
STRANGERS = ((0.8, 0.6, 0.5, 1.0), (0.35, 0.4, 0.45, 1.0))  # colours: skin, and a grey near the block's
TREMBLE = 15  # ticks of the moving mean that oscillation is measured against
PUBLISHED = 4.0  # N/m, kp of Real-is-Sim
COLUMNS = (
    "correction", "solver", "iterations", "gain", "kp, N/m", "translation, cm", "yaw, deg", "longest, cm",
    "times nearer than open loop", "oscillation, mm", "CPU, ms a tick",
)  # fmt: skip


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
    offset: tuple[float, float, float] = (0.04, 0.0, -0.02)
    misplaced: float = 0.002  # m, standard deviation of each coordinate of a camera's place
    misaimed: float = 0.002  # rad, the same of its turns
    strangers: int = 2  # things that move about the block and that the twin does not know

    def __post_init__(self) -> None:
        rest = self.friction, self.stiction, self.noise, self.lag, self.delay, self.misplaced, self.misaimed
        if min(self.damping, self.mass) <= 0 or min(*rest, self.strangers) < 0:
            raise ValueError("reality: damping and mass must be positive, the others not negative")


@dataclass(frozen=True, kw_only=True)
class TwinTracking:
    """Follow recordings of pushing with every way of correction."""

    seeds: int = 10  # recordings
    seconds: float = 30.0  # of each
    size: int = 96  # px, side of the pictures
    gaussians: int = 300  # on the block
    iterations: tuple[int, ...] = (1, 3, 7)  # drawings of each camera in a tick
    kps: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 128.0, 256.0)  # N/m, tried with mask+se3 and 3 iterations
    reality: Reality = field(default_factory=Reality)  # how it differs
    seed: int = 0  # the first recording's
    out: Path  # file of the study

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.seconds < 1:
            raise ValueError("seeds must be 2 or more, for an interval; seconds 1 or more")

    def run(self) -> None:
        from ...configs.command import command_of

        command = command_of(self, "study twin_tracking", without=("out",))
        rows, notes = table(self)
        study = Study(title="Tracking by the digital twin", command=command, columns=COLUMNS, rows=rows, notes=notes)
        print(study.markdown())
        print(study.write(self.out))


def table(settings: TwinTracking) -> tuple[list[tuple], tuple[str, ...]]:
    """Rows of `COLUMNS` and what a reader must know."""
    from ...configs.progress import Progress

    scene = build(
        Build(
            scene="pusht-mujoco",
            size=(settings.size, settings.size),
            gaussians=settings.gaussians,
            distance=0.75,
        )
    )
    ways = [None, *ways_of(settings)]
    tracks: list[list[Track]] = [[] for _ in ways]
    with Progress("tracking", settings.seeds * len(ways), "runs") as shown:
        for seed in range(settings.seed, settings.seed + settings.seeds):
            take = record(scene, settings.reality, settings.seconds, seed)
            for way, found in zip(ways, tracks, strict=True):
                found.append(follow(scene, take, way))
                shown.update(sum(map(len, tracks)))
    rows = [row(way, found, tracks[0]) for way, found in zip(ways, tracks, strict=True)]
    return rows, notes_of(settings, scene)


def ways_of(settings: TwinTracking) -> Iterator[AlignSettings]:
    """All that is compared, but for open loop."""
    for iterations in settings.iterations:
        yield AlignSettings(mode="gaussian", iterations=iterations)
        yield AlignSettings(mode="mask", iterations=iterations)
        yield AlignSettings(mode="mask+se3", iterations=iterations, solver="adam")
        yield AlignSettings(mode="mask+se3", iterations=iterations)
    yield AlignSettings(mode="gaussian", kp=PUBLISHED)
    for kp in settings.kps:
        yield AlignSettings(mode="mask+se3", kp=kp)


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


@dataclass(frozen=True, eq=False)
class Track:
    """What a twin did: errors (T,) in m and in rad, their oscillation in m, and processor time in s of each tick."""

    away: np.ndarray
    turned: np.ndarray
    oscillation: float
    cpu: np.ndarray


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


def follow(scene: TwinScene, take: Take, settings: AlignSettings | None) -> Track:
    """The twin, told the commands of a recording and shown its pictures; not corrected without settings."""
    import mujoco

    model = scene.spec().compile()
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = take.start, take.start[3:5]
    mujoco.mj_forward(model, data)
    aligner = None if settings is None else Aligner.of(scene, settings)
    ids = np.array([model.body(name).id for name in scene.gaussians.bodies])

    poses, found, cpu = [], [], []
    for tick, command in enumerate(take.commands):
        data.ctrl[:] = command
        advance(model, data, (tick + 1) / RATE)
        data.xfrc_applied[:] = 0
        poses.append(body_poses(data, ids))
        found.append(data.qpos[:3].copy())
        shown = tick - take.delay
        if aligner is not None and shown >= 0:
            begun = time.process_time()
            images = {name: film[shown] for name, film in take.pictures.items()}
            aligner.correct(model, data, images, poses=poses[shown]).apply(data)
            cpu.append(time.process_time() - begun)
    return score(np.array(found), take.truth, np.array(cpu or [0.0]))


def score(found: np.ndarray, truth: np.ndarray, cpu: np.ndarray) -> Track:
    """Errors of block poses (T, 3)."""
    error = found - truth
    error[:, 2] = (error[:, 2] + np.pi) % (2 * np.pi) - np.pi
    kernel = np.ones(TREMBLE) / TREMBLE
    smooth = np.stack([np.convolve(error[:, axis], kernel, "valid") for axis in (0, 1)], 1)
    inner = error[TREMBLE // 2 : TREMBLE // 2 + len(smooth), :2]
    oscillation = float(np.sqrt(((inner - smooth) ** 2).sum(1).mean()))
    return Track(np.linalg.norm(error[:, :2], axis=1), np.abs(error[:, 2]), oscillation, cpu)


def row(way: AlignSettings | None, tracks: Sequence[Track], open_loop: Sequence[Track]) -> tuple:
    """The cells of `COLUMNS`."""
    away = [track.away.mean() for track in tracks]
    ratio = float(np.mean([track.away.mean() for track in open_loop]) / np.mean(away))
    longest = max(track.away.max() for track in tracks)
    named = ("open loop", None, None, None, None) if way is None else named_cells(way)
    return (
        *named,
        interval(100 * np.array(away)),
        interval(np.rad2deg([track.turned.mean() for track in tracks])),
        round(float(100 * longest), 2),
        round(ratio, 1),
        round(1000 * float(np.mean([track.oscillation for track in tracks])), 3),
        round(1000 * float(np.mean([np.median(track.cpu) for track in tracks])), 2),
    )


def named_cells(way: AlignSettings) -> tuple:
    """Of a way of correction."""
    solver = way.solver if way.mode == "mask+se3" else "adam"
    return way.mode, solver, way.iterations, None if way.kp else way.gain, way.kp or None


def interval(values: np.ndarray) -> Interval:
    """Student's t, 95 %, of the mean of values that have no upper bound."""
    from scipy.stats import t

    values = np.asarray(values, float)
    half = t.isf(0.025, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(max(0.0, values.mean() - half)), float(values.mean()), float(values.mean() + half))


def notes_of(settings: TwinTracking, scene: TwinScene) -> tuple[str, ...]:
    """What was done, in sentences."""
    cameras = len(scene.cameras)
    return (
        f"{settings.seeds} recordings of {settings.seconds:g} s at {RATE:g} Hz, seeds from {settings.seed}; all ways "
        f"follow the same; means over ticks, and 95 % intervals (Student's t) over recordings",
        f"{cameras} cameras of {settings.size} x {settings.size} px; {len(scene.gaussians)} Gaussians; the twin sees "
        "pictures and commands only",
        f"Real is PushT in MuJoCo with: {settings.reality}",
        "Oscillation: root mean square of the error of translation beside its moving mean over a quarter of a second",
        "CPU: processor time of the correction alone, median over ticks",
    )
