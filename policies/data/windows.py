"""Windows of a dataset, gathered a batch at a time by integer arithmetic: no loops, no workers, no copies kept.

Every frame of the chosen episodes is "now" once. Offsets that leave the episode are clamped to its border and marked
invalid. Values stay in units; models scale them. Pictures come from the frame cache (`frames`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...configs.spec import ACTION, GOAL, IMAGES, Window
from .dataset import Dataset
from .layout import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from .corrections import Learned

LATER = "later."  # before the keys of observations that came `ahead` steps later
VALID = "observation.valid"


class RowReader(Protocol):
    """Reads what belongs to rows of a dataset (`frames.Frames`, `embeddings.Embeddings`)."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Rows of any shape -> (*shape, ...)."""
        ...


@dataclass(frozen=True)
class Parts:
    """What windows are gathered from, for whoever holds it elsewhere (`resident.py`)."""

    inputs: tuple[str, ...]
    member: np.ndarray  # (N,) bool, rows of the dataset that some window may read
    now: np.ndarray  # (W,) row of each window, the first and the last of its episode, and the episode's id
    first: np.ndarray
    last: np.ndarray
    episode: np.ndarray
    columns: Mapping[str, np.ndarray]  # key -> (N, D)
    action: np.ndarray  # (N, D)
    rows: Mapping[str, np.ndarray]  # name -> (N, ...)
    pictures: Mapping[str, RowReader]
    ahead: int | None
    goals: tuple[str, ...]
    acted: tuple[np.ndarray, np.ndarray]  # (W,) rows between which the actions of each window lie


@dataclass(frozen=True)
class _Offsets:
    observe: np.ndarray  # (O,)
    actions: np.ndarray  # (T,)
    recall: int  # how many of the actions lie before now


