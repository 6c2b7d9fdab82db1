"""What the parents of a composition must have in common, and how the rest is brought together.

Parents compose where they mean the same by an action: the action part of their embodiments must be equal. Each has its
own action scale; an offset and one common factor between two scales are reconciled exactly. With the common space x and
a parent's own space c x + d, noise of level s in the common space is noise of level c s in the parent's, so

    D'(y, s) = (D(c y + d, c s) - d) / c.

Factors that differ over dimensions make the parent's noise anisotropic. Within 10 % of one common factor the parent is
asked at the geometric mean of the levels, with a warning (`anisotropy_cost` measures what that costs); beyond, the
parents are refused. Tokens are aligned by offset in control steps. This file knows nothing of weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...configs.protocols import keeps, missing
from ...configs.spec import SCENE, STATE, Embodiment, EmbodimentError, Window
from ..policy import Field, Policy, Scale, past_of

ANISOTROPY = 0.1  # greatest departure of a dimension's factor from the common one
EXACT = 1e-6  # departures below it are rounding


class ParentsError(ValueError):
    """Policies that cannot be composed; the message names the parents and the difference."""


class AnisotropyWarning(UserWarning):
    """Action scales whose ratios differ a little over dimensions."""


@dataclass(frozen=True)
class ScaleFit:
    """How a parent's own scaled space lies beside the common one: own = factor * common + offset, per dimension."""

    factor: Tensor  # (D,) float64
    offset: Tensor  # (D,) float64

    @property
    def level(self) -> float:
        """The one factor between the noise levels: the geometric mean."""
        return float(self.factor.log().mean().exp())

    @property
    def spread(self) -> float:
        """Greatest departure of a dimension from the common factor, as a part of it."""
        return float((self.factor.log() - self.factor.log().mean()).abs().max().exp()) - 1

    @property
    def same(self) -> bool:
        """Whether the two spaces are one."""
        return bool((self.factor == 1).all()) and bool((self.offset == 0).all())


def check_parents(policies: Sequence[Policy]) -> None:
    """Refuse what does not compose.

    Raises:
        ParentsError: no parents, one without a field, action parts or shared observations that differ, or action
            scales that depart more than 10 % from one common factor.
    """
    if not policies:
        raise ParentsError("a composition needs at least one parent")
    for place, policy in enumerate(policies, 1):
        if not keeps(policy, Policy):
            lacks = missing(policy, Policy)
            kind = f"parent {place} ({type(policy).__name__})"
            raise ParentsError(f"{kind} has no {lacks[0]}, so it is a planner and no policy: it acts but does not nest")
    for (i, one), (j, other) in itertools.combinations(enumerate(policies, 1), 2):
        shared = tuple(key for key in one.inputs if key in other.inputs)
        try:
            one.embodiment.check(other.embodiment, shared)
        except EmbodimentError as error:
            raise ParentsError(f"parents {i} and {j} cannot be composed: {error}") from error
        _check_scales(i, one, j, other)


def _check_scales(i: int, one: Policy, j: int, other: Policy) -> None:
    fit = fit_scale(one.action_scale, other.action_scale)
    if fit.spread > ANISOTROPY:
        worst = int((fit.factor / fit.level).log().abs().argmax())
        raise ParentsError(
            f"the action scales of parents {i} and {j} have no common factor: '{one.embodiment.action[worst]}' has"
            f" {float(fit.factor[worst]):.4g}, the mean is {fit.level:.4g} (at most {ANISOTROPY:.0%} apart); train both"
            " with one scale: --scale from:RUN"
        )


def fit_scale(own: Scale, common: Scale) -> ScaleFit:
    """How `own` lies beside `common`."""
    mean, std, to_mean, to_std = (part.detach().cpu().double() for part in (own.mean, own.std, common.mean, common.std))
    return ScaleFit(to_std / std, (to_mean - mean) / std)


def common_scale(scales: Sequence[Scale]) -> Scale:
    """The widest of the scales, so that its bounds cut no parent's actions; the choice does not depend on the order."""

    def width(scale: Scale) -> tuple:
        return float(scale.std.double().log().mean()), scale.std.tolist(), scale.mean.tolist()

    widest = max(scales, key=width)
    return Scale(widest.mean.detach(), widest.std.detach())


