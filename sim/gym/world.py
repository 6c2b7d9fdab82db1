"""Any Gymnasium environment with Box or Dict observations as a world, described by one YAML.

World type `gym`. The environment keeps its own physics; this file says which parts of its observation are our keys, and
what counts as success. It knows no environment by name. Spaces that the YAML does not state are read from one copy that
is built when they are first needed. Discrete actions are offered as one number that is rounded.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...configs.lanes.lane import Lane
from ...configs.machine import versions
from ...configs.plugins import import_named
from ...configs.spec import IMAGES, SCENE, STATE, UNKNOWN_UNIT, Embodiment, Mode
from ...configs.world import World
from ..experts import expert_action
from .keys import RENDER, GymWorldError, numbers, sources, take, walk

if TYPE_CHECKING:
    import gymnasium

TERMINATED, SURVIVED, NEVER, REWARD = "terminated", "survived", "never", "reward"


@World.register_subclass("gym")
@dataclass(frozen=True, kw_only=True)
class GymWorld(World):
    """An environment of Gymnasium's registry. `task` is a label; by default the id."""

    id: str  # as `gymnasium.make` takes it
    module: str = ""  # imported first, for the environments that it registers
    kwargs: dict = field(default_factory=dict)  # of gymnasium.make; `render_mode: null` for one that cannot draw
    # our key -> where it is: KEY, KEY[a:b], a/b in nested dicts, [a:b] of a flat Box, several joined by " + ",
    # and `render` for a camera. Default: a flat Box, or the keys "observation" and "desired_goal", and `render`.
    keys: dict[str, str] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # our key (or "action") -> a name for each number
    units: dict[str, tuple[str, ...]] = field(default_factory=dict)  # likewise; "?" where nothing is said
    limits: tuple[tuple[float, float], ...] | None = None  # of the actions, where the environment's own are infinite
    mode: Mode = Mode.absolute  # absolute | delta | velocity: what an action means
    success: str = TERMINATED  # key of info; or terminated | survived (the whole horizon) | never
    progress: str = ""  # key of info, or reward; without it 0 until success
    progress_range: tuple[float, float] = (0.0, 1.0)  # values of `progress` that are 0 and 1
    rate: float | None = None  # control steps per second; default the environment's
    remake: str = ""  # argument of gymnasium.make that takes the env seed, for what is drawn only when it is built

    def __post_init__(self):
        object.__setattr__(self, "task", self.task or self.id)
        low, high = self.progress_range
        if low == high:
            raise GymWorldError(f"progress_range must have two ends, got {self.progress_range}")
        for key in self.keys:
            if key not in (STATE, SCENE) and not key.startswith(IMAGES):
                raise GymWorldError(f"keys: '{key}' is none of ours. Known: {STATE}, {SCENE}, {IMAGES}NAME")

    def embodiment(self) -> Embodiment:
        return _probe(self)[0].with_cameras(self.cameras)

    def lane(self) -> GymLane:
        return GymLane(self)

    def steps(self) -> int:
        steps = self.horizon or _probe(self)[1]
        if steps is None:
            raise GymWorldError(f"'{self.id}' has no time limit of its own: give a horizon")
        return steps

    def views(self) -> tuple[str, ...]:
        return tuple(key.removeprefix(IMAGES) for key in self.keys if key.startswith(IMAGES)) or (RENDER,)

    @property
    def start_set(self) -> str:
        """Other arguments may draw other starts from the same seed."""
        text = json.dumps({key: self.kwargs[key] for key in sorted(self.kwargs)}, default=str)
        return f"gym/{self.id}" + (f"#{zlib.crc32(text.encode()):08x}" if self.kwargs else "")

    @property
    def perturbable(self) -> tuple[str, ...]:
        """What `perturb.py` can change: its free camera and its scene are the environment's own."""
        return ("light", "friction", "mass", "latency") if _probe(self)[2] else ("latency",)

    def fingerprint(self) -> dict:
        facts = {"type": "gym", "horizon": self.steps(), "mode": self.mode.value, "versions": _packages(self)}
        return dataclasses.asdict(self) | facts

    def make(self, start: int = 0) -> gymnasium.Env:
        """The environment itself, without a time limit. Raises ImportError or GymWorldError by name."""
        import gymnasium

        if self.module:
            try:
                import_named(self.module)
            except ImportError as error:
                raise ImportError(
                    f"the world '{self.id}' needs the module '{self.module}', which cannot be imported: {error}"
                ) from error

        if ":" in self.id:  # gymnasium imports what stands before it; it may lie in the current folder
            with suppress(ImportError):
                import_named(self.id.partition(":")[0])

        usual = {"render_mode": "rgb_array", "max_episode_steps": -1, "disable_env_checker": True}
        arguments = usual | self.kwargs
        arguments |= {self.remake: start} if self.remake else {}
        if arguments["render_mode"] is None:
            del arguments["render_mode"]

        try:
            return gymnasium.make(self.id, **arguments)
        except gymnasium.error.Error as error:
            raise GymWorldError(f"gymnasium cannot make '{self.id}': {error}") from error


