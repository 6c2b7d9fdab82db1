"""What all learned critics share: reading observations and plans, ensembles, target networks, pessimism.

A critic values the first `reads` actions of a plan after what was observed: in the critic's own action scale, whatever
scale the policy has, so plans come in units. Which loss it learns by is another file: `iql.py`, `calql.py`,
`chunk.py`. V-GPS (arXiv 2410.13816) keeps the policy as it is and ranks its samples by the least of the target
networks' values.

A critic of several `tasks` reads observations through FiLM (Perez et al. 2018) by the task's number: features are
scaled and shifted. The world says nothing of tasks, so who opens such a critic says which one it judges (`judge_task`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...configs.spec import TASK, Embodiment, Window, picture_keys, vectors
from ..data.rewards import Rewards
from ..data.windows import LATER
from ..networks.eyes import Eyes, Vision
from ..networks.heads import Heads
from ..networks.states import check_offered, read_states, state_scales, state_widths
from ..policy import (
    Configured,
    Critic,
    CriticConfig,
    Embodied,
    Past,
    Plans,
    Scale,
    Scales,
    Stepped,
    TaskJudge,
    Trainable,
)

UNLIKELY = -3.0  # logit that bounded values begin with


class Pessimism(Enum):
    """How the answers of an ensemble become one."""

    least = "least"
    lower = "lower"  # mean - std_penalty * standard deviation


@dataclass(frozen=True, kw_only=True)
class ValueConfig(CriticConfig):
    """Settings shared by critics that are trained."""

    RENAMED: ClassVar[dict[str, str]] = {  # former names that are still read
        "needs": "inputs",
        "doubt": "std_penalty",
        "crossing": "bootstrap_timeouts",
    }

    BEFORE: ClassVar[dict] = {"input_bound": None}  # what checkpoints did that do not say it yet

    window: Window = Window(observe=(0,), horizon=1)  # horizon: actions between an observation and the later one
    inputs: tuple[str, ...] = ("observation.state",)  # observation keys that the critic reads
    rewards: Rewards = Rewards()
    widths: tuple[int, ...] = (256, 256)  # hidden widths of each network
    layer_norm: bool = True  # normalises each hidden layer
    ensemble: int = 2  # networks that value an action chunk
    tau: float = 0.005  # part of the way that target networks follow at each step
    pessimism: Pessimism = Pessimism.least  # what of the ensemble ranks chunks: least | lower (mean minus std_penalty)
    std_penalty: float = 1.0  # with lower: standard deviations below the mean
    bounded: bool = False  # values stay within what the rewards can add up to, learnt by cross-entropy
    tasks: tuple[str, ...] = ()  # texts of a dataset's tasks that one critic is to tell apart; none: one task, unnamed
    vision: Vision | None = None  # how pictures are read: by the frozen encoders of a policy's run (init, frozen: true)
    input_bound: float | None = 10.0  # scaled states are cut to this many standard deviations; none: not at all
    bootstrap_timeouts: bool = True  # learns from chunks that a time-out cut short; false: leaves them out

    def __post_init__(self):
        if picture_keys(self.inputs) and not (self.vision and self.vision.frozen):
            raise ValueError(
                "a critic reads pictures by the frozen encoders of a policy: set vision: {init: RUN, frozen: true}"
            )
        if self.window.recall:
            raise ValueError("a critic reads observations and plans, no past actions; leave window.recall out")
        if self.ensemble < 1 or not self.widths or not 0 < self.tau <= 1:
            raise ValueError(
                f"a critic needs an ensemble of at least 1, widths and 0 < tau <= 1, got {self.ensemble}, "
                f"{self.widths} and {self.tau}"
            )

    @property
    def ahead(self) -> int:
        """Control steps to the observation that is bootstrapped from."""
        return self.window.horizon


class Reader(nn.Module):
    """Reads observations, with scales and a task embedding of its own; pictures as their embeddings."""

    def __init__(self, config: ValueConfig, embodiment: Embodiment, scales: Scales):
        super().__init__()
        self.inputs, self.bound = vectors(config.inputs), config.input_bound
        self.pictures = picture_keys(config.inputs)
        self.state_scales = state_scales(config.inputs, scales)
        seen = [config.vision.encoder.features] * len(self.pictures) if config.vision else []
        self.features = len(config.window.observe) * sum((*state_widths(config.inputs, embodiment), *seen))
        self.film = nn.Embedding(len(config.tasks), 2 * self.features) if config.tasks else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Observations (B, O, ...) each, and `task` (B,) int64 where several are told apart -> (B, F)."""
        parts = [read_states(self.state_scales, self.inputs, obs, self.bound)] if self.inputs else []
        parts += [obs[key] for key in self.pictures]
        features = (parts[0] if len(parts) == 1 else torch.cat(parts, -1)).flatten(1)
        if self.film is None:
            return features
        scale, shift = self.film(obs[TASK]).chunk(2, -1)
        return torch.addcmul(shift, features, 1 + scale)


