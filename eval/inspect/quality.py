"""How good a dataset is to imitate, before anything is trained on it: `inspect DATA --quality`.

No single number tells (Belkhale et al. 2023, arXiv 2306.02437: the worst robomimic operators have the least action
variance), so several are given, each with a 95 % interval over episodes:

- action consistency and transition diversity: agreement of actions, and disagreement of what follows, at like states of
  *other* episodes (one frame of each of the nearest episodes; frames of one episode say nothing about agreement);
- state distance: how far the nearest state of another episode is, so how local these neighbourhoods are;
- smoothness: spectral arc length of the speed (Balasubramanian et al. 2015), nearer 0 is smoother;
- length; return, as `weighting` reads it; trajectory quality TQ and state-action coverage SACo (Schweighofer et al.
  2022, arXiv 2111.04714), the return and the number of distinct state-action cells relative to a reference dataset.

Works on the vectors of state and scene; looks at no picture. Values are standardised by the dataset (SACo: by the
reference), so numbers of two datasets compare only roughly, those of one with and without some episodes well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...configs.episode import REWARD
from ...configs.progress import counted
from ...configs.spec import ACTION, SCENE, STATE
from ...policies.data.dataset import Dataset
from ...policies.data.layout import DatasetError
from ...policies.data.statistics import statistics
from ...policies.data.weighting import Outcome, episode_returns

QUERIES = 1500  # frames whose neighbourhood is looked at, spread evenly over episodes and within them
NEIGHBOURS = 5  # other episodes in a neighbourhood
DRAWS = 2000  # resamplings of the episodes
BLOCK = 64  # queries searched at a time
AXES, BIN = 4, 0.5  # coverage: principal directions, and the width of a cell in their standard deviations
CUT, FAINT = 10.0, 0.05  # Hz and part of the largest amplitude: what of a spectrum counts as movement


@dataclass(frozen=True)
class Measure:
    """One number about a dataset and its 95 % interval over episodes."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    about: str

    def to_dict(self) -> dict:
        """For JSON: what could not be measured (NaN) is null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {key: x if np.isfinite(x) else None for key, x in numbers.items()} | {"unit": self.unit}


def quality(dataset: Dataset, reference: Dataset | None = None, seed: int = 0) -> tuple[Measure, ...]:
    """Measure a dataset, relative to `reference` where given (TQ, SACo). `seed` is of the resampling.

    Raises:
        DatasetError: no state vector, values that are not finite, fewer than 3 episodes, or an unlike reference.
    """
    if len(dataset.lengths) < 3:
        raise DatasetError(
            f"{dataset.root} has {counted(len(dataset.lengths), 'episode')}; its quality needs at least 3"
        )

    rng = np.random.default_rng(seed)
    states, actions = standard(dataset, _state_keys(dataset)), standard(dataset, (ACTION,))
    agree, change, apart = neighbourhoods(dataset, states, actions)

    rows = [
        ("action consistency", 1 - agree, "", "1: like states, like actions; 0: actions unrelated to the state"),
        ("transition diversity", change, "", "variance of what follows like states and actions, of all variance"),
        ("state distance", apart, "std", "to the nearest state of another episode: how local the two above are"),
        ("smoothness", smoothness(dataset), "", "spectral arc length of the speed; nearer 0 is smoother"),
        ("length", dataset.lengths / dataset.rate, "s", "of an episode"),
    ]
    if REWARD in dataset.columns:
        rows += _returns(dataset, reference)

    measures = [Measure(name, *mean_interval(values, rng), unit, about) for name, values, unit, about in rows]
    return (*measures, _coverage(dataset, reference))


def standard(dataset: Dataset, keys: tuple[str, ...], by: Dataset | None = None) -> np.ndarray:
    """(N, n) columns side by side, standardised with the statistics of `by` (default the dataset); constants left out.

    Raises:
        DatasetError: a value is not finite, or `by` has other columns.
    """
    by, parts = by or dataset, []
    for key, stats in statistics(by, keys).items():
        values = dataset.columns.get(key)
        if values is None or values.shape[1] != len(stats.mean):
            raise DatasetError(
                f"'{key}' of {dataset.root} and of {by.root} have other dimensions; compare like with like"
            )
        if not np.isfinite(values).all():
            raise DatasetError(f"'{key}' of {dataset.root} holds NaN or infinite values; `inspect` shows where")
        varies = stats.min < stats.max
        parts.append(((values - stats.mean) / stats.std)[:, varies])
    return np.concatenate(parts, 1)


def neighbourhoods(
    dataset: Dataset, states: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What other episodes do at like states.

    Returns:
        (M,) each, NaN for episodes of one frame: variance of actions at like states, of all variance; variance of the
        change of state at like states and actions, of all variance; distance to the nearest state, root mean square
        over dimensions, in standard deviations.
    """
    usable = np.ones(len(dataset), bool)
    usable[dataset.starts + dataset.lengths - 1] = False  # nothing follows the last frame

    # What follows each state.
    change = np.zeros_like(states)
    change[:-1] = states[1:] - states[:-1]
    change /= np.maximum(change[usable].std(0), 1e-9)

    # Like states, and like states with like actions.
    rows, owners = _queries(dataset)
    near, apart = nearest(dataset, states, rows, owners, usable)
    alike, _ = nearest(dataset, np.concatenate([states, actions], 1), rows, owners, usable)

    measured = [
        actions[near].var(1, ddof=1).mean(1),
        change[alike].var(1, ddof=1).mean(1),
        apart / np.sqrt(states.shape[1]),
    ]

    # Means by episode.
    with np.errstate(invalid="ignore"):
        count = np.bincount(owners, minlength=len(dataset.lengths))
        each = [np.bincount(owners, values, len(dataset.lengths)) / count for values in measured]
    return each[0], each[1], each[2]