class Windows:
    """All windows of some episodes of a dataset.

    Args:
        needs: observation keys to gather; `observation.images.NAME` reads pictures of camera NAME.
        episodes: positions of the episodes, default all.
        images: camera name -> (height, width) wanted; the recorded size for those not named.
        padding: False refuses episodes shorter than the window, and takes only windows that lie inside an episode.
        ahead: gather the observations this many steps later too, or the episode's last if it ends before.
        rows: name -> (N, ...) values of each row of the dataset that are gathered with it.
        acted: column that is gathered as `action`.
        learned: which steps windows begin at, and between which rows their actions lie; default all of an episode.
        goals: keys of cameras among `inputs` whose last picture of the episode is gathered as `goal.KEY`.
        pictures: key -> what reads pictures, or what stands for them, by row; those not given are opened here.

    Raises:
        DatasetError: a missing column or camera, no episodes, or an episode too short for `padding=False`.
    """

    def __init__(
        self,
        dataset: Dataset,
        window: Window,
        inputs: tuple[str, ...],
        episodes: np.ndarray | None = None,
        images: Mapping[str, tuple[int, int]] | None = None,
        padding: bool = True,
        ahead: int | None = None,
        rows: Mapping[str, np.ndarray] | None = None,
        acted: str = ACTION,
        pictures: Mapping[str, RowReader] | None = None,
        goals: tuple[str, ...] = (),
        learned: Learned | None = None,
    ):
        self.dataset, self.window, self.inputs = dataset, window, tuple(inputs)
        chosen = np.arange(len(dataset.lengths)) if episodes is None else np.asarray(episodes, np.int64)
        if not len(chosen):
            raise DatasetError(
                f"no episodes of {dataset.root} were chosen; lower the validation fraction or add episodes"
            )
        before, after = (0, 0) if padding else _refuse_short(dataset, window, chosen)
        counts = dataset.lengths[chosen] - before - after
        firsts = dataset.starts[chosen] + before
        self._rows = np.concatenate([np.arange(s, s + n) for s, n in zip(firsts, counts, strict=True)])
        self._first = np.repeat(dataset.starts, dataset.lengths)  # per dataset row: where its episode begins
        self._last = np.repeat(dataset.starts + dataset.lengths - 1, dataset.lengths)
        self._begins: np.ndarray = self._first if learned is None else learned.first
        self._ends: np.ndarray = self._last if learned is None else learned.last
        if learned is not None:
            self._rows = self._rows[learned.weights[self._rows] > 0]
        self._episode = np.repeat(dataset.episode_ids, dataset.lengths)
        self._offsets = _Offsets(np.array(window.observe), np.array(window.actions), len(window.recall))
        self._vectors = {key: _column(dataset, key) for key in self.inputs if not key.startswith(IMAGES)}
        self._action = _column(dataset, acted)
        given = {key: reader for key, reader in (pictures or {}).items() if key in self.inputs}
        missing = tuple(key for key in self.inputs if key not in given)
        self._pictures = _open_pictures(dataset, missing, chosen, images or {}) | given
        self._ahead, self._told, self._goals = ahead, dict(rows or {}), tuple(goals)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._rows)

    @property
    def rows(self) -> np.ndarray:
        """(W,) row of the dataset that each window begins at."""
        return self._rows

    @property
    def parts(self) -> Parts:
        """What the windows are made of."""
        now = self._rows
        first, last = self._first[now], self._last[now]
        member = np.isin(self._first, np.unique(first))
        return Parts(
            inputs=self.inputs, member=member, now=now, first=first, last=last, episode=self._episode[now],
            columns=self._vectors, action=self._action, rows=self._told, pictures=self._pictures, ahead=self._ahead,
            goals=self._goals, acted=(self._begins[now], self._ends[now]),
        )  # fmt: skip

    def gather(self, indices: Tensor | np.ndarray) -> dict[str, Tensor]:
        """The windows at positions `indices` (B,) int64 in 0..len-1, as tensors that own their memory.

        Returns:
            each of `inputs` (B, O, D) float32 or (B, O, h, w, 3) uint8; `observation.valid` (B, O) bool; `action`
            (B, T, D) float32, T the tokens of `window.actions`; `action.valid` (B, T) bool; `index` (B,) int64 row of
            the dataset; `episode` (B,) int64 id. Before the episode the first frame is repeated and actions are zero,
            after its end the last action is repeated; both are not valid. With `ahead`, `later.KEY` of each of `inputs`
            and `later.observation.valid`, alike; with `rows`, (B, ...) each; with `goals`, `goal.KEY` (B, h, w, 3).
        """
        import torch

        rows = self._rows[np.asarray(indices)]
        first, last = self._first[rows][:, None], self._last[rows][:, None]
        out = self._observe(rows, first)
        if self._ahead is not None:
            later = self._observe(np.minimum(rows + self._ahead, last[:, 0]), first)
            out |= {LATER + key: value for key, value in later.items()}
        out |= self._act(rows)
        out |= {"index": rows, "episode": self._episode[rows]}
        out |= {name: values[rows] for name, values in self._told.items()}
        out |= {GOAL + key: self._pictures[key].read(last[:, 0]) for key in self._goals}
        return {key: torch.from_numpy(value) for key, value in out.items()}

    def actions(self, most: int) -> dict[str, Tensor]:
        """`action` and `action.valid` of at most `most` windows, spread evenly; no observation is read."""
        import torch

        rows = self._rows[np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64))]
        acted = self._act(rows)
        return {key: torch.from_numpy(value) for key, value in acted.items()}

    def _act(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Actions around the rows (B,), and which of them are there."""
        first, last = self._begins[rows][:, None], self._ends[rows][:, None]
        done = rows[:, None] + self._offsets.actions
        held = np.minimum(done, last)
        if recall := self._offsets.recall:
            held = np.maximum(held, first)
        inside = held == done
        action = self._action.take(held, 0)
        if recall:
            action[:, :recall][~inside[:, :recall]] = 0
        return {ACTION: action, "action.valid": inside}

    def _observe(self, now: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        """Observations of the rows `now` (B,) in episodes that begin at `first` (B, 1), and which of them are there."""
        seen = now[:, None] + self._offsets.observe
        shown = np.maximum(seen, first)
        out = {key: column.take(shown, 0) for key, column in self._vectors.items()}
        out |= {key: pictures.read(shown) for key, pictures in self._pictures.items()}
        return out | {VALID: shown == seen}


def _column(dataset: Dataset, key: str) -> np.ndarray:
    if key not in dataset.columns:
        raise DatasetError(f"column '{key}' is not loaded from {dataset.root}; available: {', '.join(dataset.columns)}")
    return dataset.columns[key]


def _refuse_short(dataset: Dataset, window: Window, chosen: np.ndarray) -> tuple[int, int]:
    """How many frames at the start and at the end of an episode cannot be "now" without padding."""
    before, after = window.reach, window.horizon - 1
    short = [m for m in chosen if dataset.lengths[m] < before + 1 + after]
    if short:
        listed = ", ".join(f"{dataset.episode_ids[m]} ({dataset.lengths[m]} frames)" for m in short[:5])
        raise DatasetError(
            f"the window spans {before + 1 + after} frames, longer than {len(short)} of the episodes of"
            f" {dataset.root}: {listed}{', ...' if len(short) > 5 else ''}. Allow padding, shorten the horizon or leave"
            " these episodes out"
        )
    return before, after


def _open_pictures(dataset: Dataset, inputs: tuple[str, ...], chosen: np.ndarray, images: Mapping) -> dict:
    names = {key: key.removeprefix(IMAGES) for key in inputs if key.startswith(IMAGES)}
    if strange := images.keys() - names.values():
        raise DatasetError(
            f"a size is given for camera '{min(strange)}', which is not read: {', '.join(names.values())}"
        )
    if not names:
        return {}
    from .frames import open_frames

    return {key: open_frames(dataset, name, images.get(name), chosen) for key, name in names.items()}
