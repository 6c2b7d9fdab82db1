"""Draw windows of good episodes more often: return and advantage weighting (Hong et al. 2023, arXiv 2306.13085).

Only the sampler changes, so anything that the training loop trains can use it. With G_i the return of episode i and
A_i = G_i (returns) or G_i - V(its first state), V a linear regression (advantage), each frame of episode i is drawn,
with replacement, with probability proportional to

    p_i = exp(a_i / alpha) / sum_j exp(a_j / alpha),    a_i = (A_i - min A) / (max A - min A).

The values are scaled to 0..1 before the exponential in both forms. (A public example exponentiates the raw returns in
the first, where alpha then means something else in every dataset.) Nothing here knows what is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from ...configs.episode import REWARD, SUCCESS
from .dataset import Dataset
from .layout import DatasetError

if TYPE_CHECKING:
    from torch import Tensor

FLAT = 1e-9  # values that differ by less than this part of their size are equal


class Outcome(Enum):
    """What counts as the return of an episode."""

    best = "best"  # greatest reward: with progress as reward and success as end, a sum would favour slow episodes
    total = "total"  # sum of rewards
    success = "success"  # 1 if it succeeded at any time, else 0

    @property
    def column(self) -> str:
        return SUCCESS if self is Outcome.success else REWARD


class By(Enum):
    """What makes an episode weigh more."""

    returns = "returns"
    advantage = "advantage"  # what the return exceeds that of a linear regression on the first state


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """How often the frames of which episode are drawn."""

    by: By = By.returns  # what makes an episode weigh more: returns | advantage
    outcome: Outcome = Outcome.best  # what counts as return: best | total | success
    alpha: float = 0.1  # temperature: large is uniform, towards 0 only the best episode remains

    def __post_init__(self):
        if not self.alpha > 0:
            raise ValueError(f"alpha of the weighting must be above 0, got {self.alpha}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Dataset columns that the return is read from."""
        return (self.outcome.column,)

    def weights(self, dataset: Dataset, episodes: np.ndarray, keys: tuple[str, ...]) -> np.ndarray:
        """(M,) float64 weights of a frame of each of these episodes (positions), sum 1; `keys` describe a state.

        Raises:
            DatasetError: the return's column is not loaded or not finite.
            ValueError: too few episodes for the regression, or no state to regress on.
        """
        returns = episode_returns(dataset, self.outcome)[episodes]
        if self.by is By.returns:
            return trajectory_weights(returns, self.alpha)
        if not keys:
            raise ValueError("weighting by advantage needs a state vector among `inputs`; weight by returns instead")
        first = np.concatenate([dataset.columns[key][dataset.starts[episodes]] for key in keys], 1)
        return trajectory_weights(returns - expected_returns(returns, first), self.alpha)


def episode_returns(dataset: Dataset, outcome: Outcome) -> np.ndarray:
    """(M,) float64 return of every episode. Raises DatasetError if its column is not loaded or not finite."""
    key = outcome.column
    if key not in dataset.columns:
        raise DatasetError(f"the return of an episode is read from '{key}', which {dataset.root} does not have")
    values = dataset.columns[key][:, 0].astype(np.float64)
    if not np.isfinite(values).all():
        raise DatasetError(f"'{key}' of {dataset.root} holds NaN or infinite values, so episodes have no return")
    return (np.add if outcome is Outcome.total else np.maximum).reduceat(values, dataset.starts)


def expected_returns(returns: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Least-squares prediction of returns (M,) from states (M, n) and a constant.

    Raises:
        ValueError: not more episodes than coefficients, so that any return is predicted exactly.
    """
    states = states.astype(np.float64)
    varies = states.std(0) > 0
    table = np.column_stack([np.ones(len(states)), states[:, varies] - states[:, varies].mean(0)])
    if len(table) <= table.shape[1]:
        raise ValueError(
            f"weighting by advantage fits {table.shape[1]} numbers to {len(table)} episodes, which explains any return;"
            " add episodes or weight by returns"
        )
    return table @ np.linalg.lstsq(table, returns, rcond=None)[0]


def trajectory_weights(values: np.ndarray, alpha: float) -> np.ndarray:
    """(M,) returns or advantages -> (M,) weights, sum 1. Equal values give equal weights."""
    span = values.max() - values.min()
    if span <= FLAT * max(np.abs(values).max(), 1.0):
        return np.full(len(values), 1 / len(values))
    weights = np.exp(((values - values.min()) / span - 1) / alpha)
    return weights / weights.sum()


class WeightedOrder:
    """Which windows make the batch of a step: drawn with replacement, a function of (seed, step) alone.

    Args:
        weights: (windows,) not negative, in any unit.
        batch: windows a step.
    """

    def __init__(self, weights: np.ndarray, batch: int, seed: int):
        import torch

        below = np.cumsum(weights, dtype=np.float64)
        if not len(below) or not below[-1] > 0:
            raise ValueError("there is no window to train on")
        self.batch, self.seed = batch, seed
        self._below = torch.from_numpy(below / below[-1])

    def indices(self, step: int) -> Tensor:
        """(batch,) int64 positions of the windows of step `step`."""
        import torch

        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
        drawn = torch.rand(self.batch, generator=generator, dtype=torch.float64)
        return torch.searchsorted(self._below, drawn, right=True).clamp(max=len(self._below) - 1)


def successes(dataset: Dataset) -> np.ndarray:
    """(M,) int64 step of each episode's first success, -1 for none."""
    won = dataset.columns[SUCCESS][:, 0] > 0.5
    place = np.where(won, np.arange(len(won)) - np.repeat(dataset.starts, dataset.lengths), len(won))
    first = np.minimum.reduceat(place, dataset.starts)
    return np.where(first < len(won), first, -1)
