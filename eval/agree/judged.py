"""Verdicts of a person, or of a model, in place of the success that records have of their own.

Verdicts are files that `understudy judge` writes (`ledger/labels.py`). All of a side is judged by one judge, or none of
it: of two policies one must not be measured by another rule than the other. Progress stays the records' own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...world_models.gate import ABSTAINS
from ..ledger.identity import MatchError, identify
from ..ledger.labels import NEITHER, SUCCESS, Label, check_asked, contradictions, read_labels, record_key
from ..ledger.record import Record
from ..ledger.verify import DIGESTS, digest, inside

Start = tuple[str, int]  # initial conditions, env seed


@dataclass(frozen=True)
class Judged:
    """Whose verdicts count on one side."""

    side: str  # truth | proxy
    judge: str
    files: tuple[str, ...]
    episodes: int  # that have a verdict
    changed: int  # of them, those of which the record says otherwise
    undecided: int  # episodes of which the judge did not decide; their starts are left out
    broken: int  # episodes that ended in an error, which stay failures
    unseen: int  # verdicts that do not say which film was seen

    def __str__(self) -> str:
        told = (
            f"success in the {self.side} is what {self.judge} says of {self.episodes} films, not what its records say"
        )
        told += f" (otherwise of {self.changed} of them"
        told += f"; {self.undecided} were not decided, and their starts are left out" if self.undecided else ""
        told += f"; {self.broken} ended in an error and are failures" if self.broken else ""
        told += f"; {self.unseen} verdicts do not say which film was seen" if self.unseen else ""
        return f"{told}). Progress is the records' own"


def check_files(files: Sequence[str], flag: str) -> None:
    """Raise FileNotFoundError for a file of verdicts that is not there."""
    for path in files:
        if not Path(os.path.expandvars(path)).is_file():
            raise FileNotFoundError(f"--{flag}: there is no file of verdicts '{path}'")


def by_verdicts(
    records: Sequence[Record], files: Sequence[str], side: str, elsewhere: Sequence[Record] = ()
) -> tuple[list[Record], Judged, tuple[Start, ...]]:
    """The records with the success that was judged, whose verdicts they are, and the starts that were not decided.

    Args:
        elsewhere: records of which the files may hold verdicts too; of others they are told to be strange.

    Raises:
        MatchError: verdicts of no judge, of several, or that contradict each other; an episode without one; one of
            another film than the record's.
        LabelsError: files that cannot be read, or of one judge that was asked otherwise in each.
    """
    paths = [Path(os.path.expandvars(path)) for path in files]
    labels = [label for label in read_labels(paths) if label.verdict]
    judge = _one_judge(labels, paths)
    check_asked(paths)
    told = _Told(judge, {label.place: label for label in labels}, side)
    out = [told.of(record) for record in records]
    known = {record_key(record) for record in (*records, *elsewhere)}
    if strange := [label for label in labels if label.record not in known]:
        print(f"note: {len(strange)} verdicts of {judge} are of records that are not here, such as '{strange[0].name}'")
    about = Judged(
        side, judge, tuple(map(str, files)), told.judged, told.changed, len(told.undecided), told.broken, told.unseen
    )
    return out, about, tuple(sorted(set(told.undecided)))


def _one_judge(labels: Sequence[Label], paths: Sequence[Path]) -> str:
    names, where = sorted({label.judge for label in labels}), ", ".join(map(str, paths))
    if not names:
        raise MatchError(f"{where}: there is no verdict; let somebody judge the films with `understudy judge --judge`")
    if len(names) > 1:
        raise MatchError(f"{where}: verdicts of {' and '.join(names)}; give those of one judge")
    for judge, places in contradictions(labels).items():
        _, kind, seed = min(places)
        raise MatchError(
            f"{where}: {judge} says different things of {len(places)} films, such as {kind}/{seed}; "
            "give one of the files"
        )
    return names[0]


class _Told:
    """What one judge said, put into records one after the other."""

    def __init__(self, judge: str, labels: dict[tuple[str, str, int], Label], side: str):
        self.judge, self.labels, self.side = judge, labels, side
        self.judged = self.changed = self.broken = self.unseen = 0
        self.undecided: list[Start] = []

    def of(self, record: Record) -> Record:
        """The record with the success that was judged. Raises MatchError."""
        import pyarrow as pa

        key, rows = record_key(record), record.rows
        given = {place[1:]: label for place, label in self.labels.items() if place[0] == key}
        self._check(record, rows, given)
        success = []
        for row in rows:
            label = given.get((row["initial_conditions"], row["env_seed"]))
            if row["error"] or label is None:
                self.broken += ABSTAINS not in row["error"]  # what the dream refused is left out in both worlds
                success.append(False)
                continue
            self._check_film(record, row, label)
            if label.verdict == NEITHER:
                self.undecided.append((row["initial_conditions"], row["env_seed"]))
            else:
                self.judged += 1
                self.changed += bool(row["success"]) != (label.verdict == SUCCESS)
            success.append(label.verdict == SUCCESS)
        table: Any = record.table
        place = table.schema.get_field_index("success")
        field = table.schema.field(place)
        return replace(record, table=table.set_column(place, field, pa.array(success, field.type)))

    def _check(self, record: Record, rows: Sequence[dict], given: dict) -> None:
        """Raise MatchError unless every episode that did not end in an error has its verdict."""
        name = identify(record.manifest).name
        starts = {(row["initial_conditions"], row["env_seed"]) for row in rows if not row["error"]}
        if starts and not given:
            others = sorted({label.name for label in self.labels.values()})
            raise MatchError(
                f"the verdicts of {self.judge} are of other records ({', '.join(others)[:200]}): none is of "
                f"'{record.root}' ({self.side}, {name}). Every record of this side must be judged"
            )
        if strange := sorted(set(given) - {(row["initial_conditions"], row["env_seed"]) for row in rows}):
            raise MatchError(f"{self.judge} judged {strange[0][0]}/{strange[0][1]}, which '{record.root}' has not")
        if missing := sorted(starts - set(given)):
            kind, seed = missing[0]
            raise MatchError(
                f"{self.judge} gave no verdict of {len(missing)} of {len(rows)} episodes of '{record.root}' "
                f"({self.side}, {name}), such as {kind}/{seed}: film all of them (--videos {len(rows)}), and judge all"
            )

    def _check_film(self, record: Record, row: dict, label: Label) -> None:
        """Raise MatchError where another film was judged than the record has."""
        if not label.film:
            self.unseen += 1
            return
        name = row["video"] or ""
        known = (record.manifest.get(DIGESTS) or {}).get(name)
        path = inside(record.root, name) if name else None
        here = digest(path) if path is not None and path.is_file() else known
        if label.film != here or (known and known != label.film):
            start = f"{row['initial_conditions']}/{row['env_seed']}"
            raise MatchError(
                f"{self.judge} judged another film of {start} than '{record.root}' ({self.side}) has (its sha256 "
                "differs): it was filmed anew, or changed. Judge it anew"
            )
