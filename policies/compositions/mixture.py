"""A policy made of policies: the convex combination of their fields (general policy composition, arXiv 2510.01068).

At each noise level the parents are asked about the same noisy chunk and their clean estimates are averaged,

    D(y, s) = sum_i w_i(s) D_i(y, s),    w_i >= 0,  sum_i w_i = 1,

which is the same as averaging scores, epsilons or velocities, since all of them are affine in D at a given (y, s). So
diffusion, flow and one-step policies mix freely. Weights are constant or follow the noise level (`WeightSchedule`).
Tokens are aligned by offset, and the weights renormalise over the parents that own a token: the tail of a long chunk is
its owner's alone. A parent whose weight is zero at all levels is as if it were not there. The sampler clips the
composed estimate, never a parent's. Terms are added in an order of their own, so that the order of the parents does
not matter to the last digit.

A mixture is a policy: what is made of mixtures equals the mixture of all their parents with the weights multiplied out;
the samplers and `adapt` of inner ones play no part. What parents must have in common: `parents.py`. The search for
weights is elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..field import Solver
from ..models.generative import Sampler, walk
from ..models.one_step import OneStepPolicy
from ..policy import CompositionConfig, Field, LaneNoise, Past, Plans, Policy
from .adapt import Adapt, Asked
from .parents import (
    EXACT,
    AnisotropyWarning,
    ScaleFit,
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
class WeightSchedule:
    """Convex weights along the path: linear between knots in the angle 2/pi atan(s), constant outside of them.

    Angle 0 is the clean chunk, 1 is pure noise. One knot makes the weights constant. Rows are divided by their sum.
    """

    weights: tuple[tuple[float, ...], ...]  # one row a knot, one weight a parent
    angles: tuple[float, ...] = (0.0,)  # of the knots, rising, in [0, 1]

    def __post_init__(self):
        if not self.weights or len(self.weights) != len(self.angles):
            raise ValueError(f"a schedule needs one row of weights a knot: {len(self.weights)} for {len(self.angles)}")
        if any(not 0 <= angle <= 1 for angle in self.angles) or any(a >= b for a, b in pairwise(self.angles)):
            raise ValueError(f"angles of the knots must rise within 0..1, got {self.angles}")
        object.__setattr__(self, "weights", tuple(_convex(row) for row in self.weights))
        if len({len(row) for row in self.weights}) > 1:
            raise ValueError("all knots of a schedule need a weight for each parent")

    @classmethod
    def of(cls, weights: Sequence[float] | WeightSchedule) -> WeightSchedule:
        """A schedule as it is, or constant weights."""
        return weights if isinstance(weights, cls) else cls(weights=(tuple(weights),))

    @property
    def count(self) -> int:
        """How many parents it weighs."""
        return len(self.weights[0])

    @property
    def constant(self) -> bool:
        """Whether the weights are the same at all levels."""
        return len(set(self.weights)) == 1

    def at(self, s: float, parent: int) -> float:
        """The weight of a parent at noise-to-signal ratio `s`."""
        angle = math.atan(s) * 2 / math.pi
        after = next((knot for knot, limit in enumerate(self.angles) if angle < limit), len(self.angles))
        if after in (0, len(self.angles)):
            return self.weights[min(after, len(self.angles) - 1)][parent]
        left, right = self.angles[after - 1], self.angles[after]
        part = (angle - left) / (right - left)
        return (1 - part) * self.weights[after - 1][parent] + part * self.weights[after][parent]

    def mean(self, parent: int) -> float:
        """The mean weight of a parent over the knots; 0 only if it is 0 everywhere."""
        return math.fsum(row[parent] for row in self.weights) / len(self.weights)


@dataclass(frozen=True)
class Leaf:
    """A parent that is no mixture, with the schedules whose product is its weight."""

    policy: Policy
    factors: tuple[tuple[WeightSchedule, int], ...]

    def weight(self, s: float) -> float:
        return math.prod(schedule.at(s, place) for schedule, place in self.factors)

    @property
    def mean(self) -> float:
        return math.prod(schedule.mean(place) for schedule, place in self.factors)

    @property
    def constant(self) -> bool:
        return all(schedule.constant for schedule, _ in self.factors)


@CompositionConfig.register_subclass("convex")
@dataclass(frozen=True, kw_only=True)
class ConvexConfig(CompositionConfig):
    """Settings of a mixture."""

    RENAMED: ClassVar[dict[str, str]] = {"execute": "n_action_steps"}  # former names that are still read

    weights: WeightSchedule
    sampler: Sampler | None = None  # none: the parents' own, of the one with most steps
    n_action_steps: int | None = None  # E, actions executed of each action chunk; none: the least of the parents'
    adapt: Adapt | None = None  # where network evaluations are skipped; none: nowhere

    def build(self, parents: Sequence[Policy]) -> Mixture:
        return Mixture(
            parents, self.weights, sampler=self.sampler, n_action_steps=self.n_action_steps, adapt=self.adapt
        )


class Mixture(nn.Module, Policy):
    """A `Policy` by the convex combination of its parents' fields.

    Args:
        parents: policies with a field; mixtures among them are taken apart.
        weights: one a parent, none negative, together 1; or a schedule.
        sampler: how plans are drawn; default that of the parents, the one with most steps where they differ.
        n_action_steps: E; default the least of the parents'.
        adapt: where network evaluations are skipped; None: nowhere. `evaluations` counts those made.
    Raises:
        ParentsError: parents that do not compose (`parents.check_parents`).
        ValueError: weights that are not convex or not one a parent.
    """

    def __init__(
        self,
        parents: Sequence[Policy],
        weights: Sequence[float] | WeightSchedule,
        *,
        sampler: Sampler | None = None,
        n_action_steps: int | None = None,
        adapt: Adapt | None = None,
    ):
        super().__init__()
        check_parents(parents)
        self.parents, self.weights = tuple(parents), WeightSchedule.of(weights)
        if self.weights.count != len(self.parents):
            raise ValueError(f"{len(self.parents)} parents need as many weights, got {self.weights.count}")

        # nested mixtures become leaves
        self.networks = nn.ModuleList(parent for parent in parents if isinstance(parent, nn.Module))
        self.leaves = tuple(leaf for leaf in _leaves(self.parents, self.weights) if leaf.mean > 0)
        active = [leaf.policy for leaf in self.leaves]

        # one scale, window and embodiment for all
        self.action_scale = common_scale([policy.action_scale for policy in active])
        self.fits = tuple(fit_scale(policy.action_scale, self.action_scale) for policy in active)
        _warn(self.fits)
        self.window, self.inputs = union_window(active), union_inputs(active)
        self.embodiment = union_embodiment(active)

        # tokens by offset, and who owns them
        self._places = tuple(places(policy.window.actions, self.window.actions) for policy in active)
        owners = [set(policy.window.actions) for policy in active]
        self._owned = [{i for i, own in enumerate(owners) if at in own} for at in self.window.actions]

        # how it acts
        self._own_sampler, self._told_sampler, self._told_n_action_steps = _sampler(active), sampler, n_action_steps
        self.adapt, self.evaluations = adapt, [0] * len(active)  # calls of each leaf's network, for all lanes at once
        self.n_action_steps = n_action_steps or min(policy.n_action_steps for policy in active)
        if not 1 <= self.n_action_steps <= self.window.horizon:
            raise ValueError(
                f"n_action_steps must be within 1..{self.window.horizon} (the horizon), got {self.n_action_steps}"
            )

    @property
    def sampler(self) -> Sampler:
        """How plans are drawn."""
        return self._told_sampler or self._own_sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        self._told_sampler = sampler

    @property
    def config(self) -> ConvexConfig:
        """The settings that rebuild this mixture from its parents."""
        return ConvexConfig(
            weights=self.weights, sampler=self.sampler, n_action_steps=self.n_action_steps, adapt=self.adapt
        )

    def weighted(self, weights: Sequence[float] | WeightSchedule) -> Mixture:
        """The same parents with other weights; networks are shared, not copied."""
        settings = {"sampler": self._told_sampler, "n_action_steps": self._told_n_action_steps, "adapt": self.adapt}
        with warnings.catch_warnings():  # the parents are the same: what they differ in was said
            warnings.simplefilter("ignore", AnisotropyWarning)
            return Mixture(self.parents, weights, **settings).train(self.training)

    def adapted(self, adapt: Adapt | None) -> Mixture:
        """The same mixture sparing other evaluations; networks are shared, not copied."""
        changed = self.weighted(self.weights)
        changed.adapt = adapt
        return changed

    def field(self, past: Past, n: int) -> Field:
        """The composed denoiser for `n` candidates a lane; each parent encodes its observations here, once."""
        past = past.at(self.window)
        own = [leaf.policy.field(past, n) for leaf in self.leaves]
        fields = [reconciled(field, fit, past.actions) for field, fit in zip(own, self.fits, strict=True)]
        low, high = noise_range(fields)
        shape = (len(past.now), n, len(self.window.actions), len(self.embodiment.action))
        constant = self._token_weights(1.0, past.actions) if all(leaf.constant for leaf in self.leaves) else None
        ask = [
            field if place is None else lambda y, s, field=field, place=place: field(y[:, :, place], s)
            for field, place in zip(fields, self._places, strict=True)
        ]
        asked = Asked(self.adapt, ask, self._within, self.evaluations)

        def denoise(y: Tensor, s: float) -> Tensor:
            tokens, heavy = self._token_weights(s, y) if constant is None else constant
            found = zip(asked(y, s, heavy), self._places, tokens, strict=True)
            return _added([_term(y, *each) for each in found if each[0] is not None])

        return Field(denoise, shape, self.window.actions, low, high)

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane; all parents see the same noise. One parent alone plans as it does by itself."""
        alone = self.leaves[0].policy
        if len(self.leaves) == 1 and self.sampler == alone.sampler:
            return alone.plan(past.at(self.window), n, rng)
        return walk(self, past, n, rng)

    def _within(self, i: int, j: int, estimate: Tensor) -> Tensor | None:
        """The tokens of leaf i in an estimate of leaf j; None where j lacks some."""
        own, held = (self.leaves[k].policy.window.actions for k in (i, j))
        if own == held:
            return estimate
        return estimate[:, :, places(own, held)] if set(own) <= set(held) else None

    def _token_weights(self, s: float, like: Tensor) -> tuple[list[float | Tensor], list[float]]:
        """At level `s` each leaf's weights, a number or (T', 1) for its T' tokens; and its greatest weight."""
        now, means = [leaf.weight(s) for leaf in self.leaves], [leaf.mean for leaf in self.leaves]
        tokens, heavy = [], []
        for row, place in zip(_renormalised(now, means, self._owned), self._places, strict=True):
            own = row if place is None else row[place] if isinstance(place, slice) else [row[i] for i in place]
            tokens.append(own[0] if len(set(own)) == 1 else like.new_tensor(own)[:, None])
            heavy.append(max(own))
        return tokens, heavy


