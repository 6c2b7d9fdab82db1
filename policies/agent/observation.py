"""What is handed to a policy: an observation of one environment or of several, NumPy or torch, checked by its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.spec import IMAGES, Embodiment

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor


class ObservationError(ValueError):
    """What was handed to a policy is not what it reads; the message names the key, and what would be right."""


@dataclass(frozen=True)
class Seen:
    """An observation as an agent takes it, and how to answer in the caller's kind of array."""

    values: dict[str, np.ndarray]  # key -> (B, ...)
    single: bool  # of one environment, without a batch dimension
    device: Any = None  # of a torch tensor; None: NumPy

    @property
    def count(self) -> int:
        """B."""
        return len(next(iter(self.values.values())))

    def give(self, actions: np.ndarray) -> Array:
        """Actions (B, ...) as the caller's kind of array."""
        actions = actions[0] if self.single else actions
        if self.device is None:
            return actions
        import torch

        return torch.from_numpy(actions).to(self.device)


def read_observation(obs: Mapping[str, Array], inputs: Sequence[str], body: Embodiment) -> Seen:
    """What a policy reads of an observation, checked; see `LoadedPolicy`.

    Raises:
        ObservationError: a missing key, a wrong shape or kind of number, NaN or infinity, batches of several sizes.
    """
    if not isinstance(obs, Mapping):
        raise ObservationError(f"an observation is a mapping of keys to arrays, got {type(obs).__name__}")
    if missing := [key for key in inputs if key not in obs]:
        has = ", ".join(map(str, obs)) or "nothing"
        raise ObservationError(f"the policy reads '{missing[0]}', but the observation holds {has}")

    offers, values, single, device = body.offers(), {}, {}, None
    for key in inputs:
        device = getattr(obs[key], "device", None) if device is None and _is_tensor(obs[key]) else device
        value = as_numpy(obs[key])
        if value.dtype.kind not in "fiub":
            raise ObservationError(f"'{key}' must hold numbers, got {value.dtype}")
        read = _picture if key.startswith(IMAGES) else _vector
        values[key], single[key] = read(key, value, offers.get(key))

    counts = {key: None if single[key] else len(values[key]) for key in inputs}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"'{key}' {'no batch' if n is None else n}" for key, n in counts.items())
        raise ObservationError(f"observations must be of one environment, or all of equally many; got {told}")
    return Seen(values, all(single.values()), device)


def _vector(key: str, value: np.ndarray, names: tuple[str, ...] | None) -> tuple[np.ndarray, bool]:
    """(B, D) float32, and whether it came without a batch."""
    size = value.shape[-1:] if names is None else (len(names),)
    if value.ndim not in (1, 2) or value.shape[-1:] != size:
        named = "" if names is None else f", the numbers {', '.join(names)}"
        raise ObservationError(
            f"'{key}' must be ({size[0] if size else 'D'},), or (B, {size[0] if size else 'D'}) of B environments"
            f"{named}; got {value.shape}"
        )
    with np.errstate(over="ignore"):
        value = value.astype(np.float32)
    if not (finite := np.isfinite(value)).all():
        at = np.argwhere(~finite)[0][-1]
        which = f"number {at}" if names is None else f"'{names[at]}'"
        raise ObservationError(f"'{key}' is not finite: {which} is {value.reshape(-1, size[0])[:, at].tolist()}")
    return np.atleast_2d(value), value.ndim == 1


def _picture(key: str, value: np.ndarray, _) -> tuple[np.ndarray, bool]:
    """(B, h, w, 3) uint8, and whether it came without a batch."""
    right = f"'{key}' must be uint8 (h, w, 3) RGB, or float in 0..1 (3, h, w) as LeRobotDataset gives it"
    if value.ndim not in (3, 4):
        raise ObservationError(f"{right}, with a batch first for several environments; got shape {value.shape}")
    if value.shape[-1] != 3 and value.shape[-3] == 3:  # channels first
        value = np.moveaxis(value, -3, -1)
    if value.shape[-1] != 3:
        raise ObservationError(f"{right}; got shape {value.shape}")
    if value.dtype.kind == "f":
        if not (value.min() >= 0 and value.max() <= 1):
            raise ObservationError(f"{right}; got floats in {value.min():g}..{value.max():g}")
        value = np.rint(value * 255).astype(np.uint8)
    if value.dtype != np.uint8:
        raise ObservationError(f"{right}; got {value.dtype}")
    return np.ascontiguousarray(value if value.ndim == 4 else value[None]), value.ndim == 3


def _is_tensor(value) -> bool:
    return hasattr(value, "detach")


def as_numpy(value: Array) -> np.ndarray:
    return value.detach().cpu().numpy() if _is_tensor(value) else np.asarray(value)  # type: ignore[union-attr]
