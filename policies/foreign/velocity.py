"""The velocity of a flow policy made elsewhere as a `Policy`: two functions, `encode` and `velocity`, are enough.

Conventions of lerobot 0.4 to 0.6, which differ in the direction of time:

    noise_at_one    x = (1 - t) x0 + t noise,  u = noise - x0    pi0, pi05, smolvla; ours too
    noise_at_zero   x = t x0 + (1 - t) noise,  u = x0 - noise    groot, multi_task_dit

With t the time of the first, s = t / (1 - t), x = y / (1 + s), and D = x - t u is the posterior mean: an Euler step of
theirs is exactly a first-order step of our sampler. `flow.py` does so for SmolVLA, pi0 and pi0.5. A policy that
predicts the clean chunk instead of a velocity (xvla) has u = (x - x0) / t.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from ...configs.spec import Embodiment, Window
from ..models.generative import Sampler, walk
from ..policy import Field, LaneNoise, Past, Plans, Policy, Scale

Velocity = Callable[[Tensor, Tensor, object], Tensor]


class Clock(Enum):
    """Which end of time is the noise."""

    noise_at_one = "noise_at_one"
    noise_at_zero = "noise_at_zero"


def velocity_field(
    velocity: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, int, int, int],
    times: tuple[int, ...],
    *,
    clock: Clock = Clock.noise_at_one,
    span: tuple[float, float] = (0.001, 0.999),
) -> Field:
    """The common field of a velocity.

    Args:
        velocity: x (M, T, D) in the scaled space and t (M,), in the policy's own time -> (M, T, D).
        shape: (B, N, T, D).
        times: T offsets of the action tokens, 0 = now.
        clock: which end of time is the noise.
        span: times that the policy was trained on, with 1 the noise, both ends excluded.
    """
    if not 0 < span[0] < span[1] < 1:
        raise ValueError(f"span must lie inside (0, 1), got {span}")

    def denoise(y: Tensor, s: float) -> Tensor:
        t = s / (1 + s)
        x, flip = y.flatten(0, 1) / (1 + s), clock is Clock.noise_at_zero
        u = velocity(x, x.new_full((len(x),), 1 - t if flip else t))
        return (x + t * u if flip else x - t * u).view_as(y)

    low, high = (t / (1 - t) for t in span)
    return Field(denoise, shape, times, low, high)


class VelocityPolicy(nn.Module, Policy):
    """A `Policy` around a velocity.

    Args:
        encode: observations key -> (B, O, ...) in units -> context, a tensor (B, ...) or a tuple or dict of such.
        velocity: x (M, T, D), t (M,), context of M rows -> (M, T, D).
        embodiment: who acts.
        window: T = recall + horizon tokens.
        needs: observation keys that `encode` reads.
        action_scale: units <-> the space of x.
        clock, span: see `velocity_field`.
    """

    def __init__(
        self,
        encode: Callable[[Mapping[str, Tensor]], object],
        velocity: Velocity,
        *,
        embodiment: Embodiment,
        window: Window,
        inputs: Sequence[str],
        action_scale: Scale,
        sampler: Sampler | None = None,
        n_action_steps: int = 8,
        clock: Clock = Clock.noise_at_one,
        span: tuple[float, float] = (0.001, 0.999),
    ):
        super().__init__()
        self.encode, self.velocity, self.clock, self.span = encode, velocity, clock, span
        self.embodiment, self.window, self.inputs = embodiment, window, tuple(inputs)
        self.action_scale, self.sampler, self.n_action_steps = action_scale, sampler or Sampler(), n_action_steps

    def field(self, past: Past, n: int) -> Field:
        """The denoiser for `n` candidates a lane; observations are encoded here, once."""
        past = past.at(self.window)
        context = repeat_rows(self.encode({key: past.obs[key] for key in self.inputs}), n)
        shape = (len(past.now), n, len(self.window.actions), len(self.embodiment.action))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.velocity(x, t, context)

        return velocity_field(velocity, shape, self.window.actions, clock=self.clock, span=self.span)

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane with the sampler's settings."""
        return walk(self, past.at(self.window), n, rng)


def repeat_rows(context, n: int):
    """Each row n times, through tuples, lists, dicts and caches of transformers; other things as they are."""
    if isinstance(context, Tensor):
        return context.repeat_interleave(n, 0)
    if isinstance(context, Mapping):
        return {key: repeat_rows(value, n) for key, value in context.items()}
    if hasattr(context, "batch_repeat_interleave"):
        wider = shallow(context)
        wider.batch_repeat_interleave(n)
        return wider
    return type(context)(repeat_rows(value, n) for value in context) if isinstance(context, (tuple, list)) else context


def shallow(cache):
    """A copy of a cache of transformers that shares its tensors, which are never written to but replaced."""
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    return other
