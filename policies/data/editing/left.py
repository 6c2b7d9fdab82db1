"""What an edited dataset leaves behind of those that it is made of, in words: nothing goes without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..embody import CARD
from ..layout import INFO, LABELS, SOURCE, Layout, read_info
from .described import SINGLE, episode_rows, further_cells, is_further
from .plan import SUBTASKS, Plan

TAKEN = (INFO, CARD, LABELS, SOURCE, SUBTASKS, *SINGLE, "meta/stats.json")
TABLES = ("meta/episodes", "meta/episodes_stats", "meta/tasks")  # whatever their ending, or folders


def left_behind(plan: Plan) -> list[str]:
    """Sentences; none where all comes along."""
    return [*_robots(plan), *_splits(plan), *_columns(plan), *_cells(plan), *_files(plan)]


def _robots(plan: Plan) -> Iterator[str]:
    robots = {str(read_info(layout.root).get("robot_type") or "none") for layout in plan.layouts}
    if others := sorted(robots - {kept := str(plan.info.get("robot_type") or "none")}):
        yield f"the robot_type of {INFO} is that of the first dataset, {kept}; of others it was {_listed(others)}"


def _splits(plan: Plan) -> Iterator[str]:
    splits = plan.info.get("splits")
    if isinstance(splits, dict) and len(splits) > 1:
        yield f"the splits of {INFO} ({_listed(splits)}) are one, train; `understudy split` makes datasets of parts"


def _columns(plan: Plan) -> Iterator[str]:
    from pyarrow import parquet

    for layout in plan.layouts:
        file = next(kept.entry.file for kept in plan.episodes if kept.layout is layout)
        if strange := set(parquet.read_schema(layout.root / file).names) - {*layout.features}:
            yield f"columns of {layout.root} that {INFO} does not list are left behind: {_listed(sorted(strange))}"


def _cells(plan: Plan) -> Iterator[str]:
    taken = {name for row in further_cells(plan) for name in row}
    for layout in plan.layouts:
        ids = {entry.id for entry in layout.entries}
        rows = [row for row in episode_rows(layout) if row.get("episode_index") in ids]
        names = {name for row in rows for name, value in row.items() if is_further(name) and value is not None}
        if lost := names - taken:
            yield f"columns of the episodes table of {layout.root} are left behind: {_listed(sorted(lost))}"


def _files(plan: Plan) -> Iterator[str]:
    for layout in plan.layouts:
        if lost := [name for name in _documents(layout) if not _goes_along(name, len(plan.layouts))]:
            yield f"files of {layout.root} are left behind: {_listed(lost)}"


def _documents(layout: Layout) -> list[str]:
    """Files in `meta/` that are not its tables."""
    found = (path.relative_to(layout.root) for path in sorted((layout.root / "meta").rglob("*")) if path.is_file())
    return [path.as_posix() for path in found if not _is_table(path)]


def _is_table(path: Path) -> bool:
    return any(path.with_suffix("").as_posix() == table or path.is_relative_to(table) for table in TABLES)


def _goes_along(name: str, datasets: int) -> bool:
    return name in TAKEN and (datasets == 1 or name not in SINGLE)


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
