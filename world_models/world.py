"""What can be dreamed in: a model that continues observations under actions.

A world model reads observed frames and the actions to come, and imagines the frames after them. It knows nothing of
rewards or of the policy that acts in it. Actions and vectors are in the embodiment's units, pictures uint8 RGB.

Letters: B batch, O observed frames, H imagined frames, D action dimension.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..configs.spec import Embodiment, Window
from ..policies.policy import WorldModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ..policies.policy import LaneNoise, Past

__all__ = ["WorldModel", "WorldModelConfig"]


@runtime_checkable
class WorldModel(Protocol):
    """Imagines what the observations will be."""

    embodiment: Embodiment
    window: Window  # which frames and past actions it reads, and how many frames it imagines at a time
    inputs: tuple[str, ...]  # observation keys that it reads and imagines

    @abstractmethod
    def imagine(self, past: Past, actions: Tensor, rng: LaneNoise) -> Mapping[str, Tensor]:
        """The observations after each of `actions` (B, H, D): key -> (B, H, ...). Deterministic in `rng`."""
        ...
