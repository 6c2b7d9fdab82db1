"""Training step and action chunk of our diffusion policy beside stock lerobot's, in one process, in interleaved pairs.

Equal on both sides: the U-Net (channels, kernel, groups, FiLM), batch, horizon, two observed frames, solver (DDIM) and
its steps, threads and allocator; with pictures also the pictures and the ResNet-18 that reads them. What differs works
against us: lerobot is handed scaled inputs and pictures as floats, ours scales inside the step; ours also averages its
weights after each step, which lerobot does not do. The data are random numbers in memory, so no loader is measured.
lerobot's step is its own `update_policy`, ours the step of our training loop.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...configs.spec import ACTION, IMAGES, SCENE, STATE, Embodiment, Window
from ...policies.learning.loop import BatchOrder, Loop, Pace
from ...policies.learning.optimizer import Optimize
from ...policies.models.diffusion import DiffusionConfig
from ...policies.models.generative import GenerativeConfig, GenerativePolicy, Sampler
from ...policies.models.one_step import OneStepConfig
from ...policies.networks.augment import Augment
from ...policies.networks.eyes import Vision
from ...policies.networks.network import NetworkConfig
from ...policies.networks.resnet import ResNetConfig
from ...policies.networks.unet import UNetConfig
from ...policies.policy import LaneNoise, Past, Scales

STATES, SCENES, ACTIONS = 2, 16, 2  # dimensions, those of PushT
TOP = IMAGES + "top"


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is equal on both sides."""

    channels: tuple[int, ...] = (64, 128, 256)  # of the U-Net's levels
    batch: int = 64  # windows a training step
    horizon: int = 16  # actions of a chunk
    solver_steps: int = 10  # DDIM steps of a chunk
    observations: int = 1  # planned for at a time
    pictures: int = 0  # height and width in px of a camera's pictures, read in place of the scene; 0: none
    device: str = "cpu"  # of both sides
    precision: str = "no"  # of training steps: no | bf16

    @property
    def inputs(self) -> tuple[str, str]:
        """Keys that both sides read."""
        return STATE, TOP if self.pictures else SCENE


@dataclass(frozen=True)
class Contender:
    """One side: its name, size and one repetition of its work."""

    name: str
    parameters: int
    work: Callable[[], object]


def race(first: Contender, second: Contender, pairs: int, seconds: float) -> dict:
    """Time both in `pairs` interleaved pairs, each side about `seconds` a turn, who begins alternating.

    Returns:
        median milliseconds of both, and the ratio first / second of each pair, with its median; the median ratio of
        CPU time too, which a busy machine spoils less.
    """
    counts = {side.name: _repetitions(side, seconds) for side in (first, second)}
    times: dict[str, list[tuple[float, float]]] = {first.name: [], second.name: []}
    for turn in range(pairs):
        for side in (first, second) if turn % 2 == 0 else (second, first):
            times[side.name].append(_milliseconds(side, counts[side.name]))
    both = [*zip(times[first.name], times[second.name], strict=True)]
    ratios = [a[0] / b[0] for a, b in both]
    return {
        "sides": [
            {"name": side.name, "parameters": side.parameters, "ms": statistics.median(t for t, _ in times[side.name])}
            for side in (first, second)
        ],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "cpu_ratio": statistics.median(a[1] / b[1] for a, b in both),
    }


def compare_training(size: Size, pairs: int, seconds: float = 1.0) -> dict:
    """A training step of ours against lerobot's, and ours with its own default network."""
    with tempfile.TemporaryDirectory() as scratch:
        peer = lerobot_training(size)
        ways: dict[str, dict] = {"equal network": {}, "our default network": {"network": None}}
        if size.device.startswith("cuda"):
            ways["equal network, recorded"] = {"captured": True}
        results = {}
        for name, way in ways.items():
            network = way.pop("network", equal_network(size))
            ours = our_training(size, network, Path(scratch) / name.replace(", ", "-"), **way)
            results[name] = race(ours, peer, pairs, seconds)
    return results


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
    chosen: dict[str, Any] = {} if network is None else {"network": network}
    if size.pictures:
        chosen["vision"] = equal_vision()
    config = kind(
        window=Window(observe=(-1, 0), horizon=size.horizon),
        inputs=size.inputs,
        sampler=Sampler(steps=steps or size.solver_steps),
        **chosen,
    )
    return config.build(_embodiment(size), _scales())


def equal_vision() -> Vision:
    """lerobot's ResNet-18 with group norm and a spatial softmax of 32 keypoints; pictures are not varied."""
    encoder = ResNetConfig(width=64, blocks=(2, 2, 2, 2), keypoints=32, features=64)
    return Vision(encoder=encoder, augment=Augment(shift=0, brightness=0, contrast=0, saturation=0))


def our_training(size: Size, network: NetworkConfig | None, scratch: Path, captured: bool = False) -> Contender:
    """Our training step, `captured` as a CUDA graph that is replayed."""
    policy, batch = our_policy(size, network), _batch(size)
    batch |= {"action.valid": ~batch.pop("action_is_pad")}
    batch |= {"observation.valid": torch.ones(size.batch, 2, dtype=torch.bool, device=size.device)}
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
        device=size.device,
        precision=size.precision,
        captured=captured,
    )
    if not captured:
        return Contender("understudy", _count(policy), loop.train_step)
    loop.capture()
    return Contender("understudy", _count(policy), loop.take_step)


