"""Settings of our policies as lerobot has settings: `--policy.type=understudy_flow --policy.horizon=16`.

What lerobot has no word for is in `settings`: a file of `understudy train`, or YAML on the command line.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

from understudy.policies.foreign.offered import PREFIX, settings_of

KINDS_OF_FEATURES = ("VISUAL", "STATE", "ENV", "ACTION")


@dataclass
class UnderstudyConfig(PreTrainedConfig):
    """What all types share. None leaves a value to `settings`, and there to its default."""

    n_obs_steps: int | None = None  # observed frames, the last one now
    n_past_steps: int | None = None  # executed actions before now that are predicted again (past-token prediction)
    horizon: int | None = None  # future actions of a chunk
    n_action_steps: int | None = None  # actions executed of each chunk
    settings: str = ""  # file of `understudy train`, or YAML: '{network: {type: mlp}, sampler: {steps: 5}}'
    scale: str | None = None  # file of the action scale, or from:RUN; else of `settings`, else the range of the data
    policy_seed: int = 0  # of the noise that plans are drawn with
    env_seed: int = 1000  # env seed of the first episode that is acted, as lerobot-eval's --seed; it keys the noise
    all_alike: bool = False  # learn from all steps alike where a person took over, the policy's own among them
    normalization_mapping: dict[str, NormalizationMode] = field(  # scales are inside the policy; nothing else works
        default_factory=lambda: dict.fromkeys(KINDS_OF_FEATURES, NormalizationMode.IDENTITY)
    )

    optimizer_lr: float = 1e-3
    optimizer_betas: tuple[float, float] = (0.9, 0.99)
    optimizer_weight_decay: float = 1e-4
    optimizer_grad_clip_norm: float = 1.0
    scheduler_warmup_steps: int = 300
    scheduler_decay_steps: int = 100_000  # lerobot shortens it to --steps
    scheduler_decay_lr: float = 1e-6
    ema: float = 0.9995  # decay of the averaged weights, which act; it rises to this from 0.1

    # filled by training: what was built, and who acts
    policy: dict[str, Any] = field(default_factory=dict)
    embodiment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, mode in self.normalization_mapping.items():
            if mode is not NormalizationMode.IDENTITY:
                raise ValueError(
                    f"normalization_mapping says {mode.value} for {kind}; a policy of understudy scales inside, so it "
                    "must be IDENTITY: leave it out"
                )
        config = self.ours()
        self._window = config.window
        if self.policy:
            self._check_trained(config)

    @property
    def kind(self) -> str:
        """The type as understudy calls it."""
        return self.type.removeprefix(PREFIX)

    def ours(self):
        """The settings of the policy of understudy."""
        if self.policy:
            changes = {"n_action_steps": self.n_action_steps}
            return settings_of(self.kind, json.dumps(self.policy), changes)
        names = ("n_obs_steps", "n_past_steps", "horizon", "n_action_steps")
        return settings_of(self.kind, self.settings, {name: getattr(self, name) for name in names}, self.read)

    def _check_trained(self, config) -> None:
        """What was built stays; only how many actions of a chunk are executed may change."""
        window = config.window
        said = {"n_obs_steps": window.observe, "n_past_steps": window.recall, "horizon": range(window.horizon)}
        for name, there in said.items():
            if getattr(self, name) not in (None, len(there)):
                raise ValueError(
                    f"--policy.{name}={getattr(self, name)}, but this policy was trained with {len(there)}"
                )

    @property
    def read(self) -> tuple[str, ...]:
        """lerobot's keys of what is observed."""
        return tuple(self.input_features or ())

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(self._window.observe)

    @property
    def action_delta_indices(self) -> list[int]:
        return list(self._window.actions)

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    def validate_features(self) -> None:
        if not self.read:
            raise ValueError("nothing is observed: the dataset has no observation.* feature")
        if self.action_feature is None:
            raise ValueError("nothing is acted: the dataset has no feature 'action'")


@PreTrainedConfig.register_subclass("understudy_flow")
@dataclass
class UnderstudyFlowConfig(UnderstudyConfig):
    """Flow matching."""


@PreTrainedConfig.register_subclass("understudy_diffusion")
@dataclass
class UnderstudyDiffusionConfig(UnderstudyConfig):
    """Diffusion."""


@PreTrainedConfig.register_subclass("understudy_one_step")
@dataclass
class UnderstudyOneStepConfig(UnderstudyConfig):
    """Average velocities: a plan in one evaluation of the network."""


@PreTrainedConfig.register_subclass("understudy_regression")
@dataclass
class UnderstudyRegressionConfig(UnderstudyConfig):
    """Regression of the chunk."""
