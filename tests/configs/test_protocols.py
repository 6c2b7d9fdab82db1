"""Who keeps which protocol, on any Python: ours by their bases, others by registering or having all that is named."""

import numpy as np
import pytest
import torch
from torch import nn

from understudy.configs.protocols import keeps, missing
from understudy.configs.spec import STATE, Embodiment, Window
from understudy.eval.contracts import sample_embodiment, sample_past
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.compositions.parents import ParentsError
from understudy.policies.compositions.superpose import OrConfig
from understudy.policies.critics.calql import CalQLConfig
from understudy.policies.critics.controls import RandomConfig, UniformPlanner
from understudy.policies.critics.open import open_critic
from understudy.policies.critics.recall import RecallConfig
from understudy.policies.foreign.planner import callable_planner
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.generative import Sampler, walk
from understudy.policies.models.ofql import OFQLConfig
from understudy.policies.models.one_step import OneStepConfig
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Critic, Executes, LaneNoise, Planner, Plans, Policy, Scale, Scales, Trainable

BODY = sample_embodiment()
WINDOW = Window(observe=(0,), recall=(-1,), horizon=4)
SMALL = MLPConfig(width=8, depth=1, condition_width=4)


class Borrowed(nn.Module):
    """A policy of somebody who never imports a base of ours: what it lends is another's."""

    def __init__(self, lender):
        super().__init__()
        self.lender, self.action_scale = lender, lender.action_scale  # submodules: unseen by a static look
        self.embodiment, self.window, self.inputs = lender.embodiment, lender.window, lender.inputs
        self.sampler, self.n_action_steps = Sampler(steps=2), 2

    def field(self, past, n):
        return self.lender.field(past, n)

    def plan(self, past, n, rng):
        return walk(self, past, n, rng)


class Bare:
    """The least that acts."""

    embodiment, window, inputs = BODY, Window(observe=(0,), horizon=4), (STATE,)

    def plan(self, past, n, rng):
        future = torch.zeros(len(past.now), n, 4, 2)
        return Plans(future[:, :, :0], future, past.now)


def scales() -> Scales:
    low, high = zip(*BODY.limits, strict=True)
    return Scales(action=(low, high), states={STATE: ((0.0, 0.0), (1.0, 1.0))})


def built(kind, **settings):
    torch.manual_seed(0)
    window = Window(observe=(0,), horizon=4) if kind is OFQLConfig else WINDOW
    return kind(network=SMALL, window=window, n_action_steps=2, **settings).build(BODY, scales()).eval()


@pytest.mark.parametrize("kind", [DiffusionConfig, FlowConfig, OneStepConfig, OFQLConfig])
def test_what_is_trained_with_a_denoiser_is_a_policy(kind):
    policy = built(kind)
    assert isinstance(policy, Policy) and isinstance(policy, Planner) and isinstance(policy, Trainable)
    assert not missing(policy, Policy)


def test_a_regression_acts_and_is_no_policy():
    policy = built(RegressionConfig)
    assert isinstance(policy, Planner) and isinstance(policy, Executes) and not isinstance(policy, Policy)
    assert not keeps(policy, Policy) and missing(policy, Policy) == ("field", "sampler")


def test_compositions_and_black_boxes():
    pair = built(DiffusionConfig), built(FlowConfig)
    mixture, either = Mixture(pair, (0.5, 0.5)), OrConfig().build(pair)
    assert isinstance(mixture, Policy) and not missing(mixture, Policy)
    assert isinstance(either, Planner) and not keeps(either, Policy)
    window = Window(observe=(0,), horizon=4)
    box = callable_planner(
        lambda rows: np.zeros((1, 4, 2)), embodiment=BODY, inputs=(STATE,), window=window, n_action_steps=2
    )
    assert isinstance(box, Planner) and not keeps(box, Policy)
    assert isinstance(UniformPlanner(mixture), Planner)


def test_critics():
    trained = CalQLConfig(widths=(8,)).build(BODY, scales())
    assert isinstance(trained, Critic) and isinstance(trained, Trainable)
    for config in (RandomConfig(), RecallConfig()):
        assert isinstance(config.build(BODY, scales()), Critic)
    both = open_critic("random+recall", built(DiffusionConfig), "cpu")
    assert isinstance(both, Critic) and not keeps(both, Trainable)


def test_a_policy_of_no_base_of_ours_composes():
    own = built(DiffusionConfig)
    other = Borrowed(built(FlowConfig))
    assert keeps(other, Policy) and not missing(other, Policy)
    mixture = Mixture((own, other), (0.5, 0.5))
    plans = mixture.plan(sample_past(WINDOW, (STATE,), BODY), 2, LaneNoise(0, np.arange(3), np.arange(3)))
    assert plans.future.shape == (3, 2, 4, 2) and torch.isfinite(plans.future).all()


@pytest.mark.parametrize("name", ["action_scale", "sampler", "n_action_steps"])
def test_a_parent_that_lacks_something_is_told_what(name):
    other = Borrowed(built(FlowConfig))
    delattr(other, name)
    with pytest.raises(ParentsError, match=rf"parent 2 \(Borrowed\) has no {name}, so it is a planner and no policy"):
        Mixture((built(DiffusionConfig), other), (0.5, 0.5))


def test_a_planner_that_only_plans_is_told_that_it_has_no_field():
    assert keeps(Bare(), Planner)
    with pytest.raises(ParentsError, match=r"parent 1 \(Bare\) has no field"):
        Mixture((Bare(),), (1.0,))


def test_who_registers_is_asked_nothing_else():
    class Late:
        """Gets its attributes when it is first used."""

    assert not keeps(Late(), Planner)
    Planner.register(Late)
    assert keeps(Late(), Planner) and isinstance(Late(), Planner)
    assert missing(Late(), Planner) == ("embodiment", "window", "inputs", "plan")


def test_a_method_that_is_no_function_is_missing():
    class Stuck(Bare):
        plan = None

    assert missing(Stuck(), Planner) == ("plan",)


def test_a_class_that_promises_a_method_and_has_none_cannot_be_built():
    class Hollow(Planner):
        pass

    with pytest.raises(TypeError, match="plan"):
        Hollow()


def test_the_scale_is_found_where_torch_keeps_it():
    """The look-up that Python 3.12 makes for `isinstance` does not find a submodule; ours does."""
    other = Borrowed(built(FlowConfig))
    assert isinstance(other.action_scale, Scale) and "action_scale" not in vars(other)
    assert isinstance(other.embodiment, Embodiment) and keeps(other, Policy)
