"""Tasks of our own in plain MuJoCo: what a task must say, their registry, and the lane that runs them.

World type `mujoco`; a registered task is a world of the same name. `TaskEnv` owns time, seeding and drawing, so that a
task is a scene and a few functions of (model, data). Robosuite's tasks are in `robosuite/suite.py`.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ..configs.lanes.lane import Lane
from ..configs.machine import versions
from ..configs.plugins import discover, lookup
from ..configs.protocols import keeps
from ..configs.spec import IMAGES, Embodiment
from ..configs.world import World, register_world
from .decor import Decor, add_decor
from .experts import expert_action
from .rendering import renderer_class

if TYPE_CHECKING:
    import mujoco

PICTURE = 256  # px, side of a film picture


@dataclass(frozen=True)
class Viewpoint:
    """From where a film shows a scene, where none of its cameras shows all that matters."""

    at: tuple[float, float, float]  # m, what is in the middle
    distance: float  # m
    azimuth: float  # degrees
    elevation: float  # degrees


@runtime_checkable
class Seen(Protocol):
    """A task whose films have a viewpoint of their own."""

    viewpoint: Viewpoint


class Task(Protocol):
    """One task. Attributes are constants of the task; the functions see the compiled model and the data of one lane."""

    embodiment: Embodiment  # without cameras
    horizon: int  # control steps
    cameras: tuple[str, ...]  # names of the cameras in the scene; films use the first

    def scene(self) -> mujoco.MjSpec:
        """The scene, with a timestep that divides the control period."""
        ...

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Write a start into freshly reset `data`."""
        ...

    def observe(self, model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
        """`observation.state` and, where offered, `observation.environment_state`."""
        ...

    def control(self, model: mujoco.MjModel, data: mujoco.MjData, action: np.ndarray) -> None:
        """Write `data.ctrl` for the next control step."""
        ...

    def rest(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """The action (D,) that stays where it is."""
        ...

    def success(self, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
        """Whether the task is done now."""
        ...

    def progress(self, model: mujoco.MjModel, data: mujoco.MjData) -> float:
        """How far the task is, 0..1; also the reward."""
        ...


@runtime_checkable
class Controlled(Protocol):
    """A task whose controls are more than a function of one action."""

    @abstractmethod
    def controls(self, data: mujoco.MjData, actions: np.ndarray) -> np.ndarray:
        """What actions (T, D) write into `data.ctrl` (nu,), n times in each control step: (T, n, nu)."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A task whose scene can be put where state vectors say that it is, to be drawn, and to be judged by its rules.

    What its rules ask for must then follow from these vectors: a task that remembers is none.
    """

    @abstractmethod
    def place(self, model: mujoco.MjModel, data: mujoco.MjData, states: Mapping[str, np.ndarray]) -> None:
        """Write what `observe` would give as `states`; all of its keys are there."""
        ...


TASKS: dict[str, Callable[[], Task]] = {}


def register_task(name: str):
    """Class decorator: the task's name, which is also the name of its world. A name given twice is an error."""

    def register(task: Callable[[], Task]):
        register_world(name, MuJoCoWorld(task=name))
        TASKS[name] = task
        return task

    return register


@World.register_subclass("mujoco")
@dataclass(frozen=True, kw_only=True)
class MuJoCoWorld(World):
    """A registered task in plain MuJoCo."""

    def find(self) -> Task:
        """The task. Raises LookupError for an unknown task or camera."""
        discover("sim")
        task = lookup("task", self.task, TASKS)()
        for name in self.cameras:
            lookup(f"camera of {self.task}", name, dict.fromkeys(task.cameras))
        return task

    def embodiment(self) -> Embodiment:
        return self.find().embodiment.with_cameras(self.cameras)

    def lane(self) -> TaskEnv:
        return TaskEnv(self, self.find())

    def steps(self) -> int:
        return self.horizon or self.find().horizon

    def views(self) -> tuple[str, ...]:
        return tuple(self.find().cameras)

    def fingerprint(self) -> dict:
        import hashlib

        scene = hashlib.sha256(self.find().scene().to_xml().encode()).hexdigest()[:16]
        settings = {"type": "mujoco", "horizon": self.steps(), "scene": scene, "versions": versions("mujoco")}
        return dataclasses.asdict(self) | settings


class TaskEnv(Lane):
    """One copy of a task: reset(seed=s) draws its start from `default_rng(s)`."""

    def __init__(self, world: MuJoCoWorld, task: Task):
        super().__init__(world)
        import mujoco

        self.task, self._name = task, world.task
        self.model = task.scene().compile()
        self.data = mujoco.MjData(self.model)
        self._substeps = _substeps(self.embodiment.rate, self.model.opt.timestep)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self.decor: tuple[Decor, ...] = ()

    def begin(self, seed: int, options: dict) -> None:
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self.task.reset(self.model, self.data, np.random.default_rng(seed))
        mujoco.mj_forward(self.model, self.data)

    def act(self, action: np.ndarray) -> float:
        import mujoco

        self.task.control(self.model, self.data, action)
        mujoco.mj_step(self.model, self.data, self._substeps)
        mujoco.mj_forward(self.model, self.data)  # positions of bodies belong to the new state
        return self.judge()[1]

    def sense(self) -> dict[str, np.ndarray]:
        vectors = self.task.observe(self.model, self.data)
        images = {IMAGES + name: self._draw(name, *size) for name, size in self.embodiment.cameras.items()}
        return {key: np.array(value, np.float32) for key, value in vectors.items()} | images

    def draw(self, states: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """What the cameras see in a state, by their names; None of a task that cannot be put there. See `Placed`."""
        if not self._put(states):
            return None
        return {name: self._draw(name, *size) for name, size in self.embodiment.cameras.items()}

    def score(self, states: Mapping[str, np.ndarray]) -> tuple[bool, float] | None:
        """Success and progress of a state in which everything stands still; None as of `draw`."""
        return self.judge() if self._put(states) else None

    def _put(self, states: Mapping[str, np.ndarray]) -> bool:
        """Put the scene where state vectors say that it is, if the task can; what is simulated is lost."""
        import mujoco

        vectors = {key for key in self.embodiment.offers() if not key.startswith(IMAGES)}
        if not keeps(self.task, Placed) or vectors - set(states):
            return False
        mujoco.mj_resetData(self.model, self.data)
        self.task.place(self.model, self.data, states)
        mujoco.mj_forward(self.model, self.data)
        return True

    def judge(self) -> tuple[bool, float]:
        success = bool(self.task.success(self.model, self.data))
        return success, 1.0 if success else min(float(self.task.progress(self.model, self.data)), 0.99)

    def rest(self) -> np.ndarray:
        return np.asarray(self.task.rest(self.model, self.data), np.float32)

    def render(self) -> np.ndarray:
        view = _free(self.task.viewpoint) if keeps(self.task, Seen) else self.task.cameras[0]
        return self._draw(view, PICTURE, PICTURE)

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the task's scripted demonstrator does now, see `experts.py`."""
        return expert_action(self._name, self, noise)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _draw(self, camera: str | mujoco.MjvCamera, height: int, width: int) -> np.ndarray:
        size = (height, width)
        if size not in self._renderers:
            self._renderers[size] = renderer_class()(self.model, height, width)
        self._renderers[size].update_scene(self.data, camera)
        add_decor(self._renderers[size].scene, self.decor)
        return self._renderers[size].render()


def _free(view: Viewpoint) -> mujoco.MjvCamera:
    import mujoco

    camera = mujoco.MjvCamera()
    camera.lookat[:] = view.at
    camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth, view.elevation
    return camera


def _substeps(rate: float, timestep: float) -> int:
    substeps = round(1 / (rate * timestep))
    if abs(substeps * timestep * rate - 1) > 1e-6:
        raise ValueError(f"timestep {timestep} s does not divide the control period {1 / rate} s")
    return substeps
