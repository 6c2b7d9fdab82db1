"""Acting while thinking: a plan is ready `delay` control steps after it was asked for, and the arm moves meanwhile.

Until then the arm executes what the plan before said of these steps, the committed actions. All is counted in control
steps, never in seconds, so that the same seeds give the same episodes. With D the delay and E the actions executed of a
plan (D <= E, E + D <= H), a chunk of E steps begins with D committed actions; the new plan takes over at step D. How
the seam between the two is closed:

- `wait`: not at all; the arm stands where it is until the plan is there, and a chunk takes D + E steps;
- `switch`: not at all; the new plan takes over as it is (for comparison);
- `blend`: old and new actions are averaged where both reach, the new ones counting more and more;
- `rtc`: real-time chunking (Black, Galliker & Levine 2025, arXiv 2506.07339): the denoiser is guided towards the old
  plan, by weights that are 1 for committed actions and fall to 0 over the rest of the old plan. As in lerobot's
  implementation the Jacobian of the denoiser is taken to be the identity, weights fall linearly, and guidance is at
  most 10. In the coordinate y = x0 + s noise the guided estimate is D + k W (Y - D) with
  k = min(10 s, 1 + s^2) / (1 + s), which is equations 2 to 5 there with tau = 1 / (1 + s);
- `prefix`: committed actions are known tokens of the sampler, and the denoiser of the others is conditioned on them
  (`conditioning.py`), which costs about ten times its computation;
- `past`: one past for everything. Executed actions and committed ones are known tokens alike. A policy whose newest
  observation is L steps old (`window.observe` ends at -L) is asked from L steps ahead: its recalled actions are then
  partly committed ones. With `given` that is conditioning on the prefix as it was trained.

The first plan of an episode is there before the arm moves. Knows no world and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...configs import spec
from ...configs.plugins import lookup
from ...configs.protocols import keeps
from ..models.generative import walk
from ..policy import LaneNoise, Past, Planner, Plans, Policy
from .conditioning import conditioned

GUIDANCE = 10.0  # greatest guidance weight, lerobot's `max_guidance_weight`


class Mode(Enum):
    """What closes the seam between two plans."""

    wait = "wait"
    switch = "switch"
    blend = "blend"
    rtc = "rtc"
    prefix = "prefix"
    past = "past"


DENOISES = (Mode.rtc, Mode.prefix, Mode.past)  # modes that need the policy's denoiser


@dataclass(frozen=True)
class Delayed:
    """How much later plans come, and what is done about it. `delay` in control steps, above 0."""

    mode: Mode
    delay: int

    @classmethod
    def read(cls, mode: str, delay: int) -> Delayed | None:
        """Of flags; None for no delay. Raises LookupError, ValueError."""
        found = lookup("way to hide latency", mode, {one.value: one for one in Mode})
        if delay < 0:
            raise ValueError(f"delay: {delay} control steps; planning cannot end before it begins")
        return cls(found, delay) if delay else None


class Latency:
    """The plans of B lanes that are executed while the next ones are made.

    Args:
        settings: which way, and how many control steps.
        planner: the policy.
        lanes: B.
        n_action_steps: E.

    Raises:
        ValueError: the delay does not fit the plans, or the policy does not offer what the way needs.
    """

    def __init__(self, settings: Delayed, planner: Planner, lanes: int, n_action_steps: int):
        self.mode, self.delay, self.executed = settings.mode, settings.delay, n_action_steps
        self.planner, body = planner, planner.embodiment
        self._check(planner.window)
        waits = self.mode is Mode.wait
        self.steps = n_action_steps + self.delay if waits else n_action_steps  # control steps of a chunk
        self.lead = -planner.window.observe[-1] if self.mode is Mode.past else 0  # L
        if self.lead > self.delay:
            raise ValueError(
                f"the policy acts {self.lead} control steps after what it saw last; a delay of {self.delay} leaves "
                f"nothing to act by in between: give --delay {self.lead}, or another way than past"
            )
        if waits and body.mode is spec.Mode.unknown:
            raise ValueError("wait: nobody stated whether actions are absolute, so nobody knows how to stand still")
        self._stands = body.mode is spec.Mode.absolute
        shape = (lanes, planner.window.horizon, len(body.action))
        self._plan: np.ndarray = np.zeros(shape, np.float32)  # as it is executed
        self._fresh = np.ones(lanes, bool)  # lanes without a plan

    def _check(self, window: spec.Window) -> None:
        delay, executed, mode = self.delay, self.executed, self.mode
        if mode is not Mode.wait and delay > executed:
            raise ValueError(
                f"a delay of {delay} control steps is longer than the {executed} actions executed of a plan: "
                f"give --n_action_steps {delay} or more, a shorter delay, or --latency wait"
            )
        if mode is not Mode.wait and executed + delay > window.horizon:
            raise ValueError(
                f"{executed} executed actions and a delay of {delay} need plans of {executed + delay}, the policy's "
                f"have {window.horizon}: give --n_action_steps {window.horizon - delay} or fewer"
            )
        if mode in DENOISES and not keeps(self.planner, Policy):
            raise ValueError(
                f"latency {mode.value} guides a denoiser, and this policy offers none: wait, switch, blend"
            )
        if mode is Mode.past and not window.recall:
            raise ValueError("latency past needs a policy with past tokens (window.recall); this one has none: prefix")

    def reset(self, mask: np.ndarray) -> None:
        """Forget the plans of the lanes of `mask` (B,) bool: their next plan is there at once."""
        self._fresh[mask] = True

    @property
    def ahead(self) -> np.ndarray:
        """(B,) control steps from now to the first action that the next plan is asked for."""
        return np.where(self._fresh, 0, self.lead)

    def committed(self) -> np.ndarray:
        """(B, D, dims) actions of the plans of before for the next D steps; zeros in lanes that have none."""
        rest = self._plan[:, self.executed : self.executed + self.delay]
        return np.where(self._fresh[:, None, None], np.float32(0), rest)

    def draw(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """`n` plans a lane. `past` is seen from `ahead` steps later, committed actions among the recalled ones."""
        if self.mode not in DENOISES or self._fresh.all():
            return self.planner.plan(past, n, rng)
        policy, past = cast(Policy, self.planner), past.at(self.planner.window)
        if self.mode is Mode.rtc:
            return _planned(policy, past, n, rng, steer=self._guide(past))
        known = self._known(past)
        return _planned(policy, past, n, rng, known=known, steer=lambda field: conditioned(field, known))

    def _tokens(self, past: Past) -> tuple[Tensor, Tensor]:
        """(values (B, T, dims) scaled, number (B, T) of steps of the old plan's rest, negative before it)."""
        window, device = self.planner.window, past.actions.device
        rest = torch.from_numpy(np.roll(self._plan, -self.executed, 1)).to(device)
        number = torch.tensor(window.actions, device=device)[None] + torch.from_numpy(self.ahead).to(device)[:, None]
        place = number.clamp(0, rest.shape[1] - 1)
        values = rest.gather(1, place[..., None].expand(-1, -1, rest.shape[2]))
        values[:, : len(window.recall)] = past.actions.to(values.dtype)
        return cast(Policy, self.planner).action_scale.scale(values), number

    def _known(self, past: Past) -> tuple[Tensor, Tensor]:
        """(values, mask), (B, 1, T, dims) each: tokens that the sampler does not denoise."""
        values, number = self._tokens(past)
        recalled = past.actions.shape[1]
        mask = number < self.delay
        mask[:, :recalled] = past.action_valid if self.mode is Mode.past else False
        mask &= ~torch.from_numpy(self._fresh).to(mask.device)[:, None]
        return values[:, None], mask[:, None, :, None].expand_as(values[:, None])

    def _guide(self, past: Past):
        """Turns a denoiser into one that is drawn to the old plan."""
        values, number = self._tokens(past)
        recalled, overlap = past.actions.shape[1], self._plan.shape[1] - self.executed
        weight = torch.from_numpy(soft_prefix(self.delay, overlap, self._plan.shape[1])).to(values)
        weights = torch.zeros_like(number, dtype=values.dtype)
        weights[:, recalled:] = weight
        weights[torch.from_numpy(self._fresh)] = 0
        target, drawn = values[:, None], weights[:, None, :, None]

        def guided(field):
            def denoise(y: Tensor, s: float) -> Tensor:
                clean = field(y, s)
                return clean + guidance(s) * drawn * (target - clean)

            return denoise

        return guided

    def chunk(self, future: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Take in the newest plans and give what is executed next.

        Args:
            future: (B, H, dims) plans, within the limits.
            last: (B, dims) the action executed last.

        Returns:
            (B, steps, dims) float32.
        """
        fresh = self._fresh[:, None, None]
        if self.mode is Mode.wait:
            actions = self._waited(future, last, fresh)
        else:
            self._plan = np.where(fresh, future, self._joined(future)).astype(np.float32)
            actions = self._plan[:, : self.executed]
        self._fresh = np.zeros_like(self._fresh)
        return actions

    def meanwhile(self, last: np.ndarray) -> np.ndarray:
        """(B, D, dims) what is executed while the next plan is made: committed actions, or standing still."""
        if self.mode is Mode.wait:
            return np.repeat((last if self._stands else np.zeros_like(last))[:, None], self.delay, 1)
        return self.committed()

    @property
    def fresh(self) -> bool:
        """Whether some lane has no plan to go on with."""
        return bool(self._fresh.any())

    def beyond(self) -> np.ndarray | None:
        """(B, H - E, dims) what the plans of before say of the next chunk's steps; None where the arm waits."""
        return None if self.mode is Mode.wait else self._plan[:, self.executed :].copy()

    def _waited(self, future: np.ndarray, last: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        place = np.minimum(np.arange(self.steps), future.shape[1] - 1)
        stood = np.concatenate([self.meanwhile(last), future[:, : self.executed]], 1)
        return np.where(fresh, future[:, place], stood).astype(np.float32)

    def _joined(self, future: np.ndarray) -> np.ndarray:
        """(B, H, dims) the committed actions, then the new plan, or both blended where both reach."""
        horizon, lead = future.shape[1], self.lead
        new = np.concatenate([future[:, :lead], future[:, : horizon - lead]], 1)  # the first ones are committed anyway
        old = self._plan[:, self.executed :]
        new[:, : self.delay] = old[:, : self.delay]
        if self.mode is Mode.blend:
            share = np.linspace(0, 1, old.shape[1] - self.delay + 2, dtype=np.float32)[1:-1, None]
            both = slice(self.delay, old.shape[1])
            new[:, both] = (1 - share) * old[:, both] + share * new[:, both]
        return new


def guidance(s: float) -> float:
    """How far the estimate is drawn at the noise-to-signal ratio s, see above."""
    return min(GUIDANCE * s, 1 + s * s) / (1 + s)


def soft_prefix(delay: int, overlap: int, horizon: int) -> np.ndarray:
    """(H,) weights of the old plan: 1 for committed actions, falling linearly to 0 where the old plan ends."""
    weights = np.zeros(horizon)
    weights[:delay] = 1
    weights[delay:overlap] = np.linspace(1, 0, overlap - delay + 2)[1:-1]
    return weights


@torch.no_grad()
def _planned(policy: Policy, past: Past, n: int, rng: LaneNoise, **how) -> Plans:
    return walk(policy, past, n, rng, **how)
