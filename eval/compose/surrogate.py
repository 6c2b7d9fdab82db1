"""A small Gaussian process of success over the weights of a mixture, for the search by `top_two`.

The logit of a success rate gets a Gaussian process with a squared-exponential kernel over weights; what was seen of a
weight enters as its empirical logit with the variance that its number of episodes gives. Mean, reach and height of
the process are chosen by marginal likelihood from a few candidates. Made for some tens of weights. It ignores that
weights share their initial conditions. Source: Rasmussen and Williams 2006, algorithm 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

REACH = (0.1, 0.2, 0.35, 0.6)  # share of weight that must move for success to become another
HEIGHT = (0.3, 0.8, 1.6)  # standard deviation of the logit over weights
PRIOR = 0.5  # pseudo-episodes of either outcome
TRIES = 50  # draws until another weight than the first one leads
JITTER = 1e-8


@dataclass(frozen=True)
class Surrogate:
    """Posterior of the logits at all points."""

    points: tuple[tuple[float, ...], ...]
    mean: np.ndarray  # (k,)
    root: np.ndarray  # (k, k) square root of the covariance

    @classmethod
    def fit(cls, points: Sequence[tuple], outcomes: Mapping[tuple, Sequence[float]]) -> Surrogate:
        """From the outcomes (each in [0, 1]) of some of the points."""
        at = np.array(points)
        seen = np.array([i for i, point in enumerate(points) if len(outcomes[point])])
        n = np.array([len(outcomes[points[i]]) for i in seen], float)
        won = np.array([float(np.sum(outcomes[points[i]])) for i in seen]) + PRIOR
        lost = n + 2 * PRIOR - won
        logit, noise = np.log(won / lost), 1 / won + 1 / lost
        away = np.abs(at[:, None] - at[None]).sum(-1) / 2
        kernel, inverse, level = _fitted(away, seen, logit, noise)
        across = kernel[:, seen]
        covariance = kernel - across @ inverse @ across.T
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
        return cls(tuple(points), level + across @ inverse @ (logit - level), vectors * np.sqrt(values.clip(0)))

    def rates(self) -> np.ndarray:
        """(k,) success rates at the posterior mean."""
        return 1 / (1 + np.exp(-self.mean))

    def ask(self, going: Sequence[tuple], rng: np.random.Generator) -> tuple:
        """The weight to play next: the leader of a draw, or with probability 1/2 another draw's."""
        index = [self.points.index(w) for w in going]

        def leader() -> int:
            draw = self.mean + self.root @ rng.standard_normal(len(self.mean))
            return index[int(draw[index].argmax())]

        first = leader()
        if rng.random() < 0.5:
            return self.points[first]
        others = (leader() for _ in range(TRIES))
        return self.points[next((point for point in others if point != first), first)]


def _fitted(away: np.ndarray, seen: np.ndarray, logit: np.ndarray, noise: np.ndarray) -> tuple:
    """(kernel (k, k), inverse covariance of what was seen, constant mean) of the likeliest candidate."""
    reach, height = (part.reshape(-1, 1, 1) for part in np.meshgrid(REACH, HEIGHT))
    kernels = height**2 * np.exp(-0.5 * (away / reach) ** 2)
    inner = kernels[:, seen][:, :, seen] + np.diag(noise + JITTER)
    inverses = np.linalg.inv(inner)
    level = (inverses @ logit).sum(1) / inverses.sum((1, 2))
    rest = logit - level[:, None]
    fit = -0.5 * np.einsum("ci,cij,cj->c", rest, inverses, rest) - 0.5 * np.linalg.slogdet(inner)[1]
    best = int(fit.argmax())
    return kernels[best], inverses[best], float(level[best])
