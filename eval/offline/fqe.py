"""Fitted Q-evaluation: what a policy is worth, from logged transitions alone (Le et al. 2019).

    Q = argmin E[(Q(s, a) - (r + discount * mean_j Q_target(s', a'_j)))^2],    a'_j drawn from the policy at s',
    J = mean over first states of mean_j Q(s0, a0_j).

The interval is the bootstrap of Hao et al. 2021: the whole fit repeated on resampled episodes, then Student's t over
the replicates. All replicates are trained at once, as one network with a first dimension; they share batches and differ
in the weights of the episodes and in their first weights. What it does not say: the interval knows of chance in the
data, not of a policy that goes where no data are. Knows nothing of files or policies; see `estimate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.intervals import Interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Logged:
    """M transitions of some episodes, and the J actions that the policy draws at their ends and at I first states."""

    state: np.ndarray  # (M, S) float32, about unit scale
    action: np.ndarray  # (M, A) float32, what was done
    reward: np.ndarray  # (M,)
    discount: np.ndarray  # (M,) of what comes after; 0 where the episode ended for good
    later: np.ndarray  # (M, S)
    later_action: np.ndarray  # (M, J, A)
    episode: np.ndarray  # (M,) int64 in 0..I-1
    first: np.ndarray  # (I, S), of each episode
    first_action: np.ndarray  # (I, J, A)


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How Q is fitted."""

    widths: tuple[int, ...] = (128, 128)  # widths of the hidden layers; none: linear
    steps: int = 3000  # steps of the optimiser (Adam)
    batch: int = 256  # transitions a step; all of them where there are fewer
    rate: float = 1e-3  # learning rate, falling to 0 along a half cosine
    tau: float = 0.02  # part of the way that the target network follows at each step; steps * tau backups in all
    bounded: bool = True  # values lie in 0..1, as of rewards 0/1 that end the episode; learnt by cross-entropy
    replicates: int = 6  # bootstrap fits, at least 2
    seed: int = 0  # seed of weights, batches and resampling

    def __post_init__(self):
        if self.replicates < 2 or self.steps < 1 or self.batch < 1 or not 0 < self.tau <= 1:
            raise ValueError(f"a fit needs 2 replicates, a step, a batch and 0 < tau <= 1, got {self}")


@dataclass(frozen=True)
class Estimate:
    """What a policy is worth, by the fit."""

    value: Interval  # 95 %, over resampled episodes
    replicates: np.ndarray  # (R,) values of the resampled fits
    loss: float  # of the last tenth of the steps; of the fit to all episodes


def evaluate_logged(logged: Logged, fit: FitSettings | None = None) -> Estimate:
    """Fit Q to all episodes and to resampled ones.

    Raises:
        ValueError: no transitions or episodes, or parts that do not fit together.
        FloatingPointError: the fit diverged.
    """
    import torch
    from scipy.stats import t

    fit = fit or FitSettings()
    _check(logged)
    rng = np.random.default_rng(fit.seed)
    episodes = len(logged.first)
    drawn = rng.multinomial(episodes, np.full(episodes, 1 / episodes), fit.replicates)
    weights = torch.from_numpy(np.concatenate([np.ones((1, episodes)), drawn]).astype(np.float32))  # (1 + R, I)
    network, loss = _train(logged, fit, weights, rng)
    with torch.no_grad():
        first = network.value(*_tensors(logged.first, logged.first_action)).mean(-1)  # (1 + R, I)
    values = ((first * weights).sum(1) / weights.sum(1)).double().numpy()
    if not np.isfinite(values).all():
        raise FloatingPointError("the values grew without bound; lower the rate, or take bounded values")
    half = float(t.isf(0.025, fit.replicates - 1) * values[1:].std(ddof=1))
    return Estimate(Interval(values[0] - half, values[0], values[0] + half), values[1:], loss)


