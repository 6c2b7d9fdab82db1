"""The types that policies and critics meet at: `Past` in, `Plans` out, `Field` between, `Critic` beside.

Letters: B batch (lanes), N candidate plans, O observed frames, K recalled actions, H horizon, T = K + H action tokens,
D action dimension. Past token K-1 is the action before now, token K is the action for now.

Observations and actions are in the embodiment's units here; scaling happens inside the models. Nothing in this file
knows how a policy was trained, or which world it acts in.

What is a policy or a critic here names the protocols that it keeps among its bases. Others need not: whether something
keeps one is asked by `configs.protocols.keeps`.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..configs.protocols import keeps
from ..configs.rng import rng_of
from ..configs.spec import GOAL, TASK, Embodiment, Window
from .kinds import CompositionConfig, CriticConfig, PolicyConfig, Scales, WorldModelConfig

__all__ = ["CompositionConfig", "CriticConfig", "PolicyConfig", "Scales", "WorldModelConfig"]  # of `kinds.py`


@dataclass(frozen=True)
class Past:
    """What has been seen and done, read at the offsets of a window. `valid` is False before the episode began.

    Invalid observations repeat the first frame, invalid actions are zeros.
    """

    # key -> (B, O, ...), float32 in units; images uint8 (B, O, h, w, 3), or what their encoder made of them (B, O, E);
    # in training also `task`, (B,) number of the task among the texts that the model knows, and `goal.KEY`, the last
    # picture of the episode, (B, h, w, 3) or (B, E)
    obs: Mapping[str, Tensor]
    obs_times: tuple[int, ...]  # O offsets in control steps, 0 = now
    obs_valid: Tensor  # (B, O) bool
    actions: Tensor  # (B, K, D) really executed, units of the embodiment
    action_times: tuple[int, ...]  # K offsets, all below 0
    action_valid: Tensor  # (B, K) bool
    now: Tensor  # (B,) int64, control steps since the episode began

    def at(self, window: Window) -> Past:
        """The part that `window` reads. Raises KeyError by offset if it is not held."""
        frames = _positions(self.obs_times, window.observe, "observation")
        tokens = _positions(self.action_times, window.recall, "action")
        return dataclasses.replace(
            self,
            obs={key: value if _is_timeless(key) else _read(value, frames) for key, value in self.obs.items()},
            obs_times=window.observe,
            obs_valid=_read(self.obs_valid, frames),
            actions=_read(self.actions, tokens),
            action_times=window.recall,
            action_valid=_read(self.action_valid, tokens),
        )


@dataclass(frozen=True)
class Plans:
    """N candidate plans for each lane."""

    past: Tensor  # (B, N, K, D) the planner's reconstruction of the recalled actions, units
    future: Tensor  # (B, N, H, D) actions from `start` on, units
    start: Tensor  # (B,) int64 tick of the first future action

    def pick(self, choice: Tensor) -> Plans:
        """Keep one candidate a lane: `choice` (B,) int64 -> plans with N = 1."""
        lane = torch.arange(len(choice), device=choice.device)
        return Plans(self.past[lane, choice, None], self.future[lane, choice, None], self.start)


@dataclass(frozen=True)
class Field:
    """The denoiser `D(y, s)`: posterior mean E[x0 | y, s] of `y = x0 + s * noise`, not clipped.

    `y` is (B, N, T, D) in the scaled action space ([-1, 1] over the action scale), `s` a positive float, the
    noise-to-signal ratio, within [low, high]. Observations were encoded when the field was made.
    """

    denoise: Callable[[Tensor, float], Tensor]
    shape: tuple[int, int, int, int]  # (B, N, T, D)
    times: tuple[int, ...]  # T offsets of the action tokens, 0 = now
    sigma_min: float
    sigma_max: float

    def __call__(self, y: Tensor, s: float) -> Tensor:
        return self.denoise(y, s)


class LaneNoise:
    """Randomness keyed by lane, so that a lane's draws do not depend on its neighbours.

    Lane b draws from a generator keyed by `(seed, starts[b], replans[b])`. The first candidate gets the same noise
    whatever the number of candidates. What was given is kept, for planners that think elsewhere.
    """

    def __init__(self, seed: int, starts: np.ndarray, replans: np.ndarray):
        self.seed, self.starts, self.replans = int(seed), np.asarray(starts), np.asarray(replans)
        keys = zip(self.starts.tolist(), self.replans.tolist(), strict=True)
        self._lanes = [rng_of(seed, start, replan) for start, replan in keys]

    @classmethod
    def joined(cls, parts: Sequence[LaneNoise]) -> LaneNoise:
        """The lanes of several, in order, each with its own key; `seed` is the first one's."""
        starts, replans = (np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "replans"))
        made = cls(parts[0].seed, starts, replans)
        made._lanes = [lane for part in parts for lane in part._lanes]
        return made

    def __len__(self) -> int:
        return len(self._lanes)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32 standard normal."""
        return torch.from_numpy(np.stack([lane.standard_normal(shape, np.float32) for lane in self._lanes]))

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) float32 in [0, 1)."""
        return torch.from_numpy(np.stack([lane.random(shape, np.float32) for lane in self._lanes]))


