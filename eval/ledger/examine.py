"""All that is wrong with a record, its films and the documents beside them, for `understudy doctor RECORD`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...configs.progress import counted
from .films import film_faults
from .record import MANIFEST, open_record
from .table import REMEDY, RecordError
from .verify import DIGESTS, ROWS_DIGEST, SELF, changed


def is_record(path: str | Path) -> bool:
    """Whether a folder is an episode record."""
    return (Path(os.path.expandvars(path)) / MANIFEST).is_file()


def record_faults(path: str | Path) -> list[str]:
    """What is wrong with a record, a sentence each with the file and what to do; empty where nothing is.

    Raises:
        FileNotFoundError: no record there.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            record, wrong = open_record(path)
        except RecordError as cause:
            return [str(cause)]
    faults = [f"{sentence}. {REMEDY}" for sentence in wrong]
    faults += [str(warning.message) for warning in told]
    faults += [f"{fault}; no page shows it" for fault in film_faults(record)]
    digests = record.manifest.get(DIGESTS)
    names = [name for name in digests if name not in (SELF, ROWS_DIGEST)] if isinstance(digests, Mapping) else []
    gone = [name for name in names if not (record.root / name).is_file()]
    return faults + [
        f"{record.root / what}; pages are without it" for what in changed(record.root, record.manifest, gone)
    ]


def record_remarks(path: str | Path) -> list[str]:
    """What a reader of a sound record must know: how much of it there is, and what cannot be verified."""
    record, _ = open_record(path)
    table: Any = record.table
    n, asked = len(table), (record.manifest.get("starts") or {}).get("count")
    remarks = [counted(n, "episode") + (f" of {asked}" if asked and asked != n else "")]
    if record.manifest.get("complete") is not True:
        remarks.append(f"the run has not ended: go on with --resume {record.root}")
    if DIGESTS not in record.manifest:
        remarks.append("no digests (of an earlier version, or not closed): its rows were checked, its bytes cannot be")
    code = record.manifest.get("code") or {}
    if code.get("changed"):
        remarks.append("its code had uncommitted changes: the commit alone does not make it again")
    return remarks
