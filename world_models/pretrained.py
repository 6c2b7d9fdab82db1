"""A pretrained video model under actions, fine-tuned wholly or partly: Cosmos-Predict2 or Stable Video Diffusion.

From the last frame and a chunk of actions it makes the frames after each of them at once; longer films alternate
chunks, and begin each with the last frame of the one before. What is read and judged from frames is a trained codec's
(`run`), at its size: this model's latents are those of its own autoencoder, and what it remembers are pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..configs.spec import ACTION, Embodiment, Window
from ..policies.data.dataset import Dataset
from ..policies.field import noise_levels
from ..policies.learning.checkpoint import load_model
from ..policies.models.generative import Sampler
from ..policies.policy import Critic, Field, Planner, Scale, Scales, WorldModelConfig
from .backbones import Backbone, PretrainedError, build_backbone, describe, load_backbone
from .blocks import as_floats, waves
from .codec import CodecConfig, CodecModel, CodecModelConfig, Sight
from .data import SEEN, InsideWindows, open_joint
from .film_model import FilmModel, Memory
from .video import codec_of

WAVES = 4  # octaves of the actions' Fourier features
ALL, ADAPTERS = "all", "adapters"


@WorldModelConfig.register_subclass("pretrained")
@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(WorldModelConfig):
    """A pretrained video model, and how it is told of actions."""

    model: str = ""  # folder or hub id of a diffusers pipeline: transformer or unet, and vae
    run: str = ""  # training of a `codec` at the size of the pictures, whose readings and judgements are taken over
    codec: CodecConfig | None = None  # its settings; taken from `run`
    family: str = ""  # cosmos | svd; taken from `model`, as are the settings of network and autoencoder (JSON)
    network: str = ""  # settings of the network, as JSON; filled in from the model
    vae: str = ""  # those of its autoencoder, likewise
    frames: int = 13  # of a clip: the one that is given, and one for each action
    fps: float = 4.0  # frames a second that the model is told
    hidden: int = 256  # width of the embedded actions
    zero: bool = True  # the adapter begins without effect, so that the model begins as it was released
    tune: str = ALL  # what is trained beside the adapter: all | adapters (nothing) | parts of names: blocks.0,norm_out
    checkpointing: bool = False  # activations are computed again in the backward pass, to save memory
    sampler: Sampler = Sampler(steps=10, clip=None)

    @property
    def window(self) -> Window:
        reach = self.frames - 1
        return Window(observe=tuple(range(-reach, 1)), recall=tuple(range(-reach, 0)), horizon=1)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.eyes.states or ())

    @property
    def eyes(self) -> CodecConfig:
        """Settings of what reads and judges frames."""
        if self.codec is None:
            raise ValueError(
                "world_model.run names no trained codec, which reads and judges the frames; train one first"
            )
        return self.codec

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the model sees: the pictures of all cameras, below each other."""
        height, width = self.eyes.size
        return height * len(self.eyes.cameras), width

    def settle(self, dataset: Dataset) -> PretrainedConfig:
        if not self.model or not self.run:
            raise ValueError("give world_model.model, a pretrained video model, and world_model.run, a trained codec")
        family, network, vae = describe(self.model)
        codec = codec_of(self.run).codec
        return dataclasses.replace(self, codec=codec, family=family, network=network, vae=vae)

    def open(self, source: str | Path, embodiment: str | Path | None, **chosen: Any) -> Dataset:
        settings = CodecModelConfig(codec=self.codec) if self.codec else codec_of(self.run)
        return settings.open(source, embodiment, **chosen)

    def windows(self, dataset: Dataset, episodes: np.ndarray, model: nn.Module) -> InsideWindows:
        frames = open_joint(dataset, self.eyes.cameras, self.eyes.size, episodes)
        return InsideWindows(dataset, episodes, self.window.observe, frames, ())

    def critic(self, folder: str | Path, planner: Planner, device: str = "cpu") -> Critic:
        from .critic import imagined_critic

        return imagined_critic(folder, planner, device)

    def build(self, embodiment: Embodiment, scales: Scales) -> PretrainedModel:
        return PretrainedModel(self, embodiment, scales)


