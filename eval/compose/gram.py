"""Which weights a mixture should have by its denoising error on demonstrations: the cheap predictor of GPC.

At one noisy chunk a convex mixture's residual is the mixture of its parents' residuals r_i = D_i(y, s) - x0, so its
mean squared error is the quadratic Q(w) = w' G w of the Gram matrix G_ij = E <r_i, r_j>. For two parents its least
point is w_1 = (G_22 - G_12) / (G_11 + G_22 - 2 G_12), which is Proposition 4.1 of GPC (arXiv 2510.01068) with their
bias and noise put together; it lies strictly inside exactly if mixing has a lower error than either parent.

Levels: those that a sampler walks, evenly spaced in the angle, all counted alike. Errors are in epsilon, as in the
paper (residuals divided by s, which stresses low noise), in the clean chunk (`x0`) or in v, the training loss of
prediction type v. Tokens: future actions that every parent owns, inside the demonstration. A lower denoising error does
not have to be a better policy; the search by rollouts decides. Knows nothing of worlds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.intervals import Interval

if TYPE_CHECKING:
    from torch import Tensor

    from ...configs.spec import Window
    from ...policies.policy import Field, Past, Policy, Scale

Noisy = Callable[["Tensor", float], "Tensor"]  # y (B, T, D), s -> clean estimates (P, B, T, D) of P models


class Error(Enum):
    """In which coordinate denoising is wrong."""

    epsilon = "epsilon"  # of the noise: residual / s
    x0 = "x0"  # of the clean chunk
    v = "v"  # residual * sqrt(1 + s^2) / s

    def weight(self, levels: np.ndarray) -> np.ndarray:
        """(L,) factor of the squared residual at each level."""
        return {Error.epsilon: levels**-2, Error.x0: np.ones_like(levels), Error.v: 1 + levels**-2}[self]


@dataclass(frozen=True)
class Residuals:
    """Products of residuals, summed over tokens and dimensions, by episode and level."""

    products: np.ndarray  # (E, L, P, P)
    count: np.ndarray  # (E,) numbers summed at each level
    levels: np.ndarray  # (L,) noise-to-signal ratios

    def gram(self, error: Error, draws: np.ndarray | None = None) -> np.ndarray:
        """(P, P), or (R, P, P) for R weightings `draws` (R, E) of the episodes."""
        by_episode = np.einsum("elij,l->eij", self.products, error.weight(self.levels)) / len(self.levels)
        draws = np.ones((1, len(self.count))) if draws is None else draws
        gram = np.einsum("re,eij->rij", draws, by_episode) / (draws @ self.count)[:, None, None]
        return gram[0] if len(gram) == 1 else gram


@dataclass(frozen=True)
class Prediction:
    """What denoising errors say about the weights."""

    error: Error
    weights: tuple[float, ...]  # least predicted error
    intervals: tuple[Interval, ...]  # of each weight, bootstrap over episodes, 95 %
    gram: tuple[tuple[float, ...], ...]
    inside: float  # part of the resamples in which every parent has a share
    episodes: int
    numbers: int  # tokens times dimensions, at each level
    about: str = ""  # which demonstrations

    def q(self, weights: Sequence[float]) -> float:
        """Predicted mean squared error of a mixture."""
        w = np.asarray(weights)
        return float(w @ np.asarray(self.gram) @ w)

    @property
    def gain(self) -> float:
        """Part of the best parent's error that the best mixture saves."""
        return 1 - self.q(self.weights) / min(np.diag(self.gram))


def predict(
    products: Residuals, error: Error, rng: np.random.Generator, draws: int = 2000, about: str = ""
) -> Prediction:
    """Best weights and their interval.

    Raises:
        ValueError: fewer than two episodes.
    """
    episodes = len(products.count)
    if episodes < 2:
        raise ValueError(f"an interval over episodes needs at least two of them, got {episodes}")
    best = least(products.gram(error))
    drawn = least(products.gram(error, rng.multinomial(episodes, np.full(episodes, 1 / episodes), draws)))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    intervals = tuple(Interval(*map(float, ends)) for ends in zip(low, best, high, strict=True))
    gram = tuple(tuple(row) for row in products.gram(error).tolist())
    inside = float((drawn > 1e-9).all(1).mean())
    numbers = int(products.count.sum())
    return Prediction(error, tuple(best.tolist()), intervals, gram, inside, episodes, numbers, about)


def least(gram: np.ndarray) -> np.ndarray:
    """(..., P) convex weights w of the least w' G w, for (..., P, P) positive semidefinite G.

    Exact: the least point of every face of the simplex is found, the best feasible one is taken. At most 10 parents.
    """
    gram = np.asarray(gram, np.float64)
    parents, flat = gram.shape[-1], gram.reshape(-1, *gram.shape[-2:])
    best, value = np.zeros((len(flat), parents)), np.full(len(flat), np.inf)

    for size in range(1, parents + 1):
        for face in map(list, itertools.combinations(range(parents), size)):
            inner = flat[:, face][:, :, face]
            ridge = 1e-12 * np.trace(inner, axis1=1, axis2=2)[:, None, None] * np.eye(size)
            rays = np.linalg.solve(inner + ridge + 1e-300 * np.eye(size), np.ones((len(flat), size, 1)))[..., 0]

            # least point of this face
            total = rays.sum(1, keepdims=True)
            w = rays / np.where(total == 0, np.nan, total)
            q = np.einsum("bi,bij,bj->b", w, inner, w)

            # inside it, and below the others
            better = (w >= 0).all(1) & np.isfinite(q) & (q < value * (1 - 1e-12))
            value[better] = q[better]
            best[better] = 0
            best[np.ix_(better, face)] = w[better]

    return best.reshape(*gram.shape[:-1])


