"""First frames of a dream, by env seed: of a world that is opened for them, or of recordings."""

from __future__ import annotations

import atexit
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..configs.spec import IMAGES, STATE
from ..configs.world import World
from .data import joint, open_joint
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
    """First frames by env seed.

    Args:
        judged: keys of state vectors that the true world is to judge; those that it has must be named as in training.
    """

    lane: Any  # of the true world, if they come from one

    def __init__(self, world: Origin, model: FilmModel, judged: Collection[str] = ()):
        config = model.config.eyes
        self.world, self.cameras, self.size = world, config.cameras, config.size
        self.lane, self._drew = None, False
        self._needs = (STATE,) if model.draws else ()
        if world.truth is not None:
            unknown = [name for name in config.cameras if name not in world.truth.views()]
            if unknown:
                raise DreamError(f"'{world.starts}' has no camera '{unknown[0]}', which the model imagines")
            recorded = {name: model.embodiment.cameras.get(name, config.size) for name in config.cameras}
            true = dataclasses.replace(world.truth, cameras=recorded)  # as large as what the model learnt from
            alike = [key for key in judged if key in true.embodiment().offers() and key not in self._needs]
            model.embodiment.check(true.embodiment(), (*self._needs, *alike))
            model.check_starts(world.truth, world.starts)
            self.lane = true.lane()
            return
        dataset = model.config.open(world.starts, None)
        model.embodiment.check(dataset.embodiment, self._needs)
        self._frames = open_joint(dataset, config.cameras, config.size, range(len(dataset.lengths)))
        self._rows = dict(zip(recorded_seeds(dataset), dataset.starts.tolist(), strict=True))
        self._joints = dataset.columns[STATE] if model.draws else None

    def first(self, seed: int) -> tuple[Tensor, Tensor | None]:
        """The first frame (cameras, h, w, 3) uint8, and the joints (1, D) there for a model that draws its robot.

        Raises:
            DreamError: a start that was not recorded.
        """
        if self.lane is not None:
            obs, _ = self.lane.reset(seed=seed)
            if not self._drew:
                self._drew = True
                atexit.register(self.lane.close)  # before GL is gone, for it is registered later
            picture = joint({name: obs[IMAGES + name] for name in self.cameras}, self.cameras, self.size)
            return picture, torch.from_numpy(np.array(obs[STATE], np.float32))[None] if self._needs else None
        if seed not in self._rows:
            known = sorted(self._rows)
            raise DreamError(
                f"start {seed} was not recorded in {self.world.starts}, which has {len(known)} from {known[0]} to "
                f"{known[-1]}; give --env_seed {known[0]}"
            )
        row = self._rows[seed]
        joints = None if self._joints is None else torch.from_numpy(self._joints[row : row + 1])
        return torch.from_numpy(self._frames.read(np.array(row))), joints

    def picture(self, seed: int) -> Tensor:
        """The first frame alone."""
        return self.first(seed)[0]


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
