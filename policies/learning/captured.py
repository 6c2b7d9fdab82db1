"""A training step recorded once, as a CUDA graph, and replayed: gather, loss, gradient, clipping, optimiser, averaging.

A step of a small network is bound by the launches of its kernels and by Python, not by arithmetic. Replayed, it is one
launch; the loss stays on the device and is read when it is logged, not at every step. The first steps run as always,
then one is recorded, and compared with the same step done as always before it is relied on. What cannot be recorded
(models whose loss reads numbers from the device) trains as always, and is named.

What records is a `Recorder`, so that everything else here runs, and is tested, without a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ...configs.protocols import keeps
from ..policy import Stepped
from .feed import Feed
from .optimizer import Optimize

WARM = 3  # steps before one is recorded: libraries choose their kernels, the optimiser makes its state
AGREE = {"rtol": 2e-2, "atol": 1e-4}  # between a recorded step and the same one as always; kernels may differ


class CannotCapture(RuntimeError):
    """A step that cannot be recorded; the message says why."""


class CaptureWarning(UserWarning):
    """A step that trains as always in place of being replayed."""


class Recorder(Protocol):
    """Runs a step, and records one."""

    def run(self, body: Callable[[], None]) -> None:
        """Run a step as it will be recorded."""
        ...

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Record a step without running it; what replays it. Raises RuntimeError where that cannot be."""
        ...


class CudaRecorder:
    """Records CUDA graphs, on a stream of its own."""

    def __init__(self):
        self._stream = torch.cuda.Stream()

    def run(self, body: Callable[[], None]) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            body()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=self._stream):
            body()
        return graph.replay


