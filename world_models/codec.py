"""The sight of a world model: a codec of pictures into latents, and what is read and judged from decoded frames.

`Codec` turns the pictures of all cameras, at one size, into a small map of latents whose channels have unit norm at
every place, and back; its decoder is trained on disturbed latents too, as imagined ones are. `CodecModel` trains it
together with the reader of states (`reader.py`) and the judge (`judge.py`), which see only pictures. It imagines
nothing: that is `video.py`, which is trained on this model's latents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..configs.spec import ACTION, SCENE, STATE, Embodiment, EmbodimentError, Window
from ..policies.data.dataset import Dataset
from ..policies.policy import Begins, Scale, Scales, Trainable, WorldModelConfig
from .blocks import FOLD, PictureMap, Residual, as_floats, as_pictures, channels_last, unit_norm
from .cameras import check_points, in_picture, looked_up
from .data import JUDGED, OUTCOME, SEEN, InsideWindows, offered_states, open_data, open_joint
from .judge import RESERVED, Inverse, Judge, Verdict, fakes
from .judge import SEEN as STILL
from .reader import Reader

LOOKED_AT = 512  # frames that the mean picture is made of
COMPARED = 3  # one window in so many teaches which films cannot be true


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Which pictures are encoded how, and what is read from them."""

    cameras: tuple[str, ...] = ()  # none: all of the dataset
    size: tuple[int, int] = (64, 64)  # (height, width) of all pictures, multiples of 8
    latent: int = 16  # channels of a place of 8 x 8 pixels
    width: int = 64  # channels at a quarter of the size
    inner: int = 96  # channels at an eighth
    noise: float = 0.2  # greatest disturbance of latents that the decoder is trained on
    detail: float = 20.0  # how much more a pixel counts that differs from the mean picture by 1
    states: tuple[str, ...] | None = None  # state vectors that are read from frames; none: all that the dataset has
    state_maps: dict[str, PictureMap] = field(default_factory=dict)  # which of them are places in a picture
    keypoints: int = 32  # places that the reader finds
    from_places: bool = False  # state vectors are read from these places alone, not from all that the picture shows
    gap: int = 4  # control steps between the two frames that the judge compares
    foresees: bool | None = None  # judge: foretells what must change; none: yes where it is trained, not in older runs
    inverse: bool | None = None  # reads back which actions lie between two frames; none: as `foresees`

    def __post_init__(self):
        if any(side % FOLD or side < 2 * FOLD for side in self.size):
            raise ValueError(f"size is (height, width) in multiples of {FOLD}, at least {2 * FOLD}; got {self.size}")
        if self.gap < 1:
            raise ValueError(f"gap counts control steps, at least 1, got {self.gap}")

    @property
    def channels(self) -> int:
        """Of the pictures of all cameras together."""
        return 3 * len(self.cameras)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        return self.latent * len(self.cameras), self.size[0] // FOLD, self.size[1] // FOLD

    def settle(self, dataset: Dataset) -> CodecConfig:
        """The settings with the cameras and states of a dataset, where they name none. Raises ValueError."""
        cameras = self.cameras or tuple(sorted(dataset.cameras))
        if not cameras:
            raise ValueError(f"{dataset.root} has no pictures; a world model imagines pictures")
        states = offered_states(dataset) if self.states is None else self.states
        foresees = True if self.foresees is None else self.foresees
        inverse = True if self.inverse is None else self.inverse
        maps = dict(self.state_maps)
        for key, one in self.state_maps.items():
            if key not in (STATE, SCENE):
                raise ValueError(f"state_maps names '{key}', which is no state vector; those are {STATE} and {SCENE}")
            if key in states:
                body = dataset.embodiment
                names, units = {STATE: (body.state, body.state_units), SCENE: (body.scene, body.scene_units)}[key]
                check_points(one, names, units, key)
                maps[key] = looked_up(one, cameras, body.cameras, self.size)
        settled: dict[str, Any] = {"cameras": cameras, "states": states, "state_maps": maps}
        return dataclasses.replace(self, **settled, foresees=foresees, inverse=inverse)


