"""What can be seen of a policy's trouble while it acts, and the watch that keeps it beside an agent.

Three signals at each replanning, of N plans drawn from one encoding of the observation, in the scaled action space so
that no dimension outweighs another by its unit:

- recall: mean over the plans of the distance between their reconstructed past and what was executed, as
  `critics/recall.py` scores it;
- spread: mean squared distance between two different plans, over the E actions to be executed;
- drift: energy distance between these plans and those of the replanning before, on the steps that both cover. After
  STAC (Agia et al. 2024, "Unpacking failure modes of generative policies"), which uses MMD there.

The watched plans are drawn beside the executed one, with the same noise, and never change it. Ringing is `alarm.py`'s.
What no signal can see: a policy that is sure, consistent and wrong.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..critics.recall import PartlyRecallConfig, RecallCritic
from ..policy import Past, Planner, Plans, half_range, past_is_given
from .alarm import SIGNALS, Alarm


def recall_error(past: Past, plans: Plans, critic: RecallCritic) -> Tensor:
    """(B,) mean over the plans of `RecallCritic.distance`; NaN where none of the recalled actions was executed yet."""
    executed = past.at(critic.window).action_valid.any(1)
    return torch.where(executed, critic.distance(past, plans).mean(1), torch.nan)


def spread(plans: Plans, n_action_steps: int, half: Tensor) -> Tensor:
    """(B,) mean squared distance of pairs of plans, over their first `n_action_steps` actions and dimensions; N > 1.

    Args:
        half: (D,) half of the range of each action, in its unit: 1 in the scaled space.
    """
    ahead = plans.future[:, :, :n_action_steps] / half
    return 2 * ahead.var(1).mean((1, 2))


def drift(before: Plans, plans: Plans, n_action_steps: int, half: Tensor) -> Tensor:
    """(B,) energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of old and new plans on the steps that both cover.

    Distances are root mean squares over steps and dimensions. NaN for lanes whose `before` is not `n_action_steps`
    steps old, as where an episode has just begun, and where plans do not overlap.
    """
    steps = plans.future.shape[2] - n_action_steps
    if steps < 1:
        return torch.full_like(plans.future[:, 0, 0, 0], torch.nan)
    old, new = (part / half for part in (before.future[:, :, n_action_steps:], plans.future[:, :, :steps]))
    energy = 2 * _apart(old, new) - _apart(old, old) - _apart(new, new)
    return torch.where(plans.start - before.start == n_action_steps, energy.clamp_min(0), torch.nan)


class Monitor:
    """Follows B lanes of one agent; `ring` at each replanning says where the alarm has rung.

    Args:
        planner: the policy that is watched.
        lanes: B.
        n_action_steps: E, actions executed of each plan.
        candidates: N plans looked at, at least 2.
        alarm: turns the signals into a score and rings; None: signals are only kept.
    """

    def __init__(
        self, planner: Planner, *, lanes: int, n_action_steps: int, candidates: int, alarm: Alarm | None = None
    ):
        if candidates < 2:
            raise ValueError(f"a watch compares plans with each other: at least 2 candidates, got {candidates}")
        self.candidates, self.n_action_steps, self.alarm = candidates, n_action_steps, alarm
        self._half = half_range(planner)
        recalls = bool(planner.window.recall) and not past_is_given(planner)
        self._critic = PartlyRecallConfig().beside(planner) if recalls else None
        if self._critic:
            self._critic.window = dataclasses.replace(self._critic.window, observe=planner.window.observe)
        self._before: Plans | None = None
        self._seen: list[list[np.ndarray]] = [[] for _ in range(lanes)]  # by lane, (S,) at each replanning
        self._score: list[list[float]] = [[] for _ in range(lanes)]
        self._rang = np.full(lanes, -1, np.int64)

    def reset(self, mask: np.ndarray) -> None:
        """New episodes in the lanes of `mask` (B,) bool."""
        for lane in np.flatnonzero(mask):
            self._seen[lane], self._score[lane] = [], []
            self._rang[lane] = -1
        if np.all(mask):
            self._before = None

    def update_alarm(self, past: Past, plans: Plans) -> np.ndarray:
        """Look at the plans of a replanning -> (B,) bool: whether the alarm has rung in this episode, now or before.

        Call once a replanning with all lanes. Without an alarm nothing ever rings.
        """
        now, signals = past.now.cpu().numpy(), self.signals(past, plans)
        self._before = plans
        for lane, seen in enumerate(self._seen):
            seen.append(signals[lane])
            if self.alarm is not None:
                held = self._score[lane]
                held.append(self.alarm.after(held[-1] if held else 0.0, len(held), signals[lane]))
                if self._rang[lane] < 0 and held[-1] > self.alarm.threshold:
                    self._rang[lane] = now[lane]
        return self.raised

    @property
    def raised(self) -> np.ndarray:
        """(B,) bool, whether the alarm has rung in the running episode. Whoever moves an arm reads it at each plan."""
        return self._rang >= 0

    @torch.no_grad()
    def signals(self, past: Past, plans: Plans) -> np.ndarray:
        """(B, S) float64, in the order of `alarm.SIGNALS`; NaN where a signal cannot tell."""
        half, nothing = self._half.to(plans.future.device), torch.full(plans.start.shape, torch.nan)
        values = {
            "recall": recall_error(past, plans, self._critic) if self._critic else nothing,
            "spread": spread(plans, self.n_action_steps, half),
            "drift": nothing if self._before is None else drift(self._before, plans, self.n_action_steps, half),
        }
        return np.stack([values[name].cpu().double().numpy() for name in SIGNALS], 1)

    def told(self, lane: int) -> dict:
        """Columns of an episode's row: signals at each replanning (None: cannot tell); score and ring with an alarm."""
        seen = np.asarray(self._seen[lane], np.float64).reshape(-1, len(SIGNALS))
        row = {f"signal_{name}": [_plain(value) for value in seen[:, i]] for i, name in enumerate(SIGNALS)}
        if self.alarm is None:
            return row
        return row | {"alarm": int(self._rang[lane]), "score": [_plain(value) for value in self._score[lane]]}


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """(B,) mean over all pairs of the root mean square distance of (B, N, T, D) plans."""
    flat, across = one.flatten(2), other.flatten(2)
    far = torch.cdist(flat, across, compute_mode="donot_use_mm_for_euclid_dist")
    return far.mean((1, 2)) / flat.shape[2] ** 0.5


def _plain(value: float) -> float | None:
    """As a column of float32 will hold it."""
    return float(np.float32(value)) if np.isfinite(value) else None
