"""SmolVLA, pi0 and pi0.5 of lerobot's as policies with a field: what they see is encoded once for all candidates.

The three have one form: `sample_actions` puts pictures, text and state through a vision-language model, keeps its keys
and values, and asks `denoise_step` for the velocity of the noisy chunk at each step of Euler's method. Here lerobot's
own `predict_action_chunk` runs up to its first `denoise_step`; what that was handed is the context. The velocity is
lerobot's own `denoise_step` with the context's rows repeated, one for each candidate.

As saved, plans are drawn by lerobot's own steps, from noise of all `max_action_dim` dimensions, as lerobot draws it. As
soon as `sampler` is set (`--steps`, `--solver`), and in a mixture, our sampler walks on the field instead. The field is
over the dimensions that the body has. In training the padded ones were pure noise times t, and they are so here: of one
draw, the same for all lanes and candidates, so that the field is a function.

A checkpoint whose actions are more than scaled afterwards (relative to the state, or in the space of Aloha's grippers)
has no field and acts as a black box (`planner.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...configs.spec import ACTION, Window
from ..models.generative import Sampler, walk
from ..policy import LaneNoise, Past, Plans
from .body import Body
from .chunks import FAILURES, LeRobotChunks, does_not_plan, zeros
from .folder import Foreign
from .scale import PLAIN_STEPS, POSTPROCESSOR, ForeignError, action_scale, steps_of
from .velocity import VelocityPolicy, repeat_rows, shallow

FLOWS = {"smolvla": "num_steps", "pi0": "num_inference_steps", "pi05": "num_inference_steps"}  # type -> steps' setting
ABSOLUTE = "absolute_actions_processor"  # makes actions absolute, where it is enabled
STEP = ("x_t", "timestep")  # what changes from one denoising step to the next


def has_flow(foreign: Foreign) -> bool:
    """Whether a checkpoint is of a type whose velocity is known here, and only scales its actions."""
    config = foreign.config
    if foreign.kind not in FLOWS or config.get("adapt_to_pi_aloha") or config.get("use_relative_actions"):
        return False
    if not (foreign.folder / POSTPROCESSOR).is_file():
        return False
    return all(
        step["registry_name"] in PLAIN_STEPS
        or (step["registry_name"] == ABSOLUTE and not step.get("config", {}).get("enabled"))
        for step in steps_of(foreign.folder, POSTPROCESSOR)
    )


class ForeignFlow(VelocityPolicy):
    """A `Policy` around lerobot's SmolVLA, pi0 or pi0.5.

    Args:
        foreign: the checkpoint.
        body: who acts.
        task: the instruction; `chunks.task` changes it.
    Raises:
        ForeignError: settings, weights, a tokenizer or packages that do not fit.
    """

    task_text: str | None = None  # what it was told
    padding: Tensor

    def __init__(self, foreign: Foreign, body: Body, task: str = ""):
        chunks = LeRobotChunks(foreign, body.keys, task)
        config = chunks.policy.config
        super().__init__(
            self._encode,
            self._velocity,
            embodiment=body.embodiment,
            window=Window(observe=(0,), horizon=config.chunk_size),
            inputs=tuple(body.keys),
            action_scale=action_scale(foreign.rules[ACTION], foreign.dims(ACTION)),
            sampler=Sampler(steps=getattr(config, FLOWS[foreign.kind]), clip=None),
            n_action_steps=config.n_action_steps,
        )
        self.foreign, self.chunks = foreign, chunks
        self.width = max(config.max_action_dim, foreign.dims(ACTION))  # dimensions of the noise, padding included
        shape, drawn = (config.chunk_size, self.width - foreign.dims(ACTION)), torch.Generator().manual_seed(0)
        self.register_buffer("padding", torch.randn(shape, generator=drawn), persistent=False)
        self.adopt(body)
        self._try()

    def adopt(self, body: Body) -> None:
        """Act for this body from now on."""
        self.body, self.embodiment, self.inputs = body, body.embodiment, tuple(body.keys)
        self.chunks.keys = dict(body.keys)

    @property
    def sampler(self) -> Sampler:
        """How plans are drawn; of lerobot's own loop, the number of steps."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        first = not hasattr(self, "_sampler")
        self._sampler, self.scheduler = sampler, "euler" if first else None  # lerobot's own steps; None: our sampler

    @torch.no_grad()
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane: by lerobot's own steps, or by our sampler if one was set."""
        past = past.at(self.window)
        if self.scheduler is None:
            return walk(self, past, n, rng)
        noise = rng.normal(n, self.window.horizon, self.width).to(past.actions.device)
        context = repeat_rows(self._encode({key: past.obs[key] for key in self.inputs}), n)
        x, steps = noise.flatten(0, 1), self.sampler.steps
        for step in range(steps):
            time = torch.tensor(1.0 - step / steps, dtype=torch.float32, device=x.device)
            x = x - self._denoise(x, time.expand(len(x)), context) / steps
        future = self.action_scale.unscale(x[..., : len(self.embodiment.action)]).unflatten(0, noise.shape[:2])
        return Plans(future[:, :, :0], future, past.now)

    @torch.no_grad()
    def _encode(self, obs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Observations (B, 1, ...) in units -> what `denoise_step` is handed beside the chunk, B rows."""
        batch = self.chunks.remember({key: value[:, -1] for key, value in obs.items()})
        policy = self.chunks.policy
        policy.reset()
        start = self.padding.new_zeros(len(next(iter(obs.values()))), self.window.horizon, self.width)
        policy.model.denoise_step = _stop
        try:
            policy.predict_action_chunk(batch, noise=start)
        except _EncodedError as reached:
            return reached.context
        finally:
            del policy.model.denoise_step
        raise ForeignError(f"the {self.foreign.kind} policy of {self.foreign.folder} never asks for a velocity")

    def _velocity(self, x: Tensor, t: Tensor, context: Any) -> Tensor:
        """The velocity of x (M, T, D) at times t (M,)."""
        dims = x.shape[-1]
        return self._denoise(torch.cat([x, t[:, None, None] * self.padding], -1), t, context)[..., :dims]

    def _denoise(self, x: Tensor, t: Tensor, context: Mapping) -> Tensor:
        """lerobot's velocity of x (M, T, width); the context stays as it is."""
        return self.chunks.policy.model.denoise_step(x_t=x, timestep=t, **{k: _lent(v) for k, v in context.items()})

    @torch.no_grad()
    def _try(self) -> None:
        """Ask once about zeros. Raises ForeignError if that fails."""
        try:
            context = self._encode(zeros(self.body, 1))
            velocity = self._velocity(*self._blank(2), context)
        except FAILURES as error:
            raise error if isinstance(error, ForeignError) else does_not_plan(self.foreign, error) from error
        if velocity.shape != self._blank(2)[0].shape:
            raise ForeignError(f"{self.foreign.folder}: velocities of shape {tuple(velocity.shape)} are of no use here")

    def _blank(self, rows: int) -> tuple[Tensor, Tensor]:
        x = self.padding.new_zeros(rows, self.window.horizon, len(self.embodiment.action))
        return x, x.new_ones(rows)


class _EncodedError(Exception):
    """The first denoising step was reached."""

    def __init__(self, context: dict[str, Any]):
        super().__init__()
        self.context = context


def _stop(**handed) -> Tensor:
    """In place of a denoising step: what it was handed, but for the noisy chunk and the time."""
    raise _EncodedError({name: value for name, value in handed.items() if name not in STEP})


def _lent(held: Any) -> Any:
    """A cache of keys and values as one of its own, which may grow; tensors are shared, never written to."""
    if not hasattr(held, "batch_repeat_interleave"):
        return held
    lent = shallow(held)
    lent.crop = _nothing  # what is cut back is thrown away; versions of transformers differ in what they take
    return lent


def _nothing(*_) -> None:
    pass