class Noiseless(LaneNoise):
    """Zeros in place of normal noise: plans are then a function of what is seen. Even draws stay as they are."""

    def normal(self, *shape: int) -> Tensor:
        return torch.zeros(len(self), *shape)


@runtime_checkable
class Planner(Protocol):
    """All that the agent, critics and servers need of a policy."""

    embodiment: Embodiment
    window: Window
    inputs: tuple[str, ...]  # observation keys that it reads

    @abstractmethod
    def plan(self, past: Past, n: int, rng: LaneNoise) -> Plans:
        """Draw `n` plans a lane. Deterministic in `rng`."""
        ...


@runtime_checkable
class Sampled(Protocol):
    """A planner with settings of how plans are drawn; they may be replaced."""

    sampler: Any  # `generative.Sampler`


@runtime_checkable
class Executes(Protocol):
    """A planner that says how much of each plan is executed."""

    n_action_steps: int  # E, actions executed of each plan


@runtime_checkable
class Ensembles(Protocol):
    """A planner that was made for temporal ensembling (`agent/ensemble.py`), or says that it was not."""

    temporal_ensemble: float | None  # decay of the weights; None: the newest plan alone


@runtime_checkable
class Scaled(Protocol):
    """A planner that plans in a scaled space of its own."""

    action_scale: Scale  # units <-> the scaled space


@runtime_checkable
class Policy(Sampled, Executes, Scaled, Planner, Protocol):
    """A planner that also offers the denoiser it plans with, so that it can be composed.

    The sampler draws from the field, in the scaled space.
    """

    @abstractmethod
    def field(self, past: Past, n: int) -> Field:
        """The denoiser for `n` candidates a lane; observations are encoded here, once."""
        ...


@runtime_checkable
class Critic(Protocol):
    """Scores plans; the agent keeps the best."""

    window: Window
    inputs: tuple[str, ...]
    reads: int  # future actions it scores: as many as are executed, or 1 (judged by how a plan begins), or 0 (none)

    @abstractmethod
    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N), higher is better."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """What the one training loop trains: policies, critics and world models alike. Also an `nn.Module`."""

    window: Window
    inputs: tuple[str, ...]

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss and named scalars of a batch of windows (see `data.windows`).

        Of a config with `rewards` and `ahead` the batch also holds outcomes and later observations
        (`data.rewards`). May also be `Paced` and `Stepped`.
        """
        ...


# Optional parts. Who has one names it among its bases, or has what it names; it is asked for by `keeps`.


@runtime_checkable
class Configured(Protocol):
    """A planner or a critic that holds the settings it was built from."""

    config: Any


@runtime_checkable
class GivesPast(Protocol):
    """Settings that say whether recalled actions are inputs, as executed, in place of being predicted."""

    given: bool


@runtime_checkable
class Embodied(Protocol):
    """A critic that was trained for one body."""

    embodiment: Embodiment


@runtime_checkable
class Combination(Protocol):
    """A critic made of critics."""

    parts: tuple[Critic, ...]


@runtime_checkable
class TaskJudge(Protocol):
    """A critic that may know several tasks."""

    @abstractmethod
    def judge_task(self, name: str | None) -> None:
        """Score plans for the task of this text; None: the only one. Raises ValueError for one it does not know."""
        ...


@runtime_checkable
class Ready(Protocol):
    """Settings of a critic that needs no training, beside those of `CriticConfig`."""

    @abstractmethod
    def beside(self, planner: Planner) -> Critic:
        """The critic of this planner's plans. Raises ValueError if they are not to be judged so."""
        ...


@runtime_checkable
class Parametrised(Protocol):
    """A planner with weights, such as an `nn.Module`."""

    @abstractmethod
    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""
        ...


@runtime_checkable
class Sees(Protocol):
    """A planner or critic that may read pictures, and can keep what it made of one."""

    eyes: Any  # `networks.eyes.Eyes`; None where it reads no pictures


@runtime_checkable
class Instructed(Protocol):
    """A planner that may act by the text of a task."""

    language: Any  # `networks.language.Language`; None where it reads no text


@runtime_checkable
class SeesGoals(Sees, Embodied, Protocol):
    """A planner that may act for goal pictures."""

    goals: Any  # `networks.goals.Goals`; None where it reads none


@runtime_checkable
class Paced(Protocol):
    """A trainable whose parts learn at different rates."""

    @abstractmethod
    def groups(self) -> list[dict]:
        """Groups of parameters of the optimiser, each {params, pace}; `pace` multiplies the learning rate."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A trainable whose loss is a mean over something else than windows, as over the tokens that are no padding."""

    @abstractmethod
    def count(self, batch: Mapping[str, Tensor]) -> float:
        """How many of them a batch holds: how much it weighs beside others of the same step."""
        ...


