"""What a dream says of itself while it runs: signs that a film is going wrong, of which a promise may make use.

Each is a number of a frame that the judge looks at, averaged over the film; none knows the truth:

    round_trip  how far the frame is from itself after encoding and decoding: what the codec never saw comes out else
    apart       how far the latents are from those of a twin film, told the same actions, with noise of its own
    drawn       how far the frame is from a drawing of the states that are read from it, where the true world draws
    inverse     how far the actions that lie between two frames, as read from them, are from those that were told
    unreal      how little the judge believes that the film can be true, where least (1 - `least_real`)
    arm         of a robot that is drawn: how far the frame, before it is laid over it, is from it at its outline
    margin      logit of the greatest probability of success, less that of the threshold; where rules judge, of the
                greatest progress, less that of 1

The first two are of MMBench2 (arXiv 2606.27326), there with a denoiser's own noise. What they are worth on a task is
decided by `understudy calibrate` (`eval/world_model/promise.py`), which takes those that foretell the truth of other
trainings better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..configs.protocols import keeps
from .blocks import as_floats, unit_norm
from .data import joint
from .film_model import Memory

if TYPE_CHECKING:
    from .codec import Reading
    from .film_model import FilmModel

TWIN = 0.1  # disturbance of the latents that a twin film begins with
CERTAIN = 1e-4  # probabilities nearer to 0 or 1 are taken for this far away


@runtime_checkable
class Draws(Protocol):
    """A lane that draws what it would look like in a state; it need not be reset, and what it simulates is lost."""

    def draw(self, states: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray] | None:
        """State vectors by key -> a picture (h, w, 3) uint8 of each camera; None where these do not say enough."""
        ...


@runtime_checkable
class Scores(Protocol):
    """A lane whose rules say how well its task is done in a state; see `Draws` for what becomes of the lane."""

    def score(self, states: Mapping[str, np.ndarray]) -> tuple[bool, float] | None:
        """State vectors by key -> success and progress (0..1); None where these do not say enough."""
        ...


@dataclass
class Signs:
    """Of one film so far."""

    twin: Memory  # of one film, B = 1
    sums: dict[str, list[float]] = field(default_factory=dict)
    surest: float = 0.0  # greatest probability of success, or progress by rules, where the film can be true

    def add(self, name: str, value: float) -> None:
        """One more frame."""
        self.sums.setdefault(name, []).append(value)

    def means(self, success_at: float) -> dict[str, float]:
        """Name -> its mean over the frames; those that could not be told are left out."""
        out = {name: round(float(np.mean(values)), 6) for name, values in self.sums.items()}
        return out | {"margin": round(logit(self.surest) - logit(success_at), 4)}


class Teller:
    """Tells the signs of frames.

    Args:
        lane: of the true world, if first frames come from one; it is asked to draw if it can.
    """

    def __init__(self, model: FilmModel, lane: Any = None):
        self.model = model
        self.lane = lane if lane is not None and keeps(lane, Draws) else None

    def twin(self, memory: Memory, seed: int) -> Memory:
        """What the twin of a film remembers at its beginning."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(memory.now.shape, generator=generator).to(memory.now)
        now = unit_norm(memory.now + TWIN * noise)
        return Memory(now, now, memory.pose, memory.behind)

    def frames(self, pictures: Tensor, reading: Reading, live: int) -> dict[str, np.ndarray]:
        """`round_trip` and `drawn` of the first `live` of frames (M, cameras, h, w, 3) uint8."""
        out = {"round_trip": self.model.strange(pictures).cpu().numpy()}
        pictures = pictures[:live]
        if self.lane is None:
            return out
        states = {key: value.cpu().numpy() for key, value in reading.states.items()}
        drawn = [self.lane.draw({key: value[row] for key, value in states.items()}) for row in range(len(pictures))]
        seen = [one for one in drawn if one is not None]
        if len(seen) < len(drawn):
            return out
        eyes = self.model.config.eyes
        true = torch.stack([joint(one, eyes.cameras, eyes.size) for one in seen]).to(pictures.device)
        return out | {"drawn": self.model.sight.off(as_floats(pictures), as_floats(true)).cpu().numpy()}

    def inverse(self, now: Reading, before: Reading, actions: Tensor) -> np.ndarray | None:
        """(M,) error of the actions (M, gap, D), scaled, as read from two frames; None of an older model."""
        if self.model.sight.inverse is None:
            return None
        return self.model.sight.inverse.error(now.features, before.features, actions.flatten(1)).cpu().numpy()


def logit(probability: float) -> float:
    """Of a probability that is certain at most so far."""
    p = min(max(probability, CERTAIN), 1 - CERTAIN)
    return float(np.log(p / (1 - p)))
