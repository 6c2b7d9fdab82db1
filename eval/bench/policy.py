"""Training step and action chunk of our diffusion policy beside stock lerobot's, in one process, in interleaved pairs.

Equal on both sides: the U-Net (channels, kernel, groups, FiLM), batch, horizon, two observed frames, solver (DDIM) and
its steps, threads and allocator. What differs works against us: lerobot is handed scaled inputs, ours scales inside the
step; ours also averages its weights after each step, which lerobot does not do. The data are random numbers in memory,
so no loader is measured. lerobot's step is its own `update_policy`, ours the step of our training loop.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...configs.spec import ACTION, SCENE, STATE, Embodiment, Window
from ...policies.learning.loop import BatchOrder, Loop, Pace
from ...policies.learning.optimizer import Optimize
from ...policies.models.diffusion import DiffusionConfig
from ...policies.models.generative import GenerativeConfig, GenerativePolicy, Sampler
from ...policies.models.one_step import OneStepConfig
from ...policies.networks.network import NetworkConfig
from ...policies.networks.unet import UNetConfig
from ...policies.policy import LaneNoise, Past, Scales

STATES, SCENES, ACTIONS = 2, 16, 2  # dimensions, those of PushT


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is equal on both sides."""

    channels: tuple[int, ...] = (64, 128, 256)  # of the U-Net's levels
    batch: int = 64  # windows a training step
    horizon: int = 16  # actions of a chunk
    solver_steps: int = 10  # DDIM steps of a chunk
    observations: int = 1  # planned for at a time


@dataclass(frozen=True)
class Contender:
    """One side: its name, size and one repetition of its work."""

    name: str
    parameters: int
    work: Callable[[], object]


