"""Time until a long context learnt in stages has the held-out loss of the same one learnt end to end, on real pictures.

Equal on both sides: the windows of each batch and their order, the transformer, the ResNet-18, threads, and what is
measured: the squared error of the noise that is predicted for held-out windows. In stages, as in past-token prediction
(arXiv 2505.09561): the encoder with one frame, then each frame embedded once, then the long context on what is kept.
All three are counted. They train in turns of some CPU seconds; the stages wait while their loss is the lower one.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...configs.spec import ACTION, IMAGES, STATE, Window
from ...policies.data.dataset import Dataset, split_episodes
from ...policies.data.resident import ResidentWindows
from ...policies.data.windows import RowReader, Windows
from ...policies.learning.loop import BatchOrder, Loop, Pace
from ...policies.learning.optimizer import Optimize
from ...policies.models.diffusion import DiffusionConfig
from ...policies.networks.eyes import Vision
from ...policies.networks.resnet import ResNetConfig
from ...policies.networks.transformer import TransformerConfig
from ...policies.policy import Scale
from .learn import Side, noise_error, open_seen, scales_of, take_turns
from .stages import HORIZON, Context

HELD_OUT = 256  # windows at most
SHORT = Window(observe=(0,), horizon=HORIZON)  # of the encoder's stage
AT_ONCE = 64  # frames that are embedded together
LEAD = 0.25  # of all turns: the encoder's stage


def compare_stages_learning(data: str, context: Context, seconds: float, turns: int, seed: int = 0) -> dict:
    """Train end to end for `turns` turns of `seconds` CPU seconds, in stages for as many at most.

    Returns:
        the curves, and the CPU time of end to end at its least loss over that of the stages at that loss; None where
        these are not there. A loss of None: the encoder's stage, in which nothing acts yet.
    """
    dataset, camera = open_seen(data)
    with tempfile.TemporaryDirectory() as scratch:
        learning = Learning(dataset, camera, context, seed, Path(scratch))
        stages = Stages(learning, lead=LEAD * turns * seconds)
        whole = learning.loop(learning.window, None)
        held_out = learning.windows(learning.window, None, learning.held_out)
        sides = (
            Side("in stages", stages.step, stages.held_out),
            Side("end to end", lambda: _step(whole), lambda: learning.error(whole, held_out)),
        )
        take_turns(*sides, turns, seconds)
    return verdict(*sides) | {
        "data": data, "batch": context.batch, "pictures": context.pictures, "context": context.frames,
        "encoder_s": LEAD * turns * seconds, "embedding_s": stages.embedding,
    }  # fmt: skip


def verdict(stages: Side, whole: Side) -> dict:
    best = whole.best
    when = next(spent for spent, _, loss in whole.curve if loss == best)
    reached = next((spent for spent, _, loss in stages.curve if loss <= best), None)
    curves = {
        side.name: [(spent, steps, loss if math.isfinite(loss) else None) for spent, steps, loss in side.curve]
        for side in (stages, whole)
    }
    return {"curves": curves, "loss": best, "whole_s": when, "stages_s": reached, "ratio": reached and when / reached}


def table(result: dict) -> str:
    """`compare_stages_learning`'s result in words."""
    reached = "are never there"
    if result["stages_s"] is not None:
        reached = f"are there after {result['stages_s']:.0f} CPU s, {result['ratio']:.2g} times sooner"
    return (
        f"held-out loss of noise on {result['data']}, {result['context']} frames of {result['pictures']} px, "
        f"batch {result['batch']}\n"
        f"end to end is at {result['loss']:.4f} after {result['whole_s']:.0f} CPU s; stages {reached}, of which the "
        f"encoder took {result['encoder_s']:.0f} and embedding {result['embedding_s']:.0f}"
    )


