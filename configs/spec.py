"""The two things all folders must agree on: who acts (`Embodiment`) and how far it looks (`Window`).

Both are plain data, stored in every dataset and checkpoint and compared at every door. This file knows nothing of
networks, simulators or files.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass, field
from enum import Enum
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

STATE = "observation.state"
SCENE = "observation.environment_state"
IMAGES = "observation.images."
ACTION = "action"
GOAL = "goal."  # before the keys of goal pictures, of a batch and of what is seen
TASK = "task"  # of a batch: number of each window's task among the texts that a model knows
UNKNOWN_UNIT = UNKNOWN = "?"
MEANINGS = ("mode", "frame", "rotation")  # what the numbers of an action mean, beside their units


class EmbodimentError(ValueError):
    """Two sides of a door disagree; the message names the first difference."""


class AssumedWarning(UserWarning):
    """Two sides were taken to agree in what only one of them states."""


class Mode(Enum):
    """What an action number means."""

    absolute = "absolute"
    delta = "delta"
    velocity = "velocity"
    unknown = "?"  # nobody stated it


def unnamed(names: tuple[str, ...]) -> bool:
    """Whether the numbers of a vector are only counted: what data get that name none."""
    return bool(names) and names == tuple(map(str, range(len(names))))


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """Who acts: the action part that must be equal at every door, and the observations on offer.

    Units are SI ("m", "rad", "1"), "px" for PushT, or "?" when a dataset does not say; "?" matches any unit but is
    refused where an arm moves. So are mode, frame and rotation.
    """

    name: str = "unnamed"
    # the action part
    action: tuple[str, ...]  # names, in the order of the action vector
    action_units: tuple[str, ...]  # one unit a name
    limits: tuple[tuple[float, float], ...]  # (low, high) of each action, in its unit
    rate: float  # control steps per second
    mode: Mode = Mode.absolute
    frame: str = "world"  # the frame that actions are expressed in
    rotation: str = "none"  # none | axis-angle | 6d | quaternion
    # the offers
    state: tuple[str, ...] = ()  # names of observation.state
    state_units: tuple[str, ...] = ()
    scene: tuple[str, ...] = ()  # names of observation.environment_state (privileged in the real world)
    scene_units: tuple[str, ...] = ()
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (height, width), uint8 RGB
    guessed: tuple[str, ...] = ()  # fields that nobody stated and that the data were asked for: "limits"

    def __post_init__(self):
        for names, values, what in (
            (self.action, self.action_units, "action_units"),
            (self.action, self.limits, "limits"),
            (self.state, self.state_units, "state_units"),
            (self.scene, self.scene_units, "scene_units"),
        ):
            if len(names) != len(values):
                raise ValueError(f"{what} has {len(values)} entries for {len(names)} names")

        for name, (low, high) in zip(self.action, self.limits, strict=True):
            if not low < high:
                raise ValueError(f"limits of action '{name}' are not low < high: ({low}, {high})")
        if self.rate <= 0:
            raise ValueError(f"rate must be positive, got {self.rate}")

    def offers(self) -> dict[str, tuple[str, ...]]:
        """Observation key -> what it holds: names of a vector, or `("HxW",)` of a camera."""
        vectors = {key: names for key, names in ((STATE, self.state), (SCENE, self.scene)) if names}
        return vectors | {IMAGES + name: (f"{h}x{w}",) for name, (h, w) in self.cameras.items()}

    def spaces(self):
        """Gymnasium spaces `(Dict observation, Box action)` with the keys of a LeRobot dataset."""
        from gymnasium.spaces import Box, Dict

        vectors: dict[str, Any] = {
            key: Box(-np.inf, np.inf, (len(names),), np.float32)
            for key, names in ((STATE, self.state), (SCENE, self.scene))
            if names
        }
        images = {IMAGES + name: Box(0, 255, (*size, 3), np.uint8) for name, size in self.cameras.items()}
        low, high = np.asarray(self.limits, np.float32).T
        return Dict(vectors | images), Box(low, high, dtype=np.float32)

    def check(self, world: Embodiment, inputs: tuple[str, ...] = ()) -> None:
        """Refuse a world whose action part differs, or that does not offer what `inputs` (observation keys) asks for.

        What only one side states is taken to be so.

        Raises:
            EmbodimentError: naming the first difference.

        Warns:
            AssumedWarning: naming what was taken to be so.
        """
        assumed = []
        for part in ("action", "mode", "frame", "rotation", "rate", "limits"):
            ours, theirs = getattr(self, part), getattr(world, part)
            silent = [body for body in (self, world) if not body.states(part)]
            if silent:
                if len(silent) == 1:
                    assumed.append(f"{part} {_show(theirs if silent[0] is self else ours)}")
                if part != "limits" or len(ours) == len(theirs):
                    continue
            if part == "limits":
                same = np.allclose(ours, theirs) if len(ours) == len(theirs) else False
            else:
                same = ours == theirs
            if not same:
                raise EmbodimentError(
                    f"embodiments differ in {part}: '{self.name}' has {_show(ours)}, '{world.name}' has {_show(theirs)}"
                    f"{self._naming() if part == 'action' else ''}"
                )

        _check_units(self.name, self.action, self.action_units, world.name, world.action_units)
        if assumed:
            quiet, other = (self, world) if self.unstated else (world, self)
            warnings.warn(
                f"nobody stated {', '.join(quiet.unstated)} of '{quiet.name}': assumed to be as '{other.name}' has it"
                f" ({', '.join(assumed)}). If that is wrong, so is what follows; state it with --embodiment FILE",
                AssumedWarning,
                stacklevel=2,
            )
        for need in inputs:
            self._check_need(need, world)

    def _check_need(self, need: str, world: Embodiment) -> None:
        offered = world.offers()
        if need not in offered:
            keys = ", ".join(offered) or "nothing"
            raise EmbodimentError(f"'{need}' is needed but '{world.name}' does not offer it; it offers {keys}")
        if need.startswith(IMAGES):
            return  # pictures are resized to what the policy asks for

        ours, theirs = self.offers().get(need, ()), offered[need]
        if ours != theirs:
            first = next((pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), None)
            wanted, there = first or (f"{len(ours)} numbers", f"{len(theirs)}")
            advice = self._naming() if unnamed(ours) else ""
            raise EmbodimentError(f"'{need}' differs: '{wanted}' is expected, '{there}' is offered{advice}")

        units = {STATE: "state_units", SCENE: "scene_units"}[need]
        _check_units(self.name, ours, getattr(self, units), world.name, getattr(world, units))

    def _naming(self) -> str:
        """What to do about a vector whose numbers nobody named."""
        if not unnamed(self.action) and not unnamed(self.state):
            return ""
        return f". Nobody named the numbers of '{self.name}', which are counted: name them with --embodiment FILE"

    def states(self, part: str) -> bool:
        """Whether somebody stated this field."""
        value = getattr(self, part)
        return value not in (UNKNOWN, Mode.unknown) and part not in self.guessed

    @property
    def unstated(self) -> tuple[str, ...]:
        """Which of mode, frame, rotation and limits nobody stated."""
        return tuple(part for part in (*MEANINGS, "limits") if not self.states(part))

    @property
    def unknown(self) -> tuple[str, ...]:
        """What nobody stated, in words: units, then mode, frame and rotation; an arm refuses a body with any."""
        units = (f"the unit of {', '.join(self.unknown_units)}",) if self.unknown_units else ()
        return (*units, *(part for part in MEANINGS if not self.states(part)))

    @property
    def unknown_in_short(self) -> str:
        """`unknown` as a part of a sentence, with the first six names at most."""
        units = self.unknown_units
        listed = f"the unit of {', '.join(units[:6])}{', ...' if len(units) > 6 else ''}"
        means = {"mode": "mode (absolute or delta)"}
        parts = [means.get(part, part) for part in self.unknown[bool(units) :]]
        return "; ".join([*([listed] if units else []), *([f"of the actions: {', '.join(parts)}"] if parts else [])])

    @property
    def unknown_units(self) -> tuple[str, ...]:
        """Names whose unit nobody stated."""
        pairs = (
            *zip(self.action, self.action_units, strict=True),
            *zip(self.state, self.state_units, strict=True),
            *zip(self.scene, self.scene_units, strict=True),
        )
        return tuple(dict.fromkeys(name for name, unit in pairs if unit == UNKNOWN_UNIT))

    def with_cameras(self, cameras: dict[str, tuple[int, int]]) -> Embodiment:
        """The same body seen through other cameras, name -> (height, width)."""
        return dataclasses.replace(self, cameras={name: (h, w) for name, (h, w) in cameras.items()})

    def to_json(self) -> str:
        values = dataclasses.asdict(self) | {"mode": self.mode.value}
        if not self.guessed:
            del values["guessed"]
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Embodiment:
        """Read what `to_json` wrote; unknown newer fields are ignored, a missing one is an error by name."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EmbodimentError(f"an embodiment is not JSON ({error})") from error
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict) -> Embodiment:
        """Raises EmbodimentError for what is missing or cannot be."""
        if not isinstance(values, dict):
            raise EmbodimentError(f"an embodiment is names and values, such as `rate: 10`, not {values!r:.40}")
        names = {item.name for item in dataclasses.fields(cls)}
        kept = {key: _tuples(value) for key, value in values.items() if key in names}
        for key, value in kept.items():
            if key in _TEXTS and isinstance(value, tuple):  # `[m, 1]` in YAML has the unit 1, names may be 0, 1, 2
                fit = (lambda one: one == 1) if key.endswith("_units") else (lambda one: one >= 0)
                kept[key] = value = tuple(str(one) if type(one) is int and fit(one) else one for one in value)
            if not _PLAUSIBLE.get(key, _is_text)(value):
                raise EmbodimentError(f"{key} of an embodiment cannot be {value!r:.60}")
        try:
            return cls(**kept | ({"mode": Mode(kept["mode"])} if "mode" in kept else {}))
        except TypeError as error:
            raise EmbodimentError(f"embodiment is incomplete: {error}") from error
        except ValueError as error:
            raise EmbodimentError(str(error)) from error

    @classmethod
    def load(cls, path: str | Path) -> Embodiment:
        """From a JSON or YAML file.

        Raises:
            EmbodimentError: one that cannot be read or makes no embodiment; the message names the file.
        """
        import yaml

        try:
            text = Path(path).read_text(encoding="utf-8")
            return cls.from_dict(yaml.safe_load(text))
        except EmbodimentError as error:
            raise EmbodimentError(f"{path}: {error}; correct it, or bring a whole copy") from error
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # UnicodeDecodeError is a ValueError
            reason = " ".join(str(error).split())
            raise EmbodimentError(f"{path} cannot be read ({reason}); it is damaged, bring a whole copy") from error


