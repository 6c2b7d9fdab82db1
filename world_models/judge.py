"""Success, progress, and whether a film can be true, judged from frames; learned on true frames and on faked ones.

Success and progress are read from one frame. Whether what is seen can have happened is judged from two frames and the
actions between them: negatives are true frames in which a thing has vanished, is there twice or is suddenly elsewhere,
and frames that stand still although the true ones moved. A single frame cannot tell a frozen film, and neither does the
difference of two, which is nothing where nothing happened; so the judge foretells from the earlier frame and the
actions how the features must change, and compares how much has changed with how much should have. Episodes of one in
`RESERVED` teach the judge nothing: on them alone its probabilities are calibrated (Platt scaling), in the same
training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESERVED = 5  # one episode in so many calibrates
FAKES = ("vanished", "duplicated", "teleported", "frozen")
FOREGROUND = 0.1  # difference from the mean picture, of 1, that makes a pixel part of a thing
SEEN = 0.004  # mean difference of two pictures, of 1, below which they are the same
AMOUNTS = ("change", "foretold change", "what was not foretold")
LEAST = 1e-4  # added to mean squares of features


@dataclass(frozen=True)
class Verdict:
    """What the judge says of M frames, each (M,) in 0..1."""

    success: Tensor  # calibrated probability
    progress: Tensor
    real: Tensor  # calibrated probability that the frame can follow from the one before


class Judge(nn.Module):
    """Heads over the reader's features.

    Args:
        features: F, numbers that the reader says of a frame.
        actions: A, numbers that say what was done between two frames.
        foresees: whether the change that should have come is foretold; judges of older checkpoints do not.
    """

    def __init__(self, features: int, actions: int, hidden: int = 128, foresees: bool = False):
        super().__init__()
        told = 4 * features + len(AMOUNTS) if foresees else 3 * features
        self.outcome = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, 2))
        self.follows = nn.Sequential(nn.Linear(told + actions, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        self.foretold = None
        if foresees:
            self.foretold = nn.Sequential(nn.Linear(features + actions, hidden), nn.SiLU(), nn.Linear(hidden, features))
        self.platt = nn.Parameter(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))  # (success, real) x (factor, shift / 10)

    def forward(self, now: Tensor, before: Tensor, actions: Tensor) -> Verdict:
        """Of features (M, F) of a frame and of an earlier one, with the scaled actions (M, A) between them."""
        success, progress = self.outcome(now).float().unbind(1)
        real = self.compare(now, before, actions)
        calibrated = self._calibrated(torch.stack([success, real], 1)).sigmoid()
        return Verdict(calibrated[:, 0], progress.sigmoid(), calibrated[:, 1])

    def compare(self, now: Tensor, before: Tensor, actions: Tensor) -> Tensor:
        """(M,) logit that `now` can follow `before`."""
        change = now - before
        parts = [now, before, change, actions.to(now.dtype)]
        if self.foretold is not None:
            parts += [change.abs(), self.amounts(now, before, actions).to(now.dtype)]
        return self.follows(torch.cat(parts, 1)).float()[:, 0]

    def amounts(self, now: Tensor, before: Tensor, actions: Tensor) -> Tensor:
        """(M, 3) logarithms of `AMOUNTS`, mean squares of features; no gradient reaches what was foretold."""
        change, foretold = (now - before).float(), self.foresee(before, actions).detach().float()
        return torch.stack([(x.square().mean(1) + LEAST).log() for x in (change, foretold, change - foretold)], 1)

    def foresee(self, before: Tensor, actions: Tensor) -> Tensor:
        """(M, F) how the features will change. Raises ValueError for a judge of an older checkpoint."""
        if self.foretold is None:
            raise ValueError("the judge of this world model foretells no change; train its codec anew")
        return self.foretold(torch.cat([before.detach(), actions.to(before.dtype)], 1))

    def error(self, now: Tensor, before: Tensor, actions: Tensor, counted: Tensor) -> Tensor:
        """Of the foretold change on true frames that are `counted` (M,): 1 where nothing was learnt."""
        if self.foretold is None:
            return now.new_zeros(())
        change = (now - before).detach().float()
        off = (self.foresee(before, actions).float() - change).square().mean(1)
        return _mean(off, counted) / (_mean(change.square().mean(1), counted) + LEAST)

    def _calibrated(self, logits: Tensor) -> Tensor:
        return logits * self.platt[:, 0] + 10 * self.platt[:, 1]

    def loss(
        self, now: Tensor, outcome: Tensor, known: Tensor, true: Tensor, fake: Tensor, told: Tensor, reserved: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Error of success, progress and reality, and of their calibration.

        Args:
            now: (M, F) features of frames with `outcome` (M, 2), success and progress, where `known` (M, 2).
            true: (m,) what `compare` says of the first m; `fake` (n m,) of n sets of faked ones, `told` (n m,) which
            count. reserved: (M,) bool, frames that only calibrate.
        """
        said = self.outcome(now).float()
        success, progress = said.unbind(1)
        teach, counts = (~reserved).float(), known.float()

        # rare successes weigh more; calibration undoes it
        positive = outcome[:, 0] > 0.5
        rare = ((~positive).sum() / positive.sum().clamp(min=1)).clamp(1, 20)
        weight = torch.where(positive, rare, torch.ones_like(rare)) * counts[:, 0] * teach
        won = _mean(F.binary_cross_entropy_with_logits(success, outcome[:, 0], reduction="none"), weight)
        done = _mean((progress.sigmoid() - outcome[:, 1]).square(), counts[:, 1] * teach)
        logits, labels = torch.cat([true, fake]), torch.cat([torch.ones_like(true), torch.zeros_like(fake)])
        held = reserved[: len(true)].repeat(len(logits) // len(true))
        counted = torch.cat([torch.ones_like(true), told])
        doubt = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        real = _mean(doubt, counted * (~held).float())

        # what the reserved episodes say of probabilities
        factor, shift = self.platt[:, 0], 10 * self.platt[:, 1]
        fit = F.binary_cross_entropy_with_logits(
            success.detach() * factor[0] + shift[0], outcome[:, 0], reduction="none"
        )
        again = F.binary_cross_entropy_with_logits(logits.detach() * factor[1] + shift[1], labels, reduction="none")
        calibration = _mean(fit, counts[:, 0] * reserved.float()) + _mean(again, counted * held.float())

        right = ((logits > 0).float() == labels).float()
        scalars = {
            "success": float(won.detach()),
            "progress": float(done.detach()),
            "fakes_told": float(_mean(right, counted)),
        }
        return won + 5 * done + real + calibration, scalars


class Inverse(nn.Module):
    """Inverse dynamics: which actions led from one frame to another, by what the reader says of both.

    Trained on true frames alone; where imagined ones do not show what was told, its error tells.
    """

    def __init__(self, features: int, actions: int, hidden: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 * features, hidden), nn.SiLU(), nn.Linear(hidden, actions))

    def error(self, now: Tensor, before: Tensor, actions: Tensor) -> Tensor:
        """(M,) mean square, of features (M, F) and scaled actions (M, A) between; features are not trained by it."""
        told = self.layers(torch.cat([now, before, now - before], 1).detach()).float()
        return (told - actions.float()).square().mean(1)


