"""Rewards, bootstrap masks and Monte-Carlo returns of a dataset's frames, from the success of its episodes alone.

In an episode that succeeds, the `final` steps up to the first success (and whatever follows it) are terminal: they earn
the reward of success and nothing is bootstrapped from them. All other steps earn the other reward. An episode without
success was cut short, by a time-out for example: its last step is bootstrapped too. Returns use the same mask,

    G_t = r_t + gamma mask_t G_(t+1),

and a failure goes on failing after its end: G = 0 (rewards 0/1) or -1 / (1 - gamma) (rewards -1/0), the fixed point of
the equation. As in V-GPS (arXiv 2410.13816) and its code, where every episode counts as a success (`success: every`).

A dataset does not hold the observation after an episode's last action; where it is bootstrapped from, the last one
stands in for it, one control step too old. Rewards that a dataset recorded are not used: they may be of another kind.
Actions are those that were really executed (`action.sent`), where the dataset tells them from those asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ...configs.episode import SENT, SUCCESS
from ...configs.protocols import keeps
from ...configs.spec import ACTION, TASK, Window
from .columns import check_finite, load_columns
from .corrections import Learned
from .dataset import Dataset
from .layout import DatasetError
from .open import open_dataset
from .windows import RowReader, Windows

EVERY = "every"


class Kind(Enum):
    """What a step earns: (not yet successful, successful)."""

    zero_one = "zero_one"
    minus_one = "minus_one"

    @property
    def pays(self) -> tuple[float, float]:
        return (0.0, 1.0) if self is Kind.zero_one else (-1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """What steps earn, and how what comes later counts."""

    kind: Kind = Kind.zero_one  # rewards of a step: zero_one (1 on success) | minus_one (-1 until success)
    gamma: float = 0.98  # discount of a control step
    final: int = 3  # steps up to the first success that are terminal
    success: str = SUCCESS  # column that is 1 after a successful step; every: each episode succeeds with its last step

    def __post_init__(self):
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must be within 0 and 1, got {self.gamma}")
        if self.final < 1:
            raise ValueError(f"final counts steps that are terminal, at least 1, got {self.final}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest return that there can be."""
        later, done = self.kind.pays
        return (later / (1 - self.gamma), 0.0) if done == 0 else (0.0, done)

    def open(
        self, source: str | Path, columns: tuple[str, ...], embodiment: str | Path | None = None, **chosen: Any
    ) -> Dataset:
        """The dataset with `columns`, what says of success, and the actions that were executed.

        Args:
            chosen: `episodes`, `without` and `sources` of `open_dataset`.

        Raises:
            DatasetError: saying what to do, if nobody knows which episodes succeeded.
        """
        labels = () if self.success == EVERY else (self.success,)
        try:
            dataset = open_dataset(source, embodiment=embodiment, columns=(*columns, *labels), **chosen)
        except DatasetError as error:
            if f"column '{self.success}' is not in" not in str(error):
                raise
            raise DatasetError(
                f"nobody says which episodes succeeded: {error}. If all did, set rewards.success to every; else label "
                "them with `understudy label`, or name the column that says so"
            ) from error
        return dataclasses.replace(dataset, columns=dataset.columns | {SENT: executed(dataset)})

    def successes(self, dataset: Dataset) -> np.ndarray:
        """(M,) int64 frame of each episode's first success, -1 where there is none.

        Raises:
            DatasetError: labels that are missing, not one number a frame, or not finite.
        """
        if self.success == EVERY:
            return dataset.lengths - 1
        if self.success not in dataset.columns:
            raise DatasetError(f"'{self.success}' of {dataset.root} is not loaded; open it with Rewards.open")
        values = dataset.columns[self.success]
        bad = np.argwhere(~np.isfinite(values))
        if values.shape[1] != 1 or len(bad):
            where = f"NaN or infinite in row {bad[0][0]}" if len(bad) else f"{values.shape[1]} numbers a frame"
            raise DatasetError(
                f"'{self.success}' of {dataset.root} is {where}; a label of success is one number, 0 or 1. Repair it, "
                "or leave the episode out"
            )
        won = values[:, 0] > 0.5
        place = np.where(won, np.arange(len(won)) - np.repeat(dataset.starts, dataset.lengths), len(won))
        first = np.minimum.reduceat(place, dataset.starts)
        return np.where(first < len(won), first, -1).astype(np.int64)

    def account(self, dataset: Dataset, episodes: np.ndarray) -> str:
        """How many of the episodes succeeded, in words. Raises DatasetError if none did."""
        won = int((self.successes(dataset)[episodes] >= 0).sum())
        if not won:
            raise DatasetError(f"no episode of {dataset.root} that trains succeeded: nothing tells good from bad there")
        note = (
            "; without failures a critic learns how much time is left, and little else" if won == len(episodes) else ""
        )
        return f"{won} of the {len(episodes)} episodes succeed{note}"

    def rows(self, dataset: Dataset, steps: int) -> dict[str, np.ndarray]:
        """What each frame earns within `steps` steps, and what counts after them.

        Returns:
            (N,) each: `reward`, discounted sum until the steps are done, the episode ended, or success; `discount` of
            the value of the observation then, 0 after success; `return`, Monte-Carlo; `whole`, bool, False where the
            episode ended without success before the steps were done.
        """
        first = np.repeat(self.successes(dataset), dataset.lengths)
        now = np.arange(len(first)) - np.repeat(dataset.starts, dataset.lengths)
        left = np.repeat(dataset.lengths, dataset.lengths) - now
        away = np.maximum(first - self.final + 1 - now, 0)  # steps until the first terminal one
        won, done = first >= 0, (first >= 0) & (away < steps)
        count = np.where(won, np.minimum(away, steps), np.minimum(left, steps))
        rest = np.where(done | won, 0.0, self.kind.pays[0] / (1 - self.gamma))
        return {
            "reward": self._earned(count, done).astype(np.float32),
            "discount": np.where(done, 0.0, self.gamma**count).astype(np.float32),
            "return": np.where(won, self._earned(away, won), rest).astype(np.float32),
            "whole": done | (count == steps),
        }

    def _earned(self, count: np.ndarray, done: np.ndarray) -> np.ndarray:
        """`count` steps without success and, where `done`, one with it."""
        later, success = self.kind.pays
        waited = later * (1 - self.gamma**count) / (1 - self.gamma)
        return waited + np.where(done, success * self.gamma**count, 0.0)


