"""AND and OR of policies by superposition (Skreta et al. 2024, arXiv 2412.17762, SuperDiff).

All parents are asked along one stochastic path, and the log-density of the noisy chunk under each of them is kept
beside it by their Ito density estimator: with scores a_i = (D_i(y, s) - y) / s^2 and noise of variance s^2,

    d log p_i = <dy, a_i> - 1/2 |a_i|^2 d(variance).

OR draws from the mixture: weights softmax(temperature * log p_i + bias_i). AND looks for what is equally likely under
all: weights of sum 1, maybe outside 0..1, such that all d log p_i are equal, a small linear system at every step.

One step from s to s' < s, with r = 1 - (s'/s)^2 and composed estimate D = sum_i w_i D_i, is the first-order ancestral
one, y' = y + r (D - y) + s' sqrt(r) noise. On finite steps the estimator is taken in the form of Bayes' rule, which is
the one above in the limit: log p_i(y') - log p_i(y) = log N(y'; y + r (D_i - y), s'^2 r) - log N(y; y', s^2 - s'^2).

Two things to know. The system of AND takes the noise out of the directions in which the parents differ, and there the
estimator, which assumes noise, misses the curvature of log p: what AND draws is equally likely under parents of equal
width, and of two Gaussians with widths a and b off by log(b / a), as in the paper's method. And few steps draw from
narrower densities than the parents' (first order).

The result is a planner and no policy: it has no field, so it does not nest. Its parents are policies whose field is
that of one density; a mixture's is not. Densities are of the future tokens that all parents own; other tokens are the
plain mean of their owners. OR clips the composed estimate at each step, AND at the last only, since a clipped estimate
would break the equality. A control of what the sampler alone does: a policy superposed with itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..field import noise_levels
from ..models.generative import Sampler
from ..policy import CompositionConfig, Executes, LaneNoise, Past, Planner, Plans, Policy, Sampled, Scaled
from .mixture import Mixture
from .parents import (
    ParentsError,
    check_parents,
    common_scale,
    fit_scale,
    noise_range,
    places,
    reconciled,
    union_embodiment,
    union_inputs,
    union_window,
)


@dataclass(frozen=True, kw_only=True)
class SuperposeConfig(CompositionConfig):
    """Settings of a superposition."""

    RENAMED: ClassVar[dict[str, str]] = {"execute": "n_action_steps"}  # former names that are still read

    sampler: Sampler = Sampler(steps=30)  # stochastic and first order; `solver` and `scheduler` are not used
    n_action_steps: int | None = None  # E, actions executed of each action chunk; none: the least of the parents'

    def build(self, parents: Sequence[Policy]) -> Superposition:
        return Superposition(parents, self)

    def check(self, parents: int) -> None:
        """Raises ValueError where the settings do not fit so many parents."""

    def weigh(self, apart: Tensor, noise: Tensor, logs: Tensor, r: float) -> Tensor:
        """The weights (B, N, M) of a step.

        Args:
            apart: (B, N, M, C) estimates less their mean, over the C numbers of the plan that count; float64.
            noise: (B, N, C) the step's noise, in units of y; float64.
            logs: (B, N, M) log-densities so far, up to a number common to all parents; float64.
            r: how much of the way to the estimate the step goes.
        """
        raise NotImplementedError


@CompositionConfig.register_subclass("or")
@dataclass(frozen=True, kw_only=True)
class OrConfig(SuperposeConfig):
    """What some parent would do: the mixture of their densities."""

    temperature: float = 1.0  # factor of the log-densities
    bias: tuple[float, ...] = ()  # added to them, one a parent, as logarithms of prior weights; default none

    def check(self, parents: int) -> None:
        if self.bias and len(self.bias) != parents:
            raise ValueError(f"{parents} parents need as many biases, got {len(self.bias)}")
        if not self.temperature >= 0:
            raise ValueError(f"the temperature of OR must be at least 0, got {self.temperature}")

    def weigh(self, apart: Tensor, noise: Tensor, logs: Tensor, r: float) -> Tensor:
        bias = logs.new_tensor(self.bias) if self.bias else 0.0
        return torch.softmax(self.temperature * logs + bias, -1)


@CompositionConfig.register_subclass("and")
@dataclass(frozen=True, kw_only=True)
class AndConfig(SuperposeConfig):
    """What all parents find equally likely."""

    def weigh(self, apart: Tensor, noise: Tensor, logs: Tensor, r: float) -> Tensor:
        """With e_i = D_i - mean, weights 1/M + v solve sum_j <e_i, e_j> v_j = |e_i|^2 / 2 - <noise, e_i> / r + const.

        Of all solutions the shortest; equal weights where the parents agree.
        """
        gram = apart @ apart.mT
        wanted = gram.diagonal(dim1=-2, dim2=-1) / 2 - (apart @ noise[..., None])[..., 0] / r
        wanted = wanted - wanted.mean(-1, keepdim=True)
        change = torch.linalg.pinv(gram, atol=1e-14, rtol=1e-10, hermitian=True) @ wanted[..., None]
        return 1 / gram.shape[-1] + (change - change.mean(-2, keepdim=True))[..., 0]


@dataclass(frozen=True)
class Trace:
    """The bookkeeping of one path: S steps, of which the last adds no noise and keeps no density."""

    weights: Tensor  # (S, B, N, M)
    logs: Tensor  # (S - 1, B, N, M) log-density under each parent after each step, up to a common number
    residual: float  # greatest difference between the parents' changes of log-density within a step; of AND


class Superposition(nn.Module, Sampled, Executes, Scaled, Planner):
    """A `Planner` by AND or OR of policies.

    Raises:
        ParentsError: parents that do not compose, or that are mixtures.
        ValueError: settings that do not fit.
    """

    def __init__(self, parents: Sequence[Policy], config: SuperposeConfig):
        super().__init__()
        check_parents(parents)
        for place, parent in enumerate(parents, 1):
            if isinstance(parent, Mixture):
                raise ParentsError(
                    f"parent {place} is a mixture, whose field is of no one density: AND and OR take none"
                )

        config.check(len(parents))
        self.parents, self._told, self.sampler = tuple(parents), config, config.sampler
        self.networks = nn.ModuleList(parent for parent in parents if isinstance(parent, nn.Module))

        # one scale, window and embodiment for all
        self.action_scale = common_scale([parent.action_scale for parent in parents])
        self.fits = tuple(fit_scale(parent.action_scale, self.action_scale) for parent in parents)
        self.window, self.inputs = union_window(parents), union_inputs(parents)
        self.embodiment = union_embodiment(parents)
        self.n_action_steps = config.n_action_steps or min(parent.n_action_steps for parent in parents)
        if not 1 <= self.n_action_steps <= self.window.horizon:
            raise ValueError(
                f"n_action_steps must be within 1..{self.window.horizon} (the horizon), got {self.n_action_steps}"
            )

        # tokens by offset, and who owns them
        self._places = tuple(places(parent.window.actions, self.window.actions) for parent in parents)
        owned = [[offset in parent.window.actions for offset in self.window.actions] for parent in parents]
        self.register_buffer("_owned", torch.tensor(owned)[..., None], persistent=False)  # (M, T, 1)

    @property
    def config(self) -> SuperposeConfig:
        """The settings that rebuild this superposition from its parents."""
        return dataclasses.replace(self._told, sampler=self.sampler, n_action_steps=self.n_action_steps)

    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane."""
        return self.trace(past, n, rng)[0]

    @torch.no_grad()
    def trace(self, past: Past, n: int, rng: LaneNoise) -> tuple[Plans, Trace]:
        """Plans, and how they came about."""
        if self.sampler.own_path:
            raise ValueError(f"AND and OR have their own solver; leave it out, got {self.sampler.own_path}")
        past = past.at(self.window)
        own = [parent.field(past, n) for parent in self.parents]
        fields = [reconciled(field, fit, past.actions) for field, fit in zip(own, self.fits, strict=True)]
        levels = noise_levels(self.sampler.steps, *noise_range(fields))
        shape = len(self.window.actions), len(self.embodiment.action)
        noise = rng.normal(n, len(levels) - 1, *shape).to(past.actions.device)
        chunk, trace = self._walk(fields, noise, levels)
        chunk = self.action_scale.unscale(chunk)
        recalled = len(self.window.recall)
        return Plans(chunk[:, :, :recalled], chunk[:, :, recalled:], past.now), trace

    def _walk(self, fields: Sequence[Callable], noise: Tensor, levels: list[float]) -> tuple[Tensor, Trace]:
        """From noise (B, N, S, T, D) to a chunk (B, N, T, D); the first of the S draws is the start."""
        shared = self._shared(noise.device)
        y = levels[0] * noise[:, :, 0]
        logs = noise.new_zeros(*noise.shape[:2], len(fields), dtype=torch.float64)

        weights, kept, residual = [], [], 0.0
        for step, (s, after) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
            r, last = 1 - (after / s) ** 2, after == 0
            push = torch.zeros_like(y) if last else after * math.sqrt(r) * noise[:, :, step + 1]

            # where the parents differ on shared tokens
            found, mean = self._estimates(fields, y, s)
            apart = found[:, :, :, shared].flatten(3).double()
            apart = apart - apart.mean(2, keepdim=True)
            weights.append(self._told.weigh(apart, push[:, :, shared].flatten(2).double(), logs, r))

            # one step of the sampler
            clean = self._clipped(self._composed(found, mean, weights[-1], shared), last)
            ahead = y + r * (clean - y) + push
            if not last:
                change = _change(y, ahead, found, shared, r, after)
                residual = max(residual, float((change.amax(-1) - change.amin(-1)).max()))
                logs = logs + change
                kept.append(logs)
            y = ahead

        logs = torch.stack(kept) if kept else logs.new_zeros(0, *logs.shape)
        return y, Trace(torch.stack(weights), logs, residual)

    def _shared(self, device: torch.device) -> Tensor:
        """Positions of the future tokens that all parents own."""
        horizon, recalled = min(parent.window.horizon for parent in self.parents), len(self.window.recall)
        return torch.arange(recalled, recalled + horizon, device=device)

    def _estimates(self, fields: Sequence[Callable], y: Tensor, s: float) -> tuple[Tensor, Tensor]:
        """Each parent's (B, N, M, T, D), with the mean of the owners where it owns no token; and that mean."""
        found = y.new_zeros(*y.shape[:2], len(fields), *y.shape[2:])
        for i, (field, place) in enumerate(zip(fields, self._places, strict=True)):
            if place is None:
                found[:, :, i] = field(y, s)
            else:
                found[:, :, i, place] = field(y[:, :, place], s)
        owned = self._owned.to(y)
        mean = found.sum(2) / owned.sum(0)
        return torch.where(owned.bool(), found, mean[:, :, None]), mean

    def _composed(self, found: Tensor, mean: Tensor, weights: Tensor, shared: Tensor) -> Tensor:
        """Weighted where all parents have a say, the mean elsewhere."""
        clean = mean.clone()
        lean = (weights - 1 / weights.shape[-1]).to(mean)[..., None, None]
        clean[:, :, shared] += (lean * (found - mean[:, :, None]))[:, :, :, shared].sum(2)
        return clean

    def _clipped(self, clean: Tensor, last: bool) -> Tensor:
        bound = self.sampler.clip
        if bound is None or (isinstance(self._told, AndConfig) and not last):
            return clean
        return clean.clamp(-bound, bound)


def _change(y: Tensor, ahead: Tensor, found: Tensor, shared: Tensor, r: float, after: float) -> Tensor:
    """(B, N, M) change of the log-density under each parent by a step, up to a number common to all parents.

    The kernel of the way back and the widths are the same for all, so only the distance from each one's mean is left.
    """
    y, ahead, found = (part.double() for part in (y, ahead, found))
    off = (ahead - y)[:, :, None] - r * (found - y[:, :, None])
    centred = off[:, :, :, shared].square().flatten(3).sum(-1)
    return -(centred - centred.mean(-1, keepdim=True)) / (2 * after**2 * r)
