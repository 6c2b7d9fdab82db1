"""The films that are judged: those of episode records, of datasets, and of measured world models.

A film knows what really came of it, where somebody does: the outcome that was recorded with a true film; of a dream
only a true run from the same start, where one is given, or the recorded film of the actions that it was told. Nobody
knows it of an episode that ended in an error.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ...configs.progress import counted
from ..ledger.dreams import is_dream
from ..ledger.films import film_paths
from ..ledger.foretold import IMAGINED, kept_films
from ..ledger.identity import by_policy, identify, open_records
from ..ledger.labels import Place, record_key
from ..ledger.record import MANIFEST, WORLD_MODEL, Record, read_manifest, read_record
from ..ledger.summary import title
from ..ledger.verify import digest

INFO = Path("meta", "info.json")  # of a dataset
RECORDED = "the recorded outcome"
RUN_AGAIN = "a true run from the same start"
FORETOLD = "the recorded film of these actions"
SCORED = "episode.scored"  # column of what `deploy` records: 0 where nobody scored
WIDE = 480  # px, to which several cameras are brought to lie below each other


class FilmsError(ValueError):
    """Films that cannot be judged; the message says why."""


class Pictures(Protocol):
    """What a film shows."""

    @property
    def count(self) -> int:
        """Frames."""
        ...

    def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Frames by number, ascending, uint8 (h, w, 3) RGB. Raises ValueError for a file that is damaged."""
        ...

    def mp4(self) -> bytes:
        """The film as a file."""
        ...

    def digest(self) -> str:
        """The sha256 of what is shown, in hex."""
        ...


@dataclass(frozen=True)
class Film:
    """A film to be judged."""

    place: Place  # what its verdicts are kept by
    name: str  # of the record, for people
    imagined: bool
    pictures: Pictures
    known: bool | None = None  # what really came of it; None where nobody knows
    known_by: str = RECORDED
    own: bool | None = None  # verdict of the world model's own judge
    group: Hashable = 0  # films of one group are no independent evidence
    task: str = ""
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class Films:
    """The films of several places."""

    films: tuple[Film, ...]
    unfilmed: int  # episodes that have no film, so that nobody can judge them
    chosen: int  # of the filmed ones, those that were chosen by their outcome, since others were not filmed


class Mp4:
    """A film in a file of its own."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _film(self):
        from ...policies.data.films import read_film

        return read_film(self.path)

    @property
    def count(self) -> int:
        return len(self._film.stamps)

    def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        from ...policies.data.decode import read_frames

        return list(read_frames(self._film, np.asarray(numbers)))

    def mp4(self) -> bytes:
        return self.path.read_bytes()

    def digest(self) -> str:
        return digest(self.path)


class Recorded:
    """An episode of a dataset, its cameras below each other. `digests`: of files that hold several episodes."""

    def __init__(self, layout, entry, digests: dict[str, str]):
        self.layout, self.entry, self.cameras, self._digests = layout, entry, layout.cameras, digests

    @property
    def count(self) -> int:
        return self.entry.length

    def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        from ...policies.data.decode import sample_pictures

        places = np.asarray(numbers)
        views = [sample_pictures(self.layout, camera, self.entry, places) for camera in self.cameras]
        return [_below(frames) for frames in zip(*views, strict=True)]

    def mp4(self) -> bytes:
        from ...policies.data.decode import decode_episodes
        from ...policies.data.embody import picture_size
        from ...policies.data.encode import write_mp4

        sizes = {camera: picture_size(self.layout.features[camera]) for camera in self.cameras}
        views = [next(decode_episodes(self.layout, camera, [self.entry], size))[1] for camera, size in sizes.items()]
        joined = (_below(frames) for frames in zip(*views, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "film.mp4"
            even = (frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in joined)
            write_mp4(file, even, self.layout.rate, group=30)
            return file.read_bytes()

    def digest(self) -> str:
        found = hashlib.sha256(f"{self.cameras} {self.entry.length}\n".encode())
        for camera in self.cameras:
            clip = self.entry.clips.get(camera)
            name = self.entry.file if clip is None else clip.path
            where = self.entry.first if clip is None else (clip.start, clip.end)
            found.update(f"{camera} {where} {self._file_digest(name)}\n".encode())
        return found.hexdigest()

    def _file_digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = digest(self.layout.root / name)
        return self._digests[name]


def _below(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one moment below each other, of one width."""
    import cv2

    if len({frame.shape[1] for frame in frames}) > 1:
        sizes = [(WIDE, round(len(frame) * WIDE / frame.shape[1])) for frame in frames]
        frames = [cv2.resize(*pair, interpolation=cv2.INTER_AREA) for pair in zip(frames, sizes, strict=True)]
    return np.concatenate(list(frames), 0)


def find_films(paths: Iterable[str | Path], truth: Sequence[str] = ()) -> Films:
    """All films of the places: records, folders of records, datasets.

    Args:
        truth: true records of the policies that dreamt, by which dreams are known.

    Raises:
        FileNotFoundError: a place that is not there, or holds none of these.
        FilmsError: no film, or films that were changed; one that is given twice; a truth that says nothing of them.
    """
    from ...policies.data.layout import expand_path

    found: list[Film] = []
    unfilmed = chosen = 0
    known = _outcomes(truth)
    for path in map(expand_path, paths):
        if path.joinpath(INFO).is_file():
            found += _of_dataset(path)
            continue
        for root in _records(path):
            manifest = read_manifest(root)
            if manifest.get("kind") == WORLD_MODEL:
                found += _foretold(root, manifest)
                continue
            record = read_record(root)
            films = _of_record(record, known)
            missing = len(record.table) - len(films)  # type: ignore[arg-type]
            unfilmed, chosen = unfilmed + missing, chosen + (len(films) if missing else 0)
            found += films
    if not found:
        some = f": none of {counted(unfilmed, 'episode')} was filmed" if unfilmed else ""
        raise FilmsError(f"there is no film to judge{some}; film episodes with `understudy eval ... --videos 50`")
    _check_once(found)
    if truth and not any(film.imagined and film.known is not None for film in found):
        raise FilmsError(
            "--truth knows the outcome of none of these films: no dream is among them whose policy acted there from "
            "the same start, with the same settings; leave it out, or give records of the policies that dreamt"
        )
    return Films(tuple(found), unfilmed, chosen)


