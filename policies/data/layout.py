"""Where a LeRobotDataset keeps things: `meta/` read into one plain `Layout`, the same for v3.0, v2.1 and v2.0.

Borders of episodes come from the episodes table; `rows.py` compares them with the rows. This file opens no data and no
video file, and believes nothing that it reads (`tables.py`): what it gives on are whole numbers, texts and paths inside
the folder. Source: the format as lerobot 0.4.4 (v3.0) and 0.3 (v2.x) write it; the library itself is not used.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter

from ...configs.episode import DONE, REWARD, SUCCESS
from .tables import (
    MOST,
    Cells,
    DatasetError,
    file_inside,
    is_absent,
    is_number,
    is_whole,
    json_lines,
    read_json,
    refuse_leaving,
    refuse_pointer,
    short,
    table_rows,
)

VERSIONS = ("v2.0", "v2.1", "v3.0")
PICTURES = ("image", "video")  # dtypes of camera features
TEXTS = ("string", "language")  # dtypes of words; "language": lerobot's annotations, lists of messages
INFO = "meta/info.json"
SOURCE = "meta/source.json"  # ours: of a recording of another format, see `imports.py`
LABELS = "meta/labels.json"  # ours: which episodes succeeded, see `labels.py`
LABELLED = (SUCCESS, DONE, REWARD)  # columns that labels can stand in for
SMALLEST = 8  # side of what is taken for a picture stored as numbers
BOOKKEEPING = ("index", "episode_index", "frame_index")  # columns that only say where a row belongs


@dataclass(frozen=True)
class Clip:
    """The part of a video file that belongs to one episode."""

    path: str  # relative to the root
    start: float  # seconds of its first frame in the file
    end: float | None = None  # seconds where it ends, as the table says


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of the episodes table."""

    id: int
    length: int  # frames
    tasks: tuple[str, ...]
    file: str  # data file, relative to the root
    first: int | None  # value of the column `index` at its first frame; None: the file is this episode
    clips: dict[str, Clip]  # video feature -> clip
    success: bool | None = None  # as labelled afterwards; None: not
    recorded: int | None = None  # `episode_index` of its rows where it was numbered anew; None: `id`

    @property
    def recorded_id(self) -> int:
        """What `episode_index` says in its rows."""
        return self.id if self.recorded is None else self.recorded


