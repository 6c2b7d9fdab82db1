"""What each step of a training is handed: the batch of its windows, on the device that trains.

From data that are held there (`data/resident.py`) a step needs no more than the positions of its windows. What is
read from the disk is streamed: gathered in a thread while the step before is trained on, and copied from pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from ..data.resident import ResidentWindows, account
from ..data.windows import Windows
from ..policy import WindowSet

Source = Callable[[Tensor], dict[str, Tensor]] | ResidentWindows


class Order(Protocol):
    """Which windows make the batch of a step."""

    def indices(self, step: int) -> Tensor:
        """(batch,) int64 positions, a function of the step alone."""
        ...


def source_of(windows: WindowSet, device: str, room: float | None) -> Source:
    """Where batches come from: held on the device as far as `room` (GB) goes, else gathered on the CPU.

    Args:
        room: by default half of what a GPU has free, and nothing on a CPU.
    """
    if room is None:
        room = torch.cuda.mem_get_info(device)[0] / 2e9 if device.startswith("cuda") else 0.0
    if not room > 0 or not isinstance(windows, Windows):
        return windows.gather
    held = ResidentWindows(windows, device, room * 1e9)
    print(account(held))
    return held


class Feed:
    """The batch of each step.

    Args:
        source: (B,) window positions -> batch; or windows that are held on the device.
        order: which windows come when.
        ahead: gather the next step's batch in a thread; by default on a GPU, where something is read from the disk.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        device: torch.device,
        ahead: bool | None = None,
    ):
        self._held = source if isinstance(source, ResidentWindows) else None
        self._read = self._held.take if self._held else source
        self._order, self._device, self._pin = order, device, device.type == "cuda"
        streams = self._held is None or bool(self._held.streamed)
        self._thread = ThreadPoolExecutor(1, "feed") if (self._pin and streams if ahead is None else ahead) else None
        self._coming: tuple[int, Future] | None = None

    def __call__(self, step: int) -> dict[str, Tensor]:
        """The batch of a step, on the device."""
        return self.gather(self.take(step))

    def take(self, step: int) -> dict[str, Tensor]:
        """What a step is handed, on the device: all of its batch, or what `gather` makes it of."""
        taken = self._next(self._thread, step) if self._thread else self._taken(step)
        return {key: value.to(self._device, non_blocking=True) for key, value in taken.items()}

    def gather(self, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch, of what `take` gave. Nothing here leaves the device."""
        return self._held.gather(taken) if self._held else dict(taken)

    def _taken(self, step: int) -> dict[str, Tensor]:
        taken = self._read(self._order.indices(step))
        return {key: value.pin_memory() for key, value in taken.items()} if self._pin else taken

    def _next(self, thread: ThreadPoolExecutor, step: int) -> dict[str, Tensor]:
        """What was gathered for this step while another one ran; begins with the step after it."""
        waiting, self._coming = self._coming, None
        coming = waiting[1] if waiting and waiting[0] == step else thread.submit(self._taken, step)
        taken = coming.result()
        self._coming = step + 1, thread.submit(self._taken, step + 1)
        return taken
