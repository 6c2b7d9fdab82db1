"""Episode records: a folder that says what was run (`manifest.json`) and how every episode went (`episodes.parquet`).

Rows are appended to `episodes.jsonl` while episodes end, and become the table when the run closes, also after Ctrl-C; a
killed run leaves the rows that it had and can be resumed. Identical for every world, so that two records join on
(`initial_conditions`, `env_seed`). Knows nothing of how episodes came about or of statistics.

A closed record carries the sha256 of its table, films and manifest (`digests`), a line of `episodes.jsonl` a checksum;
reading verifies them, and that the rows agree with the manifest, with each other and with themselves (`verify.py`).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import warnings
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from ...configs.files import clear_leftovers, new_folder, replace_file, replace_text
from ...configs.former import current_manifest, current_names
from ...configs.machine import versions
from ...configs.notebook import facts_html, facts_text
from ...configs.owner import owned
from .verify import (
    DIGESTS,
    ROWS_DIGEST,
    SELF,
    changed,
    changed_rows,
    digest,
    impossible,
    inside,
    manifest_digest,
    rows_digest,
)

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
CHECKSUM = "crc32"  # of a line of `episodes.jsonl`, beside its columns
SHOWN = 3  # faults that a refusal names
OPEN_LOOP = "open-loop"  # `kind` of a manifest whose record is of another kind, see `offline/record.py`
OPEN_LOOP_USE = "understudy compare A B joins two of these, doctor examines one"
WORLD_MODEL = "world-model"  # `kind` of what `eval --world-model` wrote, which has no table
REMEDY = "Take the file from a copy, or run the evaluation again"
PACKAGES = ("torch", "numpy", "scipy", "mujoco", "robosuite", "gym-pusht", "pymunk", "gymnasium", "lerobot")


class RecordError(ValueError):
    """A record that cannot be written or read; the message says what to do."""


@dataclass(frozen=True, repr=False)
class Record:
    """A record on disk. `table`: pyarrow, `COLUMNS` and perhaps some of `MONITORED`, sorted by env_seed."""

    root: Path
    manifest: dict
    table: object

    def column(self, name: str) -> list:
        """One column, as a list over the episodes. Raises KeyError for an unknown one."""
        return self.table[name].to_pylist()

    @property
    def rows(self) -> list[dict]:
        """The episodes as dicts; `pandas.DataFrame(record.rows)` is a table of them."""
        return self.table.to_pylist()

    def facts(self) -> dict[str, str]:
        """What there is to say of it, for people; `ledger/summary.py` says more."""
        from ..statistics.intervals import mean_interval, wilson

        n, policy = len(self.table), self.manifest.get("policy") or {}
        starts = self.manifest.get("starts") or {}
        told = {"record": str(self.root), "policy": str(policy.get("path", "unnamed"))}
        if not n:
            return told | {"episodes": "none"}
        seeds, won = self.column("env_seed"), self.column("success")
        told |= {
            "world": f"{starts.get('set') or self.column('task')[0]}, env seeds {seeds[0]}..{seeds[-1]}",
            "success": f"{wilson(sum(won), n)}  {sum(won)} of {n}, Wilson 95 %",
            "best progress": f"{mean_interval(self.column('best_progress'))}  mean, 95 %",
        }
        return told if self.manifest.get("complete", True) else told | {"unfinished": f"{n} of {starts.get('count')}"}

    def __repr__(self) -> str:
        return facts_text(f"Record of {len(self.table)} episodes", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(self.facts())


class RecordWriter:
    """Writes one record; a context manager, so that whatever ends the run leaves a readable folder.

    Args:
        root: must not exist, unless `resume`.
        manifest: JSON-able description of the run.
        resume: go on with a record whose manifest asks for the same; see `done`.

    Raises:
        RecordError: the folder is in use, or another run is to be resumed, naming what differs.
        InUseError: another process writes the record now.

    Records of another kind (`offline/record.py`) say what their rows are: `KEY`, `PARTS`, `_check`, `_table`, `_read`.
    """

    KEY: ClassVar[str] = "env_seed"  # column that tells rows apart
    PARTS: ClassVar[tuple[str, ...]] = ("policy", "world", "starts", "agent")  # of the manifest, equal when it goes on

    def __init__(self, root: str | Path, manifest: Mapping, resume: bool = False):
        self.root, self.rows = Path(root), {}
        self.manifest = {"format": FORMAT, "complete": False} | dict(manifest)
        if not resume and self.root.exists():
            raise RecordError(f"'{self.root}' exists; give another --out, or --resume {self.root} to go on with it")
        if resume and not (self.root / MANIFEST).is_file():
            raise FileNotFoundError(f"'{self.root}' is not an episode record: it has no {MANIFEST}")
        if not resume:
            self._begin()
        self._lock = owned(self.root)
        try:
            clear_leftovers(self.root)
            if resume:
                self._resume()
                self._save_manifest()
            replace_text(self.root / ROWS, "".join(map(_line, self.rows.values())))
            self._file = open(self.root / ROWS, "a")
        except BaseException:
            self._lock.release()
            raise

    @property
    def done(self) -> frozenset[int]:
        """Env seeds whose episodes are recorded."""
        return frozenset(self.rows)

    def add(self, row: Mapping) -> None:
        """Record one episode; on disk when this returns."""
        self._check(row)
        self.rows[row[self.KEY]] = dict(row)
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

        table = self._table()
        replace_file(self.root / TABLE, lambda path: pq.write_table(table, path))
        self.note(complete=complete, episodes=len(self.rows))
        self.note(digests=self._digests(table))
        self._save_manifest()
        self._file.close()
        (self.root / ROWS).unlink(missing_ok=True)
        self._lock.release()
        return Record(self.root, self.manifest, table)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind, *rest) -> None:
        if not self._file.closed:
            self.close(complete=False)

    def _append(self, row: Mapping) -> None:
        self._file.write(_line(row))
        self._file.flush()

    def _digests(self, table) -> dict[str, str]:
        """The sha256 of the rows, of the films, and of the manifest as it will be read."""
        films = sorted({row["video"] for row in self.rows.values() if row.get("video")})
        paths = {name: inside(self.root, name) for name in films}
        digests = {name: digest(path) for name, path in paths.items() if path is not None and path.is_file()}
        digests |= {ROWS_DIGEST: rows_digest(table)}
        read = json.loads(json.dumps(self.manifest | {DIGESTS: digests}, default=str))
        return digests | {SELF: manifest_digest(read)}

    def _begin(self) -> None:
        """Make the folder, in one step with what a resume needs."""

        def fill(beside: Path) -> None:
            self._save_manifest(beside)
            replace_text(beside / ROWS, "")

        try:
            new_folder(self.root, fill)
        except FileExistsError as error:
            text = f"'{self.root}' was made by another process at this moment; give another --out"
            raise RecordError(text) from error

    def _save_manifest(self, root: Path | None = None) -> None:
        replace_text((root or self.root) / MANIFEST, json.dumps(self.manifest, indent=1, default=str))

    def _resume(self) -> None:
        record = self._read()
        for part in self.PARTS:
            then, now = record.manifest.get(part), json.loads(json.dumps(self.manifest.get(part), default=str))
            if then != now:
                raise RecordError(f"'{self.root}' holds another run: its {part} was {then}, now it is {now}")
        if "name" in record.manifest:
            self.manifest.setdefault("name", record.manifest["name"])
        self.rows = {row[self.KEY]: row for row in record.table.to_pylist()}

    def _check(self, row: Mapping) -> None:
        _check_row(row)

    def _table(self):
        return table_of(self.rows.values())

    def _read(self) -> Record:
        return read_record(self.root)


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


def read_record(root: str | Path) -> Record:
    """Open a record, also one whose run was killed.

    Raises:
        FileNotFoundError: no record there.
        RecordError: written by a newer version, damaged, or with rows that cannot be; the file and what is wrong.
    """
    record, wrong = open_record(root)
    if wrong:
        more = f" (and {len(wrong) - SHOWN} more: `understudy doctor {record.root}`)" if len(wrong) > SHOWN else ""
        raise RecordError(f"{'; '.join(wrong[:SHOWN])}{more}. {REMEDY}")
    return record


def open_record(root: str | Path) -> tuple[Record, list[str]]:
    """A record and all that is wrong with its content, a sentence with the file's path each.

    Raises:
        FileNotFoundError: no record there.
        RecordError: a file that cannot be read at all, or is of a newer version.
    """
    root = Path(os.path.expandvars(root))
    written = read_manifest(root)
    if written.get("kind") == OPEN_LOOP:
        raise RecordError(f"'{root}' holds open-loop errors on recorded data, no episodes in a world; {OPEN_LOOP_USE}")
    if written.get("kind") == WORLD_MODEL:
        raise RecordError(f"'{root}' says how well a world model foretells films, it holds no episodes; see {REPORT}")
    manifest = current_manifest(written)
    if (root / ROWS).is_file():  # a run that did not close; its rows hold the table's too
        table = _table_of_lines(root / ROWS)
        known = {key: manifest[key] for key in ("starts",) if key in manifest}
        wrong = [f"{root / ROWS}: {what}" for what in impossible(table, known, COLUMNS)]
        return Record(root, manifest, table), wrong
    if not (root / TABLE).is_file():
        raise RecordError(f"'{root}' is damaged: it has neither {TABLE} nor {ROWS}")

    table = _read_table(root / TABLE)
    wrong = [f"{root / TABLE}: {what}" for what in impossible(table, manifest, COLUMNS)]
    wrong += [f"{root / what}" for what in changed(root, written, (SELF,))]
    if altered := [f"{root / TABLE}: {what}" for what in changed_rows(table, written)]:
        names = table["video"].to_pylist()
        outside = [name for name in names if name and inside(root, name) is None]
        wrong += [f"{root / TABLE}: the film {name!r} lies outside of the record" for name in outside]
        wrong += altered
    return Record(root, manifest, table), wrong


def read_manifest(root: Path) -> dict:
    """What `manifest.json` holds, as it was written."""
    path = root / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"'{root}' is not an episode record: it has no {MANIFEST}")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as cause:
        raise RecordError(f"{path} is damaged: it is no JSON ({cause}). {REMEDY}") from cause
    if not isinstance(manifest, dict):
        raise RecordError(f"{path} is damaged: it holds a {type(manifest).__name__}, not an object. {REMEDY}")

    parts = ("policy", "agent", "world", "starts", "code", "sequential", "duel")
    kinds = {"format": int, "episodes": int, "complete": bool} | dict.fromkeys(parts, dict)
    for name, kind in kinds.items():
        value = manifest.get(name, kind())
        if type(value) is not kind and not (value is None and kind is dict):
            raise RecordError(f"{path} is damaged: its '{name}' is {json.dumps(value)[:80]}. {REMEDY}")
    if manifest.get("format", 0) > FORMAT:
        raise RecordError(f"'{root}' was written by a newer understudy (format {manifest['format']}); upgrade")
    return manifest


def _read_table(path: Path):
    """The table with today's columns and types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        table = table.rename_columns(list(current_names(dict.fromkeys(table.column_names))))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as cause:
        raise RecordError(f"{path} is damaged: {_one_line(cause)}. {REMEDY}") from cause
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
            text = f"{path}: column '{field.name}' is of type {kind}, not {field.type} ({_one_line(cause)})"
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


