"""Time until our diffusion policy has the held-out loss of stock lerobot's, on the same pictures of a real dataset.

Equal on both sides: the windows of each batch and their order, the U-Net, the ResNet-18, threads, and what is measured:
the mean squared error of the noise that is predicted for held-out windows, at lerobot's own noise levels, with the same
noise. They train in turns of some CPU seconds; ours waits while its loss is the lower one, for nothing more is asked of
it. What differs is how each learns: lerobot with its own optimiser, schedule and `update_policy`; ours with several
noise draws for each encoded observation, its own noise levels, and averaged weights, which are what acts. Neither
varies the pictures, and no loader is measured: the data are in memory.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...configs.spec import ACTION, IMAGES, STATE, Window
from ...policies.data.dataset import Dataset, split_episodes
from ...policies.data.open import open_dataset
from ...policies.data.resident import ResidentWindows
from ...policies.data.statistics import action_range, statistics
from ...policies.data.windows import Windows
from ...policies.learning.loop import BatchOrder, Loop, Pace
from ...policies.learning.optimizer import Optimize
from ...policies.models.diffusion import DiffusionConfig
from ...policies.policy import Scale, Scales
from .policy import Size, equal_network, equal_vision, lerobot_step

HELD_OUT = 512  # windows at most
WINDOW = Window(observe=(-1, 0), horizon=16)


@dataclass
class Side:
    """One side: its step, its loss, and what was measured so far."""

    name: str
    step: Callable[[], object]
    held_out: Callable[[], float]
    spent: float = 0.0  # CPU seconds of training
    steps: int = 0

    def __post_init__(self):
        self.curve: list[tuple[float, int, float]] = []  # (CPU seconds, steps, held-out loss)

    @property
    def best(self) -> float:
        """The least held-out loss so far."""
        return min((loss for _, _, loss in self.curve), default=np.inf)

    def take_turn(self, seconds: float) -> None:
        """Train for some seconds of CPU time, then measure, which is not counted."""
        began = time.process_time()
        while time.process_time() - began < seconds:
            self.step()
            self.steps += 1
        self.spent += time.process_time() - began
        self.curve.append((self.spent, self.steps, self.held_out()))
        print(f"{self.name}: {self.spent:.0f} CPU s, {self.steps} steps, held-out loss {self.curve[-1][2]:.4f}")


def compare_learning(data: str, size: Size, seconds: float, turns: int, draws: int, seed: int = 0) -> dict:
    """Train lerobot's on `data` for `turns` turns of `seconds` CPU seconds, ours for as many at most.

    Returns:
        the curves, and the CPU time of lerobot at its least loss over ours at that loss; None where ours is not there.
    """
    dataset, camera = open_seen(data)
    training, held_out = split_episodes(dataset, 0.1, seed)
    images = {camera.removeprefix(IMAGES): (size.pictures, size.pictures)}
    windows = [Windows(dataset, WINDOW, (STATE, camera), some, images) for some in (training, held_out)]
    chunks, sets = windows[0].actions(20_000), [ResidentWindows(one, "cpu", 1e12) for one in windows]
    judged = sets[1](torch.from_numpy(np.unique(np.linspace(0, len(sets[1]) - 1, HELD_OUT).astype(np.int64))))
    scales = scales_of(dataset, training)
    with tempfile.TemporaryDirectory() as scratch:
        ours = _ours(dataset, camera, sets[0], chunks, judged, size, scales, draws, seed, Path(scratch))
        theirs = _theirs(dataset, camera, sets[0], judged, size, scales, seed)
        take_turns(ours, theirs, turns, seconds)
    return _verdict(ours, theirs) | {"data": data, "batch": size.batch, "pictures": size.pictures, "noise_draws": draws}


def take_turns(ours: Side, theirs: Side, turns: int, seconds: float) -> None:
    """Theirs for all turns; ours until it is ahead, and again when it is not."""
    for turn in range(1, turns + 1):
        theirs.take_turn(seconds)
        while ours.best > theirs.best and len(ours.curve) < turn:
            ours.take_turn(seconds)


def _verdict(ours: Side, theirs: Side) -> dict:
    best = min(loss for _, _, loss in theirs.curve)
    when = next(spent for spent, _, loss in theirs.curve if loss == best)
    reached = next((spent for spent, _, loss in ours.curve if loss <= best), None)
    curves = {side.name: side.curve for side in (ours, theirs)}
    return {"curves": curves, "loss": best, "lerobot_s": when, "ours_s": reached, "ratio": reached and when / reached}


def table(result: dict) -> str:
    """`compare_learning`'s result in words."""
    reached = (
        "never"
        if result["ours_s"] is None
        else f"after {result['ours_s']:.0f} CPU s, {result['ratio']:.2g} times sooner"
    )
    curves = result["curves"]
    shape = f"batch {result['batch']}, {result['pictures']} px, {result['noise_draws']} noise draws of ours"
    return (
        f"held-out loss of noise on {result['data']}, {shape}\n"
        f"lerobot is at {result['loss']:.4f} after {result['lerobot_s']:.0f} CPU s; ours {reached}\n"
        f"at the end: lerobot {curves['lerobot'][-1][2]:.4f}, ours {curves['understudy'][-1][2]:.4f} "
        f"(it waited at {curves['understudy'][-1][0]:.0f} CPU s)"
    )


