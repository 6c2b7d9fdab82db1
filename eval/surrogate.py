"""A small Gaussian process of success over the weights of a mixture, for the search by `top_two`.

The logit of a success rate gets a Gaussian process with a squared-exponential kernel over weights; what was seen of a
weight enters as its empirical logit with the variance that its number of episodes gives. Mean, reach and height of
the process are chosen by marginal likelihood from a few candidates. Made for some tens of weights. It ignores that
weights share their starts. Source: Rasmussen and Williams 2006, algorithm 2.1.
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
        fits = [_posterior(away, seen, logit, noise, reach, height) for reach in REACH for height in HEIGHT]
        _, mean, covariance = max(fits, key=lambda fit: fit[0])
        values, vectors = np.linalg.eigh(covariance)
        return cls(tuple(points), mean, vectors * np.sqrt(values.clip(0)))

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
        return self.points[next((one for one in others if one != first), first)]


def _posterior(away, seen, logit, noise, reach: float, height: float):
    """(log marginal likelihood, mean (k,), covariance (k, k)); the constant mean is the best fitting one."""
    from scipy.linalg import cho_factor, cho_solve

    kernel = height**2 * np.exp(-0.5 * (away / reach) ** 2)
    inner = kernel[np.ix_(seen, seen)] + np.diag(noise + JITTER)
    factor = cho_factor(inner, lower=True)
    ones = np.ones(len(seen))
    level = (ones @ cho_solve(factor, logit)) / (ones @ cho_solve(factor, ones))
    rest = cho_solve(factor, logit - level)
    likelihood = -0.5 * (logit - level) @ rest - np.log(np.diag(factor[0])).sum()
    across = kernel[:, seen]
    return likelihood, level + across @ rest, kernel - across @ cho_solve(factor, across.T)
