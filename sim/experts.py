"""Scripted demonstrators: they see the privileged state of a lane and say what to do now.

An expert is a plain function of the lane's state, so that a policy can learn it and so that it recovers from any
disturbance. It runs where the lane lives (`Lanes.call("expert_action")`). It knows nothing of datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ..configs.lanes.lane import Lane
from ..configs.plugins import discover, lookup
from ..configs.protocols import keeps
from ..configs.rng import rng_of


class Expert(Protocol):
    """One demonstrator. Its class may also be `Styled` and `Flawed`; see `Manner`."""

    def act(self, env: Lane) -> np.ndarray:
        """The action (D,) for now, in the units of the embodiment; may exceed the limits, the lane clips."""
        ...


@runtime_checkable
class Styled(Protocol):
    """The class of an expert that acts in several ways."""

    styles: Mapping[str, Mapping]  # name -> fields that differ


@runtime_checkable
class Flawed(Protocol):
    """The class of an expert that can fail on purpose."""

    flaws: Mapping[str, Mapping]  # name -> fields that differ


EXPERTS: dict[str, type[Expert]] = {}


def register_expert(name: str):
    """Class decorator: the task that this expert demonstrates. A name given twice is an error."""

    def register(expert: type[Expert]):
        if name in EXPERTS:
            raise ValueError(f"expert '{name}' is registered already")
        EXPERTS[name] = expert
        return expert

    return register


@dataclass(frozen=True)
class Manner:
    """How an expert acts, for data of mixed quality. What is drawn is keyed by the start.

    Args:
        noise: standard deviation of noise added to its actions, in half ranges of the limits; keyed by start and step.
            The reset option `action_noise` of a lane disturbs what is executed and leaves the action, the label, clean.
        style: names of its `styles`, separated by commas, of which each start draws one; "mixed": all and the plain.
        fail: probability of a start at which it fails on purpose, in one of the ways of its `flaws`.
    """

    noise: float = 0.0
    style: str = ""
    fail: float = 0.0

    def of(self, name: str, start: int) -> dict[str, str]:
        """The style and the flaw that `start` draws, each "" if none. Raises LookupError for an unknown style."""
        expert = _find(name)
        styles = {"plain": {}} | _styles(expert)
        names = [word.strip() for word in self.style.split(",")] if self.style else ["plain"]
        names = sorted(styles) if names == ["mixed"] else names
        for style in names:
            lookup(f"style of expert {name}", style, styles)

        flaws = sorted(_flaws(expert))
        if self.fail and not flaws:
            raise LookupError(f"the expert of {name} cannot fail on purpose")

        rng = rng_of(start, 2)
        style, failing = names[rng.integers(len(names))], rng.uniform() < self.fail
        return {"style": style, "flaw": flaws[rng.integers(len(flaws))] if failing else ""}

    def expert(self, name: str, start: int) -> Expert:
        """The expert `name` as it acts from `start`."""
        expert, drawn = _find(name), self.of(name, start)
        fields = dict(_styles(expert).get(drawn["style"], {}))
        return expert(**fields | _flaws(expert).get(drawn["flaw"], {}))


def expert_action(name: str, env: Lane, manner: Manner | float = 0.0) -> np.ndarray:
    """(D,) float32 action of the expert `name`, inside the limits. A number as `manner` is its `noise`.

    Raises:
        LookupError: nobody demonstrates `name`, or not in this style.
    """
    manner = manner if isinstance(manner, Manner) else Manner(noise=manner)
    low, high = env.action_space.low, env.action_space.high
    action = np.asarray(manner.expert(name, env.start).act(env), np.float32)
    if manner.noise:
        rng = rng_of(env.start, env.ticks, 1)
        draw = rng.standard_normal(low.shape, np.float32)
        action = action + np.float32(manner.noise) * draw * (high - low) / 2
    return np.clip(action, low, high)


def _find(name: str) -> type[Expert]:
    if name not in EXPERTS:  # a worker has imported its own world only
        discover("sim")
    return lookup("expert", name, EXPERTS)


def _styles(expert: type[Expert]) -> Mapping[str, Mapping]:
    return expert.styles if keeps(expert, Styled) else {}


def _flaws(expert: type[Expert]) -> Mapping[str, Mapping]:
    return expert.flaws if keeps(expert, Flawed) else {}
