"""A world that one can act in, as a setting: what to open, with which cameras, for how long.

Simulator, dream, twin and arm differ only in the `World` that is opened. A new kind of world is one file that registers
a subclass; `World.lane()` builds one copy of it (a `gymnasium.Env`), inside the process that will step it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import draccus

from .plugins import discover, lookup
from .protocols import keeps
from .settings.decode import decode, decode_choice
from .settings.load import load
from .settings.shipped import find_config
from .spec import IMAGES, Embodiment, EmbodimentError

if TYPE_CHECKING:
    import gymnasium

# What env seeds are for, so that what is reported was neither learned from nor chosen by:
REPORT_STARTS = 1_000  # the first for reporting; those below are for choosing: policies, weights, alarms
DATA_STARTS = 100_000  # the first that may enter data

KINDS = ("sim", "world_models", "hardware")  # where worlds register, in modules with one of these texts:
MARKS = ("World.register_subclass(", "register_world(", "register_task(")


@dataclass(frozen=True, kw_only=True)
class World(draccus.ChoiceRegistry):
    """What every kind of world is told. The registered subclasses are the values of `type` in a world's YAML.

    A lane is a `gymnasium.Env` whose observations carry the keys of `Embodiment.offers()` and whose `info`, at every
    reset and step, holds `success` (bool), `progress` (0..1, 1 exactly on success) and, at every step, `action.sent`
    (D,) float32: what was really executed, in the dataset's action space. First success terminates; the horizon
    truncates.
    """

    task: str = ""  # which task of this kind of world
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (height, width) of pictures offered
    horizon: int | None = None  # steps until an episode is cut; None: the task's own
    delay: int = 0  # control steps between sending an action and its execution

    def embodiment(self) -> Embodiment:
        """Who acts in this world. Cheap: must not build the simulation."""
        raise NotImplementedError

    def lane(self) -> gymnasium.Env:
        """Build one copy of the world, in the process that will step it."""
        raise NotImplementedError

    def steps(self) -> int:
        """Control steps until an episode is cut."""
        raise NotImplementedError

    def warm(self) -> None:
        """What must be done once before several processes open this world."""

    def allow(self) -> None:
        """Ask the person at an arm before it first moves; nothing where none moves.

        Raises ValueError: nobody is there, or it was not allowed.
        """

    @property
    def start_set(self) -> str:
        """What its start ids belong to; "" for this kind of world and its task (see `start_set`)."""
        return ""

    @property
    def perturbable(self) -> tuple[str, ...] | None:
        """Names of the perturbations that it can be put under; None: as its kind (`sim/perturb.py`)."""
        return None

    @property
    def undemonstrated(self) -> str:
        """Why no scripted expert can act here, whatever the task, and what to do; "" where one may."""
        return ""

    @property
    def moves_arm(self) -> bool:
        """Whether something is moved that can break."""
        return False

    @property
    def by_the_clock(self) -> bool:
        """Whether its time passes by itself, as an arm's: one environment acts at a time, the others would be late."""
        return self.moves_arm

    def views(self) -> tuple[str, ...]:
        """Names that `cameras` may ask for."""
        return tuple(self.cameras)

    def fingerprint(self) -> dict:
        """Everything that would change a result: versions, physics, controller, rendering. JSON-able."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Around(World):
    """Another world, changed. Cameras, horizon and delay given here replace the other world's."""

    of: World  # the other world

    @property
    def clean(self) -> World:
        """The other world with the cameras, horizon and delay given here."""
        given: dict[str, Any] = {"cameras": self.cameras, "horizon": self.horizon, "delay": self.delay}
        return dataclasses.replace(self.of, **{key: value for key, value in given.items() if value})

    def embodiment(self) -> Embodiment:
        return self.clean.embodiment()

    def warm(self) -> None:
        """What the other world wants done before several workers start."""
        self.clean.warm()

    def allow(self) -> None:
        """Ask as the other world asks."""
        self.clean.allow()

    def steps(self) -> int:
        return self.clean.steps()

    @property
    def undemonstrated(self) -> str:
        return self.of.undemonstrated

    @property
    def by_the_clock(self) -> bool:
        return self.of.by_the_clock

    @property
    def moves_arm(self) -> bool:
        return self.of.moves_arm

    def views(self) -> tuple[str, ...]:
        return self.of.views()


@runtime_checkable
class Disturbed(Protocol):
    """A world that is another one under disturbances."""

    of: World


@runtime_checkable
class SceneDrawn(Protocol):
    """A world whose scene is drawn when it is built."""

    model_seed: int | None  # None: always the same scene


WORLDS: dict[str, World] = {}  # registered name -> its defaults, for `--world NAME`


def register_world(name: str, world: World) -> None:
    """Give a world's defaults a name. A name given twice is an error."""
    if name in WORLDS:
        raise ValueError(f"world '{name}' is registered already")
    WORLDS[name] = world


