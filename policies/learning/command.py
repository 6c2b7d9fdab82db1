"""`understudy train`, as far as it goes without torch: the words, and what can be refused by them.

What is found possible is handed to `train.py`. Names and paths are looked at before the folder of the run: somebody who
mistyped the dataset, too, should not first be told of the folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...configs.devices import check_device
from ...configs.parse import UsageError, check_words
from ...configs.plugins import discover
from .checks import check_names
from .places import check_free, locate
from .run import SETTINGS
from .settings import NOTHING, Settings, take_resume


@dataclass(frozen=True, kw_only=True)
class TrainCommand(Settings):
    """Train a policy on demonstrations, or a critic on what succeeded and what did not."""

    @classmethod
    def from_words(cls, words: list[str]) -> Any:
        """The training that the words ask for. Raises before torch is imported where that is possible."""
        queue = list(words)
        resume = take_resume(queue)
        path = queue.pop(0) if queue and queue[0].endswith((".yaml", ".yml")) else None
        if resume is None:
            _check(path, queue)
        else:
            run, _ = locate(Path(os.path.expandvars(resume)))
            _check_beside(str(run / SETTINGS), queue)

        discover(*cls.DISCOVER)
        from .train import Train

        return Train.from_words(words)

    def run(self) -> None:
        """Train, or go on."""
        from .train import Train

        Train(**{item.name: getattr(self, item.name) for item in fields(self)}).run()


def _check(path: str | None, words: list[str]) -> None:
    """Refuse what of a new training can be refused without torch."""
    asked, given = check_words(Settings, path, words)
    check_device(asked.device)
    if asked.resume is not None:
        return
    check_names(asked)
    if len(given & {"policy", "critic"}) != 1:
        raise ValueError(NOTHING)
    if asked.data or asked.out:
        check_free(asked.folder)


def _check_beside(settings: str, words: list[str]) -> None:
    """Refuse flags beside --resume that no training has; of settings that cannot be read `train.py` says more."""
    try:
        check_words(Settings, settings, [])
    except UsageError:
        return
    asked, _ = check_words(Settings, settings, words)
    check_device(asked.device)
