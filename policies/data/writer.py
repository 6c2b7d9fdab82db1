"""Episodes into a LeRobotDataset v3.0 folder, one whole episode at a time.

Each episode has its own data (and video) files. They are written beside and renamed; then the episodes table, the
statistics and last `info.json` are replaced by rename. So a writer that is killed loses at most the episode in hand
and leaves a valid dataset of the earlier ones. (Power loss is another matter: nothing is synced to the disk.)
Source: the format as lerobot 0.4.4 reads it; the library itself is not used.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from ...configs.episode import DONE, PROGRESS, REWARD, SENT, SUCCESS, Episode
from ...configs.files import clear_leftovers, new_folder, replace_file, replace_text
from ...configs.spec import ACTION, IMAGES, SCENE, STATE, Embodiment
from .embody import about_features
from .encode import QUANTILES, Moments, png, write_mp4

CHUNK = 1000  # files a folder
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EMBODIMENT, INFO, TASKS = "meta/embodiment.json", "meta/info.json", "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DOCUMENTS = ("meta/recording.json",)  # of the verbs that write datasets, there before the first episode
INDEX = "__index_level_0__"  # what pandas calls an index without a name
ENV_SEED = "env_seed"  # our column in the episodes table
FORMER_ENV_SEED = "start"  # its name in datasets of earlier versions


class DatasetWriter:
    """Writes one dataset folder; each `add` leaves it valid.

    Args:
        root: folder to make.
        embodiment: whose state, scene, cameras and actions every episode holds; its rate is the dataset's.
        pictures: "image" (lossless PNG in the data files) or "video" (h264 mp4, smaller, even sizes only).
        extra: further columns of numbers, name -> names of the dimensions; taken from `Episode.extra`.
        flags: further columns of one bool a frame; taken from `Episode.extra`.
        documents: further files of the folder, path in it -> text; there from the first moment on.
        unsaid: columns of an episode that nobody recorded, such as `next.success`; they are left out.

    Raises:
        FileExistsError: the folder exists.
    """

    def __init__(
        self,
        root: str | Path,
        embodiment: Embodiment,
        *,
        pictures: str = "image",
        extra: Mapping[str, tuple[str, ...]] | None = None,
        flags: Collection[str] = (),
        documents: Mapping[str, str] | None = None,
        unsaid: Collection[str] = (),
    ):
        if pictures not in ("image", "video"):
            raise ValueError(f"pictures must be 'image' or 'video', got '{pictures}'")
        self.root, self.embodiment = Path(root), embodiment
        if self.root.exists():
            raise FileExistsError(
                f"{self.root} exists already; choose another folder, or go on with DatasetWriter.resume"
            )
        features = _features(embodiment, pictures, dict(extra or {}), flags)
        self._features = {key: feature for key, feature in features.items() if key not in unsaid}
        self._start([], None, {}, {})

        def fill(beside: Path) -> None:
            for name, text in {**(documents or {}), EMBODIMENT: embodiment.to_json()}.items():
                replace_text(beside / name, text)
            self._write_info(beside)

        new_folder(self.root, fill)

    def _start(self, lengths: list[int], table, moments: dict[str, Moments], tasks: dict[str, int]) -> None:
        self._lengths, self._table, self._moments, self._tasks = lengths, table, moments, tasks

    @classmethod
    def resume(cls, root: str | Path) -> DatasetWriter:
        """Go on with a dataset that this class began. What a killed writer left half done is removed."""
        import pyarrow.parquet

        self = cls.__new__(cls)
        self.root = Path(root)
        self.embodiment = Embodiment.load(self.root / EMBODIMENT)
        self._features = json.loads((self.root / INFO).read_text())["features"]
        clear_leftovers(self.root)
        path = self.root / EPISODES
        table = pyarrow.parquet.read_table(path) if path.exists() else None
        if table is not None:  # of an earlier version
            table = table.rename_columns([ENV_SEED if n == FORMER_ENV_SEED else n for n in table.column_names])
        rows = table.to_pylist() if table is not None else []
        moments: dict[str, Moments] = {}
        for row in rows:
            _merge(moments, {key: Moments.from_dict(_stats_of(row, key)) for key in self._features})
        self._start([row["length"] for row in rows], table, moments, _read_tasks(self.root / TASKS))
        self._forget_the_next()
        self._write_stats()
        self._write_info()
        return self

    def _forget_the_next(self) -> None:
        """Remove files of an episode that the tables do not count yet, and its task where none but it has it."""
        place = self._place()
        for name in (DATA, *(VIDEO.replace("{video_key}", key) for key in self._of_kind("video"))):
            (self.root / name.format(**place)).unlink(missing_ok=True)
        told = set() if self._table is None else set(self._table["tasks"].combine_chunks().flatten().to_pylist())
        if set(self._tasks) != told:
            self._tasks = {task: number for task, number in self._tasks.items() if task in told}
            if self._tasks:
                self._replace(TASKS, lambda path: write_tasks(path, self._tasks))
            else:
                (self.root / TASKS).unlink(missing_ok=True)

    @staticmethod
    def unbegun(root: str | Path) -> bool:
        """Whether a folder holds nothing yet but what a writer writes before its first episode."""
        begun = {EMBODIMENT, INFO, *DOCUMENTS}
        files = (path for path in Path(root).rglob("*") if path.is_symlink() or not path.is_dir())
        return (
            Path(root).is_dir()
            and not Path(root).is_symlink()
            and all(path.relative_to(root).as_posix() in begun for path in files)
        )

    @property
    def episodes(self) -> int:
        """Episodes written so far."""
        return len(self._lengths)

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return sum(self._lengths)

    def add(self, episode: Episode) -> int:
        """Write one episode; returns its index in the dataset.

        Raises:
            ValueError: a column that is missing, has another shape, or is not finite; nothing is written then.
            OSError: no space left, for example; the earlier episodes stay a valid dataset.
        """
        tasks = self._tasks if episode.task in self._tasks else {**self._tasks, episode.task: len(self._tasks)}
        columns = self._columns(episode, tasks[episode.task])

        place = self._place()

        # pictures and numbers first
        videos = self._of_kind("video")
        for key in videos:
            frames = columns[key]
            self._replace(
                VIDEO.format(video_key=key, **place), lambda p, f=frames: write_mp4(p, f, self.embodiment.rate)
            )
        self._replace(DATA.format(**place), lambda path: self._write_data(path, columns))

        # then the tables that make them count
        stats = {key: self._describe(key, values) for key, values in columns.items()}
        table = self._grown_table(episode, place, videos, stats)
        moments = dict(self._moments)
        _merge(moments, {key: Moments.from_dict(part.to_dict()) for key, part in stats.items()})  # as `resume` reads
        self._replace(TASKS, lambda path: write_tasks(path, tasks))
        self._replace(EPISODES, lambda path: write_parquet(table, path))
        self._start([*self._lengths, len(episode)], table, moments, tasks)
        self._write_stats()
        self._write_info()
        return self.episodes - 1

    def _place(self) -> dict[str, int]:
        """Where the files of the next episode lie."""
        chunk, file = divmod(self.episodes, CHUNK)
        return {"chunk_index": chunk, "file_index": file}

    def _columns(self, episode: Episode, task: int) -> dict[str, np.ndarray]:
        """Every feature as (T, ...) in its dtype, checked."""
        steps = len(episode)
        done = np.zeros(steps, bool)
        done[-1] = True
        given = {
            **episode.obs,
            **episode.extra,
            ACTION: episode.action,
            SENT: episode.sent,
            REWARD: episode.reward,
            DONE: done,
            SUCCESS: episode.success,
            PROGRESS: episode.progress,
            "timestamp": np.arange(steps) / self.embodiment.rate,
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, self.episodes),
            "index": self.frames + np.arange(steps),
            "task_index": np.full(steps, task),
        }
        return {key: _column(key, given, feature, steps) for key, feature in self._features.items()}

    def _of_kind(self, dtype: str) -> list[str]:
        return [key for key, feature in self._features.items() if feature["dtype"] == dtype]

    def _describe(self, key: str, values: np.ndarray) -> Moments:
        if self._features[key]["dtype"] in ("image", "video"):
            return Moments.of_pictures(values)
        return Moments.of_rows(values)

    def _write_data(self, path: Path, columns: dict[str, np.ndarray]) -> None:
        import pyarrow as pa

        arrays = {
            key: _arrow(values, self._features[key])
            for key, values in columns.items()
            if self._features[key]["dtype"] != "video"
        }
        write_parquet(pa.table(arrays), path)

    def _grown_table(self, episode: Episode, place: dict, videos: list[str], stats: dict[str, Moments]):
        import pyarrow as pa

        steps = len(episode)
        row = {"episode_index": self.episodes, "tasks": [episode.task], "length": steps, ENV_SEED: episode.start}
        row |= {f"data/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + steps}
        for key in videos:
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": steps / self.embodiment.rate}
        row |= {f"stats/{key}/{name}": value for key, m in stats.items() for name, value in m.to_dict().items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        new = pa.Table.from_pylist([row])
        if self._table is None:
            return new
        names = self._table.column_names
        if names == new.column_names:  # read back, its lists name their items otherwise
            return pa.concat_tables([self._table.cast(new.schema), new])
        # of a dataset begun before there were quantiles: without them to its end
        return pa.concat_tables([self._table, new.select(names).cast(self._table.schema)])

    def _write_stats(self) -> None:
        values = {key: moments.to_dict() for key, moments in self._moments.items()}
        if values:
            self._replace("meta/stats.json", lambda path: write_json(path, values))

    def _write_info(self, root: Path | None = None) -> None:
        rate = self.embodiment.rate
        info = {
            "codebase_version": "v3.0",
            "robot_type": self.embodiment.name,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(rate) if float(rate).is_integer() else rate,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA,
            "video_path": VIDEO if self._of_kind("video") else None,
            "features": self._features,
        }
        replace_file((root or self.root) / INFO, lambda path: write_json(path, info))

    def _replace(self, relative: str, write: Callable[[Path], object]) -> None:
        """Write beside, then rename; a failure leaves the old file."""
        replace_file(self.root / relative, write)

    def discard(self) -> None:
        """Remove the folder, for a writer whose work turned out useless."""
        shutil.rmtree(self.root)


def _features(
    embodiment: Embodiment, pictures: str, extra: dict[str, tuple[str, ...]], flags: Collection[str]
) -> dict[str, dict]:
    def numbers(names, dtype="float32"):
        return {"dtype": dtype, "shape": [len(names)], "names": list(names)}

    def scalar(dtype):
        return {"dtype": dtype, "shape": [1], "names": None}

    features = {key: numbers(names) for key, names in ((STATE, embodiment.state), (SCENE, embodiment.scene)) if names}
    for name, (height, width) in embodiment.cameras.items():
        camera = {"dtype": pictures, "shape": [height, width, 3], "names": ["height", "width", "channels"]}
        features[IMAGES + name] = camera | (
            {"info": _video_info(embodiment, height, width)} if pictures == "video" else {}
        )
    features |= {ACTION: numbers(embodiment.action), SENT: numbers(embodiment.action)}
    features |= {REWARD: scalar("float32"), DONE: scalar("bool"), SUCCESS: scalar("bool"), PROGRESS: scalar("float32")}
    features |= {key: numbers(names) for key, names in extra.items()} | {key: scalar("bool") for key in flags}
    about = about_features(embodiment)
    about[SENT] = {"units": about[ACTION]["units"]}
    features = {key: feature | about.get(key, {}) for key, feature in features.items()}
    return features | {
        "timestamp": scalar("float32"),
        "frame_index": scalar("int64"),
        "episode_index": scalar("int64"),
        "index": scalar("int64"),
        "task_index": scalar("int64"),
    }


def _video_info(embodiment: Embodiment, height: int, width: int) -> dict:
    facts = {"height": height, "width": width, "codec": "h264", "pix_fmt": "yuv420p", "is_depth_map": False}
    return {f"video.{k}": v for k, v in facts.items()} | {
        "video.fps": embodiment.rate,
        "video.channels": 3,
        "has_audio": False,
    }


def _column(key: str, given: dict[str, np.ndarray], feature: dict, steps: int) -> np.ndarray:
    if key not in given:
        raise ValueError(f"the episode lacks '{key}', which this dataset has; it holds {', '.join(given)}")
    picture = feature["dtype"] in ("image", "video")
    values = np.asarray(given[key])
    shape = (steps,) if feature["shape"] == [1] and values.ndim == 1 else (steps, *feature["shape"])
    if values.shape != shape:
        raise ValueError(f"'{key}' has shape {values.shape}, this dataset needs {shape}")
    if picture and values.dtype != np.uint8:
        raise ValueError(f"'{key}' is {values.dtype}, pictures must be uint8 RGB")
    if not picture and not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(f"'{key}' is not finite at step {frame} of the episode; it is not written")
    return values if picture else values.astype(feature["dtype"], copy=False)


def _arrow(values: np.ndarray, feature: dict):
    import pyarrow as pa

    if feature["dtype"] == "image":
        rows = [{"bytes": png(frame), "path": None} for frame in values]
        return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if feature["shape"] == [1] else pa.FixedSizeListArray.from_arrays(flat, feature["shape"][0])


def _merge(into: dict[str, Moments], new: dict[str, Moments]) -> None:
    for key, moments in new.items():
        into[key] = into[key].merge(moments) if key in into else moments


def _stats_of(row: dict, key: str) -> dict:
    names = ("count", "mean", "std", "min", "max", *QUANTILES)
    return {name: row[f"stats/{key}/{name}"] for name in names if f"stats/{key}/{name}" in row}


def write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """A pandas frame indexed by the text, as lerobot expects it."""
    import pyarrow as pa

    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), INDEX: list(tasks)})
    kinds = {"task_index": ("int64", "int64"), INDEX: ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, (kind, numpy) in kinds.items()
    ]
    columns[1]["name"] = None  # an index without a name
    pandas = {"index_columns": [INDEX], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    write_parquet(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def _read_tasks(path: Path) -> dict[str, int]:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []
    return {row[INDEX]: row["task_index"] for row in rows}


def write_parquet(table, path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table.combine_chunks(), path, compression="snappy")  # bytes by the values alone


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1))
