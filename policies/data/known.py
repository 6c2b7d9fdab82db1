"""What is known of each episode, for `--episodes "success and length > 50"`: what the tables say, and what rows tell.

    episode     its id                       task, tasks   text, all texts
    length      frames                       name          in the recording that was imported, "" elsewhere
    seconds     length by the rate           subsets       of that recording, such as ('train',)
    success     as labelled, else whether `next.success` is ever above 0
    labelled    whether `understudy label` said it
    reward      best `next.reward`           total         their sum
    still       part of the steps whose action is the same as the one before, in 0..1
    env_seed    of a simulated episode

Rows are read only where a condition asks for what they tell.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np

from ...configs.episode import REWARD, SUCCESS
from ...configs.spec import ACTION
from .columns import load_columns, with_tasks
from .expressions import Expression, ExpressionError
from .layout import SOURCE, DatasetError, Entry, Layout
from .tables import read_json, read_table

SEED = "env_seed"
BY_TABLE = ("episode", "length", "seconds", "task", "tasks", "labelled", "name", "subsets", SEED)
BY_ROWS = {"success": SUCCESS, "reward": REWARD, "total": REWARD, "still": ACTION}  # name -> column that tells it
NAMES = (*BY_TABLE, *BY_ROWS)


def matching(layout: Layout, condition: str) -> list[int]:
    """Ids of the episodes that meet a condition.

    Raises:
        DatasetError: no condition, or one that asks for what the dataset does not say.
    """
    try:
        expression = Expression(condition, NAMES)
        facts = known(layout, expression.names)
        return [entry.id for entry, values in zip(layout.entries, facts, strict=True) if expression.holds(values)]
    except ExpressionError as error:
        raise DatasetError(f"'{condition}' names no episodes of {layout.root}: {error}") from error


def known(layout: Layout, names: Collection[str]) -> list[dict[str, Any]]:
    """Of each episode, the values of the names that are asked for.

    Raises:
        DatasetError: a name that this dataset does not know.
    """
    layout = with_tasks(layout) if {"task", "tasks"} & set(names) else layout
    facts = [_by_table(entry, layout.rate) for entry in layout.entries]
    if {"name", "subsets"} & set(names):
        for values, told in zip(facts, _imported(layout), strict=True):
            values |= told
    if SEED in names:
        seeds = env_seeds(layout)
        for entry, values in zip(layout.entries, facts, strict=True):
            values[SEED] = _there(seeds.get(entry.id), SEED, layout, "it is no recording of a simulator")
    if wanted := {name: BY_ROWS[name] for name in names if name in BY_ROWS}:
        _by_rows(layout, wanted, facts)
    return facts


def _by_table(entry: Entry, rate: float) -> dict[str, Any]:
    return {
        "episode": entry.id,
        "length": entry.length,
        "seconds": entry.length / rate,
        "task": "; ".join(entry.tasks),
        "tasks": entry.tasks,
        "labelled": entry.success is not None,
    }


def _by_rows(layout: Layout, wanted: dict[str, str], facts: list[dict[str, Any]]) -> None:
    columns = load_columns(layout, tuple(dict.fromkeys(wanted.values())), skip_missing=True)
    at = 0
    for entry, values in zip(layout.entries, facts, strict=True):
        rows = slice(at, at := at + entry.length)
        for name, column in wanted.items():
            if name == "success" and entry.success is not None:
                values[name] = entry.success
                continue
            found = _there(columns.get(column), name, layout, f"it has no column '{column}' (understudy label)")[rows]
            values[name] = _told(name, found)


def _told(name: str, rows: np.ndarray) -> Any:
    if name == "success":
        return bool((rows > 0).any())
    if name == "still":
        return float((np.diff(rows, axis=0) == 0).all(1).mean()) if len(rows) > 1 else 0.0
    return float(rows.max() if name == "reward" else rows.sum())


def _there(value: Any, name: str, layout: Layout, why: str) -> Any:
    if value is None:
        raise DatasetError(f"{layout.root} does not say '{name}' of its episodes: {why}")
    return value


def _imported(layout: Layout) -> list[dict[str, Any]]:
    """Name and subsets of each episode in the recording that it was made of."""
    path = layout.root / SOURCE
    nothing = {"name": "", "subsets": ()}
    if not path.is_file():
        return [nothing for _ in layout.entries]
    try:
        told = read_json(path, "remove it")["episodes"]
        rows = [{"name": str(one["name"]), "subsets": tuple(map(str, one["subsets"]))} for one in told]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); remove it") from error
    return [rows[entry.id] if entry.id < len(rows) else nothing for entry in layout.entries]


def env_seeds(layout: Layout) -> dict[int, int]:
    """Episode id -> seed of the environment, where the episodes table says it."""
    found: dict[int, int] = {}
    for path in sorted((layout.root / "meta" / "episodes").glob("*/*.parquet")):
        table = read_table(path, ["episode_index", SEED, "start"])
        column = next((name for name in (SEED, "start") if name in table.column_names), None)
        if column is not None:
            pairs = zip(table["episode_index"].to_pylist(), table[column].to_pylist(), strict=True)
            found |= {episode: seed for episode, seed in pairs if seed is not None}
    lines = layout.root / "meta" / "episodes.jsonl"
    for line in lines.read_text().splitlines() if lines.is_file() else ():
        row = json.loads(line) if line.strip() else {}
        if row.get(SEED) is not None:
            found[row["episode_index"]] = row[SEED]
    return found