@dataclass(frozen=True)
class Layout:
    """All that `meta/` says."""

    root: Path
    version: str
    rate: float  # frames per second
    features: dict[str, dict]
    entries: tuple[Entry, ...]
    others: tuple[Entry, ...] = ()  # episodes of the table that were left out; their rows still lie in the files
    notes: tuple[str, ...] = ()  # what is odd about `meta/`, as sentences
    sources: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # column -> recorded ones it joins
    recorded: dict[str, dict] = dataclasses.field(default_factory=dict)  # as recorded, where columns are joined

    def only(self, ids: Iterable[int]) -> Layout:
        """The layout with these episodes alone, in the order of the table; the rest is `others`."""
        chosen = set(ids)
        kept = tuple(entry for entry in self.entries if entry.id in chosen)
        left = tuple(entry for entry in self.entries if entry.id not in chosen)
        return dataclasses.replace(self, entries=kept, others=(*self.others, *left))

    def of_kind(self, *dtypes: str) -> tuple[str, ...]:
        """Features of these dtypes."""
        return tuple(key for key, feature in self.features.items() if feature.get("dtype") in dtypes)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Features of cameras that see colours."""
        return tuple(key for key in self.of_kind(*PICTURES) if not is_depth(self.features[key]))

    @property
    def depth_cameras(self) -> tuple[str, ...]:
        """Features of cameras that measure distances; their frames are no pictures and are not read."""
        return tuple(key for key in self.of_kind(*PICTURES) if is_depth(self.features[key]))

    @property
    def stored_pictures(self) -> tuple[str, ...]:
        """Features that are pictures stored as numbers; read where one is named, never because all columns are."""
        return tuple(key for key in self.of_kind("uint8") if _has_a_pictures_shape(self.features[key]))

    @property
    def vectors(self) -> tuple[str, ...]:
        """Features that are numbers and not bookkeeping, and what labels stand in for."""
        other = {*self.of_kind(*PICTURES, *TEXTS), *self.stored_pictures, *BOOKKEEPING}
        labelled = LABELLED if all(entry.success is not None for entry in self.entries) else ()
        return tuple(dict.fromkeys(key for key in (*self.features, *labelled) if key not in other))


def _has_a_pictures_shape(feature: dict) -> bool:
    """Whether the shape is (h, w), (h, w, channels) or (channels, h, w), with sides of 8 or more."""
    shape = feature.get("shape")
    if not isinstance(shape, (list, tuple)) or not all(isinstance(n, int) for n in shape):
        return False
    sides = sorted(shape)
    if len(sides) == 3 and 1 <= sides[0] <= 4 and sides[0] in (shape[0], shape[-1]):
        sides = sides[1:]
    return len(sides) == 2 and sides[0] >= SMALLEST


def is_depth(feature: dict) -> bool:
    """Whether a camera feature holds distances: `is_depth_map` since lerobot 0.6, `video.is_depth_map` before."""
    notes = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return bool(notes.get("is_depth_map") or notes.get("video.is_depth_map"))


def expand_path(path: str | Path) -> Path:
    """`$VAR` and `~` replaced. Raises DatasetError naming a variable that is not set."""

    def value(match: re.Match) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise DatasetError(f"the environment variable {name} in '{path}' is not set; export {name}=... first")
        return os.environ[name]

    return Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, str(path))).expanduser()


def read_layout(root: Path) -> Layout:
    """Read `meta/` of a dataset folder.

    Raises:
        DatasetError: no or unreadable meta files, an unknown version, no episodes.
    """
    info = read_info(root)
    version = info["codebase_version"]
    entries = _entries_v3(root, info) if version == "v3.0" else _entries_v2(root, info)
    if not entries:
        raise DatasetError(f"{root} has zero episodes; record or copy at least one")
    ids = [entry.id for entry in entries]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DatasetError(f"episode {twice} stands twice in the episodes table of {root}; remove one of the two rows")
    notes = tuple(_losses(root, info, entries))
    if empty := [entry.id for entry in entries if entry.length < 1]:
        entries = [entry for entry in entries if entry.length >= 1]
        listed = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        notes = (*notes, f"passed over {len(empty)} episodes of {root} that have length 0, no frames: {listed}")
        if not entries:
            raise DatasetError(f"all {len(empty)} episodes of {root} have length 0; record or copy at least one")
    if labels := read_labels(root):
        entries = [dataclasses.replace(entry, success=labels.get(entry.id)) for entry in entries]
    return Layout(root, version, float(info["fps"]), info["features"], tuple(entries), notes=notes)


def _losses(root: Path, info: dict, entries: list[Entry]) -> Iterable[str]:
    """What `total_episodes` and `total_frames` say against the table.

    One episode more in the table is what a writer leaves that was killed before its last file.
    """
    found = {"episodes": len(entries), "frames": sum(entry.length for entry in entries)}
    said = {what: info.get(f"total_{what}") for what in found}
    if said["episodes"] == found["episodes"] - 1:
        return
    for what, number in said.items():
        if number is not None and number != found[what]:
            outcome = "are lost" if found[what] < number else "are not counted there"
            yield (
                f"{root}/meta/info.json says total_{what} {number:.0f}, the episodes table lists {found[what]}:"
                f" {abs(found[what] - number):.0f} {outcome}; copy meta/ again, or correct the number"
            )


def read_labels(root: Path) -> dict[int, bool]:
    """Episode id -> success as labelled; empty without labels. Raises DatasetError for a damaged file."""
    path = root / LABELS
    if not path.is_file():
        return {}
    try:
        found = {
            int(key): _truth(value) for key, value in read_json(path, "remove it and label again")["success"].items()
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} is damaged ({error!r}); remove it and label again") from error
    return found


def _truth(value: object) -> bool:
    if value not in (True, False):
        raise ValueError(f"{value!r} is neither true nor false")
    return bool(value)


def read_info(root: Path) -> dict:
    """`meta/info.json` of a dataset folder. Raises DatasetError: not there, damaged, of an unknown version."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DatasetError(f"{root} {_no_dataset(root)}")
    info = read_json(path, "copy the dataset again")
    if not isinstance(info, dict):
        raise DatasetError(f"{path} holds no names and values; copy the dataset again")
    for key in ("codebase_version", "fps", "features", "data_path"):
        if info.get(key) in (None, "", [], {}):
            raise DatasetError(f"{path} lacks '{key}'; copy the dataset again or add it")
    if info["codebase_version"] not in VERSIONS:
        raise DatasetError(
            f"{root} is a LeRobotDataset {info['codebase_version']}; understudy reads {', '.join(VERSIONS)}."
            " Convert it with lerobot's own converter first"
        )
    _check_info(info, path)
    return info


