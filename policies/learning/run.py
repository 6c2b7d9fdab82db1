"""What a run folder says of its training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def training(path: str) -> dict | None:
    """The settings of the training run that a policy's path lies in; None where it lies in none."""
    import yaml

    place = Path(os.path.expandvars(path)).resolve()
    run = next((folder for folder in (place, *place.parents[:2]) if (folder / "config.yaml").is_file()), None)
    return None if run is None else yaml.safe_load((run / "config.yaml").read_text())


def _run_folder(policy: str) -> Path | None:
    """The training run that a policy path lies in, if there is one."""
    path = Path(os.path.expandvars(policy)).resolve()
    return next((folder for folder in (path, *path.parents[:2]) if (folder / "config.yaml").is_file()), None)


def _training(policy: str) -> dict:
    """Seed and data of the training, from the run's settings."""
    import yaml

    run = _run_folder(policy)
    if run is None:
        return {}
    settings = yaml.safe_load((run / "config.yaml").read_text())
    return {"train": {key: settings.get(key) for key in ("seed", "data", "steps", "batch")}}


@dataclass(frozen=True)
class Training:
    """What the settings of a run say about its data."""

    data: str
    validation: float  # part of the episodes held out
    seed: int


def training_of(run: Path) -> Training | None:
    """Data and split of the run that a run or checkpoint folder belongs to; None where nobody noted it."""
    import yaml

    path = run.resolve()
    folder = next((place for place in (path, *path.parents[:2]) if (place / "config.yaml").is_file()), None)
    if folder is None:
        return None
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    return Training(settings.get("data", ""), float(settings.get("validation", 0)), int(settings.get("seed", 0)))