def nearest(
    dataset: Dataset, points: np.ndarray, rows: np.ndarray, owners: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each query the nearest usable frame of each of the nearest other episodes.

    Args:
        points: (N, n); rows: (Q,) frames; owners: (Q,) positions of their episodes; usable: (N,) bool.
    Returns:
        (Q, k) rows, k at most NEIGHBOURS, in no order, and (Q,) distance of the nearest one.
    """
    starts, lengths = dataset.starts, dataset.lengths
    k = min(NEIGHBOURS, int((lengths > 1).sum()) - 1)
    if k < 2:
        raise DatasetError(f"{dataset.root} has too few episodes of more than one frame to compare them")

    # Squared distances, a block of queries at a time.
    points = points.astype(np.float32)
    sizes = np.where(usable, np.square(points).sum(1), np.inf)
    neighbours, least = np.empty((len(rows), k), np.int64), np.empty(len(rows))
    for first in range(0, len(rows), BLOCK):
        part = slice(first, first + BLOCK)
        own = points[rows[part]]
        distance = sizes - 2 * own @ points.T + np.square(own).sum(1, keepdims=True)

        # The nearest frame of each episode.
        best = np.minimum.reduceat(distance, starts, axis=1)
        best[np.arange(len(own)), owners[part]] = np.inf
        least[part] = np.sqrt(np.maximum(best.min(1), 0))

        # The nearest few episodes, with these frames.
        for i, episodes in enumerate(np.argpartition(best, k - 1, axis=1)[:, :k]):
            neighbours[first + i] = [
                starts[m] + distance[i, starts[m] : starts[m] + lengths[m]].argmin() for m in episodes
            ]
    return neighbours, least


def smoothness(dataset: Dataset) -> np.ndarray:
    """(M,) spectral arc length of each episode's speed in the standardised state, NaN where nothing moves."""
    states = standard(dataset, (STATE if STATE in dataset.columns else SCENE,))
    parts = [states[s : s + n] for s, n in zip(dataset.starts, dataset.lengths, strict=True)]
    speeds = [np.linalg.norm(np.diff(part, axis=0), axis=1) for part in parts]
    return np.array([spectral_arc_length(speed, dataset.rate) for speed in speeds])


def spectral_arc_length(speed: np.ndarray, rate: float) -> float:
    """Length of the normalised amplitude spectrum of a speed profile (n,), negative; NaN if it never moves."""
    if len(speed) < 3 or not speed.any():
        return float("nan")
    size = 2 ** (int(np.ceil(np.log2(len(speed)))) + 4)
    amplitude = np.abs(np.fft.rfft(speed, size))
    frequency = np.fft.rfftfreq(size, 1 / rate)
    amplitude = amplitude[frequency <= CUT] / amplitude[0]
    amplitude = amplitude[: np.flatnonzero(amplitude >= FAINT)[-1] + 1]
    if len(amplitude) < 2:
        return float("nan")
    return -float(np.hypot(np.diff(amplitude), 1 / (len(amplitude) - 1)).sum())


def mean_interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """(mean, low, high) of finite values, by resampling them; NaN if there are none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return (float("nan"),) * 3
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def cells(dataset: Dataset, reference: Dataset) -> np.ndarray:
    """(N,) int64 state-action cell of each frame: a grid over the reference's first principal directions."""
    keys = (*_state_keys(reference), ACTION)
    basis = standard(reference, keys)
    variance, axes = np.linalg.eigh(np.cov(basis, rowvar=False).reshape(basis.shape[1], -1))
    kept = min(AXES, int((variance > 1e-9 * variance[-1]).sum()))
    variance, axes = variance[-kept:], axes[:, -kept:]
    shifted = standard(dataset, keys, reference) - basis.mean(0)
    place = np.floor(shifted @ axes / (BIN * np.sqrt(variance))).clip(-128, 127).astype(np.int64)
    return (place + 128) @ 256 ** np.arange(kept)  # one number for a place on the grid


def _coverage(dataset: Dataset, reference: Dataset | None) -> Measure:
    """Distinct cells, of those of the reference if there is one; interval by leaving out each episode in turn."""
    names, places = np.unique(cells(dataset, reference or dataset), return_inverse=True)
    owners = np.repeat(np.arange(len(dataset.lengths)), dataset.lengths)
    visits = np.unique(np.stack([places.ravel(), owners]), axis=1)
    alone = np.bincount(visits[0])[visits[0]] == 1  # this cell has one visitor
    lost = np.bincount(visits[1][alone], minlength=len(dataset.lengths))
    whole = len(np.unique(cells(reference, reference))) if reference else 1
    error = np.sqrt((len(lost) - 1) / len(lost) * np.square((lost - lost.mean()) / whole).sum())
    value, unit = len(names) / whole, "" if reference else "cells"
    about = "distinct state-action cells" + (", of those of the reference: SACo" if reference else "")
    return Measure("coverage", value, value - 1.96 * error, value + 1.96 * error, unit, about)


def _returns(dataset: Dataset, reference: Dataset | None) -> list[tuple[str, np.ndarray, str, str]]:
    own = episode_returns(dataset, Outcome.best)
    scale = episode_returns(reference, Outcome.best) if reference else own
    rows = [("return", own, "", "best reward of an episode")]
    if scale.min() < scale.max():
        whose = "the reference's" if reference else "its own"
        quality = (own - scale.min()) / (scale.max() - scale.min())
        rows.append(("trajectory quality", quality, "", f"return between {whose} worst and best episode, TQ"))
    return rows


def _state_keys(dataset: Dataset) -> tuple[str, ...]:
    keys = tuple(key for key in (STATE, SCENE) if key in dataset.columns)
    if not keys:
        raise DatasetError(f"{dataset.root} has neither '{STATE}' nor '{SCENE}'; its quality is read from states")
    return keys


def _queries(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows (Q,) that are looked at and the positions (Q,) of their episodes; never an episode's last frame."""
    count = max(1, QUERIES // len(dataset.lengths))
    picks = [np.unique(np.linspace(0, n - 2, min(count, n - 1)).astype(np.int64)) for n in dataset.lengths]
    rows = np.concatenate([start + pick for start, pick in zip(dataset.starts, picks, strict=True)])
    return rows, np.repeat(np.arange(len(picks)), [len(pick) for pick in picks])
