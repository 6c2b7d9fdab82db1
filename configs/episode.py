"""One finished episode as plain arrays: what every world and robot hands out, before anything is written.

Beside it the columns in which a dataset keeps its parts. Knows no file format and no world:
`policies/data/writer.py` writes episodes, `policies/data/open.py` reads datasets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# What a dataset calls the parts of an episode, beside the observations and `action`; a row is what action t gave.
SENT, REWARD, DONE, SUCCESS, PROGRESS = "action.sent", "next.reward", "next.done", "next.success", "next.progress"


@dataclass(frozen=True, kw_only=True)
class Episode:
    """T executed control steps. Row t holds the observation before action t and what action t gave.

    Raises:
        ValueError: at construction, naming a part that does not have T rows.
    """

    start: int  # env seed, the key that joins worlds
    task: str  # text of the task
    obs: dict[str, np.ndarray]  # key -> (T, ...): float32 vectors in units, pictures uint8 (T, h, w, 3) RGB
    action: np.ndarray  # (T, D) float32 asked for, units
    sent: np.ndarray  # (T, D) float32 really executed, units
    reward: np.ndarray  # (T,) float32
    progress: np.ndarray  # (T,) float32 in 0..1
    success: np.ndarray  # (T,) bool
    terminated: bool
    truncated: bool
    final: dict[str, np.ndarray] = field(default_factory=dict)  # key -> (...) observation after the last action
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # further columns, (T, ...) numbers

    def __post_init__(self):
        steps = len(self.action)
        if not steps:
            raise ValueError(f"the episode of env seed {self.start} has no steps")
        parts = {"sent": self.sent, "reward": self.reward, "progress": self.progress, "success": self.success}
        for name, values in (parts | self.obs | self.extra).items():
            if len(values) != steps:
                raise ValueError(
                    f"'{name}' of the episode of env seed {self.start} has {len(values)} rows for {steps} actions"
                )

    def __len__(self) -> int:
        return len(self.action)
