"""Walks along a field by a scheduler of diffusers, chosen by class name: beside the three solvers of `field.py`.

All that is usable rests on one fact: undone of its own scaling, the sample of a scheduler is our `y = x0 + s * noise`.

- Most read a training schedule, in which step i has alpha_i^2 = 1 / (1 + s_i^2). Our levels are handed over as that
  schedule (`trained_betas`, one training step a level), and each of its steps is visited, so a scheduler walks exactly
  the levels that our solvers walk. It is told epsilon = (y - D) / s, whatever the policy's network predicts.
- `FlowMatchEulerDiscreteScheduler` walks our levels as times t = s / (1 + s) of the straight path x = (1 - t) y, and is
  told the velocity noise - x0. `IPNDMScheduler` takes our levels as sines of the angle, and is told v.
- Those of Karras et al. (`EDM*`) have a schedule of their own, evenly spaced in s^(1/7), and take no levels: they
  walk it between the first and the last of ours. With data of unit width their output is v.

A scheduler computes in float32 and is told clean estimates that are bounded already; its own clipping is off. Known
entries need nothing else: their clean estimate is what is known, so they follow the path of that value. Where a
scheduler stops at the last level (`DEISMultistepScheduler`, `SASolverScheduler`) the clean estimate there is the
sample, as with our solvers. All other settings are its defaults.

Evaluations of the network for `steps` levels: as many; `HeunDiscreteScheduler` and the two `KDPM2*` make 2 steps - 1
(the latter between the levels, too), `PNDMScheduler` one more than steps, and it needs about ten to be of use.

Stochastic ones draw from one generator a sample, seeded by the sample's own starting noise: so neither the block nor
the number of candidates changes what a sample becomes, and a policy's seed is that of all of its noise. Ways to draw
that cannot be told a generator are refused. diffusers is imported when the first walk begins.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..configs.plugins import lookup
from .field import Denoise, PredictionType, from_clean

STOCHASTIC = (
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "SASolverScheduler",
)
ON_OUR_LEVELS = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "IPNDMScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
    *STOCHASTIC,
)
ON_THEIR_OWN = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
USABLE = tuple(sorted((*ON_OUR_LEVELS, *ON_THEIR_OWN)))

_DISTILLED = "it takes a distilled network's output for a sample, which the posterior mean of a field is not"
_TOKENS = "it draws discrete tokens"
_TREE = "its noise comes from a Brownian tree, which knows no generator a sample"
_INVERSE = "it walks from a sample to its noise"
_ONE_MODEL = "it is a variant of a usable one with the schedule of one model"
_PURE_NOISE = "it starts at pure noise, above the noise range of a field, and takes no levels"
_SCORE = "it is no scheduler with one step from a level to the next"
REFUSED = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": _DISTILLED,
    "CogVideoXDDIMScheduler": _ONE_MODEL,
    "CogVideoXDPMScheduler": _ONE_MODEL,
    "ConsistencyDecoderScheduler": _DISTILLED,
    "CosineDPMSolverMultistepScheduler": _TREE,
    "DDIMInverseScheduler": _INVERSE,
    "DDPMWuerstchenScheduler": _ONE_MODEL,
    "DPMSolverMultistepInverseScheduler": _INVERSE,
    "DPMSolverSDEScheduler": _TREE,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "FlowMapEulerDiscreteScheduler": _DISTILLED,
    "FlowMatchHeunDiscreteScheduler": _PURE_NOISE,
    "FlowMatchLCMScheduler": _DISTILLED,
    "HeliosDMDScheduler": _DISTILLED,
    "HeliosScheduler": _ONE_MODEL,
    "KarrasVeScheduler": _SCORE,
    "LCMScheduler": _DISTILLED,
    "LTXEulerAncestralRFScheduler": _ONE_MODEL,
    "RePaintScheduler": "it paints into a given picture",
    "SCMScheduler": _DISTILLED,
    "ScoreSdeVeScheduler": _SCORE,
    "ScoreSdeVpScheduler": _SCORE,
    "TCDScheduler": _DISTILLED,
    "UnCLIPScheduler": _ONE_MODEL,
    "VQDiffusionScheduler": _TOKENS,
}


def check_scheduler(name: str) -> None:
    """Refuse what does not walk a field here.

    Raises:
        ValueError: a scheduler of diffusers that cannot, with the reason.
        LookupError: another name, listing the usable ones.
    """
    reason = "it is written in JAX" if name.startswith("Flax") else REFUSED.get(name)
    if reason:
        raise ValueError(f"scheduler '{name}' cannot walk a field: {reason}. Usable: {', '.join(USABLE)}")
    lookup("scheduler", name, dict.fromkeys(USABLE))


def sample_by(
    name: str,
    field: Denoise,
    noise: Tensor,
    levels: Sequence[float],
    *,
    clip: float | None = 1.0,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Walk from noise to a clean sample by the scheduler of diffusers called `name`; else as `field.sample`.

    Args:
        noise: standard normal (..., T, D); each (T, D) is one sample. The start is the first level times noise.
    Raises:
        ValueError, LookupError: a name that is not usable (`check_scheduler`), or levels beyond float32.
    """
    check_scheduler(name)
    scheduler, path, prediction_type = _prepared(name, levels, noise.device)
    options = {"generator": _generators(noise)} if name in STOCHASTIC else {}

    def seen(x: Tensor, t: Tensor) -> Tensor:
        """What a network is to see of the scheduler's sample x."""
        return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x

    def width(s: float) -> float:
        """Our y over what a network sees."""
        return 1 + s if prediction_type is PredictionType.flow else math.hypot(1, s)

    # the start, in the scheduler's own scaling, one sample a row
    clean = path[0] * noise
    clean = clean if known is None else torch.where(known[1], known[0] + clean, clean)
    x = clean.reshape(-1, *noise.shape[-2:]) / (width(path[0]) * seen(torch.ones(()), scheduler.timesteps[0]))

    for t, s in zip(scheduler.timesteps, path, strict=True):
        y = width(s) * seen(x, t).view_as(noise)
        clean = field(y, s)
        clean = clean if clip is None else clean.clamp(-clip, clip)
        clean = clean if known is None else torch.where(known[1], known[0], clean)
        x = scheduler.step(from_clean(prediction_type, clean, y, s).view_as(x), t, x, **options).prev_sample
    stops_above_zero = hasattr(scheduler, "sigmas") and scheduler.sigmas[-1] > 0
    return clean if stops_above_zero else x.view_as(noise)