class Codec(nn.Module):
    """Pictures (M, 3 cameras, h, w) in 0..1 <-> latents (M, C, h / 8, w / 8)."""

    mean: Tensor  # (3 cameras, h, w), the mean picture

    def __init__(self, config: CodecConfig):
        super().__init__()
        channels, latent, width, inner = config.channels, config.shape[0], config.width, config.inner
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(16 * channels, width, 3, padding=1), Residual(width),
            nn.PixelUnshuffle(2), nn.Conv2d(4 * width, inner, 1), Residual(inner), nn.Conv2d(inner, latent, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, inner, 1), Residual(inner), nn.Conv2d(inner, 4 * width, 3, padding=1),
            nn.PixelShuffle(2), Residual(width), nn.Conv2d(width, 16 * channels, 3, padding=1), nn.PixelShuffle(4),
        )  # fmt: skip
        self.register_buffer("mean", torch.full((channels, *config.size), 0.5))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures in 0..1, of unit norm."""
        return unit_norm(self.encoder(pictures * 2 - 1))

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, about 0..1, not clipped."""
        return self.decoder(latents).float() + self.mean


@dataclass(frozen=True)
class Reading:
    """What is seen in M frames."""

    features: Tensor  # (M, F)
    states: dict[str, Tensor]  # key -> (M, D), units


