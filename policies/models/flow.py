"""A field learned by flow matching (Lipman et al. 2023; rectified flow, Liu et al. 2023).

The straight path is `x = (1 - t) x0 + t noise` with t in (0, 1): 0 the action, 1 the noise. The network predicts its
velocity `noise - x0`, fitted by mean squared error. The path is the common coordinate `y = x0 + s * noise` seen with
s = t / (1 - t) and x = (1 - t) y, so the field is the same posterior mean that diffusion learns: the two compose and
share samplers. What is flow matching's own is the head and the times that training draws (`Times`); a network sees its
input at unit variance and the angle of s, as in every generative policy here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from ...configs.spec import Embodiment
from ..field import PredictionType
from ..networks.states import check_offered
from ..policy import PolicyConfig, Scales
from .generative import GenerativeConfig, GenerativePolicy


class Density(Enum):
    """How often training visits which time of the straight path."""

    uniform = "uniform"
    logit_normal = "logit_normal"  # the logit of t is normal (Esser et al. 2024): the middle of the path
    beta = "beta"  # proportional to t ** (power - 1) (Black et al. 2024, pi0): more noise


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times in (0, 1) of the straight path that training draws, cut to the field's noise range."""

    density: Density = Density.uniform  # distribution of noise levels in training: uniform | logit_normal | beta
    mean: float = 0.0  # logit_normal: of the logit
    std: float = 1.0  # logit_normal: of the logit
    power: float = 1.5  # beta: 1 is uniform

    def __post_init__(self):
        if self.std <= 0 or self.power <= 0:
            raise ValueError(f"std and power of times must be above 0, got {self.std} and {self.power}")

    def below(self, t: Tensor) -> Tensor:
        """Part of the density below t, any shape, in [0, 1]."""
        if self.density is Density.uniform:
            return t
        if self.density is Density.beta:
            return t**self.power
        return torch.special.ndtr((torch.logit(t) - self.mean) / self.std)

    def at(self, part: Tensor) -> Tensor:
        """The time that a part of the density lies below; the inverse of `below`."""
        if self.density is Density.uniform:
            return part
        if self.density is Density.beta:
            return part ** (1 / self.power)
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(part))

    def draw(self, count: int, low: float, high: float, device: torch.device) -> Tensor:
        """(count,) times in [low, high], stratified: one in each of `count` equal parts of the density, shuffled."""
        bottom, top = self.below(torch.tensor([low, high], dtype=torch.float64)).tolist()
        strata = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
        part = bottom + (top - bottom) * strata[torch.randperm(count, device=device)]
        return self.at(part).clamp(low, high)


def time_of(s):
    """Noise-to-signal ratio -> time t in (0, 1) of the straight path; numbers or tensors."""
    return s / (1 + s)


@PolicyConfig.register_subclass("flow")
@dataclass(frozen=True, kw_only=True)
class FlowConfig(GenerativeConfig):
    """Flow matching policy."""

    BEFORE: ClassVar[dict] = {**GenerativeConfig.BEFORE, "linear_skip": False}  # of older checkpoints

    linear_skip: bool = True  # a fixed linear map takes the noise past the network, see `skip.py`
    times: Times = Times()  # that training draws

    def build(self, embodiment: Embodiment, scales: Scales) -> FlowPolicy:
        check_offered(self.inputs, embodiment)
        return FlowPolicy(self, PredictionType.flow, embodiment, scales, linear_skip=self.linear_skip)


class FlowPolicy(GenerativePolicy):
    """A generative policy whose noise levels are drawn in the time of the straight path."""

    def draw_levels(self, count: int, like: Tensor) -> Tensor:
        """(count,) noise-to-signal ratios to train at, within the field's range."""
        low, high = time_of(self.config.sigma_min), time_of(self.config.sigma_max)
        t = self.config.times.draw(count, low, high, like.device)
        return (t / (1 - t)).clamp(self.config.sigma_min, self.config.sigma_max)