class GymWorldWarning(UserWarning):
    """An environment that does not keep what Gymnasium asks of it."""


class GymLane(Lane):
    """One copy: `reset(seed=s)` of the environment is start s. An end of its own without success ends the episode."""

    def __init__(self, world: GymWorld):
        super().__init__(world)
        self.env, self._world = world.make(), world
        self._sources = sources(world.keys, world.cameras, world.id, self.env.observation_space)
        self._discrete = hasattr(self.env.action_space, "n")
        self._obs, self._info, self._reward, self._ended = None, {}, None, (False, False)
        self._tried = bool(world.remake)

    @property
    def model(self):
        """MuJoCo's model, where the environment has one."""
        return getattr(self.env.unwrapped, "model", None)

    @property
    def data(self):
        """MuJoCo's data, where the environment has one."""
        return getattr(self.env.unwrapped, "data", None)

    def begin(self, seed: int, options: dict) -> None:
        if self._world.remake:
            self.env.close()
            self.env = self._world.make(seed)
        if not self._tried:
            self._tried = True
            self._warn_if_seeds_are_ignored(seed, options)
        self._obs, self._info = self.env.reset(seed=seed, options=options or None)
        self._reward, self._ended = None, (False, False)

    def _warn_if_seeds_are_ignored(self, seed: int, options: dict) -> None:
        """Say so where one seed begins twice in other ways: then no episode can be run again, and none be paired."""
        seen = []
        for _ in range(2):
            self._obs, _ = self.env.reset(seed=seed, options=options or None)
            vectors = (parts for key, parts in self._sources.items() if not key.startswith(IMAGES))
            seen.append([np.asarray(take(self._obs, part), np.float32) for parts in vectors for part in parts])
        if any(not np.array_equal(first, again, equal_nan=True) for first, again in zip(*seen, strict=True)):
            warnings.warn(
                f"'{self._world.id}' begins otherwise each time that it is reset with the seed {seed}, so its episodes"
                " cannot be repeated or paired. If it draws when it is made, name the argument of gymnasium.make that"
                " takes the seed: remake: seed",
                GymWorldWarning,
                stacklevel=2,
            )

    def act(self, action: np.ndarray) -> float:
        space = self.env.action_space
        asked = int(np.rint(action[0])) if self._discrete else action.reshape(space.shape).astype(space.dtype)
        self._obs, self._reward, *ended, self._info = self.env.step(asked)
        self._ended = bool(ended[0]), bool(ended[1])
        return float(self._reward)

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        reward, success, truncated, info = super().advance(action)
        if self._discrete:
            info["action.sent"] = np.rint(info["action.sent"])
        ended, cut = self._ended
        return reward, success or ended, not success and not ended and (truncated or cut), info

    def sense(self) -> dict[str, np.ndarray]:
        seen = {}
        for key, parts in self._sources.items():
            if key.startswith(IMAGES):
                seen[key] = self._picture(key, parts)
            else:
                seen[key] = np.concatenate([take(self._obs, part) for part in parts]).astype(np.float32)
        return seen

    def judge(self) -> tuple[bool, float]:
        success = self._succeeded()
        return success, 1.0 if success else float(np.clip(self._nearness(), 0.0, 0.99))

    def rest(self) -> np.ndarray:
        space = self.action_space
        return np.clip(np.zeros(space.shape, np.float32), space.low, space.high)

    def render(self) -> np.ndarray:
        picture = self.env.render()
        if not isinstance(picture, np.ndarray):
            raise GymWorldError(f"'{self._world.id}' gives no picture: render() returned {type(picture).__name__}")
        return picture

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the scripted demonstrator of this task does now, see `experts.py`."""
        return expert_action(self._world.task, self, noise)

    def close(self) -> None:
        self.env.close()

    def _succeeded(self) -> bool:
        kind = self._world.success
        if kind in (TERMINATED, NEVER):
            return kind == TERMINATED and self._ended[0]
        if kind == SURVIVED:
            return self.ticks >= self.horizon and not any(self._ended)
        if self._reward is not None and kind not in self._info:
            keys = ", ".join(sorted(self._info)) or "nothing"
            raise GymWorldError(f"success: '{kind}' is not in the info of '{self._world.id}', which holds {keys}")
        return bool(self._info.get(kind, False))

    def _nearness(self) -> float:
        kind, (low, high) = self._world.progress, self._world.progress_range
        if not kind:
            return self.ticks / self.horizon if self._world.success == SURVIVED else 0.0
        value = self._reward if kind == REWARD else self._info.get(kind)
        if value is None and self._reward is not None:
            raise GymWorldError(f"progress: '{kind}' is not in the info of '{self._world.id}'")
        return 0.0 if value is None else (float(value) - low) / (high - low)

    def _picture(self, key: str, parts: list) -> np.ndarray:
        import cv2

        source = self.render() if parts[0][0] == RENDER else walk(self._obs, parts[0][0])
        height, width = self.embodiment.cameras[key.removeprefix(IMAGES)]
        picture = np.ascontiguousarray(source)
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        return np.array(picture)


_PROBES: dict[str, tuple] = {}  # what _probe read, by all that it depends on


def _probe(world: GymWorld) -> tuple[Embodiment, int | None, bool]:
    """(embodiment without cameras, time limit, whether it runs on MuJoCo), read from one copy, once in a process."""
    plain = dataclasses.asdict(world) | {"cameras": None, "horizon": None, "delay": None}
    key = json.dumps(plain, default=str, sort_keys=True)
    if key not in _PROBES:
        env = world.make()
        try:
            model = getattr(env.unwrapped, "model", None)
            on_mujoco = type(model).__module__.startswith("mujoco")
            _PROBES[key] = _embodiment(world, env), env.spec.max_episode_steps or _own_limit(world), on_mujoco
        finally:
            env.close()
    return _PROBES[key]


def _own_limit(world: GymWorld) -> int | None:
    """The time limit that the environment was registered with."""
    import gymnasium

    steps = gymnasium.spec(world.id).max_episode_steps
    return steps if steps and steps > 0 else None


def _embodiment(world: GymWorld, env: gymnasium.Env) -> Embodiment:
    parts = sources(world.keys, world.cameras, world.id, env.observation_space)
    vectors = {key: numbers(env.observation_space, parts[key]) for key in (STATE, SCENE) if key in parts}
    limits = _limits(world, env.action_space)

    # names and units, where the YAML does not state them
    named = {"action": [f"action.{number}" for number in range(len(limits))]} | vectors
    names = {key: tuple(world.names.get(key, default)) for key, default in named.items()}
    units = {key: tuple(world.units.get(key, (UNKNOWN_UNIT,) * len(default))) for key, default in named.items()}

    for key, default in named.items():
        for what, given in (("names", names[key]), ("units", units[key])):
            if len(given) != len(default):
                raise GymWorldError(f"{what} of '{key}': {len(given)} are given for {len(default)} numbers")

    return Embodiment(
        name=world.id,
        action=names["action"],
        action_units=units["action"],
        limits=limits,
        rate=world.rate or _rate(world, env),
        mode=world.mode,
        state=names.get(STATE, ()),
        state_units=units.get(STATE, ()),
        scene=names.get(SCENE, ()),
        scene_units=units.get(SCENE, ()),
    )


def _limits(world: GymWorld, space: gymnasium.Space) -> tuple[tuple[float, float], ...]:
    if hasattr(space, "n"):
        return ((float(space.start), float(space.start + space.n - 1)),)
    if type(space).__name__ != "Box":
        raise GymWorldError(f"actions of '{world.id}' must be a Box or Discrete, not {space}")
    low, high = space.low.ravel(), space.high.ravel()
    limits = world.limits or tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))
    if len(limits) != len(low):
        raise GymWorldError(f"limits: {len(limits)} are given for {len(low)} actions of '{world.id}'")
    if not np.isfinite(limits).all():
        raise GymWorldError(f"actions of '{world.id}' have no finite limits: give limits, a [low, high] for each")
    return limits


def _rate(world: GymWorld, env: gymnasium.Env) -> float:
    """Control steps per second: MuJoCo's, or that of the environment's films."""
    period, fps = getattr(env.unwrapped, "dt", None), env.metadata.get("render_fps")
    if period:
        return round(1 / float(period), 6)
    if not fps:
        raise GymWorldError(f"'{world.id}' does not say how many steps a second has: give a rate")
    return float(fps)


def _packages(world: GymWorld) -> dict[str, str]:
    """Versions of Gymnasium, MuJoCo, numpy, and of the package that the environment comes from."""
    from importlib.metadata import packages_distributions

    import gymnasium

    entry = gymnasium.spec(world.id).entry_point if world.id in gymnasium.registry else ""
    entry = entry if isinstance(entry, str) else ""
    modules = {name.partition(".")[0] for name in (world.module, entry) if name}
    owners = packages_distributions()
    extra = {name for module in modules for name in owners.get(module, ())}
    return versions(*sorted({"gymnasium", "mujoco", "numpy"} | extra))
