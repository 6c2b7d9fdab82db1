"""The registries of what acts and chooses: settings of policies, critics and compositions, by `type`.

They know no torch, so that names and settings are checked before it is imported. What they build: `policy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import draccus

from ..configs.spec import Embodiment, Window

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Scales:
    """What a model learns about its inputs and outputs before training. All in units."""

    action: tuple[tuple[float, ...], tuple[float, ...]]  # (low, high) that become [-1, 1]
    states: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]  # key -> (mean, std)

    def to_dict(self) -> dict:
        return {"action": self.action, "states": dict(self.states)}


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(draccus.ChoiceRegistry):
    """Settings of a policy; `type` in YAML picks the registered subclass."""

    RENAMED: ClassVar[dict[str, str]] = {"needs": "inputs"}  # former names that are still read

    BEFORE: ClassVar[Mapping] = {}  # values of settings that older checkpoints do not say

    window: Window = Window()
    inputs: tuple[str, ...] = ("observation.state",)  # observation keys that the policy reads

    def build(self, embodiment: Embodiment, scales: Scales) -> nn.Module:
        """A `Planner` that is a `Trainable`. Weights are drawn from torch's global generator."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CriticConfig(draccus.ChoiceRegistry):
    """Settings of a critic; `type` in YAML picks the registered subclass."""

    BEFORE: ClassVar[Mapping] = {}  # values of settings that older checkpoints do not say

    def build(self, embodiment: Embodiment, scales: Scales) -> Any:
        """A `Critic`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CompositionConfig(draccus.ChoiceRegistry):
    """Settings of a planner made of policies; `type` in config.json picks the registered subclass."""

    BEFORE: ClassVar[Mapping] = {}  # values of settings that older checkpoints do not say

    def build(self, parents: Sequence[Any]) -> Any:
        """The `Planner` of these parents, in the order in which they were saved."""
        raise NotImplementedError