def our_latency(
    size: Size, network: NetworkConfig | None, kind: type[GenerativeConfig] = DiffusionConfig, steps: int | None = None
) -> Contender:
    """A chunk of actions drawn with `steps` evaluations (default those of `size`) of a policy of this kind."""
    policy = our_policy(size, network, kind, steps).eval().to(size.device)
    batch = _batch(size, size.observations)
    past = Past(
        obs={key: batch[key] for key in size.inputs},
        obs_times=(-1, 0),
        obs_valid=torch.ones(size.observations, 2, dtype=torch.bool, device=size.device),
        actions=torch.zeros(size.observations, 0, ACTIONS, device=size.device),
        action_times=(),
        action_valid=torch.ones(size.observations, 0, dtype=torch.bool, device=size.device),
        now=torch.zeros(size.observations, dtype=torch.int64, device=size.device),
    )
    starts = np.arange(size.observations)
    return Contender("understudy", _count(policy), lambda: policy.plan(past, 1, LaneNoise(0, starts, starts)))


def lerobot_policy(size: Size, camera: str = TOP, dims: Mapping[str, int] | None = None):
    """A fresh lerobot `DiffusionPolicy` of the same size on the same observations.

    Args:
        camera: key of the pictures.
        dims: numbers of the state and of an action, by key; default those of the made-up data.
    """
    dims = dims or {STATE: STATES, ACTION: ACTIONS}
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as PeerConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    torch.manual_seed(0)
    inputs = {
        STATE: PolicyFeature(FeatureType.STATE, (dims[STATE],)),
        SCENE: PolicyFeature(FeatureType.ENV, (SCENES,)),
        TOP: PolicyFeature(FeatureType.VISUAL, (3, size.pictures, size.pictures)),
    }
    inputs = {camera if key == TOP else key: inputs[key] for key in size.inputs}
    fresh = {"pretrained_backbone_weights": None, "use_group_norm": True}
    seen = {"crop_shape": None, "spatial_softmax_num_keypoints": 32, **fresh} if size.pictures else {}
    config = PeerConfig(
        input_features=inputs,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (dims[ACTION],))},
        horizon=size.horizon,
        n_obs_steps=2,
        down_dims=size.channels,
        kernel_size=5,
        n_groups=8,
        diffusion_step_embed_dim=128,
        use_film_scale_modulation=True,
        noise_scheduler_type="DDIM",
        num_inference_steps=size.solver_steps,
        device=size.device,
        push_to_hub=False,
        **seen,
    )
    return DiffusionPolicy(config)


def for_lerobot(size: Size, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch as lerobot reads it: pictures float (B, O, 3, h, w) in [0, 1], as its dataset gives them."""
    if not size.pictures:
        return dict(batch)
    return {**batch, TOP: batch[TOP].movedim(-1, -3).float() / 255}


def lerobot_training(size: Size) -> Contender:
    batch = for_lerobot(size, _batch(size))
    policy, update = lerobot_step(size)
    return Contender("lerobot", _count(policy), lambda: update(batch))


def lerobot_step(size: Size, camera: str = TOP, dims: Mapping[str, int] | None = None) -> tuple[Any, Callable]:
    """A fresh policy of `lerobot_policy`, and its own training step on a batch as it reads it."""
    policy = lerobot_policy(size, camera, dims)
    from accelerate import Accelerator
    from lerobot.scripts.lerobot_train import update_policy
    from lerobot.utils.logging_utils import AverageMeter, MetricsTracker

    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    schedule = policy.config.get_scheduler_preset().build(optimizer, 1_000_000)
    accelerator = Accelerator(cpu=size.device == "cpu", mixed_precision=size.precision)
    model, optimizer, schedule = accelerator.prepare(policy, optimizer, schedule)
    meters = {name: AverageMeter(name) for name in ("loss", "grad_norm", "lr", "update_s")}
    tracker = MetricsTracker(size.batch, 1, 1, meters, accelerator=accelerator)

    def step(batch: dict[str, torch.Tensor]) -> None:
        update_policy(tracker, model, batch, optimizer, preset.grad_clip_norm, accelerator, schedule)

    return policy, step


def lerobot_latency(size: Size) -> Contender:
    policy = lerobot_policy(size).eval().to(size.device)
    batch = for_lerobot(size, _batch(size, size.observations))
    seen = {key: batch[key] for key in size.inputs}
    if size.pictures:
        seen["observation.images"] = batch[TOP][:, :, None]  # its cameras, stacked

    def chunk() -> torch.Tensor:
        with torch.no_grad():
            return policy.diffusion.generate_actions(seen)

    return Contender("lerobot", _count(policy), chunk)


def _batch(size: Size, count: int | None = None) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    count = count or size.batch
    batch = {
        STATE: torch.rand(count, 2, STATES, generator=rng) * 2 - 1,
        SCENE: torch.rand(count, 2, SCENES, generator=rng) * 2 - 1,
        ACTION: torch.rand(count, size.horizon, ACTIONS, generator=rng) * 2 - 1,
        "action_is_pad": torch.zeros(count, size.horizon, dtype=torch.bool),
    }
    if size.pictures:
        shape = count, 2, size.pictures, size.pictures, 3
        batch[TOP] = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    return {key: value.to(size.device) for key, value in batch.items()}


def _embodiment(size: Size) -> Embodiment:
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
        cameras={"top": (size.pictures, size.pictures)} if size.pictures else {},
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
    return max(1, round(1000 * seconds / _milliseconds(side, 3)[0]))


def _milliseconds(side: Contender, count: int) -> tuple[float, float]:
    """Wall and CPU time of a repetition; what a GPU was given is waited for."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        side.work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / count, max(1000 * (time.process_time() - cpu) / count, 1e-9)
