"""What a denoiser network is told and answers, and the registry of its settings. A new network is one file here.

Everything comes as tokens with times: the network may use them (the transformer's masks) or not (perceptron, U-Net).
Times are offsets in control steps, 0 = now. Nothing here knows of scaling, noise levels or heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import draccus
import torch
from torch import Tensor, nn

Context = Tensor | tuple[Tensor, ...]  # what a network keeps of the observations; the first dimension is the lane


@dataclass(frozen=True)
class Layout:
    """The tokens that a network reads and writes."""

    actions: tuple[int, ...]  # offset of each of the T action tokens
    dims: int  # D, numbers of an action
    observe: tuple[int, ...]  # offset of each of the O observed frames
    widths: tuple[int, ...]  # numbers in a frame, of each observed key; F together

    @property
    def features(self) -> int:
        """F, numbers of a frame."""
        return sum(self.widths)

    @property
    def flat(self) -> int:
        """O * F, numbers of all frames."""
        return self.features * len(self.observe)

    def flatten(self, frames: Tensor) -> Tensor:
        """(B, O, F) -> (B, O * F), key by key and within a key frame by frame."""
        return torch.cat([part.flatten(1) for part in frames.split(self.widths, -1)], -1)


class Denoiser(Protocol):
    """A network that maps a noisy chunk of actions to its head's output.

    `encode` runs once a plan; its result is repeated for the candidates: observations are read once for N plans.
    """

    masked: ClassVar[bool]  # whether a token sees only what its time allows, and no padding

    @property
    def passes(self) -> tuple[int, int]:
        """(numbers of a chunk that share one vector, width of that vector): whether noise can pass undamaged."""
        ...

    def encode(self, frames: Tensor, seen: Tensor, present: Tensor) -> Context:
        """Read the observations.

        Args:
            frames: (B, O, F) features of each frame.
            seen: (B, O) bool, False for frames before the episode began.
            present: (B, T) bool, False for action tokens before the episode began; their input is zero.
        Returns:
            Context with B first.
        """
        ...

    def __call__(self, x: Tensor, t: Tensor, context: Context, gap: Tensor | None = None) -> Tensor:
        """One evaluation.

        Args:
            x: (M, T, D) of unit variance.
            t: (M,) or (1,) in (0, 1).
            context: of M.
            gap: (M,) or (1,), t - r of a network built for two times; None for all others.
        Returns:
            (M, T, D).
        Raises:
            ValueError: a gap for a network built without, or none for one built with it.
        """
        ...


def repeat(context: Context, n: int) -> Context:
    """The context of B lanes -> of B * n candidates, lane by lane."""
    if isinstance(context, tuple):
        return tuple(part.repeat_interleave(n, 0) for part in context)
    return context.repeat_interleave(n, 0)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(draccus.ChoiceRegistry):
    """Settings of a denoiser; `type` in YAML picks the registered subclass."""

    def build(self, layout: Layout, two_times: bool = False) -> nn.Module:
        """A `Denoiser` of chunks of `layout`. With `two_times` it also takes the `gap` of one-step models."""
        raise NotImplementedError
