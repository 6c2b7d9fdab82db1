"""What every policy with a denoiser shares: the field, sampling, the training loss. Inputs and masks: `tokens.py`.

A kind of policy (diffusion, flow) is a head, a range of noise and a way to draw noise levels while training; see
`diffusion.py`. Nothing here is stateful: history lives in the `Agent`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...configs.spec import Embodiment
from ..field import Denoise, PredictionType, Solver, angle_of, from_clean, noise_levels, ratio_of, sample, to_clean
from ..networks.network import Context, repeat
from ..policy import Field, LaneNoise, Past, Plans, Policy, Scales
from ..schedulers import check_scheduler, sample_by
from .skip import LinearSkip
from .tokens import TokenConfig, TokenPolicy


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How plans are drawn from a field when acting."""

    steps: int = 10  # denoising steps
    solver: Solver = Solver.ddim  # solver: ddim | dpmpp | heun
    clip: float | None = 1.0  # bound of the clean estimate, in the scaled action space
    scheduler: str | None = None  # class of diffusers in place of the solver, such as UniPCMultistepScheduler

    def __post_init__(self):
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise ValueError(f"clip bounds the clean estimate and must be above 0, or none; got {self.clip}")
        if self.scheduler is None:
            return
        check_scheduler(self.scheduler)
        if self.solver is not Solver.ddim:
            raise ValueError(f"either a solver or a scheduler walks, got {self.solver.value} and {self.scheduler}")

    @property
    def own_path(self) -> str | None:
        """What walks the path where it is not the default solver."""
        return self.scheduler or (None if self.solver is Solver.ddim else self.solver.value)

    def draw(
        self, field: Denoise, noise: Tensor, levels: list[float], known: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Walk along a field from `noise` (..., T, D) to clean samples; see `field.sample`."""
        settings: dict[str, Any] = {"clip": self.clip, "known": known}
        if self.scheduler:
            return sample_by(self.scheduler, field, noise, levels, **settings)
        return sample(field, noise, levels, solver=self.solver, **settings)

    def changed(self, **changes) -> Sampler:
        """The same sampler with other settings; None leaves one as it is. A solver and a scheduler oust each other."""
        changes = {key: value for key, value in changes.items() if value is not None}
        if "solver" in changes:
            changes.setdefault("scheduler", None)
        if changes.get("scheduler"):
            changes.setdefault("solver", Solver.ddim)
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig(TokenConfig):
    """Settings shared by policies with a denoiser."""

    RENAMED: ClassVar[dict[str, str]] = {"low": "sigma_min", "high": "sigma_max"}  # former names that are still read

    sampler: Sampler = Sampler()
    sigma_min: float = 0.01  # least noise-to-signal ratio in training
    sigma_max: float = 64.0  # greatest noise-to-signal ratio in training
    noise_draws: int = 1  # noised chunks that each encoded observation of a batch is trained on (arXiv 2505.09430)

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"the noise range must be 0 < sigma_min < sigma_max, got {self.sigma_min} .. {self.sigma_max}"
            )
        if self.noise_draws < 1:
            raise ValueError(f"noise_draws must be at least 1, got {self.noise_draws}")


class GenerativePolicy(TokenPolicy, Policy):
    """A `Policy` and `Trainable` around one denoiser network. Subclasses say how noise levels are drawn."""

    def __init__(
        self,
        config: GenerativeConfig,
        prediction_type: PredictionType,
        embodiment: Embodiment,
        scales: Scales,
        two_times: bool = False,
        linear_skip: bool = False,
    ):
        super().__init__(config, embodiment, scales, two_times)
        self.prediction_type, self.sampler = prediction_type, config.sampler
        needed = linear_skip and prediction_type is not PredictionType.x0
        self.skip = self._skip() if needed else None

    def _skip(self) -> LinearSkip:
        """The map for this window: the past is not mixed with the future, nor tokens that a masked network keeps apart.

        Recalled actions that are given are no matter of denoising and get none.
        """
        recalled, tokens = len(self.window.recall), range(len(self.window.actions))
        past, future = list(tokens[:recalled]), list(tokens[recalled:])
        blocks = [future] if self.config.given else [block for block in (past, future) if block]
        if self.network.masked:
            blocks = [[token] for block in blocks for token in block]
        return LinearSkip(self.prediction_type, len(tokens), blocks, len(self.embodiment.action))

    def prepare(self, batch: Mapping[str, Tensor]) -> None:
        """Fit the linear skip to the chunks of a batch of training windows; keeps `policy.Prepared`.

        Warns where noise must pass through a network that is too narrow for it.
        """
        if self.skip is not None:
            clean, recalled = self.action_scale.scale(batch["action"]), len(self.window.recall)
            self.skip.fit(clean, self._present(batch["action.valid"][:, :recalled]))
        elif self.prediction_type is not PredictionType.x0:
            self._warn_if_narrow("linear_skip: true")

    def _warn_if_narrow(self, remedy: str) -> None:
        numbers, width = self.network.passes
        if width < numbers:
            warnings.warn(
                f"the target '{self.prediction_type.value}' holds {numbers} numbers of noise, which cannot pass "
                f"through a network of width {width}: plans will keep noise. Set {remedy}, or a width of {numbers} "
                "and more",
                stacklevel=3,
            )

    def denoise(self, y: Tensor, s: Tensor, context: Context) -> Tensor:
        """Clean estimate of y (M, T, D) at noise-to-signal ratios s (M,) or (1,)."""
        wide = s[:, None, None]
        return to_clean(self.prediction_type, self.evaluate(y * torch.rsqrt(1 + wide * wide), s, context), y, wide)

    def evaluate(self, x: Tensor, s: Tensor, context: Context) -> Tensor:
        """The network's output for x (M, T, D) of unit variance at noise-to-signal ratios s (M,) or (1,)."""
        out = self.network(x, angle_of(s), context)
        return out if self.skip is None else out + self.skip(x, s)

    def field(self, past: Past, n: int) -> Field:
        """The denoiser for `n` candidates a lane; observations are encoded here, once."""
        past = past.at(self.window)
        context, values, held = self.recollect(past)
        context, loose = repeat(context, n), not bool(held.any())
        values, held = (part.repeat_interleave(n, 0) for part in (values, held[..., None]))

        def denoise(y: Tensor, s: float) -> Tensor:
            ratio, flat = torch.full((1,), s, dtype=y.dtype, device=y.device), y.flatten(0, 1)
            if loose:
                return self.denoise(flat, ratio, context).view_as(y)
            flat = torch.where(held, values * (1 + s * s) ** 0.5, flat)
            return torch.where(held, values, self.denoise(flat, ratio, context)).view_as(y)

        shape = (len(past.now), n, len(self.window.actions), len(self.embodiment.action))
        return Field(denoise, shape, self.window.actions, self.config.sigma_min, self.config.sigma_max)

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane with the sampler's settings."""
        return walk(self, past, n, rng)

    def draw_levels(self, count: int, like: Tensor) -> Tensor:
        """(count,) noise-to-signal ratios to train at. Stratified: one in each of `count` equal parts of the angle."""
        low, high = (float(angle_of(torch.tensor(s))) for s in (self.config.sigma_min, self.config.sigma_max))
        strata = (torch.arange(count, device=like.device) + torch.rand(count, device=like.device)) / count
        return ratio_of(low + (high - low) * strata[torch.randperm(count, device=like.device)])

    def drawn_from(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Context, Mapping[str, Tensor]]:
        """What noise is drawn for, each window `noise_draws` times, encoded once: scaled chunks, context, the batch.

        Of the batch only what tells of actions is repeated.
        """
        clean, context, draws = self.action_scale.scale(batch["action"]), self.context(batch), self.config.noise_draws
        if draws == 1:
            return clean, context, batch
        acted = {key: batch[key].repeat_interleave(draws, 0) for key in ("action", "action.valid")}
        return clean.repeat_interleave(draws, 0), repeat(context, draws), {**batch, **acted}

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the head's output over the action tokens that count, at random noise levels."""
        clean, context, batch = self.drawn_from(batch)
        s = self.draw_levels(len(clean), clean)
        wide = s[:, None, None]
        y = clean + wide * torch.randn_like(clean)
        x = y * torch.rsqrt(1 + wide * wide)
        if self.window.recall:
            values, held = self.held(batch, clean)
            x = torch.where(held[..., None], values, x)
        out = self.evaluate(x, s, context)
        error = (out - from_clean(self.prediction_type, clean, y, wide)).square().mean(-1)
        weights = self.weights(batch, error)
        return (error * weights).sum() / weights.sum(), {}


def walk(
    policy: Policy,
    past: Past,
    n: int,
    rng: LaneNoise,
    known: tuple[Tensor, Tensor] | None = None,
    steer: Callable[[Denoise], Denoise] | None = None,
) -> Plans:
    """Draw `n` plans a lane from a policy's field with its sampler's settings.

    Args:
        known: (values, mask), scaled, that broadcast against (B, n, T, D): tokens that are given, see `field.sample`.
        steer: makes another denoiser of the policy's.
    """
    field = policy.field(past, n)
    if known is not None:
        known = known[0].expand(field.shape), known[1].expand(field.shape)
    noise = rng.normal(n, *field.shape[2:]).to(past.actions.device)
    levels = noise_levels(policy.sampler.steps, field.sigma_min, field.sigma_max)
    chunk = policy.action_scale.unscale(policy.sampler.draw(steer(field) if steer else field, noise, levels, known))
    recalled = len(policy.window.recall)
    return Plans(chunk[:, :, :recalled], chunk[:, :, recalled:], past.now)


def with_sampler(policy: GenerativePolicy, **changes) -> GenerativePolicy:
    """The same policy drawing plans otherwise, for example `steps=4`. Fields set to None stay as they are."""
    policy.sampler = policy.sampler.changed(**changes)
    return policy
