"""What every policy around one network shares: scaling, the network's inputs, which action tokens exist and count.

A chunk is T = K + H action tokens: the recalled ones (`window.recall`, before now) and H future ones. Before an episode
began there are no actions: such tokens are padding. They are never a target, their input is zero at every noise level,
in training and in acting, and networks with masks do not look at them. Future tokens after the end of a demonstration
are ordinary tokens with the last action as value; `mask_padding` leaves them out of the loss.

Past-token prediction (PTP, arXiv 2505.09561): recalled tokens are denoised together with the future ones, and the loss
is the plain mean over all tokens that count. `past_loss_window` counts fewer recalled tokens, `given` hands the
executed actions over instead. Which of the published arms a configuration is, `arm` says.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...configs.spec import TASK, Embodiment, picture_keys, vectors
from ..networks.eyes import Eyes, Vision
from ..networks.goals import Goals
from ..networks.language import Language, LanguageConfig
from ..networks.mlp import MLPConfig
from ..networks.network import Context, Layout, NetworkConfig
from ..networks.states import beyond, read_states, slot, state_scales, state_widths
from ..policy import Configured, Executes, Past, Planner, PolicyConfig, Scale, Scaled, Scales, Trainable, UsesPast


@dataclass(frozen=True, kw_only=True)
class TokenConfig(PolicyConfig):
    """Settings shared by policies around one network."""

    BEFORE: ClassVar[dict] = {"input_bound": None}  # what checkpoints did that do not say it yet

    RENAMED: ClassVar[dict[str, str]] = {
        "execute": "n_action_steps",
        "dose": "past_loss_window",
    }  # former names that are still read

    network: NetworkConfig = MLPConfig()  # kind of network
    language: LanguageConfig | None = None  # how the text of the task is read; none: not at all
    goal: tuple[str, ...] = ()  # cameras among inputs whose last picture of the episode is the goal that is acted for
    vision: Vision | None = None  # how pictures among the inputs are read; none: a ResNet-18 from scratch a camera
    n_action_steps: int = 8  # actions executed of each action chunk (E)
    mask_padding: bool = True  # leaves actions after the episode's end out of the loss
    past_loss_window: int | None = None  # recalled actions in the loss, newest first; none: all, 0: inputs only
    given: bool = False  # recalled actions are inputs, as executed, and not predicted
    input_bound: float | None = 10.0  # scaled states are cut to this many standard deviations; none: not at all

    @property
    def tasks(self) -> tuple[str, ...]:
        """Texts of the tasks that are told apart; none: the text is not read."""
        return self.language.texts if self.language else ()

    def __post_init__(self):
        if not 1 <= self.n_action_steps <= self.window.horizon:
            raise ValueError(
                f"n_action_steps must be within 1..{self.window.horizon} (the horizon), got {self.n_action_steps}"
            )
        recalled = len(self.window.recall)
        if self.past_loss_window is not None and not 0 <= self.past_loss_window <= recalled:
            raise ValueError(
                f"past_loss_window must be within 0..{recalled} (the recalled actions), got {self.past_loss_window}"
            )
        if self.given and self.past_loss_window:
            raise ValueError("recalled actions that are given are not in the loss; leave past_loss_window out")
        if self.given and not recalled:
            raise ValueError("given needs recalled actions, but window.recall is empty")


class TokenPolicy(nn.Module, Executes, Scaled, Planner, Trainable, Configured, UsesPast):
    """Scaling and inputs of one network; subclasses say what it is trained for and how it plans."""

    def __init__(self, config: TokenConfig, embodiment: Embodiment, scales: Scales, two_times: bool = False):
        super().__init__()
        self.config, self.embodiment = config, embodiment
        self.window, self.inputs, self.n_action_steps = config.window, config.inputs, config.n_action_steps
        self.action_scale = Scale.between(*scales.action)
        self.state_scales = state_scales(self.inputs, scales)
        self._vectors = vectors(self.inputs)
        self._told: set[tuple[str, int]] = set()  # states that were found out of bounds
        seen = bool(picture_keys(self.inputs))
        self.eyes = Eyes(config.vision or Vision(), self.inputs, embodiment) if seen else None
        self.language = Language(config.language) if config.language else None
        widths = (*state_widths(self.inputs, embodiment), *(self.eyes.widths if self.eyes else ()))
        self.goals = Goals(tuple(config.goal), self.eyes) if config.goal else None
        widths += (self.language.features,) if self.language else ()
        widths += self.goals.widths if self.goals else ()
        layout = Layout(self.window.actions, len(embodiment.action), self.window.observe, widths)
        self.network = config.network.build(layout, two_times)

    def frames(self, obs: Mapping[str, Tensor], warn: bool = False) -> Tensor:
        """Observations -> (B, O, F): vectors (B, O, n), in units, scaled and bounded; pictures and text encoded.

        With `warn`, each dimension of the vectors that is cut is named, the first time that it is.
        """
        parts, bound = [], self.config.input_bound
        if self._vectors:
            seen = read_states(self.state_scales, self._vectors, obs)
            parts.append(seen if bound is None else seen.clamp(-bound, bound))
            if warn and bound is not None and not torch.equal(parts[0], seen):
                self._tell_of_bounds(obs, bound)
        if self.eyes is not None:
            parts += self.eyes.read(obs)
        lanes, frames = parts[0].shape[:2]
        if self.language is not None:
            parts.append(self.language.read(obs.get(TASK), lanes)[:, None].expand(-1, frames, -1))
        if self.goals is not None:
            parts += [goal[:, None].expand(-1, frames, -1) for goal in self.goals.read(obs, lanes)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def context(self, batch: Mapping[str, Tensor]) -> Context:
        """The observations of a batch of windows, encoded."""
        present = self._present(batch["action.valid"][:, : len(self.window.recall)])
        return self.network.encode(self.frames(batch), batch["observation.valid"], present)

    def recollect(self, past: Past) -> tuple[Context, Tensor, Tensor]:
        """Encode what has been seen, once.

        Returns:
            (context, values (B, T, D), held (B, T) bool): tokens that are held are no matter of denoising; they have
            these values in the scaled space, zero for padding.
        """
        present = self._present(past.action_valid)
        context = self.network.encode(self.frames(past.obs, warn=True), past.obs_valid, present)
        recalled = past.actions.shape[1]
        values = past.actions.new_zeros(*present.shape, past.actions.shape[2])
        held = ~present
        if self.config.given:
            held[:, :recalled] = True
            values[:, :recalled] = self.action_scale.scale(past.actions) * present[:, :recalled, None]
        return context, values, held

    def _tell_of_bounds(self, obs: Mapping[str, Tensor], bound: float) -> None:
        """Warn of each dimension of the states that is cut, the first time that it is."""
        for key, dim, value, scaled in beyond(self.state_scales, self.inputs, obs, bound):
            if (key, dim) in self._told:
                continue
            self._told.add((key, dim))
            scale = self.state_scales[slot(key)]
            warnings.warn(
                f"'{self.embodiment.offers()[key][dim]}' of {key} reads {value:.6g}, {abs(scaled):.3g} standard "
                f"deviations from what was trained on ({scale.mean[dim]:.6g} +- {scale.std[dim]:.3g}); the policy is "
                f"told {bound:g} (input_bound)",
                stacklevel=3,
            )

    def held(self, batch: Mapping[str, Tensor], clean: Tensor) -> tuple[Tensor, Tensor]:
        """(values, held) of a batch, as in `recollect`; `clean` (B, T, D) is the scaled chunk."""
        recalled = len(self.window.recall)
        present = self._present(batch["action.valid"][:, :recalled])
        held = ~present
        if self.config.given:
            held[:, :recalled] = True
        return torch.where((held & present)[..., None], clean, 0.0), held

    def weights(self, batch: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """(B, T) of `like`'s type: 1 for tokens that count in the loss, 0 for others."""
        recalled, valid = len(self.window.recall), batch["action.valid"]
        counts = valid.clone() if self.config.mask_padding else torch.ones_like(valid)
        counts[:, :recalled] = valid[:, :recalled]
        past_loss_window = 0 if self.config.given else self.config.past_loss_window
        if past_loss_window is not None:
            counts[:, : recalled - past_loss_window] = False
        return counts.to(like.dtype)

    def count(self, batch: Mapping[str, Tensor]) -> float:
        """How many tokens the loss of a batch is a mean over."""
        return float(self.weights(batch, batch["action"]).sum())

    @property
    def arm(self) -> str:
        """Which of the published arms this is, in words."""
        return arm_of(self.config, self.network.masked)

    def _present(self, recalled: Tensor) -> Tensor:
        """(B, K) valid recalled actions -> (B, T): all future ones are there."""
        return torch.cat([recalled, recalled.new_ones(len(recalled), self.window.horizon)], 1)


def arm_of(config: TokenConfig, masked: bool) -> str:
    """Which of the published arms a configuration is, in words; `masked` of its network."""
    window, recalled = config.window, len(config.window.recall)
    if not recalled:
        return "future only" if window.reach > 1 else "no history"
    if config.given:
        words = "past actions as inputs"
    elif config.past_loss_window == 0:
        words = "noisy past without a target"
    elif config.past_loss_window is None or config.past_loss_window == recalled:
        words = "past-token prediction"
    else:
        words = f"past-token prediction, last {config.past_loss_window} of {recalled}"
    return words if masked else f"{words}, unmasked"