@dataclass
class Learning:
    """What is equal on both sides."""

    dataset: Dataset
    camera: str
    context: Context
    seed: int
    scratch: Path
    loops: int = 0

    def __post_init__(self):
        self.training, self.held_out = split_episodes(self.dataset, 0.1, self.seed)
        self.scales = scales_of(self.dataset, self.training)
        frames = self.context.frames
        self.window = Window(observe=tuple(range(1 - frames, 1)), recall=tuple(range(1 - frames, 0)), horizon=HORIZON)

    def windows(self, window: Window, kept: RowReader | None, episodes: np.ndarray) -> ResidentWindows:
        """Of some episodes; `kept` is read in place of pictures."""
        size, given = {self.camera.removeprefix(IMAGES): (self.context.pictures,) * 2}, {}
        if kept is not None:
            size, given = {}, {self.camera: kept}
        found = Windows(self.dataset, window, (STATE, self.camera), episodes, size, pictures=given)
        return ResidentWindows(found, "cpu", 1e12)

    def loop(self, window: Window, kept: RowReader | None, encoders: torch.nn.Module | None = None) -> Loop:
        """The training of a new policy; on what is kept its encoders are frozen."""
        torch.manual_seed(self.seed)
        encoder, size = ResNetConfig(features=64), (self.context.pictures,) * 2
        vision = Vision(encoder=encoder, size=size)
        if encoders is not None:
            vision = Vision(encoder=encoder, size=size, init="bench", frozen=True)
        config = DiffusionConfig(
            window=window, inputs=(STATE, self.camera), vision=vision,
            network=TransformerConfig(width=128, depth=4, heads=4),
        )  # fmt: skip
        policy: Any = config.build(self.dataset.embodiment, self.scales)
        if encoders is not None:
            policy.eyes.encoders.load_state_dict(encoders.state_dict())
        plain = Windows(self.dataset, window, (STATE,), self.training)
        policy.prepare(plain.actions(20_000))
        windows = self.windows(window, kept, self.training)
        self.loops += 1
        run = self.scratch / str(self.loops)
        run.mkdir()
        return Loop(
            policy, windows, BatchOrder(len(windows), self.context.batch, self.seed),
            optimize=Optimize(lr=5e-4, warmup=100, ema=0.998), pace=Pace(steps=1_000_000), run=run, description={},
            validate=lambda model: {}, device="cpu",
        )  # fmt: skip

    def error(self, loop: Loop, held_out: ResidentWindows) -> float:
        """Squared error of the predicted noise by the averaged weights, on held-out windows spread over all."""
        acting: Any = loop.average.module.eval()
        chosen = np.unique(np.linspace(0, len(held_out) - 1, HELD_OUT).astype(np.int64))
        judged = [held_out(torch.from_numpy(some)) for some in np.array_split(chosen, math.ceil(len(chosen) / AT_ONCE))]
        with torch.no_grad():
            contexts = [acting.context(some) for some in judged]
        scaled = Scale.between(*self.scales.action).scale(torch.cat([some[ACTION] for some in judged]))

        def predict(noisy: Tensor, levels: Tensor, _: Tensor) -> Tensor:
            s = ((1 - levels) / levels).sqrt()
            sizes = [len(some[ACTION]) for some in judged]
            parts = zip((noisy / levels.sqrt()[:, None, None]).split(sizes), s.split(sizes), contexts, strict=True)
            clean = torch.cat([acting.denoise(y, each, context) for y, each, context in parts])
            return (noisy / levels.sqrt()[:, None, None] - clean) / s[:, None, None]

        return noise_error(predict, scaled)


class Stages:
    """The stages, one after the other: the encoder's for `lead` CPU seconds."""

    def __init__(self, learning: Learning, lead: float):
        self.learning, self.lead, self.embedding = learning, lead, 0.0
        self.loop = learning.loop(SHORT, None)
        self.judged: ResidentWindows | None = None

    def step(self) -> None:
        begun = time.process_time()
        _step(self.loop)
        self.lead -= time.process_time() - begun
        if self.judged is None and self.lead <= 0:
            self._go_on()

    def held_out(self) -> float:
        return math.inf if self.judged is None else self.learning.error(self.loop, self.judged)

    def _go_on(self) -> None:
        """Embed every frame once, and learn the long context on that."""
        learning, begun = self.learning, time.process_time()
        acting: Any = self.loop.average.module.eval()
        kept = Kept.of(acting, learning)
        self.loop = learning.loop(learning.window, kept, acting.eyes.encoders)
        self.judged = learning.windows(learning.window, kept, learning.held_out)
        self.embedding = time.process_time() - begun


@dataclass(frozen=True)
class Kept:
    """Embeddings (N, F) of a dataset's rows."""

    values: np.ndarray = field(repr=False)

    @classmethod
    @torch.no_grad()
    def of(cls, policy: Any, learning: Learning) -> Kept:
        camera, everything = learning.camera, np.concatenate([learning.training, learning.held_out])
        size = {camera.removeprefix(IMAGES): (learning.context.pictures,) * 2}
        frames = Windows(learning.dataset, SHORT, (camera,), everything, size).parts.pictures[camera]
        rows = np.arange(int(learning.dataset.lengths.sum()))
        parts = np.array_split(rows, math.ceil(len(rows) / AT_ONCE))
        encoder = policy.eyes.encoder(camera)
        read = (policy.eyes.embed(camera, torch.from_numpy(frames.read(some))) for some in parts)
        return cls(torch.cat([encoder.project(embedded) for embedded in read]).numpy())

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.values[rows]


def _step(loop: Loop) -> None:
    loop.train_step()
    loop.step += 1
