"""The registries of what acts, chooses and imagines: settings of policies, critics, compositions and world models, by
`type`.

They know no torch, so that names and settings are checked before it is imported. What they build: `policy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import draccus

from ..configs.spec import Embodiment, Window

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
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


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig(draccus.ChoiceRegistry):
    """Settings of a world model or of a part of one; `type` in YAML picks the registered subclass.

    The `window` ends now: what is imagined in training are the frames up to now, so that all observations and actions
    that a step of training reads lie in the past of a window.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("world_models",)  # of ours where types register

    BEFORE: ClassVar[Mapping] = {}  # values of settings that older checkpoints do not say

    @property
    def window(self) -> Window:
        """What a step of training reads, see above."""
        raise NotImplementedError

    @property
    def inputs(self) -> tuple[str, ...]:
        """Observation keys of the data that it reads."""
        raise NotImplementedError

    def settle(self, dataset: Any) -> WorldModelConfig:
        """The settings with what they leave to the `Dataset`, or to another run. Raises ValueError."""
        return self

    def open(self, source: str | Path, embodiment: str | Path | None, **chosen: Any) -> Any:
        """The `Dataset` with all that is learnt from. Raises DatasetError."""
        raise NotImplementedError

    def windows(self, dataset: Any, episodes: np.ndarray, model: nn.Module) -> Any:
        """The `WindowSet` of these episodes that the model is trained or judged on."""
        raise NotImplementedError

    def build(self, embodiment: Embodiment, scales: Scales) -> nn.Module:
        """A `Trainable`. Weights are drawn from torch's global generator."""
        raise NotImplementedError

    def critic(self, folder: str | Path, planner: Any, device: str = "cpu") -> Any:
        """A `Critic` that ranks a `Planner`'s plans by what the model in a checkpoint imagines of them.

        Raises:
            ValueError: a model that imagines nothing, or does not follow its actions.
        """
        raise ValueError(
            f"{folder} holds no world model that imagines, so it ranks no plans; give the run of its dynamics"
        )
