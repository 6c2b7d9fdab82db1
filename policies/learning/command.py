"""`understudy train`, as far as it goes without torch: the words, and what can be refused by them.

What is found possible is handed to `train.py`. Names and paths are looked at before the folder of the run: somebody who
mistyped the dataset, too, should not first be told of the folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...configs.devices import check_device
from ...configs.parse import check_words
from ...configs.plugins import discover
from .checks import check_names
from .places import check_free, locate
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
        asked, given = check_words(Settings, path, queue)
        check_device(asked.device)
        if resume is not None:
            locate(Path(os.path.expandvars(resume)))
        elif asked.resume is None:
            check_names(asked)
            if len(given & {"policy", "critic"}) != 1:
                raise ValueError(NOTHING)
            if asked.data or asked.out:
                check_free(asked.folder)

        discover(*cls.DISCOVER)
        from .train import Train

        return Train.from_words(words)
