"""Pretrained video models of diffusers as denoisers of films under actions: Cosmos-Predict2 and Stable Video Diffusion.

`load_backbone` reads either from a folder or from the hub, laid out as diffusers pipelines are (`transformer` or
`unet`, and `vae`). A clip begins with a true frame; the rest is denoised: D(y, s), the clean latents of y = x0 + s *
noise, as `policies/field.py` has it. Actions enter each latent frame by its own embedding, added to that of the noise
level: the context of Stable Video Diffusion is a set without order, so actions told there would be the same forwards
and backwards.

Letters: B films, F frames, T latent frames, g actions of a latent frame (4 of Cosmos, 1 of Stable Video Diffusion).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..policies.hub import HubError, fetch, is_hub_id

FILES = ("*.json", "*/config.json", "transformer/*.safetensors*", "unet/*.safetensors*", "vae/*.safetensors*")
CONDITION_SIGMA = 1e-4  # noise level that Cosmos is told of the frame that it is given
MOTION, AUGMENTED = (
    127,
    0.02,
)  # what Stable Video Diffusion is told of motion, and of noise on the frame that it is given


class PretrainedError(ValueError):
    """A pretrained model that cannot be read or used so; the message says what to do."""


class ActionAdapter(nn.Module):
    """Numbers of the actions of each latent frame (B, T, A) -> what is added to its embeddings, [(B, T, W), ...].

    Args:
        zero: whether the last layers begin at zero, so that the model acts as if there were no adapter.
    """

    def __init__(self, told: int, widths: Sequence[int], hidden: int = 256, zero: bool = True):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(told, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.out = nn.ModuleList(nn.Linear(hidden, width) for width in widths)
        for value in self.out.parameters() if zero else ():
            nn.init.zeros_(value)

    def forward(self, actions: Tensor) -> list[Tensor]:
        hidden = self.embed(actions)
        return [out(hidden) for out in self.out]


class Backbone(nn.Module):
    """A network of diffusers, its autoencoder, and the adapter through which actions reach it."""

    FOLDER = ""  # of the network in a pipeline's
    CLASS = ""  # of diffusers
    group = 1  # g
    low, high = 0.002, 80.0  # noise-to-signal ratios
    drawn = (0.0, 1.0)  # mean and spread of the logarithm of the ratio in training
    network: Any  # of diffusers, like the autoencoder; their settings are untyped
    vae: Any

    def __init__(self, network: nn.Module, vae: nn.Module, told: int, hidden: int, zero: bool):
        super().__init__()
        self.network, self.vae = network, vae
        self.vae.requires_grad_(False)
        self.adapter = ActionAdapter(self.group * told, self.widths(), hidden, zero)
        self._added: list[Tensor] | None = None  # set before each call; checkpointed blocks are run again after it

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the network, as diffusers keeps them."""
        return self.network.config

    @abstractmethod
    def widths(self) -> list[int]:
        """Of the embeddings that actions are added to."""

    @abstractmethod
    def check(self, frames: int, size: tuple[int, int]) -> None:
        """Refuse clips of F frames at (height, width) that the model cannot make. Raises PretrainedError."""

    @abstractmethod
    def latents(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(T, C, h, w) of a clip."""

    @abstractmethod
    def encode(self, film: Tensor) -> Tensor:
        """Films (B, F, 3, h, w) in 0..1 -> latents (B, T, C, h', w'), scaled as the network wants them."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`, not clipped."""

    @abstractmethod
    def denoise(self, y: Tensor, s: Tensor, first: Tensor, fps: float) -> Tensor:
        """Clean latents of y (B, T, C, h, w) at ratios s (B,), given those of the first frame (B, 1, C, h, w)."""

    def gain(self, s: Tensor) -> Tensor:
        """How much the clean estimate moves with what the network says, at ratios s; errors are divided by it."""
        raise NotImplementedError

    def forward(self, y: Tensor, s: Tensor, first: Tensor, actions: Tensor | None, fps: float) -> Tensor:
        """`denoise` under `actions` (B, F - 1, A), numbers of about -1..1; None: as the pretrained model does."""
        self._added = None if actions is None else self.adapter(self._grouped(actions))
        return self.denoise(y, s, first, fps)

    def _grouped(self, actions: Tensor) -> Tensor:
        """(B, T, g A); the first frame is given, no action led to it."""
        groups = actions.unflatten(1, (-1, self.group)).flatten(2)
        return torch.cat([torch.zeros_like(groups[:, :1]), groups], 1)


class Cosmos(Backbone):
    """Cosmos-Predict2 Video2World: a transformer over latents of Wan's autoencoder, 1 + 4 k frames."""

    FOLDER, CLASS, group = "transformer", "CosmosTransformer3DModel", 4

    def __init__(self, network: Any, vae: Any, told: int, hidden: int = 256, zero: bool = True):
        if network.config.get("img_context_dim_in"):
            raise PretrainedError(
                "this Cosmos reads a context of pictures; Cosmos-Predict2 Video2World is what is read"
            )
        _check_padding(network.config)
        super().__init__(network, vae, told, hidden, zero)
        network.time_embed.norm.register_forward_pre_hook(self._before_norm)
        network.time_embed.t_embedder.register_forward_hook(self._after_embedding)

    def widths(self) -> list[int]:
        width = self.settings["num_attention_heads"] * self.settings["attention_head_dim"]
        return [width, 3 * width]

    def _before_norm(self, module: nn.Module, given: tuple) -> tuple | None:
        return None if self._added is None else (given[0] + self._added[0].flatten(0, 1).to(given[0].dtype),)

    def _after_embedding(self, module: nn.Module, given: tuple, made: Tensor) -> Tensor:
        return made if self._added is None else made + self._added[1].flatten(0, 1).to(made.dtype)

    def latents(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        by = 2 ** len(self.vae.config["temperal_downsample"])
        return (frames - 1) // self.group + 1, self.vae.config["z_dim"], size[0] // by, size[1] // by

    def check(self, frames: int, size: tuple[int, int]) -> None:
        _check_padding(self.settings)
        squeezed = 2 ** sum(self.vae.config["temperal_downsample"])
        if squeezed != self.group:
            raise PretrainedError(
                f"this autoencoder makes one latent of {squeezed} frames; Wan's, of {self.group}, is read"
            )
        if frames < 1 + self.group or (frames - 1) % self.group:
            near = max(1, round((frames - 1) / self.group)) * self.group + 1
            raise PretrainedError(
                f"Wan's autoencoder makes latents of 1 + {self.group} k frames and drops the last ones of {frames} "
                f"without a word; give frames: {near}"
            )
        by, (_, high, wide) = 2 ** len(self.vae.config["temperal_downsample"]), self.settings["patch_size"]
        if size[0] % (by * high) or size[1] % (by * wide):
            raise PretrainedError(f"pictures of {size}: this model wants multiples of {(by * high, by * wide)}")
        count, _, *places = self.latents(frames, size)
        most, asked = self.settings["max_size"], (count, *places)
        if any(one > bound for one, bound in zip(asked, most, strict=True)):
            raise PretrainedError(
                f"a clip of {frames} frames at {size} is {asked} latents (frames, height, width), this model was "
                f"made for "
                f"at most {tuple(most)}; give fewer frames or smaller pictures"
            )

    def encode(self, film: Tensor) -> Tensor:
        mean, std = self._scale(film)
        with torch.autocast(film.device.type, enabled=False):
            seen = self.vae.encode(film.float().transpose(1, 2) * 2 - 1).latent_dist.mode()
        return ((seen - mean) / std).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._scale(latents)
        with torch.autocast(latents.device.type, enabled=False):
            return self.vae.decode(latents.float().transpose(1, 2) * std + mean).sample.transpose(1, 2) / 2 + 0.5

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(self.vae.config[f"latents_{name}"], device=like.device) for name in ("mean", "std"))
        return mean[None, :, None, None, None], std[None, :, None, None, None]

    def gain(self, s: Tensor) -> Tensor:
        return s / (1 + s)

    def denoise(self, y: Tensor, s: Tensor, first: Tensor, fps: float) -> Tensor:
        count, length, _, height, width = y.shape
        given = torch.zeros(1, length, 1, 1, 1, device=y.device)
        given[:, 0] = 1
        t = (s / (1 + s))[:, None, None, None, None]
        seen = given * first + (1 - given) * (1 - t) * y
        times = given * (CONDITION_SIGMA / (1 + CONDITION_SIGMA)) + (1 - given) * t
        patch = 2 ** len(self.vae.config["temperal_downsample"])
        said = self.network(
            hidden_states=seen.transpose(1, 2),
            timestep=times.expand(count, -1, -1, -1, -1).transpose(1, 2),
            encoder_hidden_states=y.new_zeros(count, 1, self._text),
            fps=fps,
            condition_mask=given.expand(count, -1, -1, height, width).transpose(1, 2),
            padding_mask=y.new_zeros(1, 1, height * patch, width * patch),
            return_dict=False,
        )[0].transpose(1, 2)
        clean = (1 - t) * y - t * said.float()
        return given * first + (1 - given) * clean

    @property
    def _text(self) -> int:
        crossed = self.settings.get("use_crossattn_projection")
        return self.settings["crossattn_proj_in_channels" if crossed else "text_embed_dim"]


class StableVideo(Backbone):
    """Stable Video Diffusion: a U-Net over latents of single frames."""

    FOLDER, CLASS, group = "unet", "UNetSpatioTemporalConditionModel", 1
    low, high = 0.002, 700.0
    drawn = (0.7, 1.6)

    def __init__(self, network: Any, vae: Any, told: int, hidden: int = 256, zero: bool = True):
        super().__init__(network, vae, told, hidden, zero)
        for block in (*network.down_blocks, network.mid_block, *network.up_blocks):
            block.register_forward_pre_hook(self._before_block, with_kwargs=True)

    def widths(self) -> list[int]:
        return [self.network.time_embedding.linear_2.out_features]

    def _before_block(self, module: nn.Module, given: tuple, named: dict) -> tuple | None:
        """The embedding of each frame's noise level, which the network has repeated, with its actions."""
        if self._added is None:
            return None
        return given, named | {"temb": named["temb"] + self._added[0].flatten(0, 1).to(named["temb"].dtype)}

    def latents(self, frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        by = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        return frames, self.vae.config["latent_channels"], size[0] // by, size[1] // by

    def check(self, frames: int, size: tuple[int, int]) -> None:
        if frames < 2:
            raise PretrainedError(f"a clip has the first frame and at least one more, got frames: {frames}")
        by = 2 ** (len(self.vae.config["block_out_channels"]) + len(self.settings["block_out_channels"]) - 2)
        if size[0] % by or size[1] % by:
            raise PretrainedError(f"pictures of {size}: this model wants multiples of {by}")

    def encode(self, film: Tensor) -> Tensor:
        with torch.autocast(film.device.type, enabled=False):
            seen = self.vae.encode(film.float().flatten(0, 1) * 2 - 1).latent_dist.mode()
        return (seen * self.vae.config["scaling_factor"]).unflatten(0, film.shape[:2])

    def decode(self, latents: Tensor) -> Tensor:
        flat = latents.float().flatten(0, 1) / self.vae.config["scaling_factor"]
        with torch.autocast(latents.device.type, enabled=False):
            seen = self.vae.decode(flat, num_frames=latents.shape[1]).sample
        return (seen / 2 + 0.5).unflatten(0, latents.shape[:2])

    def gain(self, s: Tensor) -> Tensor:
        return s * torch.rsqrt(1 + s * s)

    def denoise(self, y: Tensor, s: Tensor, first: Tensor, fps: float) -> Tensor:
        if s.shape != y.shape[:1]:
            raise PretrainedError(
                f"noise levels of shape {tuple(s.shape)} for {len(y)} films: Stable Video Diffusion has one level "
                f"for all "
                "frames of a film; levels of single frames (diffusion forcing) are Cosmos'"
            )
        told = y.new_tensor([fps - 1, MOTION, AUGMENTED]).expand(len(y), -1)
        wide = s[:, None, None, None, None]
        picture = first.expand_as(y) / self.vae.config["scaling_factor"]  # the given frame is not scaled
        said = self.network(
            torch.cat([y * torch.rsqrt(1 + wide * wide), picture], 2),
            s.log() / 4,
            encoder_hidden_states=y.new_zeros(len(y), 1, self._context),
            added_time_ids=told,
            return_dict=False,
        )[0]
        return y / (1 + wide * wide) - self.gain(wide) * said.float()

    @property
    def _context(self) -> int:
        width = self.settings["cross_attention_dim"]
        return width if isinstance(width, int) else width[0]


FAMILIES: dict[str, type[Backbone]] = {"cosmos": Cosmos, "svd": StableVideo}


def describe(source: str) -> tuple[str, str, str]:
    """(family, settings of the network, of the autoencoder as JSON) of a folder or hub id. Raises PretrainedError."""
    folder = _folder(source)
    found = [name for name, kind in FAMILIES.items() if (folder / kind.FOLDER / "config.json").is_file()]
    if not found or not (folder / "vae" / "config.json").is_file():
        wanted = " or ".join(f"{kind.FOLDER} ({kind.CLASS})" for kind in FAMILIES.values())
        raise PretrainedError(f"{source} holds no pretrained video model: wanted are the folders vae and {wanted}")
    kind = FAMILIES[found[0]]
    network, vae = (_settings(folder / part / "config.json") for part in (kind.FOLDER, "vae"))
    if network.get("_class_name") != kind.CLASS:
        raise PretrainedError(f"{source} holds a {network.get('_class_name')}; {kind.CLASS} is what is read there")
    return found[0], json.dumps(network), json.dumps(vae)


def build_backbone(family: str, network: str, vae: str, **adapter: Any) -> Backbone:
    """A backbone of these settings with random weights; `adapter`: see `ActionAdapter`. Raises PretrainedError."""
    if family not in FAMILIES:
        raise PretrainedError(f"family {family!r} is not one of {', '.join(FAMILIES)}")
    theirs, ours = _classes(family)
    return FAMILIES[family](theirs.from_config(json.loads(network)), ours.from_config(json.loads(vae)), **adapter)


def load_backbone(source: str, **adapter: Any) -> Backbone:
    """The pretrained model in a folder or on the hub, all weights there; `adapter`: see `ActionAdapter`.

    Raises:
        PretrainedError: no such model, weights that are missing, left over or of another shape.
    """
    family, *_ = describe(source)
    folder = _folder(source)
    theirs, ours = _classes(family)
    network = _read(theirs, folder / FAMILIES[family].FOLDER)
    return FAMILIES[family](network, _read(ours, folder / "vae"), **adapter)


def _read(kind: Any, folder: Path) -> nn.Module:
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise PretrainedError(f"{folder} cannot be read as {kind.__name__}: {error}") from error
    hollow = [name for name, value in model.state_dict(keep_vars=True).items() if value.is_meta]
    for what, names in (
        ("lacks", sorted({*report["missing_keys"], *hollow})),
        ("holds unknown", report["unexpected_keys"]),
        ("holds, in another shape,", [str(one) for one in report["mismatched_keys"]]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise PretrainedError(f"{folder} {what} {', '.join(list(names)[:3])}{more}: no {kind.__name__} as released")
    return model


def _classes(family: str) -> tuple[Any, Any]:
    import diffusers

    if family == "cosmos":
        return diffusers.CosmosTransformer3DModel, diffusers.AutoencoderKLWan
    return diffusers.UNetSpatioTemporalConditionModel, diffusers.AutoencoderKLTemporalDecoder


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if not is_hub_id(source):
        return folder
    name, _, revision = source.partition("@")
    try:
        return fetch(name, "model", FILES, revision or None)
    except HubError as error:
        raise PretrainedError(f"{source} is no folder here, and cannot be had: {error}") from error


def _settings(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise PretrainedError(f"{file} is damaged ({error})") from error


def _check_padding(settings: Mapping[str, Any]) -> None:
    from diffusers.utils import is_torchvision_available

    if settings.get("concat_padding_mask") and not is_torchvision_available():
        raise PretrainedError(
            "this Cosmos reads a padding mask, which diffusers resizes by torchvision: pip install torchvision, of the "
            "release that belongs to this torch"
        )
