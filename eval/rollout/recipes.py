"""Who acts, as something that can be sent to another process and made there: a policy, an expert, a recorded tape.

A recipe holds settings, never weights: each process loads the policy from its checkpoint, and refuses one that is no
longer the one that was meant. Equal recipes make equal actors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ...configs.plugins import discover
from ...configs.spec import Embodiment
from ...configs.world import World, written_out
from ...policies.address import is_address
from ...policies.agent.open import Acting, open_agent
from ...policies.critics.open import critic_checkpoints, critic_folders, critics_moved
from ...policies.learning.checkpoint import acting_files, find_checkpoint, fingerprint
from ...sim.experts import Manner
from .actors import ExpertActor, NoisyActor, TapeActor
from .rollout import Actor

if TYPE_CHECKING:
    from ...configs.lanes.lanes import Lanes
    from ...policies.agent.agent import Agent


class ChangedPolicyError(ValueError):
    """The checkpoint is not the one that the run began with."""


@runtime_checkable
class Recipe(Protocol):
    """How to make an actor. A frozen dataclass: it is compared, and sent to other processes."""

    needs_torch: bool  # which takes long to import

    @abstractmethod
    def actor(self, lanes: Lanes) -> Actor:
        """A new actor for these environments."""
        ...


@runtime_checkable
class Reads(Recipe, Protocol):
    """A recipe that reads files, which another machine does not have."""

    @abstractmethod
    def places(self) -> tuple[str, ...]:
        """The checkpoint folders and files of this machine that it reads.

        Raises:
            ValueError: it reads what cannot be sent.
        """
        ...

    @abstractmethod
    def moved(self, places: Mapping[str, str]) -> Recipe:
        """The same where those lie elsewhere, and only CPUs compute."""
        ...


@dataclass(frozen=True)
class PolicyRecipe:
    """A policy's agent, as `open_agent` makes it.

    Args:
        world: what the agent was opened for; it may act in one with more cameras.
        noise: of its actions, see `NoisyActor`.
        weights: fingerprints of the policy and its critics; "": not known.
        body: who acts, where files that lie elsewhere than the checkpoint said it (lerobot's: those of its dataset).
    """

    acting: Acting
    world: World
    noise: float = 0.0
    weights: tuple[str, ...] = ()
    body: Embodiment | None = None
    needs_torch = True

    @classmethod
    def of(cls, config: Acting, agent: Agent, about: Mapping, world: World, noise: float = 0.0) -> PolicyRecipe:
        """The recipe of an agent that is open already: it names the checkpoint itself, which no training moves."""
        names = [item.name for item in dataclasses.fields(Acting)]
        acting = Acting(
            **{name: getattr(config, name) for name in names}
            | {"policy": getattr(agent, "origin", "") or config.policy}
        )
        body = agent.planner.embodiment if _told_elsewhere(acting, about) else None
        return cls(acting, world, noise, _weights(acting, about), body)

    def actor(self, lanes: Lanes) -> Actor:
        return self.noisy(self.agent())

    def agent(self) -> Agent:
        """The agent in this process. Raises ChangedPolicyError."""
        import torch

        discover("policies")
        torch.set_num_threads(self.acting.threads)
        with contextlib.redirect_stdout(io.StringIO()):  # said already, where the run began
            agent, about = open_agent(self.acting, self.world.embodiment, self.world.task, self.body)
        if self.weights and _weights(self.acting, about) != self.weights:
            raise ChangedPolicyError(
                f"the policy in '{self.acting.policy}', or its critic, was changed while it is being evaluated; "
                "let its training end, or evaluate a copy"
            )
        return agent

    def places(self) -> tuple[str, ...]:
        from ...policies.agent.goal import RECORDED

        acting = self.acting
        if acting.goal not in (None, RECORDED):
            raise ValueError(f"--goal {acting.goal} is read on this machine alone: use --engine local")
        if is_address(acting.policy) and re.search(r"//(localhost|127\.|\[?::1)", acting.policy):
            raise ValueError(
                f"{acting.policy} is a server of this machine, which other machines do not reach by that name: give "
                "its address in their network, or use --engine local"
            )
        policy = [] if is_address(acting.policy) else [acting.policy]
        files = [path for path in (acting.embodiment, acting.alarm) if path is not None]
        return (*policy, *critic_folders(acting.critic), *files)

    def moved(self, places: Mapping[str, str]) -> PolicyRecipe:
        acting = self.acting
        files = {name: getattr(acting, name) for name in ("policy", "embodiment", "alarm")}
        there = {name: places.get(path, path) for name, path in files.items()}
        there |= {"critic": critics_moved(acting.critic, places), "device": "cpu"}
        return dataclasses.replace(self, acting=dataclasses.replace(acting, **there), world=written_out(self.world))

    def noisy(self, agent: Agent) -> Actor:
        """The agent with the noise that is asked for."""
        if not self.noise:
            return agent
        limits = self.world.embodiment().limits
        return NoisyActor(agent, limits, self.noise, self.acting.block, self.acting.policy_seed)


@dataclass(frozen=True)
class ExpertRecipe:
    """The environments' own experts."""

    manner: Manner | float = 0.0
    needs_torch = False

    def actor(self, lanes: Lanes) -> Actor:
        return ExpertActor(lanes, self.manner)


@dataclass(frozen=True, eq=False)
class TapeRecipe:
    """Recorded actions, played again."""

    tapes: Mapping[int, np.ndarray] = field(default_factory=dict)
    needs_torch = False

    def actor(self, lanes: Lanes) -> Actor:
        return TapeActor(self.tapes, lanes.num_envs)


def weight_of(*policies: str) -> float:
    """Bytes of the files of policies that lie here."""
    folders = [Path(os.path.expandvars(policy)) for policy in policies]
    found = [find_checkpoint(folder) for folder in folders if folder.exists()]
    return float(sum(file.stat().st_size for folder in found for file in acting_files(folder)))


def _told_elsewhere(acting: Acting, about: Mapping) -> bool:
    """Whether who acts stands in a file that is neither the checkpoint's nor sent with it."""
    source = Path(about.get("body") or "")
    return acting.embodiment is None and source.is_file() and not source.is_relative_to(acting.policy)


def _weights(acting: Acting, about: Mapping) -> tuple[str, ...]:
    critics = [fingerprint(Path(folder)) for folder in critic_checkpoints(acting.critic)]
    return (str(about.get("fingerprint", "")), *critics)
