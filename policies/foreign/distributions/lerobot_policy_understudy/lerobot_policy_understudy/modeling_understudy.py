"""Our policies as `PreTrainedPolicy`: lerobot trains and saves them, network, loss and acting are ours."""

import copy
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor

from understudy.policies.agent.loaded import hold_planner
from understudy.policies.foreign import offered
from understudy.policies.learning.optimizer import Optimize

from .configuration_understudy import (
    UnderstudyConfig,
    UnderstudyDiffusionConfig,
    UnderstudyFlowConfig,
    UnderstudyOneStepConfig,
    UnderstudyRegressionConfig,
)


class UnderstudyPolicy(PreTrainedPolicy):
    """A policy of ours.

    The weights that act are averages of those that are trained. The noise is keyed by the env seed: lerobot tells a
    policy none, so episodes are counted from `config.env_seed` on, which is how lerobot-eval seeds its environments.
    """

    config_class: Any = UnderstudyConfig
    name: Any = "understudy"
    model: Any  # ours; so is `average`
    average: Any

    def __init__(self, config: UnderstudyConfig, *_, dataset_meta=None, **__):
        super().__init__(config)
        config.validate_features()
        config.output_features = {ACTION: config.output_features[ACTION]}  # not what was sent, beside
        if config.policy:
            self.model = offered.blank(config.policy, config.embodiment)
            if dataset_meta is not None:
                offered.check_same_body(config.embodiment, dataset_meta.root, self.model.inputs)
        elif dataset_meta is not None:
            spec = offered.task_spec_of(config.settings)
            self.model = offered.begin(config.ours(), dataset_meta.root, config.scale, spec)
        else:
            raise ValueError(
                f"a new {config.type} is made for a dataset, from which it takes who acts and all scales; give "
                "--dataset.repo_id and --dataset.root, or --policy.path of a trained one"
            )
        self._root = None if dataset_meta is None else dataset_meta.root
        for name, value in offered.described(self.model).items():
            setattr(config, name, value)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))
        self._acting: Any = None
        self._episodes = self._begun = 0

    @classmethod
    def _load_as_safetensor(cls, model, model_file, map_location, strict):
        return super()._load_as_safetensor(model, model_file, map_location, True)  # nothing may be left blank

    def get_optim_params(self):
        """What is trained: lerobot asks when a training begins, not when a policy acts beside a recording."""
        if self._root is not None and not self.config.all_alike:
            offered.refuse_takeovers(self._root)
        return self.model.parameters()

    def forward(self, batch: dict) -> tuple[Tensor, dict]:
        """Loss and scalars of a batch."""
        recalled = len(self.model.window.recall)
        return self.model.loss(offered.batch_of(batch, self.model.inputs, self.config.read, recalled))

    @torch.no_grad()
    def update(self) -> None:
        """The averaged weights follow; lerobot calls this after each step of the optimiser."""
        share = Optimize(ema=self.config.ema).share(int(self.averaged))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)
        for mine, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)
        self.averaged += 1

    def train(self, mode: bool = True):
        """As always; an evaluation after some training begins with the first env seed again."""
        if mode:
            self._episodes = self._begun = 0
        return super().train(mode)

    def reset(self) -> None:
        """New episodes begin, with the env seeds after those that were acted."""
        self._episodes, self._begun = self._episodes + self._begun, 0
        if self._acting is not None:
            self._acting.reset(env_seed=self.config.env_seed + self._episodes)

    def select_action(self, batch: dict, **_) -> Tensor:
        """(B, D) in units, the next action of the running chunk."""
        return self._act(batch, "select_action")

    def predict_action_chunk(self, batch: dict, **_) -> Tensor:
        """(B, H, D) in units, the chunk that would be planned now."""
        return self._act(batch, "predict_action_chunk")

    def _act(self, batch: dict, how: str) -> Tensor:
        if self._acting is None:
            settings = {"n_action_steps": self.config.n_action_steps} if self.config.n_action_steps else {}
            self._acting = hold_planner(self.average.eval(), policy_seed=self.config.policy_seed, **settings)
            self._acting.reset(env_seed=self.config.env_seed + self._episodes)
        seen = offered.seen_now(batch, self.model.inputs, self.config.read)
        self._begun = len(next(iter(seen.values())))
        return getattr(self._acting, how)(seen)


class UnderstudyFlowPolicy(UnderstudyPolicy):
    """Flow matching."""

    config_class, name = UnderstudyFlowConfig, "understudy_flow"


class UnderstudyDiffusionPolicy(UnderstudyPolicy):
    """Diffusion."""

    config_class, name = UnderstudyDiffusionConfig, "understudy_diffusion"


class UnderstudyOneStepPolicy(UnderstudyPolicy):
    """Average velocities."""

    config_class, name = UnderstudyOneStepConfig, "understudy_one_step"


class UnderstudyRegressionPolicy(UnderstudyPolicy):
    """Regression of the chunk."""

    config_class, name = UnderstudyRegressionConfig, "understudy_regression"
