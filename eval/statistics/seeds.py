"""What several training seeds say: intervals over seeds, IQM, performance profiles, probability of improvement.

The unit is one trained policy; a score is a rate or mean over many episodes of it. Episodes of one policy say nothing
about the next training, so a single seed gets an interval "for this checkpoint" only. Sources: Agarwal et al. 2021
(rliable; IQM, stratified bootstrap, profiles, probability of improvement), Student's t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .distributions import t_isf
from .intervals import Interval, wilson

BATCH = 500  # resamples that are held at a time


class Band(NamedTuple):
    """A curve between its two ends, pointwise; arrays of one shape."""

    low: np.ndarray
    estimate: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class SeedStatement:
    """An interval of a success rate, and what it is an interval for."""

    interval: Interval
    seeds: int
    scope: str  # "over 5 training seeds", or "for this checkpoint ..."

    def __str__(self) -> str:
        return f"{self.interval} {self.scope}"


def over_seeds(successes, episodes, confidence: float = 0.95) -> SeedStatement:
    """The success rate of a training recipe from `successes` of `episodes` of each of its training seeds.

    Two seeds or more: Student's t over the rates of the seeds, never narrower than Wilson's interval of all episodes
    together (seeds that agree by chance would promise too much). One seed: Wilson's, for this checkpoint only.

    Args:
        successes, episodes: (seeds,) counts.

    Raises:
        ValueError: counts that make no rate.
    """
    successes, episodes = np.atleast_1d(successes), np.atleast_1d(episodes)
    if successes.shape != episodes.shape or successes.ndim != 1 or not len(successes):
        raise ValueError(f"give one count of successes and one of episodes a seed: {successes.shape}, {episodes.shape}")

    pooled = wilson(int(successes.sum()), int(episodes.sum()), confidence)
    if len(successes) == 1:
        return SeedStatement(pooled, 1, "for this checkpoint; one training seed says nothing about the next")

    rates = np.array(
        [wilson(int(won), int(n), confidence).estimate for won, n in zip(successes, episodes, strict=True)]
    )
    spread = t_interval(rates, confidence)

    low, high = min(spread.low, pooled.low), max(spread.high, pooled.high)
    interval = Interval(max(0.0, low), float(rates.mean()), min(1.0, high))
    return SeedStatement(interval, len(rates), f"over {len(rates)} training seeds")


def t_interval(values, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of at least two independent values.

    Raises:
        ValueError: fewer than two values.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError("an interval over training seeds needs two seeds; one speaks for this checkpoint only")
    half = t_isf((1 - confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - half), float(values.mean()), float(values.mean() + half))


def iqm(scores, *, episodes: int) -> float:
    """Interquartile mean: the mean of what remains when a quarter is cut from either end.

    Args:
        scores: (seeds, tasks) or (seeds,), each the mean over `episodes` episodes of one trained policy.
        episodes: how many episodes stand behind each score.

    Raises:
        ValueError: scores of single episodes.
    """
    return float(_iqm(_matrix(scores, episodes)))


def iqm_interval(scores, rng: np.random.Generator, *, episodes: int, confidence=0.95, draws: int = 10_000) -> Interval:
    """IQM with its stratified bootstrap interval; arguments as `iqm`."""
    low, estimate, high = stratified_bootstrap(_matrix(scores, episodes), _iqm, rng, confidence, draws)
    return Interval(float(low), float(estimate), float(high))


def optimality_gap(scores, *, episodes: int, target: float = 1.0) -> float:
    """Mean shortfall of the scores below `target`; arguments as `iqm`."""
    return float(target - np.minimum(_matrix(scores, episodes), target).mean())


def performance_profile(
    scores, levels, rng: np.random.Generator, *, episodes: int, confidence: float = 0.95, draws: int = 2000
) -> Band:
    """Share of the scores above each level, with pointwise bootstrap bands; (levels,) arrays. Arguments as `iqm`."""
    levels = np.asarray(levels, np.float64)

    def shares(samples: np.ndarray) -> np.ndarray:
        flat = samples.reshape(*samples.shape[:-2], -1)
        return np.stack([(flat > level).mean(-1) for level in levels], -1)

    return stratified_bootstrap(_matrix(scores, episodes), shares, rng, confidence, draws)


def probability_of_improvement(
    first, second, rng: np.random.Generator, *, episodes: int, confidence: float = 0.95, draws: int = 2000
) -> Interval:
    """Probability that a seed of `second` scores above one of `first` (ties half), mean over tasks, with interval.

    Args:
        first, second: (seeds, tasks) or (seeds,); the numbers of seeds may differ. Others as `iqm`.
    """
    first, second = _matrix(first, episodes), _matrix(second, episodes)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} tasks cannot be compared with {second.shape[1]}")
    drawn = [_improvement(_resample(first, rng, part), _resample(second, rng, part)) for part in _parts(draws)]
    low, high = np.quantile(np.concatenate(drawn), ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(low), float(_improvement(first, second)), float(high))


def stratified_bootstrap(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    confidence: float = 0.95,
    draws: int = 10_000,
) -> Band:
    """Percentile interval of a statistic, resampling seeds within each task independently.

    Args:
        scores: (seeds, tasks).
        statistic: (..., seeds, tasks) -> (...) or (..., m).
    """
    drawn = np.concatenate([statistic(_resample(scores, rng, part)) for part in _parts(draws)])
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)
    return Band(low, statistic(scores), high)


def _matrix(scores, episodes: int) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores are numbers of shape (seeds, tasks) or (seeds,), got shape {scores.shape}")
    if episodes < 2:
        raise ValueError(
            "these scores are single episodes. Their IQM is no success rate: it says .10 for a rate of .3 and .90 for "
            ".7, since the cut removes whole successes or failures. Give one rate for each training seed, or `wilson`"
        )
    return scores


def _iqm(samples: np.ndarray) -> np.ndarray:
    flat = np.sort(samples.reshape(*samples.shape[:-2], -1), -1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def _improvement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., seeds, tasks) twice -> (...)."""
    gap = second[..., :, None, :] - first[..., None, :, :]
    return ((gap > 0) + 0.5 * (gap == 0)).mean((-3, -2, -1))


def _resample(scores: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """(draws, seeds, tasks)."""
    seeds, tasks = scores.shape
    return scores[rng.integers(0, seeds, (draws, seeds, tasks)), np.arange(tasks)]


def _parts(draws: int) -> list[int]:
    return [min(BATCH, draws - begun) for begun in range(0, draws, BATCH)]
