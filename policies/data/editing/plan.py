"""What an edited dataset will hold: which episodes of which datasets, under which tasks, with which features."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ....configs.spec import IMAGES, Embodiment
from ..dataset import Dataset
from ..embody import camera_name, read_card
from ..layout import BOOKKEEPING, PICTURES, DatasetError, Entry, Layout, read_info, read_tasks
from ..several import check_numbers, common_body
from ..tables import read_table

SUBTASK, SUBTASKS = "subtask_index", "meta/subtasks.parquet"  # lerobot's: a column, and the texts that it counts
NEEDED = ("timestamp", "task_index", "action", *BOOKKEEPING)  # features that cannot be dropped


@dataclass(frozen=True, eq=False)
class Kept:
    """An episode that goes into the new dataset."""

    layout: Layout  # of the dataset that it comes from
    entry: Entry
    tasks: tuple[str, ...]  # its new texts


@dataclass(frozen=True)
class Plan:
    """A dataset to be written of parts of others."""

    episodes: tuple[Kept, ...]
    features: dict[str, dict]
    info: dict  # `info.json` of the first dataset
    body: Embodiment | None  # where a dataset has a card
    texts: Mapping[str, str]  # text of a task -> its new one
    task: str = ""  # text that every row gets, if any

    @property
    def layouts(self) -> list[Layout]:
        """The datasets, each once."""
        return list({id(kept.layout): kept.layout for kept in self.episodes}.values())

    @property
    def rate(self) -> float:
        return self.episodes[0].layout.rate

    @property
    def tasks(self) -> dict[str, int]:
        """New text -> its number, in the order in which they come."""
        texts = dict.fromkeys(text for kept in self.episodes for text in kept.tasks or ("",))
        return {text: number for number, text in enumerate(texts)}

    def of_kind(self, *dtypes: str) -> list[str]:
        return [key for key, feature in self.features.items() if feature.get("dtype") in dtypes]

    def renamed(self, text: str) -> str:
        """The new text of a task."""
        return self.task or self.texts.get(text, text)


def plan_of(
    parts: Sequence[Dataset], *, texts: Mapping[str, str] | None = None, task: str = "", drop: Collection[str] = ()
) -> Plan:
    """All chosen episodes of `parts`, one after the other.

    Args:
        texts: text of a task -> its new one. task: the text that all get.
        drop: features that are left out; cameras by their names.

    Raises:
        DatasetError: datasets that do not fit together, a task or a feature that is not there.
    """
    texts = dict(texts or {})
    features = _features(parts, drop)
    bodies = [read_card(part.layout.root) for part in parts]
    body = common_body(tuple(parts)) if any(bodies) else None
    if body is not None:
        kept = {camera_name(key) for key in features}
        body = body.with_cameras({name: size for name, size in body.cameras.items() if name in kept})
    plan = Plan((), features, read_info(parts[0].layout.root), body, texts, task)
    episodes = tuple(
        Kept(part.layout, entry, tuple(dict.fromkeys(plan.renamed(text) for text in entry.tasks)) or (task,))
        for part in parts
        for entry in part.layout.entries
    )
    _check_texts(parts, texts, task)
    _check_subtasks(parts, features)
    return dataclasses.replace(plan, episodes=episodes)


def _check_texts(parts: Sequence[Dataset], texts: Mapping[str, str], task: str) -> None:
    if texts and task:
        raise DatasetError("--task names the task of all episodes, --tasks new texts of some; give one of the two")
    known = dict.fromkeys(text for part in parts for entry in part.layout.entries for text in entry.tasks)
    known |= dict.fromkeys(text for part in parts for text in read_tasks(part.layout.root).values())
    strange = next((text for text in texts if text not in known), None)
    if strange is not None:
        raise DatasetError(f"no episode has the task '{strange}'; tasks: {'; '.join(known) or 'none'}")


def _check_subtasks(parts: Sequence[Dataset], features: Mapping[str, dict]) -> None:
    """Raise DatasetError where `subtask_index` counts other texts in some of the datasets."""
    if SUBTASK not in features:
        return
    tables = [read_table(path) if (path := part.layout.root / SUBTASKS).is_file() else None for part in parts]
    for part, table in zip(parts[1:], tables[1:], strict=True):
        if table != tables[0]:
            raise DatasetError(
                f"'{SUBTASK}' counts other texts in {parts[0].layout.root} than in {part.layout.root} ({SUBTASKS}): it"
                f" cannot be one column; leave it out of both with --drop {SUBTASK}"
            )


def _features(parts: Sequence[Dataset], drop: Collection[str]) -> dict[str, dict]:
    """The features of the first dataset, which the others must have, too."""
    first = parts[0]
    for part in parts[1:]:
        for key in dict.fromkeys((*first.features, *part.features)):
            one, other = _told(first.features.get(key)), _told(part.features.get(key))
            if one != other and not _dropped(key, drop):
                raise DatasetError(
                    f"'{key}' is {_words(one)} in {first.layout.root} and {_words(other)} in {part.layout.root}: they"
                    f" cannot be one dataset; leave it out of both with --drop {key}"
                )
            if not _dropped(key, drop) and first.features[key].get("dtype") not in PICTURES:
                check_numbers(key, first, part, f"they cannot be one column; leave it out of both with --drop {key}")
    known = {key for part in parts for key in part.features}
    for name in drop:
        if not any(_dropped(key, [name]) for key in known):
            raise DatasetError(
                f"there is no column and no camera '{name}' to drop; there are {', '.join(sorted(known))}"
            )
        if name in NEEDED:
            raise DatasetError(f"'{name}' cannot be dropped: every dataset has it")
    return {key: feature for key, feature in first.features.items() if not _dropped(key, drop)}


def _dropped(key: str, drop: Collection[str]) -> bool:
    return key in drop or f"{key}".removeprefix(IMAGES) in drop


def _told(feature: dict | None) -> tuple | None:
    if feature is None:
        return None
    shape = feature.get("shape")
    return feature.get("dtype"), list(shape) if isinstance(shape, (list, tuple)) else shape


def _words(told: tuple | None) -> str:
    return "not there" if told is None else f"{told[0]} {told[1]}"
