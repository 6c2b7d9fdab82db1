"""A policy whom the environments' scripted experts help: one takes over where the policy makes no headway.

The rule is a watcher's who sees how far the task is: an expert takes over once `after` control steps in a row have
brought the task no nearer (`gain`) than it was before. It finishes the episode or, with `steps`, hands back; then the
policy plans anew from what was really executed, by whomever. What it planned before a take-over is dropped. All
environments replan together, every E steps, and a policy gets the task back at the first replanning after its expert's
steps: what happens in one environment changes no other.

Each control step is the policy's or the expert's, in the terms of `policies/data/corrections.py`, which a recording
keeps and a training reads. Experts see the simulator's state and begin where the arm is, so no step is nobody's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...policies.data.corrections import PERSON, POLICY
from .actors import ExpertActor
from .recipes import PolicyRecipe

if TYPE_CHECKING:
    from ...configs.lanes.lanes import Lanes
    from ...policies.agent.agent import Agent

PHASES = "takeover"  # column of a row: whose each control step was


@dataclass(frozen=True, kw_only=True)
class TakeOverRule:
    """When the task's scripted expert takes over from a policy, and for how long."""

    after: int = 15  # control steps without headway after which the expert takes over
    gain: float = 0.01  # progress (0..1) above the best so far that counts as headway
    # control steps after which the expert hands back, at the next replanning; 0: it finishes the episode
    steps: int = 0

    def __post_init__(self) -> None:
        if self.after < 1 or self.steps < 0:
            raise ValueError(
                f"takeover: after {self.after} and steps {self.steps}; after is 1 or more, steps 0 (the expert "
                "finishes) or more"
            )
        if not 0 <= self.gain < 1:
            raise ValueError(f"takeover.gain: {self.gain}; progress is within 0..1, so the gain is from 0 to below 1")


@dataclass(frozen=True)
class HelpedRecipe:
    """A policy and the experts that help it."""

    policy: PolicyRecipe
    rule: TakeOverRule
    needs_torch = True

    def actor(self, lanes: Lanes) -> HelpedActor:
        return HelpedActor(self.policy.agent(), lanes, self.rule)

    def places(self) -> tuple[str, ...]:
        return self.policy.places()

    def moved(self, places: Mapping[str, str]) -> HelpedRecipe:
        return dataclasses.replace(self, policy=self.policy.moved(places))


class HelpedActor:
    """An `Actor` that looks at every control step. It tells whose each step was, as `PHASES`.

    Args:
        agent: the policy's, of B lanes.
        lanes: B environments with experts.
    """

    n_action_steps, look = 1, (0,)

    def __init__(self, agent: Agent, lanes: Lanes, rule: TakeOverRule):
        self.agent, self.lanes, self.rule = agent, lanes, rule
        self._experts = ExpertActor(lanes)
        count = lanes.num_envs
        self._phases: list[list[float]] = [[] for _ in range(count)]
        self._best, self._stalled = np.full(count, -np.inf), np.zeros(count, np.int64)
        self._led, self._held = np.zeros(count, bool), np.zeros(count, np.int64)
        self._chunk: np.ndarray | None = None  # (B, E, D) plan in force
        self._seen: list[tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]] = []  # what its steps gave

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Begin new episodes, with a new plan: the policy acts."""
        self.agent.reset(starts, mask, obs)
        for slot in np.flatnonzero(mask):
            self._phases[slot] = []
        self._led[mask] = False
        self._watch_anew(mask)
        self._chunk = None

    def act(self) -> np.ndarray:
        """(B, 1, D) for this control step, of whoever acts in each environment."""
        if self._chunk is None:
            self._hand_back()
            self._chunk = self.agent.act()
            self._seen = []
        slots = np.flatnonzero(self.lanes.running)
        self._take_over(slots)
        at = len(self._seen)
        actions = self._chunk[:, at : at + 1].copy()
        led = [int(slot) for slot in slots if self._led[slot]]
        if led:
            actions[led] = self._experts.act_in(led)[led]
        for slot in slots:
            self._phases[slot].append(PERSON if self._led[slot] else POLICY)
        return actions

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """What the step gave; after E steps the agent hears of them all, whoever acted."""
        self._held[self._led] += 1
        self._seen.append((obs, sent, valid))
        if len(self._seen) < self.agent.n_action_steps:
            return
        frames, executed, valids = zip(*self._seen, strict=True)
        looks = [frames[offset - 1] for offset in self.agent.look]
        seen = {key: np.concatenate([look[key] for look in looks], 1) for key in self.agent.inputs}
        self.agent.observe(seen, np.concatenate(executed, 1), np.concatenate(valids, 1))
        self._chunk = None

    def told(self, slot: int) -> dict:
        """Further columns of an episode's row: whose each step was, and what the agent tells."""
        return self.agent.told(slot) | {PHASES: list(self._phases[slot])}

    def _take_over(self, slots: np.ndarray) -> None:
        """Look how far the tasks are, and let experts act where there is no headway."""
        judged = self.lanes.call("judge", slots=[int(slot) for slot in slots if not self._led[slot]])
        for slot, progress in ((slot, one[1]) for slot, one in enumerate(judged) if one is not None):
            if progress > self._best[slot] + self.rule.gain:
                self._best[slot], self._stalled[slot] = progress, 0
            else:
                self._stalled[slot] += 1
        now = ~self._led & (self._stalled >= self.rule.after)
        self._led |= now
        self._held[now] = 0

    def _hand_back(self) -> None:
        """Let policies go on whose experts have acted for long enough."""
        if not self.rule.steps:
            return
        back = self._led & (self._held >= self.rule.steps)
        self._led &= ~back
        self._watch_anew(back)
        self.agent.forget(back)

    def _watch_anew(self, mask: np.ndarray) -> None:
        self._best[mask], self._stalled[mask] = -np.inf, 0
