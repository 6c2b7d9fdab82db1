"""A plan in one evaluation of the network: average velocities along the straight path (MeanFlow, Geng et al. 2025).

On `z = (1 - t) x0 + t noise` flow matching learns the velocity v at a time. Here the network learns its average between
two times r <= t, u(z, r, t) with (t - r) u = the integral of v from r to t, so that `z_r = z_t - (t - r) u` is a jump
and `x0 = noise - u(noise, 0, 1)` a plan. Differentiating by t gives the target (their equation 6)

    u = v - (t - r) (v . du/dz + du/dt),

one Jacobian-vector product without gradient. At r = t it is flow matching, so the policy's `field` is the posterior
mean like any other and composes; the jump is not a field and appears only in `plan`. As a policy: OFQL (arXiv
2508.13904). With `sampler.steps` above 1 a plan takes that many jumps over equal parts of the path.

A jump over the whole path must hand its noise through to the last digit if the network puts out u, and every error
becomes one of the action. So the network puts out the action that u leads to, z - t u, unless `predicts` says
otherwise. MeanFlow's adaptive weights (`adaptive`, their section 4.3) make windows count alike whatever their error is;
that trains faster but away from the mean, so modes narrow and the field is no longer the posterior mean to compose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from ...configs.spec import Embodiment
from ..field import PredictionType, angle_of
from ..networks.network import Context, repeat
from ..networks.states import check_offered
from ..policy import LaneNoise, Past, Plans, PolicyConfig, Scales
from .flow import Density, Times, time_of
from .generative import GenerativeConfig, GenerativePolicy, Sampler

SMALLEST_TIME = 0.05  # a clean output is turned into a velocity by dividing by t, or by this where t is smaller
ERROR_FLOOR = 1e-3  # c of the adaptive weight 1 / (error + c) ** p


class Predicts(Enum):
    """What the network puts out for a pair of times."""

    clean = "clean"  # the action z - t u
    velocity = "velocity"  # the average velocity u itself, as published


@PolicyConfig.register_subclass("one_step")
@dataclass(frozen=True, kw_only=True)
class OneStepConfig(GenerativeConfig):
    """Average-velocity policy: one network evaluation a plan."""

    BEFORE: ClassVar[dict] = {**GenerativeConfig.BEFORE, "predicts": "velocity"}  # of older checkpoints

    sampler: Sampler = Sampler(steps=1)  # jumps a plan; `solver` and `scheduler` are not used
    times: Times = Times(density=Density.uniform)  # both times of a training pair; the greater one is t
    same: float = 0.5  # part of the pairs with r = t, which learn the field
    predicts: Predicts = Predicts.clean  # clean | velocity
    adaptive: float = 0.0  # p of the weight 1 / (error + 0.001) ** p of each window; 0: the plain mean square

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.same <= 1:
            raise ValueError(f"same is a part and must be within 0..1, got {self.same}")
        if not 0 <= self.adaptive <= 1:
            raise ValueError(f"adaptive is a power within 0..1, got {self.adaptive}")
        _check(self.sampler)

    def build(self, embodiment: Embodiment, scales: Scales) -> OneStepPolicy:
        check_offered(self.inputs, embodiment)
        return OneStepPolicy(self, PredictionType.flow, embodiment, scales, two_times=True)


class OneStepPolicy(GenerativePolicy):
    """A generative policy that plans by jumps of the average velocity."""

    def prepare(self, batch: Mapping[str, Tensor]) -> None:
        """Warn where noise must pass through the network: the action that it puts out by default holds none."""
        if self.config.predicts is Predicts.velocity:
            self._warn_if_narrow("predicts: clean")

    def evaluate(self, x: Tensor, s: Tensor, context: Context) -> Tensor:
        """The velocity at noise-to-signal ratios s: the network at r = t."""
        t = time_of(s)
        out = self.network(x, angle_of(s), context, gap=torch.zeros_like(s))
        return self._velocity(out, x * torch.sqrt((1 - t) ** 2 + t**2)[:, None, None], t)

    def velocity(self, z: Tensor, r: Tensor, t: Tensor, context: Context, pinned: Tensor, held: Tensor) -> Tensor:
        """Average velocity from t down to r of z (M, T, D), for times (M,) with 0 <= r <= t <= 1.

        Tokens under `held` (M, T) enter the network as `pinned` (M, T, D), whatever z is.
        """
        x = z * torch.rsqrt((1 - t) ** 2 + t**2)[:, None, None]
        angle = torch.atan2(t, 1 - t) * (2 / torch.pi)
        return self._velocity(self.network(torch.where(held[..., None], pinned, x), angle, context, gap=t - r), z, t)

    def _velocity(self, out: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """What the network put out for z (M, T, D) at t (M,), as a velocity."""
        if self.config.predicts is Predicts.velocity:
            return out
        return (z - out) / t.clamp_min(SMALLEST_TIME)[:, None, None]

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane by `sampler.steps` jumps. Raises ValueError for another solver than the default."""
        _check(self.sampler)
        past = past.at(self.window)
        context, pinned, held = self.recollect(past)
        context = repeat(context, n)
        pinned, held = pinned.repeat_interleave(n, 0), held.repeat_interleave(n, 0)
        z = rng.normal(n, *pinned.shape[1:]).to(pinned.device).flatten(0, 1)
        times = torch.linspace(1, 0, self.sampler.steps + 1, device=z.device)[:, None].expand(-1, len(z))
        for t, r in zip(times[:-1], times[1:], strict=True):
            z = z - (t - r)[:, None, None] * self.velocity(z, r, t, context, pinned, held)
        bound = self.sampler.clip
        z = torch.where(held[..., None], pinned, z if bound is None else z.clamp(-bound, bound))
        chunk = self.action_scale.unscale(z.unflatten(0, (-1, n)))
        recalled = len(self.window.recall)
        return Plans(chunk[:, :, :recalled], chunk[:, :, recalled:], past.now)

    def draw_times(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(r, t), (count,) each with r <= t; r = t for the part `same` of the pairs. t reaches 1, r reaches 0."""
        one, other = (self.config.times.draw(count, 0.0, 1.0, device) for _ in range(2))
        t, r = torch.maximum(one, other), torch.minimum(one, other)
        alike = torch.rand(count, device=device) < self.config.same
        inside = one.clamp(time_of(self.config.sigma_min), time_of(self.config.sigma_max))
        return torch.where(alike, inside, r), torch.where(alike, inside, t)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the average velocity over the action tokens that count, at random pairs of times."""
        clean, context, batch = self.drawn_from(batch)
        r, t = self.draw_times(len(clean), clean.device)
        noise = torch.randn_like(clean)
        pinned, held = self.held(batch, clean)
        out, target = self.pair(clean, noise, r, t, context, pinned, held)
        error = (out - target).square().mean(-1)
        weights = self.weights(batch, error)
        plain = (error * weights).sum() / weights.sum()
        if not self.config.adaptive:
            return plain, {}
        window = (error.detach() * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1)
        error = error / (window + ERROR_FLOOR) ** self.config.adaptive
        return (error * weights).sum() / weights.sum(), {"squared_error": plain.item()}

    def pair(self, clean, noise, r, t, context: Context, pinned, held) -> tuple[Tensor, Tensor]:
        """The network's average velocity and what it should be, (B, T, D) each; the target carries no gradient."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        wide = t[:, None, None]
        z, v = (1 - wide) * clean + wide * noise, noise - clean
        v = torch.where(held[..., None], 0.0, v)

        def average(z: Tensor, t: Tensor) -> Tensor:
            return self.velocity(z, r, t, context, pinned, held)

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward derivative
            out, slope = torch.func.jvp(average, (z, t), (v, torch.ones_like(t)))
        return out, v - (t - r)[:, None, None] * slope.detach()


def _check(sampler: Sampler) -> None:
    if sampler.steps < 1:
        raise ValueError(f"sampling needs at least 1 step, got {sampler.steps}")
    if sampler.own_path:
        raise ValueError(f"one_step jumps and walks no path; leave the solver out, got {sampler.own_path}")
