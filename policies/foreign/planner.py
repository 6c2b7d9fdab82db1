"""Policies made elsewhere: any lerobot checkpoint, and any callable that returns chunks of actions, as a `Planner`.

A lerobot diffusion policy has a field and composes with ours (`diffusion.py`); SmolVLA, pi0 and pi0.5 have one, too
(`flow.py`). All other types are black boxes:
their own processors, their own `predict_action_chunk`, one batched call for all lanes and candidates. Their noise is
keyed by lane (`noise.py`); where a policy draws in a way that cannot be keyed in a batch, each candidate is a
call of its own. Types without randomness (ACT) give K equal candidates.

Not supported: types that act otherwise than by chunks (`folder.REASONS`), and what lerobot builds only with
more packages than are installed (vision-language policies want `transformers`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...configs.protocols import keeps
from ...configs.spec import Embodiment, Window
from ..policy import Ensembles, Executes, LaneNoise, Past, Planner, Plans
from .body import Body, Settled, body_of, by_position
from .chunks import FAILURES, LeRobotChunks, does_not_plan, zeros
from .diffusion import ForeignDiffusion
from .flow import ForeignFlow, has_flow
from .folder import Foreign, read_json
from .noise import keyed, row_seeds
from .scale import (
    ForeignError,
    ForeignWarning,
    warn_of_constants,
)

NOW = Window(observe=(0,))
Chunks = Callable[[Mapping[str, Tensor]], Tensor | np.ndarray]


class ChunkPlanner(nn.Module, Executes, Ensembles, Planner):
    """A `Planner` around something that maps observations to chunks of actions.

    Args:
        chunks: observations key -> (M, O, ...), units, images uint8 -> actions (M, H, D), units, from now on.
        embodiment: who acts.
        window: `observe` offsets are handed over; at least `horizon` actions must come back.
        needs: observation keys that are handed over.
        n_action_steps: E, actions executed of each plan.
        batched: ask for all lanes and candidates at once; else one call each.
    """

    temporal_ensemble: float | None = None  # decay of the ensembling that the policy was made for; see `Agent`
    task_text: str | None = None  # what a policy that reads the text of a task was told; None: it reads none

    def __init__(
        self,
        chunks: Chunks,
        *,
        embodiment: Embodiment,
        window: Window,
        inputs: Sequence[str],
        n_action_steps: int,
        batched: bool = True,
    ):
        super().__init__()
        if window.recall:
            raise ValueError("a black box predicts no past actions; leave window.recall empty")
        if not 1 <= n_action_steps <= window.horizon:
            raise ValueError(f"n_action_steps must be within 1..{window.horizon} (the horizon), got {n_action_steps}")
        self.chunks, self.embodiment, self.window, self.inputs = chunks, embodiment, window, tuple(inputs)
        self.n_action_steps, self.batched = n_action_steps, batched
        self._told = False  # that it draws nothing

    def adopt(self, body: Body) -> None:
        """Act for this body from now on."""
        self.embodiment, self.inputs, self.chunks.keys = body.embodiment, tuple(body.keys), dict(body.keys)

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane, each from noise of its own key."""
        past, seeds = past.at(self.window), row_seeds(rng, n)
        rows = {key: past.obs[key].repeat_interleave(n, 0) for key in self.inputs}
        chunk = self._draw(rows, seeds, past.actions.device).to(past.actions)
        future = chunk[:, : self.window.horizon].unflatten(0, (-1, n))
        if n > 1 and not self._told and torch.equal(future, future[:, :1].expand_as(future)):
            self._told = True
            warnings.warn(
                f"the policy draws nothing: its {n} candidates are one and the same, so neither a critic nor a monitor"
                " changes or tells anything",
                ForeignWarning,
                stacklevel=2,
            )
        return Plans(future[:, :, :0], future, past.now)

    def _draw(self, rows: Mapping[str, Tensor], seeds: list[int], device: torch.device) -> Tensor:
        if self.batched:
            with keyed(seeds, device) as draws:
                chunk = self._ask(rows)
            if not draws.strayed:
                return chunk
            self.batched = False  # it draws in a way that cannot be told apart by row
        parts = []
        for row, seed in enumerate(seeds):
            with keyed([seed], device):
                parts.append(self._ask({key: value[row : row + 1] for key, value in rows.items()}))
        return torch.cat(parts)

    def _ask(self, rows: Mapping[str, Tensor]) -> Tensor:
        chunk = torch.as_tensor(self.chunks(rows), dtype=torch.float32)
        count, wanted = len(rows[self.inputs[0]]), (self.window.horizon, len(self.embodiment.action))
        if chunk.ndim != 3 or len(chunk) != count or chunk.shape[1] < wanted[0] or chunk.shape[2] != wanted[1]:
            raise ForeignError(
                f"the policy returned actions of shape {tuple(chunk.shape)} for {count} rows; it should be ({count}, at"
                f" least {wanted[0]}, {wanted[1]}): rows, actions from now on, dimensions"
            )
        return chunk


