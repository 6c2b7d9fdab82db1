"""`understudy verify RECORD...`: are records what was written, by the hashes that they carry.

A closed record holds the sha256 of its rows, of each film, and of its manifest with those: the last is its seal, which
covers all. Who quotes a seal beside a number lets others see that they hold the same episodes; a seal that lies in the
record alone shows damage and slips, no forgery. Records of earlier versions have no hashes; `--add_hashes true` notes
those of today beside them, marked as added later (`added.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..ledger.examine import record_faults
from ..ledger.foretold import FILMS, kept_films
from ..ledger.record import MANIFEST, OPEN_LOOP, WORLD_MODEL, read_manifest
from ..ledger.table import RecordError
from ..ledger.verify import DIGESTS, ROWS_DIGEST, SELF, changed
from ..offline.record import error_faults
from .added import ADDED, add, added_on, changed_since

SHA256 = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Are records what was written: rows, films and manifest, by the hashes that they carry."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("records",)

    records: list[str]  # records, or folders with records at any depth
    add_hashes: bool = False  # note today's hashes beside records that have none, marked as added later
    seal: str = ""  # the seal that the record must have, or how it begins (8 digits or more)

    def check_names(self) -> None:
        """Raise FileNotFoundError for a folder without a record, ValueError for what is no seal."""
        places = list(places_of(self.records))
        if self.seal and not SHA256.fullmatch(self.seal.lower()):
            raise ValueError(f"--seal {self.seal}: a seal has 64 hexadecimal digits, of which 8 or more must be given")
        if self.seal and len(places) != 1:
            raise ValueError(f"--seal is that of one record, and {len(places)} were given")

    def run(self) -> None:
        checked = [verify(place) for place in places_of(self.records)]
        if self.add_hashes:
            checked = [_with_hashes(one) for one in checked]
        for one in checked:
            print("\n".join(one.lines()))
        wrong = [one for one in checked if one.faults]
        later = sum(bool(one.added) for one in checked if not one.faults)
        unsealed = sum(not one.seal and not one.added for one in checked if not one.faults)
        kept = len(checked) - len(wrong) - unsealed - later
        without = f", {later} as they were when hashes were added" if later else ""
        without += f", {unsealed} without hashes" if unsealed else ""
        print(f"{kept} of {len(checked)} records are as they were written{without}, {len(wrong)} are not")
        if self.seal and not checked[0].seal.startswith(self.seal.lower()):
            raise RecordError(f"the seal of {checked[0].place} is {checked[0].seal or 'missing'}, not {self.seal}")
        if wrong:
            raise SystemExit(1)


@dataclass(frozen=True)
class Verified:
    """What was found of one record."""

    place: Path
    faults: tuple[str, ...]
    seal: str  # "" of one without hashes: closed by an earlier version, or not closed
    remark: str
    added: str = ""  # day on which hashes were added to one without

    def lines(self) -> Iterator[str]:
        """Its state, then what is wrong."""
        mark = "!!" if self.faults else "ok" if self.seal else "ok later" if self.added else "--"
        yield f"{mark}  {self.place}  {self.remark}"
        yield from (f"    {fault}" for fault in self.faults)


def verify(place: Path) -> Verified:
    """One record, of episodes or of open-loop errors."""
    try:
        manifest = read_manifest(place)
        added_on(place)
    except (RecordError, OSError) as error:
        return Verified(place, (str(error),), "", "unreadable")
    kind, seal = manifest.get("kind"), _seal(manifest.get(DIGESTS))
    left_out = [] if kind in FAULTS else _left_out(place, manifest)
    known = {f"{place / name} is missing; pages are without it" for name in left_out}
    faults = [text for text in FAULTS.get(str(kind), record_faults)(place) if text not in known]
    added = "" if seal else added_on(place)
    faults += changed_since(place) if added else ()
    remark = f"seal {seal}" + (f", without {len(left_out)} of its films" if left_out else "")
    if not seal:
        remark = "no hashes (of an earlier version, or not closed): its rows agree, no more is known"
    if not seal and kind == WORLD_MODEL:
        films = len(manifest.get(FILMS) or ())
        remark = f"no hashes (of an earlier version): its {films} films are as they were written, no more is known"
    if added:
        remark = f"no hashes of its own; its files are those of {added}, when hashes were added"
    return Verified(place, tuple(faults), seal, "damaged" if faults else remark, added)


def _foretold_faults(place: Path) -> list[str]:
    """What is wrong with a record of a world model: its films, which the manifest tells of, and the manifest."""
    manifest = read_manifest(place)
    try:
        kept_films(place, manifest)
    except RecordError as error:
        return [str(error)]
    return [f"{place / what}" for what in changed(place, manifest)]


FAULTS = {OPEN_LOOP: error_faults, WORLD_MODEL: _foretold_faults}  # kind of a record -> what is wrong with one


def _with_hashes(one: Verified) -> Verified:
    """The record after hashes were added, where it has none, is sound and closed."""
    if one.faults or one.seal or one.added:
        return one
    print(f"{one.place / ADDED}: hashes of {add(one.place)} files")
    return verify(one.place)


def _left_out(place: Path, manifest: Mapping) -> list[str]:
    """Films that are not there, as in a copy that leaves them out; what is there is whole without them."""
    digests = manifest.get(DIGESTS)
    names = digests if isinstance(digests, Mapping) else ()
    return [name for name in names if name not in (SELF, ROWS_DIGEST) and not (place / name).is_file()]


def places_of(paths: Sequence[str]) -> Iterator[Path]:
    """The records among and below some folders, each once. Raises FileNotFoundError for a path with none."""
    seen: set[Path] = set()
    for path in paths:
        place = Path(os.path.expandvars(path)).expanduser()
        found = [place] if (place / MANIFEST).is_file() else sorted(each.parent for each in place.rglob(MANIFEST))
        if not found:
            raise FileNotFoundError(f"'{path}' is neither an episode record nor a folder with records")
        yield from (each for each in found if each.resolve() not in seen)
        seen |= {each.resolve() for each in found}


def _seal(digests) -> str:
    told = digests.get(SELF) if isinstance(digests, dict) else None
    return told if isinstance(told, str) else ""
