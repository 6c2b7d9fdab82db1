"""Which episodes of a dataset a policy was trained on, and which its training held out, as far as anybody noted it.

Known for runs of ours (their settings and what they began with, also of the runs that they were fine-tuned from) and
for lerobot's checkpoints (`train_config.json`). Episodes are told apart by data file and number, so that a part,
another selection or a joint reading of the same files is seen; a copy elsewhere is known by its fingerprint. A
composition does not say what its parents were trained on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.progress import counted
from ...policies.data.layout import DatasetError

if TYPE_CHECKING:
    from ...policies.data.dataset import Dataset

Key = tuple[str, int]  # data file with its links resolved, number of the episode in it


@dataclass(frozen=True)
class Training:
    """What one policy saw of a dataset. Without `known` both sets may lack episodes."""

    trained: frozenset[Key] = frozenset()
    held_out: frozenset[Key] = frozenset()
    known: bool = False
    same: bool = False  # the dataset shares episodes with what it was trained on
    notes: tuple[str, ...] = ()  # what a reader must know, as sentences without a full stop


def keys_of(dataset: Dataset) -> list[Key]:
    """The key of each episode, by position."""
    return [(str((dataset.root / entry.file).resolve()), entry.recorded_id) for entry in dataset.layout.entries]


def training_of(policy: str, dataset: Dataset, source: str) -> Training:
    """What the policy of a run, checkpoint or lerobot checkpoint saw of `dataset`, that was opened from `source`."""
    from ...policies.learning.checkpoint import find_checkpoint
    from ...policies.learning.run import run_folder, training

    run = run_folder(policy)
    settings = training(policy)
    if run is not None and settings is not None and settings.get("data"):
        return _of_run(run, settings, dataset, source)
    return _of_lerobot(Path(find_checkpoint(policy)), dataset, source)


def _of_run(run: Path, settings: Mapping, dataset: Dataset, source: str) -> Training:
    """Of a training of ours, and of the one that it began with."""
    from ...policies.learning.run import held_out

    read, notes = _as_read(run, settings, source)
    if read is None:
        own = _try_open(str(settings["data"]), settings)
        shared = own is not None and bool(set(keys_of(own)) & set(keys_of(dataset)))
        return Training(same=shared, notes=notes)
    split = set(held_out(read, settings).tolist())
    keys = keys_of(read)
    held = frozenset(key for place, key in enumerate(keys) if place in split)
    trained = frozenset(keys) - held
    known = True
    if parent := settings.get("init"):
        before = training_of(str(parent), dataset, source) if _is_there(parent) else Training()
        if not before.known:
            notes += (f"{run.name} was fine-tuned from {parent}, and nobody knows what that was trained on",)
            known = False
        if both := before.trained & held:
            notes += (f"{len(both)} of the held-out episodes trained {parent}, from which it was fine-tuned",)
        trained, held = trained | before.trained, held - before.trained
    same = bool((trained | held) & set(keys_of(dataset)))
    return Training(trained, held, known, same, notes)


def _as_read(run: Path, settings: Mapping, source: str) -> tuple[Dataset | None, tuple[str, ...]]:
    """The dataset that a run was trained on as it read it: `source` if that is a copy of it, else its own.

    None, with the reason, where it is gone, or has other episodes than then: nobody knows which were held out.
    """
    from ...policies.learning.doors import read_begun

    begun, data = read_begun(run).get("dataset", {}), str(settings["data"])
    given, own = _try_open(source, settings), _try_open(data, settings)
    for read in (given, own):
        if read is not None and read.fingerprint == begun.get("fingerprint"):
            return read, ()
        if read is not None and begun and (before := _before_more(read, begun, settings)) is not None:
            return before, (
                f"{counted(len(read.lengths) - len(before.lengths), 'episode', 'was', 'were')} added since the "
                "training",
            )
    if own is None:
        return None, (f"what {run.name} was trained on ({data}) is not there any more",)
    if not begun:  # of an earlier version, which noted only where the data lie
        return own, ()
    sizes = [(own_, begun.get(name)) for own_, name in ((len(own.lengths), "episodes"), (len(own), "frames"))]
    if all(now == then for now, then in sizes):
        return own, (f"{data} was changed since {run.name} was trained on it; it has as many episodes and frames",)
    now, then = (" and ".join(map(str, numbers)) for numbers in zip(*sizes, strict=True))
    return None, (f"{data} has {now} episodes and frames, and had {then} when {run.name} was trained on it",)


def _before_more(read: Dataset, begun: Mapping, settings: Mapping) -> Dataset | None:
    """The first episodes of a dataset that others were added to, if they are those that a training began with."""
    n = begun.get("episodes")
    if type(n) is not int or not 0 < n < len(read.lengths) or (settings.get("episodes") or "all") != "all":
        return None
    kept = ",".join(map(str, read.episode_ids[:n].tolist()))
    before = None if read.parts else _try_open(str(read.hub or read.root), dict(settings) | {"episodes": kept})
    return before if before is not None and before.fingerprint == begun.get("fingerprint") else None


def _try_open(source: str, settings: Mapping) -> Dataset | None:
    """A dataset read as a training with these settings reads it; None where it cannot be read so."""
    from ...policies.data.open import open_dataset
    from ...policies.learning.run import read_as

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever opens it to judge by it is warned
            return open_dataset(source, columns=(), check=False, **read_as(settings))
    except (DatasetError, OSError):
        return None


def _of_lerobot(folder: Path, dataset: Dataset, source: str) -> Training:
    """Of a checkpoint of lerobot's, which holds nothing out: it trains on all episodes that it is told to read."""
    from ...configs.documents import read_object

    if not (folder / "train_config.json").is_file():
        return Training()
    told = read_object(folder / "train_config.json", DatasetError, "settings of a lerobot training").get("dataset")
    told = told if isinstance(told, dict) else {}
    root, episodes = told.get("root"), told.get("episodes")
    if told.get("repo_id") != (dataset.hub or source) or root:
        if not root:
            return Training(notes=(f"it was trained on {told.get('repo_id')}",))
        if Path(os.path.expandvars(root)).resolve() != dataset.root.resolve():
            return Training(known=Path(root).is_dir(), notes=(f"it was trained on {root}",))
    keys = dict(zip(dataset.episode_ids.tolist(), keys_of(dataset), strict=True))
    trained = frozenset(key for number, key in keys.items() if episodes is None or number in episodes)
    return Training(trained, frozenset(keys.values()) - trained, True, True)


def _is_there(policy: str | Path) -> bool:
    return Path(os.path.expandvars(policy)).exists()
