"""`understudy convert SRC DST`: a new LeRobotDataset out of recordings, without encoding a video again.

Where DST ends in .hdf5, a dataset becomes robomimic's HDF5 (`hdf5.py`).

SRC is a recording of another format (`formats/`), a dataset, or several of them, `A,B`, which are merged. Episodes are
chosen and left out, tasks renamed, columns dropped, and v3.0 or v2.1 is written. SRC stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ...configs.progress import counted
from .choose import ALL, is_condition, numbers_of
from .dataset import Dataset
from .editing.plan import plan_of
from .editing.write import FORMS, write_plan
from .formats.format import FormatError, find_format
from .hdf5 import is_hdf5, write_hdf5
from .imports import with_rate, write_recording
from .layout import INFO, DatasetError, expand_path
from .open import open_dataset
from .several import repeated


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write recordings as a new LeRobot dataset: of another format, chosen, merged, renamed, of another version."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("source", "out")
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies.data.formats",)

    source: str  # file or folder of the recordings, or a dataset; several "A,B" are merged
    out: str  # dataset folder to write, or FILE.hdf5 for robomimic's HDF5; must not exist
    to: str = "v3.0"  # v3.0 | v2.1
    format: str = ""  # of recordings that are no LeRobot dataset; default: the one whose files lie there
    episodes: str = ALL  # which, for example 0-5,7 or "success and length < 200"
    without: str = ""  # episodes left out, for example 6
    tasks: dict[str, str] = field(default_factory=dict)  # text of a task -> its new text
    task: str = ""  # text that all episodes get
    drop: tuple[str, ...] = ()  # columns and cameras that are left out
    rate: float = 0.0  # steps a second, of recordings that do not state it
    pictures: str = ""  # image | video: how pictures of another format are stored; default video

    def run(self) -> None:
        """Write beside `out`, and rename.

        Raises:
            FormatError: a recording of no known format, a file that does not fit. FileExistsError: `out` exists.
            DatasetError: datasets that are damaged, that do not fit together, or that cannot be changed so.
        """
        root, out = expand_path(self.source), expand_path(self.out)
        if self.to not in FORMS:
            raise FormatError(f"'{self.to}' is not written; --to {' or '.join(FORMS)}")
        if is_hdf5(out):
            self._write_hdf5(out)
            return
        foreign = self.format or root.is_file() or (root.is_dir() and not (root / INFO).is_file())
        if foreign and self._only_imports():
            self._import(root, out)
        else:
            self._edit(out)

    def _only_imports(self) -> bool:
        """Whether nothing is asked for that needs a dataset to begin with."""
        conditions = is_condition(self.episodes) or is_condition(self.without)
        return self.to == "v3.0" and not (conditions or self.tasks or self.task or self.drop)

    def _import(self, root: Path, out: Path) -> None:
        name, reader = find_format(root, self.format)
        recording = reader.open(root)
        recording = with_rate(recording, self.rate) if self.rate else recording
        places = _chosen(self.episodes, self.without, len(recording.episodes))
        print(f"{root} is of format {name}; {'; '.join(recording.notes)}")
        episodes, steps = write_recording(name, reader, root, recording, out, places, self.pictures or "video")
        print(f"{out}: {counted(episodes, 'episode')}, {counted(steps, 'step')} at {recording.embodiment.rate:g} Hz")

    def _write_hdf5(self, out: Path) -> None:
        asked = {"to": self.to != "v3.0", "tasks": self.tasks, "rate": self.rate, "pictures": self.pictures}
        for flag, given in (asked | {"format": self.format}).items():
            if given:
                raise DatasetError(
                    f"--{flag} does nothing where robomimic's HDF5 is written; convert to a folder first"
                )
        said = write_hdf5(
            self.source, out, episodes=self.episodes, without=self.without, task=self.task, drop=self.drop
        )
        print(said)

    def _edit(self, out: Path) -> None:
        for flag in ("rate", "pictures", "format"):
            if getattr(self, flag):
                raise DatasetError(
                    f"--{flag} is for a recording that only becomes a dataset; convert it first, then change the rest"
                )
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} exists; choose another folder")
        write_edited(self.source, out, self.to, self.episodes, self.without, self.tasks, self.task, self.drop)


def write_edited(
    source: str,
    out: Path,
    form: str = "v3.0",
    episodes: str = ALL,
    without: str = "",
    tasks: Mapping[str, str] | None = None,
    task: str = "",
    drop: tuple[str, ...] = (),
    shown: Path | None = None,
) -> None:
    """Write the chosen episodes of datasets as a new one, and say what it holds.

    Args:
        shown: where it will be in the end, if that is elsewhere.
    Raises:
        DatasetError: as `Convert.run`.
    """
    dataset = open_dataset(source, columns=(), check=False, episodes=episodes, without=without)
    plan = plan_of(dataset.parts or (dataset,), texts=tasks, task=task, drop=drop)
    notes = (*write_plan(plan, out, form), *twice(dataset))
    rows = sum(kept.entry.length for kept in plan.episodes)
    cameras = f", films of {counted(len(plan.of_kind('video')), 'camera')} copied" if plan.of_kind("video") else ""
    held = f"{counted(len(plan.episodes), 'episode')}, {counted(rows, 'step')} at {plan.rate:g} Hz{cameras}"
    print(f"{shown or out}: LeRobotDataset {form}, {held}")
    for note in notes:
        print(f"note: {note}")


def twice(dataset: Dataset) -> list[str]:
    """A sentence where episodes have the very actions of an earlier one; none where no two are alike."""
    found = repeated(dataset)
    if not found:
        return []
    place, earlier = next(iter(found.items()))
    return [
        f"{counted(len(found), 'episode', 'has', 'have')} the very actions of an earlier one, such as episode"
        f" {place} of {earlier}: is a recording in it twice? What is held out may then be trained on"
    ]


def _chosen(episodes: str, without: str, count: int) -> list[int]:
    """Places of the episodes that are asked for. Raises FormatError where there are no such, or none is left."""
    asked = range(count) if str(episodes).strip() in ("", ALL) else numbers_of(episodes)
    left = numbers_of(without) if str(without).strip() else []
    strange = [number for number in (*asked, *left) if number >= count]
    kept = [number for number in asked if number not in left]
    if strange or not kept:
        what = f"there is no episode {strange[0]}; there are {count}, from 0" if strange else "no episode is left"
        raise FormatError(f"--episodes {episodes} --without {without or '(none)'}: {what}")
    return kept
