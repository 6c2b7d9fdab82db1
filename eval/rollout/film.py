"""Films of chosen episodes: picked after the outcomes are known, played again, written as small mp4 files.

An episode is shown by playing its recorded actions from its initial condition once more, which a simulator repeats
exactly; where the outcome comes out otherwise there is no film.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from ...configs.files import clear_leftovers, replace_file
from ...configs.lanes.lane import MachineError
from ...policies.data.encode import write_mp4
from ..ledger.record import VIDEOS
from .crew import Crew
from .recipes import TapeRecipe

TAPES = ".tapes.npy"  # in a record that is not complete: the actions of its episodes, until there are films
SAME = ("success", "first_success", "length", "progress")  # columns that a faithful repetition gives again


def choose(rows: Iterable[Mapping], count: int) -> list[int]:
    """Env seeds of up to `count` episodes to show: the first failures, then the first successes, about half each."""
    rows = [row for row in rows if not row["error"]]
    lost = [row["env_seed"] for row in rows if not row["success"]]
    won = [row["env_seed"] for row in rows if row["success"]]
    failures = min(len(lost), max(math.ceil(count / 2), count - len(won)))
    return lost[:failures] + won[: max(0, count - failures)]


def choose_pairs(first: Mapping[int, Mapping], second: Mapping[int, Mapping], count: int) -> list[int]:
    """Up to `count` env seeds of two policies to show: those at which one alone succeeded, in turn, then the others.

    Args:
        first, second: env seed -> row; only env seeds of both are chosen.
    """
    kinds: dict[tuple[bool, bool], list[int]] = {
        (True, False): [],
        (False, True): [],
        (False, False): [],
        (True, True): [],
    }
    for start in sorted(set(first) & set(second)):
        a, b = first[start], second[start]
        if not (a["error"] or b["error"]):
            kinds[bool(a["success"]), bool(b["success"])].append(start)
    ours, theirs, *rest = kinds.values()
    in_turn = [start for pair in zip_longest(ours, theirs) for start in pair if start is not None]
    return [*in_turn, *chain.from_iterable(rest)][:count]


class Tapes(dict):
    """Env seed -> (T, D) float32 actions of the episodes of a record, also of those that an earlier process recorded.

    Kept beside the rows until the films are made, so that these survive a kill; see `drop`.

    Args:
        root: folder of the record.
        kept: whether films are wanted; else nothing is kept on the disk.
    """

    def __init__(self, root: Path, kept: bool):
        super().__init__()
        self._path, self._kept = root / TAPES, kept
        if kept and self._path.is_file():
            self._read(self._path)

    def __setitem__(self, start: int, actions: np.ndarray) -> None:
        super().__setitem__(start, actions)
        if self._kept:
            entry = io.BytesIO()
            for part in (np.array(start), actions):
                np.save(entry, part, allow_pickle=False)
            with self._path.open("ab") as file:
                file.write(entry.getbuffer())

    def drop(self) -> None:
        """Remove what is kept on the disk: the films are made, and the record says where they are."""
        self._path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        """All whole entries; a killed process may leave part of the last one."""
        with path.open("r+b") as file:
            whole = 0
            with suppress(ValueError, EOFError, OSError):
                while True:
                    start, actions = (np.load(file, allow_pickle=False) for _ in range(2))
                    super().__setitem__(int(start), actions)
                    whole = file.tell()
            file.truncate(whole)


def film_again(crew: Crew, rows: Mapping[int, Mapping], tapes: Mapping[int, np.ndarray], root: Path) -> dict[int, str]:
    """Play the episodes `tapes` (env seed -> (T, D) actions) again and write `root/videos/START.mp4`.

    Returns:
        env seed -> path inside `root`, only of the episodes that came out as in `rows` and could be drawn; none of a
        world by the clock, where nothing happens twice, and an arm would move that nobody expects to.
    """
    if crew.world.by_the_clock:
        return {}
    (root / VIDEOS).mkdir(exist_ok=True)
    clear_leftovers(root / VIDEOS)  # half films
    written = {}
    with suppress(MachineError):  # a film may be missing, the outcomes are known
        for result in crew.run(TapeRecipe(tapes), list(tapes), film=tapes.keys()):
            same = all(result.row[name] == rows[result.start][name] for name in SAME)
            if same and result.film:
                path = f"{VIDEOS}/{result.start:06d}.mp4"
                film = partial(write_mp4, frames=result.film, rate=crew.embodiment.rate, quality=26, group=30)
                replace_file(root / path, film)
                written[result.start] = path
    return written
