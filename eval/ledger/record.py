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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import clear_leftovers, new_folder, replace_file, replace_text
from ...configs.former import FORMERLY, current_manifest
from ...configs.notebook import facts_html, facts_text
from ...configs.owner import owned
from ...configs.progress import counted
from .lines import line_of, table_of_lines
from .table import COLUMNS, MONITORED, REMEDY, TIMED, RecordError, read_table, table_of
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
SHOWN = 3  # faults that a refusal names
OPEN_LOOP = "open-loop"  # `kind` of a manifest whose record is of another kind, see `offline/record.py`
OPEN_LOOP_USE = "understudy compare A B joins two of these, doctor examines one"
WORLD_MODEL = "world-model"  # `kind` of what `eval --world-model` wrote, which has no table


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
        return facts_text(f"Record of {counted(len(self.table), 'episode')}", self.facts())

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
        self.manifest: dict = {"format": FORMAT, "complete": False} | dict(manifest)
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
            replace_text(self.root / ROWS, "".join(map(line_of, self.rows.values())))
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
        self._file.write(line_of(row))
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
            if part == "policy" and then and now and _same_policy(then, now):
                self.manifest[part] = then
            elif then != now:
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


def _same_policy(then: Mapping, now: Mapping) -> bool:
    """Whether a record that was begun, by an earlier version perhaps, is of the policy that acts now."""
    marks = "fingerprint", FORMERLY
    others = [{key: value for key, value in one.items() if key not in marks} for one in (then, now)]
    return others[0] == others[1] and then.get(marks[0]) in [now.get(mark) for mark in marks]


def read_record(root: str | Path) -> Record:
    """Open a record, also one whose run was killed.

    Raises:
        FileNotFoundError: no record there.
        RecordError: written by a newer version, damaged, or with rows that cannot be; the file and what is wrong.
    """
    return sound(*open_record(root))


def sound(record: Record, wrong: list[str]) -> Record:
    """The record, if nothing is wrong with it. Raises RecordError naming the first faults."""
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
        table = table_of_lines(root / ROWS)
        known = {key: manifest[key] for key in ("starts",) if key in manifest}
        wrong = [f"{root / ROWS}: {what}" for what in impossible(table, known, COLUMNS)]
        return Record(root, manifest, table), wrong
    if not (root / TABLE).is_file():
        raise RecordError(f"'{root}' is damaged: it has neither {TABLE} nor {ROWS}")

    table = read_table(root / TABLE)
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


def _check_row(row: Mapping) -> None:
    wrong = sorted(set(COLUMNS) ^ (set(row) - set(TIMED | MONITORED)))
    if wrong:
        what = "missing" if wrong[0] in COLUMNS else "unknown"
        raise RecordError(f"column '{wrong[0]}' is {what} in an episode's row")
