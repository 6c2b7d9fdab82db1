"""Temporal ensembling: the action for a step is the mean of what all plans that cover it said.

Weights as in ACT (Zhao et al. 2023): proportional to exp(-decay * i), i = 0 for the oldest plan, so that older plans
count more. Plans of an episode that ended are forgotten. Knows nothing of policies.
"""

from __future__ import annotations

import numpy as np


class Ensemble:
    """Blends plans of B lanes, one every E steps.

    Args:
        shape: (B, H, D) of the plans.
        n_action_steps: E, at most H.
        decay: at least 0; 0 weighs all plans alike.
    """

    def __init__(self, shape: tuple[int, int, int], n_action_steps: int, decay: float):
        if not decay >= 0:
            raise ValueError(f"the decay of temporal ensembling must be at least 0, got {decay}")
        lanes, horizon, dims = shape
        self.n_action_steps, self.decay = n_action_steps, decay
        self._plans = np.zeros((lanes, -(-horizon // n_action_steps), horizon, dims), np.float32)  # newest first
        self._count = np.zeros(lanes, np.int64)

    def reset(self, mask: np.ndarray) -> None:
        """Forget the plans of the lanes of `mask` (B,) bool."""
        self._count[mask] = 0

    def blend(self, future: np.ndarray) -> np.ndarray:
        """Take in the newest plans (B, H, D) -> (B, E, D) float32 actions for the next E steps."""
        self._plans = np.concatenate([future[:, None], self._plans[:, :-1]], 1)
        self._count += 1
        total = np.zeros((*future[:, : self.n_action_steps].shape[:2], 1))
        blended = np.zeros(future[:, : self.n_action_steps].shape)
        for age in range(self._plans.shape[1]):
            part = self._plans[:, age, age * self.n_action_steps : (age + 1) * self.n_action_steps]
            weight = np.where(age < self._count, np.exp(self.decay * age), 0.0)[:, None, None]
            blended[:, : part.shape[1]] += weight * part
            total[:, : part.shape[1]] += weight
        return (blended / total).astype(np.float32)
