"""A person drives a simulated task: what a device says, how that becomes actions, and who ends an episode.

A `Teleoperator` is read once a control step; it gives up to six axes and a gripper in -1..1 and, now and then, a
verdict. `Steering` turns axes into actions of any embodiment: by name where the actions are called x, dy, rz, gripper
and so on, else in their order. The devices with pygame are in `devices.py`. Knows nothing of datasets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...configs.lanes.lane import Lane
from ...configs.spec import Embodiment, Mode
from ...configs.world import World

AXES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
SPEED = 0.35  # parts of a range per second that an absolute target moves at full deflection
SUCCESS, DISCARD, QUIT = "success", "discard", "quit"


@dataclass(frozen=True)
class Command:
    """What a person wants in this control step."""

    axes: tuple[float, ...] = (0.0,) * len(AXES)  # -1..1, in the order of AXES; the gripper's holds until it is changed
    verdict: str = ""  # success: it is done, keep it; discard: throw it away; quit: and stop

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for; the gripper's state is no request."""
        return not self.verdict and not any(self.axes[:-1])


class Teleoperator(Protocol):
    """A device that a person holds."""

    def show(self, picture: np.ndarray, caption: str) -> None:
        """Show the scene (h, w, 3) uint8 RGB, where there is something to show it on."""
        ...

    def read(self) -> Command:
        """What is wanted now. Does not wait."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


TELEOPERATORS: dict[str, Callable[[], Teleoperator]] = {}


def register_teleoperator(name: str):
    """Decorator: the name of a device for `demos --by NAME`. A name given twice is an error."""

    def register(device: Callable[[], Teleoperator]):
        if name in TELEOPERATORS or name == "expert":
            raise ValueError(f"teleoperator '{name}' is registered already")
        TELEOPERATORS[name] = device
        return device

    return register


class Steering:
    """Axes to actions. An absolute action is a target that the axes move; others are the axes, scaled to the limits.

    Raises:
        ValueError: more actions than axes, or absolute 6-D rotations, which no axis can move.
    """

    def __init__(self, embodiment: Embodiment):
        self.embodiment = embodiment
        self._absolute = embodiment.mode is Mode.absolute
        if self._absolute and embodiment.rotation == "6d":
            raise ValueError(f"'{embodiment.name}' takes absolute 6-D rotations; drive it with delta control")
        self._axis = _assign(embodiment)
        self._low, self._high = np.asarray(embodiment.limits, np.float32).T
        self._sign = np.where(_downwards(embodiment), -1.0, 1.0)
        self._target = (self._low + self._high) / 2

    def begin(self, rest: np.ndarray) -> None:
        """An episode begins; `rest` (D,) is the action that stays where it is."""
        self._target = np.asarray(rest, np.float64).copy()

    def action(self, axes: tuple[float, ...]) -> np.ndarray:
        """(D,) float32 in the embodiment's units, inside the limits."""
        deflection = np.clip(np.asarray(axes, np.float64)[self._axis], -1, 1) * self._sign
        span = self._high - self._low
        if not self._absolute:
            return (self._low + (deflection + 1) / 2 * span).astype(np.float32)
        moved = self._target + deflection * SPEED * span / self.embodiment.rate
        self._target = np.clip(moved, self._low, self._high)
        return self._target.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Conducted(World):
    """Another world whose episodes a person may end: its lanes have `conclude(success)`, heard at the next step."""

    of: World

    def __post_init__(self):
        object.__setattr__(self, "task", self.of.task)

    def embodiment(self) -> Embodiment:
        return self.of.embodiment()

    def lane(self) -> Lane:
        lane = self.of.lane()
        _Conductor(lane)
        return lane

    def steps(self) -> int:
        return self.of.steps()

    def views(self) -> tuple[str, ...]:
        return self.of.views()

    def fingerprint(self) -> dict:
        return self.of.fingerprint()


class _Conductor:
    """Puts itself around `lane.advance`: a verdict ends the episode and is its outcome."""

    def __init__(self, lane: Lane):
        self._advance, self._verdict = lane.advance, None
        lane.advance, lane.conclude = self.advance, self.conclude

    def conclude(self, success: bool) -> None:
        self._verdict = success

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        reward, terminated, truncated, info = self._advance(action)
        if self._verdict is None:
            return reward, terminated, truncated, info

        success, self._verdict = self._verdict, None
        info |= {"success": success, "progress": 1.0 if success else min(info["progress"], 0.99)}
        return reward, success, not success, info


@dataclass
class Script:
    """A device for tests and rehearsals: commands written beforehand, then `quit`; keeps what it was shown."""

    commands: list[Command]
    shown: int = 0

    def show(self, picture: np.ndarray, caption: str) -> None:
        self.shown += 1
        self.last = picture, caption

    def read(self) -> Command:
        return self.commands.pop(0) if self.commands else Command(verdict=QUIT)

    def close(self) -> None:
        self.closed = True


def pressed(held: dict[str, tuple[int, float]], names: set[str]) -> tuple[float, ...]:
    """Axes that the keys `names` move; `held` is key -> (axis, direction). Opposite keys cancel."""
    axes = [0.0] * len(AXES)
    for name in names & set(held):
        axis, direction = held[name]
        axes[axis] += direction
    return tuple(axes)


def with_gripper(axes: tuple[float, ...], closed: bool) -> tuple[float, ...]:
    """The same axes with the gripper's state: open -1, closed +1."""
    return (*axes[:-1], 1.0 if closed else -1.0)


def _assign(embodiment: Embodiment) -> list[int]:
    """The axis of each action: by name where all have one, else in order."""
    named = [name.rsplit(".", 1)[-1].removeprefix("d") for name in embodiment.action]
    if all(name in AXES for name in named) and len(set(named)) == len(named):
        return [AXES.index(name) for name in named]
    axes = [axis for axis in range(len(AXES) - 1)]
    fixed = [len(AXES) - 1 if name == "gripper" else None for name in named]
    if sum(axis is None for axis in fixed) > len(axes):
        raise ValueError(f"'{embodiment.name}' has {len(fixed)} actions; {len(AXES)} can be driven by hand")
    return [axes.pop(0) if axis is None else axis for axis in fixed]


def _downwards(embodiment: Embodiment) -> list[bool]:
    """Rows of a picture grow downwards, and `up` is a person's positive y."""
    pairs = zip(embodiment.action, embodiment.action_units, strict=True)
    return [unit == "px" and name == "y" for name, unit in pairs]


def conducted(world: World, **changes) -> Conducted:
    """`world` with the fields `changes` in place of its own, ended by a person."""
    return Conducted(of=dataclasses.replace(world, **changes))