def executed(dataset: Dataset) -> np.ndarray:
    """(N, D) actions that were really executed; those asked for, where a recording does not tell them apart.

    Raises:
        DatasetError: NaN or infinities.
    """
    parts = []
    for part in dataset.parts or (dataset,):
        loaded = load_columns(part.layout, (SENT,), skip_missing=True)
        check_finite(part.layout, loaded, {})
        parts.append(loaded.get(SENT, part.columns[ACTION]))
    return np.concatenate(parts)


class Learner(Protocol):
    """Settings of something that learns from windows; `Rewarded` ones learn from what came later too."""

    window: Window
    inputs: tuple[str, ...]


@runtime_checkable
class Rewarded(Protocol):
    """Settings of what learns from outcomes. They also say `ahead`, control steps to the observation after."""

    rewards: Rewards


@runtime_checkable
class TellsTasks(Protocol):
    """Settings of what tells the tasks of a dataset apart."""

    tasks: tuple[str, ...]  # their texts; none: one task, unnamed


@runtime_checkable
class HasGoal(Protocol):
    """Settings of what acts for the last picture of an episode."""

    goal: tuple[str, ...]  # keys of its cameras; none: for no goal


def rewards_of(learner: object) -> Rewards | None:
    """How the outcomes that it learns from are rewarded; None for what learns without."""
    return learner.rewards if keeps(learner, Rewarded) else None


def open_windows(
    dataset: Dataset,
    learner: Learner,
    episodes: np.ndarray,
    pictures: Mapping[str, RowReader] | None = None,
    learned: Learned | None = None,
) -> Windows:
    """The windows that a learner is trained or validated on; one with `rewards` gets outcomes and later frames.

    `pictures` are read for the cameras that it names (`windows.Windows`).
    """
    rewards, tasks = rewards_of(learner), learner.tasks if keeps(learner, TellsTasks) else ()
    rows = {TASK: task_numbers(dataset, tasks)} if tasks else {}
    if rewards is None:
        goals = tuple(learner.goal) if keeps(learner, HasGoal) else ()
        how = {"rows": rows, "pictures": pictures, "goals": goals, "learned": learned}
        return Windows(dataset, learner.window, learner.inputs, episodes, **how)
    rows |= rewards.rows(dataset, learner.ahead)
    options = {"ahead": learner.ahead, "rows": rows, "acted": SENT, "pictures": pictures}
    return Windows(dataset, learner.window, learner.inputs, episodes, **options)


def task_numbers(dataset: Dataset, tasks: tuple[str, ...]) -> np.ndarray:
    """(N,) int64 place of each frame's task among `tasks`. Raises DatasetError for a task that is not there."""
    strange = [text for text in dataset.tasks if text not in tasks]
    if strange:
        raise DatasetError(f"{dataset.root} has the task '{strange[0]}', which is not among {', '.join(tasks)}")
    return np.repeat(np.array([tasks.index(text) for text in dataset.tasks], np.int64), dataset.lengths)
