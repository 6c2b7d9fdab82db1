"""The action scale of a training: pinned by a task spec or another run, or the range of the data's actions."""

from __future__ import annotations

import numpy as np

from ...configs.spec import ACTION
from ..data.dataset import Dataset
from ..data.statistics import action_range, statistics
from ..data.task_spec import ActionScale, TaskSpec, load_task_spec
from .doors import scale_differs
from .links import linked
from .run import run_folder
from .settings import Settings

OUTSIDE = 3.0  # a pinned scale is not the data's where a twentieth of the actions lie further out, scaled


def pinned_task_spec(config: Settings, dataset: Dataset, training: np.ndarray) -> TaskSpec:
    """The task spec given, or one from the dataset's smallest and greatest actions."""
    if config.scale:
        spec, run = load_task_spec(config.scale), run_folder(config.scale.removeprefix("from:"))
        last = run and linked(run, "last")
        if last and scale_differs(last, spec):  # fine-tuned by an earlier version
            raise ValueError(
                f"{run}/task_spec.yaml holds another action scale than its weights act in; write the one that "
                "is meant to a file and give that: --scale FILE.yaml"
            )
        return spec
    if config.task_spec:
        return config.task_spec
    low, high = action_range(statistics(dataset, (ACTION,), training)[ACTION])
    return TaskSpec(scale=ActionScale(low=low, high=high))


def check_inside(config: Settings, dataset: Dataset, spec: TaskSpec, training: np.ndarray) -> None:
    """Refuse actions that a pinned scale does not hold: most of what is trained on would lie outside of [-1, 1]."""
    if not config.scale and not config.task_spec:
        return
    rows = np.repeat(np.isin(np.arange(len(dataset.lengths)), training), dataset.lengths)
    low, high = (np.asarray(side, np.float64) for side in (spec.scale.low, spec.scale.high))
    scaled = (dataset.columns["action"][rows] - (low + high) / 2) / ((high - low) / 2)
    ends = np.abs(np.quantile(scaled, [0.05, 0.95], axis=0)).max(0)
    worst = int(ends.argmax())
    if ends[worst] > OUTSIDE:
        values = dataset.columns["action"][rows][:, worst]
        raise ValueError(
            f"the pinned scale does not hold the data: action '{dataset.embodiment.action[worst]}' has "
            f"{low[worst]:.4g}..{high[worst]:.4g} there and {values.min():.4g}..{values.max():.4g} in {config.data}. "
            "Leave `scale` and `task_spec` out to take the range of the data, or widen it"
        )
