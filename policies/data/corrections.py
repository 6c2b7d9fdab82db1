"""Recordings in which a person took over from a policy: whose steps they are, and which of them are learned from.

The bool column `intervention` is true where the recorded action is a person's; `understudy deploy --takeover` writes
it, and lerobot's `lerobot-rollout --strategy.type=dagger` (0.6.1) does. Ours also have `takeover.phase`: 0 the policy
acts, 1 nobody's (the arm comes to the person's leader, or stands), 2 the person leads. In simulated worlds a scripted
expert may be the person (`understudy demos --policy RUN --takeover.after 15`).

What a policy learns from such episodes is, by default, the person's steps alone, as in HG-DAgger (Kelly et al. 2019,
arXiv 1810.02890): what the policy did until somebody had to step in is no example. With `own` above 0 its own steps are
learned from, too, with that weight, as in Sirius (Liu et al. 2023, arXiv 2211.08416), which weighs the person's higher.
Episodes without a take-over are the policy's own from end to end. Datasets of the same training that lack the column
are demonstrations: all of their steps have weight 1.

A window begins at a step that is learned from. Its actions end where its run of steps of one kind ends, as if the
episode ended there, and begin where that run begins: what the policy did is neither target nor recalled. Observations
stay what was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...configs.episode import SUCCESS
from .columns import load_columns
from .dataset import Dataset
from .layout import DatasetError

INTERVENTION, PHASE = "intervention", "takeover.phase"
POLICY, UNLED, PERSON = 0.0, 1.0, 2.0  # values of the phase
DEMONSTRATED = 3.0  # a step of a dataset without take-overs


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What is learned from episodes in which a person took over."""

    weight: float = 1.0  # how often a person's step there is drawn, beside a step of the other datasets
    own: float = 0.0  # the same of the policy's own steps there; 0: they are not learned from (HG-DAgger)
    column: str = INTERVENTION  # bool column that is true where a person acts

    def __post_init__(self) -> None:
        for name in ("weight", "own"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"corrections.{name}: {getattr(self, name)}; a weight is 0 or above")
        if self.weight == 0 and self.own == 0:
            raise ValueError("corrections: both weights are 0, so nothing is learned from; leave their dataset out")


@dataclass(frozen=True)
class Learned:
    """What each of the N steps of a dataset is to a training.

    Attributes:
        weights: (N,) float64, 0 for steps at which no window begins.
        first, last: (N,) int64 rows where the run of steps of its kind begins and ends, within its episode.
        story: what to say of it.
    """

    weights: np.ndarray
    first: np.ndarray
    last: np.ndarray
    story: str = ""

    @property
    def even(self) -> bool:
        """Whether all steps that are learned from weigh the same."""
        learned = self.weights[self.weights > 0]
        return not len(learned) or bool((learned == learned[0]).all())


def phase_columns(phases: Sequence[float]) -> dict[str, np.ndarray]:
    """The columns that say whose each of T steps is, (T,) each, as a recording keeps them."""
    told = np.asarray(phases, np.float32)
    return {PHASE: told, INTERVENTION: told == PERSON}


def learned_steps(dataset: Dataset, corrections: Corrections | None, episodes: np.ndarray) -> Learned | None:
    """Which steps of the dataset are learned from; None: all alike.

    Args:
        corrections: None: the defaults, where somebody took over in the dataset.
        episodes: positions of those that train.

    Raises:
        DatasetError: corrections are asked for, and nothing says which steps they are; or nothing is left.
    """
    given = corrections or Corrections()
    kinds = kinds_of(dataset, given.column)
    if corrections is None and (kinds is None or not (kinds == PERSON).any()):
        return None
    if kinds is None:
        raise DatasetError(
            f"--corrections: no dataset of {dataset.root} has the bool column '{given.column}', so nobody knows which "
            "steps are a person's. `understudy deploy` and `demos` record it with --takeover; another name: "
            "--corrections.column NAME. Demonstrations need no --corrections"
        )
    first, last = runs(kinds, dataset.starts)
    values = {POLICY: given.own, UNLED: 0.0, PERSON: given.weight, DEMONSTRATED: 1.0}
    weights = np.zeros(len(kinds))
    for kind, weight in values.items():
        weights[kinds == kind] = weight
    begins, counts = dataset.starts[episodes], dataset.lengths[episodes]
    rows = np.concatenate([np.arange(begin, begin + count) for begin, count in zip(begins, counts, strict=True)])
    if not weights[rows].any():
        raise DatasetError(
            f"{dataset.root}: no step of the episodes that train is learned from: who took over led "
            f"{int((kinds[rows] == PERSON).sum())} of {len(rows)} steps. --corrections.own 1 learns from the "
            "policy's own steps"
        )
    return Learned(weights, first, last, _story(kinds[rows], given))


