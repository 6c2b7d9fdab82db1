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
    looks: bool = False  # it looks itself what is there already, as a grid does, whose file may say more than before

    def do(self, done: Path) -> None:
        """Unless the folder `done` says that it has ended with these words.

        Raises ValueError: what is there was begun with other words, by a study of other settings.
        """
        said, there = shlex.join(self.words), self.begun.exists()
        mark, begun_by = done / _short(said), done / f"{_short(str(self.begun))}.begun"
        before = begun_by.read_text(encoding="utf-8").rstrip("\n") if there and begun_by.exists() else said
        if before != said:
            raise ValueError(
                f"{self.begun} was made by other settings of this study:\n  understudy {before}\n"
                f"and is now to be made by\n  understudy {said}\nremove it, or give each study a folder of its own"
            )
        words = self.again if there else self.words
        if (mark.exists() and not self.looks) or words is None:
            return
        print(f"\n$ understudy {shlex.join(words)}", flush=True)
        done.mkdir(parents=True, exist_ok=True)
        begun_by.write_text(said + "\n", encoding="utf-8")
        command(words)
        mark.write_text(said + "\n", encoding="utf-8")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def command(words: Sequence[str]) -> None:
    """One command in this process. Raises ValueError where it fails."""
    from ...__main__ import main

    if status := main(list(words)):
        raise ValueError(f"understudy {shlex.join(words)} ended with {status}; the same study goes on there")