def race(first: Contender, second: Contender, pairs: int, seconds: float) -> dict:
    """Time both in `pairs` interleaved pairs, each side about `seconds` a turn, who begins alternating.

    Returns:
        median milliseconds of both, and the ratio first / second of each pair, with its median.
    """
    counts = {side.name: _repetitions(side, seconds) for side in (first, second)}
    times: dict[str, list[float]] = {first.name: [], second.name: []}
    for turn in range(pairs):
        for side in (first, second) if turn % 2 == 0 else (second, first):
            times[side.name].append(_milliseconds(side, counts[side.name]))
    ratios = [a / b for a, b in zip(times[first.name], times[second.name], strict=True)]
    return {
        "sides": [
            {"name": side.name, "parameters": side.parameters, "ms": statistics.median(times[side.name])}
            for side in (first, second)
        ],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def compare_training(size: Size, pairs: int, seconds: float = 1.0) -> dict:
    """A training step of ours against lerobot's, and ours with its own default network."""
    with tempfile.TemporaryDirectory() as scratch:
        peer = lerobot_training(size)
        equal = race(our_training(size, equal_network(size), Path(scratch) / "equal"), peer, pairs, seconds)
        default = race(our_training(size, None, Path(scratch) / "default"), peer, pairs, seconds)
    return {"equal network": equal, "our default network": default}


def compare_latency(size: Size, pairs: int, seconds: float = 1.0) -> dict:
    """The time of a chunk of actions of ours against lerobot's: equal network, in one jump too, and our default."""
    peer, network = lerobot_latency(size), equal_network(size)
    return {
        "equal network": race(our_latency(size, network), peer, pairs, seconds),
        "equal network, one step": race(our_latency(size, network, OneStepConfig, steps=1), peer, pairs, seconds),
        "our default network": race(our_latency(size, None), peer, pairs, seconds),
    }


def equal_network(size: Size) -> NetworkConfig:
    return UNetConfig(channels=size.channels, kernel=5, groups=8, time_width=128, film_scale=True)


def our_policy(
    size: Size, network: NetworkConfig | None, kind: type[GenerativeConfig] = DiffusionConfig, steps: int | None = None
) -> GenerativePolicy:
    """A fresh policy of a kind; `network` None keeps the default one, `steps` None those of `size`."""
    torch.manual_seed(0)
    chosen = {} if network is None else {"network": network}
    config = kind(
        window=Window(observe=(-1, 0), horizon=size.horizon),
        inputs=(STATE, SCENE),
        sampler=Sampler(steps=steps or size.solver_steps),
        **chosen,
    )
    return config.build(_embodiment(), _scales())


def our_training(size: Size, network: NetworkConfig | None, scratch: Path) -> Contender:
    policy, batch = our_policy(size, network), _batch(size)
    batch |= {"action.valid": ~batch.pop("action_is_pad")}
    batch |= {"observation.valid": torch.ones(size.batch, 2, dtype=torch.bool)}
    scratch.mkdir()
    loop = Loop(
        policy,
        lambda indices: batch,
        BatchOrder(size.batch, size.batch, 0),
        optimize=Optimize(),
        pace=Pace(steps=1_000_000),
        run=scratch,
        description={},
        validate=lambda model: {},
        device="cpu",
    )
    return Contender("understudy", _count(policy), loop.train_step)


def our_latency(
    size: Size, network: NetworkConfig | None, kind: type[GenerativeConfig] = DiffusionConfig, steps: int | None = None
) -> Contender:
    """A chunk of actions drawn with `steps` evaluations (default those of `size`) of a policy of this kind."""
    policy, batch = our_policy(size, network, kind, steps).eval(), _batch(size, size.observations)
    past = Past(
        obs={key: batch[key] for key in (STATE, SCENE)},
        obs_times=(-1, 0),
        obs_valid=torch.ones(size.observations, 2, dtype=torch.bool),
        actions=torch.zeros(size.observations, 0, ACTIONS),
        action_times=(),
        action_valid=torch.ones(size.observations, 0, dtype=torch.bool),
        now=torch.zeros(size.observations, dtype=torch.int64),
    )
    starts = np.arange(size.observations)
    return Contender("understudy", _count(policy), lambda: policy.plan(past, 1, LaneNoise(0, starts, starts)))


def lerobot_policy(size: Size):
    """A fresh lerobot `DiffusionPolicy` of the same size on the same observations."""
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as PeerConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    torch.manual_seed(0)
    inputs = {
        STATE: PolicyFeature(FeatureType.STATE, (STATES,)),
        SCENE: PolicyFeature(FeatureType.ENV, (SCENES,)),
    }
    config = PeerConfig(
        input_features=inputs,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        horizon=size.horizon,
        n_obs_steps=2,
        down_dims=size.channels,
        kernel_size=5,
        n_groups=8,
        diffusion_step_embed_dim=128,
        use_film_scale_modulation=True,
        noise_scheduler_type="DDIM",
        num_inference_steps=size.solver_steps,
        device="cpu",
        push_to_hub=False,
    )
    return DiffusionPolicy(config)


def lerobot_training(size: Size) -> Contender:
    policy, batch = lerobot_policy(size), _batch(size)
    from accelerate import Accelerator
    from lerobot.scripts.lerobot_train import update_policy
    from lerobot.utils.logging_utils import AverageMeter, MetricsTracker

    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    schedule = policy.config.get_scheduler_preset().build(optimizer, 1_000_000)
    accelerator = Accelerator(cpu=True)
    model, optimizer, schedule = accelerator.prepare(policy, optimizer, schedule)
    meters = {name: AverageMeter(name) for name in ("loss", "grad_norm", "lr", "update_s")}
    tracker = MetricsTracker(size.batch, 1, 1, meters, accelerator=accelerator)

    def step() -> None:
        update_policy(tracker, model, batch, optimizer, preset.grad_clip_norm, accelerator, schedule)

    return Contender("lerobot", _count(policy), step)


def lerobot_latency(size: Size) -> Contender:
    policy, batch = lerobot_policy(size).eval(), _batch(size, size.observations)
    seen = {key: batch[key] for key in (STATE, SCENE)}

    def chunk() -> torch.Tensor:
        with torch.no_grad():
            return policy.diffusion.generate_actions(seen)

    return Contender("lerobot", _count(policy), chunk)


def _batch(size: Size, count: int | None = None) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    count = count or size.batch
    return {
        STATE: torch.rand(count, 2, STATES, generator=rng) * 2 - 1,
        SCENE: torch.rand(count, 2, SCENES, generator=rng) * 2 - 1,
        ACTION: torch.rand(count, size.horizon, ACTIONS, generator=rng) * 2 - 1,
        "action_is_pad": torch.zeros(count, size.horizon, dtype=torch.bool),
    }


def _embodiment() -> Embodiment:
    actions = tuple(f"a{i}" for i in range(ACTIONS))
    scene = tuple(f"k{i}" for i in range(SCENES))
    return Embodiment(
        name="bench",
        action=actions,
        action_units=("1",) * ACTIONS,
        limits=((-1.0, 1.0),) * ACTIONS,
        rate=10.0,
        state=actions,
        state_units=("1",) * STATES,
        scene=scene,
        scene_units=("1",) * SCENES,
    )


def _scales() -> Scales:
    def unit(n: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (0.0,) * n, (1.0,) * n

    return Scales(action=((-1.0,) * ACTIONS, (1.0,) * ACTIONS), states={STATE: unit(STATES), SCENE: unit(SCENES)})


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _repetitions(side: Contender, seconds: float) -> int:
    for _ in range(3):
        side.work()
    return max(1, round(1000 * seconds / _milliseconds(side, 3)))


def _milliseconds(side: Contender, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        side.work()
    return 1000 * (time.perf_counter() - start) / count