def _no_dataset(root: Path) -> str:
    """Why a folder is none, and what to do."""
    if root.is_file():
        return "is a file, no LeRobotDataset; a recording of another format becomes one by `understudy convert`"
    if not root.is_dir():
        return "does not exist; give the folder that holds meta/ and data/, or a hub id like lerobot/pusht"
    what = "is not a LeRobotDataset: it has no meta/info.json"
    if inside := [path.parents[1] for path in sorted(root.glob("*/meta/info.json"))]:
        return f"{what}; did you mean {inside[0]}?"
    return (
        f"{what}; give the folder that holds meta/ and data/, or a hub id like lerobot/pusht (recordings of another "
        "format: understudy convert)"
    )


def _check_info(info: dict, path: Path) -> None:
    """Raise DatasetError for values of `info.json` that are not of their kind."""

    def refuse(key: str, what: str) -> DatasetError:
        return DatasetError(
            f"{path} says {key} {short(info[key])}, {what} is due; correct it or copy the dataset again"
        )

    fps = info["fps"]
    if not is_number(fps) or not 0 < fps < MOST:
        raise refuse("fps", "a number of frames a second above 0")
    for key in ("total_episodes", "total_frames"):
        if info.get(key) is not None and not is_whole(info[key]):
            raise refuse(key, "a whole number from 0 on")
    if info.get("chunks_size") is not None and not (is_whole(info["chunks_size"]) and info["chunks_size"] >= 1):
        raise refuse("chunks_size", "a whole number above 0")
    for key in ("data_path", "video_path"):
        if info.get(key) is not None and not isinstance(info[key], str):
            raise refuse(key, "a text")
    if not isinstance(info["features"], dict):
        raise refuse("features", "a table of names and features")
    for name, feature in info["features"].items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        sizes = shape if isinstance(shape, list) else [shape] if shape is not None else []
        pictures = isinstance(feature, dict) and feature.get("dtype") in PICTURES
        if not isinstance(feature, dict) or not isinstance(feature.get("dtype", ""), str):
            raise DatasetError(
                f"{path} says no dtype and shape of the feature '{name}'; correct it or remove the feature"
            )
        if not pictures and not all(is_whole(size) for size in sizes):
            raise DatasetError(
                f"{path} gives the feature '{name}' the shape {short(shape)}; whole numbers are due, such as [6]"
            )
        if not isinstance(feature.get("names") or [], (list, dict, str)):
            raise DatasetError(f"{path} gives the feature '{name}' {short(feature['names'])} as names; a list is due")
        for key in ("info", "video_info"):
            if not isinstance(feature.get(key) or {}, dict):
                raise DatasetError(
                    f"{path} gives the feature '{name}' no table of names as '{key}'; correct or remove it"
                )


def read_tasks(root: Path) -> dict[int, str]:
    """task_index -> text of the task; empty where the dataset lists none.

    The text is the index of a pandas table (v3.0), whatever that is called, or a line of JSON (v2.x).
    """
    lines, table = root / "meta" / "tasks.jsonl", root / "meta" / "tasks.parquet"
    if table.is_file():
        named = [(row.pop("task_index", None), next(iter(row.values()), "")) for row in table_rows(table)]
        source = table
    elif lines.is_file():
        rows = json_lines(lines)
        lacking = next((key for row in rows for key in ("task_index", "task") if key not in row), None)
        if lacking:
            raise DatasetError(f"a row of {lines} lacks '{lacking}'; copy it again")
        named, source = [(row["task_index"], row["task"]) for row in rows], lines
    else:
        return {}
    strange = next((index for index, _ in named if not is_absent(index) and not is_whole(index)), None)
    if strange is not None:
        raise DatasetError(f"{source} has the task_index {short(strange)}, a whole number is due; copy it again")
    return {int(index): str(text) for index, text in named if not is_absent(index)}


def _entries_v3(root: Path, info: dict) -> list[Entry]:
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    rows = [row for path in paths for row in _rows_without_statistics(root, path)]
    videos = _videos(info)
    _check_template(root, info, "data_path", ("chunk_index", "file_index"))
    if videos:
        _check_template(root, info, "video_path", ("chunk_index", "file_index", "video_key"))
    data_file = cache(lambda chunk, file: info["data_path"].format(chunk_index=chunk, file_index=file))
    try:
        return [
            _entry_v3(row, info, videos, data_file) for row in sorted(rows, key=lambda row: row.whole("episode_index"))
        ]
    except KeyError as error:
        raise DatasetError(f"the episodes table of {root} lacks column {error}; copy meta/episodes again") from error


