"""The table of a record: its columns and their types, how one is made of rows, read, and compared with another."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ...configs.former import current_names

REMEDY = "Take the file from a copy, or run the evaluation again"
COLUMNS = {  # name -> pyarrow type, in the order of the table
    "initial_conditions": "string",  # the set that `env_seed` draws from
    "env_seed": "int64",
    "policy_seed": "int64",  # of the policy's noise
    "task": "string",
    "success": "bool",
    "first_success": "int32",  # control steps until success was first seen; 0: at once, -1: never
    "best_progress": "float32",  # highest progress after any step
    "final_progress": "float32",
    "return": "float32",
    "length": "int32",  # control steps
    "progress": "list",  # after each step
    "terminated": "bool",
    "truncated": "bool",
    "wall_physics": "float64",  # s
    "wall_render": "float64",  # s
    "wall_policy": "float64",  # s, this episode's share of the time the policy took for all environments
    "attempt": "int8",  # 1: the environment failed once and this is the second try
    "worker": "int16",
    "video": "string",  # path inside the record, "" where it was not filmed
    "error": "string",  # why the episode could not be finished, twice; "" if it was
    "labels": "string",  # JSON: completion, context, operator
}
MONITORED = {  # further columns of records whose policy was monitored or steered; a value for each replanning
    "alarm": "int32",  # control steps done when the alarm was first raised; -1: it was not
    "score": "list",
    "signal_recall": "list",  # null: cannot tell
    "signal_spread": "list",
    "signal_drift": "list",
    "value": "list",  # the critic's score of the chosen action chunk
    "value_mean": "list",  # of all candidates, without those that a filter took out
    "value_spread": "list",  # their standard deviation
}
TIMED = {  # further columns of records that tell them
    "wall_ipc": "float64",  # s, this episode's share of what handing over took: checks, copies, other processes
    "wall_wait": "float64",  # s, share of what its process waited for others
}
OUTCOMES = {"success": "success", "progress": "best_progress"}  # what policies are judged by -> its column
INCIDENTAL = (
    "wall_physics",
    "wall_render",
    "wall_policy",
    *TIMED,
    "worker",
    "attempt",
)  # may differ between equal runs


class RecordError(ValueError):
    """A record that cannot be written or read; the message says what to do."""


def schema(names: Collection[str] = ()):
    """The pyarrow schema of `episodes.parquet`: `COLUMNS`, and those of `MONITORED` that are among `names`."""
    import pyarrow as pa

    columns = COLUMNS | {name: kind for name, kind in (TIMED | MONITORED).items() if name in names}
    named = {"list": pa.list_(pa.float32()), "string": pa.string(), "bool": pa.bool_()}
    return pa.schema([(name, named.get(kind) or getattr(pa, kind)()) for name, kind in columns.items()])


def table_of(rows):
    """Rows (dicts with `COLUMNS`, and perhaps `MONITORED`) as a pyarrow table sorted by env_seed."""
    import pyarrow as pa

    rows = sorted(rows, key=lambda row: (row["initial_conditions"], row["env_seed"]))
    return pa.Table.from_pylist(rows, schema=schema({name for row in rows for name in row}))


def read_table(path: Path):
    """The table with today's columns and types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        table = table.rename_columns(list(current_names(dict.fromkeys(table.column_names))))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as cause:
        raise RecordError(f"{path} is damaged: {one_line(cause)}. {REMEDY}") from cause
    if twice := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise RecordError(f"{path} has the column '{min(twice)}' twice. {REMEDY}")
    kinds = schema(table.column_names)
    if missing := [name for name in kinds.names if name not in table.column_names]:
        raise RecordError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. {REMEDY}")

    columns = []
    for field in kinds:
        try:
            columns.append(_cast(table[field.name], field.type))
        except (pa.ArrowException, TypeError) as cause:
            kind = table.schema.field(field.name).type
            text = f"{path}: column '{field.name}' is of type {kind}, not {field.type} ({one_line(cause)})"
            raise RecordError(f"{text}. {REMEDY}") from cause
    return pa.table(columns, schema=kinds)


def _cast(column, kind):
    """A column as another type of the same sort: whole numbers stay whole, text stays text."""
    import pyarrow as pa

    if column.type == kind or pa.types.is_null(column.type):
        return column.cast(kind)
    sorts = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_list, _is_text)
    ours, theirs = (next((sort for sort in sorts if sort(each)), None) for each in (kind, column.type))
    if ours is not theirs and (ours, theirs) != (pa.types.is_floating, pa.types.is_integer):
        raise TypeError("another sort of values")
    return column.cast(kind)


def _is_text(kind) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def one_line(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:200].rstrip(".")


def tables_equal(a, b) -> bool:
    """Whether two tables tell of the same episodes: all columns but `INCIDENTAL` are equal, bit for bit."""
    return without_incidental(a).equals(without_incidental(b))


def without_incidental(table):
    """The columns of a table that do not differ between equal runs."""
    return table.drop_columns([name for name in INCIDENTAL if name in table.column_names])
