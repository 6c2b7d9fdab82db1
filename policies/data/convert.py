"""`understudy convert SRC DST`: recordings of another format as a LeRobotDataset v3.0, which every verb here reads."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import HALF
from ...configs.plugins import lookup
from ...configs.progress import Progress
from .choose import ALL, numbers_of
from .formats.format import FORMATS, Format, FormatError
from .writer import DatasetWriter

INFO = Path("meta") / "info.json"


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write recordings of another format as a LeRobot dataset."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("source", "out")
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies.data.formats",)

    source: str  # folder of the recordings
    out: str  # dataset folder to write; must not exist
    format: str = ""  # of the recordings; default: the one whose files lie there
    episodes: str = "all"  # which, by their place in order, for example 0-5,7
    without: str = ""  # episodes left out, for example 6
    pictures: str = "video"  # image | video: how pictures are stored

    def run(self) -> None:
        """Convert, episode by episode, beside `out`, and rename.

        Raises:
            FormatError: a folder of no known format, a file that does not fit. FileExistsError: `out` exists.
        """
        root, out = (Path(os.path.expandvars(path)).expanduser() for path in (self.source, self.out))
        name, reader = find_format(root, self.format)
        recording = reader.open(root)
        if out.exists():
            raise FileExistsError(f"{out} exists; choose another folder")
        chosen = _chosen(self.episodes, self.without, len(recording.episodes))
        beside = out.with_name(f".{out.name}{HALF}")
        shutil.rmtree(beside, ignore_errors=True)
        writer = DatasetWriter(beside, recording.embodiment, pictures=self.pictures)
        print(f"{root} is of format {name}; {'; '.join(recording.notes)}")
        try:
            with Progress("converting", len(chosen), "episodes") as progress:
                for place in chosen:
                    writer.add(reader.read(root, recording, recording.episodes[place]))
                    progress.update(writer.episodes)
        except BaseException:
            writer.discard()
            raise
        beside.rename(out)
        print(f"{out}: {writer.episodes} episodes, {writer.frames} steps at {recording.embodiment.rate:g} Hz")


def find_format(root: Path, name: str = "") -> tuple[str, Format]:
    """The format of a folder, with its name.

    Raises:
        FormatError: no folder, or none of the known formats. LookupError: an unknown name.
    """
    if not root.is_dir():
        raise FormatError(f"there is no folder {root}")
    if name:
        lookup("format", name, FORMATS)
    found = [(key, one) for key, one in FORMATS.items() if one.holds(root) and name in ("", key)]
    if len(found) == 1:
        return found[0]
    if (root / INFO).is_file():
        raise FormatError(f"{root} is a LeRobot dataset already: give it to --data as it is")
    known = "; ".join(f"{key}: {one.layout}" for key, one in FORMATS.items() if name in ("", key))
    if found:
        raise FormatError(f"{root} may be of several formats, {', '.join(key for key, _ in found)}; give --format")
    raise FormatError(f"{root} is laid out as none of the formats that are read: {known}")


def _chosen(episodes: str, without: str, count: int) -> list[int]:
    """Places of the episodes that are asked for. Raises FormatError where there are no such, or none is left."""
    asked = range(count) if str(episodes).strip() in ("", ALL) else numbers_of(episodes)
    left = numbers_of(without) if str(without).strip() else []
    strange = [number for number in (*asked, *left) if number >= count]
    kept = [number for number in asked if number not in left]
    if strange or not kept:
        what = f"there is no episode {strange[0]}; there are {count}, from 0" if strange else "no episode is left"
        raise FormatError(f"--episodes {episodes} --without {without or '(none)'}: {what}")
    return kept
