"""What a picture encoder is told and answers, and the registry of its settings. A new encoder is one file.

An encoder has two parts. `embed` turns a picture into an embedding, `project` an embedding into the features that the
policy reads. Where the encoder is frozen, `embed` holds all that is frozen and `project` all that is trained, so that
embeddings can be kept (`policies/data/embeddings.py`); otherwise `embed` is all of it. Nothing here knows of windows,
cropping or augmentation (`eyes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import draccus
import torch
from torch import Tensor, nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of its pictures' channels


class Encoder(nn.Module):
    """Reads pictures of one size."""

    features: int  # F, numbers that the policy reads of a picture
    embedding: int  # E, numbers that `embed` gives
    mean: Tensor  # (3,) of the pictures' channels
    std: Tensor  # (3,)

    def embed(self, pictures: Tensor) -> Tensor:
        """(M, 3, h, w) float in [0, 1] -> (M, E)."""
        raise NotImplementedError

    def project(self, embedded: Tensor) -> Tensor:
        """(M, E) -> (M, F)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(draccus.ChoiceRegistry):
    """Settings of a picture encoder; `type` in YAML picks the registered subclass."""

    features: int = 64  # numbers that the policy reads of a picture

    def build(self, size: tuple[int, int]) -> Encoder:
        """An encoder of pictures of `size` (height, width), with weights drawn from torch's global generator."""
        raise NotImplementedError

    def pretrained(self, encoder: Encoder) -> str | None:
        """Load the weights that the settings name into a new encoder, once, before training.

        Returns:
            what was loaded, in words; None where training begins from scratch.
        Raises:
            EncoderError: they are not here, or are of another architecture.
        """
        return None

    @property
    def frozen(self) -> bool:
        """Whether what `embed` does never changes in training."""
        return False


class EncoderError(ValueError):
    """An encoder that cannot be built or filled; the message says what to do."""


class SpatialSoftmax(nn.Module):
    """Where each channel of a map lies: (M, C, h, w) -> (M, 2 C) expected places, x then y, in [-1, 1].

    Finn et al. 2016 (arXiv 1509.06113).
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        y, x = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in size)
        places = torch.stack([x[None].expand(size), y[:, None].expand(size)]).flatten(1)
        self.register_buffer("places", places, persistent=False)  # (2, h * w)

    def forward(self, maps: Tensor) -> Tensor:
        weights = maps.flatten(2).softmax(-1)
        return torch.einsum("mcp,dp->mdc", weights, self.places).flatten(1)


class Neck(nn.Module):
    """A map of features -> F numbers: the places of `keypoints` learnt channels, or averages where there are none."""

    def __init__(self, channels: int, size: tuple[int, int], keypoints: int, features: int):
        super().__init__()
        self.shape = channels, *size
        self.narrow = nn.Conv2d(channels, keypoints, 1) if keypoints else None
        self.places = SpatialSoftmax(size) if keypoints else None
        self.leave = nn.Linear(2 * keypoints if keypoints else channels, features)

    def forward(self, maps: Tensor) -> Tensor:
        """(M, C, h, w), or flat (M, C * h * w), -> (M, F)."""
        maps = maps.view(-1, *self.shape)
        if self.narrow is None or self.places is None:
            return self.leave(maps.mean((2, 3)))
        return self.leave(self.places(self.narrow(maps)))


class NeckedEncoder(Encoder):
    """A body makes a map of a picture, a neck reads it. Of a frozen body it is the map that `embed` gives."""

    config: EncoderConfig
    neck: Neck

    def body(self, pictures: Tensor) -> Tensor:
        """(M, 3, h, w) in [0, 1] -> map (M, C, h', w')."""
        raise NotImplementedError

    def embed(self, pictures: Tensor) -> Tensor:
        if not self.config.frozen:
            return self.neck(self.body(pictures))
        with torch.no_grad():
            return self.body(pictures).flatten(1)

    def project(self, embedded: Tensor) -> Tensor:
        return self.neck(embedded) if self.config.frozen else embedded


def normalise(pictures: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pictures (M, 3, h, w) in [0, 1] -> of about unit variance, by each channel's mean and deviation (3,)."""
    return (pictures - mean[:, None, None]) / std[:, None, None]


def map_size(network: nn.Module, size: tuple[int, int]) -> tuple[int, int, int]:
    """(channels, height, width) of what `network` makes of a picture of `size`.

    Raises:
        EncoderError: the picture is too small for the network.
    """
    training = network.training
    try:
        with torch.no_grad():
            shape = network.eval()(torch.zeros(1, 3, *size)).shape[1:]
    except RuntimeError as error:
        raise EncoderError(f"pictures of {size[0]}x{size[1]} are too small for this encoder: {error}") from error
    network.train(training)
    return tuple(shape)
