"""What a critic's scores are worth beside what happened: plain functions of arrays. Sources: `critic.py`.

Scores are compared by rank wherever their unit is the critic's own. None of these tells whether a critic knows a good
action chunk from a bad one in the same state: a value of the state alone passes all of them. See `within_state.py`
for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

import numpy as np

from ..statistics.intervals import Interval, expanded_tail

DRAWS = 1000


def auc(scores: Sequence[float], won: Sequence[bool]) -> float:
    """Probability that a success scores above a failure; equal scores count half.

    Raises:
        ValueError: no success, or no failure.
    """
    from scipy.stats import rankdata

    scores, won = np.asarray(scores, np.float64), np.asarray(won, bool)
    good, bad = int(won.sum()), int((~won).sum())
    if not good or not bad:
        raise ValueError(f"{good} successes and {bad} failures: both are needed to tell them apart")
    return float((rankdata(scores)[won].sum() - good * (good + 1) / 2) / (good * bad))


def by_episode(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """(N,) values of frames -> those of each episode."""
    return [values[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def with_time_to_go(scores: Sequence[np.ndarray], first: Sequence[int]) -> np.ndarray:
    """Spearman correlation of score and time to go, of each successful episode up to its success: -1 is perfect.

    Args:
        scores: by episode, of its frames.
        first: by episode, the frame of the first success, -1 for none.

    Returns:
        one number for each success of at least 3 frames; 0 where all scores are equal.
    """
    from scipy.stats import rankdata

    correlations = []
    for values, end in zip(scores, first, strict=True):
        ranks = rankdata(values[: end + 1]) if end >= 2 else np.zeros(0)
        if len(ranks):
            ranks = ranks - ranks.mean()
            time = -(np.arange(len(ranks)) - (len(ranks) - 1) / 2)
            norm = np.sqrt((ranks**2).sum() * (time**2).sum())
            correlations.append(float((ranks * time).sum() / norm) if norm else 0.0)
    return np.array(correlations)


def calibration(scores: np.ndarray, returns: np.ndarray, bins: int = 10) -> list[tuple[int, float, float]]:
    """Frames in `bins` equal parts by score: (count, mean score, mean return) of each, lowest score first."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [(len(part), float(scores[part].mean()), float(returns[part].mean())) for part in parts]


def best_of(scores: np.ndarray, worth: np.ndarray, count: int) -> float:
    """Mean `worth` of the candidate with the highest score among `count` of the P of a state; mean over states.

    Exact: every subset of `count` candidates counts alike. Equal scores are taken in the order given.

    Args:
        scores, worth: (S, P).
    """
    plans = scores.shape[1]
    if not 1 <= count <= plans:
        raise ValueError(f"{count} candidates cannot be drawn of {plans}")
    order = np.argsort(-scores, 1, kind="stable")
    chance = np.array([comb(plans - 1 - place, count - 1) for place in range(plans)]) / comb(plans, count)
    return float((np.take_along_axis(worth, order, 1) * chance).sum(1).mean())


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, rng: np.random.Generator) -> Interval:
    """95 % percentile interval of a statistic of the positions of resampled items (episodes, states).

    `statistic` gets (count,) int64 positions; draws for which it raises ValueError are left out. The tails are widened
    for small samples (`intervals.expanded_tail`).
    """
    whole, resampled = statistic(np.arange(count)), []
    for _ in range(DRAWS if count > 1 else 0):
        try:
            resampled.append(statistic(rng.integers(0, count, count)))
        except ValueError:
            continue
    if not resampled:
        return Interval(whole, whole, whole)
    tail = expanded_tail(count, 0.95)
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(low), float(whole), float(high))
