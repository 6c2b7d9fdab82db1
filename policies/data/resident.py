"""Windows whose data are held on the device that trains, and gathered there: no row of a batch crosses the bus.

Columns and pictures of the chosen episodes are copied once, within a bound; a camera that is beyond it stays on the
disk and is streamed, a batch at a time. What is gathered is what `Windows.gather` gives, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...configs.progress import Progress
from ...configs.spec import ACTION, GOAL, IMAGES
from .windows import LATER, VALID, RowReader, Windows

AT_ONCE = 512  # rows that are copied together
WINDOW = "window"  # key of the windows' positions among what a step is handed


class ResidentWindows:
    """All windows of a `Windows`, on a device.

    Args:
        room: bytes of the device that may be taken; at least the columns are.
    """

    def __init__(self, windows: Windows, device: str | torch.device, room: float):
        self.window, self.device, held = windows.window, torch.device(device), windows.parts
        self._ahead, self._goals = held.ahead, held.goals
        self._members = np.flatnonzero(held.member)  # rows of the dataset that are held
        place = np.full(len(held.member), -1)
        place[self._members] = np.arange(len(self._members))

        # of each window, in places of what is held
        self._now, self._first, self._last = (place[rows] for rows in (held.now, held.first, held.last))
        self._at = {"now": self._now, "first": self._first, "last": self._last, "index": held.now}
        self._at["begins"], self._at["ends"] = (place[rows] for rows in held.acted)
        self._at["episode"] = held.episode
        self._at = {name: self._move(values) for name, values in self._at.items()}
        self._observe, self._actions = (self._move(np.array(o)) for o in (self.window.observe, self.window.actions))

        # columns, then the cameras that still fit
        self._columns = {key: self._move(values[self._members]) for key, values in held.columns.items()}
        self._action = self._move(held.action[self._members])
        self._rows = {name: self._move(values[self._members]) for name, values in held.rows.items()}
        self.bytes = sum(_size(values) for values in (*self._at.values(), *self._columns.values(), self._action))
        self.streamed: dict[str, RowReader] = {}
        for key, reader in held.pictures.items():
            self._take_camera(key, reader, room)
        self._order = (*held.inputs,)

    def _take_camera(self, key: str, reader: RowReader, room: float) -> None:
        """Hold a camera's pictures, or embeddings, where there is room."""
        like = torch.from_numpy(reader.read(self._members[:1]))
        need = like[0].numel() * like.element_size() * len(self._members)
        if self.bytes + need > room:
            self.streamed[key] = reader
            return
        self.bytes += need
        held = torch.empty((len(self._members), *like.shape[1:]), dtype=like.dtype, device=self.device)
        with Progress(f"copying {key} to {self.device}", len(held), "frames") as progress:
            for begin in range(0, len(held), AT_ONCE):
                rows = self._members[begin : begin + AT_ONCE]
                held[begin : begin + len(rows)] = torch.from_numpy(reader.read(rows)).to(self.device)
                progress.update(begin + len(rows))
        self._columns[key] = held

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._now)

    def take(self, indices: Tensor) -> dict[str, Tensor]:
        """What must be brought to the device for the windows at positions (B,): these, and pictures that are not held.

        On the CPU; pictures (B, O, h, w, 3) uint8 under their key, those of later frames too.
        """
        taken, at = {WINDOW: indices}, indices.numpy()
        for key, reader in self.streamed.items():
            for name, now in self._moments(self._now[at], self._last[at]).items():
                shown = np.maximum(now[:, None] + np.array(self.window.observe), self._first[at][:, None])
                taken[name + key] = torch.from_numpy(reader.read(self._members[shown]))
            if key in self._goals:
                taken[GOAL + key] = torch.from_numpy(reader.read(self._members[self._last[at]]))
        return taken

    def gather(self, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`Windows.gather` of what `take` gave and was moved to the device. Waits for nothing that the device does."""
        index = taken[WINDOW]
        now, first, last = (self._at[name][index] for name in ("now", "first", "last"))
        out: dict[str, Tensor] = {}
        for name, moment in self._moments(now, last).items():
            out |= self._observed(taken, name, moment, first[:, None])
        begins, ends = (self._at[name][index] for name in ("begins", "ends"))
        out |= self._acted(now, begins[:, None], ends[:, None])
        out |= {name: self._at[name][index] for name in ("index", "episode")}
        out |= {name: values[now] for name, values in self._rows.items()}
        return out | {GOAL + key: self._goal(taken, key, last) for key in self._goals}

    def __call__(self, indices: Tensor) -> dict[str, Tensor]:
        """The windows at positions (B,), on the device."""
        return self.gather({key: value.to(self.device) for key, value in self.take(indices).items()})

    def _moments(self, now, last) -> dict:
        """Prefix of the keys -> (B,) places of what is now, and of what comes `ahead` steps later."""
        if self._ahead is None:
            return {"": now}
        later = now + self._ahead
        least = np.minimum(later, last) if isinstance(later, np.ndarray) else torch.minimum(later, last)
        return {"": now, LATER: least}

    def _observed(self, taken: Mapping[str, Tensor], name: str, now: Tensor, first: Tensor) -> dict[str, Tensor]:
        seen = now[:, None] + self._observe
        shown = torch.maximum(seen, first)
        out = {}
        for key in self._order:
            out[name + key] = taken[name + key] if key in self.streamed else self._columns[key][shown]
        return out | {name + VALID: shown == seen}

    def _goal(self, taken: Mapping[str, Tensor], key: str, last: Tensor) -> Tensor:
        return taken[GOAL + key] if key in self.streamed else self._columns[key][last]

    def _acted(self, now: Tensor, first: Tensor, last: Tensor) -> dict[str, Tensor]:
        done, recall = now[:, None] + self._actions, len(self.window.recall)
        held = torch.minimum(done, last)
        if recall:
            held = torch.maximum(held, first)
        inside = held == done
        action = self._action[held]
        if recall:
            action[:, :recall] = torch.where(inside[:, :recall, None], action[:, :recall], 0)
        return {ACTION: action, "action.valid": inside}

    def _move(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def account(windows: ResidentWindows) -> str:
    """What is held and what is streamed, in words."""
    cameras = [key for key in windows._order if key.startswith(IMAGES) and key not in windows.streamed]
    held = ", ".join(["columns", *cameras])
    words = f"held on {windows.device}: {held} ({windows.bytes / 1e6:.3g} MB); batches are gathered there"
    if windows.streamed:
        words += f"; streamed, for they do not fit: {', '.join(windows.streamed)} (--resident_gb)"
    return words


def _size(values: Tensor) -> int:
    return values.numel() * values.element_size()