@runtime_checkable
class Stepped(Protocol):
    """A trainable that follows the optimiser, as target networks do."""

    @abstractmethod
    def stepped(self) -> None:
        """Called after each step of the optimiser."""
        ...


class WindowSet(Protocol):
    """Windows of a dataset, by position."""

    def __len__(self) -> int: ...

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """The windows at positions (B,) as a batch."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A trainable that takes something from its data, or from another run, before it is trained for the first time."""

    @abstractmethod
    def begin(self, dataset: Any, episodes: np.ndarray) -> list[str]:
        """Take it from the training episodes of a `Dataset`, by position; what to say of it. Raises ValueError."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A trainable that looks at windows of the training episodes once, before it is trained for the first time."""

    @abstractmethod
    def prepare(self, batch: Mapping[str, Tensor]) -> None:
        """Take from `action` (n, T, D) and `action.valid` (n, T) what training does not change."""
        ...


@runtime_checkable
class UsesPast(Protocol):
    """A trainable that says in words how it uses the past."""

    @property
    def arm(self) -> str:
        """Which of the published arms it is."""
        ...


def executed_of(planner: Planner, otherwise: int = 8) -> int:
    """E, actions executed of each plan: the planner's own, or `otherwise` where it does not say.

    Raises:
        TypeError: a planner of another make that says it under the former name, `execute`.
    """
    if not keeps(planner, Executes) and hasattr(planner, "execute"):
        raise TypeError(f"{type(planner).__name__}.execute is named n_action_steps now; rename it")
    return planner.n_action_steps if keeps(planner, Executes) else otherwise


def ensemble_of(planner: Planner) -> float | None:
    """Decay of the temporal ensembling that the planner was made for; None: the newest plan alone."""
    return planner.temporal_ensemble if keeps(planner, Ensembles) else None


def half_range(planner: Planner) -> Tensor:
    """(D,) float32 on the CPU, what is 1 in the scaled action space, in units: of the scale, else of the limits."""
    scale = planner.action_scale if keeps(planner, Scaled) else None
    if scale is not None:
        return scale.std.detach().cpu()
    low, high = torch.tensor(planner.embodiment.limits).T
    return (high - low) / 2


def past_is_given(planner: Planner) -> bool:
    """Are recalled actions handed to the planner, so that all its plans agree on them?"""
    config = planner.config if keeps(planner, Configured) else None
    return bool(config.given) if keeps(config, GivesPast) else False


def weights_of(planner: Planner) -> Iterator[nn.Parameter]:
    """The planner's weights; none of one without."""
    return planner.parameters() if keeps(planner, Parametrised) else iter(())


class Scale(nn.Module):
    """Affine map of a vector's dimensions between units and the network's space; saved with the weights.

    The action scale is pinned per task (`low..high` to [-1, 1]); states use statistics of the dataset.
    """

    mean: Tensor  # (D,) units
    std: Tensor  # (D,) units, positive

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).clone())
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).clone())
        if self.mean.shape != self.std.shape or not bool((self.std > 0).all()):
            raise ValueError("a scale needs a positive factor for each dimension")

    @classmethod
    def between(cls, low, high) -> Scale:
        """The map of [low, high] to [-1, 1]."""
        low, high = torch.as_tensor(low, dtype=torch.float32), torch.as_tensor(high, dtype=torch.float32)
        return cls((low + high) / 2, (high - low) / 2)

    def scale(self, x: Tensor) -> Tensor:
        """Units -> network space, last dimension."""
        return (x - self.mean) / self.std

    def unscale(self, y: Tensor) -> Tensor:
        """Network space -> units, last dimension."""
        return y * self.std + self.mean


def _is_timeless(key: str) -> bool:
    """Whether an observation holds for the whole episode: its task, or its goal."""
    return key == TASK or key.startswith(GOAL)


def _positions(held: tuple[int, ...], wanted: tuple[int, ...], what: str) -> list[int]:
    missing = [offset for offset in wanted if offset not in held]
    if missing:
        raise KeyError(f"{what} at offset {missing[0]} is not held; held offsets are {held}")
    return [held.index(offset) for offset in wanted]


def _read(values: Tensor, positions: list[int]) -> Tensor:
    """(B, O, ...) at these positions of O; as it is where they are all: pictures are slow to pick byte by byte."""
    return values if positions == list(range(values.shape[1])) else values[:, positions]


def past_of(batch: Mapping[str, Tensor], window: Window, inputs: tuple[str, ...]) -> Past:
    """The `Past` that an agent would hold at each window of a batch."""
    recalled = len(window.recall)
    told = [key for key in batch if _is_timeless(key)]
    return Past(
        obs={key: batch[key] for key in (*inputs, *told)},
        obs_times=window.observe,
        obs_valid=batch["observation.valid"],
        actions=batch["action"][:, :recalled],
        action_times=window.recall,
        action_valid=batch["action.valid"][:, :recalled],
        now=torch.zeros(len(batch["action"]), dtype=torch.int64, device=batch["action"].device),
    )