def open_seen(data: str) -> tuple[Dataset, str]:
    """A dataset with its states and first camera."""
    looked = open_dataset(data, columns=(STATE,))
    if not looked.cameras:
        raise ValueError(f"{data} has no camera; this bench learns from pictures")
    camera = IMAGES + next(iter(looked.cameras)).removeprefix(IMAGES)
    return open_dataset(data, columns=(STATE, camera)), camera


def scales_of(dataset: Dataset, training: np.ndarray) -> Scales:
    stats = statistics(dataset, (STATE, ACTION), training)
    one = stats[STATE]
    return Scales(
        action=action_range(stats[ACTION]), states={STATE: (tuple(one.mean.tolist()), tuple(one.std.tolist()))}
    )


def _ours(
    dataset, camera, windows, chunks, judged, size: Size, scales: Scales, draws: int, seed: int, scratch: Path
) -> Side:
    torch.manual_seed(seed)
    vision = dataclasses.replace(equal_vision(), size=(size.pictures, size.pictures))
    config = DiffusionConfig(
        window=WINDOW, inputs=(STATE, camera), network=equal_network(size), vision=vision, noise_draws=draws
    )
    policy = config.build(dataset.embodiment, scales)
    policy.prepare(chunks)
    loop = Loop(
        policy, windows, BatchOrder(len(windows), size.batch, seed), optimize=Optimize(lr=5e-4, warmup=100, ema=0.998),
        pace=Pace(steps=1_000_000), run=scratch, description={}, validate=lambda model: {}, device="cpu",
    )  # fmt: skip

    def step() -> None:
        loop.train_step()
        loop.step += 1

    def predict(noisy: Tensor, levels: Tensor, scaled: Tensor) -> Tensor:
        acting: Any = loop.average.module.eval()
        s = ((1 - levels) / levels).sqrt()
        y = noisy / levels.sqrt()[:, None, None]
        clean = acting.denoise(y, s, acting.context(judged))
        return (y - clean) / s[:, None, None]

    action = Scale.between(*scales.action)
    return Side("understudy", step, lambda: noise_error(predict, action.scale(judged[ACTION])))


def _theirs(dataset, camera, windows, judged, size: Size, scales: Scales, seed: int) -> Side:
    order, action, state = (
        BatchOrder(len(windows), size.batch, seed),
        Scale.between(*scales.action),
        Scale(*scales.states[STATE]),
    )
    dims = {STATE: len(dataset.embodiment.state), ACTION: len(dataset.embodiment.action)}
    policy, update = lerobot_step(size, camera, dims)
    done = 0

    def read(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pictures = batch[camera].movedim(-1, -3).float() / 255
        scaled = {STATE: state.scale(batch[STATE]), ACTION: action.scale(batch[ACTION])}
        return {**scaled, camera: pictures, "action_is_pad": ~batch["action.valid"]}

    def step() -> None:
        nonlocal done
        update(read(windows(order.indices(done))))
        done += 1

    def predict(noisy: Tensor, levels: Tensor, scaled: Tensor) -> Tensor:
        policy.eval()
        seen = read(judged)
        seen["observation.images"] = seen.pop(camera)[:, :, None]
        table = policy.diffusion.noise_scheduler.alphas_cumprod
        steps = (table[None] - levels[:, None]).abs().argmin(1)
        out = policy.diffusion.unet(noisy, steps, global_cond=policy.diffusion._prepare_global_conditioning(seen))
        policy.train()
        return out

    return Side("lerobot", step, lambda: noise_error(predict, action.scale(judged[ACTION])))


@torch.no_grad()
def noise_error(predict: Callable[[Tensor, Tensor, Tensor], Tensor], scaled: Tensor) -> float:
    """Mean squared error of the predicted noise; chunks, levels and noise are the same at every call."""
    rng = torch.Generator().manual_seed(0)
    table = _levels()
    levels = table[torch.randint(0, len(table), (len(scaled),), generator=rng)]
    noise = torch.randn(scaled.shape, generator=rng)
    noisy = levels.sqrt()[:, None, None] * scaled + (1 - levels).sqrt()[:, None, None] * noise
    return float((predict(noisy, levels, scaled) - noise).square().mean())


def _levels() -> Tensor:
    """The share of signal, alpha bar, of lerobot's noise levels that both sides are trained at."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    table = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    ratio = ((1 - table) / table).sqrt()
    return table[(ratio >= 0.01) & (ratio <= 64)]
