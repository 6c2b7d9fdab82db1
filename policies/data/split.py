"""`understudy split SRC DST`: one dataset into several, by shares drawn with a seed or by conditions.

understudy split out/demos out/parts --parts '{train: 0.9, val: 0.1}' --seed 0
understudy split out/demos out/parts --parts '{good: success, bad: not success}'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...configs.files import clear_leftovers, new_folder
from ...configs.progress import counted
from .choose import ALL
from .convert import write_edited
from .dataset import Dataset
from .editing.write import FORMS
from .known import matching
from .layout import DatasetError, Layout, expand_path
from .open import open_dataset
from .several import repeated


@dataclass(frozen=True, kw_only=True)
class Split:
    """Write one dataset as several, a folder each, by shares or by conditions."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("source", "out")

    source: str  # dataset
    out: Path  # folder of the new datasets; must not exist
    parts: dict[str, str] = field(default_factory=lambda: {"train": "0.9", "val": "0.1"})  # name -> share or condition
    seed: int = 0  # of the draw, for shares
    episodes: str = ALL  # which are split, for example 0-5,7 or "success"
    without: str = ""  # episodes left out, for example 6
    to: str = "v3.0"  # v3.0 | v2.1

    def run(self) -> None:
        """Write `out/NAME` for each part: all of them, or nothing where one fails.

        Raises:
            DatasetError: parts that overlap, are empty, or are both shares and conditions.
        """
        out = expand_path(self.out)
        if out.exists():
            raise FileExistsError(f"{out} exists; choose another folder")
        if self.to not in FORMS:
            raise DatasetError(f"'{self.to}' is not written; --to {' or '.join(FORMS)}")
        dataset = open_dataset(self.source, columns=(), check=False, episodes=self.episodes, without=self.without)
        if dataset.parts:
            raise DatasetError("several datasets are not split at once; merge them first: understudy convert A,B OUT")
        found = shared(dataset.layout, self.parts, self.seed)
        kept = {entry.id for entry in dataset.layout.entries}
        left = sorted(kept - {one for ids in found.values() for one in ids})

        clear_leftovers(out)

        def fill(beside: Path) -> None:
            for name, ids in found.items():
                write_edited(str(dataset.root), beside / name, self.to, ",".join(map(str, ids)), shown=out / name)

        new_folder(out, fill)
        if left:
            print(f"note: {counted(len(left), 'episode', 'is', 'are')} in no part: {', '.join(map(str, left[:20]))}")
        for note in _shared_by_parts(dataset, found):
            print(f"note: {note}")


def _shared_by_parts(dataset: Dataset, parts: dict[str, list[int]]) -> list[str]:
    """A sentence where episodes of two parts have the very same actions; none where no two have."""
    ids = [entry.id for entry in dataset.layout.entries]
    part = {one: name for name, some in parts.items() for one in some}
    pairs = [(ids[place], ids[earlier]) for place, earlier in repeated(dataset).items()]
    apart = [(one, other) for one, other in pairs if one in part and other in part and part[one] != part[other]]
    if not apart:
        return []
    (one, other), said = apart[0], counted(len(apart), "episode", "has", "have")
    return [
        f"{said} the very actions of one in another part, such as {one} ({part[one]}) of {other} ({part[other]}): a"
        " recording is in it twice, and what one part learns the other knows"
    ]


def shared(layout: Layout, parts: dict[str, str], seed: int) -> dict[str, list[int]]:
    """Name of a part -> ids of its episodes, in order.

    Shares are rounded so that their sum is kept, and each above 0 gets one episode at least.

    Raises:
        DatasetError: as `Split.run`.
    """
    if len(parts) < 1 or not all(re.fullmatch(r"[\w-][\w.-]*", name) for name in parts):
        raise DatasetError(f"parts {', '.join(parts) or '(none)'}: give names of folders, such as train, val")
    numbers = {name: _share(value) for name, value in parts.items()}
    shares = {name: value for name, value in numbers.items() if value is not None}
    if shares and len(shares) < len(parts):
        raise DatasetError("parts are either shares, such as 0.9, or conditions, such as success; not both")
    found = _by_share(layout, shares, seed) if shares else {k: matching(layout, str(one)) for k, one in parts.items()}
    for name, ids in found.items():
        if not ids:
            raise DatasetError(f"the part '{name}' ({parts[name]}) has no episode of the {len(layout.entries)}")
    seen: dict[int, str] = {}
    for name, ids in found.items():
        for one in ids:
            if one in seen:
                raise DatasetError(
                    f"episode {one} is in the parts '{seen[one]}' and '{name}'; make them exclude each other"
                )
            seen[one] = name
    return found


def _share(value: Any) -> float | None:
    """A share; None for a condition."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not 0 < number <= 1:
        raise DatasetError(f"a share of {value}: give a part of 1, such as 0.9")
    return number


def _by_share(layout: Layout, shares: dict[str, float], seed: int) -> dict[str, list[int]]:
    ids = [entry.id for entry in layout.entries]
    if (total := sum(shares.values())) > 1 + 1e-9:
        raise DatasetError(f"the shares add up to {total:g}; 1 is all there is")
    if len(ids) < len(shares):
        raise DatasetError(f"{counted(len(ids), 'episode')} cannot be {counted(len(shares), 'part')}")
    ends = np.floor(np.cumsum(list(shares.values())) * len(ids) + 0.5).astype(int)
    for place in range(len(ends)):  # one at least
        ends[place] = max(ends[place], (ends[place - 1] if place else 0) + 1)
    for place in reversed(range(len(ends))):
        ends[place] = min(ends[place], len(ids) - (len(ends) - 1 - place))
    order = np.random.default_rng(seed).permutation(ids)
    begins = [0, *ends[:-1].tolist()]
    return {name: sorted(order[a:b].tolist()) for name, a, b in zip(shares, begins, ends.tolist(), strict=True)}
