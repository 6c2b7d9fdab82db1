"""One plan before anyone asks: what cannot act is found out at the start, and the first client need not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...configs.spec import IMAGES

if TYPE_CHECKING:
    from ...policies.policy import Past
    from .desk import Thinker


def warm_up(thinker: Thinker) -> None:
    """Let the policy plan once for an observation of zeros, where its shapes are known."""
    import numpy as np

    from ...policies.policy import LaneNoise

    past = blank_past(thinker)
    if past is not None:
        thinker.plan(past, 1, [LaneNoise(0, np.zeros(1, np.int64), np.zeros(1, np.int64))])


def blank_past(thinker: Thinker) -> Past | None:
    """One lane that has seen zeros and done nothing; None where an observation's shape is not known."""
    import torch

    from ...policies.policy import Past

    first = {key: blank(thinker, key) for key in thinker.inputs}
    if any(value is None for value in first.values()):
        return None
    sight, window, dims = thinker.sight(), thinker.window, len(thinker.embodiment.action)
    seen = {key: torch.from_numpy(sight(key, value)).to(thinker.device) for key, value in first.items()}
    observed, recalled = len(window.observe), len(window.recall)
    return Past(
        obs={key: value[:, None].repeat(1, observed, *(1,) * (value.ndim - 1)) for key, value in seen.items()},
        obs_times=window.observe,
        obs_valid=torch.tensor([[offset == 0 for offset in window.observe]], device=thinker.device),
        actions=torch.zeros(1, recalled, dims, device=thinker.device),
        action_times=window.recall,
        action_valid=torch.zeros(1, recalled, dtype=torch.bool, device=thinker.device),
        now=torch.zeros(1, dtype=torch.int64, device=thinker.device),
    )


def blank(thinker: Thinker, key: str):
    """(1, ...) zeros of an observation, None where its shape is not known."""
    import numpy as np

    if not key.startswith(IMAGES):
        names = thinker.embodiment.offers().get(key)
        return None if names is None else np.zeros((1, len(names)), np.float32)
    size = thinker.sizes.get(key) or thinker.embodiment.cameras.get(key.removeprefix(IMAGES))
    return None if size is None else np.zeros((1, *size, 3), np.uint8)
