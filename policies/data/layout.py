"""Where a LeRobotDataset keeps things: `meta/` read into one plain `Layout`, the same for v3.0, v2.1 and v2.0.

Borders of episodes come from the episodes table only. This file opens no data and no video file. Source: the format as
lerobot 0.4.4 (v3.0) and 0.3 (v2.x) write it; the library itself is not used.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ...configs.episode import DONE, REWARD, SUCCESS

VERSIONS = ("v2.0", "v2.1", "v3.0")
PICTURES = ("image", "video")  # dtypes of camera features
TEXTS = ("string", "language")  # dtypes of words; "language": lerobot's annotations, lists of messages
LABELS = "meta/labels.json"  # ours: which episodes succeeded, see `labels.py`
LABELLED = (SUCCESS, DONE, REWARD)  # columns that labels can stand in for
BOOKKEEPING = ("index", "episode_index", "frame_index")  # columns that only say where a row belongs


class DatasetError(ValueError):
    """A dataset that cannot be used as asked; the message says where and what to do."""


class DatasetWarning(UserWarning):
    """Something of a dataset was left out."""


@dataclass(frozen=True)
class Clip:
    """The part of a video file that belongs to one episode."""

    path: str  # relative to the root
    start: float  # seconds of its first frame in the file


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


@dataclass(frozen=True)
class Layout:
    """All that `meta/` says."""

    root: Path
    version: str
    rate: float  # frames per second
    features: dict[str, dict]
    entries: tuple[Entry, ...]

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
    def vectors(self) -> tuple[str, ...]:
        """Features that are numbers and not bookkeeping, and what labels stand in for."""
        other = {*self.of_kind(*PICTURES, *TEXTS), *BOOKKEEPING}
        labelled = LABELLED if all(entry.success is not None for entry in self.entries) else ()
        return tuple(dict.fromkeys(key for key in (*self.features, *labelled) if key not in other))


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
    empty = next((entry for entry in entries if entry.length < 1), None)
    if empty:
        raise DatasetError(f"episode {empty.id} of {root} has length {empty.length}; remove it from the episodes table")
    if labels := read_labels(root):
        entries = [dataclasses.replace(entry, success=labels.get(entry.id)) for entry in entries]
    return Layout(root, version, float(info["fps"]), info["features"], tuple(entries))


def read_labels(root: Path) -> dict[int, bool]:
    """Episode id -> success as labelled; empty without labels. Raises DatasetError for a damaged file."""
    path = root / LABELS
    if not path.is_file():
        return {}
    try:
        return {int(key): bool(value) for key, value in json.loads(path.read_text())["success"].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); remove it and label again") from error


def read_info(root: Path) -> dict:
    """`meta/info.json` of a dataset folder. Raises DatasetError: not there, damaged, of an unknown version."""
    path = root / "meta" / "info.json"
    if not path.is_file():
        what = "is not a LeRobotDataset: it has no meta/info.json" if root.is_dir() else "does not exist"
        raise DatasetError(f"{root} {what}; give the folder that holds meta/ and data/, or a hub id like lerobot/pusht")
    try:
        info = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error}); copy the dataset again") from error
    for key in ("codebase_version", "fps", "features", "data_path"):
        if not info.get(key):
            raise DatasetError(f"{path} lacks '{key}'; copy the dataset again or add it")
    if info["codebase_version"] not in VERSIONS:
        raise DatasetError(
            f"{root} is a LeRobotDataset {info['codebase_version']}; understudy reads {', '.join(VERSIONS)}."
            " Convert it with lerobot's own converter first"
        )
    return info


def read_table(path: Path, columns: list[str] | None = None):
    """A parquet file as a pyarrow table. Raises DatasetError naming a missing or damaged file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            have = set(file.schema_arrow.names)
            return file.read(None if columns is None else [name for name in columns if name in have])
    except FileNotFoundError as error:
        raise DatasetError(f"the file {path} is missing; copy it again or remove its episodes from meta/") from error
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(
            f"the file {path} is damaged or cut short ({error}); copy it again or remove its episodes from meta/"
        ) from error


def read_tasks(root: Path) -> dict[int, str]:
    """task_index -> text of the task; empty where the dataset lists none.

    The text is the index of a pandas table (v3.0), whatever that is called, or a line of JSON (v2.x).
    """
    lines, table = root / "meta" / "tasks.jsonl", root / "meta" / "tasks.parquet"
    if table.is_file():
        rows = read_table(table).to_pylist()
        named = [(row.pop("task_index", None), next(iter(row.values()), "")) for row in rows]
    elif lines.is_file():
        try:
            rows = [json.loads(line) for line in lines.read_text().splitlines() if line.strip()]
            named = [(row["task_index"], row["task"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{lines} is damaged ({error!r}); copy it again") from error
    else:
        named = []
    return {int(index): str(text) for index, text in named if index is not None}


def _entries_v3(root: Path, info: dict) -> list[Entry]:
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    rows = [row for path in paths for row in _rows_without_statistics(path)]
    videos = _videos(info)
    try:
        return [_entry_v3(row, info, videos) for row in sorted(rows, key=lambda row: row["episode_index"])]
    except KeyError as error:
        raise DatasetError(f"the episodes table of {root} lacks column {error}; copy meta/episodes again") from error


def _rows_without_statistics(path: Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"the file {path} is damaged or cut short ({error}); copy it again") from error
    return read_table(path, [name for name in names if not name.startswith("stats/")]).to_pylist()


def _entry_v3(row: dict, info: dict, videos: list[str]) -> Entry:
    def file(template: str, prefix: str, **more) -> str:
        return template.format(chunk_index=row[f"{prefix}/chunk_index"], file_index=row[f"{prefix}/file_index"], **more)

    clips = {
        key: Clip(file(info["video_path"], f"videos/{key}", video_key=key), row[f"videos/{key}/from_timestamp"])
        for key in videos
        if row.get(f"videos/{key}/file_index") is not None
    }
    first, end = row["dataset_from_index"], row["dataset_to_index"]
    length = row.get("length") or end - first
    if end - first != length:
        contradiction = f"episode {row['episode_index']} has {length} frames but spans {end - first}"
        raise DatasetError(f"the episodes table contradicts itself: {contradiction}; copy meta/episodes again")
    data = file(info["data_path"], "data")
    return Entry(row["episode_index"], length, tuple(row.get("tasks") or ()), data, first, clips)


def _videos(info: dict) -> list[str]:
    keys = [key for key, feature in info["features"].items() if feature.get("dtype") == "video"]
    return keys if info.get("video_path") else []


def _entries_v2(root: Path, info: dict) -> list[Entry]:
    path = root / "meta" / "episodes.jsonl"
    if not path.is_file():
        raise DatasetError(f"{path} is missing; a {info['codebase_version']} dataset needs it, copy the dataset again")
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise DatasetError(f"{path} is damaged ({error}); copy it again") from error
    try:
        return [_entry_v2(row, info) for row in sorted(rows, key=lambda row: row["episode_index"])]
    except KeyError as error:
        raise DatasetError(f"a row of {path} lacks {error}; copy meta/ again") from error


def _entry_v2(row: dict, info: dict) -> Entry:
    index = row["episode_index"]
    place = {"episode_index": index, "episode_chunk": index // info.get("chunks_size", 1000)}
    clips = {key: Clip(info["video_path"].format(video_key=key, **place), 0.0) for key in _videos(info)}
    tasks = tuple(row.get("tasks") or ())
    return Entry(index, row["length"], tasks, info["data_path"].format(**place), None, clips)
