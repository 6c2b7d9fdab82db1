"""What every policy with a denoiser shares: scaling, encoding of observations, the field, sampling, the training loss.

A kind of policy (diffusion, flow) is a head, a range of noise and a way to draw noise levels while training; see
`diffusion.py`. Nothing here is stateful: history lives in the `Agent`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..configs.spec import IMAGES, Embodiment, EmbodimentError
from .field import Head, Solver, angle_of, from_clean, noise_levels, ratio_of, sample, to_clean
from .networks.mlp import MLPConfig
from .networks.network import NetworkConfig
from .policy import Field, LaneNoise, Past, Plans, PolicyConfig, Scale, Scales


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How plans are drawn from a field when acting."""

    steps: int = 10  # noise levels that the field is evaluated at
    solver: Solver = Solver.ddim  # ddim | dpmpp | heun
    clip: float | None = 1.0  # bound of the clean estimate, in the scaled action space


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig(PolicyConfig):
    """Settings shared by policies with a denoiser."""

    network: NetworkConfig = MLPConfig()
    sampler: Sampler = Sampler()
    execute: int = 8  # E, actions executed of each plan
    mask_padding: bool = True  # leave actions beyond the episode's ends out of the loss
    low: float = 0.01  # least noise-to-signal ratio that the field is trained for
    high: float = 64.0  # greatest

    def __post_init__(self):
        if not 0 < self.low < self.high:
            raise ValueError(f"the noise range must be 0 < low < high, got {self.low} .. {self.high}")
        if not 1 <= self.execute <= self.window.horizon:
            raise ValueError(f"execute must be within 1..{self.window.horizon} (the horizon), got {self.execute}")


class GenerativePolicy(nn.Module):
    """A `Policy` and `Trainable` around one denoiser network. Subclasses say how noise levels are drawn."""

    def __init__(self, config: GenerativeConfig, head: Head, embodiment: Embodiment, scales: Scales):
        super().__init__()
        self.config, self.head, self.embodiment = config, head, embodiment
        self.window, self.needs, self.execute = config.window, config.needs, config.execute
        self.sampler = config.sampler
        self.action_scale = Scale.between(*scales.action)
        self.state_scales = nn.ModuleDict({_slot(key): Scale(*scales.states[key]) for key in self.needs})
        width = sum(len(embodiment.offers()[key]) for key in self.needs) * len(self.window.observe)
        self.network = config.network.build(len(self.window.actions), len(embodiment.action), width)

    def condition(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observations (B, O, n) each, units -> (B, C) scaled and joined."""
        parts = [self.state_scales[_slot(key)].scale(obs[key]).flatten(1) for key in self.needs]
        return torch.cat(parts, -1)

    def denoise(self, y: Tensor, s: Tensor, context: Tensor) -> Tensor:
        """Clean estimate of y (M, T, D) at noise-to-signal ratios s (M,) or (1,)."""
        wide = s[:, None, None]
        out = self.network(y * torch.rsqrt(1 + wide * wide), angle_of(s), context)
        return to_clean(self.head, out, y, wide)

    def field(self, past: Past, n: int) -> Field:
        """The denoiser for `n` candidates a lane; observations are encoded here, once."""
        past = past.at(self.window)
        context = self.network.encode(self.condition(past.obs))
        lanes, tokens, dims = len(past.now), len(self.window.actions), len(self.embodiment.action)
        context = context.repeat_interleave(n, 0)

        def denoise(y: Tensor, s: float) -> Tensor:
            ratio = torch.full((1,), s, dtype=y.dtype, device=y.device)
            return self.denoise(y.flatten(0, 1), ratio, context).view_as(y)

        return Field(denoise, (lanes, n, tokens, dims), self.window.actions, self.config.low, self.config.high)

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane with the sampler's settings."""
        field = self.field(past, n)
        noise = rng.normal(n, *field.shape[2:]).to(past.actions.device)
        levels = noise_levels(self.sampler.steps, field.low, field.high)
        chunk = sample(field, noise, levels, solver=self.sampler.solver, clip=self.sampler.clip)
        chunk = self.action_scale.unscale(chunk)
        recalled = len(self.window.recall)
        return Plans(chunk[:, :, :recalled], chunk[:, :, recalled:], past.now)

    def draw_levels(self, count: int, like: Tensor) -> Tensor:
        """(count,) noise-to-signal ratios to train at. Stratified: one in each of `count` equal parts of the angle."""
        low, high = (float(angle_of(torch.tensor(s))) for s in (self.config.low, self.config.high))
        strata = (torch.arange(count, device=like.device) + torch.rand(count, device=like.device)) / count
        return ratio_of(low + (high - low) * strata[torch.randperm(count, device=like.device)])

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the head's output over the action tokens, at random noise levels."""
        clean = self.action_scale.scale(batch["action"])
        s = self.draw_levels(len(clean), clean)
        wide = s[:, None, None]
        y = clean + wide * torch.randn_like(clean)
        context = self.network.encode(self.condition(batch))
        out = self.network(y * torch.rsqrt(1 + wide * wide), angle_of(s), context)
        error = (out - from_clean(self.head, clean, y, wide)).square().mean(-1)
        if self.config.mask_padding:
            valid = batch["action.valid"].to(error.dtype)
            return (error * valid).sum() / valid.sum(), {}
        return error.mean(), {}


def refuse_pictures(needs: tuple[str, ...], embodiment: Embodiment) -> None:
    """Raise EmbodimentError unless each needed key is a state vector that the embodiment offers."""
    offered = embodiment.offers()
    for key in needs:
        if key.startswith(IMAGES):
            raise EmbodimentError(f"'{key}' is a picture; policies on states read vectors only")
        if key not in offered:
            raise EmbodimentError(f"'{key}' is needed but not offered; '{embodiment.name}' offers {', '.join(offered)}")


def with_sampler(policy: GenerativePolicy, **changes) -> GenerativePolicy:
    """The same policy drawing plans otherwise, for example `steps=4`. Fields set to None stay as they are."""
    changes = {key: value for key, value in changes.items() if value is not None}
    policy.sampler = dataclasses.replace(policy.sampler, **changes)
    return policy


def _slot(key: str) -> str:
    return key.replace(".", "_")  # module names may not hold dots