@dataclass(frozen=True, kw_only=True)
class Window:
    """How far a model looks, in control steps; 0 is now. Divide by the rate for LeRobot's `delta_timestamps`."""

    observe: tuple[int, ...] = (-1, 0)  # offsets of the observed frames, oldest first, none after now
    recall: tuple[int, ...] = ()  # offsets of past actions predicted again (PTP), oldest first, all before now
    horizon: int = 16  # prediction horizon: future actions of a chunk (H)

    def __post_init__(self):
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {self.horizon}")
        if not self.observe or list(self.observe) != sorted(set(self.observe)) or self.observe[-1] > 0:
            raise ValueError(f"observe must be rising offsets, none above 0, got {self.observe}")
        if self.recall and (list(self.recall) != sorted(set(self.recall)) or self.recall[-1] >= 0):
            raise ValueError(f"recall must be rising offsets, all below 0, got {self.recall}")

    @classmethod
    def spell_out(cls, raw: dict) -> dict:
        """Keys of a config file with strided offsets written out, each `{count: C, stride: S}` (stride 1 if left out).

        `observe` becomes C offsets that end now, `recall` C offsets that end one stride before now. Raises ValueError.
        """
        written = {}
        for name, value in raw.items():
            if name in ("observe", "recall") and isinstance(value, dict):
                count, stride = value.get("count"), value.get("stride", 1)
                if not set(value) <= {"count", "stride"} or type(count) is not int or type(stride) is not int:
                    raise ValueError(f"window.{name} takes offsets or {{count: C, stride: S}}, got {value}")
                if count < (name == "observe") or stride < 1:
                    raise ValueError(f"window.{name} has no {count} offsets at a stride of {stride}")
                last = 0 if name == "observe" else -stride
                value = [last - stride * back for back in reversed(range(count))]
            written[name] = value
        return written

    @property
    def actions(self) -> tuple[int, ...]:
        """Offset of every action token: the recalled ones, then 0 .. H-1."""
        return (*self.recall, *range(self.horizon))

    @property
    def reach(self) -> int:
        """How many steps before now the window touches."""
        return -min((0, *self.observe, *self.recall))

    @classmethod
    def union(cls, *windows: Window) -> Window:
        """The smallest window that holds what each of `windows` reads."""
        return cls(
            observe=tuple(sorted({offset for w in windows for offset in w.observe})),
            recall=tuple(sorted({offset for w in windows for offset in w.recall})),
            horizon=max(w.horizon for w in windows),
        )