def _term(y: Tensor, estimate: Tensor, place: slice | list[int] | None, weight: float | Tensor) -> Tensor:
    """What a parent adds to the composed estimate: zero for tokens that it does not own."""
    if place is None:
        return estimate if isinstance(weight, float) and weight == 1 else estimate * weight
    term = torch.zeros_like(y)
    term[:, :, place] = estimate * weight
    return term


def _renormalised(weights: Sequence[float], means: Sequence[float], owned: list[set[int]]) -> list[list[float]]:
    """[parent][token] weights over the owners of each token.

    Owners that all weigh nothing at this level share the token by their mean weights.
    """
    table = [[0.0] * len(owned) for _ in weights]
    for token, owners in enumerate(owned):
        total = math.fsum(weights[i] for i in owners)
        source = weights if total > 0 else means
        total = total or math.fsum(means[i] for i in owners)
        for i in owners:
            table[i][token] = source[i] / total
    return table


def _added(terms: list[Tensor]) -> Tensor:
    """The sum, whatever the order of the terms."""
    if len(terms) == 1:
        return terms[0]
    if len(terms) == 2:
        return terms[0] + terms[1]
    return torch.stack(terms).sort(0).values.sum(0)


def _leaves(parents: Sequence[Policy], weights: WeightSchedule) -> list[Leaf]:
    found = []
    for place, parent in enumerate(parents):
        inner = parent.leaves if isinstance(parent, Mixture) else (Leaf(parent, ()),)
        found += [dataclasses.replace(leaf, factors=((weights, place), *leaf.factors)) for leaf in inner]
    return found


