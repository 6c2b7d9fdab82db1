"""`understudy label DATA`: say which episodes of a recording succeeded, where nobody has said so.

The labels stand beside the recording in `meta/labels.json`; the data files stay as they are. Reading a labelled episode
gives `next.success` 1 at its last frame if it succeeded and 0 elsewhere, whatever was recorded, and, where the columns
are missing, `next.done` 1 at its last frame and `next.reward` equal to `next.success`. What other tools read does not
change. A failure is an episode without success: a time-out.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from .layout import DatasetError, Layout, expand_path, read_layout

LABELS = "meta/labels.json"
SUCCESS, DONE, REWARD = "next.success", "next.done", "next.reward"
WORDS = {"1": True, "true": True, "yes": True, "success": True, "0": False, "false": False, "no": False}
WORDS |= {"failure": False, "": False}


@dataclass(frozen=True, kw_only=True)
class Label:
    """Say which episodes of a dataset succeeded."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("data",)

    data: str  # dataset folder
    success: str  # all | none, or a file: CSV with the columns episode, success, or JSON {"0": true, ...}
    episodes: str = "all"  # with all | none: which, for example 0-9,12

    def run(self) -> None:
        layout = read_layout(expand_path(self.data))
        given = read_answers(self.success, layout, self.episodes)
        told = success_labels(layout) | given
        path = layout.root / LABELS
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps({"success": {str(key): told[key] for key in sorted(told)}}, indent=1))
        os.replace(partial, path)
        won = sum(told.values())
        print(f"{path}: {len(told)} of {len(layout.entries)} episodes labelled, {won} successes")


def read_answers(source: str, layout: Layout, episodes: str = "all") -> dict[int, bool]:
    """Episode id -> success, from `all`, `none` or a file.

    Raises:
        DatasetError: a file that is no table of labels, or episodes that the dataset does not have.
    """
    known = [entry.id for entry in layout.entries]
    if source in ("all", "none"):
        answers = dict.fromkeys(known if episodes == "all" else _numbers(episodes), source == "all")
    else:
        if episodes != "all":
            raise DatasetError("--episodes goes with --success all or none; a file names its episodes itself")
        answers = _read_file(expand_path(source))
    strange = sorted(set(answers) - set(known))
    if strange:
        raise DatasetError(f"{layout.root} has no episode {strange[0]}; it has {len(known)}, up to {max(known)}")
    return answers


def success_labels(layout: Layout) -> dict[int, bool]:
    """Episode id -> success as labelled; empty without labels. Raises DatasetError for a damaged file."""
    path = layout.root / LABELS
    if not path.is_file():
        return {}
    try:
        return {int(key): bool(value) for key, value in json.loads(path.read_text())["success"].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); remove it and label again") from error


def given_by_labels(layout: Layout, labels: Mapping[int, bool]) -> tuple[str, ...]:
    """The columns that labels stand in for where a dataset lacks them: none unless every episode is labelled."""
    whole = labels and all(entry.id in labels for entry in layout.entries)
    return tuple(key for key in (SUCCESS, DONE, REWARD) if whole and key not in layout.features)


def with_labels(
    layout: Layout, labels: Mapping[int, bool], columns: dict[str, np.ndarray], wanted: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """`columns` name -> (N, D) float32 with the labels in, among those that are `wanted`."""
    ends = np.cumsum([entry.length for entry in layout.entries])
    success, done = (
        columns.get(SUCCESS, np.zeros((ends[-1], 1), np.float32)).copy(),
        np.zeros((ends[-1], 1), np.float32),
    )
    for entry, end in zip(layout.entries, ends.tolist(), strict=True):
        done[end - 1] = 1
        if entry.id in labels:
            success[end - entry.length : end] = 0
            success[end - 1] = labels[entry.id]
    made = {DONE: done, REWARD: success}
    made = {key: value for key, value in made.items() if key in given_by_labels(layout, labels)} | {SUCCESS: success}
    return columns | {key: value for key, value in made.items() if key in wanted}


def _read_file(path: Path) -> dict[int, bool]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give all, none, or a file with the columns episode, success")
    text = path.read_text()
    try:
        if path.suffix == ".json":
            told = json.loads(text)
            rows = told.items() if isinstance(told, dict) else enumerate(told)
        else:
            rows = ((row["episode"], row["success"]) for row in csv.DictReader(text.splitlines()))
        return {int(key): _truth(value) for key, value in rows}
    except (KeyError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is no table of labels ({error!r}); write the columns episode, success") from error


def _truth(value) -> bool:
    word = str(value).strip().lower()
    if word not in WORDS:
        raise ValueError(f"'{value}' is neither yes nor no")
    return WORDS[word]


def _numbers(text: str) -> list[int]:
    """`0-2,5` -> [0, 1, 2, 5]."""
    try:
        parts = [[int(number) for number in part.split("-")] for part in text.split(",")]
    except ValueError as error:
        raise DatasetError(f"'{text}' names no episodes; write for example 0-9,12") from error
    return [number for part in parts for number in range(part[0], part[-1] + 1)]
