"""AND and OR by superposition: densities on toys whose truth is known, the control, files, refusals."""

import math

import numpy as np
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.compositions.parents import ParentsError
from understudy.policies.compositions.superpose import AndConfig, OrConfig, Superposition
from understudy.policies.field import Solver, from_clean
from understudy.policies.learning.checkpoint import fingerprint, save_checkpoint
from understudy.policies.load import load_policy, save_mixture
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.generative import Sampler, with_sampler
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Planner, Policy, Scales

BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-9.0, 9.0),), rate=10.0, state=("x",), state_units=("m",)
)
SCALES = Scales(action=((-1.0,), (1.0,)), states={"observation.state": ((0.0,), (1.0,))})
NETWORK = MLPConfig(width=8, depth=1, condition_width=8)


def plain(kind=DiffusionConfig, seed=0, **window):
    """An untrained policy whose output is not zero."""
    torch.manual_seed(seed)
    window = Window(**({"observe": (0,), "horizon": 1} | window))
    policy = kind(window=window, n_action_steps=1, network=NETWORK).build(BODY, SCALES).eval()
    for parameter in policy.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return policy


def gaussian(mean, std, kind=DiffusionConfig, horizon=1):
    """A policy whose field is the exact posterior mean of N(mean, std^2) in each number."""
    policy = plain(kind, horizon=horizon)

    def evaluate(x, s, context):
        wide = s[:, None, None]
        y = x * (1 + wide * wide).sqrt()
        return from_clean(policy.prediction_type, mean + std**2 / (std**2 + wide * wide) * (y - mean), y, wide)

    policy.evaluate = evaluate
    return policy


def past(lanes=1, recall=()):
    return Past(
        obs={"observation.state": torch.zeros(lanes, 1, 1)},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, len(recall), 1),
        action_times=recall,
        action_valid=torch.ones(lanes, len(recall), dtype=torch.bool),
        now=torch.full((lanes,), 9),
    )


def noise(lanes=1):
    return LaneNoise(5, np.arange(lanes), np.zeros(lanes, np.int64))


def trace(parents, config, count=2000):
    plans, told = Superposition(parents, config).trace(past(), count, noise())
    return plans.future[0].double(), told


def log_density(x, mean, std):
    """Of a chunk (N, H, 1), its numbers being independent."""
    return (-((x - mean) ** 2) / (2 * std**2) - math.log(std)).sum((-1, -2))


