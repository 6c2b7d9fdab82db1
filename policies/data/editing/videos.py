"""Films of kept episodes: copied whole where all of a film is kept, cut by packets else, never encoded again.

What cannot be cut stands in its whole film, with the times where it lies, if the format can say so (v3.0).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from ....configs.progress import counted
from ..films import align_clips, read_film
from ..frames import ranges
from ..layout import Clip, DatasetError
from ..tables import file_inside
from .cuts import cut_film
from .plan import Kept, Plan


@dataclass(frozen=True)
class Placed:
    """Where the pictures of an episode lie in the new dataset."""

    number: int  # of the file
    start: float  # s
    end: float  # s
    whole: bool = False  # in a film that holds more than what was kept


def require_films(plan: Plan) -> None:
    """Raise DatasetError naming the episodes whose films are not there."""
    for key in plan.of_kind("video"):
        lost = [kept for kept in plan.episodes if not _is_there(kept, key)]
        if lost:
            there = [kept.entry.id for kept in plan.episodes if _is_there(kept, key)]
            choose = f"take those that have one: --episodes {ranges(there).replace(' ', '')}" if there else ""
            raise DatasetError(
                f"{lost[0].layout.root} has no film of '{key}' for {len(lost)} of the "
                f"{counted(len(plan.episodes), 'episode')}: {ranges(kept.entry.id for kept in lost)}; "
                f"{choose or 'copy them'}, or leave it out: --drop {key}"
            )


def _is_there(kept: Kept, key: str) -> bool:
    clip = kept.entry.clips.get(key)
    return clip is not None and file_inside(kept.layout.root, clip.path).is_file()


def place_films(plan: Plan, key: str, path_of: Callable[[int], Path], *, own: bool) -> Iterator[list[Placed]]:
    """Write the films of a camera; the places of the episodes of one source film after the other.

    Args:
        path_of: number of a file -> its path.
        own: every episode must have a film of its own, whose number is the episode's.

    Raises:
        DatasetError: clips that do not fit their film, an episode that cannot be cut where it must be.
    """
    number = 0

    def film_of(kept: Kept) -> tuple[int, str]:
        return id(kept.layout), _clip(kept, key).path

    for _, group in groupby(plan.episodes, key=film_of):
        members = list(group)
        placed = _place_one(members, key, path_of, number, own)
        number = max(one.number for one in placed) + 1
        yield placed


def _clip(kept: Kept, key: str) -> Clip:
    return kept.entry.clips[key]


def _place_one(members: list[Kept], key: str, path_of: Callable[[int], Path], number: int, own: bool) -> list[Placed]:
    """Place the episodes of one film."""
    layout, clip = members[0].layout, _clip(members[0], key)
    film = read_film(file_inside(layout.root, clip.path))
    found = align_clips(layout, key, clip.path, film)
    lacking = next((found.lacking[one.entry.id] for one in members if one.entry.id in found.lacking), None)
    if lacking is not None:
        raise DatasetError(lacking)
    frames = [found.frames[one.entry.id] for one in members]
    rate = layout.rate

    # all of it is kept: one copy
    used = np.concatenate(frames)
    if len(members) > 1 and not own and len(np.unique(used)) == len(film.stamps):
        return _copied(members, key, film.path, path_of(number), number, rate, whole=False)

    # a film for each
    outs = [path_of(number + place) for place in range(len(members))]
    for out in outs:
        out.parent.mkdir(parents=True, exist_ok=True)
    done = cut_film(film, list(zip(frames, outs, strict=True)))
    if all(done):
        lengths = (one.entry.length for one in members)
        return [Placed(number + place, 0.0, length / rate) for place, length in enumerate(lengths)]
    for out in outs:
        out.unlink(missing_ok=True)
    if own:
        episode = members[done.index(False)].entry.id
        raise DatasetError(
            f"episode {episode} cannot be cut out of the film {film.path} without encoding it again: it does not begin"
            f" with a key frame, or its frames hang together with others; write v3.0, or leave it out: --drop {key}"
        )
    return _copied(members, key, film.path, path_of(number), number, rate, whole=True)


def _copied(
    members: list[Kept], key: str, film: Path, out: Path, number: int, rate: float, whole: bool
) -> list[Placed]:
    """The whole film, in which each episode stands where it stood."""
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(film, out)
    starts = [_clip(one, key).start for one in members]
    return [
        Placed(number, start, start + one.entry.length / rate, whole)
        for one, start in zip(members, starts, strict=True)
    ]
