"""The action predictability ratio: how well the action before foretells the next one, in rollouts as in demonstrations.

A small network learns a[t-1] -> a[t] on trajectories of an expert, another one on trajectories of a policy; both are
judged on trajectories held out from them. Ratio = mean squared error on the expert's / on the policy's. Above 1 the
policy repeats itself more than its teacher did; far below 1 its actions have lost their dependence on each other, as
where policies ignore the past. From PTP (arXiv 2505.09561), whose probe this is: one hidden layer of 64 ReLU units,
Adam 1e-3, batches of 256, 20 epochs, learning rate reduced on a plateau, trajectories split 90/10.

Ours, where the source is silent: ten folds, so that every trajectory is held out once, the whole with three seeds; the
plateau is one of the training loss (torch's defaults), so that nothing held out is looked at; both probes make the same
number of updates, as many as 20 epochs of the larger set take, since failures last longer than demonstrations and a
probe that was trained for longer errs less. All folds and seeds are trained at once as one batched network.
Knows nothing of worlds and policies: actions are (T, D) arrays in the scaled action space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics.intervals import Interval
from ..statistics.seeds import t_interval


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How next actions are foretold. The first six are the published values."""

    width: int = 64
    rate: float = 1e-3  # of Adam
    batch: int = 256  # pairs an update
    epochs: int = 20
    factor: float = 0.1  # of the learning rate, on a plateau of `patience` epochs
    patience: int = 10
    folds: int = 10  # of fewer trajectories each is a fold
    repeats: int = 3  # seeds of folds, weights and batches
    seed: int = 0

    def batches(self, *sets: Sequence[np.ndarray]) -> int:
        """Updates an epoch that the largest of several sets of trajectories takes."""
        counts = [[max(len(trajectory) - 1, 0) for trajectory in trajectories] for trajectories in sets]
        pairs = max(map(sum, counts))
        return max(1, round(pairs * (self.folds - 1) / self.folds / self.batch))


@dataclass(frozen=True)
class Errors:
    """What remained unforeseen of M trajectories: one array each of T - 1 squared errors, of actions 1 .. T - 1.

    Means over action dimensions and over repeats; 1 is half of the action range.
    """

    steps: tuple[np.ndarray, ...]

    @property
    def sums(self) -> np.ndarray:
        """(M,) float64."""
        return np.array([errors.sum() for errors in self.steps])

    @property
    def counts(self) -> np.ndarray:
        """(M,) float64."""
        return np.array([float(len(errors)) for errors in self.steps])

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    def inside(self, n_action_steps: int) -> Errors:
        """Without the first action of every chunk of `n_action_steps` actions, where one chunk meets the next."""
        meets = [(1 + np.arange(len(errors))) % n_action_steps == 0 for errors in self.steps]
        return Errors(tuple(errors[~at] for errors, at in zip(self.steps, meets, strict=True)))


def held_out_errors(trajectories: Sequence[np.ndarray], probe: Probe, batches: int) -> Errors:
    """Foretell each trajectory by probes that were trained on others.

    Args:
        trajectories: (T, D) each, in the scaled action space; those of fewer than two actions are left out.
        batches: updates an epoch.

    Raises:
        ValueError: fewer than two trajectories, or numbers that are not finite.
    """
    kept = [np.asarray(trajectory, np.float32) for trajectory in trajectories if len(trajectory) > 1]
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} trajectories of two actions or more; a probe is trained on some, judged on others"
        )
    count = min(probe.folds, len(kept))
    if not all(np.isfinite(trajectory).all() for trajectory in kept):
        raise ValueError("an action is not finite; predictability is asked of recorded, executed actions")

    # Pairs of an action and the next one, and the trajectory of each pair.
    before = np.concatenate([trajectory[:-1] for trajectory in kept])
    after = np.concatenate([trajectory[1:] for trajectory in kept])
    owner = np.repeat(np.arange(len(kept)), [len(trajectory) - 1 for trajectory in kept])

    # Each probe is judged on the trajectories of one fold.
    rng = np.random.default_rng(probe.seed)
    folds = np.stack([rng.permutation(len(kept)) % count for _ in range(probe.repeats)])  # (R, M)
    held = np.concatenate([folds == fold for fold in range(count)])[:, owner]  # (folds * R, pairs)
    squared = _train(before, after, held, probe, batches, rng)
    mean = np.where(held, squared, 0).sum(0) / held.sum(0)
    return Errors(tuple(np.split(mean, np.flatnonzero(np.diff(owner)) + 1)))


def ratio(expert: Errors, rollouts: Errors, rng: np.random.Generator, draws: int = 4000) -> Interval:
    """Mean error of the expert's over that of the policy's, with a 95 % bootstrap interval over trajectories."""
    drawn = np.log(_resampled(expert, rng, draws)) - np.log(_resampled(rollouts, rng, draws))
    low, high = np.exp(np.quantile(drawn, (0.025, 0.975)))
    return Interval(float(low), expert.mean / rollouts.mean, float(high))


