"""How joints answer to their goals, measured on recorded episodes: what the arm's pose will be, told actions alone.

Each joint goes on by its own: v' = carry v + gain clip(goal - q, -below, above) + drift, q' = q + v', in rad and rad a
control step. A servo of limited force moves at a limited speed, up and down at different ones; the clipping says so.
Fitted by the error after each of `steps` steps on the model's own poses, since it is used so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .drawn import RobotError

BEGUN = {"gain": 0.35, "carry": 0.5, "drift": 0.0, "below": 0.15, "above": 0.15}  # what the fit begins with
ROUNDS, RATE = 200, 0.04  # of Adam
STRETCHES = 1024  # recorded ones that are fitted to, at most
FOLLOWS = 0.7  # part of a standing arm's error that must not be reached, or joints do not follow the actions
ONE_FOLLOWS = 0.5  # the same of each joint that moves, unless its action foretells it better than its past does
TOLD = 0.95  # part of the error of a forecast from the past alone that an action must leave at most
MOVES = 0.02  # rad, root mean square over `steps` steps, from which a joint is said to move


@dataclass(frozen=True)
class Answer:
    """How well a response foretells, after `steps` steps on its own poses; root mean squares over joints, rad."""

    steps: int
    off: float
    standing: float  # of an arm that never moves


class Response(nn.Module):
    """Joints (M, 2 D), now and one control step before, under goals (M, D) -> those one step on; all rad."""

    gain: Tensor  # each (D,)
    carry: Tensor
    drift: Tensor
    below: Tensor
    above: Tensor

    def __init__(self, dims: int):
        super().__init__()
        for name, value in BEGUN.items():
            self.register_buffer(name, torch.full((dims,), value))

    @staticmethod
    def standing(joints: Tensor) -> Tensor:
        """What is known of joints (M, n, D), the last now, n = 1 or 2: (M, 2 D); of one moment, that they stand."""
        return torch.cat([joints[:, -1], joints[:, -min(2, joints.shape[1])]], 1).float()

    def step(self, state: Tensor, goal: Tensor) -> Tensor:
        """One control step."""
        return _step(dict(self.named_buffers()), state, goal)

    def forward(self, state: Tensor, goals: Tensor) -> Tensor:
        """States after each of goals (M, E, D): (M, E, 2 D)."""
        return _roll(dict(self.named_buffers()), state, goals)

    def fit(
        self, joints: np.ndarray, goals: np.ndarray, episodes: np.ndarray, steps: int, names: tuple[str, ...]
    ) -> Answer:
        """Measure the response on recorded rows, and keep it. Deterministic.

        Args:
            joints, goals: (N, D) rad, what was read before and commanded in each control step.
            episodes: (N,) which episode a row is of; rows of one follow each other.
            names: of the joints, (D,).

        Raises:
            RobotError: no episode is long enough, or the joints, or one of them, do not follow the goals.
        """
        reach = steps + 1
        begins = np.flatnonzero(episodes[: max(0, len(episodes) - reach)] == episodes[reach:])
        if not len(begins):
            raise RobotError(f"no episode has the {reach + 1} steps in a row from which an arm's response is measured")
        begins = begins[np.unique(np.linspace(0, len(begins) - 1, min(STRETCHES, len(begins))).astype(int))]
        seen = torch.from_numpy(joints[begins[:, None] + np.arange(reach + 1)]).float()
        told = torch.from_numpy(goals[begins[:, None] + np.arange(1, reach)]).float()
        begun, true = torch.cat([seen[:, 1], seen[:, 0]], 1), seen[:, 2:]

        with torch.enable_grad():
            values = {name: value.detach().cpu().clone().requires_grad_() for name, value in self.named_buffers()}
            optimizer = torch.optim.Adam(list(values.values()), RATE)
            for _ in range(ROUNDS):
                optimizer.zero_grad()
                loss = (_roll(values, begun, told)[..., : joints.shape[1]] - true).square().mean()
                loss.backward()
                optimizer.step()
        for name, value in values.items():
            getattr(self, name).copy_(value.detach())

        with torch.no_grad():
            end = _roll(values, begun, told)[:, -1, : joints.shape[1]]
            each_off, each_still = ((one - true[:, -1]).square().mean(0).sqrt() for one in (end, seen[:, 1]))
            off, still = (float(each.square().mean().sqrt()) for each in (each_off, each_still))
        if not np.isfinite(off) or off > FOLLOWS * still:
            raise RobotError(
                f"the joints do not follow the actions: {steps} steps on the best response is off by {off:.3f} rad, an "
                f"arm that never moves by {still:.3f}. Are actions joint targets of the same arm, row by row?"
            )
        each_blind = _foretold_blindly(seen[:, 0], seen[:, 1], true[:, -1])
        loose = (each_still > MOVES) & (each_off > ONE_FOLLOWS * each_still) & (each_off > TOLD * each_blind)
        if loose.any():
            one = int(loose.int().argmax())
            raise RobotError(
                f"the joint '{names[one]}' does not follow its action: {steps} steps on the best response is off by "
                f"{float(each_off[one]):.3f} rad, a forecast that is told no action by {float(each_blind[one]):.3f}. "
                "Is this number of the action its target, in rad and of the same zero?"
            )
        return Answer(steps, off, still)


def _foretold_blindly(before: Tensor, now: Tensor, end: Tensor) -> Tensor:
    """(D,) root mean squares that joints (M, D) at the end are off a linear forecast from their past alone."""
    off = []
    for a, b, c in zip(before.unbind(1), now.unbind(1), end.unbind(1), strict=True):
        past = torch.stack([a, b, torch.ones_like(a)], 1).double()
        off.append(
            (past @ torch.linalg.lstsq(past, c[:, None].double(), driver="gelsd").solution - c[:, None]).square()
        )
    return torch.cat(off, 1).mean(0).sqrt().float()


def _step(values: dict[str, Tensor], state: Tensor, goal: Tensor) -> Tensor:
    now, before = state.chunk(2, 1)
    away = torch.minimum(torch.maximum(goal - now, -values["below"]), values["above"])
    after = now + values["carry"] * (now - before) + values["gain"] * away + values["drift"]
    return torch.cat([after, now], 1)


def _roll(values: dict[str, Tensor], state: Tensor, goals: Tensor) -> Tensor:
    states = []
    for goal in goals.unbind(1):
        state = _step(values, state, goal)
        states.append(state)
    return torch.stack(states, 1)