def reconciled(field: Field, fit: ScaleFit, like: Tensor) -> Field:
    """A parent's field in the common space; `like` gives type and device. The same field if the spaces are one."""
    if fit.same:
        return field
    factor, offset, level = fit.factor.to(like), fit.offset.to(like), fit.level

    def denoise(y: Tensor, s: float) -> Tensor:
        return (field(torch.addcmul(offset, y, factor), s * level) - offset) / factor

    return Field(denoise, field.shape, field.times, field.sigma_min / level, field.sigma_max / level)


def places(times: tuple[int, ...], among: tuple[int, ...]) -> slice | list[int] | None:
    """Where the tokens at offsets `times` stand in `among`: None for all of it, a slice where they lie together."""
    if times == among:
        return None
    found = [among.index(offset) for offset in times]
    together = found == list(range(found[0], found[0] + len(found)))
    return slice(found[0], found[0] + len(found)) if together else found


def noise_range(fields: Sequence[Field]) -> tuple[float, float]:
    """The levels at which all fields are defined. Raises ParentsError if there are none."""
    low, high = max(field.sigma_min for field in fields), min(field.sigma_max for field in fields)
    if not low < high:
        ranges = ", ".join(f"{field.sigma_min:g}..{field.sigma_max:g}" for field in fields)
        raise ParentsError(f"the parents have no noise level in common: they are defined on {ranges}")
    return low, high


def union_window(policies: Sequence[Policy]) -> Window:
    """All that some parent looks at and all tokens that some parent owns."""
    return Window.union(*(policy.window for policy in policies))


def union_inputs(policies: Sequence[Policy]) -> tuple[str, ...]:
    """Observation keys that some parent reads, sorted."""
    return tuple(sorted({key for policy in policies for key in policy.inputs}))


def union_embodiment(policies: Sequence[Policy]) -> Embodiment:
    """The common body, offering what the parents read."""
    bodies = [policy.embodiment for policy in policies]

    def reader(key: str) -> Embodiment:
        return next((policy.embodiment for policy in policies if key in policy.inputs), bodies[0])

    state, scene = reader(STATE), reader(SCENE)
    return dataclasses.replace(
        bodies[0],
        state=state.state,
        state_units=state.state_units,
        scene=scene.scene,
        scene_units=scene.scene_units,
        cameras={name: size for body in reversed(bodies) for name, size in body.cameras.items()},
    )


@dataclass(frozen=True)
class Cost:
    """Denoising error of one parent at one level: mean square over windows, tokens and dimensions of its own space."""

    level: float  # noise-to-signal ratio in the common space
    isotropic: float  # with the noise that it was trained for
    anisotropic: float  # with the noise that the composition shows it
    windows: int


@torch.no_grad()
def anisotropy_cost(
    policy: Policy, common: Scale, batches: Iterable[Mapping[str, Tensor]], levels: Sequence[float], seed: int = 0
) -> list[Cost]:
    """What being asked at the geometric mean level costs a parent, on held-out windows of its own window and needs.

    Args:
        common: action scale of the composition.
        batches: of `data.windows.Windows.gather`.
        levels: noise-to-signal ratios in the common space.
        seed: of the noise; both errors see the same draws.
    """
    fit, generator = fit_scale(policy.action_scale, common), torch.Generator().manual_seed(seed)
    sums, weight, windows = torch.zeros(len(levels), 2, dtype=torch.float64), 0.0, 0
    for batch in batches:
        field = policy.field(past_of(batch, policy.window, policy.inputs), 1)
        clean, valid = policy.action_scale.scale(batch["action"]), batch["action.valid"].double()
        weight, windows = weight + float(valid.sum()), windows + len(clean)
        for row, level in enumerate(levels):
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            for column, step in enumerate((fit.level * level, fit.factor.to(clean) * level)):
                found = field((clean + step * noise)[:, None], fit.level * level)[:, 0]
                sums[row, column] += ((found - clean).square().mean(-1).double() * valid).sum().cpu()
    if not windows or not math.isfinite(float(sums.sum())):
        raise ValueError("the cost of anisotropy needs held-out windows with finite actions; there are none")
    return [Cost(s, *(row / weight).tolist(), windows) for s, row in zip(levels, sums, strict=True)]
