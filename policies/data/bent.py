"""Whether a recording shows what was asked for: how many steps the guard of the arm bent, and by how much.

Recordings of arms hold `guard.outcome` of each step (0 passed, 1 bent, 2 stopped), the `action` that a policy or a
leader asked for, and `action.sent`, what the guard let through.
"""

from __future__ import annotations

import numpy as np

from ...configs.episode import SENT
from ...configs.spec import ACTION
from .dataset import Dataset

OUTCOME = "guard.outcome"
MOST = 0.5  # part of the steps; where more are bent, what was executed is something else


def bent_warning(dataset: Dataset) -> str:
    """What to know where the guard bent most steps; empty where it did not, where nobody wrote it down, and where what
    was executed is read as the action."""
    if OUTCOME not in dataset.columns or dataset.layout.sources.get(ACTION) == (SENT,):
        return ""
    outcome = dataset.columns[OUTCOME][:, 0]
    told = np.isfinite(outcome)
    bent = told & (outcome > 0)
    if not bent.sum() > MOST * told.sum():
        return ""
    each = np.add.reduceat(bent, dataset.starts) > MOST * np.add.reduceat(told, dataset.starts)
    return (
        f"the guard bent {bent.sum()} of {told.sum()} steps ({bent.sum() / told.sum():.0%}; most of them in "
        f"{each.sum()} of {len(each)} episodes){_farthest(dataset, bent)}: what was executed (`{SENT}`) is not what "
        f"was asked for (`{ACTION}`), so the episodes do not show how well it does, and what learns from `{ACTION}` "
        f"learns what the arm did not do. --columns '{{{ACTION}: {SENT}}}', of `train` too, takes what was executed; "
        "which limits it were, and what else to do: docs/deploy.md, 'What the guard bends'"
    )


def _farthest(dataset: Dataset, bent: np.ndarray) -> str:
    """By how much at most, and which joint."""
    columns = dataset.columns
    if not {ACTION, SENT} <= set(columns) or columns[ACTION].shape != columns[SENT].shape:
        return ""
    away = np.abs(columns[SENT] - columns[ACTION])[bent]
    farthest = np.where(np.isfinite(away), away, 0.0).max(0)
    body, joint = dataset.embodiment, int(farthest.argmax())
    if len(body.action) != len(farthest) or not farthest.any():
        return ""
    unit = body.action_units[joint] if len(body.action_units) == len(farthest) else ""
    return f", {body.action[joint]} by up to {farthest[joint]:.3g} {unit}".rstrip()
