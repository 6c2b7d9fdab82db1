"""Scripted demonstrators: they see the privileged state of a lane and say what to do now.

An expert is a plain function of the lane's state, so that a policy can learn it and so that it recovers from any
disturbance. It runs where the lane lives (`Lanes.call("expert_action")`). It knows nothing of datasets.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..configs.lane import Lane
from ..configs.plugins import lookup


class Expert(Protocol):
    """One demonstrator."""

    def act(self, env: Lane) -> np.ndarray:
        """The action (D,) for now, in the units of the embodiment; may exceed the limits, the lane clips."""
        ...


EXPERTS: dict[str, type[Expert]] = {}


def register_expert(name: str):
    """Class decorator: the task that this expert demonstrates. A name given twice is an error."""

    def register(expert: type[Expert]):
        if name in EXPERTS:
            raise ValueError(f"expert '{name}' is registered already")
        EXPERTS[name] = expert
        return expert

    return register


def expert_action(name: str, env: Lane, noise: float = 0.0) -> np.ndarray:
    """(D,) float32 action of the expert `name`, inside the limits.

    Args:
        noise: standard deviation of noise added to it, in half ranges of the limits; keyed by start and step. The reset
            option `shake` of a lane disturbs what is executed and leaves the action, the label, clean.
    """
    low, high = env.action_space.low, env.action_space.high
    action = np.asarray(lookup("expert", name, EXPERTS)().act(env), np.float32)
    if noise:
        rng = np.random.default_rng([env.start & 0xFFFFFFFFFFFFFFFF, env.ticks, 1])
        action = action + np.float32(noise) * rng.standard_normal(low.shape, np.float32) * (high - low) / 2
    return np.clip(action, low, high)
