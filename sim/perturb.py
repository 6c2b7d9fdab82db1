"""Disturbed versions of a world: light, camera pose, distractors, friction, mass and action latency, start by start.

World type `perturbed` wraps any world that runs on a MuJoCo model; of other simulators it takes only what they have.
What changes is drawn from (start id, name of the perturbation), so that start s is disturbed in the same way for every
policy and in every process. It is applied after the clean start was made and undone before the next one: start ids keep
their meaning, and a perturbed run joins with a clean one start by start. Ranges are of this file's own choosing, about
what changes between two days in one laboratory; `level` scales them. Distractors are seen and not touched.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..configs.lanes.lane import Lane
from ..configs.plugins import lookup
from ..configs.protocols import keeps
from ..configs.rng import rng_of
from ..configs.world import Around, World

if TYPE_CHECKING:
    import mujoco

VERSION = 1  # of the ranges below; part of the fingerprint
BRIGHTNESS = (0.55, 1.2)  # light: all intensities; much above 1 white things are washed out
TINT = 0.15  # light: relative change of each colour channel
LAMP = 0.5  # m, light: how far a lamp moves along each axis
SHIFT, SHIFT_IN_HAND = 0.02, 0.01  # m, camera: along each axis; of a camera that rides on a moving body
TURN = math.radians(2)  # camera: turn about each axis
FRICTION = MASS = (1 / 1.5, 1.5)  # factors
LATENCY = (0.05, 0.15)  # s
SEEN = ("light", "camera", "distractors")
FELT = ("friction", "mass", "latency")
SUITES = {"seen": SEEN, "felt": FELT, "all": SEEN + FELT}
RESTORED = ("body_", "geom_", "dof_", "cam_", "light_", "pair_", "tendon_", "actuator_")  # arrays put back


@dataclass(frozen=True)
class Simulation:
    """One lane and its simulator, as a perturbation finds them at the beginning of an episode."""

    lane: Lane
    model: mujoco.MjModel | None  # None where the simulator is not MuJoCo
    data: mujoco.MjData | None


@runtime_checkable
class MuJoCoLane(Protocol):
    """A lane that runs on a MuJoCo model; both None while there is none."""

    model: mujoco.MjModel | None
    data: mujoco.MjData | None


@runtime_checkable
class RobosuiteLane(Protocol):
    """A lane around one of robosuite's environments, which holds model and data."""

    suite: Any


Perturbation = Callable[[Simulation, np.random.Generator, float], dict]
PERTURBATIONS: dict[str, Perturbation] = {}


def register_perturbation(name: str):
    """Decorator of `change(simulation, rng, level)`, which gives a JSON-able account of what it drew. No name twice.

    A change of a model's arrays that begin with one of `RESTORED`, of the head light and of the lane's delay and decor
    is undone by itself.
    """

    def register(change: Perturbation) -> Perturbation:
        if name in PERTURBATIONS or name in SUITES:
            raise ValueError(f"perturbation '{name}' is registered already")
        PERTURBATIONS[name] = change
        return change

    return register


