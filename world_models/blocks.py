"""Convolutional blocks that world models share, fast on a CPU: squares of pixels are folded into channels first.

All maps are (M, C, h, w), kept with the channels last in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLD = 8  # pixels of a picture's side that become one place of a latent
NEAREST = 1e-3  # m in front of a camera, of points that it sees


@dataclass(frozen=True, kw_only=True)
class PictureMap:
    """Which numbers of a vector are places in a picture: x from its left border, y from its upper one; or points in
    space, x, y, z, that a fixed camera of a task of ours sees there, or poses of things that lie on a table."""

    take: tuple[int, ...] = (0, 1)  # dimensions in pairs x, y, x, y, ...; with a task in threes x, y, z, ...
    height: float | None = None  # m, z of points on a plane, with a task; then `take` holds pairs x, y, ...
    points: tuple[tuple[float, float], ...] = ()  # m, of a thing on that plane; `take`: its x, y, cosine, sine, ...
    low: tuple[float, float] = (0.0, 0.0)  # x and y at the left upper corner of what is read, units of the vector
    high: tuple[float, float] = (1.0, 1.0)  # at the right lower corner
    camera: int = 0  # number of the camera among those that are read
    task: str = ""  # a task of ours in whose world frame points are, m: so101-reach
    view: str = ""  # the task's name of that camera; none: as in the data
    projection: tuple[float, ...] = ()  # 3 x 4, row by row, of that camera; filled in

    def __post_init__(self):
        if not self.take or len(self.take) % self.numbers:
            what = {
                2: "pairs of dimensions, x and y",
                3: "threes of dimensions, x, y and z of each point",
                4: "fours of dimensions, x, y, cosine and sine of each thing",
            }[self.numbers]
            raise ValueError(f"`take` holds {what}, got {list(self.take)}")
        if any(low == high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"the picture has no extent from {self.low} to {self.high}")
        if self.view and not self.task:
            raise ValueError(f"a map through the camera '{self.view}' names no `task`, which has it")
        if self.task and (self.low, self.high) != ((0.0, 0.0), (1.0, 1.0)):
            raise ValueError(f"a map through a camera of {self.task} has no use for `low` and `high`; leave them out")
        if self.height is not None and not self.task:
            raise ValueError(f"a map of points {self.height:g} m high names no `task`, in whose world they are")
        if self.points and self.height is None:
            raise ValueError(
                "`points` are of a thing that lies on a plane; say its `height` in the world of the `task`"
            )
        if self.projection and (not self.task or len(self.projection) != 12):
            raise ValueError("`projection` is filled in for a map through the camera of a `task`; leave it out")

    @property
    def numbers(self) -> int:
        """Of a point in space 3, of a thing 4, else 2."""
        if self.points:
            return 4
        return 3 if self.task and self.height is None else 2

    @property
    def count(self) -> int:
        """P, places."""
        return len(self.take) // self.numbers * max(1, len(self.points))

    @property
    def metres(self) -> tuple[int, ...]:
        """Dimensions that are lengths: all but the turns of things."""
        return tuple(at for place, at in enumerate(self.take) if not self.points or place % 4 < 2)

    def check(self, names: Sequence[str], what: str) -> None:
        """Raise ValueError unless the vector has these dimensions."""
        if missing := [place for place in self.take if not 0 <= place < len(names)]:
            raise ValueError(f"{what} has {len(names)} numbers ({', '.join(names)}), no number {missing[0]} for a map")

    def places(self, vector: Tensor) -> Tensor:
        """Vectors (..., D) in units -> places (..., P, 2), -1..1 from border to border of the picture."""
        taken = vector[..., list(self.take)].unflatten(-1, (-1, self.numbers))
        if not self.task:
            low, high = (vector.new_tensor(end) for end in (self.low, self.high))
            return (taken - low) / (high - low) * 2 - 1
        if not self.projection:
            raise ValueError(f"nobody has looked up how the camera of {self.task} sees points; `settle` does")
        if self.points:
            taken = self._on_things(taken).flatten(-3, -2)
        if self.height is not None:
            taken = F.pad(taken, (0, 1), value=self.height)
        matrix = vector.new_tensor(self.projection).unflatten(0, (3, 4))
        seen = taken @ matrix[:, :3].T + matrix[:, 3]
        return seen[..., :2] / seen[..., 2:].clamp(min=NEAREST)

    def _on_things(self, poses: Tensor) -> Tensor:
        """Poses (..., n, 4) x, y, cosine, sine of things -> (..., n, K, 2) m, where their points are."""
        place, turn = poses.split(2, -1)
        x, y = poses.new_tensor(self.points).T
        cosine, sine = (turn / turn.norm(dim=-1, keepdim=True).clamp(min=NEAREST)).split(1, -1)
        return place[..., None, :] + torch.stack([cosine * x - sine * y, sine * x + cosine * y], -1)


def grid(size: tuple[int, int]) -> Tensor:
    """(2, h, w) x and y of the middles of the places of a map, -1..1 from border to border."""
    y, x = ((torch.arange(n) + 0.5) * (2 / n) - 1 for n in size)
    return torch.stack([x[None].expand(size), y[:, None].expand(size)])


class Residual(nn.Module):
    """x + two convolutions of it; a condition (M, K) shifts, scales and gates them."""

    def __init__(self, width: int, condition: int = 0):
        super().__init__()
        self.norm = nn.GroupNorm(1, width, affine=not condition)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.normal_(self.second.weight, std=0.01)
        self.modulate = nn.Linear(condition, 3 * width) if condition else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.norm(x)
        if self.modulate is None:
            return x + self.second(F.silu(self.first(F.silu(hidden))))
        shift, scale, gate = self.modulate(condition)[..., None, None].chunk(3, 1)
        return x + (1 + gate) * self.second(F.silu(self.first(F.silu(hidden * (1 + scale) + shift))))


def unit_norm(latent: Tensor) -> Tensor:
    """A latent (M, C, h, w) whose channels have a root mean square of 1 at every place, float32."""
    return F.normalize(latent.float(), dim=1) * latent.shape[1] ** 0.5


def waves(values: Tensor, octaves: int = 3) -> Tensor:
    """Fourier features of values (..., D) of about -1..1 -> (..., 2 * octaves * D)."""
    scales = 2.0 ** torch.arange(octaves, dtype=values.dtype, device=values.device)
    angles = torch.pi * (scales[:, None] * values[..., None, :]).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def as_floats(pictures: Tensor) -> Tensor:
    """Pictures (M, cameras, h, w, 3) uint8 -> (M, 3 cameras, h, w) in 0..1."""
    return channels_last(pictures.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255)


def as_pictures(floats: Tensor) -> Tensor:
    """The inverse of `as_floats`, rounded."""
    pictures = (floats.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return pictures.unflatten(1, (-1, 3)).permute(0, 1, 3, 4, 2)
