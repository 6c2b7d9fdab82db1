"""Episode records: a folder that says what was run (`manifest.json`) and how every episode went (`episodes.parquet`).

Rows are appended to `episodes.jsonl` while episodes end, and become the table when the run closes, also after Ctrl-C; a
killed run leaves the rows that it had and can be resumed. Identical for every world, so that two records join on
(`initial_conditions`, `env_seed`). Knows nothing of how episodes came about or of statistics.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...configs.files import replace_file, replace_text
from ...configs.former import current_manifest, current_names, former_schema
from ...configs.machine import versions

FORMAT = 2  # 1: columns and keys of former names, see `former.py`
MANIFEST, TABLE, ROWS, VIDEOS, REPORT = "manifest.json", "episodes.parquet", "episodes.jsonl", "videos", "report.html"
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
OUTCOMES = {"success": "success", "progress": "best_progress"}  # what policies are judged by -> its column
INCIDENTAL = ("wall_physics", "wall_render", "wall_policy", "worker", "attempt")  # may differ between equal runs
PACKAGES = ("torch", "numpy", "scipy", "mujoco", "robosuite", "gym-pusht", "pymunk", "gymnasium", "lerobot")


class RecordError(ValueError):
    """A record that cannot be written or read; the message says what to do."""


@dataclass(frozen=True)
class Record:
    """A record on disk. `table`: pyarrow, `COLUMNS` and perhaps some of `MONITORED`, sorted by env_seed."""

    root: Path
    manifest: dict
    table: object

    def column(self, name: str) -> list:
        return self.table[name].to_pylist()


class RecordWriter:
    """Writes one record; a context manager, so that whatever ends the run leaves a readable folder.

    Args:
        root: must not exist, unless `resume`.
        manifest: JSON-able description of the run.
        resume: go on with a record whose manifest asks for the same; see `done`.

    Raises:
        RecordError: the folder is in use, or another run is to be resumed, naming what differs.
    """

    def __init__(self, root: str | Path, manifest: Mapping, resume: bool = False):
        self.root, self.rows = Path(root), {}
        self.manifest = {"format": FORMAT, "complete": False} | dict(manifest)
        if resume:
            self._resume()
        elif self.root.exists():
            raise RecordError(f"'{self.root}' exists; give another --out, or --resume {self.root} to go on with it")
        self.root.mkdir(parents=True, exist_ok=resume)
        self._save_manifest()
        replace_text(self.root / ROWS, "".join(json.dumps(row) + "\n" for row in self.rows.values()))
        self._file = open(self.root / ROWS, "a")

    @property
    def done(self) -> frozenset[int]:
        """Env seeds whose episodes are recorded."""
        return frozenset(self.rows)

    def add(self, row: Mapping) -> None:
        """Record one episode; on disk when this returns."""
        _check_row(row)
        self.rows[row["env_seed"]] = dict(row)
        self._append(row)

    def note(self, **values) -> None:
        """Add to the manifest."""
        self.manifest |= values

    def set_video(self, start: int, video: str) -> None:
        """Say where the film of an episode lies."""
        self.rows[start]["video"] = video

    def close(self, complete: bool) -> Record:
        """Write the table and say whether the run came to its end."""
        import pyarrow.parquet as pq

        table = table_of(self.rows.values())
        replace_file(self.root / TABLE, lambda path: pq.write_table(table, path))
        self.note(complete=complete, episodes=len(self.rows))
        self._save_manifest()
        self._file.close()
        (self.root / ROWS).unlink(missing_ok=True)
        return Record(self.root, self.manifest, table)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind, *rest) -> None:
        if not self._file.closed:
            self.close(complete=False)

    def _append(self, row: Mapping) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def _save_manifest(self) -> None:
        replace_text(self.root / MANIFEST, json.dumps(self.manifest, indent=1, default=str))

    def _resume(self) -> None:
        record = read_record(self.root)
        for part in ("policy", "world", "starts", "agent"):
            then, now = record.manifest.get(part), json.loads(json.dumps(self.manifest.get(part), default=str))
            if then != now:
                raise RecordError(f"'{self.root}' holds another run: its {part} was {then}, now it is {now}")
        self.rows = {row["env_seed"]: row for row in record.table.to_pylist()}


def schema(names: Collection[str] = ()):
    """The pyarrow schema of `episodes.parquet`: `COLUMNS`, and those of `MONITORED` that are among `names`."""
    import pyarrow as pa

    columns = COLUMNS | {name: kind for name, kind in MONITORED.items() if name in names}
    named = {"list": pa.list_(pa.float32()), "string": pa.string(), "bool": pa.bool_()}
    return pa.schema([(name, named.get(kind) or getattr(pa, kind)()) for name, kind in columns.items()])


def table_of(rows):
    """Rows (dicts with `COLUMNS`, and perhaps `MONITORED`) as a pyarrow table sorted by env_seed."""
    import pyarrow as pa

    rows = sorted(rows, key=lambda row: (row["initial_conditions"], row["env_seed"]))
    return pa.Table.from_pylist(rows, schema=schema({name for row in rows for name in row}))


def read_record(root: str | Path) -> Record:
    """Open a record, also one whose run was killed.

    Raises:
        FileNotFoundError: no record there.
        RecordError: written by a newer version, or damaged.
    """
    import pyarrow.parquet as pq

    root = Path(os.path.expandvars(root))
    if not (root / MANIFEST).is_file():
        raise FileNotFoundError(f"'{root}' is not an episode record: it has no {MANIFEST}")
    manifest = current_manifest(json.loads((root / MANIFEST).read_text()))
    if manifest.get("format", 0) > FORMAT:
        raise RecordError(f"'{root}' was written by a newer understudy (format {manifest['format']}); upgrade")
    if (root / ROWS).is_file():  # a run that did not close; its rows hold the table's too
        return Record(root, manifest, table_of(_read_rows(root / ROWS)))
    if not (root / TABLE).is_file():
        raise RecordError(f"'{root}' is damaged: it has neither {TABLE} nor {ROWS}")
    held = pq.read_schema(root / TABLE).names
    table = pq.read_table(root / TABLE, schema=former_schema(schema(held), held))
    return Record(root, manifest, table.rename_columns(list(current_names(dict.fromkeys(table.column_names)))))


def tables_equal(a, b) -> bool:
    """Whether two tables tell of the same episodes: all columns but `INCIDENTAL` are equal, bit for bit."""
    return a.drop_columns(INCIDENTAL).equals(b.drop_columns(INCIDENTAL))


def provenance() -> dict:
    """What the result may depend on beside policy and world: code, versions, machine. No host or user names."""
    from ... import __version__

    packages = {name: version for name, version in versions(*PACKAGES).items() if version != "absent"}
    return {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": {"understudy": __version__} | _commit(),
        "versions": {"python": platform.python_version()} | packages,
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gl": os.environ.get("MUJOCO_GL", ""),
        },
    }


def _check_row(row: Mapping) -> None:
    wrong = sorted(set(COLUMNS) ^ (set(row) - set(MONITORED)))
    if wrong:
        what = "missing" if wrong[0] in COLUMNS else "unknown"
        raise RecordError(f"column '{wrong[0]}' is {what} in an episode's row")


def _read_rows(path: Path) -> list[dict]:
    """All whole lines; a killed writer may leave half of the last one."""
    rows = {}
    for line in path.read_text().splitlines():
        try:
            row = current_names(json.loads(line))
        except json.JSONDecodeError:
            break
        rows[row["env_seed"]] = row
    return list(rows.values())


def _commit() -> dict:
    """Commit of the checkout that this code lies in, and whether files differ from it; nothing once installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"commit": commit, "changed": changed} if commit else {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
