"""Any image network of timm or transformers as an encoder, from its name, a folder or a hub id; frozen or tuned.

What it makes of a picture (a map, or tokens that lie on a grid) is read like the map of any other encoder. The settings
name where the architecture stands; it is read again whenever a checkpoint is opened, its weights are not.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...configs.compat import prepare_torchvision
from ...configs.extras import pip_install
from .encoder import IMAGENET, Encoder, EncoderConfig, EncoderError, Neck, NeckedEncoder, map_size, normalise

PREFIX = 8  # class and register tokens at most
# what transformers' config.json says beside the network
UNHEEDED = {"_commit_hash", "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(EncoderConfig):
    """What backbones of either library are told."""

    pretrained_weights: bool = True  # false: begin from scratch, which needs tuned
    tuned: bool = False  # training changes the backbone, too
    keypoints: int = 32  # channels whose places are read; 0: the average of each channel instead

    def __post_init__(self):
        if not self.pretrained_weights and not self.tuned:
            raise EncoderError("without weights nothing can be frozen; set tuned: true, or pretrained_weights: true")
        if self.keypoints < 0 or self.features < 1:
            raise EncoderError("keypoints must be 0 or more, features at least 1")

    @property
    def frozen(self) -> bool:
        return not self.tuned

    @abstractmethod
    def open(self, size: tuple[int, int], weights: bool) -> tuple[nn.Module, dict]:
        """The network, with its published weights or new ones, and all else that is stated where it stands.

        Returns:
            (network, {"mean": of its pictures' channels, "std": theirs, ...}), JSON-able.
        Raises:
            EncoderError: the library is not installed, or there is no such network.
        """

    @abstractmethod
    def run(self, network: nn.Module, pictures: Tensor) -> Tensor:
        """Normalised pictures (M, 3, h, w) -> map (M, C, h', w')."""

    def build(self, size: tuple[int, int]) -> Backbone:
        return Backbone(self, size)

    def pretrained(self, encoder: Encoder) -> str | None:
        if not self.pretrained_weights:
            return None
        assert isinstance(encoder, Backbone)  # as `build` made it
        network, _ = self.open(encoder.size, True)
        try:
            encoder.network.load_state_dict(network.state_dict())
        except RuntimeError as error:
            raise EncoderError(f"the weights do not fit the architecture: {error}") from error
        return str(getattr(self, "name", None) or getattr(self, "path", ""))


@EncoderConfig.register_subclass("timm")
@dataclass(frozen=True, kw_only=True)
class TimmConfig(BackboneConfig):
    """An image network of timm."""

    name: str  # of timm, such as resnet18.a1_in1k; or hf-hub:OWNER/NAME, local-dir:FOLDER

    def open(self, size: tuple[int, int], weights: bool) -> tuple[nn.Module, dict]:
        timm = _library("timm")
        name = os.path.expandvars(self.name)
        options: dict[str, Any] = {"pretrained": weights, "num_classes": 0, "global_pool": ""}
        try:
            try:
                network = timm.create_model(name, **options, img_size=size)  # transformers want to know
            except TypeError:
                network = timm.create_model(name, **options)
        except (RuntimeError, ValueError, OSError, KeyError, AssertionError) as error:
            raise EncoderError(f"timm cannot open '{self.name}': {_one_line(error)}") from error
        about = network.pretrained_cfg or {}
        stated = {name: about[name] for name in ("architecture", "model_args") if about.get(name)}
        return network, stated | {"mean": about.get("mean") or IMAGENET[0], "std": about.get("std") or IMAGENET[1]}

    def run(self, network: nn.Module, pictures: Tensor) -> Tensor:
        out = network.forward_features(pictures)  # type: ignore[operator]
        if out.ndim == 3:
            return on_grid(out, pictures.shape[-2:], network, getattr(network, "num_prefix_tokens", 0))
        last = out.ndim == 4 and out.shape[-1] == network.num_features and out.shape[1] != network.num_features
        return out.movedim(-1, 1) if last else out


@EncoderConfig.register_subclass("transformers")
@dataclass(frozen=True, kw_only=True)
class TransformersVisionConfig(BackboneConfig):
    """An image network of transformers."""

    path: str  # folder ($VAR expanded) or hub id, for example facebook/dinov2-small

    def open(self, size: tuple[int, int], weights: bool) -> tuple[nn.Module, dict]:
        transformers = _library("transformers")
        path = os.path.expandvars(self.path)
        try:
            if weights:
                network = transformers.AutoModel.from_pretrained(path)
            else:
                network = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(path))
            stated, _ = transformers.PretrainedConfig.get_config_dict(path)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncoderError(f"transformers cannot open '{self.path}': {_one_line(error)}") from error
        mean, std = _statistics(path)
        return network, {key: stated[key] for key in stated.keys() - UNHEEDED} | {"mean": mean, "std": std}

    def run(self, network: nn.Module, pictures: Tensor) -> Tensor:
        try:
            out = network(pixel_values=pictures, interpolate_pos_encoding=True)
        except TypeError:
            out = network(pixel_values=pictures)
        out = out.last_hidden_state
        return out if out.ndim == 4 else on_grid(out, pictures.shape[-2:], network)


class Backbone(NeckedEncoder):
    """See `encoder.Encoder`. `stated`: what is said where its network stands; checkpoints compare it."""

    config: BackboneConfig

    def __init__(self, config: BackboneConfig, size: tuple[int, int]):
        super().__init__()
        self.config, self.size = config, size
        self.network, self.stated = config.open(size, False)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(self.stated[name]), persistent=False)
        channels, *shape = map_size(_Called(self.network, self.body), size)
        self.neck = Neck(channels, (shape[0], shape[1]), config.keypoints, config.features)
        self.features = config.features
        self.embedding = channels * shape[0] * shape[1] if config.frozen else config.features
        if config.frozen:
            self.network.requires_grad_(False)
        self.train()

    def body(self, pictures: Tensor) -> Tensor:
        """(M, 3, h, w) in [0, 1] -> map (M, C, h', w')."""
        try:
            out = self.config.run(self.network, normalise(pictures, self.mean, self.std))
        except (AttributeError, TypeError, ValueError) as error:
            kind = type(self.network).__name__
            raise EncoderError(
                f"{kind} does not read pictures alone; name an image network: {_one_line(error)}"
            ) from error
        return out

    def train(self, mode: bool = True) -> Backbone:
        """What is frozen acts as it was published; batch norm keeps its statistics in any case."""
        super().train(mode)
        for part in (self.network,) if self.config.frozen else self.network.modules():
            if self.config.frozen or isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self


class _Called(nn.Module):
    """A function of a network as a module, to be asked for the size of what it gives."""

    def __init__(self, network: nn.Module, call: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network, self.call = network, call

    def forward(self, pictures: Tensor) -> Tensor:
        return self.call(pictures)


def on_grid(tokens: Tensor, size: Sequence[int], network: nn.Module, prefix: int | None = None) -> Tensor:
    """Tokens (M, N, C) row by row -> map (M, C, h', w').

    By the network's patches, where it says what they measure; else by the picture's proportions, one row where none
    fit. Tokens before the first patch lie on no place and are left out.

    Args:
        prefix: how many those are; None: nobody says.
    """
    count, patch = tokens.shape[1], _patch(network)
    rows, columns = (length // step for length, step in zip(size, patch, strict=True)) if patch else (0, 0)
    before = count - rows * columns
    if not patch or not 0 <= before <= PREFIX or (prefix is not None and before != prefix):
        before = _class_tokens(count) if prefix is None else prefix
        count -= before
        fits = [(tall, count // tall) for tall in range(1, count + 1) if count % tall == 0]
        rows, columns = min(fits, key=lambda one: abs(one[0] / one[1] - size[0] / size[1]))
    return tokens[:, before:].movedim(1, 2).unflatten(2, (rows, columns))


def _patch(network: nn.Module) -> tuple[int, int] | None:
    """(height, width) of a token's patch in pixels, of networks that say it."""
    for owner in (getattr(network, "config", None), getattr(network, "patch_embed", None)):
        stated = getattr(owner, "patch_size", None)
        if isinstance(stated, int) and stated > 0:
            return stated, stated
        if isinstance(stated, (tuple, list)) and len(stated) == 2:
            return int(stated[0]), int(stated[1])
    return None


def _class_tokens(count: int) -> int:
    """1 where the number of tokens tells that one of them lies on no place."""
    return int(round((count - 1) ** 0.5) ** 2 == count - 1)


def _statistics(path: str) -> tuple:
    """(mean, std) that a folder or hub id of transformers states for its pictures; ImageNet's where it does not.

    Raises:
        EncoderError: a file that cannot be read, or is of other than three channels.
    """
    from transformers.utils import cached_file

    missing = {
        f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors", "gated_repo")
    }
    try:
        file = cached_file(path, "preprocessor_config.json", **missing)
        stated = json.loads(Path(file).read_text()) if file else {}
    except (OSError, ValueError) as error:
        raise EncoderError(f"preprocessor_config.json of '{path}' cannot be read: {_one_line(error)}") from error
    if stated.get("do_normalize") is False:
        return (0.0,) * 3, (1.0,) * 3
    found = stated.get("image_mean") or IMAGENET[0], stated.get("image_std") or IMAGENET[1]
    if any(len(one) != 3 for one in found):
        raise EncoderError(f"'{path}' reads pictures of {len(found[0])} channels; name a network of colour pictures")
    return found


def _library(name: str) -> Any:
    import importlib

    prepare_torchvision()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EncoderError(f"{name} is not installed ({error}): {pip_install('vision')}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
