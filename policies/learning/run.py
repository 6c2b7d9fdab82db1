"""What a run folder says of its training: the settings that `understudy train` left in its `config.yaml`.

Reads what is written there, also by older versions, and fills in nothing; opens no weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..data.dataset import Dataset

SETTINGS = "config.yaml"


def run_folder(path: str | Path) -> Path | None:
    """The training run that a path is, or lies in (a checkpoint does); None where it lies in none."""
    place = Path(os.path.expandvars(path)).resolve()
    return next((folder for folder in (place, *place.parents[:2]) if (folder / SETTINGS).is_file()), None)


def training(path: str | Path) -> dict | None:
    """The settings of the training run that a path is, or lies in; None where it lies in none."""
    import yaml

    run = run_folder(path)
    return None if run is None else yaml.safe_load((run / SETTINGS).read_text())


def read_as(settings: Mapping | None) -> dict:
    """How a training with these settings read its data: `episodes`, `without` and `sources` of `open_dataset`."""
    told = settings or {}
    return {
        "episodes": told.get("episodes") or "all",
        "without": told.get("without") or "",
        "sources": told.get("columns") or {},
    }


def held_out(dataset: Dataset, settings: Mapping) -> np.ndarray:
    """Sorted positions of the episodes of `dataset` that a training with these settings held out of it."""
    from ..data.dataset import split_episodes

    return split_episodes(dataset, settings.get("validation", 0.05), settings.get("seed", 0))[1]
