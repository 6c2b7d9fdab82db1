"""Recordings of other formats as LeRobotDatasets: written where one asks for it, or once into the cache to be opened.

The cache lies in `$UNDERSTUDY_CACHE/imported` (default `~/.cache/understudy`) and is keyed by the whole content of the
recording and by the source of its reader, so what was changed is converted anew. It has no bound: each folder may be
deleted, and its size is said when it is made. Pictures are kept without loss. What the files said beside the rows
stands in `meta/source.json`: the format, what was taken to be so, the names of the episodes and their subsets.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...configs.files import clear_leftovers, new_folder, replace_text
from ...configs.plugins import discover
from ...configs.progress import Progress
from .formats.format import Format, FormatError, Recording, find_format
from .layout import SOURCE, DatasetError, expand_path
from .writer import DatasetWriter

FORM = 1  # of what is written here; another number converts anew


def imported(path: Path) -> Path:
    """The folder in the cache that holds a recording of another format as a LeRobotDataset, made if it is not there.

    A folder that is of no known format comes back as it is, for the reader of LeRobotDatasets to say what it lacks.

    Raises:
        DatasetError: a file of no known format, or one that is damaged.
    """
    discover("policies.data.formats")
    try:
        name, reader = find_format(path)
    except FormatError as error:
        if path.is_dir():
            return path
        raise DatasetError(str(error)) from error
    try:
        folder = _cache() / f"{name}-{_digest(path, reader)}"
        if (folder / SOURCE).is_file():
            return folder
        recording = reader.open(path)
        with contextlib.suppress(FileExistsError):  # another process was quicker
            write_recording(name, reader, path, recording, folder, range(len(recording.episodes)), "image")
    except FormatError as error:
        raise DatasetError(str(error)) from error
    size = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) / 1e6
    said = f"{path} is of format {name}; {'; '.join(recording.notes)}"
    print(f"{said}; kept as a LeRobotDataset in {folder} ({size:.1f} MB, may be deleted)", file=sys.stderr)
    return folder


def write_recording(
    name: str, reader: Format, root: Path, recording: Recording, out: Path, places: Sequence[int], pictures: str
) -> tuple[int, int]:
    """Write the episodes at `places` of a recording as a dataset; returns how many episodes and steps it has.

    Raises:
        FormatError: an episode that does not fit, by name; nothing is left then. FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another folder")
    clear_leftovers(out)
    document = {SOURCE: _document(name, root, recording, places)}
    written = (0, 0)

    def fill(beside: Path) -> None:
        nonlocal written
        beside.rmdir()  # the writer makes it
        writer = DatasetWriter(
            beside, recording.embodiment, pictures=pictures, extra=recording.extra, documents=document,
            unsaid=recording.unsaid,
        )  # fmt: skip
        with Progress("converting", len(places), "episodes") as progress:
            for place in places:
                _add(writer, reader, root, recording, place)
                progress.update(writer.episodes)
        written = writer.episodes, writer.frames

    new_folder(out, fill)
    return written


def _add(writer: DatasetWriter, reader: Format, root: Path, recording: Recording, place: int) -> None:
    episode = recording.episodes[place]
    try:
        writer.add(reader.read(root, recording, episode))
    except ValueError as error:
        if isinstance(error, (FormatError, DatasetError)):
            raise
        raise FormatError(f"{root}: {error} (episode {episode}); leave it out: --without {place}") from error


def with_rate(recording: Recording, rate: float) -> Recording:
    """The recording at a rate that the user states. Raises FormatError where the files state another one."""
    body = recording.embodiment
    if "rate" not in body.guessed:
        if body.rate != rate:
            raise FormatError(f"the recording states {body.rate:g} steps a second; leave out --rate {rate:g}")
        return recording
    told = replace(body, rate=rate, guessed=tuple(one for one in body.guessed if one != "rate"))
    return replace(recording, embodiment=told)


def _document(name: str, root: Path, recording: Recording, places: Sequence[int]) -> str:
    """The text of `meta/source.json`."""
    chosen = [recording.episodes[place] for place in places]
    episodes = [
        {"name": one, "subsets": [subset for subset, names in recording.subsets.items() if one in names]}
        for one in chosen
    ]
    told = {"format": name, "file": root.name, "notes": list(recording.notes), "about": dict(recording.about)}
    return json.dumps(told | {"episodes": episodes}, indent=1, default=str)


def _cache() -> Path:
    folder = expand_path(os.environ.get("UNDERSTUDY_CACHE") or "~/.cache/understudy") / "imported"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(path: Path, reader: Format) -> str:
    """Hash of the content of a file, or of all files of a folder with their names, and of the reader's source.

    Reading all takes its time, so the answer is kept, by the sizes and times of the files.
    """
    form = f"{FORM} {_sha256(Path(inspect.getfile(type(reader))))}"
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    marks = [(str(one.relative_to(path)), (stat := one.stat()).st_size, stat.st_mtime_ns) for one in files]
    known = hashlib.sha256(json.dumps([form, str(path.resolve()), marks]).encode()).hexdigest()[:32]
    memo = _cache() / f"{known}.txt"
    if memo.is_file():
        return memo.read_text()
    digest = hashlib.sha256(form.encode())
    for one, (name, size, _) in zip(files, marks, strict=True):
        digest.update(f"{name} {size} {_sha256(one)}\n".encode())
    replace_text(memo, digest.hexdigest()[:16])
    return memo.read_text()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