def names_of(perturb: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """`"light,friction"`, a suite's name or several of both as names, each once. LookupError lists the known ones."""
    words = perturb.split(",") if isinstance(perturb, str) else perturb
    suites = {name: (name,) for name in PERTURBATIONS} | SUITES
    names = [name for word in words for name in lookup("perturbation", word.strip(), suites)]
    return tuple(dict.fromkeys(names))


@World.register_subclass("perturbed")
@dataclass(frozen=True, kw_only=True)
class Perturbed(Around):
    """Another world under perturbations. Cameras, horizon and delay given here replace the other world's."""

    perturb: tuple[str, ...] = ("all",)  # light | camera | distractors | friction | mass | latency | seen | felt | all
    level: float = 1.0  # scales the ranges

    def __post_init__(self):
        if self.level <= 0:
            raise ValueError(f"level must be positive, got {self.level}")
        if self.task not in ("", self.of.task):
            raise ValueError(f"task is '{self.task}' here and '{self.of.task}' in the world that is perturbed")
        object.__setattr__(self, "task", self.of.task)

        possible = applicable(self.of)
        for name in self.names:
            if name not in possible:
                kind = self.of.get_choice_name(type(self.of))
                raise ValueError(
                    f"a world of type {kind} cannot be perturbed by '{name}': it has no MuJoCo model. "
                    f"Possible: {', '.join(possible) or 'nothing'}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of single perturbations."""
        return names_of(self.perturb)

    def lane(self) -> Lane:
        lane = self.clean.lane()
        _Disturbance(lane, self.names, self.level)
        return lane

    def fingerprint(self) -> dict:
        about = {"names": list(self.names), "level": self.level, "version": VERSION}
        return self.clean.fingerprint() | {"perturb": about}


def applicable(world: World) -> tuple[str, ...]:
    """Perturbations that a world can be put under; a kind of world of one's own may say so in `perturbable`."""
    from .memory.suite import SuiteMemory
    from .pusht.gym_pusht import GymPushT
    from .robosuite.suite import Robosuite
    from .task import MuJoCoWorld

    if world.perturbable is not None:
        return tuple(world.perturbable)
    if isinstance(world, (MuJoCoWorld, Robosuite, SuiteMemory)):
        return tuple(PERTURBATIONS)
    return ("latency",) if isinstance(world, GymPushT) else ()


def perturbed(world: World, perturb: str | tuple[str, ...], level: float = 1.0) -> World:
    """`world` under the perturbations `perturb` (see `names_of`); `all` means all that it can be put under.

    Raises:
        LookupError: an unknown name, listing the known ones.
        ValueError: a perturbation that this world cannot be put under.
    """
    possible = applicable(world)
    names = names_of(perturb)
    if perturb == "all" or tuple(perturb) == ("all",):
        names = tuple(name for name in names if name in possible) or names
    return Perturbed(of=world, perturb=names, level=level)


def simulator(lane: Lane) -> tuple[mujoco.MjModel | None, mujoco.MjData | None]:
    """MuJoCo's model and data behind a lane, (None, None) where there are none."""
    if keeps(lane, RobosuiteLane):  # it wraps both
        return lane.suite.sim.model._model, lane.suite.sim.data._data
    return (lane.model, lane.data) if keeps(lane, MuJoCoLane) else (None, None)


class _Disturbance:
    """Puts itself before and after `lane.begin`: undo what the last start changed, begin, change."""

    def __init__(self, lane: Lane, names: tuple[str, ...], level: float):
        self.lane, self.names, self.level = lane, names, level
        self._begin, self._delay = lane.begin, lane.delay
        self._model, self._kept = None, {}
        lane.begin, lane.perturbation = self.begin, {}

    def begin(self, seed: int, options: dict) -> None:
        model, _ = simulator(self.lane)
        self.lane.delay, self.lane.decor = self._delay, ()
        self._restore(model)
        self._begin(seed, options)

        # the clean scene, to be put back
        model, data = simulator(self.lane)
        if model is not self._model:  # the first episode, or a scene that was built anew
            self._model, self._kept = model, {name: array.copy() for name, array in _arrays(model)}

        simulation = Simulation(self.lane, model, data)
        self.lane.perturbation = {
            name: PERTURBATIONS[name](simulation, _generator(seed, name), self.level) for name in self.names
        }

    def _restore(self, model: mujoco.MjModel | None) -> None:
        for name, array in _arrays(model) if model is self._model else ():
            array[...] = self._kept[name]


def _arrays(model: mujoco.MjModel | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name and memory of all that a perturbation may change."""
    if model is None:
        return
    for name in dir(model):
        if name.startswith(RESTORED) and isinstance(array := getattr(model, name), np.ndarray):
            yield name, array
    for name in ("ambient", "diffuse", "specular"):
        yield f"headlight.{name}", getattr(model.vis.headlight, name)


def _generator(seed: int, name: str) -> np.random.Generator:
    return rng_of(seed, zlib.crc32(name.encode()))


def _factor(rng: np.random.Generator, ends: tuple[float, float], level: float) -> float:
    """Between the two ends at level 1, their powers at others; uniform in its logarithm."""
    return float(np.exp(level * rng.uniform(*np.log(ends))))


@register_perturbation("light")
def light(simulation: Simulation, rng: np.random.Generator, level: float) -> dict:
    """Brightness and colour of all lamps and of the head light; lamps move."""
    import mujoco

    model = simulation.model
    brightness, tint = _factor(rng, BRIGHTNESS, level), 1 + level * rng.uniform(-TINT, TINT, 3)
    head = model.vis.headlight

    for colours in (model.light_ambient, model.light_diffuse, model.light_specular):
        colours[...] = np.clip(colours * brightness * tint, 0, 1)
    for colour in (head.ambient, head.diffuse, head.specular):
        colour[...] = np.clip(colour * brightness * tint, 0, 1)

    moved = level * rng.uniform(-LAMP, LAMP, model.light_pos.shape)
    model.light_pos += moved
    mujoco.mj_camlight(model, simulation.data)
    return {"brightness": brightness, "tint": tint.tolist(), "moved": moved.tolist()}


@register_perturbation("camera")
def camera(simulation: Simulation, rng: np.random.Generator, level: float) -> dict:
    """Every camera is moved and turned a little in its mount."""
    import mujoco

    model = simulation.model
    shift = level * rng.uniform(-1, 1, (model.ncam, 3))
    turn = level * rng.uniform(-TURN, TURN, (model.ncam, 3))

    for number in range(model.ncam):
        fixed = model.body_weldid[model.cam_bodyid[number]] == 0
        shift[number] *= SHIFT if fixed else SHIFT_IN_HAND
        model.cam_pos[number] += shift[number]

        # turn the camera in its own frame
        angle = float(np.linalg.norm(turn[number]))
        change, pose = np.zeros(4), model.cam_quat[number].copy()
        mujoco.mju_axisAngle2Quat(change, turn[number] / max(angle, 1e-12), angle)
        mujoco.mju_mulQuat(model.cam_quat[number], pose, change)

    mujoco.mj_camlight(model, simulation.data)
    return {"shift": shift.tolist(), "turn": turn.tolist()}


@register_perturbation("distractors")
def distractors(simulation: Simulation, rng: np.random.Generator, level: float) -> dict:
    """Two to four coloured bodies stand about the things that can be moved. Nothing can touch them."""
    from .decor import scatter

    simulation.lane.decor = scatter(simulation.model, simulation.data, rng, int(rng.integers(2, 5)))
    if keeps(simulation.lane, RobosuiteLane):
        from .decor import dress_robosuite

        dress_robosuite(simulation.lane)

    places = [list(thing.position) for thing in simulation.lane.decor]
    return {"count": len(places), "at": places}


@register_perturbation("friction")
def friction(simulation: Simulation, rng: np.random.Generator, level: float) -> dict:
    """All contacts, and the dry friction of joints that no motor drives, by one factor."""
    from .decor import movable_joints

    model, factor = simulation.model, _factor(rng, FRICTION, level)
    model.geom_friction *= factor
    model.pair_friction *= factor
    model.dof_frictionloss[movable_joints(model)] *= factor
    return {"factor": factor}


@register_perturbation("mass")
def mass(simulation: Simulation, rng: np.random.Generator, level: float) -> dict:
    """Mass and inertia of everything that can be moved and has no motor, by one factor."""
    factor = _factor(rng, MASS, level)
    scale_mass(simulation.model, factor)
    return {"factor": factor}


def scale_mass(model: mujoco.MjModel, factor: float) -> None:
    """Mass and inertia of everything that can be moved and has no motor, and what the solver derives from them."""
    import mujoco

    from .decor import movable_bodies

    bodies = movable_bodies(model)
    model.body_mass[bodies] *= factor
    model.body_inertia[bodies] *= factor
    kept = {name: getattr(model.stat, name) for name in ("meaninertia", "meanmass", "meansize", "extent")}
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for name, value in kept.items():  # scales of the clean scene
        setattr(model.stat, name, value)


@register_perturbation("latency")
def latency(simulation: Simulation, rng: np.random.Generator, level: float) -> dict:
    """Actions arrive one or more control steps later."""
    steps = max(1, round(level * rng.uniform(*LATENCY) * simulation.lane.embodiment.rate))
    simulation.lane.delay += steps
    return {"steps": steps}