def fakes(now: Tensor, before: Tensor, mean: Tensor, kind: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Frames (M, C, h, w) in which something happened that cannot be.

    Args:
        now, before: true frames.
        mean: (C, h, w) the mean picture, which stands for the background.
        kind: (M,) place in `FAKES` of what is done; drawn where it is not given.

    Returns:
        (faked frames, (M,) place in `FAKES` of what was done, (M,) float, 1 where it can be seen).
    """
    count, device = len(now), now.device
    kind = torch.randint(len(FAKES), (count,), device=device) if kind is None else kind
    thing = _box(now, mean)
    moved = tuple(int(torch.randint(int(side) // 4, 3 * int(side) // 4 + 1, ())) for side in now.shape[2:])
    elsewhere = torch.roll(thing & foreground(now, mean), moved, (2, 3))
    made = [
        torch.where(thing, mean, now),
        torch.where(elsewhere, torch.roll(now, moved, (2, 3)), now),
        torch.roll(now, 1, 0),
        before,
    ]
    out = torch.stack(made).gather(0, kind[None, :, None, None, None].expand(1, *now.shape))[0]
    return out, kind, ((out - now).abs().mean((1, 2, 3)) > SEEN).float()


def foreground(pictures: Tensor, mean: Tensor) -> Tensor:
    """(M, 1, h, w) bool."""
    return (pictures - mean).abs().amax(1, keepdim=True) > FOREGROUND


def _box(pictures: Tensor, mean: Tensor) -> Tensor:
    """(M, 1, h, w) bool: a square around a random pixel of a thing, a sixth to a half of the picture wide."""
    (count, _, height, width), device = pictures.shape, pictures.device
    weights = foreground(pictures, mean).flatten(1).float() + 1e-6
    y, x = (part[:, None, None] for part in _divmod(torch.multinomial(weights, 1)[:, 0], width))
    half = (torch.rand(count, device=device) / 6 + 1 / 12)[:, None, None] * min(height, width)
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    return (((rows - y).abs() <= half) & ((columns - x).abs() <= half))[:, None]


def _divmod(value: Tensor, by: int) -> tuple[Tensor, Tensor]:
    return value // by, value % by


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
