"""Records of open-loop errors: one row an episode of a dataset, with what a policy planned there against what was done.

A folder like that of an episode record (`ledger/record.py`: manifest with digests, table, lines while it grows), told
apart by `kind: open-loop` in its manifest. Vectors lie flat: D values of an error, H x D of an error at each step of
the chunk, T x D of a curve. Knows nothing of how the errors were found.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..ledger.lines import read_rows
from ..ledger.record import MANIFEST, OPEN_LOOP, ROWS, TABLE, Record, RecordWriter, read_manifest, sound
from ..ledger.table import REMEDY, RecordError
from ..ledger.verify import DIGESTS, SELF, changed, changed_rows

COLUMNS = {  # name -> pyarrow type, in the order of the table
    "episode": "int64",  # as the dataset numbers it
    "task": "string",
    "length": "int32",  # T, frames
    "windows": "int32",  # recorded observations at which the policy planned
    "error": "list",  # (D) mean |planned - recorded| over the windows and the first E steps, in the action's units
    "mean_action_error": "list",  # (D) of the mean action of other episodes
    "last_action_error": "list",  # (D) of the action before now, repeated
    "samples_mean_error": "list",  # (D) of the mean of N samples; empty where one was drawn
    "windows_by_step": "list",  # (H) windows in which the episode goes on until this step of the chunk
    "error_by_step": "list",  # (H x D)
    "mean_action_by_step": "list",  # (H x D)
    "last_action_by_step": "list",  # (H x D)
    "samples_mean_by_step": "list",  # (H x D), or empty
    "recorded": "list",  # (T x D) what was done
    "planned": "list",  # (T x D) what the policy would have done, planning anew every E steps
    "latency": "float64",  # s, of one chunk for one observation
    "wall_policy": "float64",  # s, of all chunks
}
INCIDENTAL = ("latency", "wall_policy")  # may differ between equal runs
ERRORS = {  # kind of error -> its column by step of the chunk
    "error": "error_by_step",
    "mean_action_error": "mean_action_by_step",
    "last_action_error": "last_action_by_step",
    "samples_mean_error": "samples_mean_by_step",
}
NEAR = 1e-4  # part by which float32 sums may differ


class ErrorWriter(RecordWriter):
    """Writes one record of open-loop errors; see `RecordWriter`."""

    KEY: ClassVar[str] = "episode"
    PARTS: ClassVar[tuple[str, ...]] = ("policy", "data", "agent")

    def __init__(self, root: str | Path, manifest: Mapping, resume: bool = False):
        super().__init__(root, {"kind": OPEN_LOOP} | dict(manifest), resume)

    def _check(self, row: Mapping) -> None:
        if wrong := sorted(set(COLUMNS) ^ set(row)):
            raise RecordError(f"column '{wrong[0]}' is not that of an open-loop record's row")

    def _table(self):
        return errors_table(self.rows.values())

    def _read(self) -> Record:
        return read_errors(self.root)


def errors_table(rows):
    """Rows (dicts with `COLUMNS`) as a pyarrow table sorted by episode."""
    import pyarrow as pa

    named = {"list": pa.list_(pa.float32()), "string": pa.string()}
    schema = pa.schema([(name, named.get(kind) or getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["episode"]), schema=schema)


def is_error_record(path: str | Path) -> bool:
    """Whether a folder is a record of open-loop errors; one whose manifest cannot be read is none."""
    try:
        values = json.loads((Path(os.path.expandvars(path)) / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("kind") == OPEN_LOOP


def read_errors(root: str | Path) -> Record:
    """Open a record of open-loop errors, also one whose run was killed.

    Raises:
        FileNotFoundError: no record there.
        RecordError: of another kind, written by a newer version, or damaged; the file and what is wrong.
    """
    return sound(*open_errors(root))


def open_errors(root: str | Path) -> tuple[Record, list[str]]:
    """A record of open-loop errors and all that is wrong with its content, a sentence with the file's path each.

    Raises:
        FileNotFoundError: no record there.
        RecordError: a file that cannot be read at all, of another kind, or of a newer version.
    """
    import pyarrow as pa

    root = Path(os.path.expandvars(root))
    manifest = read_manifest(root)
    if manifest.get("kind") != OPEN_LOOP:
        raise RecordError(f"'{root}' holds no open-loop errors: it is the record of an evaluation in a world")
    growing = (root / ROWS).is_file()  # a run that did not close
    file = root / (ROWS if growing else TABLE)
    try:
        table = errors_table(read_rows(file, "episode", COLUMNS)) if growing else _read_table(file)
    except FileNotFoundError as cause:
        raise RecordError(f"'{root}' is damaged: it has neither {TABLE} nor {ROWS}. {REMEDY}") from cause
    except (pa.ArrowException, TypeError, ValueError, OverflowError, OSError) as cause:
        if isinstance(cause, RecordError):
            raise
        raise RecordError(f"{file} is damaged: {' '.join(str(cause).split())[:200]}. {REMEDY}") from cause
    record = Record(root, manifest, table)
    wrong = [f"{file}: {what}" for what in impossible(record, growing)]
    if not growing:
        wrong += [f"{root / what}" for what in changed(root, manifest, (SELF,))]
        wrong += [f"{file}: {what}" for what in changed_rows(table, manifest)]
    return record, wrong


def _read_table(file: Path):
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read()
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise RecordError(f"{file} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}. {REMEDY}")
    return table.select(list(COLUMNS)).cast(errors_table(()).schema)


def impossible(record: Record, growing: bool = False) -> Iterator[str]:
    """What contradicts the manifest, another row or the row itself, in words that name episodes."""
    about = record.manifest.get("data")
    about = about if isinstance(about, dict) else {}
    names, horizon, asked = (about.get(key) for key in ("action", "horizon", "episodes"))
    if not isinstance(names, list) or type(horizon) is not int or not isinstance(asked, list):
        yield f"{MANIFEST} does not say which actions, episodes and horizon the errors are of"
        return
    table: Any = record.table
    for name in table.column_names:
        if empty := table[name].null_count:
            yield f"column '{name}' is empty in {empty} of {len(table)} rows"
            return

    rows = table.to_pylist()
    episodes = [row["episode"] for row in rows]
    if strange := sorted(set(episodes) - set(asked)):
        yield f"episode {strange[0]}, which is not among those that the manifest names"
    if twice := sorted({episode for episode in episodes if episodes.count(episode) > 1}):
        yield f"two rows for episode {twice[0]}"
    if not growing and record.manifest.get("episodes") not in (None, len(rows)):
        yield f"{len(rows)} rows, but the manifest says {record.manifest['episodes']} episodes"
    if record.manifest.get("complete") is True and set(episodes) != set(asked):
        yield f"{len(rows)} rows, but the manifest says that all of {len(asked)} episodes were judged"
    executed = (record.manifest.get("agent") or {}).get("n_action_steps")
    for row in rows:
        yield from _impossible_row(row, len(names), horizon, executed)


def _impossible_row(row: Mapping, dims: int, horizon: int, executed: object) -> Iterator[str]:
    name, size = f"episode {row['episode']}", horizon * dims
    sampled = len(row["samples_mean_error"]) > 0
    sizes = {error: dims for error in ERRORS} | {step: size for step in ERRORS.values()}
    sizes |= {"windows_by_step": horizon, "recorded": row["length"] * dims, "planned": row["length"] * dims}
    if not sampled:
        sizes |= {"samples_mean_error": 0, "samples_mean_by_step": 0}
    for column, wanted in sizes.items():
        if len(row[column]) != wanted:
            yield f"{name}: {column} has {len(row[column])} values, not {wanted}"
            return
        values = np.asarray(row[column], np.float64)
        if not np.isfinite(values).all() or (column not in ("recorded", "planned") and (values < 0).any()):
            yield f"{name}: {column} holds what cannot be"
            return
    if type(executed) is not int or not 1 <= executed <= horizon:
        return
    for error, by_step in ERRORS.items():
        if len(row[error]) and not np.allclose(row[error], over_steps(row, by_step, executed), rtol=NEAR, atol=1e-9):
            yield f"{name}: {error} is not that of {by_step}"


def over_steps(row: Mapping, by_step: str, steps: int) -> np.ndarray:
    """(D,) the error of a row over the first `steps` steps of the chunk, all windows that reach them alike."""
    windows = np.asarray(row["windows_by_step"], np.float64)[:steps]
    errors = np.asarray(row[by_step], np.float64).reshape(len(row["windows_by_step"]), -1)[:steps]
    return windows @ errors / windows.sum()


def rows_of(record: Record) -> list[dict]:
    """All rows, by episode."""
    table: Any = record.table
    return table.to_pylist()


def error_faults(path: str | Path) -> list[str]:
    """What is wrong with a record of open-loop errors, a sentence each; empty where nothing is."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            _, wrong = open_errors(path)
        except RecordError as cause:
            return [str(cause)]
    return [f"{sentence}. {REMEDY}" for sentence in wrong] + [str(warning.message) for warning in heard]


def error_remarks(path: str | Path) -> list[str]:
    """What a reader of a sound record must know: how much of it there is, and what cannot be verified."""
    record, _ = open_errors(path)
    about, n = record.manifest["data"], len(record.column("episode"))
    remarks = [f"open-loop errors on {n} of {len(about['episodes'])} episodes of {about.get('source')}"]
    if record.manifest.get("complete") is not True:
        remarks.append(f"the run has not ended: go on with --resume {record.root}")
    if about.get("trained_on"):
        remarks.append(f"{len(about['trained_on'])} of its episodes were trained on: their errors are of training")
    if DIGESTS not in record.manifest:
        remarks.append("no digests (not closed): its rows were checked, its bytes cannot be")
    return remarks