def _rows_without_statistics(root: Path, path: Path) -> list[Cells]:
    import pyarrow
    import pyarrow.parquet

    file_inside(root, str(path.relative_to(root)))
    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        refuse_pointer(path)
        raise DatasetError(f"the file {path} is damaged or cut short ({error}); copy it again") from error
    return [Cells(cells, path) for cells in table_rows(path, [name for name in names if not name.startswith("stats/")])]


def _check_template(root: Path, info: dict, key: str, known: tuple[str, ...]) -> None:
    """Raise DatasetError for a path template that cannot be filled in, or that leaves the folder."""
    path, template = root / "meta" / "info.json", info[key]
    names = ", ".join(f"{{{name}}}" for name in known)
    try:
        fields = [(name, spec) for _, name, spec, _ in Formatter().parse(template) if name is not None]
        strange = next((name for name, spec in fields if name not in known or len(spec or "") > 8), None)
        if strange is None:
            refuse_leaving(
                template.format(**{name: "0" if name == "video_key" else 0 for name in known}), f"{path}, '{key}',"
            )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path} has a '{key}' that is no path ({error}): {template!r}; it may hold {names}"
        ) from error
    if strange is not None:
        raise DatasetError(
            f"{path} has a '{key}' with {{{strange}}}, which nobody fills in: {template!r};"
            f" correct it, it may hold {names}"
        )


def _clip(info: dict, key: str, start: float, end: float | None = None, **place: int) -> Clip:
    path = info["video_path"].format(video_key=key, **place)
    refuse_leaving(path, f"the feature '{key}'")
    return Clip(path, start, end)


def _entry_v3(row: Cells, info: dict, videos: list[str], data_file: Callable[[int, int], str]) -> Entry:
    index = row.whole("episode_index")
    clips = {}
    for key in videos:
        chunk, file = (row.maybe(f"videos/{key}/{name}") for name in ("chunk_index", "file_index"))
        start = row.seconds(f"videos/{key}/from_timestamp")
        if chunk is not None and file is not None and start is not None:
            end = row.seconds(f"videos/{key}/to_timestamp")
            clips[key] = _clip(info, key, start, end, chunk_index=chunk, file_index=file)

    first, last = row.whole("dataset_from_index"), row.whole("dataset_to_index")
    length = row.maybe("length") or last - first
    if last - first != length:
        contradiction = f"episode {index} has {length} frames but spans {last - first}"
        raise DatasetError(f"the episodes table contradicts itself: {contradiction}; copy meta/episodes again")
    data = data_file(row.whole("data/chunk_index"), row.whole("data/file_index"))
    return Entry(index, length, row.tasks(), data, first, clips)


def _videos(info: dict) -> list[str]:
    keys = [key for key, feature in info["features"].items() if feature.get("dtype") == "video"]
    return keys if info.get("video_path") else []


def _entries_v2(root: Path, info: dict) -> list[Entry]:
    path = root / "meta" / "episodes.jsonl"
    if not path.is_file():
        raise DatasetError(f"{path} is missing; a {info['codebase_version']} dataset needs it, copy the dataset again")
    rows = [Cells(cells, path) for cells in json_lines(file_inside(root, "meta/episodes.jsonl"))]
    known = ("episode_index", "episode_chunk", "chunk_index")
    _check_template(root, info, "data_path", known)
    if _videos(info):
        _check_template(root, info, "video_path", (*known, "video_key"))
    try:
        return [_entry_v2(row, info) for row in sorted(rows, key=lambda row: row.whole("episode_index"))]
    except KeyError as error:
        raise DatasetError(f"a row of {path} lacks {error}; copy meta/ again") from error


def _entry_v2(row: Cells, info: dict) -> Entry:
    index = row.whole("episode_index")
    chunk = index // int(info.get("chunks_size") or 1000)
    place = {"episode_index": index, "episode_chunk": chunk, "chunk_index": chunk}  # the last is the name in v3.0
    clips = {key: _clip(info, key, 0.0, **place) for key in _videos(info)}
    return Entry(index, row.whole("length"), row.tasks(), info["data_path"].format(**place), None, clips)
