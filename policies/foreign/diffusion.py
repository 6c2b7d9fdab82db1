"""A lerobot diffusion policy as a `Policy`: its U-Net as the common field, its own scheduler or our sampler to act.

lerobot's network predicts the noise (or the clean chunk) of x_k = sqrt(a_k) x0 + sqrt(1 - a_k) noise at discrete steps
k. With s_k = sqrt((1 - a_k) / a_k) this is the common coordinate y = x0 + s noise seen as x = y / sqrt(1 + s s), so at
its own levels the field is the network exactly. Between two levels the network is asked at the nearer one (`nearest`)
or at a step with a fraction (`fractional`, which its sinusoids take although it never saw one); `between_cost` measures
both. The field is defined on [s_0, s_last] and not clipped.

A chunk of lerobot's starts at the first observed frame: with O frames and `horizon` actions its tokens lie at offsets
1 - O .. horizon - O. Those before now are recalled tokens here. They are not held where an episode has just begun:
lerobot trains on the first action repeated there.

As saved, plans are drawn by the checkpoint's own scheduler and steps, through lerobot's own loop, so that an evaluation
judges what lerobot runs. As soon as `sampler` is set (`--steps`, `--solver`), our sampler walks on the field instead.
Noise is keyed by lane in both.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from ...configs.spec import ACTION, IMAGES, Window
from ..field import PredictionType, to_clean
from ..models.generative import Sampler, walk
from ..networks.activate import replace_mish
from ..policy import Field, LaneNoise, Past, Plans, Policy, past_of
from ..schedulers import seeds_in
from .body import Body
from .folder import Foreign
from .scale import ForeignWarning, Normaliser, action_scale, refuse_strange_steps

CLEAN = 0.5  # share of the action in the first step's sample, above which a start from pure noise is warned of


class Between(Enum):
    """What is asked of a network with discrete steps at a level between two of them."""

    nearest = "nearest"  # the step whose angle is nearer
    fractional = "fractional"  # a step with a fraction, linear in the angle


class ForeignDiffusion(nn.Module, Policy):
    """A `Policy` around lerobot's `DiffusionPolicy`.

    Args:
        foreign: the checkpoint.
        body: who acts.
        between: see `Between`.
    Raises:
        ForeignError: settings, weights or statistics that do not fit.
    """

    def __init__(self, foreign: Foreign, body: Body, between: Between = Between.nearest):
        super().__init__()
        refuse_strange_steps(foreign.folder)
        self.foreign, self.between = foreign, between
        self.policy = foreign.build()
        config, model = self.policy.config, self.policy.diffusion

        # what it reads and plans
        seen = range(1 - config.n_obs_steps, 1)
        self.window = Window(
            observe=tuple(seen), recall=tuple(seen)[:-1], horizon=config.horizon - config.n_obs_steps + 1
        )
        self.n_action_steps = min(config.n_action_steps, self.window.horizon)

        # how it samples
        self.prediction_type = PredictionType.epsilon if config.prediction_type == "epsilon" else PredictionType.x0
        clip = config.clip_sample_range if config.clip_sample else None
        self._sampler = Sampler(steps=model.num_inference_steps, clip=clip)
        self.scheduler: str | None = config.noise_scheduler_type  # lerobot's, DDIM or DDPM; None: our sampler

        # lerobot's own scaling
        self.action_scale = action_scale(foreign.rules[ACTION], foreign.dims(ACTION))
        self.normalisers = nn.ModuleDict(
            {own.replace(".", "_"): Normaliser(foreign.rules[own]) for own in body.keys.values()}
        )
        self._warn_of_a_clean_start()
        quicken(model.unet)

        # its steps as noise levels
        kept = model.noise_scheduler.alphas_cumprod.double()
        self.ratios = ((1 - kept) / kept).sqrt().tolist()  # noise-to-signal ratio of each step, rising
        self._angles = np.arctan(self.ratios)
        self.adopt(body)

    def _warn_of_a_clean_start(self) -> None:
        """Say so where lerobot's scheduler begins with pure noise at a step that the network knows half clean."""
        scheduler = self.policy.diffusion.noise_scheduler
        scheduler.set_timesteps(self._sampler.steps)
        first, kept = int(scheduler.timesteps[0]), scheduler.alphas_cumprod
        share = float(kept[first].sqrt())
        if share > CLEAN and share > 2 * float(kept[-1].sqrt()):
            warnings.warn(
                f"{self.foreign.folder}: with num_inference_steps {self._sampler.steps} of {len(kept)} lerobot's"
                f" {self.scheduler} begins at step {first}, where the network expects {share:.0%} of the action in what"
                f" is pure noise. It acts as lerobot does; --steps takes our sampler instead, which begins at"
                f" pure noise (lerobot's does with steps that divide {len(kept)}, 5 or more)",
                ForeignWarning,
                stacklevel=4,
            )

    def adopt(self, body: Body) -> None:
        """Act for this body from now on."""
        self.body, self.embodiment, self.inputs = body, body.embodiment, tuple(body.keys)

    @property
    def sampler(self) -> Sampler:
        """How plans are drawn; of lerobot's scheduler, the steps and the bound."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        self._sampler, self.scheduler = sampler, None

    def step_of(self, s: float) -> float:
        """The network's step for the level s, by `between`."""
        step = float(np.interp(np.arctan(s), self._angles, np.arange(len(self._angles))))
        return step if self.between is Between.fractional else float(round(step))

    def condition(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observations (B, O, ...) in units, under our keys -> lerobot's conditioning (B, C)."""
        batch, pictures = {}, []
        for key, own in self.body.keys.items():
            normalise = self.normalisers[own.replace(".", "_")]
            if key.startswith(IMAGES):
                size = self.foreign.config["input_features"][own]["shape"][1:]
                pictures.append((own, normalise(as_pictures(obs[key], size))))
            else:
                batch[own] = normalise(obs[key])
        if pictures:
            order = list(self.policy.config.image_features)
            pictures.sort(key=lambda pair: order.index(pair[0]))
            batch["observation.images"] = torch.stack([picture for _, picture in pictures], 2)
        with torch.no_grad():
            return self.policy.diffusion._prepare_global_conditioning(batch)

    def denoise(self, y: Tensor, s: float, condition: Tensor) -> Tensor:
        """Clean estimate of y (B n, T, D) at the level s for conditioning (B, C)."""
        step = self.step_of(s)
        steps = y.new_full((len(y),), step) if step % 1 else torch.full((len(y),), int(step), device=y.device)
        out = self.policy.diffusion.unet(y * (1 + s * s) ** -0.5, steps, global_cond=condition)
        return to_clean(self.prediction_type, out, y, s)

    def field(self, past: Past, n: int) -> Field:
        """The denoiser for `n` candidates a lane; observations are encoded here, once."""
        condition = self.condition(past.at(self.window).obs)

        def denoise(y: Tensor, s: float) -> Tensor:
            return self.denoise(y.flatten(0, 1), s, condition).view_as(y)

        shape = (len(past.now), n, len(self.window.actions), len(self.embodiment.action))
        return Field(denoise, shape, self.window.actions, self.ratios[0], self.ratios[-1])

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane: by lerobot's own scheduler, or by our sampler if one was set."""
        past = past.at(self.window)
        if self.scheduler is None:
            return walk(self, past, n, rng)
        noise = rng.normal(n, len(self.window.actions), len(self.embodiment.action)).to(past.actions.device)
        chunk, recalled = self.action_scale.unscale(self._by_own_scheduler(past, noise)), len(self.window.recall)
        return Plans(chunk[:, :, :recalled], chunk[:, :, recalled:], past.now)

    def own_levels(self) -> list[float]:
        """Noise-to-signal ratios at the steps of lerobot's scheduler, then 0: levels of ours for the same walk."""
        scheduler = self.policy.diffusion.noise_scheduler
        scheduler.set_timesteps(self.sampler.steps)
        return [*(self.ratios[int(step)] for step in scheduler.timesteps), 0.0]

    def _by_own_scheduler(self, past: Past, noise: Tensor) -> Tensor:
        """lerobot's own sampling loop from `noise` (B, n, T, D); a stochastic scheduler draws by row."""
        model = self.policy.diffusion
        condition = self.condition(past.obs)
        flat, rows = noise.flatten(0, 1), None
        if self.scheduler != "DDIM":
            rows = [torch.Generator().manual_seed(seed) for seed in seeds_in(flat)]
        model.num_inference_steps = self.sampler.steps
        chunk = model.conditional_sample(len(flat), global_cond=condition, generator=rows, noise=flat)
        return chunk.view_as(noise)


def as_pictures(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (..., h, w, 3) -> float (..., 3, H, W) in [0, 1], resized to `size` (H, W) where it differs."""
    pictures = frames.movedim(-1, -3).float() / 255
    if tuple(pictures.shape[-2:]) == tuple(size):
        return pictures
    flat = pictures.flatten(0, -4)
    flat = nn.functional.interpolate(flat, tuple(size), mode="bilinear", antialias=True)
    return flat.view(*pictures.shape[:-2], *size)


@dataclass(frozen=True)
class BetweenCost:
    """Denoising error at a level between two steps, beside that at the two steps themselves."""

    level: float  # noise-to-signal ratio half-way in the angle
    beside: float  # mean error of the two neighbouring steps, where the field is exact
    nearest: float  # mean square over windows, tokens and dimensions of the scaled space
    fractional: float


@torch.no_grad()
def between_cost(
    policy: ForeignDiffusion, batches: Iterable[Mapping[str, Tensor]], steps: tuple[int, ...], seed: int = 0
) -> list[BetweenCost]:
    """What asking between two steps costs, on held-out windows of the policy's own window and needs.

    Args:
        batches: of `data.windows.Windows.gather`.
        steps: k for levels half-way between the steps k and k + 1.
        seed: of the noise; all errors at a step see the same draws.
    """
    generator, kept = torch.Generator().manual_seed(seed), policy.between

    sums, count = np.zeros((len(steps), 4)), 0.0
    for batch in batches:
        past = past_of(batch, policy.window, policy.inputs)
        clean, valid = policy.action_scale.scale(batch["action"]), batch["action.valid"].double()
        condition, count = policy.condition(past.obs), count + float(valid.sum())
        for row, k in enumerate(steps):
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            middle = float(np.tan((policy._angles[k] + policy._angles[k + 1]) / 2))
            asks = [(policy.ratios[k], Between.nearest), (policy.ratios[k + 1], Between.nearest)]
            for column, (s, between) in enumerate([*asks, *((middle, choice) for choice in Between)]):
                policy.between = between
                found = policy.denoise(clean + s * noise, s, condition)
                sums[row, column] += float(((found - clean).square().mean(-1).double() * valid).sum())
    policy.between = kept

    means = sums / count
    levels = [float(np.tan((policy._angles[k] + policy._angles[k + 1]) / 2)) for k in steps]
    return [
        BetweenCost(level, float(row[:2].mean()), *map(float, row[2:]))
        for level, row in zip(levels, means, strict=True)
    ]


def quicken(unet: nn.Module) -> None:
    """Let lerobot's `DiffusionConditionalUnet1d` condition once for all candidates of a lane; names of weights stay.

    Afterwards `global_cond` (B, C) may have fewer rows than the samples (B n, T, D), n in a row for each of its own;
    steps of one lane are equal. Everything that knows the observation and the step only (the embedding of the step and
    the FiLM of every block) is computed for B rows instead of B n. Results differ by rounding.
    """
    replace_mish(unet)
    copies = 1

    def share(_: nn.Module, args: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> tuple[tuple, Mapping]:
        nonlocal copies
        x, steps = args
        lanes = len(named["global_cond"])
        copies = len(x) // lanes
        return (x, steps[::copies]), named

    def spread(_: nn.Module, __: tuple, film: Tensor) -> Tensor:
        return film if copies == 1 or len(film) == 1 else film.repeat_interleave(copies, 0)

    unet.register_forward_pre_hook(share, with_kwargs=True)
    for module in unet.modules():
        if hasattr(module, "cond_encoder"):
            module.cond_encoder.register_forward_hook(spread)
