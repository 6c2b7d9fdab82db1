"""How exact the import of a lerobot diffusion policy is, on real windows of a dataset.

    understudy study foreign_import out/foreign/pusht_diffusion out/pusht_states --windows 256

Prints, as JSON: the greatest difference between our action chunk and what lerobot's own `select_action` executes,
loaded by lerobot itself; the difference between lerobot's DDIM and our first-order walk over the same levels, without
a bound and with one (diffusers keeps the unbounded noise when it bounds the clean chunk, our sampler does not); and
what asking the network between two of its steps costs in denoising error (`foreign.diffusion.between_cost`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...policies.field import sample
from ...policies.foreign.diffusion import ForeignDiffusion, between_cost
from ...policies.policy import LaneNoise, Past

BETWEEN = (0, 2, 5, 10, 25, 50, 75, 90)  # steps k of the levels half-way between k and k + 1


@dataclass(frozen=True, kw_only=True)
class ForeignImport:
    """Compare an imported lerobot diffusion policy with lerobot's own, on the last tenth of a dataset's episodes."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy", "data")

    policy: str  # lerobot checkpoint or training folder
    data: str  # dataset
    episodes: str = "all"  # which of its episodes, for example 0-5,7-9
    without: str = ""  # episodes left out, for example 6
    columns: dict[str, list[str] | str] = field(default_factory=dict)  # {action: actions, observation.state: [a, b]}
    windows: int = 256  # spread evenly

    def run(self) -> None:
        from ...policies.data.dataset import split_episodes
        from ...policies.data.open import open_dataset
        from ...policies.data.windows import Windows
        from ...policies.foreign.planner import load_foreign
        from ...policies.learning.checkpoint import find_checkpoint
        from ...policies.policy import past_of

        torch.set_num_threads(1)
        policy, _ = load_foreign(find_checkpoint(self.policy))
        dataset = open_dataset(self.data, episodes=self.episodes, without=self.without, sources=self.columns)
        windows = Windows(dataset, policy.window, policy.inputs, split_episodes(dataset, 0.1, 0)[1])
        chosen = np.unique(np.linspace(0, len(windows) - 1, self.windows).astype(np.int64))
        batch = windows.gather(chosen)
        differences = check(policy, past_of(batch, policy.window, policy.inputs), len(chosen))
        costs = [dataclasses.asdict(cost) for cost in between_cost(policy, [batch], BETWEEN)]
        print(json.dumps(differences | {"windows": len(chosen), "between": costs}, indent=1))


def stock_actions(folder: Path, keys: Mapping[str, str], past: Past, noise: Tensor) -> Tensor:
    """What stock lerobot executes from this past, frame by frame through `select_action`: (B, E, D), units.

    Args:
        keys: our observation key -> the policy's, vectors only.
        noise: (B, T, D) that its sampling starts from.
    """
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    policy = DiffusionPolicy.from_pretrained(folder)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    policy.reset()

    actions, wait = [], len(past.obs_times) - 1
    policy._queues["action"].extend([torch.zeros(len(noise), noise.shape[2])] * wait)  # look on before acting
    for frame in range(wait + policy.config.n_action_steps):
        seen = {own: past.obs[key][:, min(frame, wait)] for key, own in keys.items()}
        actions.append(after(policy.select_action(before(seen), noise=noise)))
    return torch.stack(actions[wait:], 1)


@torch.no_grad()
def check(policy: ForeignDiffusion, past: Past, lanes: int) -> dict:
    """Differences to stock lerobot from `lanes` pasts; actions in units, chunks in the scaled space."""
    rng = LaneNoise(0, np.arange(lanes), np.zeros(lanes, np.int64))
    start = rng.normal(1, len(policy.window.actions), len(policy.embodiment.action))
    plan = policy.plan(past, 1, LaneNoise(0, np.arange(lanes), np.zeros(lanes, np.int64)))
    stock = stock_actions(policy.foreign.folder, policy.body.keys, past, start[:, 0])
    differences = {"plan": _far(plan.future[:, 0, : stock.shape[1]], stock), "action size": float(stock.abs().max())}
    if policy.scheduler == "DDIM":
        differences |= {f"walk, clip {clip}": _walk(policy, past, start, clip) for clip in (None, policy.sampler.clip)}
    return differences


def _walk(policy: ForeignDiffusion, past: Past, start: Tensor, clip: float | None) -> dict:
    """Our first-order walk over its levels beside lerobot's DDIM, both with this bound."""
    scheduler, levels = policy.policy.diffusion.noise_scheduler, policy.own_levels()
    kept = scheduler.config.clip_sample
    scheduler.register_to_config(clip_sample=clip is not None)
    theirs = policy._by_own_scheduler(past, start)
    scheduler.register_to_config(clip_sample=kept)
    widened = start * (1 + levels[0] ** 2) ** 0.5 / levels[0]  # lerobot begins at unit variance, not at s * noise
    return _far(sample(policy.field(past, 1), widened, levels, clip=clip), theirs)


def _far(ours: Tensor, theirs: Tensor) -> dict:
    apart = (ours - theirs).abs()
    return {"max": float(apart.max()), "rms": float(apart.square().mean().sqrt())}
