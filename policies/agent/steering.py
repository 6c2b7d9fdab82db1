"""How one of N candidate plans is chosen by its score: the best, or drawn by a softmax; and what is kept of the scores.

    p_i = exp(z_i / T) / sum_j exp(z_j / T),    z_i = (score_i - mean) / standard deviation, within the lane.

The temperature T is relative to the spread of the lane's scores, so that one number means the same for rewards of 0/1
and of -1/0 (published steering by value, arXiv 2410.13816, divides the raw score). T = 0: the best. T large: any, which
is acting without a critic. Plans that a filter took out (minus infinity) are never chosen. The draw is keyed by (seed,
start, replanning), apart from the plans' own noise: fresh at each step, the same in every run. Two controls: the critic
`random`, and the plans of `UniformPlanner`, which owe nothing to a policy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...configs.rng import rng_of

_STREAM = 7  # of the choice; plans draw from the stream without a further key


def choose(scores: Tensor, temperature: float, draws: Tensor) -> Tensor:
    """(B, N) scores -> (B,) int64 of the chosen ones.

    Args:
        temperature: T, at least 0, in standard deviations of a lane's finite scores.
        draws: (B, N) uniform in (0, 1); the same draws give the same choice.

    Raises:
        FloatingPointError: NaN among the scores, or a lane without a finite one.
    """
    kept = torch.isfinite(scores)
    if scores.isnan().any() or not kept.any(1).all():
        raise FloatingPointError("the critic scored an action chunk NaN, or kept none of an environment's chunks")
    if not temperature:
        return scores.argmax(1)
    noise = -torch.log(-torch.log(draws.double().clamp(1e-12, 1 - 1e-12)))  # Gumbel: its argmax is a softmax draw
    ranked = within_kept(scores.double()) / temperature + noise.to(scores.device)
    return ranked.masked_fill(~kept, float("-inf")).argmax(1)


def within_kept(scores: Tensor) -> Tensor:
    """(B, N) z-scores within a lane over its finite scores, zeros where those are equal; others stay not finite."""
    mean, std = moments(scores)
    centred = torch.where(torch.isfinite(scores), scores - mean[:, None], scores)
    return torch.where((std > 0)[:, None], centred / std.clamp_min(torch.finfo(scores.dtype).tiny)[:, None], 0.0)


def moments(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean and standard deviation of each lane's finite scores."""
    kept = torch.isfinite(scores)
    count, zero = kept.sum(1), torch.zeros_like(scores)
    mean = torch.where(kept, scores, zero).sum(1) / count
    return mean, (torch.where(kept, scores - mean[:, None], zero).square().sum(1) / count).sqrt()


def choice_draws(seed: int, starts: np.ndarray, replans: np.ndarray, n: int) -> Tensor:
    """(B, n) float64 uniform, by lane keyed by (seed, start, replanning); those of the first do not depend on n."""
    keys = zip(np.asarray(starts).tolist(), np.asarray(replans).tolist(), strict=True)
    rows = [rng_of(seed, start, replan, _STREAM).random(n) for start, replan in keys]
    return torch.from_numpy(np.stack(rows))


class ScoreTrace:
    """What the critic said at each replanning of B lanes: the chosen plan's score, mean and spread of all."""

    def __init__(self, lanes: int):
        self._seen: list[list[tuple[float, float, float]]] = [[] for _ in range(lanes)]

    def reset(self, mask: np.ndarray) -> None:
        """New episodes in the lanes of `mask` (B,) bool."""
        for lane in np.flatnonzero(mask):
            self._seen[lane] = []

    def note(self, scores: Tensor, choice: Tensor) -> None:
        """Keep one replanning: `scores` (B, N), `choice` (B,)."""
        picked = scores.gather(1, choice[:, None])[:, 0]
        for seen, row in zip(self._seen, torch.stack([picked, *moments(scores)], 1).tolist(), strict=True):
            seen.append(tuple(row))

    def told(self, lane: int) -> dict:
        """Columns of an episode's row, a value for each replanning."""
        columns = np.asarray(self._seen[lane], np.float32).reshape(-1, 3).T.tolist()
        return dict(zip(("value", "value_mean", "value_spread"), columns, strict=True))
