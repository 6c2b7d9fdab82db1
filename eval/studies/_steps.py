"""The steps of a study that are ordinary commands: each is run once, and an interrupted one is gone on with."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DONE = ".done"  # folder of what has ended, below a study's root


@dataclass(frozen=True)
class Step:
    """A command, and the words that go on with it where `begun` is there already; None: what is there is whole."""

    words: list[str]
    begun: Path
    again: list[str] | None

    def do(self, done: Path) -> None:
        """Unless the folder `done` says that it has ended with these words."""
        mark = done / hashlib.sha256(shlex.join(self.words).encode()).hexdigest()[:16]
        words = self.again if self.begun.exists() else self.words
        if mark.exists() or words is None:
            return
        print(f"\n$ understudy {shlex.join(words)}", flush=True)
        command(words)
        done.mkdir(parents=True, exist_ok=True)
        mark.write_text(shlex.join(self.words) + "\n", encoding="utf-8")


def command(words: Sequence[str]) -> None:
    """One command in this process. Raises ValueError where it fails."""
    from ...__main__ import main

    if status := main(list(words)):
        raise ValueError(f"understudy {shlex.join(words)} ended with {status}; the same study goes on there")
