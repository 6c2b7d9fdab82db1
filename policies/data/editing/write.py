"""An edited dataset on the disk, as LeRobotDataset v3.0 or v2.1; written beside and renamed.

v3.0: the kept episodes of a data file stay one file. v2.1: a file an episode. Sources: the formats as lerobot 0.4.4
(v3.0) and 0.3 (v2.1) write them; the library itself is not used.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from ....configs.files import new_folder
from ....configs.progress import Progress, counted
from ..encode import Moments
from ..layout import INFO
from ..tables import DatasetError
from ..writer import CHUNK, DATA, EPISODES, TASKS, VIDEO, write_json, write_parquet, write_tasks
from .described import CORE, Pictures, further_cells, merged, write_documents
from .left import left_behind
from .plan import Plan
from .rows import new_rows, row_moments
from .videos import Placed, place_films, require_films

V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
FORMS = ("v3.0", "v2.1")


def write_plan(plan: Plan, out: Path, form: str = "v3.0") -> tuple[str, ...]:
    """Write a dataset; returns what there is to say of it.

    Raises:
        FileExistsError: `out` is there. DatasetError: rows or films that do not fit; nothing is left then.
    """
    if form not in FORMS:
        raise DatasetError(f"'{form}' is not written; write {' or '.join(FORMS)}")
    require_films(plan)
    notes: list[str] = []
    new_folder(out, lambda root: notes.extend(_fill(plan, root, form)))
    return tuple(notes)


def _fill(plan: Plan, root: Path, form: str) -> list[str]:
    films = {key: _films(plan, key, root, form) for key in plan.of_kind("video")}
    rows = _fill_v3(plan, root, films) if form == "v3.0" else _fill_v2(plan, root)
    _write_info(plan, root, form, rows)
    write_documents(plan, root)
    return left_behind(plan) + [
        f"{counted(sum(one.whole for one in placed), 'episode')} of '{key}' could not be cut out of their films "
        "without encoding them again; the whole films are there, also what was left out"
        for key, placed in films.items()
        if any(one.whole for one in placed)
    ]


def _films(plan: Plan, key: str, root: Path, form: str) -> list[Placed]:
    """Write the films of a camera; the place of each episode."""

    def path_of(number: int) -> Path:
        chunk, file = divmod(number, CHUNK)
        if form == "v3.0":
            return root / VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
        return root / V2_VIDEO.format(video_key=key, episode_chunk=chunk, episode_index=number)

    placed: list[Placed] = []
    with Progress(f"copying {key}", len(plan.episodes), "episodes") as progress:
        for some in place_films(plan, key, path_of, own=form != "v3.0"):
            placed += some
            progress.update(len(placed))
    return placed


def _fill_v3(plan: Plan, root: Path, films: dict[str, list[Placed]]) -> int:
    """Data files, episodes, tasks and statistics; the number of rows."""
    import pyarrow as pa

    pictures, cells = Pictures(plan), further_cells(plan)
    table: list[dict[str, Any]] = []
    moments: dict[str, Moments] = {}
    begin = 0
    grouped = groupby(new_rows(plan), key=lambda one: (id(one[0].layout), one[0].entry.file))
    for number, (_, group) in enumerate(grouped):
        chunk, file = divmod(number, CHUNK)
        tables = []
        for kept, rows in group:
            place = len(table)
            stats = row_moments(plan, rows) | pictures.of(kept)
            moments = merged(moments, stats)
            row: dict[str, Any] = {"episode_index": place, "tasks": list(kept.tasks), "length": kept.entry.length}
            row |= {"data/chunk_index": chunk, "data/file_index": file}
            row |= {"dataset_from_index": begin, "dataset_to_index": begin + kept.entry.length} | cells[place]
            row |= {name: value for key, placed in films.items() for name, value in _clip(key, placed[place])}
            row |= {f"stats/{key}/{name}": v for key, one in stats.items() for name, v in one.to_dict().items()}
            table.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
            tables.append(rows)
            begin += kept.entry.length
        path = root / DATA.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(pa.concat_tables(tables, promote_options="default"), path)

    (root / EPISODES).parent.mkdir(parents=True, exist_ok=True)
    keys = dict.fromkeys(key for row in table for key in row)
    write_parquet(pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in table]), root / EPISODES)
    write_tasks(root / TASKS, plan.tasks)
    write_json(root / "meta/stats.json", {key: one.to_dict() for key, one in moments.items()})
    return begin


def _clip(key: str, placed: Placed) -> list[tuple[str, Any]]:
    chunk, file = divmod(placed.number, CHUNK)
    values = {"chunk_index": chunk, "file_index": file, "from_timestamp": placed.start, "to_timestamp": placed.end}
    return [(f"videos/{key}/{name}", value) for name, value in values.items()]


def _fill_v2(plan: Plan, root: Path) -> int:
    """The same as files of JSON lines and a data file an episode."""
    pictures, cells = Pictures(plan), further_cells(plan)
    episodes, told, begin = [], [], 0
    for place, (kept, rows) in enumerate(new_rows(plan)):
        path = root / V2_DATA.format(episode_chunk=place // CHUNK, episode_index=place)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(rows, path)
        stats = row_moments(plan, rows) | pictures.of(kept)
        values = {key: {name: one.to_dict()[name] for name in CORE} for key, one in stats.items()}
        episodes.append({"episode_index": place, "tasks": list(kept.tasks), "length": kept.entry.length} | cells[place])
        told.append({"episode_index": place, "stats": values})
        begin += kept.entry.length
    tasks = [{"task_index": number, "task": text} for text, number in plan.tasks.items()]
    for name, lines in {"episodes": episodes, "episodes_stats": told, "tasks": tasks}.items():
        path = root / "meta" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return begin


def _write_info(plan: Plan, root: Path, form: str, rows: int) -> None:
    count, videos = len(plan.episodes), plan.of_kind("video")
    info = {key: value for key, value in plan.info.items() if key not in ("total_videos", "total_chunks")}
    info |= {
        "codebase_version": form,
        "total_episodes": count,
        "total_frames": rows,
        "total_tasks": len(plan.tasks),
        "chunks_size": CHUNK,
        "splits": {"train": f"0:{count}"},
        "features": plan.features,
    }
    if form == "v3.0":
        info |= {"data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
        info |= {"data_path": DATA, "video_path": VIDEO if videos else None}
    else:
        for key in ("data_files_size_in_mb", "video_files_size_in_mb"):
            info.pop(key, None)
        info |= {"total_videos": count * len(videos), "total_chunks": -(-count // CHUNK)}
        info |= {"data_path": V2_DATA, "video_path": V2_VIDEO if videos else None}
    write_json(root / INFO, info)