def _one_line(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:200].rstrip(".")


def tables_equal(a, b) -> bool:
    """Whether two tables tell of the same episodes: all columns but `INCIDENTAL` are equal, bit for bit."""
    return without_incidental(a).equals(without_incidental(b))


def without_incidental(table):
    """The columns of a table that do not differ between equal runs."""
    return table.drop_columns([name for name in INCIDENTAL if name in table.column_names])


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
    wrong = sorted(set(COLUMNS) ^ (set(row) - set(TIMED | MONITORED)))
    if wrong:
        what = "missing" if wrong[0] in COLUMNS else "unknown"
        raise RecordError(f"column '{wrong[0]}' is {what} in an episode's row")


def _line(row: Mapping) -> str:
    """A row as a line of `episodes.jsonl`, with a checksum of its content."""
    text = json.dumps(row)
    return f'{text[:-1]}, "{CHECKSUM}": {_checksum(row)}}}\n'


def _checksum(row: Mapping) -> int:
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())


def _table_of_lines(path: Path):
    """The rows of a run that did not close, as its table."""
    import pyarrow as pa

    rows = read_rows(path)
    try:
        return table_of(rows)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as cause:
        raise RecordError(f"{path} holds a row with a value of another type ({_one_line(cause)}). {REMEDY}") from cause


