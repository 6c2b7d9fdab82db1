"""What is read from a frame alone: places of things, the state vectors of a body, and features for a judge.

The reader sees nothing but pictures. It is trained on true frames and on frames that went through the codec, half and
half, so that it reads imagined ones alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..policies.policy import Scale
from .blocks import PictureMap, Residual, grid

SHARP = 4.0  # of the softmax over a map, that places may be told apart early
WIDTH = 48
BENT = 128  # numbers of a layer that tells states from places


class Reader(nn.Module):
    """Pictures (M, 3 cameras, h, w) in 0..1 -> features and state vectors.

    Args:
        states: key -> (mean, std) of each state vector that is read, units.
        maps: key -> which of its numbers are places in the picture: the first keypoints are told them.
        keypoints: K, channels whose middles are found.
        features: F, numbers for a judge.
        from_places: whether state vectors are told by the keypoints alone, and how surely each is found, and not by
            features of the whole picture, which learn by heart what few demonstrations show together.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        states: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]],
        maps: Mapping[str, PictureMap],
        keypoints: int = 32,
        features: int = 256,
        from_places: bool = False,
    ):
        super().__init__()
        numbers = 3 if from_places else 2  # of a keypoint
        height, width = size[0] // 4, size[1] // 4
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(16 * channels, WIDTH, 3, padding=1), Residual(WIDTH), Residual(WIDTH)
        )
        self.find = nn.Conv2d(WIDTH, keypoints, 1)
        self.around = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4 * WIDTH, 32, 1), nn.SiLU(), nn.Flatten(),
            nn.Linear(32 * (height // 2) * (width // 2), features),
        )  # fmt: skip
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(numbers * keypoints + features, features), nn.SiLU())
        self.keys, self.features, self.maps = tuple(states), features, dict(maps)
        self.widths = [len(mean) for mean, _ in states.values()]
        self.scale = Scale(*(sum((pair[i] for pair in states.values()), ()) for i in (0, 1))) if states else None
        self.near = nn.Linear(numbers * keypoints, sum(self.widths))  # places are nearly the answer
        self.far: nn.Module = nn.Linear(features, sum(self.widths))
        self.from_places = from_places
        if from_places:
            self.far = nn.Sequential(
                nn.Linear(numbers * keypoints, BENT), nn.SiLU(), nn.Linear(BENT, BENT), nn.SiLU(),
                nn.Linear(BENT, sum(self.widths)),
            )  # fmt: skip
        self.register_buffer("places", grid((height, width)).flatten(1), persistent=False)
        told = sum(one.count for one in self.maps.values())
        if told > keypoints:
            raise ValueError(f"{told} places are told to {keypoints} keypoints; give the reader more `keypoints`")

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (M, K, 2) in -1..1, or (M, K, 3) with how surely each is found, 0..1; and features (M, F)."""
        hidden = self.trunk(pictures * 2 - 1)
        weights = (SHARP * self.find(hidden).float()).flatten(2).softmax(-1)
        points = torch.einsum("mkp,dp->mkd", weights, self.places)
        if self.from_places:
            points = torch.cat([points, weights.amax(-1, keepdim=True)], -1)
        return points, self.mix(torch.cat([points.flatten(1), self.around(hidden)], 1))

    def states(self, points: Tensor, features: Tensor) -> dict[str, Tensor]:
        """State vectors (M, D) by key, in units, of what `forward` gave."""
        if self.scale is None:
            return {}
        return self._split(self.scale.unscale(self._standardised(points, features)))

    def loss(self, points: Tensor, features: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        """Error of the state vectors (M, D) by key, and of the keypoints that are places among them."""
        if self.scale is None:
            return features.new_zeros(())
        wanted = self.scale.scale(torch.cat([states[key] for key in self.keys], 1))
        error = F.smooth_l1_loss(self._standardised(points, features), wanted, beta=0.05)
        told = [one.places(states[key]) for key, one in self.maps.items()]
        if not told:
            return error
        places = torch.cat(told, 1).clamp(-1, 1)
        return error + F.smooth_l1_loss(points[:, : places.shape[1], :2], places, beta=0.02)

    def _standardised(self, points: Tensor, features: Tensor) -> Tensor:
        told = points.flatten(1)
        return self.near(told).float() + self.far(told if self.from_places else features).float()

    def _split(self, values: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.keys, values.split(self.widths, 1), strict=True))
