"""What a lane hands over, checked where its exceptions are caught: in its own process, before anybody computes with it.

A world promises keys, shapes, kinds of numbers and ranges. A lane that breaks the promise has failed, as one that
raises has: NaN would become a policy's NaN, and a scalar where a vector is due would be broadcast without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..world import World

FLOAT = np.dtype(np.float32)
ROUNDING = 1e-6  # progress may miss 0..1 by this


class LaneError(ValueError):
    """What a lane handed over is not what its world promised; the message names the key."""


class Handover:
    """The promises of one world.

    Args:
        world: tells the keys, shapes and dtypes by its embodiment.
    """

    def __init__(self, world: World):
        observations, actions = world.embodiment().spaces()
        self._spaces = {key: (space.shape, space.dtype) for key, space in observations.items()}
        self._sent = actions.shape  # one dimension

    def observation(self, seen: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """`seen` as it is. Raises LaneError: no mapping, a missing key, another shape, no numbers, NaN or infinity."""
        if type(seen) is not dict and not isinstance(seen, Mapping):
            raise LaneError(f"the observation must be a mapping of keys to arrays, got {type(seen).__name__}")
        for key, (shape, dtype) in self._spaces.items():
            if key not in seen:
                raise LaneError(f"'{key}' is missing in the observation, which holds {', '.join(seen) or 'nothing'}")
            value = np.asarray(seen[key])
            if value.shape != shape:
                raise LaneError(f"'{key}' must have shape {shape}, got {value.shape}")
            if value.dtype is not dtype and value.dtype != dtype:
                _castable(key, value, dtype)
            if dtype.kind == "f":
                _finite(key, value, dtype)
        return seen

    def outcome(self, info: Mapping) -> tuple[bool, float]:
        """(success, progress) of an `info`. Raises LaneError: missing, no truth value, outside of 0..1."""
        try:
            success, progress = info["success"], info["progress"]
        except KeyError as missing:
            raise LaneError(
                f"{missing} is missing in info, which holds {', '.join(map(str, info)) or 'nothing'}"
            ) from None
        except TypeError:
            raise LaneError(f"info must be a mapping, got {type(info).__name__}") from None
        return truth("success", success), self.progress(progress)

    def progress(self, value) -> float:
        """A number in 0..1. Raises LaneError otherwise."""
        number = value if type(value) is float else _number("progress", value)
        if 0.0 <= number <= 1.0:
            return number
        if -ROUNDING <= number <= 1 + ROUNDING:
            return min(max(number, 0.0), 1.0)
        raise LaneError(f"'progress' must be in 0..1, got {number:g}")

    def reward(self, value) -> float:
        """A finite number, also as float32. Raises LaneError otherwise."""
        number = value if type(value) is float else _number("reward", value)
        if not abs(number) <= 3.4e38:  # NaN as well
            raise LaneError(f"'reward' must be a finite number, got {number:g}")
        return number

    def sent(self, info: Mapping) -> np.ndarray:
        """(D,) float32, what was executed. Raises LaneError: missing, another shape, no numbers, NaN or infinity."""
        try:
            value = np.asarray(info["action.sent"])
        except KeyError:
            raise LaneError(f"'action.sent' is missing in info, which holds {', '.join(map(str, info))}") from None
        if value.shape != self._sent:
            raise LaneError(f"'action.sent' must have shape {self._sent}, got {value.shape}")
        if value.dtype is not FLOAT:
            _castable("action.sent", value, FLOAT)
            value = value.astype(np.float32)
        if not math.isfinite(value.dot(value)):
            _finite("action.sent", value, FLOAT)
        return value


def truth(name: str, value) -> bool:
    """True or False, also as 0 or 1. Raises LaneError for anything else: NaN and text would count as true."""
    if value is True or value is False:
        return value
    one = value.item() if isinstance(value, (np.generic, np.ndarray)) and np.size(value) == 1 else value
    if not isinstance(one, (bool, int, float)) or one not in (0, 1):
        raise LaneError(f"'{name}' must be true or false, got {value!r}")
    return bool(one)


def _number(name: str, value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise LaneError(f"'{name}' must be a number, got {value!r}") from None


def _castable(key: str, value: np.ndarray, dtype: np.dtype) -> None:
    """Numbers of another dtype are fine where none is lost."""
    if dtype.kind in "iu":
        fits = value.dtype.kind in "iub"
        if fits and value.size and value.dtype.kind != "b":
            bounds = np.iinfo(dtype)
            fits = bounds.min <= value.min() and value.max() <= bounds.max
    else:
        fits = value.dtype.kind in "fiub"
    if not fits:
        raise LaneError(f"'{key}' must hold {dtype} numbers, got {value.dtype}")


def _finite(key: str, value: np.ndarray, dtype: np.dtype) -> None:
    """Refuse NaN, infinity, and what is infinite in the dtype it will be kept in."""
    if value.ndim == 1 and value.dtype == dtype and math.isfinite(value.dot(value)):
        return  # the quick way for a small vector; squares may overflow, then look closer
    with np.errstate(over="ignore"):
        fine = np.isfinite(value.astype(dtype, copy=False))
    if not fine.all():
        at = np.argwhere(~fine)[0].tolist()
        where = f"number {at[0]} of {value.size}" if value.ndim == 1 else f"place {at}"
        raise LaneError(f"'{key}' is not finite: {value[tuple(at)]} at {where}")