class Several:
    """R networks of one shape as one; inputs are shared.

    Args:
        bounded: values are sigmoids.
        generator: of the first weights, apart for each network.
    """

    def __init__(self, count: int, inputs: int, widths: tuple[int, ...], bounded: bool, generator):
        import torch

        sizes = (inputs, *widths, 1)
        self.bounded, self.layers = bounded, []
        for fan, size in zip(sizes[:-1], sizes[1:], strict=True):
            gain = (2 / fan) ** 0.5 if size > 1 else 0.1 * fan**-0.5
            self.layers += [gain * torch.randn(count, fan, size, generator=generator), torch.zeros(count, 1, size)]

    def raw(self, state: Tensor, action: Tensor) -> Tensor:
        """(R, M, J) of states (M, S) with actions (M, J, A), before the sigmoid."""
        import torch

        count, draws = action.shape[:2]
        wide = state[:, None].expand(-1, draws, -1).flatten(0, 1)
        x = torch.cat([wide, action.flatten(0, 1)], 1).expand(len(self.layers[0]), -1, -1)
        for place in range(0, len(self.layers), 2):
            x = torch.baddbmm(self.layers[place + 1], x, self.layers[place])
            x = x.relu() if place + 2 < len(self.layers) else x
        return x[..., 0].unflatten(1, (count, draws))

    def value(self, state: Tensor, action: Tensor) -> Tensor:
        """(R, M, J)."""
        raw = self.raw(state, action)
        return raw.sigmoid() if self.bounded else raw

    def error(self, raw: Tensor, target: Tensor) -> Tensor:
        """Of each output: squared, or cross-entropy where values are bounded; both are least at the mean target."""
        import torch.nn.functional as F

        if self.bounded:
            return F.binary_cross_entropy_with_logits(raw, target.clamp(0, 1), reduction="none")
        return (raw - target).square()


def _train(logged: Logged, fit: FitSettings, weights: Tensor, rng: np.random.Generator) -> tuple[Several, float]:
    """The fitted networks, one for each row of `weights` (R, I), and the first one's loss at the end."""
    import torch

    # As many networks as rows of weights, side by side.
    generator = torch.Generator().manual_seed(fit.seed)
    inputs = logged.state.shape[1] + logged.action.shape[1]
    network, target = (Several(len(weights), inputs, fit.widths, fit.bounded, generator) for _ in range(2))
    target.layers = [layer.clone() for layer in network.layers]
    network.layers = [layer.requires_grad_(True) for layer in network.layers]

    adam = torch.optim.Adam(network.layers, lr=fit.rate)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, fit.steps)

    state, action, later, later_action = _tensors(
        logged.state, logged.action[:, None], logged.later, logged.later_action
    )
    reward, discount = _tensors(logged.reward, logged.discount)
    episode, whole, losses = torch.from_numpy(logged.episode), torch.arange(len(state)), []

    for step in range(fit.steps):
        rows = torch.from_numpy(rng.integers(0, len(state), fit.batch)) if fit.batch < len(state) else whole
        with torch.no_grad():
            after = target.value(later[rows], later_action[rows]).mean(-1)
            bootstrapped = reward[rows] + discount[rows] * after

        error = network.error(network.raw(state[rows], action[rows])[..., 0], bootstrapped)
        each = (error * weights[:, episode[rows]]).mean(1)
        adam.zero_grad()
        each.sum().backward()
        adam.step()
        slower.step()
        with torch.no_grad():
            for held, fresh in zip(target.layers, network.layers, strict=True):
                held.lerp_(fresh, fit.tau)

        if step >= 0.9 * fit.steps:
            losses.append(float(each[0].detach()))
    return network, float(np.mean(losses))


def _tensors(*arrays: np.ndarray) -> list[Tensor]:
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays]


def _check(logged: Logged) -> None:
    count, episodes = len(logged.state), len(logged.first)
    if not count or not episodes:
        raise ValueError(f"nothing to learn from: {count} transitions of {episodes} episodes")
    for name in ("action", "reward", "discount", "later", "later_action", "episode"):
        if len(getattr(logged, name)) != count:
            raise ValueError(f"'{name}' has {len(getattr(logged, name))} rows for {count} transitions")
    if len(logged.first_action) != episodes or logged.episode.max() >= episodes or logged.episode.min() < 0:
        raise ValueError(f"episodes are numbered 0..{episodes - 1}, each with its first state and actions")
