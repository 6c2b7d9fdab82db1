"""A training that was done, in the hand: what `understudy.train` gives. Reads the run folder, holds nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.notebook import facts_html, facts_text
from ..learning.links import NAMES, linked, numbered, step_of
from ..learning.run import held_out, training
from .loaded import LoadedPolicy, open_policy

if TYPE_CHECKING:
    import numpy as np

    from ..data.dataset import Dataset

METRICS = "metrics.jsonl"


@dataclass(frozen=True, repr=False)
class TrainedRun:
    """The folder of a training.

    Attributes:
        path: the run folder; every verb and `understudy.load` takes it.
    """

    path: Path

    @property
    def settings(self) -> dict:
        """What it was trained with, as `config.yaml` has it."""
        return training(self.path) or {}

    @property
    def metrics(self) -> list[dict]:
        """What was logged, in order: dicts with `step`, `loss`, `validation/...` and more; empty where nothing was."""
        path = self.path / METRICS
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.strip()]

    def curve(self, name: str = "loss") -> tuple[list[int], list[float]]:
        """(steps, values) of one scalar. Raises KeyError listing what was logged."""
        points = [(entry["step"], entry[name]) for entry in self.metrics if name in entry]
        if not points:
            logged = sorted({key for entry in self.metrics for key in entry} - {"step"})
            raise KeyError(f"'{name}' was not logged in {self.path}; logged: {', '.join(logged) or 'nothing'}")
        steps, values = zip(*points, strict=True)
        return list(steps), list(values)

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Step -> folder of each checkpoint that is kept."""
        return {step: folder for folder in numbered(self.path) if (step := step_of(folder)) is not None}

    def checkpoint(self, which: str | int | None = None) -> Path:
        """The folder of "best", "last" or a step; None: `best` where there is one, else `last`.

        Raises:
            FileNotFoundError: there is none, naming those that there are.
        """
        if which is None:
            return self.path
        found = linked(self.path, which) if which in NAMES else self.checkpoints.get(int(which))
        if found is None:
            there = ", ".join(map(str, self.checkpoints)) or "none"
            raise FileNotFoundError(f"{self.path} has no checkpoint '{which}'; steps kept: {there}")
        return found

    def policy(self, which: str | int | None = None, **settings: Any) -> LoadedPolicy:
        """The policy of a checkpoint, see `checkpoint`; `settings` as `understudy.load` takes them.

        Raises:
            FileNotFoundError: no such checkpoint. CheckpointError: it holds no policy.
        """
        return open_policy(str(self.checkpoint(which)), **settings)

    def held_out(self, dataset: Dataset) -> np.ndarray:
        """Sorted positions of the episodes of its dataset that it was not trained on, as `validation` asked."""
        return held_out(dataset, self.settings)

    def facts(self) -> dict[str, str]:
        """What there is to say of it, for people."""
        settings, last = self.settings, {key: value for entry in self.metrics for key, value in entry.items()}
        learner = settings.get("policy") or settings.get("critic") or {}
        told = {
            "run": str(self.path),
            "trained": f"{learner.get('type', '?')} on {settings.get('data', '?')}, seed {settings.get('seed', 0)}",
            "step": f"{last.get('step', 0)} of {settings.get('steps', '?')}",
        }
        told |= {name: f"{last[name]:.4g}" for name in ("loss", "validation/action_error") if name in last}
        return told | {"checkpoints": ", ".join(map(str, self.checkpoints)) or "none"}

    def __repr__(self) -> str:
        return facts_text("TrainedRun", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(self.facts())
