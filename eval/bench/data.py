"""A made-up dataset of the size of the PushT demonstrations, for benches on a machine without recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...configs.episode import Episode
from ...configs.spec import SCENE, STATE, Embodiment
from ...policies.data.writer import DatasetWriter

EPISODES, FRAMES = 180, 22_200  # in all; episodes differ in length


def write_dataset(root: Path, episodes: int = EPISODES, frames: int = FRAMES, seed: int = 0) -> Path:
    """Random walks in [0, 512] px, 10 Hz: state 2-D, scene 16-D, action 2-D. Returns `root`, a LeRobotDataset v3.0."""
    rng = np.random.default_rng(seed)
    borders = np.sort(rng.choice(np.arange(1, frames // 20), episodes - 1, replace=False)) * 20
    lengths = np.diff(borders, prepend=0, append=frames)
    writer = DatasetWriter(root, embodiment())
    for start, length in enumerate(lengths):
        writer.add(_episode(start, int(length), rng))
    return root


def embodiment() -> Embodiment:
    """A body of PushT's dimensions."""
    action, scene = ("x", "y"), tuple(f"keypoint{i}" for i in range(16))
    return Embodiment(
        name="made-up",
        action=action,
        action_units=("px",) * 2,
        limits=((0.0, 512.0),) * 2,
        rate=10.0,
        state=action,
        state_units=("px",) * 2,
        scene=scene,
        scene_units=("px",) * 16,
    )


def _episode(start: int, length: int, rng: np.random.Generator) -> Episode:
    walk = rng.uniform(100, 400, 18) + np.cumsum(rng.normal(0, 3, (length, 18)), 0)
    walk = np.clip(walk, 0, 512).astype(np.float32)
    action = walk[:, :2]
    return Episode(
        start=start,
        task="made up",
        obs={STATE: walk[:, :2], SCENE: walk[:, 2:]},
        action=action,
        sent=action,
        reward=np.zeros(length, np.float32),
        progress=np.zeros(length, np.float32),
        success=np.zeros(length, bool),
        terminated=False,
        truncated=True,
    )
