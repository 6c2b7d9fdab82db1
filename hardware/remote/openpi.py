"""openpi's messages, written and read by our own code: what its websocket clients send, and what they expect.

A message is a msgpack map. An array in it is a map of b"__ndarray__", b"data", b"dtype" and b"shape", a single number
one of b"__npgeneric__", b"data" and b"dtype". A server says what it is first; then each observation is answered by
{"actions": (H, D), "server_timing": {...}}, or by a text, which is an error.

These clients say neither what they executed nor how many steps went by. A session takes them to execute `steps`
actions of each chunk between two observations, as they were planned; a frame that the policy reads and that was never
sent is the present one, marked as not valid.

Source: github.com/Physical-Intelligence/openpi, packages/openpi-client (0.1.2), read for the shape of its messages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.spec import IMAGES
from .wire import MOST_DIMENSIONS, WireError, array_of

if TYPE_CHECKING:
    from ...policies.policy import LaneNoise, Past
    from .desk import Job, Thinker, Thought

ARRAY, NUMBER = b"__ndarray__", b"__npgeneric__"
NARROW = {"|i1": "<i4", "<i2": "<i4", "<u2": "<i4", "<f2": "<f4", "<u4": "<i8"}  # taken, too -> as what
PROMPT = "prompt"  # key of the text of the task


def pack_plain(content: Mapping[str, Any]) -> bytes:
    """A map as openpi's clients read it."""
    import msgpack

    return msgpack.packb(content, default=_default)


def unpack_plain(data: bytes | str) -> dict[str, Any]:
    """A map as openpi's clients write it, with numbers of our kinds only. Raises WireError."""
    import msgpack

    if isinstance(data, str):
        raise WireError("a message is bytes, not text")
    try:
        found = msgpack.unpackb(data, raw=False, strict_map_key=True, object_hook=_opened)
    except WireError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"these {len(data)} bytes are no message ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise WireError(f"a message is a map, not {type(found).__name__}")
    return found


