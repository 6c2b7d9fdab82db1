"""Latent dynamics: what is seen after each of the actions to come, a whole chunk of them in one pass.

From the latents of now and of one frame before, and a prefix of k actions, the latent k steps on: each k of a chunk is
asked in parallel, so only frames that somebody reads are imagined. Longer films alternate chunks. Trained on a frozen
codec's latents (`codec.py`), with noise on what is seen and partly on frames of its own, so that errors heal.

Two forms: `one_pass`, deterministic, and `field`, a denoiser D(y, s) walked by the sampler of the policies in a few
steps (`policies/field.py`), whose films differ by their noise.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.episode import SENT
from ..configs.spec import ACTION, STATE, Embodiment, Window
from ..policies.data.dataset import Dataset
from ..policies.data.windows import RowReader
from ..policies.field import PredictionType, angle_of, from_clean, noise_levels, ratio_of, to_clean
from ..policies.learning.checkpoint import CheckpointError, _document, find_checkpoint, load_config, load_model
from ..policies.models.generative import Sampler
from ..policies.policy import (
    Critic,
    Field,
    Planner,
    Scale,
    Scales,
    Stepped,
    WorldModelConfig,
)
from .blocks import PictureMap, Residual, channels_last, unit_norm
from .cameras import check_targets, in_picture, looked_up
from .codec import CodecConfig, CodecModel, CodecModelConfig, Sight
from .conditioning import Conditioning
from .data import SEEN, InsideWindows, encoded, open_joint
from .drawn import Drawer, DrawnRobot, RobotError
from .film_model import FilmModel, Memory
from .overlay import BEHIND, DRAWN, MAPS, Overlay, behind_rows, drawn_rows, left_open, open_places

CHANGED = 4.0  # how much more a place counts that changes by as much as its own size
FRESH = 0.25  # part of the windows in which nothing is remembered of what the arm covers
SIGMA_MIN, SIGMA_MAX = 0.02, 20.0  # noise-to-signal ratios of the field


class Form(Enum):
    """What the dynamics gives."""

    one_pass = "one_pass"  # the latent itself
    field = "field"  # a denoiser of latents, sampled


@WorldModelConfig.register_subclass("video")
@dataclass(frozen=True, kw_only=True)
class VideoConfig(WorldModelConfig):
    """The second stage of a world model: its dynamics, on the latents of a trained codec."""

    run: str = ""  # training of a `codec` whose pictures, readings and judgements are taken over
    codec: CodecConfig | None = None  # its settings; taken from `run`
    horizon: int = 8  # H, control steps imagined in one pass at most
    width: int = 96  # channels of the dynamics
    blocks: int = 4  # residual blocks of the dynamics
    condition: int = 128  # width of the embedded actions
    waves: int = 3  # octaves of the Fourier features of the last action; 0: none
    action_maps: tuple[PictureMap, ...] = ()  # places in the pictures among the numbers of an action
    robot: DrawnRobot | None = None  # the arm that is drawn, not imagined: {task: so101-reach}
    behind: bool = False  # with `robot`: what the arm covers is remembered as it was last seen
    things: float = 0.0  # how much more a place of a latent counts that differs from the mean picture's by its own size
    noise: float = 0.25  # greatest disturbance of the latents that are seen
    own: float = 0.5  # part of the batches that begin from frames of the model's own
    own_after: int = 1000  # steps of training before that
    form: Form = Form.one_pass  # one_pass | field
    sampler: Sampler = Sampler(steps=4, clip=None)  # of a field

    def __post_init__(self):
        if self.horizon < 2:
            raise ValueError(f"horizon counts control steps imagined at a time, at least 2, got {self.horizon}")
        if self.behind and self.robot is None:
            raise ValueError("behind remembers what a drawn robot covers; say which one is drawn: robot: {task: NAME}")
        if self.things < 0:
            raise ValueError(f"things says how much more a place counts, at least 0, got {self.things}")
        if self.waves < 0:
            raise ValueError(f"waves counts octaves of Fourier features, 0 for none, got {self.waves}")
        if not 0 <= self.own <= 1:
            raise ValueError(f"own is a part of the batches, 0..1, got {self.own}")

    @property
    def window(self) -> Window:
        reach = 2 * self.horizon + 1
        return Window(observe=tuple(range(-reach, 1)), recall=tuple(range(-reach, 0)), horizon=1)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.eyes.states or ())

    @property
    def eyes(self) -> CodecConfig:
        """Settings of the codec."""
        if self.codec is None:
            raise ValueError("world_model.run names no trained codec; train one first, or both as stages of one file")
        return self.codec

    def settle(self, dataset: Dataset) -> VideoConfig:
        if self.codec is None and not self.run:
            raise ValueError(
                "give world_model.run, the training of a `codec` (configs/train/dream_pusht.yaml has both)"
            )
        settled = self if not self.run else dataclasses.replace(self, codec=codec_of(self.run).codec)
        eyes, body = settled.eyes, dataset.embodiment
        for one in settled.action_maps:
            check_targets(one, body)
        maps = tuple(looked_up(one, eyes.cameras, body.cameras, eyes.size) for one in settled.action_maps)
        settled = dataclasses.replace(settled, action_maps=maps)
        return settled if settled.robot is None else dataclasses.replace(settled, robot=settled._robot(dataset))

    def _robot(self, dataset: Dataset) -> DrawnRobot:
        """The robot with its fingerprints. Raises RobotError for one that does not fit codec or dataset."""
        assert self.robot is not None
        self.robot.check(dataset.embodiment)
        if STATE not in self.inputs:
            raise RobotError(
                f"the arm of {self.robot.task} is drawn at the recorded joints, and the codec of {self.run} reads no "
                f"{STATE}; train one whose `states` hold it, on data that record it"
            )
        return dataclasses.replace(self.robot, prints=Drawer(self.robot, self.eyes.cameras, self.eyes.size).prints)

    def open(self, source: str | Path, embodiment: str | Path | None, **chosen: Any) -> Dataset:
        settings = CodecModelConfig(codec=self.codec) if self.codec else codec_of(self.run)
        return settings.open(source, embodiment, **chosen)

    def windows(self, dataset: Dataset, episodes: np.ndarray, model: nn.Module) -> InsideWindows:
        if not isinstance(model, VideoModel):
            raise TypeError(f"windows of a {type(model).__name__}")
        frames = open_joint(dataset, self.eyes.cameras, self.eyes.size, episodes)
        latents = encoded(dataset, frames, model.encode, weights_hash(model.sight.codec), self.eyes.shape)
        more: dict[str, RowReader] = {}
        if model.overlay is not None:
            drawn = more[DRAWN] = drawn_rows(dataset, model.overlay, episodes)
            if self.behind:
                more[BEHIND] = behind_rows(dataset, latents, drawn, episodes)
        return InsideWindows(dataset, episodes, self.window.observe, latents, (), more)

    def critic(self, folder: str | Path, planner: Planner, device: str = "cpu") -> Critic:
        from .critic import imagined_critic

        return imagined_critic(folder, planner, device)

    def build(self, embodiment: Embodiment, scales: Scales) -> VideoModel:
        for one in self.action_maps:
            one.check(embodiment.action, "an action")
        return VideoModel(self, embodiment, scales)


def codec_of(run: str) -> CodecModelConfig:
    """Of the codec that a run trained. Raises CheckpointError."""
    folder = find_checkpoint(run)
    config = load_config(_document(folder), folder)
    if not isinstance(config, CodecModelConfig):
        raise CheckpointError(f"{folder} holds no codec; world_model.run names the training of one")
    return config


def weights_hash(module: nn.Module) -> str:
    """Hash of all that decides what a module computes."""
    digest = hashlib.sha256(f"{torch.__version__}".encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Asked:
    """What the network is asked for, M rows."""

    memory: Memory
    actions: Tensor  # (M, H, D) units
    scaled: Tensor  # (M, H, D)
    k: Tensor  # (M,) how many of them are done
    arm: Tensor | None  # (M, 2 MAPS, h, w) the drawn arm, now and after k


class Dynamics(nn.Module):
    """The network: latents and actions -> residual of the latent k steps on, or what a field's head predicts."""

    def __init__(self, config: VideoConfig, dims: int):
        super().__init__()
        channels, *size = config.eyes.shape
        noised = config.form is Form.field
        arm = 2 * MAPS if config.robot is not None else 0
        latents = 2 + noised + config.behind
        shape = (int(size[0]), int(size[1]))
        self.told = Conditioning(
            dims, config.horizon, shape, config.action_maps, config.condition, config.waves, extra=int(noised)
        )
        self.enter = nn.Conv2d(channels * latents + self.told.channels + arm, config.width, 1)
        self.blocks = nn.ModuleList(Residual(config.width, config.condition) for _ in range(config.blocks))
        self.norm = nn.GroupNorm(1, config.width)
        self.leave = nn.Conv2d(config.width, channels, 1)
        for value in self.leave.parameters():
            nn.init.zeros_(value)

    def forward(self, asked: Asked, noised: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(M, C, h, w) of actions (M, H, D); `noised` is a value of unit variance and its time (M,) in 0..1."""
        memory, actions, scaled, k = asked.memory, asked.actions, asked.scaled, asked.k
        maps, condition = self.told(actions, scaled, k, None if noised is None else noised[1][:, None])
        seen = [memory.now, memory.before, *([] if noised is None else [noised[0]])]
        seen += [part for part in (memory.behind, asked.arm) if part is not None]
        hidden = self.enter(channels_last(torch.cat([*seen, maps], 1)))
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.leave(F.silu(self.norm(hidden))).float()


class VideoModel(FilmModel, Stepped):
    """A `WorldModel` and `Trainable`."""

    trained: Tensor  # steps

    def __init__(self, config: VideoConfig, embodiment: Embodiment, scales: Scales):
        super().__init__()
        self.config, self.embodiment = config, embodiment
        self.window, self.inputs = config.window, config.inputs
        self.horizon = config.horizon
        self.action_scale = Scale.between(*scales.action)
        self.sight = Sight(config.eyes, embodiment, scales)
        self.sight.requires_grad_(False)
        self.dynamics = Dynamics(config, len(embodiment.action))
        self.overlay: Overlay | None = None
        if config.robot is not None:
            config.robot.check(embodiment)
            self.overlay = Overlay(config.robot, config.eyes, len(embodiment.action))
        self.register_buffer("trained", torch.zeros((), dtype=torch.int64))  # steps

    # -- training

    def begin(self, dataset: Dataset, episodes: np.ndarray) -> list[str]:
        """Take codec, reader and judge of the run that the settings name."""
        if not self.config.run:
            raise ValueError("world_model.run names no trained codec")
        theirs, info = load_model(self.config.run, "world")
        assert isinstance(theirs, CodecModel)
        self.embodiment.check(theirs.embodiment)
        self.sight.load_state_dict(theirs.sight.state_dict())
        how = f"{len(self.config.action_maps)} action maps" if self.config.action_maps else "no action maps"
        story = [f"codec, reader and judge of {info['path']}, frozen; {how} and added embeddings"]
        for one in self.config.action_maps:
            story.append(in_picture(one, dataset.columns[SENT], self.config.eyes.cameras[one.camera], "action map"))
        if self.overlay is not None:
            eyes = self.config.eyes
            frames = open_joint(dataset, eyes.cameras, eyes.size, episodes)
            story += self.overlay.begin(dataset, episodes, frames, self.horizon)
        return story

    def stepped(self) -> None:
        self.trained += 1

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Error of the latents k steps on, k drawn anew for each window; partly from frames of the model's own.

        Where a drawn robot is shown nothing is learnt: places count by the part of them that it leaves open.
        """
        latents, actions = batch[SEEN], batch[ACTION]
        count, steps, device = len(latents), self.horizon, latents.device
        first = torch.arange(count, device=device)
        begun = torch.full((count,), 1, device=device)  # place of now among the frames
        behind = None
        if self.config.behind:  # a film that begins here knows no more than its first frame
            fresh = torch.rand(count, 1, 1, 1, device=device) < FRESH
            behind = torch.where(fresh, latents[:, 1], batch[BEHIND][:, 1])
        memory = self._disturbed(Memory(latents[:, 1], latents[:, 0], None, behind))

        own = int(self.trained) >= self.config.own_after and float(torch.rand(())) < self.config.own
        if own:
            done = int(torch.randint(max(2, steps // 2), steps + 1, ()))
            with torch.no_grad():
                kept = sorted({max(done - 1, 1), done})
                there = None if self.overlay is None else (batch[DRAWN][:, 1], batch[DRAWN][:, [1 + j for j in kept]])
                told = actions[:, 1 : 1 + done]
                made = self._made(memory, told, kept, torch.randn_like(latents[:, :2]), there)
                behind = None if there is None else self._behind(memory, made, there[1])
                memory = Memory(made[:, -1], made[:, 0], None, behind)
            begun = begun + done

        k = torch.randint(1, steps + 1, (count,), device=device)
        # the longest window holds 2 H steps: own frames leave at least H of them
        told = torch.stack([actions[first, begun + i] for i in range(steps)], 1)
        target, was = latents[first, begun + k], latents[first, begun]
        changed = (target - was).square().mean(1, keepdim=True).clamp(max=1)
        arm = None
        if self.overlay is not None:
            drawn, then = batch[DRAWN][first, begun], batch[DRAWN][first, begun + k]
            arm = torch.cat([self.overlay.maps(drawn), self.overlay.maps(then)], 1)
        out, error = self._error(Asked(memory, told, self.action_scale.scale(told), k, arm), target)
        weight = 1 + CHANGED * changed + self._things(target)
        copied = (target - was).square().mean()
        scalars = {"latent": float(error.detach().mean()), "copy": float(copied), "own": float(own)}
        if self.overlay is None:
            return (weight * error).mean(), scalars
        hidden = self.overlay.loss((out, target), then)
        return (open_places(then) * weight * error).mean() + hidden, scalars | {"hidden": float(hidden.detach())}

    def _things(self, latents: Tensor) -> Tensor | float:
        """(M, 1, h, w) how much more places count where something is; a small thing is soon forgotten otherwise."""
        if not self.config.things:
            return 0.0
        with torch.no_grad():
            empty = self.sight.codec.encode(self.sight.codec.mean[None])
        return self.config.things * (latents - empty).square().mean(1, keepdim=True).clamp(max=1)

    def _error(self, asked: Asked, target: Tensor) -> tuple[Tensor, Tensor]:
        """(M, C, h, w) the latents k steps on as the network has them, of a field from noisy ones; squared error."""
        if self.config.form is Form.one_pass:
            out = unit_norm(asked.memory.now + self.dynamics(asked))
            return out, (out - target).square()
        low, high = (float(angle_of(torch.tensor(s))) for s in (SIGMA_MIN, SIGMA_MAX))
        s = ratio_of(low + (high - low) * torch.rand(len(target), device=target.device))[:, None, None, None]
        y = target + s * torch.randn_like(target)
        out = self.dynamics(asked, (y * torch.rsqrt(1 + s * s), angle_of(s.flatten())))
        clean = unit_norm(to_clean(PredictionType.v, out, y, s))
        return clean, (out - from_clean(PredictionType.v, target, y, s)).square()

    def _disturbed(self, memory: Memory) -> Memory:
        """What is seen, with noise of a strength of each film's own."""
        strength = self.config.noise * torch.rand(len(memory.now), 1, 1, 1, device=memory.now.device)

        def disturbed(z: Tensor) -> Tensor:
            return unit_norm(z + strength * torch.randn_like(z))

        behind = None if memory.behind is None else disturbed(memory.behind)
        return Memory(disturbed(memory.now), disturbed(memory.before), memory.pose, behind)

    def _behind(self, memory: Memory, made: Tensor, drawn: Tensor) -> Tensor | None:
        """What each place showed when the arm last left it open, after frames `made` (B, L, C, h, w) in order; None of
        a model that does not remember it.

        Args:
            drawn: the arm in these frames (B, L, cameras, h, w, 5).
        """
        behind = memory.behind
        if behind is None:
            return None
        for latents, there in zip(made.unbind(1), drawn.unbind(1), strict=True):
            behind = torch.where(left_open(there), latents, behind)
        return behind

    # -- imagining

    @property
    def draws(self) -> bool:
        return self.overlay is not None

    def remember(self, pictures: Tensor, before: Tensor | None = None, joints: Tensor | None = None) -> Memory:
        memory = super().remember(pictures, before)
        if self.overlay is None:
            return memory
        if joints is None:
            raise RobotError("this world model draws its robot; say the joints that the films begin with")
        pose = self.overlay.response.standing(joints.to(pictures.device))
        return dataclasses.replace(memory, pose=pose, behind=memory.now if self.config.behind else None)

    def poses(self, memory: Memory, actions: Tensor, wanted: Sequence[int]) -> Tensor | None:
        if self.overlay is None:
            return None
        assert memory.pose is not None
        return self.overlay.response(memory.pose, actions)[:, [k - 1 for k in wanted]]

    def show(self, latents: Tensor, poses: Tensor | None = None) -> Tensor:
        pictures = self.sight.decode(latents)
        if self.overlay is None or poses is None:
            return pictures
        return self.overlay.lay(pictures, latents, self.overlay.draw(poses))

    def arm_apart(self, latents: Tensor, poses: Tensor) -> Tensor | None:
        if self.overlay is None:
            return None
        return self.overlay.apart(self.sight.decode(latents), latents, self.overlay.draw(poses))

    def check_starts(self, truth: Any, name: str) -> None:
        if self.overlay is not None:
            self.overlay.check_starts(truth, name)

    def check_begin(self, pictures: Tensor, joints: Tensor | None) -> str:
        return "" if self.overlay is None else self.overlay.check_begin(pictures, joints)

    def advance(self, memory: Memory, actions: Tensor, wanted: Sequence[int], noise: Tensor) -> tuple[Tensor, Memory]:
        done = actions.shape[1]
        self.check_chunk(done, wanted)
        kept = sorted({*wanted, done, max(done - 1, 1)})
        poses, arm = self.poses(memory, actions, kept), None
        if self.overlay is not None and poses is not None and memory.pose is not None:
            arm = self.overlay.draw(memory.pose), self.overlay.draw(poses)
        made = self._made(memory, actions, kept, noise, arm)
        before = made[:, kept.index(done - 1)] if done > 1 else memory.now
        pose, behind = None if poses is None else poses[:, -1], None
        if arm is not None:
            last = [kept.index(k) for k in sorted({max(done - 1, 1), done})]  # others are there only if somebody looks
            behind = self._behind(memory, made[:, last], arm[1][:, last])
        after = Memory(made[:, -1], before, pose, behind)
        return made[:, [kept.index(k) for k in wanted]], after

    def _made(
        self, memory: Memory, actions: Tensor, kept: Sequence[int], noise: Tensor, arm: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """(B, L, C, h, w) the latents after `kept` numbers of actions (B, E, D).

        Args:
            arm: the drawn robot now (B, cameras, h, w, 5) and after each of them (B, L, ...), where it is drawn.
        """
        asked = self._asked(memory, actions, kept, arm)
        if self.config.form is Form.one_pass:
            made = unit_norm(asked.memory.now + self.dynamics(asked))
        else:
            flat = noise[:, :1].expand(-1, len(kept), -1, -1, -1)
            made = self.sample(self._field(asked, kept), flat.flatten(2)[:, None]).flatten(0, 1)
        if self.overlay is not None and arm is not None:
            made = self.overlay.fill(made, arm[1].flatten(0, 1), self.sight.codec)
        return made.view(len(actions), len(kept), *memory.now.shape[1:])

    def _field(self, asked: Asked, wanted: Sequence[int]) -> Field:
        """The denoiser of the latents after `wanted` numbers of actions, (B, 1, L, C h w)."""
        latent = asked.memory.now

        def denoise(y: Tensor, s: float) -> Tensor:
            value = y[:, 0].unflatten(-1, latent.shape[1:]).flatten(0, 1)
            time = angle_of(torch.full((len(value),), s, device=y.device))
            out = self.dynamics(asked, (value * (1 + s * s) ** -0.5, time))
            return to_clean(PredictionType.v, out, value, s).flatten(1).view_as(y)

        shape = (len(latent) // len(wanted), 1, len(wanted), latent[0].numel())
        return Field(denoise, shape, tuple(wanted), SIGMA_MIN, SIGMA_MAX)

    def sample(self, field: Field, noise: Tensor) -> Tensor:
        """Walk a field from noise (B, 1, L, C h w) to latents (B, L, C, h, w) of unit norm."""
        sampler = self.config.sampler
        drawn = sampler.draw(field, noise, noise_levels(sampler.steps, field.sigma_min, field.sigma_max))
        shape = self.config.eyes.shape
        return unit_norm(drawn[:, 0].flatten(0, 1).view(-1, *shape)).view(len(drawn), -1, *shape)

    def _asked(
        self, memory: Memory, actions: Tensor, wanted: Sequence[int], arm: tuple[Tensor, Tensor] | None
    ) -> Asked:
        """What the network is asked for B films x L numbers of actions at once."""
        count, each = len(actions), len(wanted)
        rows = torch.arange(count, device=actions.device).repeat_interleave(each)
        missing = self.horizon - actions.shape[1]
        told = F.pad(actions, (0, 0, 0, missing))[rows]
        k = torch.tensor(wanted, device=actions.device).repeat(count)
        maps = None
        if self.overlay is not None and arm is not None:
            maps = torch.cat([self.overlay.maps(arm[0])[rows], self.overlay.maps(arm[1].flatten(0, 1))], 1)
        return Asked(memory.rows(rows), told, self.action_scale.scale(told), k, maps)