def seeds_in(noise: Tensor) -> list[int]:
    """One seed a row, taken from the first two numbers of the row's own float32 noise (M, ...)."""
    bits = noise.detach().cpu().float().flatten(1)[:, :2].contiguous().view(torch.int32).long() & 0x7FFFFFFF
    return [row[0] * 2**31 + row[-1] for row in bits.tolist()]


def _generators(noise: Tensor) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds_in(noise.reshape(-1, *noise.shape[-2:]))]


def _prepared(name: str, levels: Sequence[float], device: torch.device) -> tuple[Any, list[float], PredictionType]:
    """The scheduler at its first step, the level of each evaluation of the field, and what it is to be told."""
    ours = levels[:-1]
    if name in ON_THEIR_OWN:
        ends = {"sigma_min": ours[-1], "sigma_max": ours[0]}
        scheduler = _made(name, ends | {"sigma_data": 1.0, "prediction_type": "v_prediction"})
        scheduler.set_timesteps(len(ours), device=device)
        return scheduler, scheduler.sigmas[:-1].tolist(), PredictionType.v

    if name == "FlowMatchEulerDiscreteScheduler":
        scheduler = _made(name, {})
        scheduler.set_timesteps(sigmas=[s / (1 + s) for s in ours], device=device)
        times = scheduler.sigmas[:-1].double()
        return scheduler, (times / (1 - times)).tolist(), PredictionType.flow

    if name == "IPNDMScheduler":  # its "betas" are sines of the angle, with the 0 at the end
        scheduler = _made(name, {"trained_betas": [s / math.hypot(1, s) for s in levels]})
        scheduler.set_timesteps(len(ours), device=device)
        return scheduler, scheduler.betas[:-1].double().arcsin().tan().tolist(), PredictionType.v

    scheduler = _made(name, _training_schedule(ours[::-1]))
    steps = range(len(ours))
    if name == "DPMSolverSinglestepScheduler":  # knows no "trailing"
        scheduler.set_timesteps(timesteps=list(reversed(steps)), device=device)
    else:
        scheduler.set_timesteps(len(ours), device=device)
    kept = scheduler.alphas_cumprod.double()
    logs = (((1 - kept) / kept).log() / 2).numpy()
    if not np.isfinite(logs).all():
        raise ValueError(f"{name} computes in float32, which does not resolve the levels {ours[-1]:g} .. {ours[0]:g}")
    return scheduler, np.exp(np.interp(scheduler.timesteps.cpu().numpy(), steps, logs)).tolist(), PredictionType.epsilon


def _training_schedule(rising: Sequence[float]) -> dict[str, Any]:
    """Settings of a scheduler that was trained at these levels alone, visits all of them, and bounds nothing."""
    kept = [1.0, *(1 / (1 + s * s) for s in rising)]
    return {
        "num_train_timesteps": len(rising),
        "trained_betas": [1 - after / before for before, after in pairwise(kept)],
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "set_alpha_to_one": True,  # the last step goes to level 0
        "lower_order_final": True,
        "skip_prk_steps": True,
        "tau_func": lambda step: 1.0,  # of SASolver: its default draws noise at steps 200 .. 800 only
    }


def _made(name: str, settings: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers with those of the settings that its class knows."""
    import diffusers

    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in settings.items() if key in known})
