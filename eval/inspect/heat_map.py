"""Where a critic would have the arm go: its score of every place in the plane, drawn over the picture of the world.

For embodiments whose action is a place in the picture (PushT: the target x, y in px). Each place is scored as a chunk
that aims at it all the time that the critic reads. The dots are candidates of a policy there, by the last action that
is read. Colours span the scores of one picture, so those of two pictures do not compare.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...policies.data.encode import png
from ..rollout.rollout import rollout
from ..rollout.tried import Noting, past_at

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent
    from ...policies.policy import Critic

CELLS = 48  # places along each axis
PLANS = 30  # of the policy
BLEND = 0.55  # of the colours over the picture
COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


@dataclass(frozen=True)
class HeatMap:
    """One picture with what it shows."""

    picture: np.ndarray  # (h, w, 3) uint8
    caption: str

    @property
    def data(self) -> str:
        """A data URI."""
        return "data:image/png;base64," + base64.b64encode(png(self.picture)).decode()


class Looking(Noting):
    """Keeps the picture of each moment too."""

    def __init__(self, agent: Agent, lanes: Lanes, seed: int):
        super().__init__(agent, lanes, seed)
        self.pictures: dict[int, np.ndarray] = {}

    def keep(self, slot: int, start: int) -> None:
        super().keep(slot, start)
        self.pictures[start] = self.lanes.render([slot])[slot]


def heat_maps(agent: Agent, critic: Critic, lanes: Lanes, starts: Sequence[int], seed: int = 0) -> list[HeatMap]:
    """A map of one moment of each episode, drawn evenly, while `agent` acts.

    Args:
        agent: remembers what `critic` reads.

    Raises:
        ValueError: actions that are no place in the picture.
    """
    body = agent.planner.embodiment
    if body.action_units != ("px", "px"):
        raise ValueError(f"scores are drawn where an action is a place in the picture, in px; '{body.name}' has none")
    looking = Looking(agent, lanes, seed)
    for _ in rollout(looking, lanes, starts):
        pass
    return [_draw(looking, critic, start, seed) for start in starts if start in looking.kept]


def _draw(looking: Looking, critic: Critic, start: int, seed: int) -> HeatMap:
    import torch

    from ...policies.policy import LaneNoise, Plans

    planner, memory = looking.agent.planner, looking.kept[start].memory
    frames = {key: value[None] for key, value in memory.frames.items()}
    past = past_at(frames, memory.actions[None], np.array([memory.now]))
    reads = max(1, critic.reads)
    low, high = np.asarray(planner.embodiment.limits, np.float32).T
    with torch.no_grad():
        plans = planner.plan(past, PLANS, LaneNoise(seed, np.array([start]), np.array([memory.now])))
        places = torch.from_numpy(grid(low, high))[None, :, None].expand(-1, -1, reads, -1)
        recalled = torch.zeros(1, places.shape[1], plans.past.shape[2], 2)
        scores = critic.score(past, Plans(recalled, places, past.now))[0].numpy().reshape(CELLS, CELLS)
        own = critic.score(past, plans)[0].numpy()
    ends = plans.future[0, :, min(reads, plans.future.shape[2]) - 1].numpy()
    picture = paint(looking.pictures[start], scores)
    dots((ends - low) / (high - low), own, picture)
    own_scores = f"candidates {own.min():.3g} to {own.max():.3g}" if len(own) else ""
    caption = f"env seed {start}, step {memory.now}: places {scores.min():.3g} to {scores.max():.3g}, {own_scores}"
    return HeatMap(picture, caption)


def grid(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(CELLS * CELLS, 2) middles of the cells of the plane, rows of equal y."""
    middles = (np.arange(CELLS, dtype=np.float32) + 0.5) / CELLS
    y, x = np.meshgrid(middles, middles, indexing="ij")
    return low + np.stack([x.ravel(), y.ravel()], 1) * (high - low)


def paint(picture: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The picture (h, w, 3) under colours of the scores (CELLS, CELLS), dark for low and bright for high."""
    import cv2

    low, high = np.quantile(scores, (0.02, 0.98))
    part = np.clip((scores - low) / (high - low), 0, 1) if high > low else np.full_like(scores, 0.5)
    wide = cv2.resize(part.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    at = wide * (len(COLOURS) - 1)
    below = np.minimum(at.astype(int), len(COLOURS) - 2)
    colour = COLOURS[below] + (at - below)[..., None] * (COLOURS[below + 1] - COLOURS[below])
    return (BLEND * colour + (1 - BLEND) * picture).round().astype(np.uint8)


def dots(places: np.ndarray, scores: np.ndarray, picture: np.ndarray) -> None:
    """Draw candidates at places (N, 2) in 0..1 into the picture, white, and the one with the highest score red."""
    import cv2

    height, width = picture.shape[:2]
    for n in np.argsort(scores):  # the best last, above the others
        middle = tuple(int(round(part)) for part in (places[n] * (width, height)).tolist())
        best = n == scores.argmax()
        cv2.circle(picture, middle, 5 if best else 3, (0, 0, 0), -1)
        cv2.circle(picture, middle, 4 if best else 2, (224, 45, 35) if best else (255, 255, 255), -1)