def read_rows(path: Path, key: str = "env_seed", columns: Collection[str] = tuple(COLUMNS)) -> list[dict]:
    """The rows of all whole lines, told apart by the whole number `key`.

    A killed writer may leave half of the last one, without its end, which is dropped without a word; any other damaged
    line is dropped with a warning, and its episode is run again by --resume.
    """
    rows, places = {}, {}
    lines = path.read_bytes().split(b"\n")
    last = max((i for i, line in enumerate(lines) if line.strip(b" \0")), default=-1)
    for i, line in enumerate(lines[: last + 1]):
        row = _row_of(line)
        if row is None:
            if i + 1 < len(lines):  # its end was written
                text = f"{path}, line {i + 1} is damaged and left out: its episode is missing until --resume runs it"
                warnings.warn(text, stacklevel=2)
            continue
        if wrong := sorted(set(columns) - set(row)):
            raise RecordError(f"{path}, line {i + 1}: column '{wrong[0]}' is missing. {REMEDY}")
        if not isinstance(row[key], int):
            raise RecordError(f"{path}, line {i + 1}: {key} is {row[key]!r}. {REMEDY}")
        if (seed := row[key]) in rows:
            raise RecordError(
                f"{path}: {key.replace('_', ' ')} {seed} has two rows, lines {places[seed]} and {i + 1}. {REMEDY}"
            )
        rows[seed], places[seed] = row, i + 1
    return list(rows.values())


def _row_of(line: bytes) -> dict | None:
    """What one line holds, with today's names; None: damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    told = row.pop(CHECKSUM, None)
    if told is not None and told != _checksum(row):
        return None
    return current_names(row)


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