def _outcomes(truth: Sequence[str]) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
    """Policy -> start -> success, of true records; episodes that ended in an error say nothing. Raises FilmsError."""
    records = open_records(truth)
    for record in records:
        if is_dream(record.manifest.get("world") or {}):
            raise FilmsError(f"--truth {record.root} is a dream itself, so what came of it is not known to be true")
    lost = {
        (*_acted(record), row["initial_conditions"], row["env_seed"])
        for record in records for row in record.rows if row["error"]
    }  # fmt: skip
    return {
        key: {start: one[0] for start, one in tested.episodes.items() if (*key, *start) not in lost}
        for key, tested in by_policy(records, "truth").items()
    }


def _acted(record: Record) -> tuple[str, str]:
    """Which policy acted, and how."""
    identity = identify(record.manifest)
    return identity.weights, identity.acts


def _check_once(films: Sequence[Film]) -> None:
    """Raise FilmsError where a film is there twice: it would count twice, and a person would be asked twice."""
    seen: dict[Place, Film] = {}
    for film in films:
        if film.place in seen:
            names = sorted({film.name, seen[film.place].name})
            raise FilmsError(
                f"the film of {film.place[1]} {film.place[2]} of {' and '.join(names)} is given twice, and would count "
                "twice: give each record or dataset once, and no copy of it"
            )
        seen[film.place] = film


def _records(path: Path) -> list[Path]:
    inner = [path] if (path / MANIFEST).is_file() else sorted(one.parent for one in path.glob(f"*/{MANIFEST}"))
    if not inner:
        raise FileNotFoundError(f"'{path}' is no record, no folder of records, and no dataset: nothing to judge")
    return inner


def _of_record(record: Record, known: Mapping[tuple[str, str], Mapping[tuple[str, int], float]]) -> list[Film]:
    """The filmed episodes of a record."""
    imagined, key, paths = is_dream(record.manifest.get("world") or {}), record_key(record), film_paths(record)
    there = known.get(_acted(record), {}) if imagined and known else {}
    films = []
    for row in record.rows:
        if row["env_seed"] not in paths:
            continue
        start = (row["initial_conditions"], row["env_seed"])
        own = None if row["error"] else bool(row["success"])
        outcome = there.get(start) if imagined else own
        films.append(
            Film(
                place=(key, *start),
                name=title(record.manifest),
                imagined=imagined,
                pictures=Mp4(paths[row["env_seed"]]),
                known=None if outcome is None else outcome > 0.5,
                known_by=RUN_AGAIN if imagined else RECORDED,
                own=own if imagined else None,
                group=start,
            )
        )
    return films


def _foretold(root: Path, manifest: Mapping) -> list[Film]:
    """The true films that a measured world model was shown, and what it imagined under the same actions."""
    key, kept = kept_films(root, manifest)
    if not kept:
        raise FilmsError(
            f"{root} says how well a world model foretells films, and keeps none to judge; measure it again "
            "(understudy eval --world-model, with --kept above 0)"
        )
    data = (manifest.get("data") or {}).get("fingerprint") or key
    return [
        Film(
            place=(key, film.kind, film.number),
            name=str(root),
            imagined=film.kind == IMAGINED,
            pictures=Mp4(path),
            known=film.success,
            known_by=FORETOLD if film.kind == IMAGINED else RECORDED,
            own=film.own,
            group=(data, film.episode),
        )
        for film, path in kept
    ]


def _of_dataset(root: Path) -> list[Film]:
    """The episodes of a dataset, such as `understudy deploy` records."""
    from ...policies.data.columns import load_columns, with_tasks
    from ...policies.data.layout import DatasetError, read_layout

    layout = with_tasks(read_layout(root))
    if not layout.cameras:
        raise FilmsError(f"{root} has no cameras, so there is nothing to see")
    from ...policies.data.known import known

    try:
        outcomes: list[bool | None] = [values["success"] for values in known(layout, ("success",))]
    except DatasetError:  # nobody has said it
        outcomes = [None] * len(layout.entries)
    scored = load_columns(layout, (SCORED,), skip_missing=True).get(SCORED)
    key, at, films = _digest(root, layout), 0, []
    digests: dict[str, str] = {}
    for entry, outcome in zip(layout.entries, outcomes, strict=True):
        nobody = scored is not None and entry.success is None and not (scored[at : at + entry.length] > 0).any()
        at += entry.length
        films.append(
            Film(
                place=(key, "dataset", entry.id),
                name=str(root),
                imagined=False,
                pictures=Recorded(layout, entry, digests),
                known=None if nobody else outcome,
                group=(key, entry.id),
                task="; ".join(entry.tasks),
                views=tuple(layout.cameras),
            )
        )
    return films


def _digest(root: Path, layout) -> str:
    """What tells the recordings of a dataset from all others, whatever it is labelled."""
    found = hashlib.sha256()
    for file in sorted({entry.file for entry in layout.entries}):
        found.update(f"{os.fspath(file)} {digest(root / file)}\n".encode())
    return found.hexdigest()