def picture_keys(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of observation keys that are pictures."""
    return tuple(key for key in inputs if key.startswith(IMAGES))


def vectors(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of observation keys that are no pictures."""
    return tuple(key for key in inputs if not key.startswith(IMAGES))


def _is_text(value) -> bool:
    return isinstance(value, str)


def _are_texts(value) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def _are_limits(value) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_number, pair)) for pair in value
    )


def _are_cameras(value) -> bool:
    sizes = value.values() if isinstance(value, dict) else (None,)
    return all(isinstance(s, tuple) and len(s) == 2 and all(_is_number(n) and n >= 1 for n in s) for s in sizes)


_TEXTS = ("action", "action_units", "state", "state_units", "scene", "scene_units")
_PLAUSIBLE = dict.fromkeys(_TEXTS, _are_texts) | {
    "guessed": _are_texts,
    "limits": _are_limits,
    "rate": lambda value: _is_number(value) and abs(value) < float("inf"),
    "cameras": _are_cameras,
    "mode": lambda value: isinstance(value, (str, Mode)),
}


def _show(value) -> str:
    if isinstance(value, tuple) and len(value) > 8:
        return f"{len(value)} of them ({', '.join(map(str, value[:3]))}, ...)"
    return value.value if isinstance(value, Enum) else repr(value)


def _tuples(value):
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value


def _check_units(name_a, names, units_a, name_b, units_b) -> None:
    for name, a, b in zip(names, units_a, units_b, strict=True):
        if a != b and UNKNOWN_UNIT not in (a, b):
            raise EmbodimentError(f"unit of '{name}' differs: '{name_a}' says {a}, '{name_b}' says {b}")