def _sampler(policies: Sequence[Policy]) -> Sampler:
    """The parents' own way along the path; jumps of one-step policies are none, unless such a policy is alone."""
    walking = [policy.sampler for policy in policies if len(policies) == 1 or not isinstance(policy, OneStepPolicy)]

    def much(one: Sampler) -> tuple:
        bound = math.inf if one.clip is None else one.clip
        return one.steps, list(Solver).index(one.solver), one.scheduler or "", bound

    return max(walking or [Sampler()], key=much)


def _convex(row: Sequence[float]) -> tuple[float, ...]:
    shown = ", ".join(f"{weight:g}" for weight in row)
    if not row or any(not weight >= 0 for weight in row):
        raise ValueError(f"convex weights are not negative, got ({shown})")
    total = math.fsum(row)
    if not abs(total - 1) <= 1e-6:
        raise ValueError(f"convex weights sum to 1, got ({shown}), which sums to {total:g}")
    return tuple(float(weight) / total for weight in row)


def _warn(fits: Sequence[ScaleFit]) -> None:
    spread = max(fit.spread for fit in fits)
    if spread > EXACT:
        warnings.warn(
            f"the parents' action scales differ by up to {spread:.1%} from one common factor: the noise that a parent"
            " sees is a little anisotropic, and it is asked at the geometric mean level",
            AnisotropyWarning,
            stacklevel=3,
        )
