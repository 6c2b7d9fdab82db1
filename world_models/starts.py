"""First frames of a dream, by env seed: of a world that is opened for them, or of recordings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..configs.spec import IMAGES
from ..configs.world import World
from .data import open_joint
from .film_model import FilmModel
from .gate import DreamError


class Origin(Protocol):
    """Where films begin, see `env.py`."""

    starts: str

    @property
    def truth(self) -> World | None:
        """The world that first frames come from; None where they were recorded."""
        ...


class Starts:
    """First frames by env seed."""

    lane: Any  # of the true world, if they come from one

    def __init__(self, world: Origin, model: FilmModel):
        config = model.config.eyes
        self.world, self.cameras, self.size = world, config.cameras, config.size
        self.lane = None
        if world.truth is not None:
            unknown = [name for name in config.cameras if name not in world.truth.views()]
            if unknown:
                raise DreamError(f"'{world.starts}' has no camera '{unknown[0]}', which the model imagines")
            height, width = config.size
            true = dataclasses.replace(world.truth, cameras=dict.fromkeys(config.cameras, (height, width)))
            model.embodiment.check(true.embodiment())
            self.lane = true.lane()
            return
        dataset = model.config.open(world.starts, None)
        model.embodiment.check(dataset.embodiment)
        self._frames = open_joint(dataset, config.cameras, config.size, range(len(dataset.lengths)))
        self._rows = dict(zip(recorded_seeds(dataset), dataset.starts.tolist(), strict=True))

    def picture(self, seed: int) -> Tensor:
        """(cameras, h, w, 3) uint8, the first frame. Raises DreamError for a start that was not recorded."""
        if self.lane is not None:
            obs, _ = self.lane.reset(seed=seed)
            return torch.from_numpy(np.stack([obs[IMAGES + name] for name in self.cameras]))
        if seed not in self._rows:
            known = sorted(self._rows)
            raise DreamError(
                f"start {seed} was not recorded in {self.world.starts}, which has {len(known)} from {known[0]} to "
                f"{known[-1]}; give --env_seed {known[0]}"
            )
        return torch.from_numpy(self._frames.read(np.array(self._rows[seed])))


def recorded_seeds(dataset) -> list[int]:
    """The env seed of each episode as it was recorded, or its number where none was."""
    import pyarrow.parquet as pq

    from ..policies.data.writer import ENV_SEED

    seeds: dict[int, int] = {}
    for file in sorted(Path(dataset.root).glob("meta/episodes/*/*.parquet")):
        table = pq.read_table(file)
        if ENV_SEED in table.column_names:
            seeds |= dict(zip(table["episode_index"].to_pylist(), table[ENV_SEED].to_pylist(), strict=True))
    return [seeds.get(number, number) for number in dataset.episode_ids.tolist()]
