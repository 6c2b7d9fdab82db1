"""An agent that thinks while the arm moves: one control step at a time, in time, whatever the policy takes.

The plan is asked for in a thread of its own; meanwhile the committed actions are executed. A plan that is not there
when its first action is due is late: the plan before goes on as far as it reaches, then the arm stands; the late plan
takes over at the step that it has for then. One that is later than its whole chunk is thrown away, and the arm stands
until the next is there, which is planned from what is seen then. Nothing here knows an arm: whoever calls `act` in time
sets the pace, and what it reports as executed is the agent's history, but for steps at which the arm stood for a late
plan or in a pause.

Somebody else may act in between (`lead`): the plan is dropped, and afterwards the policy plans anew from what was
really executed, by whomever.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field

import numpy as np

from .agent import Agent

GRACE = 0.004  # s that a plan is waited for when it is due


@dataclass
class Log:
    """What became of the plans of an episode, by control step and by plan."""

    planned: list[int] = field(default_factory=list)  # step at which the plan in force was asked for; -1: none is
    late: list[bool] = field(default_factory=list)  # the plan that was due was not there
    seconds: list[float] = field(default_factory=list)  # that each plan took
    thrown: int = 0  # plans that were later than their whole chunk


@dataclass(frozen=True)
class Led:
    """What somebody else than the policy asks for in a control step."""

    action: np.ndarray  # (D,)
    stands: bool = False  # the arm stands: for the policy no time passes


class Ahead:
    """An `Actor` of one lane, a control step at a time.

    Args:
        agent: of one lane.
        patience: s that a plan which is due is waited for; None: as long as it takes, where time stands meanwhile.
        pause: asked at each step; while it says so the arm stands.
        arrived: called with each plan (E, D) as it begins to be executed.
        lead: asked at each step, with what was executed last (D,); None: the policy acts.
        couple: called before the first action of the policy after somebody else has acted.
    """

    n_action_steps, look = 1, (0,)

    def __init__(
        self,
        agent: Agent,
        patience: float | None = GRACE,
        pause: Callable[[], bool] = lambda: False,
        arrived: Callable[[np.ndarray], None] = lambda plan: None,
        lead: Callable[[np.ndarray], Led | None] = lambda last: None,
        couple: Callable[[], None] = lambda: None,
    ):
        self.agent, self._patience, self._pause, self._arrived = agent, patience, pause, arrived
        self._lead, self._couple = lead, couple
        self.log = Log()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="think")
        self._future: Future | None = None
        self._chunk: np.ndarray | None = None
        self._at = 0  # step within the chunk
        self._tick = 0  # step of the episode

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Begin an episode, and wait for its first plan: the arm does not move yet."""
        self._settle()
        self.agent.reset(starts, mask, obs)
        self.log, self._tick = Log(), 0
        self._newest = {key: np.asarray(value) for key, value in obs.items()}
        reach = self.agent.window.reach
        self._frames: deque[dict[str, np.ndarray]] = deque([self._read(self._newest)], reach + 1)
        self._executed: deque[np.ndarray] = deque((), max(reach, 1))
        self._passed = 0  # control steps that are the agent's history
        self._led: Led | None = None
        self._dropped = self._anew = False  # its plan, for somebody else; whether the first one after that is awaited
        self._begin()
        self._take(None)
        assert self._chunk is not None
        self._last = self._chunk[:, 0]

    def act(self) -> np.ndarray:
        """(1, 1, D) for this control step."""
        self._counts, late = False, False
        paused, self._led = self._pause(), self._lead(self._last[0])
        if self._led is not None:
            self._drop()
            action = np.asarray(self._led.action, np.float32)[None]
        elif paused or not self._plans_again():
            action = self._last
        elif self._overdue:  # later than its whole chunk
            action = self._last
            if self._future is None or self._future.done():
                self._throw_away()
        else:
            if self._chunk is None and (self._at >= len(self._meanwhile) or self._done):
                self._take(self._patience)
            action, late = self._planned()
        self.log.planned.append(self._asked if self._counts else -1)
        if self._anew and self._counts:
            self._anew = False
            self._couple()
        self.log.late.append(late and not self._anew)
        self._last = np.asarray(action, np.float32)
        return self._last[:, None]

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """What the step gave; at a chunk's end the agent hears of all its steps, and the next plan is asked for."""
        self._tick += 1
        self._newest = {key: np.asarray(value[:, -1]) for key, value in obs.items()}
        self._last = np.asarray(sent[:, -1], np.float32)
        if self._counts or (self._led is not None and not self._led.stands):
            self._frames.append(self._read(self._newest))
            self._executed.append(self._last)
            self._passed += 1
        if not self._counts:
            return
        self._seen.append(self._newest)
        self._sent.append(self._last)
        self._at += 1
        if self._at == self.agent.n_action_steps:
            if self._chunk is None:
                self._overdue = True
            else:
                self._hand_over()
                self._begin()

    def told(self, slot: int) -> dict:
        """See `Agent.told`."""
        return self.agent.told(slot)

    def close(self) -> None:
        """End the thread."""
        self._settle()
        self._pool.shutdown()

    @property
    def _done(self) -> bool:
        return self._future is not None and self._future.done()

    def _planned(self) -> tuple[np.ndarray, bool]:
        """(action (1, D), whether the plan that was due is not there)."""
        at, committed = self._at, self._meanwhile
        if self._chunk is not None:
            self._counts = True
            return self._chunk[:, at], False
        if at < len(committed):
            self._counts = True
            return committed[at], False
        if not len(committed):  # nothing was promised: the arm stands until the plan is there
            return self._last, True
        self._counts = True
        rest = self._rest
        return (rest[:, at] if rest is not None and at < rest.shape[1] else self._last), True

    def _read(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the agent reads of it."""
        return {key: obs[key] for key in self.agent.inputs}

    def _drop(self) -> None:
        """Forget the plan in force; one that is still being made is not waited for."""
        self._dropped, self._chunk = True, None
        self._rest: np.ndarray | None = None
        self._meanwhile: list[np.ndarray] = []

    def _plans_again(self) -> bool:
        """Whether the policy acts; after somebody else has, it plans anew from what was executed."""
        if not self._dropped:
            return True
        if self._patience is not None and self._future is not None and not self._future.done():
            return False  # it is still at the plan that was dropped
        self._settle()
        self._dropped, self._anew = False, True
        self._frames[-1] = self._read(self._newest)
        obs = {key: np.stack([frame[key] for frame in self._frames], 1) for key in self.agent.inputs}
        sent = np.stack(self._executed, 1) if self._executed else np.zeros((1, 0, self._last.shape[1]), np.float32)
        if self.agent.latency:
            self.agent.latency.reset(np.ones(1, bool))
        now = self._passed
        self._begin(lambda: self.agent.rejoin(obs, sent, now))
        return True

    def _begin(self, first: Callable[[], None] = lambda: None) -> None:
        """Ask for the next plan; `first` is done before, in the thread that thinks."""
        self._seen: list[dict[str, np.ndarray]] = []
        self._sent: list[np.ndarray] = []
        self._at, self._asked, self._overdue, self._chunk = 0, self._tick, False, None
        fresh = self.agent.latency is None or self.agent.latency.fresh
        meanwhile = None if fresh else self.agent.meanwhile()
        self._meanwhile = [] if meanwhile is None else list(meanwhile.swapaxes(0, 1))
        self._rest = None if fresh or self.agent.latency is None else self.agent.latency.beyond()
        self._future = self._pool.submit(self._think, first)

    def _think(self, first: Callable[[], None]) -> tuple[np.ndarray, float]:
        begun = time.perf_counter()
        first()
        return self.agent.act(), time.perf_counter() - begun

    def _take(self, patience: float | None) -> None:
        """The plan, if it comes within `patience` s."""
        assert self._future is not None
        try:
            self._chunk, seconds = self._future.result(patience)
        except NotYet:
            return
        self.log.seconds.append(seconds)
        self._future = None
        self._arrived(self._chunk[0])

    def _hand_over(self) -> None:
        sent = np.stack(self._sent, 1)
        places = [offset - 1 for offset in self.agent.look]
        obs = {key: np.stack([self._seen[place][key] for place in places], 1) for key in self._newest}
        self.agent.observe(obs, sent, np.ones(sent.shape[:2], bool))

    def _throw_away(self) -> None:
        """The plan came too late: forget it, and plan from what is seen now, while the arm stands."""
        self._settle()
        self.log.thrown += 1
        self._seen[-1] = self._newest
        self._frames[-1] = self._read(self._newest)
        self._hand_over()
        if self.agent.latency:
            self.agent.latency.reset(np.ones(1, bool))
        self._begin()

    def _settle(self) -> None:
        """Wait for a plan that nobody wants any more."""
        future, self._future = self._future, None
        if future is not None:
            future.exception()
