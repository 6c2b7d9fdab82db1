"""A stand-in for reality: a second MuJoCo world that is other than the twin, and shows itself only as an arm does.

Friction, mass, damping, latency, camera noise and colours differ, and things stand about that the twin does not know.
It is reached through joint commands, joint echo and pictures alone: a `Robot` with cameras, whose time is simulated
(`advance`), so that equal seeds give equal runs. What an experimenter would measure with a ruler, `truth` tells; the
loop never asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....configs.rng import rng_of
from ....configs.spec import IMAGES, STATE, Embodiment, Mode
from ....configs.world import World
from ....sim.decor import Decor, movable_bodies, movable_joints, scatter
from ....sim.perturb import scale_mass
from ...robot import Robot
from ..gaussians import Camera
from .faults import Fault, Faults
from .layout import Joints, View, scene_of, task_of
from .studio import Pictures, Shot, Studio

if TYPE_CHECKING:
    import mujoco

TURN = 2 * np.pi / 4096  # rad, what an encoder tells apart
KEPT = 64  # pictures and readings that may be on their way
PAST = 20_000  # poses that `history` keeps


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How a stand-in differs from the twin's world. Factors are of what movable objects have there."""

    friction: float = 1.4  # factor, of the contacts of everything
    mass: float = 1.3  # factor
    damping: float = 0.8  # factor, of the joints that nothing drives
    command_delay: float = 0.008  # s from a command to the servos
    camera_delay: float = 0.02  # s from the exposure to the picture
    fps: float = 60.0  # pictures a second
    noise: float = 4.0  # grey levels, standard deviation of each pixel
    gain: tuple[float, float, float] = (0.92, 1.0, 1.06)  # of red, green, blue
    offset: tuple[float, float, float] = (6.0, 0.0, -4.0)  # grey levels, of red, green, blue
    distractors: int = 1  # things that stand about
    faults: tuple[Fault, ...] = ()  # what goes wrong, see faults.py

    def __post_init__(self) -> None:
        for name in ("friction", "mass", "damping", "fps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a stand-in must be positive, got {getattr(self, name)}")
        for name in ("command_delay", "camera_delay", "noise", "distractors"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of a stand-in must not be negative, got {getattr(self, name)}")

    def seen(self, picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """A picture (h, w, 3) uint8 as a camera has it: other colours, and noise."""
        found = picture * np.array(self.gain, float) + np.array(self.offset, float)
        found += self.noise * draw.standard_normal(found.shape, np.float32)
        return np.clip(np.rint(found, found), 0, 255, found).astype(np.uint8)


SAME = Changes(friction=1, mass=1, damping=1, command_delay=0, camera_delay=0, noise=0, gain=(1, 1, 1),
               offset=(0, 0, 0), distractors=0)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What only a stand-in can tell: joint positions (nq,), and whether and how far the task is done."""

    qpos: np.ndarray
    success: bool
    progress: float


class StandIn(Robot):
    """One stand-in. Its embodiment takes absolute positions of the joints that the twin's actuators drive.

    Args:
        world: a task in plain MuJoCo; its own settings may differ from the twin's, too.
        cameras: name -> (height, width) px, of `views` or of the scene.
        rate: commands a second, which the embodiment states.
        apart: draw pictures in a thread of its own, for one that lives by the clock.
    """

    def __init__(
        self,
        world: World,
        changes: Changes,
        cameras: Mapping[str, tuple[int, int]],
        views: Mapping[str, View | Camera],
        rate: float = 60.0,
        seed: int = 0,
        apart: bool = False,
    ):
        import mujoco

        self.changes, self.seed, self.rate = changes, seed, rate
        self.task = task_of(world)
        self.model = scene_of(self.task, views).compile()
        alter(self.model, changes)
        self.data = mujoco.MjData(self.model)
        self.joints = Joints.of(self.model)
        self._bodies = movable_bodies(self.model)
        self._sizes = dict(cameras)
        self._studio = Studio(self.model, self._sizes, changes.seen, apart)
        self._faults = Faults((), tuple(cameras), seed)
        self.begin(0)

    @property
    def embodiment(self) -> Embodiment:  # type: ignore[override]
        """Joint targets in, joint positions out."""
        return Embodiment(
            name=f"stand-in {self.model.names[: self.model.names.index(0)].decode() or 'scene'}",
            action=self.joints.names,
            action_units=self.joints.units,
            limits=self.joints.limits,
            rate=self.rate,
            mode=Mode.absolute,
            frame="joint",
            state=self.joints.names,
            state_units=self.joints.units,
            cameras=self._sizes,
        )

    def begin(self, start: int) -> None:
        """Put everything at start `start` of the task; time begins anew."""
        import mujoco

        self._studio.finish()
        self._faults.end()
        mujoco.mj_resetData(self.model, self.data)
        self.task.reset(self.model, self.data, np.random.default_rng(start))
        mujoco.mj_forward(self.model, self.data)
        count, draw = self.changes.distractors, rng_of(self.seed, 1, start)
        self.decor: tuple[Decor, ...] = scatter(self.model, self.data, draw, count) if count else ()

        self._start, self._frame = start, 0
        self._faults = Faults(self.changes.faults, tuple(self._sizes), self.seed)
        self._commands: deque[tuple[float, np.ndarray]] = deque()
        self._pictures: deque[tuple[float, float, Pictures]] = deque(maxlen=KEPT)
        self._echoes: deque[tuple[float, float, np.ndarray]] = deque(maxlen=KEPT)
        self._newest: tuple[float, Pictures] = (-np.inf, {})
        self._heard: tuple[float, np.ndarray] = (0.0, self._read())
        self._past: deque[tuple[float, np.ndarray]] = deque([(0.0, self.data.qpos.copy())], maxlen=PAST)
        self._expose()

    @property
    def time(self) -> float:
        """s since the start of the episode."""
        return float(self.data.time)

    def connect(self) -> None:
        """See `Robot`."""

    def disconnect(self) -> None:
        """See `Robot`."""
        self._studio.close()

    def send_action(self, action: np.ndarray) -> np.ndarray:
        """See `Robot`. The servos get it after the latency."""
        if not self._faults.lost(self.time):
            arrives = self.time + self.changes.command_delay + self._faults.latency(self.time)
            self._commands.append((arrives, np.array(action, float)))
        return np.asarray(action, np.float32)

    def get_observation(self) -> Mapping[str, np.ndarray]:
        """See `Robot`."""
        return self.observe()[0]

    def observe(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The newest that has arrived, and when each part was captured, s on this stand-in's clock."""
        while self._echoes and self._echoes[0][1] <= self.time + 1e-9:
            self._heard = (self._echoes[0][0], self._echoes.popleft()[2])
        while self._pictures and self._pictures[0][1] <= self.time + 1e-9:
            captured, _, drawn = self._pictures.popleft()
            self._newest = (captured, drawn)
        found: dict[str, np.ndarray] = {STATE: self._heard[1].astype(np.float32)}
        times = {STATE: self._heard[0]}
        for name, picture in self._newest[1].items():
            found[IMAGES + name], times[IMAGES + name] = picture, self._newest[0]
        return found, times

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        import mujoco

        end = self.data.time + seconds
        while self.data.time < end - self.model.opt.timestep / 2:
            while self._commands and self._commands[0][0] <= self.data.time + 1e-9:
                self.data.ctrl[self.joints.ctrl] = self._commands.popleft()[1]
            self._faults.touch(self.model, self.data, self._bodies.tolist(), self.time)
            mujoco.mj_step(self.model, self.data)
            if self.data.time >= self._frame / self.changes.fps - 1e-9:
                mujoco.mj_kinematics(self.model, self.data)
                self._expose()
        self._tell()
        self._past.append((self.time, self.data.qpos.copy()))

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """What the loop does not see: times (T,) s, and joint positions (T, nq) of this episode."""
        times, values = zip(*self._past, strict=True)
        return np.array(times), np.array(values)

    def truth(self) -> Truth:
        """What the loop does not see."""
        import mujoco

        mujoco.mj_forward(self.model, self.data)
        success = bool(self.task.success(self.model, self.data))
        progress = 1.0 if success else min(float(self.task.progress(self.model, self.data)), 0.99)
        return Truth(self.data.qpos.copy(), success, progress)

    # -- what goes out

    def _read(self) -> np.ndarray:
        """(D,) joint positions as an encoder has them; a linear joint's are exact to 0.1 mm."""
        values = self.data.qpos[self.joints.qpos]
        step = np.array([TURN if unit == "rad" else 1e-4 for unit in self.joints.units])
        return np.rint(values / step) * step

    def _tell(self) -> None:
        """The joint echo of now, on its way."""
        if not self._faults.lost(self.time):
            self._echoes.append((self.time, self.time + self._faults.latency(self.time), self._read()))

    def _expose(self) -> None:
        """Pictures of now, on their way."""
        self._tell()
        number, self._frame = self._frame, self._frame + 1
        if self._faults.lost(self.time) or not self._sizes:
            return
        late = self.changes.camera_delay + self._faults.latency(self.time)
        captured, arrives, pictures = self.time, self.time + late, self._pictures
        shot = Shot(
            seed=(self.seed, 2, self._start, number),
            covered=frozenset(name for name in self._sizes if self._faults.covered(name, self.time)),
            moved={name: self._faults.moved(name, self.time) for name in self._sizes},
            decor=self.decor,
        )
        self._studio.take(shot, self.model, self.data, lambda drawn: pictures.append((captured, arrives, drawn)))


def alter(model: mujoco.MjModel, changes: Changes) -> None:
    """Give a model the friction, mass and damping of `changes`."""
    dofs = movable_joints(model)
    model.geom_friction *= changes.friction
    model.pair_friction *= changes.friction
    model.dof_frictionloss[dofs] *= changes.friction
    model.dof_damping[dofs] *= changes.damping
    if changes.mass != 1:
        scale_mass(model, changes.mass)
