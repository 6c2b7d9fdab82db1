"""What the tables of an edited dataset say: statistics of each episode and of all, and our own documents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....configs.files import replace_text
from ..decode import sample_pictures
from ..embody import CARD
from ..encode import QUANTILES, Moments
from ..known import SEED, env_seeds
from ..layout import LABELS, SOURCE, Layout, is_depth
from ..tables import is_absent, json_lines, read_json, read_table
from .plan import SUBTASK, SUBTASKS, Kept, Plan

SAMPLED = 32  # pictures of an episode whose statistics nobody wrote down
SINGLE = ("meta/guard.json", "meta/recording.json")  # documents that are about one recording
OWN = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", SEED, "start")  # of its columns
OWN_PARTS = ("data/", "videos/", "meta/", "stats/")
CORE = ("min", "max", "mean", "std", "count")


class Pictures:
    """Statistics of the cameras, episode by episode: as they were written, else of some of the pictures."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._told = {id(layout): _written(layout, plan.of_kind("image", "video")) for layout in plan.layouts}

    def of(self, kept: Kept) -> dict[str, Moments]:
        """Moments of each camera in one episode."""
        written, found = self._told[id(kept.layout)].get(kept.entry.id, {}), {}
        for key in self.plan.of_kind("image", "video"):
            if key in written:
                found[key] = written[key]
            elif not is_depth(self.plan.features[key]):
                places = np.unique(np.linspace(0, kept.entry.length - 1, SAMPLED).astype(int))
                found[key] = Moments.of_pictures(np.stack(sample_pictures(kept.layout, key, kept.entry, places)))
        return found


def _written(layout: Layout, cameras: list[str]) -> dict[int, dict[str, Moments]]:
    """Episode id -> camera -> moments, where the dataset says them."""
    rows: list[tuple[int, dict[str, dict]]] = []
    lines = layout.root / "meta" / "episodes_stats.jsonl"
    if lines.is_file():
        rows = [(row.get("episode_index", -1), row.get("stats") or {}) for row in json_lines(lines)]
    for path in sorted((layout.root / "meta" / "episodes").glob("*/*.parquet")):
        names = [f"stats/{key}/{name}" for key in cameras for name in (*CORE, *QUANTILES)]
        for row in read_table(path, ["episode_index", *names]).to_pylist():
            told = {key: {n: row.get(f"stats/{key}/{n}") for n in (*CORE, *QUANTILES)} for key in cameras}
            rows.append((row.get("episode_index", -1), told))
    return {episode: {key: one for key in cameras if (one := _moments(told.get(key)))} for episode, told in rows}


def _moments(told: Mapping[str, Any] | None) -> Moments | None:
    """Written statistics; None where they are not whole."""
    if not told or any(told.get(name) is None for name in CORE):
        return None
    try:
        found = Moments.from_dict({name: value for name, value in told.items() if value is not None})
    except (TypeError, ValueError, IndexError, KeyError):
        return None
    shapes = {part.shape for part in (found.mean, found.square, found.low, found.high)}
    return found if shapes == {(3, 1, 1)} and np.isfinite(found.mean).all() and found.count > 0 else None


def merged(into: dict[str, Moments], new: Mapping[str, Moments]) -> dict[str, Moments]:
    """Moments of both together."""
    return into | {key: into[key].merge(one) if key in into else one for key, one in new.items()}


def further_cells(plan: Plan) -> list[dict[str, Any]]:
    """Of each kept episode, what the episodes table says beside the format's own columns: numbers and texts.

    Columns of anything else are left out, and those of which one dataset holds numbers and another texts.
    """
    told = {id(layout): _further(layout) for layout in plan.layouts}
    rows = [told[id(kept.layout)].get(kept.entry.id, {}) for kept in plan.episodes]
    names = dict.fromkeys(name for row in rows for name in row)
    kinds = {name: {type(row[name]) for row in rows if name in row} for name in names}
    plain = [name for name in names if kinds[name] <= {int, float} or kinds[name] in ({str}, {bool})]
    return [{name: row.get(name) for name in plain} for row in rows]


def _further(layout: Layout) -> dict[int, dict[str, Any]]:
    """Episode id -> name of a column -> what it says, where it says something; the seed of the environment among it."""
    found: dict[int, dict[str, Any]] = {}
    for row in episode_rows(layout):
        cells = {name: value for name, value in row.items() if is_further(name) and not is_absent(value)}
        found[row.get("episode_index", -1)] = cells
    for episode, seed in env_seeds(layout).items():
        found.setdefault(episode, {})[SEED] = seed
    return found


def is_further(name: str) -> bool:
    """Whether a column of the episodes table is none of the format's own."""
    return name not in OWN and not name.startswith(OWN_PARTS)


def episode_rows(layout: Layout) -> list[dict[str, Any]]:
    """The rows of the episodes table, without statistics."""
    from pyarrow import parquet

    lines = layout.root / "meta" / "episodes.jsonl"
    rows = json_lines(lines) if lines.is_file() else []
    for path in sorted((layout.root / "meta" / "episodes").glob("*/*.parquet")):
        names = [name for name in parquet.read_schema(path).names if not name.startswith("stats/")]
        rows += read_table(path, names).to_pylist()
    return rows


def write_documents(plan: Plan, root: Path) -> None:
    """The card, labels, and what else of ours lies in `meta/`."""
    if plan.body is not None:
        replace_text(root / CARD, plan.body.to_json())
    labels = {str(n): kept.entry.success for n, kept in enumerate(plan.episodes) if kept.entry.success is not None}
    if labels:
        replace_text(root / LABELS, json.dumps({"success": labels}, indent=1))
    _write_source(plan, root)
    if SUBTASK in plan.features and (plan.layouts[0].root / SUBTASKS).is_file():
        shutil.copyfile(plan.layouts[0].root / SUBTASKS, root / SUBTASKS)
    if len(plan.layouts) == 1:
        for name in SINGLE:
            if (plan.layouts[0].root / name).is_file():
                shutil.copyfile(plan.layouts[0].root / name, root / name)


def _write_source(plan: Plan, root: Path) -> None:
    """Names and subsets of imported episodes."""
    told = {
        id(layout): read_json(layout.root / SOURCE, "remove it")
        for layout in plan.layouts
        if (layout.root / SOURCE).is_file()
    }
    if not told:
        return
    nothing = {"name": "", "subsets": []}

    def episode(kept: Kept) -> dict:
        rows = told.get(id(kept.layout), {}).get("episodes") or []
        return rows[kept.entry.id] if kept.entry.id < len(rows) else nothing

    first = next(iter(told.values())) if len(plan.layouts) == 1 else {"format": "several"}
    document = first | {"episodes": [episode(kept) for kept in plan.episodes]}
    replace_text(root / SOURCE, json.dumps(document, indent=1))
