"""ResNet-18 (He et al. 2016) from scratch as Diffusion Policy reads pictures with it: group norm and spatial softmax.

Batch norm becomes group norm of 16 channels a group, since averaged weights and batch statistics do not go together
(Chi et al. 2023, section 3.3); the average pool becomes a spatial softmax. `width` and `blocks` make smaller ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import IMAGENET, Encoder, EncoderConfig, EncoderError, Neck, map_size, normalise

GROUP = 16  # channels normalised together


@EncoderConfig.register_subclass("resnet18")
@dataclass(frozen=True, kw_only=True)
class ResNetConfig(EncoderConfig):
    """ResNet-18 with group norm and spatial softmax, trained from scratch."""

    width: int = 64  # channels of the first stage, a multiple of 16; each further stage doubles them
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # residual blocks of each stage; every stage but the first halves the map
    keypoints: int = 32  # channels whose places are read; 0: the average of each channel instead

    def __post_init__(self):
        if self.width < GROUP or self.width % GROUP:
            raise EncoderError(f"width must be a multiple of {GROUP}, got {self.width}")
        if not self.blocks or min(self.blocks) < 1 or self.keypoints < 0 or self.features < 1:
            raise EncoderError("a ResNet needs stages of at least one block, keypoints of 0 or more, and features")

    def build(self, size: tuple[int, int]) -> ResNet:
        return ResNet(self, size)


class ResNet(Encoder):
    """See `encoder.Encoder`."""

    def __init__(self, config: ResNetConfig, size: tuple[int, int]):
        super().__init__()
        widths = [config.width * 2**stage for stage in range(len(config.blocks))]
        layers: list[nn.Module] = [
            nn.Conv2d(3, config.width, 7, 2, 3, bias=False),
            _norm(config.width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        inputs = config.width
        for stage, (width, blocks) in enumerate(zip(widths, config.blocks, strict=True)):
            for block in range(blocks):
                layers.append(_Block(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.body = nn.Sequential(*layers)
        self.neck = Neck(inputs, map_size(self.body, size)[1:], config.keypoints, config.features)
        self.features = self.embedding = config.features
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def embed(self, pictures: Tensor) -> Tensor:
        return self.neck(self.body(normalise(pictures, self.mean, self.std)))

    def project(self, embedded: Tensor) -> Tensor:
        return embedded


class _Block(nn.Module):
    """Two convolutions with group norm, added to their (projected) input."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_first, self.norm_second = _norm(outputs), _norm(outputs)
        same = stride == 1 and inputs == outputs
        shorter = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs))
        self.shortcut = nn.Identity() if same else shorter

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm_first(self.first(x)))
        return F.relu(self.norm_second(self.second(h)) + self.shortcut(x))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)