def pooled(expert: Errors, seeds: Sequence[Errors], rng: np.random.Generator, draws: int = 4000) -> Interval:
    """Geometric mean of the ratios of several training seeds, with a 95 % interval.

    Student's t over the logarithms of the seeds, never narrower than the bootstrap over the trajectories of these
    seeds; of one seed the bootstrap, which speaks for that checkpoint only. The expert's trajectories are drawn once
    for all seeds.
    """
    logs = np.log([expert.mean / rollouts.mean for rollouts in seeds])
    drawn = np.log(_resampled(expert, rng, draws))
    drawn = drawn - np.mean([np.log(_resampled(rollouts, rng, draws)) for rollouts in seeds], 0)
    low, high = np.quantile(drawn, (0.025, 0.975))
    if len(seeds) > 1:
        spread = t_interval(logs)
        low, high = min(low, spread.low), max(high, spread.high)
    return Interval(float(np.exp(low)), float(np.exp(logs.mean())), float(np.exp(high)))


def mean_error(errors: Sequence[Errors], rng: np.random.Generator, draws: int = 4000) -> Interval:
    """Mean squared error of some sets of trajectories together, with a 95 % bootstrap interval over trajectories."""
    joined = Errors(tuple(steps for each in errors for steps in each.steps))
    low, high = np.quantile(_resampled(joined, rng, draws), (0.025, 0.975))
    return Interval(float(low), joined.mean, float(high))


def _resampled(errors: Errors, rng: np.random.Generator, draws: int) -> np.ndarray:
    """(draws,) mean errors of trajectories drawn with replacement."""
    count = len(errors.steps)
    weights = rng.multinomial(count, np.full(count, 1 / count), draws)
    return (weights @ errors.sums) / (weights @ errors.counts)


def _train(before, after, held: np.ndarray, probe: Probe, batches: int, rng: np.random.Generator) -> np.ndarray:
    """(F, pairs) squared errors of F probes, probe f trained where `held[f]` is false."""
    import torch

    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    x, y = torch.from_numpy(before), torch.from_numpy(after)
    weights = _weights(len(held), x.shape[1], probe.width, generator)
    optimizer = torch.optim.Adam(weights, lr=probe.rate)
    plateaus = [_Plateau(probe) for _ in held]
    allowed = [np.flatnonzero(~row) for row in held]

    for _ in range(probe.epochs):
        factor = torch.tensor([plateau.factor for plateau in plateaus])[:, None, None]
        total = torch.zeros(len(held))
        rows = torch.from_numpy(np.stack([_order(trained, batches * probe.batch, rng) for trained in allowed]))

        for chosen in rows.split(probe.batch, 1):
            losses = (_foretell(x[chosen], weights) - y[chosen]).square().mean((1, 2))
            optimizer.zero_grad()
            losses.sum().backward()
            old = [weight.detach().clone() for weight in weights]
            optimizer.step()
            with torch.no_grad():  # the step of Adam is proportional to the learning rate, here each probe's own
                for weight, was in zip(weights, old, strict=True):
                    weight.copy_(was + factor * (weight - was))
            total += losses.detach()

        # Each probe has a rate of its own.
        for plateau, loss in zip(plateaus, total.tolist(), strict=True):
            plateau.see(loss / batches)
    with torch.no_grad():
        return torch.stack([_errors_of(x, y, weights, f) for f in range(len(held))]).numpy().astype(np.float64)


class _Plateau:
    """torch's ReduceLROnPlateau of one probe among many."""

    def __init__(self, probe: Probe):
        import torch

        self.optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau
        self.see = scheduler(self.optimizer, factor=probe.factor, patience=probe.patience).step

    @property
    def factor(self) -> float:
        return self.optimizer.param_groups[0]["lr"]


def _order(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the rows, all of them once before any comes again."""
    rounds = -(-count // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:count]


def _weights(probes: int, dims: int, width: int, generator) -> list:
    """Both layers of all probes, drawn as torch's Linear draws."""
    import torch

    def draw(fan: int, *shape: int):
        bound = fan**-0.5
        drawn = torch.empty(probes, *shape).uniform_(-bound, bound, generator=generator)
        return drawn.requires_grad_()

    return [draw(dims, dims, width), draw(dims, 1, width), draw(width, width, dims), draw(width, 1, dims)]


def _foretell(x, weights):
    """(F, n, D) actions -> the next ones."""
    import torch

    first, first_bias, second, second_bias = weights
    hidden = torch.baddbmm(first_bias, x, first).relu()
    return torch.baddbmm(second_bias, hidden, second)


def _errors_of(x, y, weights, f: int):
    """(pairs,) squared errors of probe f."""
    mine = [weight[f : f + 1] for weight in weights]
    return (_foretell(x[None], mine)[0] - y).square().mean(-1)
