"""`understudy label DATA`: say which episodes of a recording succeeded, where nobody has said so.

The labels stand beside the recording in `meta/labels.json`; the data files stay as they are. Reading a labelled episode
gives `next.success` 1 at its last frame if it succeeded and 0 elsewhere, whatever was recorded, and, where the columns
are missing, `next.done` 1 at its last frame and `next.reward` equal to `next.success`. What other tools read does not
change. A failure is an episode without success: a time-out.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import replace_text
from .layout import LABELS, DatasetError, Layout, expand_path, read_labels, read_layout

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
        answers = read_labels(layout.root) | given
        labels = {"success": {str(key): answers[key] for key in sorted(answers)}}
        path = replace_text(layout.root / LABELS, json.dumps(labels, indent=1))
        won = sum(answers.values())
        print(f"{path}: {len(answers)} of {len(layout.entries)} episodes labelled, {won} successes")


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


def _read_file(path: Path) -> dict[int, bool]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give all, none, or a file with the columns episode, success")
    text = path.read_text()
    try:
        if path.suffix == ".json":
            document = json.loads(text)
            rows = document.items() if isinstance(document, dict) else enumerate(document)
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