class Sight(nn.Module):
    """Codec, reader and judge of one body: all that a world model knows of pictures."""

    def __init__(self, config: CodecConfig, embodiment: Embodiment, scales: Scales):
        super().__init__()
        self.config = config
        offers = embodiment.offers()
        if missing := [name for name in config.cameras if name not in embodiment.cameras]:
            raise EmbodimentError(f"'{embodiment.name}' has no camera '{missing[0]}': {', '.join(embodiment.cameras)}")
        states = {key: scales.states[key] for key in config.states or ()}
        for key, one in config.state_maps.items():
            if key in states:
                one.check(offers[key], key)
        maps = {key: one for key, one in config.state_maps.items() if key in states}
        self.codec = Codec(config)
        self.reader = Reader(
            config.channels, config.size, states, maps, config.keypoints, from_places=config.from_places
        )
        self.actions = len(embodiment.action)
        self.judge = Judge(self.reader.features, config.gap * self.actions, foresees=bool(config.foresees))
        self.inverse = Inverse(self.reader.features, config.gap * self.actions) if config.inverse else None

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the state vectors that are read."""
        return self.reader.keys

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (M, cameras, h, w, 3) uint8 -> latents (M, C, h / 8, w / 8)."""
        return self.codec.encode(as_floats(pictures))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> pictures (M, cameras, h, w, 3) uint8."""
        return as_pictures(self.codec.decode(latents))

    def off(self, seen: Tensor, true: Tensor) -> Tensor:
        """(M,) how far pictures (M, 3 cameras, h, w) in 0..1 are from the true ones, root mean square.

        Pixels count as in the codec's training, by how far they are from the mean picture; of several cameras the
        worst.
        """
        weight = 1 + self.config.detail * (true - self.codec.mean).abs()
        error, whole = ((weight * by).unflatten(1, (-1, 3)).mean((2, 3, 4)) for by in ((seen - true).square(), 1.0))
        return (error / whole).sqrt().amax(1)

    def read(self, pictures: Tensor) -> Reading:
        """What is seen in pictures (M, cameras, h, w, 3) uint8."""
        points, features = self.reader(as_floats(pictures))
        return Reading(features, self.reader.states(points, features))

    def verdict(self, now: Reading, before: Reading, actions: Tensor) -> Verdict:
        """Of a frame, an earlier one, and the scaled actions (M, gap, D) between them."""
        return self.judge(now.features, before.features, actions.flatten(1))


@WorldModelConfig.register_subclass("codec")
@dataclass(frozen=True, kw_only=True)
class CodecModelConfig(WorldModelConfig):
    """The first stage of a world model: pictures, what is read from them, and how they are judged."""

    codec: CodecConfig = CodecConfig()

    @property
    def window(self) -> Window:
        return Window(observe=(-self.codec.gap, 0), recall=tuple(range(-self.codec.gap, 0)), horizon=1)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.codec.states or ())

    def settle(self, dataset: Dataset) -> CodecModelConfig:
        return dataclasses.replace(self, codec=self.codec.settle(dataset))

    def open(self, source: str | Path, embodiment: str | Path | None, **chosen: Any) -> Dataset:
        dataset = open_data(source, self.codec.cameras, self.codec.states or (), embodiment, **chosen)
        states = offered_states(dataset) if self.codec.states is None else self.codec.states
        return open_data(source, self.codec.cameras, states, embodiment, **chosen)

    def windows(self, dataset: Dataset, episodes: np.ndarray, model: nn.Module) -> InsideWindows:
        frames = open_joint(dataset, self.codec.cameras, self.codec.size, episodes)
        return InsideWindows(dataset, episodes, (-self.codec.gap, 0), frames, self.inputs)

    def build(self, embodiment: Embodiment, scales: Scales) -> CodecModel:
        return CodecModel(self, embodiment, scales)


class CodecModel(nn.Module, Trainable, Begins):
    """Trains the codec, and reader and judge on true and on decoded frames."""

    def __init__(self, config: CodecModelConfig, embodiment: Embodiment, scales: Scales):
        super().__init__()
        self.config, self.embodiment = config, embodiment
        self.window, self.inputs = config.window, config.inputs
        self.action_scale = Scale.between(*scales.action)
        self.sight = Sight(config.codec, embodiment, scales)

    def begin(self, dataset: Dataset, episodes: np.ndarray) -> list[str]:
        """Take the mean picture from the training episodes."""
        config = self.config.codec
        frames = open_joint(dataset, config.cameras, config.size, episodes)
        rows = np.concatenate([dataset.starts[m] + np.arange(dataset.lengths[m]) for m in episodes])
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int))]
        self.sight.codec.mean.copy_(as_floats(torch.from_numpy(frames.read(some))).mean(0))
        height, width = config.size
        story = [f"pictures: {', '.join(config.cameras)} at {height}x{width}, latents {config.shape}"]
        for key, one in config.state_maps.items():
            if key in self.sight.keys:
                story.append(in_picture(one, dataset.columns[key], config.cameras[one.camera], f"state map of {key}"))
            else:
                story.append(f"state map of {key}: left out, {key} is not read from these data")
        return story

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Error of decoded pictures, of states that are read, and of the judge's verdicts."""
        sight, config = self.sight, self.config.codec
        before, now = (as_floats(part) for part in batch[SEEN].unbind(1))

        # the picture, from a disturbed latent
        latent = sight.codec.encode(now)
        strength = config.noise * torch.rand(len(now), 1, 1, 1, device=now.device)
        seen = sight.codec.decode(unit_norm(latent + strength * torch.randn_like(latent)))
        weight = 1 + config.detail * (now - sight.codec.mean).abs().amax(1, keepdim=True)
        picture = (weight * (seen - now).square()).mean()

        # half of the frames as they were, half decoded
        decoded = torch.rand(len(now), 1, 1, 1, device=now.device) < 0.5
        shown = torch.where(decoded, seen.detach().clamp(0, 1), now)
        points, features = sight.reader(shown)
        states = sight.reader.loss(points, features, {key: batch[key][:, -1] for key in sight.keys})
        verdicts, scalars = self._judge(batch, now, before, features, decoded)
        scalars |= {"picture": float(picture.detach()), "states": float(states.detach())}
        return 10 * picture + 10 * states + verdicts, scalars

    def _judge(
        self, batch: Mapping[str, Tensor], now: Tensor, before: Tensor, features: Tensor, decoded: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        sight, codec, config = self.sight, self.sight.codec, self.config.codec
        some = max(1, len(now) // COMPARED)
        faked, _, told = fakes(now[:some], before[:some], codec.mean)
        with torch.no_grad():
            both = torch.cat([before[:some], faked])
            rounded = codec.decode(codec.encode(both)).clamp(0, 1)
            both = channels_last(torch.where(decoded[:some].repeat(2, 1, 1, 1), rounded, both))
        earlier, wrong = sight.reader(both)[1].chunk(2)
        actions = self.action_scale.scale(batch[ACTION][:some, :-1]).flatten(1)
        reserved = batch["episode"] % RESERVED == RESERVED - 1
        foretold = sight.judge.error(features[:some], earlier, actions, (~reserved[:some]).float())
        inverse = foretold.new_zeros(())
        if sight.inverse is not None:
            inverse = sight.inverse.error(features[:some], earlier, actions).mean()

        # every film is frozen once, too
        seen = [features[:some], wrong, earlier] if config.foresees else [features[:some], wrong]
        true, *fake = (sight.judge.compare(one, earlier, actions) for one in seen)
        moved = ((now[:some] - before[:some]).abs().mean((1, 2, 3)) > STILL).float()
        told = torch.cat([told, moved][: len(fake)])
        loss, scalars = sight.judge.loss(features, batch[OUTCOME], batch[JUDGED], true, torch.cat(fake), told, reserved)
        scalars |= {"foretold": float(foretold.detach())} if config.foresees else {}
        scalars |= {"inverse": float(inverse.detach())} if config.inverse else {}
        return loss + foretold + inverse, scalars