def callable_planner(
    chunks: Chunks,
    *,
    embodiment: Embodiment,
    inputs: Sequence[str],
    window: Window = NOW,
    n_action_steps: int = 8,
    batched: bool = True,
) -> ChunkPlanner:
    """Any callable that returns action chunks as a planner, to be judged, re-ranked and deployed like a policy.

    Randomness: draw from torch's global generator (the common functions, first dimension by row) and it is keyed by
    lane; draws from elsewhere, such as NumPy's, are the callable's own affair.

    See `ChunkPlanner` for the arguments.
    """
    return ChunkPlanner(
        chunks, embodiment=embodiment, window=window, inputs=inputs, n_action_steps=n_action_steps, batched=batched
    ).eval()


def load_foreign(
    folder: str | Path,
    embodiment: str | Path | Embodiment | None = None,
    *,
    black_box: bool = False,
    task: str = "",
) -> tuple[ForeignDiffusion | ForeignFlow | ChunkPlanner, dict]:
    """The policy of a lerobot checkpoint folder, ready to act.

    Args:
        embodiment: see `body.body_of`.
        black_box: leave a field unused that could be had.
        task: instruction for policies that read one.
    Returns:
        (policy, info) with info = {"path", "step", "type", "config", "train"}.
    Raises:
        ForeignError, LookupError, ImportError: what cannot be used, by name.
    """
    foreign = Foreign(Path(folder))
    body = body_of(foreign, embodiment)
    if foreign.kind == "diffusion" and not black_box:
        policy = ForeignDiffusion(foreign, body)
    elif has_flow(foreign) and not black_box:
        policy = ForeignFlow(foreign, body, task)
    else:
        policy = _black_box(foreign, body, task)
        policy.temporal_ensemble = foreign.temporal_ensemble
    warn_of_constants(foreign.folder, foreign.rules)
    policy.foreign, policy.body = foreign, body
    return policy.eval(), _about(foreign)


def settle(policy, world: Callable[[], Embodiment] | None) -> dict:
    """Let a policy whose body is a guess act for a world's, by position; what a manifest says of it, {} for ours.

    Where no world is given the guess stays.

    Raises:
        EmbodimentError: a world with another number of dimensions.
    """
    if not keeps(policy, Settled):
        return {}
    if policy.body.guessed and world is not None:
        policy.body = by_position(policy.foreign, policy.body, world())
        policy.adopt(policy.body)
    scheduler = None if isinstance(policy, ChunkPlanner) else policy.scheduler
    return {"body": policy.body.source, "scheduler": scheduler}


def instruct(policy, text: str) -> bool:
    """Give the text of the task to a policy, or to parents of it, that read one; whether any does.

    Warns of an empty text.
    """
    readers = [*_readers(policy)]
    for reader in readers:
        if not text:
            warnings.warn(
                f"{reader.foreign.folder} reads the text of a task, and neither the world nor --task_text gives one",
                ForeignWarning,
                stacklevel=3,
            )
        reader.task_text = policy.task_text = reader.chunks.task = text
    return bool(readers)


def reads_text(actor) -> bool:
    """Whether a policy of lerobot's, or a parent that is one, reads the text of its task."""
    return next(_readers(actor), None) is not None


def _readers(actor) -> Iterator[Any]:
    """Policies of lerobot's that read the text of their task: itself, or among its parents."""
    if getattr(getattr(actor, "chunks", None), "reads_text", False):
        yield actor
    for parent in getattr(actor, "parents", ()):
        yield from _readers(parent)


def _black_box(foreign: Foreign, body: Body, task: str) -> ChunkPlanner:
    chunks = LeRobotChunks(foreign, body.keys, task)
    config = chunks.policy.config
    observe = tuple(config.observation_delta_indices or (0,))
    horizon = _measure(chunks, body, len(observe))
    return ChunkPlanner(
        chunks,
        embodiment=body.embodiment,
        window=Window(observe=observe, horizon=horizon),
        inputs=tuple(body.keys),
        n_action_steps=min(getattr(config, "n_action_steps", horizon), horizon),
    )


@torch.no_grad()
def _measure(chunks: LeRobotChunks, body: Body, frames: int) -> int:
    """Length of the chunks, found by asking once about zeros. Raises ForeignError if that fails."""
    foreign = chunks.foreign
    try:
        with keyed([0, 1], torch.device("cpu")):
            chunk = chunks(zeros(body, frames))
    except FAILURES as error:
        raise does_not_plan(foreign, error) from error
    if chunk.ndim != 3 or len(chunk) != 2:
        raise ForeignError(
            f"the {foreign.kind} policy of {foreign.folder} plans in shape {tuple(chunk.shape)}, not rows"
        )
    return chunk.shape[1]


def _about(foreign: Foreign) -> dict:
    """What a manifest says of a foreign policy."""
    step = foreign.folder.parent.name
    path = foreign.folder / "train_config.json"
    training = read_json(path) if path.is_file() else {}
    about = {
        "path": str(foreign.folder),
        "step": int(step) if step.isdigit() else None,
        "type": f"lerobot/{foreign.kind}",
        "config": foreign.config,
    }
    if training:
        data = (training.get("dataset") or {}).get("root")
        about["train"] = {"seed": training.get("seed"), "data": data} | {
            name: training.get(there) for name, there in (("steps", "steps"), ("batch", "batch_size"))
        }
    return about