def _default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise WireError(f"an array of {value.dtype} is not sent")
        return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {NUMBER: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise WireError(f"{type(value).__name__} is not sent")


def _opened(found: dict) -> Any:
    if ARRAY in found:
        dtype, shape, data = (found.get(name) for name in (b"dtype", b"shape", b"data"))
        wide = NARROW.get(dtype) if isinstance(dtype, str) else None
        if wide is None:
            return array_of(dtype, shape, data, "an array")
        return _narrow(np.dtype(dtype), shape, data).astype(wide)
    if NUMBER in found:
        value = found.get(b"data")
        if type(value) not in (int, float, bool):
            raise WireError("a number is none")
        return value
    return found


def _narrow(kind: np.dtype, shape: Any, data: Any) -> np.ndarray:
    """An array of numbers that are taken though ours are wider. Raises WireError."""
    whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not whole or len(shape) > MOST_DIMENSIONS or not isinstance(data, bytes):
        raise WireError(f"an array has no shape of at most {MOST_DIMENSIONS} sizes, or no bytes")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise WireError(f"an array does not hold the bytes of {kind} in the shape {shape}")
    return np.frombuffer(data, kind).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class PiKeys:
    """How openpi's clients name things."""

    names: Mapping[str, str] = field(default_factory=dict)  # their key -> ours; others are taken as they are
    steps: int | None = None  # actions that they execute of each chunk; None: as many as the policy executes


class PiClient:
    """One client of openpi's: an episode from its connection on."""

    def __init__(self, thinker: Thinker, keys: PiKeys, task: str | None):
        self._thinker, self._keys, self._task = thinker, keys, task
        self._steps = keys.steps or thinker.n_action_steps
        self._now, self._asks = 0, 0
        self._sight = thinker.sight()
        self._frames: dict[str, dict[int, np.ndarray]] = {key: {} for key in thinker.inputs}
        self._done: dict[int, np.ndarray] = {}  # tick -> action
        self._planned: np.ndarray | None = None  # (H, D), the last chunk

    def metadata(self, about: Mapping[str, str]) -> dict[str, Any]:
        """What is said first."""
        body, window = self._thinker.embodiment, self._thinker.window
        stands_in = [offset for offset in window.observe if offset % self._steps]
        notes = []
        told = {
            "server": "understudy",
            "policy": dict(about),
            "observations": list(self._thinker.inputs),
            "named": dict(self._keys.names),
            "actions": list(body.action),
            "action_units": list(body.action_units),
            "rate": body.rate,
            "horizon": self._thinker.planner.window.horizon,
            "executed": self._steps,
        }
        if stands_in:
            notes.append(f"frames at steps {stands_in} are read and never sent; the present one stands in for them")
        if self._thinker.ensemble is not None:
            notes.append(
                f"the policy was made for temporal ensembling of decay {self._thinker.ensemble:g}, which is the "
                "client's: these actions are the newest plan alone"
            )
        return told | ({"note": "; ".join(notes)} if notes else {})

    def job(self, message: Mapping[str, Any]) -> Job:
        """An observation as a job for the desk. Raises WireError."""
        from ...policies.agent.observation import ObservationError, read_observation
        from ...policies.policy import LaneNoise
        from .desk import Job, stated

        told = self._renamed(message)
        text = told.pop(PROMPT, None)
        if text is not None and not isinstance(text, str):
            raise WireError(f"'{PROMPT}' must be a text")
        try:
            seen = read_observation(told, self._thinker.inputs, self._thinker.embodiment)
        except (ObservationError, TypeError) as error:
            raise WireError(f"{error}; --openpi FILE of the server maps other names") from error
        if not seen.single:
            raise WireError("one observation at a time, without a batch")

        number = self._asks
        self._asks += 1

        def noise() -> LaneNoise:
            return LaneNoise(self._thinker.seed, np.zeros(1, np.int64), np.array([number]))

        return Job(past=lambda: self._past(seen.values), noise=noise, plans=1, task=stated(self._task, text))

    def answer(self, thought: Thought, before: float) -> dict[str, Any]:
        """What is sent for it: the whole chunk, (H, D). `before`: s that the observation before took in all."""
        low, high = np.asarray(self._thinker.embodiment.limits, np.float32).T
        self._planned = np.clip(thought.future[0, 0], low, high)
        timing = {"infer_ms": 1000 * thought.thought} | ({"prev_total_ms": 1000 * before} if before else {})
        return {"actions": self._planned, "server_timing": timing}

    def _renamed(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Our keys, of maps inside the map by their path: {"images": {"top": ..}} is images/top."""
        flat: dict[str, Any] = {}

        def open_(values: Mapping[str, Any], before: str) -> None:
            for key, value in values.items():
                if not isinstance(key, str):
                    raise WireError("keys of an observation are texts")
                if isinstance(value, Mapping):
                    open_(value, f"{before}{key}/")
                else:
                    flat[self._keys.names.get(before + key, before + key)] = value

        open_(message, "")
        return {key: np.asarray(value) if isinstance(value, list) else value for key, value in flat.items()}

    def _past(self, obs: Mapping[str, np.ndarray]) -> Past:
        import torch

        from ...policies.policy import Past

        window, device = self._thinker.window, self._thinker.device
        if self._planned is not None:  # executed since, as far as we know
            for step in range(self._steps):
                self._done[self._now + step] = self._planned[min(step, len(self._planned) - 1)]
            self._now += self._steps
        for key, value in obs.items():
            if key.startswith(IMAGES) and value.ndim != 4:
                raise WireError(f"'{key}' is no picture")
            self._frames[key][self._now] = self._sight(key, value)[0]
        for held in (*self._frames.values(), self._done):
            for tick in [tick for tick in held if tick < self._now - window.reach]:
                del held[tick]

        times = [self._now + offset for offset in window.observe]
        valid = [all(tick in held for held in self._frames.values()) for tick in times]
        dims = len(self._thinker.embodiment.action)
        done = [self._done.get(self._now + offset) for offset in window.recall]
        actions = np.stack([np.zeros(dims, np.float32) if one is None else one for one in done] or [np.zeros(dims)])
        actions = actions[: len(done)].astype(np.float32)
        return Past(
            obs={key: torch.from_numpy(self._row(key, times)).to(device) for key in self._thinker.inputs},
            obs_times=window.observe,
            obs_valid=torch.tensor([valid], device=device),
            actions=torch.from_numpy(actions)[None].to(device),
            action_times=window.recall,
            action_valid=torch.tensor([[one is not None for one in done]], dtype=torch.bool, device=device),
            now=torch.tensor([self._now], device=device),
        )

    def _row(self, key: str, times: list[int]) -> np.ndarray:
        """(1, O, ...): what was sent for each tick, the first frame before it, the present one where nothing was."""
        held = self._frames[key]
        return np.stack([held.get(max(tick, 0), held[self._now]) for tick in times])[None]