class CapturedStep:
    """Trains a step at a time, first as always, then by replaying a recorded one.

    Args:
        objective: batch -> (loss, scalars), in its precision.
        model, optimizer, average: what a step moves.
        transform: varies a batch.
    """

    def __init__(
        self,
        objective: nn.Module,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: torch.optim.swa_utils.AveragedModel,
        *,
        optimize: Optimize,
        feed: Feed,
        transform: Callable,
        recorder: Recorder,
    ):
        self._objective, self._model, self._optimizer, self._average = objective, model, optimizer, average
        self._optimize, self._feed, self._transform, self._recorder = optimize, feed, transform, recorder
        self._device = next(model.parameters()).device
        self._replay: Callable[[], None] | None = None
        self._warm, self._count, self._rates = 0, 0, 0.0
        self._taken: dict[str, Tensor] = {}

        # numbers that a step reads and writes, at fixed places
        self._sums = torch.zeros(2, device=self._device)  # of losses and of gradient norms, since they were read
        self._broken = torch.full((), -1, dtype=torch.int64, device=self._device)  # first step without a finite loss
        self._step = torch.zeros((), dtype=torch.int64, device=self._device)
        self._share = torch.zeros((), device=self._device)  # of the new weights in the average
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=self._device)
            group["capturable"] = True

    def step(self, step: int, rate: float) -> None:
        """Train the step numbered `step` (from 0).

        Raises:
            CannotCapture: it cannot be recorded; nothing of it was trained.
        """
        self._hand_over(step, rate)
        if self._replay is not None:
            self._replay()
        elif self._warm < WARM:
            self._warm += 1
            self._run()
        else:
            self._replay = self._recorded()
        self._average.n_averaged += 1
        self._count, self._rates = self._count + 1, self._rates + rate

    def read(self) -> tuple[dict[str, float], int]:
        """Means of loss, gradient norm and learning rate over the steps since the last call, and how many these are."""
        count, rates = self._count, self._rates
        if not count:
            return {}, 0
        loss, norm = (self._sums / count).tolist()
        self._sums.zero_()
        self._count, self._rates = 0, 0.0
        return {"loss": loss, "gradient_norm": norm, "lr": rates / count}, count

    @property
    def broken(self) -> int | None:
        """The first step whose loss was not finite."""
        step = int(self._broken)
        return None if step < 0 else step

    def release(self) -> None:
        """Give the optimiser back as it was, for steps as always."""
        for group in self._optimizer.param_groups:
            group["lr"], group["capturable"] = float(group["lr"]), False

    def _run(self) -> None:
        """A step as always. Raises CannotCapture where it could not be recorded; then nothing is drawn or trained."""
        drawn = self._generator()
        try:
            self._recorder.run(self._body)
        except CannotCapture:
            self._rewind(drawn)
            raise

    def _hand_over(self, step: int, rate: float) -> None:
        """Put what changes from step to step in its places."""
        for key, value in self._feed.take(step).items():
            if key in self._taken:
                self._taken[key].copy_(value, non_blocking=True)
            else:
                self._taken[key] = value.clone()
        for group in self._optimizer.param_groups:
            group["lr"].fill_(rate * group.get("pace", 1.0))
        self._step.fill_(step)
        self._share.fill_(self._optimize.share(int(self._average.n_averaged)))

    def _body(self) -> None:
        """One step; nothing of it waits for the device."""
        batch = self._transform(self._feed.gather(self._taken))
        loss, scalars = self._objective(batch)
        if scalars:
            raise CannotCapture(f"its loss also gives {', '.join(scalars)}, read from the device at every step")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._optimize.clip_norm)
        self._optimizer.step()
        if keeps(self._model, Stepped):
            self._model.stepped()
        self._follow()
        self._sums += torch.stack([loss.detach().float(), norm.float()])
        bad = (self._broken < 0) & ~loss.detach().isfinite()
        self._broken.copy_(torch.where(bad, self._step, self._broken))

    @torch.no_grad()
    def _follow(self) -> None:
        """The averaged weights follow; buffers are copied."""
        pairs = zip(self._average.module.parameters(), self._model.parameters(), strict=True)
        averaged, current = (list(side) for side in zip(*pairs, strict=True))
        away = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(away, self._share)
        torch._foreach_add_(averaged, away)
        for mine, theirs in zip(self._average.module.buffers(), self._model.buffers(), strict=True):
            mine.copy_(theirs)

    def _recorded(self) -> Callable[[], None]:
        """Record a step and do it twice, replayed and as always, from the same state; they must agree.

        Raises:
            CannotCapture: it cannot be recorded, or does something else.
        """
        before = self._state()
        try:
            replay = self._recorder.record(self._body)
        except RuntimeError as error:
            self._restore(before)
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise CannotCapture(reason[0]) from error
        replay()
        replayed = self._state()
        self._restore(before)
        self._recorder.run(self._body)
        always = self._state()
        for name, value in always[0].items():
            if value.is_floating_point() and not torch.allclose(value, replayed[0][name], **AGREE, equal_nan=True):
                self._restore(before)
                far = float((value - replayed[0][name]).abs().max())
                raise CannotCapture(f"replayed it does something else: {name} differs by up to {far:.3g}")
        return replay

    def _state(self) -> tuple[dict[str, Tensor], Tensor]:
        """Copies of all that a step changes, and of the generator's state."""
        return {name: value.detach().clone() for name, value in self._held().items()}, self._generator()

    @torch.no_grad()
    def _restore(self, state: tuple[dict[str, Tensor], Tensor]) -> None:
        for name, value in self._held().items():
            value.copy_(state[0][name])
        self._rewind(state[1])

    def _held(self) -> dict[str, Tensor]:
        held = {f"model.{name}": value for name, value in self._model.state_dict(keep_vars=True).items()}
        held |= {f"average.{name}": value for name, value in self._average.module.state_dict(keep_vars=True).items()}
        for place, values in enumerate(self._optimizer.state.values()):
            held |= {f"optimizer.{place}.{name}": value for name, value in values.items()}
        return held | {"sums": self._sums, "broken": self._broken}

    def _generator(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _rewind(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)


def warn_uncaptured(error: CannotCapture) -> None:
    """Say that a training goes on as always."""
    warnings.warn(
        f"the training step cannot be recorded and replayed: {error}. It trains as always, more slowly where the "
        "network is small; --captured false leaves the attempt out",
        CaptureWarning,
        stacklevel=4,
    )
