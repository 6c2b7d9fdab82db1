"""Where in a picture a policy looks: each part of what it sees is blurred in turn, and its action chunk compared.

Occlusion maps (Zeiler & Fergus 2014, arXiv 1311.2901) over moments of the policy's own rollouts. A cell of the picture
is blurred in all observed frames alike, so that a movement is hidden and not made; the policy plans again with the same
noise. `change` is the root mean square change of the actions that it would execute, in half ranges of the action. What
this cannot tell: two places of which one is enough each look unimportant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...configs.episode import Episode
from ...configs.lanes.lanes import Lanes
from ...configs.spec import IMAGES
from ..rollout.rollout import rollout
from .heat_map import HeatMap, paint

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent
    from ...policies.policy import Past, Planner

GRID = 12  # cells along the longer side
EDGE = 0.75  # of a cell's side: how far the blur reaches beyond it, half on each side
PLANS = 4  # drawn of each picture with common noise
MOMENTS = 2  # of each episode
BATCH = 32  # pictures at a time
WIDTH = 320  # pixels of a drawn map


@dataclass(frozen=True)
class SightMap:
    """One picture of one camera, and what each part of it decides."""

    camera: str
    start: int  # env seed
    step: int
    picture: np.ndarray  # (h, w, 3) uint8, as the policy reads it
    change: np.ndarray  # (rows, columns) where a cell is blurred
    whole: float  # where all of the picture is

    @property
    def half(self) -> float:
        """The part of the picture that holds half of the squared change, 0..1; 0.5 where all cells weigh alike."""
        weights = np.sort(self.change.ravel() ** 2)[::-1]
        total = weights.sum()
        return float((np.searchsorted(np.cumsum(weights), total / 2) + 1) / len(weights)) if total > 0 else 0.5

    def drawn(self) -> HeatMap:
        """The picture under colours, bright where blurring changes most."""
        import cv2

        height, width = self.picture.shape[:2]
        wide = cv2.resize(self.picture, (WIDTH, round(WIDTH * height / width)), interpolation=cv2.INTER_CUBIC)
        caption = (
            f"{self.camera}, env seed {self.start}, step {self.step}: blurring a part changes the actions by up to "
            f"{self.change.max():.2g}, all of it by {self.whole:.2g}"
        )
        return HeatMap(paint(wide, self.change), caption)


def sight_maps(agent: Agent, lanes: Lanes, starts: Sequence[int], seed: int = 0) -> Iterator[SightMap]:
    """Maps of each camera at some moments of each episode, while the agent acts.

    Raises:
        ValueError: no episode could be acted.
    """
    episodes = [r.episode for r in rollout(agent, lanes, starts, keep=True) if r.episode is not None]
    if not episodes:
        raise ValueError("no episode gave a picture: all of them ended in an error of the world")
    for episode in sorted(episodes, key=lambda one: one.start):
        for moment in np.linspace(0, len(episode), MOMENTS + 2)[1:-1].astype(int).tolist():
            yield from _maps(agent.planner, episode, moment, seed)


def _maps(planner: Planner, episode: Episode, step: int, seed: int) -> Iterator[SightMap]:
    sizes = {key: size for key, size in _sizes(planner).items() if key in planner.inputs}
    past = past_of_episode(planner, episode, step, sizes)
    for key, size in sizes.items():
        frames = past.obs[key][0].numpy()  # (O, h, w, 3)
        blurred = np.stack([_blurred(frame) for frame in frames])
        masks = _masks(size)
        shape = masks.shape[:2]
        ways = [np.zeros(size, np.float32), np.ones(size, np.float32), *masks.reshape(-1, *size)]
        seen = [
            (frames + (blurred - frames.astype(np.float32)) * way[..., None]).round().astype(np.uint8) for way in ways
        ]
        moved = _moved(planner, past, key, np.stack(seen), seed)
        yield SightMap(
            key.removeprefix(IMAGES), episode.start, step, frames[-1], moved[1:].reshape(shape), float(moved[0])
        )


def past_of_episode(planner: Planner, episode: Episode, step: int, sizes: dict[str, tuple[int, int]]) -> Past:
    """What the planner would have seen and done at a step of an episode (T rows); pictures fitted to `sizes`."""
    import torch

    from ...policies.agent.sight import fitted
    from ...policies.policy import Past

    window = planner.window
    times = np.array(window.observe) + step
    obs = {}
    for key in planner.inputs:
        values = episode.obs[key][np.maximum(times, 0)]
        obs[key] = torch.from_numpy(fitted(values, sizes[key]) if key in sizes else values)[None]
    tokens = np.array(window.recall, np.int64) + step
    done = episode.sent[np.maximum(tokens, 0)] * (tokens >= 0)[:, None]
    return Past(
        obs=obs,
        obs_times=window.observe,
        obs_valid=torch.from_numpy(times >= 0)[None],
        actions=torch.from_numpy(done.astype(np.float32))[None],
        action_times=window.recall,
        action_valid=torch.from_numpy(tokens >= 0)[None],
        now=torch.tensor([step]),
    )


def _moved(planner: Planner, past: Past, key: str, seen: np.ndarray, seed: int) -> np.ndarray:
    """(V - 1,) root mean square change of the executed actions between the first of V ways to see and the others."""
    import dataclasses

    import torch

    from ...policies.policy import LaneNoise, executed_of, half_range

    plans = []
    for some in np.split(seen, range(BATCH, len(seen), BATCH)):
        count = len(some)
        obs = {name: value.expand(count, *value.shape[1:]) for name, value in past.obs.items()}
        obs[key] = torch.from_numpy(some)
        names = ("obs_valid", "actions", "action_valid", "now")
        wide = {name: getattr(past, name).expand(count, *getattr(past, name).shape[1:]) for name in names}
        noise = LaneNoise(seed, np.zeros(count, np.int64), np.zeros(count, np.int64))  # the same for all
        with torch.no_grad():
            future = planner.plan(dataclasses.replace(past, obs=obs, **wide), PLANS, noise).future
        plans.append(future[:, :, : executed_of(planner)].cpu() / half_range(planner))
    chunks = torch.cat(plans)
    return (chunks[1:] - chunks[:1]).double().square().mean((1, 2, 3)).sqrt().numpy()


def _masks(size: tuple[int, int]) -> np.ndarray:
    """(rows, columns, h, w) in 0..1: which part of a picture each cell covers, with soft edges."""
    cell = max(size) / GRID
    counts = [max(1, round(length / cell)) for length in size]
    sides = []
    for length, count in zip(size, counts, strict=True):
        side = length / count
        middles, places = (np.arange(count) + 0.5) * side, np.arange(length) + 0.5
        away = np.abs(places[None] - middles[:, None]) - side * (1 - EDGE / 2) / 2
        sides.append(np.clip(1 - away / (side * EDGE / 2), 0, 1).astype(np.float32))
    return sides[0][:, None, :, None] * sides[1][None, :, None, :]


def _blurred(picture: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), max(picture.shape[:2]) / GRID)


def _sizes(planner: Planner) -> dict[str, tuple[int, int]]:
    """Key of each camera -> (height, width) that a planner reads."""
    from ...policies.agent.sight import recorded_by, seers, sizes_of

    read = sizes_of([*seers(planner)])
    return recorded_by([planner], read) | read
