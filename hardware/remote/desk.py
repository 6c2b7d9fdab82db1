"""Where plans are made: one thread of its own, so that the line is answered while the policy computes.

What waits when the thread becomes free is computed at once, as far as it fits: asks for as many plans of pasts of the
same shapes, up to `block` lanes. Rows do not depend on each other but in the last digits; with a block of 1 every ask
is computed alone, and gives the bits that its client would compute itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .wire import WireError

if TYPE_CHECKING:
    import torch

    from ...policies.agent.agent import Agent
    from ...policies.agent.sight import Sight
    from ...policies.policy import LaneNoise, Past, Plans

MOST = 256  # plans of a lane in one ask, at most


@dataclass(frozen=True)
class Thought:
    """Plans of one ask as arrays, and what they took."""

    past: np.ndarray  # (B, N, K, D) float32
    future: np.ndarray  # (B, N, H, D) float32
    start: np.ndarray  # (B,) int64
    waited: float  # s
    thought: float  # s
    lanes: int  # computed for at once


class Thinker:
    """What an agent plans with, without its memory: planner, critic, and what they read."""

    def __init__(self, agent: Agent):
        import torch

        from ...policies.agent.sight import seers, sizes_of
        from ...policies.policy import weights_of

        self.planner, self.critic = agent.planner, agent.critic
        self.candidates, self.temperature, self.noiseless = agent.candidates, agent.temperature, agent.noiseless
        self.ensemble, self.n_action_steps = agent.ensemble, agent.n_action_steps
        self.seed = agent.seed  # of clients that say none
        self.embodiment, self.window, self.inputs = agent.planner.embodiment, agent.window, agent.inputs
        self.most = MOST if agent.critic is None else 1  # plans of a lane that a client may ask for
        readers = [*seers(self.planner), *(seers(self.critic) if self.critic else ())]
        self.sizes = {key: (int(h), int(w)) for key, (h, w) in sizes_of(readers).items()}
        self.device = next((p.device for p in weights_of(self.planner)), torch.device("cpu"))

    def sight(self) -> Sight:
        """What becomes of pictures that come in; one for each client, since it warns once."""
        from ...policies.agent.sight import Sight

        return Sight(self.planner, self.critic, self.device)

    def plan(self, past: Past, n: int, parts: Sequence[LaneNoise]) -> Plans:
        """Plans of several clients' lanes, `parts` in order; of the server's candidates the critic's choice."""
        import torch

        from ...policies.agent.steering import choice_draws, choose
        from ...policies.policy import LaneNoise, Noiseless

        noise = (Noiseless if self.noiseless else LaneNoise).joined(parts)
        if self.critic is None:
            return self.planner.plan(past, n, noise)
        plans = self.planner.plan(past, self.candidates, noise)
        draws = [choice_draws(part.seed, part.starts, part.replans, self.candidates) for part in parts]
        with torch.no_grad():
            return plans.pick(choose(self.critic.score(past, plans), self.temperature, torch.cat(draws)))


@dataclass
class Job:
    """One ask that waits for the thread."""

    past: Callable[[], Past]  # called in the thread; raises WireError
    noise: Callable[[], LaneNoise]
    plans: int
    task: str | None
    future: Future = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    made: Past | None = None


def stated(own: str | None, given: str | None) -> str | None:
    """The text of the task that a policy is told; None: it reads none.

    Args:
        own: text where a client gives none; None: the policy reads none.
        given: by the client.

    Raises:
        WireError: the policy reads a text, and nobody gives one.
    """
    if own is None:
        return None
    if not (given or own):
        raise WireError("the policy reads the text of its task: send one, or give --task_text to understudy serve")
    return given or own