def _story(kinds: np.ndarray, given: Corrections) -> str:
    counts = {kind: int((kinds == kind).sum()) for kind in (PERSON, POLICY, UNLED, DEMONSTRATED)}
    own = f"weight {given.own:g}" if given.own else "not learned from (--corrections.own)"
    parts = [
        f"{counts[PERSON]} steps of who took over, weight {given.weight:g}",
        f"{counts[POLICY]} of a policy, {own}",
        *([f"{counts[UNLED]} of nobody, not learned from"] if counts[UNLED] else []),
        *([f"{counts[DEMONSTRATED]} of demonstrations, weight 1"] if counts[DEMONSTRATED] else []),
    ]
    return f"corrections: {'; '.join(parts)}"


def kinds_of(dataset: Dataset, column: str = INTERVENTION) -> np.ndarray | None:
    """(N,) whose step each is: POLICY, UNLED, PERSON, or DEMONSTRATED in parts that lack the column; None: all lack it.

    Raises:
        DatasetError: a column that is not one number a frame, 0 or 1.
    """
    found = [_kinds(part, column) for part in dataset.parts or (dataset,)]
    if all(kinds is None for kinds in found):
        return None
    parts = zip(dataset.parts or (dataset,), found, strict=True)
    return np.concatenate([np.full(len(part), DEMONSTRATED) if kinds is None else kinds for part, kinds in parts])


def _kinds(part: Dataset, column: str) -> np.ndarray | None:
    loaded = load_columns(part.layout, (column, PHASE), skip_missing=True)
    if column not in loaded:
        return None
    return told_kinds(loaded, str(part.root), column)


def told_kinds(columns: Mapping[str, np.ndarray], where: str, column: str = INTERVENTION) -> np.ndarray:
    """(N,) POLICY, UNLED or PERSON by the loaded columns. Raises DatasetError: values that are no flags."""
    flags = columns[column]
    strange = flags[:, 0] if flags.shape[1] != 1 else flags[(flags != 0) & (flags != 1)]
    if len(strange):
        raise DatasetError(
            f"'{column}' of {where} is no flag: one bool a frame is needed, true where a person acts; it holds "
            f"{flags.shape[1]} numbers a frame, such as {strange[0]:g}"
        )
    kinds = np.where(flags[:, 0] > 0, PERSON, POLICY)
    if PHASE in columns and columns[PHASE].shape[1] == 1:
        kinds[(columns[PHASE][:, 0] == UNLED) & (kinds == POLICY)] = UNLED
    return kinds


def runs(kinds: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) each: the rows where the run of equal kinds that a row lies in begins and ends; none crosses an episode."""
    borders = np.ones(len(kinds), bool)
    borders[1:] = kinds[1:] != kinds[:-1]
    borders[starts] = True
    begins = np.flatnonzero(borders)
    number = np.cumsum(borders) - 1
    ends = np.append(begins[1:], len(kinds)) - 1
    return begins[number], ends[number]


def helped(dataset: Dataset) -> str:
    """What to add to a count of the episodes that succeeded: how many of them a person had a part in."""
    led = led_episodes(dataset)
    if led is None or not led.any() or SUCCESS not in dataset.columns:
        return ""
    done = np.maximum.reduceat(dataset.columns[SUCCESS][:, 0], dataset.starts) > 0.5
    return f"; in {int((done & led).sum())} of them somebody took over, so they are no success of the policy's"


def led_episodes(dataset: Dataset) -> np.ndarray | None:
    """(M,) bool: episodes in which the policy did not act alone; None where the loaded columns do not say."""
    if INTERVENTION not in dataset.columns:
        return None
    kinds = told_kinds(dataset.columns, str(dataset.root))
    return np.maximum.reduceat(kinds, dataset.starts) > POLICY
