"""Films that `eval --world-model` keeps in its record: true ones, and what was imagined under the same actions.

A film is known by its number among those that are kept and by its kind; the record tells the sha256 of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...configs.documents import check_fields, content_digest
from .record import MANIFEST
from .table import RecordError
from .verify import digest, inside

FILMS = "films"  # key of the manifest
TRUE, IMAGINED = "true", "imagined"  # kinds


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """A film that was kept. The fields are the keys of the manifest."""

    number: int  # of the pair
    kind: str  # true | imagined
    file: str  # inside the record
    sha256: str
    episode: int  # of the dataset
    first: int  # frame of it that the film begins with
    success: bool | None  # whether the recorded film shows success, at any frame; None where it was not recorded
    own: bool | None  # whether the model's judge sees success in this film; None where it did not look


def kept_films(root: Path, manifest: Mapping) -> tuple[str, list[tuple[Foretold, Path]]]:
    """(what tells these films from all others, each with its file).

    Raises:
        RecordError: a film that is damaged, missing, changed, or outside of the record.
    """
    entries, where = manifest.get(FILMS) or [], root / MANIFEST
    if not isinstance(entries, list):
        raise RecordError(f"{where} is damaged: its '{FILMS}' are no list")
    found = []
    for entry in entries:
        check_fields(Foretold, entry, where, RecordError)
        film = Foretold(**entry)
        path = inside(root, film.file)
        if film.kind not in (TRUE, IMAGINED) or path is None:
            raise RecordError(f"{where} is damaged: {film.file} is {film.kind!r}, or lies outside of the record")
        if not path.is_file():
            raise RecordError(f"{path} is missing, one of the films that {where} tells of; measure the model again")
        if digest(path) != film.sha256:
            raise RecordError(f"{path} was changed since it was written (its sha256 differs); measure the model again")
        found.append((film, path))
    return content_digest({FILMS: entries}), found