def find_world(name: str) -> World:
    """The world of a registered name, of `TYPE/TASK`, or of a YAML file. Raises LookupError listing the known names."""
    discover(*KINDS, having=MARKS)
    if name.endswith((".yaml", ".yml")):
        return decode_choice(World, load(_world_file(name)))
    kind, _, task = name.partition("/")
    if task and kind in World.get_known_choices():
        return World.get_choice_class(kind)(task=task)
    return lookup("world", name, WORLDS)


def _world_file(name: str) -> Path:
    """Where the YAML file of a world lies. Raises FileNotFoundError."""
    try:
        return find_config(name)
    except FileNotFoundError:
        told = "a world is a name ('understudy list worlds'), TYPE/TASK, or a YAML file with its type and task"
        raise FileNotFoundError(f"no world '{name}': there is no such file; {told}") from None


WorldSource = str | Mapping | World


def read_world(source: WorldSource, **changes) -> World:
    """The world that `source` describes, with the fields `changes` in place of its own where they are not None.

    Args:
        source: a registered name, a path to YAML (`$VAR` expanded), a mapping with `type` (a kind of
            world, or a registered name) and other keys, or a World.

    Raises:
        LookupError: an unknown name or type, listing the known ones.
        ValueError: keys that make no world.
    """
    if isinstance(source, World):
        world = source
    elif isinstance(source, Mapping):
        world = _from_keys(dict(source))
    else:
        world = find_world(os.path.expandvars(str(source)))
    return dataclasses.replace(world, **{key: value for key, value in changes.items() if value is not None})


def written_out(world: World) -> World:
    """The world with the `$VAR` of its settings as they are here, for a machine whose variables are others."""
    held = {item.name: getattr(world, item.name) for item in dataclasses.fields(world) if item.init}
    changed = {name: there for name, value in held.items() if (there := _written_out(value)) != value}
    return dataclasses.replace(world, **changed) if changed else world


def _written_out(value: Any) -> Any:
    if isinstance(value, str):
        return os.path.expandvars(value)
    if isinstance(value, World):
        return written_out(value)
    if isinstance(value, Mapping):
        return {key: _written_out(inner) for key, inner in value.items()}
    return type(value)(map(_written_out, value)) if type(value) in (list, tuple) else value


def name_of(world: World) -> str:
    """The registered name of a world with these settings, else its kind and task."""
    kind = world.get_choice_name(type(world))
    named = [name for name, other in WORLDS.items() if type(other) is type(world) and other.task == world.task]
    same = [name for name in named if WORLDS[name] == world]
    return (same or named or [f"{kind}/{world.task}"])[0]


AWorld = TypeVar("AWorld", bound="World")


def looked_at(world: AWorld, *readers: Mapping[str, tuple[int, int]]) -> AWorld:
    """The world with the cameras that policies read, at their sizes, where it does not offer them already.

    Args:
        readers: of each policy, key of a camera -> (height, width). Cameras that the world does not have are left
            out: who compares the policy with the world refuses them by name.

    Raises:
        EmbodimentError: two policies read one camera at different sizes, and the world does not say which to draw.
    """
    wanted: dict[str, tuple[int, int]] = {}
    views = set(world.views()) if any(readers) else set()
    for key, size in (item for reader in readers for item in reader.items()):
        name = key.removeprefix(IMAGES)
        if name in world.cameras or name not in views:
            continue
        if wanted.setdefault(name, (size[0], size[1])) != tuple(size):
            raise EmbodimentError(
                f"camera '{name}' is read at {wanted[name][0]}x{wanted[name][1]} and at {size[0]}x{size[1]} by "
                "policies that act in one world; judge each in a record of its own and compare the records, or give "
                f"the world's `cameras: {{{name}: [height, width]}}`, from which both are resized"
            )
    return dataclasses.replace(world, cameras={**world.cameras, **wanted}) if wanted else world


def start_set(world: World) -> str:
    """What start ids of this world belong to: rows of two records may be joined where it and the start are equal."""
    while keeps(world, Disturbed):  # it begins as the clean one does
        world = world.of
    model = world.model_seed if keeps(world, SceneDrawn) else None
    suffix = "" if model is None else f"#{model}"
    return world.start_set or f"{world.get_choice_name(type(world))}/{world.task}{suffix}"


def _from_keys(keys: dict) -> World:
    """`type` may be a kind of world, or a registered name whose defaults the other keys change."""
    discover(*KINDS, having=MARKS)
    named = WORLDS.get(keys.get("type", ""))
    if named is not None:
        keys = draccus.encode(named) | keys | {"type": named.get_choice_name(type(named))}
    return decode(_Holder, {"world": keys}).world


@dataclass(frozen=True)
class _Holder:
    world: World
