"""What imagines films a chunk at a time: what it remembers, what it is asked, and how it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..configs.spec import IMAGES, STATE
from ..policies.policy import Begins, LaneNoise, Past, Scale, Trainable
from .blocks import as_floats
from .codec import Sight
from .world import WorldModel


@dataclass(frozen=True)
class Memory:
    """What the dynamics remembers of B films: latents (B, C, h, w) of now and of one frame before.

    A model that draws its robot (`overlay.py`) remembers more: `pose` (B, P), where the robot is, and, if asked,
    `behind` (B, C, h, w), what each place showed when the robot last left it open.
    """

    now: Tensor
    before: Tensor
    pose: Tensor | None = None
    behind: Tensor | None = None

    def rows(self, chosen: Tensor) -> Memory:
        """Those of some films."""
        return Memory(*(None if part is None else part[chosen] for part in self._parts()))  # type: ignore[arg-type]

    @classmethod
    def joined(cls, memories: Sequence[Memory]) -> Memory:
        """Those of several, one after another."""
        parts = zip(*(one._parts() for one in memories), strict=True)
        return cls(*(None if part[0] is None else torch.cat(part) for part in parts))  # type: ignore[arg-type]

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.now, self.before, self.pose, self.behind


class FilmModel(nn.Module, Trainable, Begins, WorldModel):
    """What imagines films a chunk at a time and has eyes: a codec, a reader and a judge of frames."""

    config: Any  # with `eyes`, settings of the codec
    horizon: int  # H, control steps that are imagined at a time at most
    sight: Sight
    action_scale: Scale

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (M, cameras, h, w, 3) uint8 -> latents (M, C, h, w)."""
        return self.sight.encode(pictures)

    @property
    def draws(self) -> bool:
        """Whether it draws its robot, and is told the joints that films begin with."""
        return False

    def remember(self, pictures: Tensor, before: Tensor | None = None, joints: Tensor | None = None) -> Memory:
        """What is remembered where films begin with pictures (B, cameras, h, w, 3) uint8; None: they stood still.

        Args:
            joints: (B, n, D) rad, of the last n control steps, of a model that draws its robot; others need none.
        """
        now = self.encode(pictures)
        return Memory(now, now if before is None else self.encode(before))

    def poses(self, memory: Memory, actions: Tensor, wanted: Sequence[int]) -> Tensor | None:
        """(B, L, P) of the robot after `wanted` numbers of actions (B, E, D); None where it is not drawn."""
        return None

    def show(self, latents: Tensor, poses: Tensor | None = None) -> Tensor:
        """Latents (M, C, h, w) as pictures (M, cameras, h, w, 3) uint8, the robot drawn over them at poses (M, P)."""
        return self.sight.decode(latents)

    def arm_apart(self, latents: Tensor, poses: Tensor) -> Tensor | None:
        """(M,) how far frames are from the robot drawn over them, see `overlay.Overlay.apart`; None: none is."""
        return None

    def check_starts(self, truth: Any, name: str) -> None:
        """Raise ValueError where first frames of a `World` show another robot, or from elsewhere, than is drawn."""

    def check_begin(self, pictures: Tensor, joints: Tensor | None) -> str:
        """Why a film may not begin with one picture (1, cameras, h, w, 3) and joints (1, n, D); nothing: it may."""
        return ""

    def round_trip(self, pictures: Tensor) -> Tensor:
        """Pictures (M, 3 cameras, h, w) in 0..1 as they come back from latents: the best that can be imagined."""
        return self.sight.codec.decode(self.sight.codec.encode(pictures)).clamp(0, 1)

    def strange(self, pictures: Tensor) -> Tensor:
        """(M,) how badly pictures (M, cameras, h, w, 3) uint8 go through the codec, see `Sight.off`.

        A scene that it never saw comes out as something else.
        """
        true = as_floats(pictures)
        return self.sight.off(self.round_trip(true), true)

    def advance(self, memory: Memory, actions: Tensor, wanted: Sequence[int], noise: Tensor) -> tuple[Tensor, Memory]:
        """Imagine what follows E <= H actions (B, E, D), units.

        Args:
            wanted: numbers of actions after which the latents are wanted, 1..E.
            noise: (B, L or 1, C, h, w) standard normal, of a field; equal for all that is wanted where there is one.

        Returns:
            (latents (B, L, C, h, w) in the order of `wanted`, what is remembered after the last action).
        Raises:
            ValueError: more actions than are imagined at a time, or none.
        """
        raise NotImplementedError

    def check_chunk(self, done: int, wanted: Sequence[int]) -> None:
        """Raise ValueError unless so many actions, and frames after `wanted` of them, are imagined at a time."""
        if not 1 <= done <= self.horizon or not all(1 <= k <= done for k in wanted):
            raise ValueError(f"{done} actions, frames {tuple(wanted)}: this model imagines 1..{self.horizon} at a time")

    @torch.no_grad()
    def imagine(self, past: Past, actions: Tensor, rng: LaneNoise) -> Mapping[str, Tensor]:
        """The pictures of each camera after each of `actions` (B, H, D), units, and the states read from them."""
        keys = [IMAGES + name for name in self.config.eyes.cameras]
        newest = [torch.stack([past.obs[key][:, place] for key in keys], 1) for place in (-1, -2) if _held(past, place)]
        joints = past.obs[STATE][:, -len(newest) :] if self.draws else None  # one control step apart
        memory = self.remember(newest[0], newest[1] if len(newest) > 1 else None, joints)
        films, poses, device = [], [], actions.device
        for chunk in actions.split(self.horizon, 1):
            noise = rng.normal(1, *memory.now.shape[1:]).to(device)
            wanted = range(1, chunk.shape[1] + 1)
            poses.append(self.poses(memory, chunk, wanted))
            latents, memory = self.advance(memory, chunk, wanted, noise)
            films.append(latents)
        latents = torch.cat(films, 1)
        drawn = [one for one in poses if one is not None]
        pictures = self.show(latents.flatten(0, 1), torch.cat(drawn, 1).flatten(0, 1) if drawn else None)
        read = self.sight.read(pictures).states
        seen = {key: pictures[:, place] for place, key in enumerate(keys)} | read
        return {key: value.unflatten(0, latents.shape[:2]) for key, value in seen.items()}


def _held(past: Past, place: int) -> bool:
    """Whether the past holds this frame, counted from the end, one control step before the next one."""
    times = past.obs_times
    return len(times) >= -place and times[place] == times[-1] + place + 1
