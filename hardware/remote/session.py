"""What a server remembers of one client: the frames that were told, and whose turn it is. Nothing is shared.

Asks become a `Past`, exactly the one that the client's agent holds. What an encoder makes of a picture is made once, in
rows as many as the client has lanes, as an agent on this machine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...configs.spec import IMAGES
from .frames import Frames, Held, forget_before, jpeg_size, open_jpegs, ticks_of
from .messages import Ask
from .wire import WireError

if TYPE_CHECKING:
    from ...policies.policy import Past
    from .desk import Thinker

LANES = 64  # of a client, at most
LARGEST = 4096  # px, a side of a picture
FARTHEST = 2**40  # ticks


class Session:
    """One client's history.

    Args:
        name: which the client has to repeat.
        thinker: whose window and encoders they are.
    """

    def __init__(self, name: str, thinker: Thinker):
        self.name, self.window, self.inputs = name, thinker.window, thinker.inputs
        self.most = thinker.most
        body = thinker.embodiment
        self._dims = len(body.action)
        self._widths = {key: len(names) for key, names in body.offers().items() if not key.startswith(IMAGES)}
        self._device, self._sizes = thinker.device, dict(thinker.sizes)
        self._sight = thinker.sight()
        self._shapes: dict[str, tuple[int, int]] = {}  # of pictures whose size nobody states
        self._held: Held = []
        self._captured: dict[str, float] = {}
        self.number = 0  # of the next ask

    def check_turn(self, ask: Ask) -> None:
        """Refuse an ask of another session, one that was said before, and one that comes too early.

        Raises:
            WireError: which is the case.
        """
        if ask.session != self.name:
            raise WireError("the ask is of another session")
        if ask.number != self.number:
            before = "was said before" if ask.number < self.number else "came out of order"
            raise WireError(f"ask {ask.number} {before}; number {self.number} is next")
        for key, time in ask.captured.items():
            if time < self._captured.get(key, time):
                raise WireError(f"'{key}' was captured before the one of the ask before")
        self.number += 1

    def check(self, ask: Ask) -> None:
        """Refuse an ask that the policy cannot plan for; nothing of it is kept. Raises WireError."""
        lanes = len(ask.now) if ask.now.ndim == 1 else 0
        if not 1 <= lanes <= LANES:
            raise WireError(f"ask.now must hold 1..{LANES} lanes")
        if not 1 <= ask.plans <= self.most:
            one = "; the server's critic chooses among its own" if self.most == 1 else ""
            raise WireError(f"ask.plans must be within 1..{self.most}{one}")
        for name, kind, shape in self._expected(lanes):
            value = getattr(ask, name)
            if value.dtype.str != kind or value.shape != shape:
                raise WireError(f"ask.{name} must be {kind} {list(shape)}, got {value.dtype.str} {list(value.shape)}")
        if not 0 <= ask.now.min() <= ask.now.max() < FARTHEST:
            raise WireError("ask.now must be control steps since an episode began")
        if not np.isfinite(ask.actions).all():
            raise WireError("ask.actions is not finite")
        if ask.frames.keys() != set(self.inputs):
            raise WireError(f"ask.frames must be of {', '.join(self.inputs)}; got {', '.join(ask.frames)[:200]}")
        read = {int(tick) for tick in ticks_of(self.window.observe, ask.now).flat}
        for key, frames in ask.frames.items():
            self._check_frames(key, frames, ask.now, read)

    def _expected(self, lanes: int) -> list[tuple[str, str, tuple[int, ...]]]:
        observed, recalled = len(self.window.observe), len(self.window.recall)
        whole = [(name, "<i8", (lanes,)) for name in ("starts", "replans", "now")]
        return [
            *whole,
            ("fresh", "|b1", (lanes,)),
            ("actions", "<f4", (lanes, recalled, self._dims)),
            ("obs_valid", "|b1", (lanes, observed)),
            ("action_valid", "|b1", (lanes, recalled)),
        ]

    def _check_frames(self, key: str, frames: Frames, now: np.ndarray, read: set[int]) -> None:
        place, count = f"ask.frames[{key}]", len(frames.lane) if frames.lane.ndim == 1 else -1
        if (frames.values is None) == (frames.jpeg is None):
            raise WireError(f"{place} must hold values or jpeg, one of the two")
        for name, index in (("lane", frames.lane), ("tick", frames.tick)):
            if index.dtype.str != "<i8" or index.shape != (count,):
                raise WireError(f"{place}.{name} must be <i8 of one number a frame")
        if count and not (0 <= frames.lane.min() and frames.lane.max() < len(now)):
            raise WireError(f"{place}.lane names a lane that is not there")
        if count > len(now) * len(self.window.observe):
            raise WireError(f"{place} holds {count} frames, more than the window reads")
        if not read.issuperset(frames.tick.tolist()):
            raise WireError(f"{place}.tick names a frame that the window does not read")
        self._check_values(key, frames, count, place)

    def _check_values(self, key: str, frames: Frames, count: int, place: str) -> None:
        if not key.startswith(IMAGES):
            shape = (count, self._widths.get(key, 0))
            if frames.values is None or frames.values.dtype.str != "<f4" or frames.values.shape != shape:
                raise WireError(f"{place} must be <f4 {list(shape)}")
            if not np.isfinite(frames.values).all():
                raise WireError(f"{place} is not finite")
            return
        size = self._sizes.get(key)
        if frames.jpeg is not None:
            if len(frames.jpeg) != count:
                raise WireError(f"{place} must hold one JPEG a frame")
            return
        assert frames.values is not None
        sizes = size or self._shapes.get(key) or frames.values.shape[1:3]
        shape = (count, *sizes, 3)
        if frames.values.dtype.str != "|u1" or frames.values.shape != shape:
            raise WireError(f"{place} must be |u1 {list(shape)}")
        if count:
            self._shapes[key] = (sizes[0], sizes[1])

    def past(self, ask: Ask) -> Past:
        """What the client's lanes have seen and done. Raises WireError: a frame that was never told, a bad JPEG."""
        import torch

        from ...policies.policy import Past

        opened = {key: self._opened(key, frames) for key, frames in ask.frames.items()}  # may refuse: nothing kept yet
        lanes = len(ask.now)
        if len(self._held) != lanes:
            if not ask.fresh.all():
                raise WireError(f"{len(self._held)} lanes were told of, {lanes} go on")
            self._held = [{} for _ in range(lanes)]
        for lane in np.flatnonzero(ask.fresh):
            self._held[lane] = {}
        for key, frames in ask.frames.items():
            self._keep(key, frames, opened[key])
        ticks = ticks_of(self.window.observe, ask.now)
        obs = {key: torch.from_numpy(self._gather(key, ticks)).to(self._device) for key in self.inputs}
        forget_before(self._held, ask.now, self.window.reach)
        self._captured.update(ask.captured)

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values.copy()).to(self._device)

        return Past(
            obs=obs,
            obs_times=self.window.observe,
            obs_valid=tensor(ask.obs_valid),
            actions=tensor(ask.actions),
            action_times=self.window.recall,
            action_valid=tensor(ask.action_valid),
            now=tensor(ask.now),
        )

    def _opened(self, key: str, frames: Frames) -> np.ndarray:
        if frames.jpeg is None:
            assert frames.values is not None
            return frames.values
        if not frames.jpeg:
            return np.zeros((0, 1, 1, 3), np.uint8)
        size = self._sizes.get(key) or self._shapes.get(key) or jpeg_size(frames.jpeg[0])
        if size is None or max(size) > LARGEST:
            raise WireError(f"'{key}' holds no JPEG, or one of more than {LARGEST} px")
        self._shapes[key] = size
        return open_jpegs(frames.jpeg, size, f"'{key}'")

    def _keep(self, key: str, frames: Frames, values: np.ndarray) -> None:
        """Remember frames; pictures as their encoder sees them, a row a lane at a time."""
        lanes = len(self._held)
        waiting: list[list[int]] = [[] for _ in range(lanes)]
        for place, lane in enumerate(frames.lane.tolist()):
            waiting[lane].append(place)
        for turn in range(max(map(len, waiting), default=0)):
            rows = [places[turn] if turn < len(places) else -1 for places in waiting]
            batch = values[rows[0]][None]  # as it came: what is planned from is copied once, where it is gathered
            if lanes > 1:
                batch = np.zeros((lanes, *values.shape[1:]), values.dtype)
                for lane, place in enumerate(rows):
                    if place >= 0:
                        batch[lane] = values[place]
            seen = self._sight(key, batch)
            for lane, place in enumerate(rows):
                if place >= 0:
                    self._held[lane].setdefault(key, {})[int(frames.tick[place])] = seen[lane]

    def _gather(self, key: str, ticks: np.ndarray) -> np.ndarray:
        """(B, O, ...) of what is held."""
        for lane, row in enumerate(ticks.tolist()):
            missing = [tick for tick in row if tick not in self._held[lane].get(key, {})]
            if missing:
                raise WireError(f"'{key}' of lane {lane} at control step {missing[0]} was never told")
        found = [self._held[lane][key][tick] for lane, row in enumerate(ticks.tolist()) for tick in row]
        return np.stack(found).reshape(*ticks.shape, *found[0].shape)
