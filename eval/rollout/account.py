"""What a crew did with its time and memory, for the manifest of a run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from .station import Took


@dataclass
class Account:
    """What a crew did with its time, in s; `memory` in MB by worker."""

    workers: int
    why: str = "as asked"  # so many
    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None  # s until the first episode had ended
    busy: float = 0.0  # with blocks, summed over the workers
    sending: float = 0.0
    opening: float = 0.0
    blocks: int = 0
    again: int = 0  # blocks of workers that died
    memory: dict[int, float] = field(default_factory=dict)

    def begin(self) -> None:
        """A run begins now; the workers may be of an earlier one."""
        self.__dict__.update(vars(Account(self.workers, self.why)) | {"memory": self.memory})

    def saw_one(self) -> None:
        if self.first is None:
            self.first = time.perf_counter() - self.begun

    def take(self, worker: int, took: Took) -> None:
        self.busy += took.wall
        self.sending += took.sending
        self.opening += took.opening
        self.memory[worker] = took.memory
        self.blocks += 1

    def told(self) -> dict:
        """For a manifest."""
        idle = max(0.0, (time.perf_counter() - self.begun) * max(1, self.workers) - self.busy)
        numbers = {"first_episode": self.first, "busy": self.busy, "idle": idle, "sending": self.sending}
        numbers |= {"opening_policies": self.opening}
        rounded = {name: None if value is None else round(value, 3) for name, value in numbers.items()}
        counts = {"workers": self.workers, "chosen": self.why, "blocks": self.blocks, "blocks_again": self.again}
        told = [self.memory[key] for key in sorted(self.memory)]
        return counts | rounded | {"memory_mb": [None if math.isnan(value) else round(value) for value in told]}