def fine(steps=60):
    return Sampler(steps=steps, clip=None)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_or_draws_from_the_mixture(share):
    parents = [gaussian(-0.6, 0.1), gaussian(0.6, 0.1, FlowConfig)]
    bias = (math.log(share), math.log(1 - share))
    drawn, told = trace(parents, OrConfig(sampler=fine(), bias=bias))
    x = drawn[:, 0, 0]
    assert abs(float((x < 0).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / 2000) + 0.01
    for sign, side in ((-1, x[x < 0]), (1, x[x > 0])):
        assert abs(float(side.mean()) - 0.6 * sign) < 0.02 and abs(float(side.std()) - 0.1) < 0.02
    assert torch.allclose(told.weights.sum(-1), torch.ones(()).double())
    sure = told.weights[-1, 0].gather(-1, (x > 0).long()[:, None])
    assert (told.weights >= 0).all() and (sure > 0.99).double().mean() > 0.99


def test_or_picks_the_likelier_parent():
    parents = [gaussian(0.3, 0.1), gaussian(0.3, 0.6)]
    drawn, told = trace(parents, OrConfig(sampler=fine(), temperature=20.0))
    close = (drawn[:, 0, 0] - 0.3).abs() < 0.1
    assert (told.weights[-1, 0, close, 0] > 0.5).double().mean() > 0.95


def test_the_density_kept_is_the_true_one():
    means, stds = (-0.2, 0.3), (0.3, 0.4)
    parents = [gaussian(*each, horizon=2) for each in zip(means, stds, strict=True)]
    errors = []
    for steps in (20, 140):
        drawn, told = trace(parents, OrConfig(sampler=fine(steps)), 500)
        true = log_density(drawn, means[0], stds[0]) - log_density(drawn, means[1], stds[1])
        errors.append(float((told.logs[-1, 0, :, 0] - told.logs[-1, 0, :, 1] - true).square().mean().sqrt()))
    assert errors[1] < 0.5 and errors[1] < 0.3 * errors[0]  # first order: of 1.8 at 20 steps


@pytest.mark.parametrize("stds", [(0.3, 0.3), (0.2, 0.3)])
@pytest.mark.parametrize("horizon", [1, 4])
def test_and_lands_where_both_are_equally_likely(stds, horizon):
    means = (-0.3, 0.3)
    parents = [gaussian(mean, std, horizon=horizon) for mean, std in zip(means, stds, strict=True)]
    drawn, told = trace(parents, AndConfig(sampler=fine(140)), 500)
    difference = log_density(drawn, means[0], stds[0]) - log_density(drawn, means[1], stds[1])
    missed = math.log(stds[1] / stds[0])  # of the one direction without noise; nothing at equal widths
    assert told.residual < 1e-4
    assert torch.allclose(told.weights.sum(-1), torch.ones(()).double(), atol=1e-6)
    assert abs(float(difference.median()) - missed) < 0.12 and float(difference.std()) < 0.2
    if stds[0] == stds[1]:
        assert float(difference.abs().max()) < 0.1


def test_and_of_three_keeps_all_equal():
    means = torch.tensor([[-0.3, 0.2, 0.1, 0.0], [0.2, 0.3, -0.1, 0.1], [0.0, -0.3, 0.2, 0.3]])[..., None]
    kinds = (DiffusionConfig, FlowConfig, DiffusionConfig)
    parents = [gaussian(mean, 0.3, kind, horizon=4) for mean, kind in zip(means, kinds, strict=True)]
    drawn, told = trace(parents, AndConfig(sampler=fine()), 200)
    assert told.residual < 1e-4
    spread = told.logs.amax(-1) - told.logs.amin(-1)
    assert float(spread.max()) < 1e-3
    true = torch.stack([log_density(drawn, mean, 0.3) for mean in means])
    assert float((true - true[0]).abs().max()) < 0.2


@pytest.mark.parametrize("config", [AndConfig(), OrConfig()])
def test_superposed_with_itself_is_the_policy_under_the_same_sampler(config):
    policy = plain(horizon=4)
    alone = Superposition([policy], config).plan(past(3), 4, noise(3)).future
    for count in (2, 3):
        together = Superposition([policy] * count, config).plan(past(3), 4, noise(3)).future
        assert torch.allclose(together, alone, atol=1e-5)


def test_its_own_sampler_draws_from_the_density():
    drawn, _ = trace([gaussian(0.2, 0.3)], OrConfig(sampler=fine(140)), 5000)
    assert abs(float(drawn.mean()) - 0.2) < 0.02 and abs(float(drawn.std()) - 0.3) < 0.025


def test_candidates_and_lanes_do_not_depend_on_others():
    superposed = Superposition([plain(seed=1, horizon=4), plain(FlowConfig, 2, horizon=4)], AndConfig())
    many = superposed.plan(past(3), 4, noise(3)).future
    few = superposed.plan(past(3), 2, noise(3)).future
    assert torch.allclose(many[:, :2], few, atol=1e-5)
    assert torch.allclose(superposed.plan(past(1), 4, noise(1)).future[0], many[0], atol=1e-5)


@pytest.mark.parametrize("config", [AndConfig(), OrConfig()])
def test_different_chunks(config):
    parents = [plain(seed=1, horizon=4, recall=(-1,)), plain(FlowConfig, 2, horizon=6)]
    superposed = Superposition(parents, config)
    plans, told = superposed.trace(past(2, (-1,)), 3, noise(2))
    assert plans.past.shape == (2, 3, 1, 1) and plans.future.shape == (2, 3, 6, 1)
    assert torch.isfinite(plans.future).all() and told.weights.shape == (30, 2, 3, 2)


def test_it_is_a_planner_and_does_not_nest():
    superposed = Superposition([plain(), plain(seed=1)], OrConfig())
    assert isinstance(superposed, Planner) and not isinstance(superposed, Policy)
    for outer in (lambda: Mixture([plain(), superposed], (0.5, 0.5)), lambda: Superposition([superposed], OrConfig())):
        with pytest.raises(ParentsError, match=r"\(Superposition\) has no field.*does not nest"):
            outer()
    with pytest.raises(ParentsError, match="parent 2 is a mixture"):
        Superposition([plain(), Mixture([plain(), plain(seed=1)], (0.5, 0.5))], AndConfig())


def test_settings_that_do_not_fit_are_refused():
    for config, said in (
        (OrConfig(bias=(0.0,)), "as many biases"),
        (OrConfig(temperature=-1.0), "temperature"),
        (AndConfig(n_action_steps=9), "n_action_steps must be within"),
    ):
        with pytest.raises(ValueError, match=said):
            Superposition([plain(), plain(seed=1)], config)
    heun = Superposition([plain()], OrConfig(sampler=Sampler(solver=Solver.heun)))
    with pytest.raises(ValueError, match="their own solver"):
        heun.plan(past(), 1, noise())


@pytest.mark.parametrize("config", [AndConfig(sampler=Sampler(steps=7)), OrConfig(temperature=0.5, bias=(0.1, 0.2))])
def test_saved_and_loaded_to_the_bit(config, tmp_path):
    parents, folders = [plain(seed=1, horizon=4), plain(FlowConfig, 2, horizon=4)], []
    for parent in parents:
        folders.append(tmp_path / f"parent{len(folders)}")
        save_checkpoint(folders[-1], parent, kind="policy", config=parent.config)
    superposed = with_sampler(Superposition(parents, config), steps=5)
    save_mixture(tmp_path / "saved", superposed, folders)
    loaded, info = load_policy(tmp_path / "saved")
    plans = [each.plan(past(2), 3, noise(2)).future for each in (superposed, loaded)]
    assert torch.equal(*plans) and info["type"] == config.get_choice_name(type(config))
    assert loaded.config == superposed.config and loaded.sampler.steps == 5
    assert len(fingerprint(tmp_path / "saved")) == 16
