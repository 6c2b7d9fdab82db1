"""A training step of a long context on kept embeddings beside the same one end to end, and the memory that both take.

What past-token prediction trains in its last stage (arXiv 2505.09561): one camera, many frames. Equal on both sides:
windows, transformer, ResNet-18. Kept embeddings are read in place of pictures, whose encoder is frozen; end to
end every frame is encoded, and the encoder is trained. Peak memory is measured in a process for each side.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ...configs.children import calling
from ...configs.spec import ACTION, STATE, Window
from ...policies.learning.loop import BatchOrder, Loop, Pace
from ...policies.learning.optimizer import Optimize
from ...policies.models.diffusion import DiffusionConfig
from ...policies.networks.eyes import Vision
from ...policies.networks.resnet import ResNetConfig
from ...policies.networks.transformer import TransformerConfig
from .loader import peak_mib
from .policy import ACTIONS, STATES, TOP, Contender, Size, _count, _embodiment, _scales, race

HORIZON = 16


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is equal on both sides."""

    frames: int = 16  # O; one action less is recalled
    pictures: int = 84  # px
    batch: int = 64


def compare_stages(context: Context, pairs: int, seconds: float) -> dict:
    """The race of both steps, and the peak memory of each side in MiB, imports left out."""
    with tempfile.TemporaryDirectory() as scratch:
        kept, whole = (step(context, kept, Path(scratch) / str(kept)) for kept in (True, False))
        result = race(kept, whole, pairs, seconds)
    memory = {name: _peak(context, kept) for name, kept in (("embeddings", True), ("end to end", False))}
    return result | {
        "peak_mib": memory,
        "context": context.frames,
        "pictures": context.pictures,
        "batch": context.batch,
    }


def step(context: Context, kept: bool, scratch: Path) -> Contender:
    """A training step on kept embeddings, or end to end."""
    encoder = ResNetConfig(features=64)
    vision = Vision(encoder=encoder, init="bench", frozen=True) if kept else Vision(encoder=encoder)
    config = DiffusionConfig(
        window=Window(
            observe=tuple(range(1 - context.frames, 1)), recall=tuple(range(1 - context.frames, 0)), horizon=HORIZON
        ),
        inputs=(STATE, TOP),
        network=TransformerConfig(width=128, depth=4, heads=4),
        vision=vision,
    )
    torch.manual_seed(0)
    policy = config.build(_embodiment(Size(pictures=context.pictures)), _scales())
    batch = _batch(context, encoder.features if kept else 0)
    scratch.mkdir()
    loop = Loop(
        policy, lambda indices: batch, BatchOrder(context.batch, context.batch, 0), optimize=Optimize(),
        pace=Pace(steps=1_000_000), run=scratch, description={}, validate=lambda model: {}, device="cpu",
    )  # fmt: skip
    return Contender("embeddings" if kept else "end to end", _count(policy), loop.train_step)


def _batch(context: Context, width: int) -> dict[str, torch.Tensor]:
    """Random windows; of pictures, or of embeddings of `width` numbers."""
    rng, shape = torch.Generator().manual_seed(0), (context.batch, context.frames)
    tokens = context.frames - 1 + HORIZON
    side = context.pictures
    seen = (
        torch.randn(*shape, width, generator=rng)
        if width
        else torch.randint(0, 256, (*shape, side, side, 3), generator=rng, dtype=torch.uint8)
    )
    return {
        STATE: torch.rand(*shape, STATES, generator=rng),
        TOP: seen,
        "observation.valid": torch.ones(shape, dtype=torch.bool),
        ACTION: torch.rand(context.batch, tokens, ACTIONS, generator=rng) * 2 - 1,
        "action.valid": torch.ones(context.batch, tokens, dtype=torch.bool),
    }


def table(result: dict) -> str:
    """`compare_stages`'s result in words."""
    kept, whole = result["sides"]
    shape = f"{result['context']} frames of {result['pictures']} px, batch {result['batch']}"
    lines = [f"{f'training step, {shape}':<58}{'ms':>10}{'peak MiB':>10}"]
    for side in (whole, kept):
        lines.append(f"{side['name']:<58}{side['ms']:>10.2f}{result['peak_mib'][side['name']]:>10.0f}")
    longer, cpu = 1 / result["ratio"], 1 / result["cpu_ratio"]
    pairs = f"median of {len(result['ratios'])} interleaved pairs"
    lines.append(f"end to end takes {longer:.3g} times as long ({cpu:.3g} in CPU time), {pairs}")
    return "\n".join(lines)


def _peak(context: Context, kept: bool) -> float:
    command = calling(f"{__name__}:main", context.frames, context.pictures, context.batch, int(kept))
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"measuring memory failed: {reason}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(frames: str, pictures: str, batch: str, kept: str) -> None:
    """Print what three steps of one side take, in MiB."""
    from ...configs.machine import prepare

    prepare()
    imports, context = peak_mib(), Context(frames=int(frames), pictures=int(pictures), batch=int(batch))
    with tempfile.TemporaryDirectory() as scratch:
        side = step(context, bool(int(kept)), Path(scratch) / "run")
        for _ in range(3):
            side.work()
    print(json.dumps(peak_mib() - imports))