def r_squared(weights: Sequence[Sequence[float]], errors: Sequence[float], gram) -> float:
    """How much of the variance of measured errors the quadratic w' G w explains (1 - residual / total)."""
    w, errors = np.asarray(weights), np.asarray(errors)
    rest = errors - np.einsum("ni,ij,nj->n", w, np.asarray(gram), w)
    return float(1 - (rest**2).sum() / ((errors - errors.mean()) ** 2).sum())


def residuals(batches: Iterable[tuple], levels: Sequence[float], seed: int = 0) -> Residuals:
    """Products of the residuals of P models on all batches, at noise that they share.

    Args:
        batches: of (clean (B, T, D), counts (B, T) bool, episode (B,), denoise): the chunk in the common scaled space,
            tokens that count, and a `Noisy`.
        seed: of the noise.

    Raises:
        ValueError: no token counts.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, float] = {}
    for clean, valid, episode, denoise in batches:
        keep = valid[..., None].to(clean.dtype)
        products = []
        for s in levels:
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            with torch.no_grad():
                rest = ((denoise(clean + s * noise, s) - clean) * keep).flatten(2).double()
            products.append(torch.einsum("ibt,jbt->bij", rest, rest).cpu().numpy())
        numbers = (valid.sum(1) * clean.shape[-1]).cpu().numpy()
        for place, index in enumerate(episode.tolist()):
            sums[index] = sums.get(index, 0) + np.stack([level[place] for level in products])
            counts[index] = counts.get(index, 0) + float(numbers[place])
    counted = sorted(index for index in sums if counts[index])
    if not counted:
        raise ValueError("no action of these demonstrations counts: the parents share no future token inside of them")
    return Residuals(
        np.stack([sums[index] for index in counted]),
        np.array([counts[index] for index in counted]),
        np.array(levels),
    )


def noisy_batches(
    policies: Sequence[Policy], scale: Scale, gathered: Iterable[Mapping[str, Tensor]]
) -> Iterator[tuple]:
    """What `residuals` takes, for policies on windows of `common_window`; `scale` is that of the common space.

    Each policy sees the part of the noisy chunk that it owns; only future tokens that all own count. Policies and scale
    lie on one device.
    """
    import torch

    from ...policies.compositions.parents import places
    from ...policies.policy import past_of

    window, inputs = common_window(policies)
    shared = set.intersection(*(set(policy.window.actions) for policy in policies))
    device = scale.mean.device
    future = torch.tensor([offset >= 0 and offset in shared for offset in window.actions], device=device)
    where = [places(policy.window.actions, window.actions) for policy in policies]
    for batch in gathered:
        batch = {key: value.to(device) for key, value in batch.items()}
        fields = _fields(policies, scale, past_of(batch, window, inputs))

        def denoise(y: Tensor, s: float, fields=fields) -> Tensor:
            clean_of = y.new_zeros(len(policies), *y.shape)
            for i, (field, place) in enumerate(zip(fields, where, strict=True)):
                own = slice(None) if place is None else place
                clean_of[i][:, own] = field(y[:, None, own], s)[:, 0]
            return clean_of

        clean = scale.scale(batch["action"])
        yield clean, batch["action.valid"] & future, batch["episode"], denoise


def common_window(policies: Sequence[Policy]) -> tuple[Window, tuple[str, ...]]:
    """The window and the observation keys that a dataset must be gathered with."""
    from ...policies.compositions.parents import union_inputs, union_window

    return union_window(policies), union_inputs(policies)


def shared_levels(policies: Sequence[Policy], scale: Scale, batch: Mapping[str, Tensor], steps: int) -> list[float]:
    """The levels that a sampler of `steps` steps walks through, within what all policies are defined on."""
    from ...policies.compositions.parents import noise_range
    from ...policies.field import noise_levels
    from ...policies.policy import past_of

    window, inputs = common_window(policies)
    batch = {key: value.to(scale.mean.device) for key, value in batch.items()}
    return noise_levels(steps, *noise_range(_fields(policies, scale, past_of(batch, window, inputs))))[:-1]


def _fields(policies: Sequence[Policy], scale: Scale, past: Past) -> list[Field]:
    from ...policies.compositions.parents import fit_scale, reconciled

    fits = [fit_scale(policy.action_scale, scale) for policy in policies]
    return [
        reconciled(policy.field(past.at(policy.window), 1), fit, past.actions)
        for policy, fit in zip(policies, fits, strict=True)
    ]
