"""Which episodes of a dataset are read: `--episodes 0-5,7-9` names them, `--without 6` leaves some out.

One form for every verb. Ids are those that the dataset gives. A condition chooses, too: `--episodes "success and length
< 200"` (`known.py` says what may be asked). Of several datasets read as one, each gets a part of its own, between
semicolons and in the order of the names: `--without ';6'` leaves episode 6 out of the second; a lone condition is for
all of them.
"""

from __future__ import annotations

import re
import warnings

from ...configs.progress import counted
from .layout import DatasetError, Layout
from .tables import DatasetWarning

ALL = "all"


def numbers_of(text: str | int) -> list[int]:
    """`0-2,5` -> [0, 1, 2, 5]. Raises DatasetError for what names no episodes."""
    found: list[int] = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if match is None:
            raise DatasetError(f"'{text}' names no episodes; write for example 0-9,12")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise DatasetError(f"'{part.strip()}' runs backwards; write {last}-{first}")
        found.extend(range(first, last + 1))
    return list(dict.fromkeys(found))


def choose(layout: Layout, episodes: str = ALL, without: str = "") -> Layout:
    """The layout with the episodes that are asked for alone.

    Raises:
        DatasetError: ids that the dataset does not have, or nothing is left.

    Warns:
        DatasetWarning: `without` leaves nothing out.
    """
    if is_everything(episodes, without):
        return layout
    known = [entry.id for entry in layout.entries]
    chosen = known if _is_all(episodes) else _known(layout, episodes)
    left = set() if not str(without).strip() else set(_known(layout, without))
    kept = set(chosen) - left
    if str(without).strip() and len(kept) == len(chosen):
        warnings.warn(f"--without '{without}' leaves no episode of {layout.root} out", DatasetWarning, stacklevel=3)
    if not kept:
        raise DatasetError(
            f"no episode of {layout.root} is left by --episodes {episodes} --without {without or '(none)'}"
        )
    return layout.only(kept)


def shares(text: str, names: list[str], flag: str) -> list[str]:
    """The part of `--episodes` or `--without` for each of several datasets.

    Raises:
        DatasetError: not one part a dataset.
    """
    blank = ALL if flag == "episodes" else ""
    if (_is_all(text) and flag == "episodes") or not str(text).strip():
        return [blank] * len(names)
    if is_condition(text) and ";" not in str(text):
        return [str(text)] * len(names)
    parts = [part.strip() or blank for part in str(text).split(";")]
    if len(parts) != len(names):
        example = ";" * (len(names) - 1) + (str(text) if len(parts) == 1 else "0-5")
        raise DatasetError(
            f"--{flag} '{text}': of which of the {counted(len(names), 'dataset')}? Give one part for each, in their "
            f"order, between semicolons; an empty one takes all. For {names[-1]}: --{flag} '{example}'"
        )
    return parts


def is_condition(text: str | int) -> bool:
    """Whether a text asks for what is known of episodes, and is no list of their numbers."""
    return re.search(r"[^\d\s,;-]", str(text)) is not None and not _is_all(str(text))


def is_everything(episodes: str, without: str) -> bool:
    """Whether nothing is left out."""
    return _is_all(episodes) and not str(without).strip()


def _is_all(text: str) -> bool:
    return str(text).strip() in ("", ALL)


def _known(layout: Layout, text: str) -> list[int]:
    if is_condition(text):
        from .known import matching

        return matching(layout, str(text))
    asked = numbers_of(text)
    known = {entry.id for entry in layout.entries}
    strange = [number for number in asked if number not in known]
    if strange:
        raise DatasetError(
            f"{layout.root} has no episode {strange[0]}; it has {len(known)}, from {min(known)} to {max(known)}"
        )
    return asked
