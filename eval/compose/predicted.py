"""The weights that held-out demonstrations speak for: opens the data, asks the parents, checks the curve (`gram.py`).

Held out means: no parent was trained on the episode. Which ones those are follows from the settings in the parents' run
folders (data, part held out, seed); of data that no parent was trained on, all episodes serve.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...policies.learning.run import held_out, training
from .gram import (
    Error,
    Prediction,
    Residuals,
    common_window,
    noisy_batches,
    predict,
    r_squared,
    residuals,
    shared_levels,
)
from .search import Weights, simplex

if TYPE_CHECKING:
    from ...policies.compositions.mixture import Mixture
    from ...policies.data.dataset import Dataset
    from ...policies.data.windows import Windows
    from ...policies.policy import Policy


BATCH = 128  # windows asked at a time
CHECKED = 128  # windows on which mixtures themselves are measured
POINTS = {2: 6, 3: 3}  # points an edge at which they are, by number of parents; else the corners


@dataclass(frozen=True)
class Predicted:
    """What denoising errors say about the weights, and whether mixtures do what the quadratic says."""

    prediction: Prediction
    others: tuple[Prediction, ...]  # by the other coordinates of the error
    checked: tuple[tuple[Weights, float, float], ...]  # weights, measured and predicted error on the same windows
    r_squared: float  # of the quadratic on them


def predict_weights(
    mixture: Mixture,
    paths: Sequence[str],
    data: str,
    *,
    error: Error = Error.epsilon,
    windows: int = 1024,
    seed: int = 0,
) -> Predicted:
    """Ask the parents of `mixture`, and some mixtures of them, about the same noisy demonstrations.

    Args:
        paths: run or checkpoint folders of the parents, in their order.
        data: LeRobot dataset, folder or hub id.
        windows: most windows used, spread evenly over the held-out episodes.
        seed: of noise and resampling.

    Raises:
        ValueError: no episode, or one alone, that no parent was trained on.
    """
    from ...policies.agent.goal import windows_of
    from ...policies.data.open import open_dataset
    from ...policies.data.windows import Windows

    window, inputs = common_window(mixture.parents)
    dataset = open_dataset(data, columns=inputs)
    mixture.embodiment.check(dataset.embodiment, inputs)
    chosen, about = unseen(dataset, data, paths)
    _instruct(mixture, {dataset.tasks[place] for place in chosen.tolist()})
    gathered = Windows(dataset, window, inputs, chosen, **windows_of(mixture))
    products = _measure(mixture.parents, mixture, gathered, windows, seed)
    predictions = [predict(products, kind, np.random.default_rng(seed), about=about) for kind in Error]
    first = next(prediction for prediction in predictions if prediction.error is error)
    others = tuple(prediction for prediction in predictions if prediction is not first)
    return Predicted(first, others, *_check(mixture, gathered, error, seed))


def _instruct(mixture: Mixture, tasks: Collection[str]) -> None:
    """Tell parents of lerobot's the text of the demonstrations; raises ValueError where there are several."""
    from ...policies.foreign.planner import instruct, reads_text

    if reads_text(mixture):
        if len(tasks) != 1:
            raise ValueError(
                f"the demonstrations are of {len(tasks)} tasks, and a policy of lerobot's is asked about all with one "
                "text: give --predict data of one task (`understudy split`)"
            )
        instruct(mixture, *tasks)


def _measure(policies: Sequence[Policy], mixture: Mixture, gathered: Windows, most: int, seed: int) -> Residuals:
    import torch

    scale = mixture.action_scale
    with torch.no_grad():
        levels = shared_levels(policies, scale, gathered.gather(np.arange(1)), mixture.sampler.steps)
        return residuals(noisy_batches(policies, scale, spread(gathered, most)), levels, seed)


def _check(mixture: Mixture, gathered: Windows, error: Error, seed: int) -> tuple:
    """(checked, r_squared): mixtures asked themselves, beside what the parents' residuals on the windows predict."""
    parents = len(mixture.parents)
    points = simplex(parents, POINTS.get(parents, 2))
    device = mixture.action_scale.mean.device
    policies = [*mixture.parents, *(mixture.weighted(point).to(device) for point in points)]
    gram = _measure(policies, mixture, gathered, CHECKED, seed).gram(error)
    measured, inner = np.diag(gram)[parents:], gram[:parents, :parents]
    quadratic = [float(np.array(w) @ inner @ np.array(w)) for w in points]
    checked = tuple(zip(points, measured.tolist(), quadratic, strict=True))
    return checked, r_squared(points, measured, inner)


def spread(windows: Windows, most: int) -> Iterator[dict]:
    """Batches of up to `most` windows, spread evenly."""
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(most, len(windows))).astype(np.int64))
    for begin in range(0, len(chosen), BATCH):
        yield windows.gather(chosen[begin : begin + BATCH])


def unseen(dataset: Dataset, data: str, paths: Sequence[str]) -> tuple[np.ndarray, str]:
    """Positions of the episodes that no parent was trained on, and that in words.

    Raises:
        ValueError: fewer than two.
    """
    total, left, used = len(dataset.lengths), set(range(len(dataset.lengths))), 0

    for path in paths:
        settings = training(path)
        if settings and _same(settings.get("data"), data):
            used += 1
            left &= set(held_out(dataset, settings).tolist())

    unknown = sum(training(path) is None for path in paths)
    about = f"{len(left)} of {total} episodes of {data}"
    about += ", held out by all parents" if used else ", which no parent names as its training data"
    about += f" ({unknown} of the parents do not say what they were trained on)" if unknown else ""

    if len(left) < 2:
        raise ValueError(
            f"only {about}, and two are needed. Parents of other seeds hold out other episodes: record fresh ones with"
            " `understudy demos` and give these, or train with a larger --validation"
        )

    return np.array(sorted(left)), about


def _same(trained: str | None, data: str) -> bool:
    """Whether a run's data is this dataset; one that is no longer where it was, by its name."""
    if not trained:
        return False
    ours, named = (Path(os.path.expandvars(str(text))) for text in (trained, data))
    return ours.resolve() == named.resolve() or (not ours.exists() and ours.name == named.name)