class Desk:
    """Takes jobs in any thread, computes them in one.

    Args:
        block: lanes that may be computed at once for several asks.
        threads: of torch.
        tell: gives the policy the text of its task; None: it reads none.
    """

    def __init__(
        self, thinker: Thinker, *, block: int = 8, threads: int = 1, tell: Callable[[str], object] | None = None
    ):
        self.thinker, self.block, self._threads, self._tell = thinker, block, threads, tell
        self._task: str | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._kept: Job | None = None  # taken, and did not fit
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> Future:
        """Let it be computed; the future gives a `Thought`, or raises what went wrong."""
        self._jobs.put(job)
        return job.future

    def close(self, patience: float = 10.0) -> bool:
        """Finish what is being computed, refuse what waits; whether the thread ended in time."""
        self._ended = True
        self._jobs.put(None)
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _work(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        while True:
            job = self._kept or self._jobs.get()
            self._kept = None
            if job is None or self._ended:
                self._refuse_rest(job)
                return
            self._compute(self._batch(job))

    def _batch(self, job: Job) -> list[Job]:
        """The job with those behind it that fit; what refuses its past answers itself."""
        batch: list[Job] = []
        lanes = 0
        nxt: Job | None = job
        while nxt is not None:
            if self._opens(nxt):
                assert nxt.made is not None
                rows = len(nxt.made.now)
                if batch and (lanes + rows > self.block or not _fit(batch[0], nxt)):
                    self._kept = nxt
                    break
                batch.append(nxt)
                lanes += rows
            if lanes >= self.block:
                break
            try:
                nxt = self._jobs.get_nowait()
            except queue.Empty:
                break
            if nxt is None:
                self._jobs.put(None)  # the end, when these are done
        return batch

    def _opens(self, job: Job) -> bool:
        if job.made is not None:
            return True
        if not job.future.set_running_or_notify_cancel():  # its client is gone
            return False
        try:
            job.made = job.past()
        except WireError as error:
            job.future.set_exception(error)
        except Exception as error:  # the policy's own; the client is told, and the server goes on
            job.future.set_exception(_failure(error))
        return job.made is not None

    def _compute(self, batch: list[Job]) -> None:
        if not batch:
            return
        begun = time.monotonic()
        try:
            plans = self._think(batch)
        except Exception as error:  # as above
            for job in batch:
                job.future.set_exception(_failure(error))
            return
        took, first = time.monotonic() - begun, 0
        past, future, start = (value.detach().cpu().numpy() for value in (plans.past, plans.future, plans.start))
        for job in batch:
            assert job.made is not None
            rows = slice(first, first := first + len(job.made.now))
            answer = Thought(past[rows], future[rows], start[rows], begun - job.since, took, len(future))
            job.future.set_result(answer)

    def _think(self, batch: list[Job]) -> Plans:
        if self._tell is not None and batch[0].task is not None and batch[0].task != self._task:
            self._task = None  # until the policy has taken it
            self._tell(batch[0].task)
            self._task = batch[0].task
        pasts = [job.made for job in batch if job.made is not None]
        past = pasts[0] if len(pasts) == 1 else _joined(pasts)
        return self.thinker.plan(past, batch[0].plans, [job.noise() for job in batch])

    def _refuse_rest(self, job: Job | None) -> None:
        ended = ConnectionAbortedError("the server ends")
        while True:
            if job is not None and (job.made is not None or job.future.set_running_or_notify_cancel()):
                job.future.set_exception(ended)
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return


class PolicyError(RuntimeError):
    """The policy could not plan for an ask; the server goes on."""


def _failure(error: Exception) -> PolicyError:
    failure = PolicyError(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _fit(one: Job, other: Job) -> bool:
    """Whether two jobs can be computed at once."""
    assert one.made is not None and other.made is not None
    shapes = [{key: (value.shape[1:], value.dtype) for key, value in job.made.obs.items()} for job in (one, other)]  # type: ignore[union-attr]
    return one.plans == other.plans and one.task == other.task and shapes[0] == shapes[1]


def _joined(pasts: list[Past]) -> Past:
    import torch

    def rows(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(values)

    return replace(
        pasts[0],
        obs={key: rows([past.obs[key] for past in pasts]) for key in pasts[0].obs},
        obs_valid=rows([past.obs_valid for past in pasts]),
        actions=rows([past.actions for past in pasts]),
        action_valid=rows([past.action_valid for past in pasts]),
        now=rows([past.now for past in pasts]),
    )