class QNetwork(Reader):
    """Observations and actions -> `count` values each. They begin as those of failure: what is unknown is not good."""

    def __init__(self, config: ValueConfig, embodiment: Embodiment, scales: Scales, *, actions: int, count: int):
        super().__init__(config, embodiment, scales)
        inputs = self.features + actions * len(embodiment.action)
        failed = UNLIKELY if config.bounded else config.rewards.bounds[0]
        self.heads = Heads(inputs, config.widths, count, config.layer_norm, start=failed)
        self.bounds = config.rewards.bounds if config.bounded else None

    def raw(self, features: Tensor, actions: Tensor | None = None) -> Tensor:
        """Features (..., F) and scaled actions (..., A), broadcast -> (count, ...), to be made values by `value`."""
        if actions is None:
            return self.heads(features)
        return self.heads(torch.cat([features.expand(*actions.shape[:-1], -1), actions], -1))

    def value(self, raw: Tensor) -> Tensor:
        """What the networks put out -> values."""
        if self.bounds is None:
            return raw
        low, high = self.bounds
        return low + (high - low) * raw.sigmoid()

    def error(self, raw: Tensor, target: Tensor) -> Tensor:
        """Of each output, for target values: squared, or cross-entropy where values are bounded."""
        if self.bounds is None:
            return (raw - target).square()
        low, high = self.bounds
        part = ((target - low) / (high - low)).clamp(0, 1).expand_as(raw)
        return F.binary_cross_entropy_with_logits(raw, part, reduction="none")

    def forward(self, obs: Mapping[str, Tensor], actions: Tensor | None = None) -> Tensor:
        """Values (count, B) of actions (B, A)."""
        return self.value(self.raw(self.encode(obs), actions))


