"""What a denoiser network is, and the registry of its settings. A new network is one file in this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import draccus
from torch import Tensor, nn


class Denoiser(Protocol):
    """A network that maps a noisy chunk of actions to its head's output.

    `encode` runs once a plan; its result is repeated for the candidates: observations are read once for N plans.
    """

    def encode(self, condition: Tensor) -> Tensor:
        """(B, C) observation features -> (B, ...) context."""
        ...

    def __call__(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """x (M, T, D) of unit variance, t (M,) or (1,) in (0, 1), context (M, ...) -> (M, T, D)."""
        ...


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(draccus.ChoiceRegistry):
    """Settings of a denoiser; `type` in YAML picks the registered subclass."""

    def build(self, tokens: int, dims: int, condition: int) -> nn.Module:
        """A `Denoiser` of chunks (tokens, dims), conditioned on `condition` numbers."""
        raise NotImplementedError
