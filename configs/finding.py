"""What one trial or look showed, and what to do about it: the lines that `understudy doctor` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is as it should be, what was seen."""

    what: str
    works: bool
    detail: str
    advice: str = ""  # how to get what is missing
    needed: bool = False  # the core does not work, or the folder cannot be used, without it