class ValueModel(nn.Module, Critic, Trainable, Configured, Embodied, TaskJudge, Stepped):
    """A `Critic` and `Trainable`; subclasses say by which loss, and which judge ranks plans.

    Args:
        reads: how many actions of a plan are valued.
    """

    def __init__(self, config: ValueConfig, embodiment: Embodiment, scales: Scales, reads: int):
        super().__init__()
        check_offered(config.inputs, embodiment)
        self.config, self.embodiment = config, embodiment
        self.window, self.inputs, self.reads = config.window, config.inputs, reads
        self.action_scale = Scale.between(*scales.action)
        limits = torch.tensor(embodiment.limits, dtype=torch.float32)
        self.register_buffer("limits", limits, persistent=False)
        seen = picture_keys(config.inputs)
        self.eyes = Eyes(config.vision, config.inputs, embodiment) if seen and config.vision else None
        self.task = 0  # number of the task that plans are scored for, among `config.tasks`

    def judge_task(self, name: str | None) -> None:
        """Score plans for the task of this text; None: the only one.

        Raises:
            ValueError: not said among several, or not one of them.
        """
        known = self.config.tasks
        if name is None and len(known) <= 1:
            return
        if name not in known:
            reason = f"it was trained for {', '.join(known)}; write RUN@TASK" if known else "it knows one task, unnamed"
            raise ValueError(f"the critic cannot judge the task {name!r}: {reason}")
        self.task = known.index(name)

    @property
    def ranks(self) -> QNetwork:
        """The judge that ranks plans."""
        raise NotImplementedError

    @property
    def targets(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """(target network, network that it follows)."""
        raise NotImplementedError

    @torch.no_grad()
    def stepped(self) -> None:
        """Let the target networks follow; the training loop calls it after each step of the optimiser."""
        polyak_update(self.targets, self.config.tau)

    @torch.no_grad()
    def score(self, past: Past, plans: Plans) -> Tensor:
        """(B, N) value of the first `reads` actions of each plan.

        Raises:
            ValueError: plans of fewer actions than are read, or actions of another size.
        """
        past, judge = past.at(self.window), self.ranks
        task = torch.full((len(past.now),), self.task, device=past.now.device)
        seen = dict(zip(self.eyes.keys, self.eyes.read(past.obs), strict=True)) if self.eyes else {}
        features = judge.encode({**past.obs, **seen, TASK: task})[:, None]
        return self.reduce_ensemble(judge.value(judge.raw(features, self.actions(plans.future))))

    def actions(self, future: Tensor) -> Tensor:
        """Planned actions (..., H, D), units -> those that are read, as executed, in this critic's scale (..., A)."""
        dims = len(self.embodiment.action)
        if future.shape[-1] != dims or future.shape[-2] < self.reads:
            raise ValueError(
                f"the critic values {self.reads} actions of {dims} numbers, the plans have {future.shape[-2]} of "
                f"{future.shape[-1]}"
            )
        sent = future[..., : self.reads, :].clamp(self.limits[:, 0], self.limits[:, 1])
        return self.action_scale.scale(sent).clamp(-1, 1).flatten(-2)

    def reduce_ensemble(self, values: Tensor) -> Tensor:
        """Values (count, ...) of an ensemble -> (...), pessimistically."""
        if self.config.pessimism is Pessimism.least:
            return values.amin(0)
        return values.mean(0) - self.config.std_penalty * values.std(0, correction=0)

    def chunk(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The executed actions of a batch, scaled (B, T, D), filled up after an episode's end."""
        return fill(self.action_scale.scale(batch["action"]).clamp(-1, 1), batch["action.valid"])

    def later(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The observations after the chunk, and the task."""
        return {key: batch[LATER + key] for key in self.inputs} | ({TASK: batch[TASK]} if self.config.tasks else {})

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B,) 1 for windows that count in the loss, 0 for others."""
        if self.config.bootstrap_timeouts:
            return torch.ones_like(batch["reward"])
        return batch["whole"].to(batch["reward"].dtype)


def fill(actions: Tensor, valid: Tensor) -> Tensor:
    """Actions (B, T, D), those after an episode's end (valid (B, T) False) replaced by those of other windows.

    No action matters there; a critic must not know the end by its padding.
    """
    return torch.where(valid[..., None], actions, actions[torch.randperm(len(actions), device=actions.device)])


def polyak_update(targets: Iterable[tuple[nn.Module, nn.Module]], part: float) -> None:
    """Move target networks by `part` of the way to the networks that they follow."""
    for target, source in targets:
        for held, fresh in zip(target.parameters(), source.parameters(), strict=True):
            held.lerp_(fresh, part)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """What is computed inside sends no gradient to the parameters of `model`, but through it."""
    moved = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in moved:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moved:
            parameter.requires_grad_(True)


def target_of(model: nn.Module) -> nn.Module:
    """A copy that no gradient reaches."""
    return copy.deepcopy(model).requires_grad_(False)


def average(error: Tensor, counts: Tensor) -> Tensor:
    """Mean of errors (..., B) over the windows that count (B,)."""
    return (error * counts).sum() / (counts.sum() * (error.numel() // len(counts))).clamp_min(1)


def scalars_of(**numbers: Tensor) -> dict[str, float]:
    """Tensors -> the means of their elements."""
    return {name: value.detach().mean().item() for name, value in numbers.items()}


def expectile_weight(difference: Tensor, part: float) -> Tensor:
    """|part - 1(difference < 0)|: by it expectiles weigh squares, and quantiles distances."""
    return torch.where(difference < 0, 1 - part, part)
