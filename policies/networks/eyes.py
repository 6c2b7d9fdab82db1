"""Pictures as policies and critics read them: one encoder a camera, uint8 until here, frame by frame.

In training pictures are varied (`augment.py`) and cut at random, in acting the middle is cut. What has been embedded
already (float in place of uint8: frames that an agent remembers, or a cache of a frozen encoder) is not embedded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from ...configs.spec import IMAGES, Embodiment, EmbodimentError, picture_keys
from .augment import Augment, crop_middle, crop_random
from .encoder import Encoder, EncoderConfig
from .resnet import ResNetConfig
from .states import slot


@dataclass(frozen=True, kw_only=True)
class Vision:
    """How pictures are read."""

    encoder: EncoderConfig = field(default_factory=ResNetConfig)  # of each camera, with weights of its own
    size: tuple[int, int] | None = None  # (height, width) that pictures are resized to; none: as recorded
    crop: tuple[int, int] | None = None  # (height, width) cut out: anywhere in training, in the middle when acting
    augment: Augment = Augment()  # how pictures are varied in training
    shared: bool = False  # one encoder for all cameras
    init: str | None = None  # run whose encoders are taken over, with their settings and sizes
    frozen: bool = False  # encoders do not change in training; their embeddings of the data are kept
    looks: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of each camera in training (data/looks.py)

    def __post_init__(self):
        for name in ("size", "crop"):
            value = getattr(self, name)
            if value is not None and min(value) < 1:
                raise ValueError(f"{name} is (height, width) in pixels, got {value}")
        if self.size and self.crop and any(c > s for c, s in zip(self.crop, self.size, strict=True)):
            raise ValueError(f"crop {self.crop} is larger than the pictures, {self.size}")
        if self.frozen and self.init is None and not self.encoder.frozen:
            raise ValueError("an encoder from scratch cannot be frozen: name a run (vision.init) to take it from")


class Eyes(nn.Module):
    """One encoder for each camera that is read."""

    def __init__(self, config: Vision, inputs: tuple[str, ...], embodiment: Embodiment):
        super().__init__()
        self.config, self.keys = config, picture_keys(inputs)
        self.sizes = picture_sizes(config, inputs, embodiment)
        sizes = {key: config.crop or size for key, size in self.sizes.items()}
        for key, size in sizes.items():
            if any(c > s for c, s in zip(size, self.sizes[key], strict=True)):
                raise EmbodimentError(f"crop {size} is larger than the pictures of '{key}', {self.sizes[key]}")
        if config.shared and len(set(sizes.values())) > 1:
            raise EmbodimentError(f"a shared encoder needs pictures of one size, got {sizes}; set vision.size")
        names = [slot(key) for key in self.keys]
        encoders = {names[0]: config.encoder.build(sizes[self.keys[0]])} if config.shared else {}
        for key, name in zip(self.keys, names, strict=True):
            encoders.setdefault(name if not config.shared else names[0], config.encoder.build(sizes[key]))
        self.encoders = nn.ModuleDict(encoders)
        if config.frozen:
            self.encoders.requires_grad_(False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that the policy reads of a frame, of each camera."""
        return tuple(self.encoder(key).features for key in self.keys)

    @property
    def frozen(self) -> bool:
        """Whether embeddings stay what they are in training."""
        return self.config.frozen or self.config.encoder.frozen

    def encoder(self, key: str) -> Encoder:
        """The encoder of a camera's key."""
        return cast(Encoder, self.encoders[slot(self.keys[0] if self.config.shared else key)])

    def read(self, obs: Mapping[str, Tensor]) -> list[Tensor]:
        """Pictures (B, O, h, w, 3) uint8, or embeddings (B, O, E) float, of each camera -> (B, O, F) each."""
        return [self.read_one(key, obs[key]) for key in self.keys]

    def read_one(self, key: str, value: Tensor) -> Tensor:
        """`read`, of one camera."""
        return self._project(key, self._embedded(key, value))

    def embed(self, key: str, pictures: Tensor) -> Tensor:
        """Pictures (M, h, w, 3) uint8 as they are when acting -> (M, E): cut in the middle, not varied.

        Raises:
            EmbodimentError: of another size than the encoder was made for.
        """
        self._check(key, pictures)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            encoder, cut = self.encoder(key), self._middle(_channels_first(pictures))
            return encoder.project(encoder.embed(cut)) if self.config.frozen else encoder.embed(cut)

    def _embedded(self, key: str, value: Tensor) -> Tensor:
        if value.dtype != torch.uint8:
            self._check_embedded(key, value)
            return value
        if not self.training or self.frozen:
            return self.embed(key, value.flatten(0, 1)).unflatten(0, value.shape[:2])
        self._check(key, value)
        pictures = self.config.augment(_channels_first(value))
        pictures = crop_random(pictures, self.config.crop) if self.config.crop else pictures
        # twice as fast in bf16; weights stay as they are, or an optimiser's restored state would be laid out otherwise
        flat = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.encoder(key).embed(flat).unflatten(0, value.shape[:2])

    def _project(self, key: str, embedded: Tensor) -> Tensor:
        if self.config.frozen:
            return embedded
        return self.encoder(key).project(embedded.flatten(0, 1)).unflatten(0, embedded.shape[:2])

    def _check_embedded(self, key: str, value: Tensor) -> None:
        encoder = self.encoder(key)
        width = encoder.features if self.config.frozen else encoder.embedding
        if value.ndim != 3 or value.shape[-1] != width:
            raise EmbodimentError(
                f"'{key}' should be uint8 pictures of {self.sizes[key][0]}x{self.sizes[key][1]} in three colours, or "
                f"what this encoder made of them, {width} numbers a frame; it is {value.dtype} of shape "
                f"{tuple(value.shape[1:])}"
            )

    def _middle(self, pictures: Tensor) -> Tensor:
        return crop_middle(pictures, self.config.crop) if self.config.crop else pictures

    def _check(self, key: str, pictures: Tensor) -> None:
        found, wanted = tuple(pictures.shape[-3:]), (*self.sizes[key], 3)
        if found != wanted or pictures.dtype != torch.uint8:
            raise EmbodimentError(
                f"'{key}' should be uint8 pictures of {wanted[0]}x{wanted[1]} in three colours, as in training, but is "
                f"{pictures.dtype} of shape {found}"
            )


def picture_sizes(config: Vision, inputs: tuple[str, ...], embodiment: Embodiment) -> dict[str, tuple[int, int]]:
    """(height, width) at which each camera's pictures are read.

    Raises:
        EmbodimentError: the body has no such camera.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for key in picture_keys(inputs):
        name = key.removeprefix(IMAGES)
        if name not in embodiment.cameras:
            known = ", ".join(embodiment.cameras) or "none"
            raise EmbodimentError(
                f"'{key}' is read, but '{embodiment.name}' has no camera '{name}'; its cameras: {known}"
            )
        height, width = config.size or embodiment.cameras[name]
        sizes[key] = height, width
    return sizes


def _channels_first(pictures: Tensor) -> Tensor:
    """uint8 (..., h, w, 3) -> float (..., 3, h, w) in [0, 1]."""
    return pictures.movedim(-1, -3).float().div_(255)