class Pictures(nn.Module):
    """Stands for a codec where pictures themselves are what is remembered."""

    mean: Tensor

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.register_buffer("mean", torch.full((config.channels, *config.size), 0.5))

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class PretrainedModel(FilmModel):
    """A `WorldModel` and `Trainable`; its latents are pictures (B, 3 cameras, h, w) in 0..1."""

    def __init__(self, config: PretrainedConfig, embodiment: Embodiment, scales: Scales):
        super().__init__()
        self.config, self.embodiment = config, embodiment
        self.window, self.inputs, self.horizon = config.window, config.inputs, config.frames - 1
        self.action_scale = Scale.between(*scales.action)
        told = len(embodiment.action) * (1 + 2 * WAVES)
        self.backbone: Backbone = build_backbone(
            config.family, config.network, config.vae, told=told, hidden=config.hidden, zero=config.zero
        )
        self.backbone.check(config.frames, config.size)
        self._check_noise()
        self.sight = Sight(config.eyes, embodiment, scales)
        self.sight.codec = Pictures(config.eyes)  # type: ignore[assignment]
        self.sight.requires_grad_(False)
        self._freeze()
        if config.checkpointing:
            self.backbone.network.enable_gradient_checkpointing()

    def _check_noise(self) -> None:
        """One draw of noise as large as a picture must do for a clip's latents."""
        height, width = self.config.size
        needed = int(np.prod(self.backbone.latents(self.config.frames, self.config.size)))
        if needed > 3 * height * width:
            most = self.config.frames * 3 * height * width // needed
            raise PretrainedError(
                f"clips of {self.config.frames} frames are too long, about {most} are possible; lower `frames`"
            )

    def _freeze(self) -> None:
        wanted = self.config.tune
        if wanted == ALL:
            return
        parts = [] if wanted == ADAPTERS else [part.strip() for part in wanted.split(",")]
        names = [name for name, _ in self.backbone.network.named_parameters()]
        if unknown := [part for part in parts if not any(part in name for name in names)]:
            raise PretrainedError(f"tune: no weight of the network has '{unknown[0]}' in its name, such as {names[0]}")
        for name, value in self.backbone.network.named_parameters():
            value.requires_grad_(any(part in name for part in parts))

    # -- training

    def begin(self, dataset: Dataset, episodes: np.ndarray) -> list[str]:
        """Take the released weights, and reader and judge of the run that the settings name."""
        theirs, info = load_model(self.config.run, "world")
        assert isinstance(theirs, CodecModel)
        self.embodiment.check(theirs.embodiment)
        for part in ("reader", "judge", *(("inverse",) if self.sight.inverse is not None else ())):
            getattr(self.sight, part).load_state_dict(getattr(theirs.sight, part).state_dict())
        self.sight.codec.mean.copy_(theirs.sight.codec.mean)
        released = load_backbone(self.config.model, told=1, hidden=1)
        self.backbone.network.load_state_dict(released.network.state_dict())
        self.backbone.vae.load_state_dict(released.vae.state_dict())
        count = sum(value.numel() for value in self.backbone.parameters() if value.requires_grad)
        return [
            f"{self.backbone.CLASS} of {self.config.model}, {count:,} weights are trained; reader and judge of "
            f"{info['path']}"
        ]

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Error of the clean latents of all frames but the given one, as the network's own output has it."""
        pictures, backbone = batch[SEEN], self.backbone
        film = self._film(as_floats(pictures.flatten(0, 1))).unflatten(0, pictures.shape[:2])
        with torch.no_grad():
            clean = backbone.encode(film)
        middle, spread = backbone.drawn
        s = (middle + spread * torch.randn(len(clean), device=clean.device)).exp().clamp(backbone.low, backbone.high)
        wide = s[:, None, None, None, None]
        y = clean + wide * torch.randn_like(clean)
        said = backbone(y, s, clean[:, :1], self._told(batch[ACTION][:, :-1]), self.config.fps)
        error = ((said - clean)[:, 1:] / backbone.gain(wide)).square().mean()
        return error, {"latent": float((said - clean)[:, 1:].detach().square().mean())}

    def _told(self, actions: Tensor) -> Tensor:
        """Actions (B, F - 1, D), units -> numbers of the adapter."""
        scaled = self.action_scale.scale(actions)
        return torch.cat([scaled, waves(scaled, WAVES)], -1)

    def _film(self, pictures: Tensor) -> Tensor:
        """Pictures (M, 3 cameras, h, w) -> (M, 3, cameras h, w), the cameras below each other."""
        return pictures.unflatten(1, (-1, 3)).transpose(1, 2).flatten(2, 3)

    def _pictures(self, film: Tensor) -> Tensor:
        """The inverse of `_film`."""
        return film.unflatten(2, (-1, self.config.eyes.size[0])).transpose(1, 2).flatten(1, 2)

    # -- imagining

    def round_trip(self, pictures: Tensor) -> Tensor:
        latents = self.backbone.encode(self._film(pictures)[:, None])
        return self._pictures(self.backbone.decode(latents)[:, 0]).clamp(0, 1)

    def advance(self, memory: Memory, actions: Tensor, wanted: Sequence[int], noise: Tensor) -> tuple[Tensor, Memory]:
        """As `FilmModel.advance`; fewer than H actions are filled up with the last one, whose frames are dropped."""
        done = actions.shape[1]
        self.check_chunk(done, wanted)
        filled = torch.cat([actions, actions[:, -1:].expand(-1, self.horizon - done, -1)], 1)
        film = self.sample(self.field(memory, filled), noise).clamp(0, 1)
        made = torch.stack([memory.now, *(self._pictures(frame) for frame in film[:, 1:].unbind(1))], 1)
        return made[:, list(wanted)], Memory(made[:, done], made[:, done - 1])

    def field(self, memory: Memory, actions: Tensor) -> Field:
        """The denoiser of a clip's latents, (B, 1, T, C h w), under actions (B, F - 1, D), units."""
        backbone, shape = self.backbone, self.backbone.latents(self.config.frames, self.config.size)
        first = backbone.encode(self._film(memory.now)[:, None])
        told = self._told(actions)

        def denoise(y: Tensor, s: float) -> Tensor:
            value = y[:, 0].unflatten(-1, shape[1:])
            level = torch.full((len(y),), s, device=y.device)
            return backbone(value, level, first, told, self.config.fps).flatten(2)[:, None]

        whole = (len(actions), 1, shape[0], int(np.prod(shape[1:])))
        return Field(denoise, whole, tuple(range(shape[0])), backbone.low, backbone.high)

    def sample(self, field: Field, noise: Tensor) -> Tensor:
        """Walk a field from noise (B, L or 1, 3 cameras, h, w) to films (B, F, 3, cameras h, w), not clipped."""
        sampler, shape = self.config.sampler, self.backbone.latents(self.config.frames, self.config.size)
        flat = noise[:, 0].flatten(1)[:, : int(np.prod(shape))].view(field.shape)
        drawn = sampler.draw(field, flat, noise_levels(sampler.steps, field.sigma_min, field.sigma_max))
        return self.backbone.decode(drawn[:, 0].unflatten(-1, shape[1:]))
