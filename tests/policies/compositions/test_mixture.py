"""Mixtures as theorems: endpoints, order, nesting, Gaussian products, tokens by offset, scales, refusals."""

import dataclasses
import itertools
import math
import warnings

import numpy as np
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.compositions.mixture import Mixture, WeightSchedule
from understudy.policies.compositions.parents import (
    AnisotropyWarning,
    ParentsError,
    anisotropy_cost,
    common_scale,
    fit_scale,
)
from understudy.policies.field import PredictionType, Solver, from_clean, noise_levels, sample
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.generative import Sampler, with_sampler
from understudy.policies.models.one_step import OneStepConfig
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Policy, Scales

STATE, SCENE = "observation.state", "observation.environment_state"
LIMITS = ((-9.0, 9.0), (-9.0, 9.0))
OFFERS = {"state": ("x", "y"), "state_units": ("m", "m"), "scene": ("goal",), "scene_units": ("m",)}
BODY = Embodiment(action=("x", "y"), action_units=("m", "m"), limits=LIMITS, rate=10.0, **OFFERS)
KINDS = {"epsilon": DiffusionConfig, "v": DiffusionConfig, "flow": FlowConfig, "one_step": OneStepConfig}
KINDS |= {"regression": RegressionConfig}
LEVELS = (0.02, 0.4, 3.0, 50.0)


def past(lanes=3, window=None, now=5):
    window = window or Window(observe=(-1, 0), recall=(-3, -2, -1))
    draw = torch.Generator().manual_seed(0)
    since = torch.tensor(window.recall) + now >= 0
    actions = torch.randn(lanes, len(window.recall), 2, generator=draw) * since[None, :, None]
    return Past(
        obs={
            STATE: torch.randn(lanes, len(window.observe), 2, generator=draw),
            SCENE: torch.randn(lanes, len(window.observe), 1, generator=draw),
        },
        obs_times=window.observe,
        obs_valid=(torch.tensor(window.observe) + now >= 0).expand(lanes, -1),
        actions=actions,
        action_times=window.recall,
        action_valid=since.expand(lanes, -1),
        now=torch.full((lanes,), now),
    )


def noise(lanes=3):
    return LaneNoise(7, np.arange(lanes), np.zeros(lanes, np.int64))


def make(kind="v", seed=0, scale=((-1.0, -1.0), (1.0, 1.0)), body=BODY, **settings):
    """An untrained policy whose output is not zero."""
    torch.manual_seed(seed)
    settings = {"inputs": (STATE,), "window": Window(observe=(0,), horizon=4), "n_action_steps": 2} | settings
    if kind in ("epsilon", "v"):
        settings["prediction_type"] = PredictionType(kind)
    config = KINDS[kind](network=MLPConfig(width=16, depth=1, condition_width=8), **settings)
    states = {STATE: ((0.0, 0.0), (1.0, 1.0)), SCENE: ((0.0,), (1.0,))}
    policy = config.build(body, Scales(action=scale, states=states)).eval()
    for parameter in policy.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return policy


def gaussian(mean, std, kind="v", **settings):
    """A policy whose field is the exact posterior mean of N(mean, std^2), in the units of the action."""
    policy = make(kind, **settings)
    scale = policy.action_scale
    centre = scale.scale(torch.tensor(mean).float().expand(2))
    variance = (std / scale.std) ** 2

    def evaluate(x, s, context):
        wide = s[:, None, None]
        y = x * (1 + wide * wide).sqrt()
        return from_clean(policy.prediction_type, centre + variance / (variance + wide * wide) * (y - centre), y, wide)

    policy.evaluate = evaluate
    return policy


def close(one, other, atol=1e-5, rtol=1e-5):
    assert torch.allclose(one, other, atol=atol, rtol=rtol), float((one - other).abs().max())


def draw(policy, now=5):
    return policy.plan(past(now=now), 2, noise()).future


def clean(policy, y, s, now=5):
    return policy.field(past(now=now), y.shape[1])(y, s)


@pytest.fixture(scope="module")
def pair():
    return make("v", 1), make("flow", 2)


def test_a_mixture_is_a_policy(pair):
    mixture = Mixture(pair, (0.5, 0.5))
    assert isinstance(mixture, Policy) and draw(mixture).shape == (3, 2, 4, 2)
    assert not isinstance(make("regression"), Policy)


@pytest.mark.parametrize("kind", ["epsilon", "v", "flow", "one_step"])
def test_one_parent_alone_is_itself_to_the_bit(kind):
    policy = make(kind, 3, window=Window(observe=(0,), recall=(-2, -1), horizon=4))
    for now in (0, 5):
        assert torch.equal(draw(Mixture([policy], (1.0,)), now), draw(policy, now))


def test_a_weight_of_one_is_the_parent_to_the_bit(pair):
    longer = make("v", 4, window=Window(observe=(-1, 0), recall=(-1,), horizon=6), inputs=(STATE, SCENE))
    mixture = Mixture([pair[0], longer, pair[1]], (0.2, 0.3, 0.5))
    for place, parent in enumerate((pair[0], longer, pair[1])):
        one = mixture.weighted([float(i == place) for i in range(3)])
        assert torch.equal(draw(one), draw(parent)) and one.window == parent.window
    assert not torch.equal(draw(mixture), draw(longer)[:, :, :4])


def test_a_policy_with_itself_is_the_policy(pair):
    for weight in (0.1, 0.5, 0.8):
        close(draw(Mixture([pair[0], pair[0]], (weight, 1 - weight))), draw(pair[0]))


def test_order_does_not_matter_to_the_bit(pair):
    parents = [*pair, make("epsilon", 5, window=Window(observe=(0,), recall=(-1,), horizon=6))]
    weights = (0.2, 0.3, 0.5)
    reference = draw(Mixture(parents, weights))
    for order in itertools.permutations(range(3)):
        assert torch.equal(draw(Mixture([parents[i] for i in order], [weights[i] for i in order])), reference)


def test_a_mixture_of_mixtures_is_flat(pair):
    longer = make("epsilon", 5, window=Window(observe=(0,), horizon=6))
    schedule = WeightSchedule(weights=((0.1, 0.9), (0.7, 0.3)), angles=(0.2, 0.9))
    for inner, flat in (((0.25, 0.75), (0.2, 0.6, 0.2)), (schedule, None)):
        nested = Mixture([Mixture([pair[0], longer], inner), pair[1]], (0.8, 0.2))
        for s in LEVELS:
            weights = flat or (*(0.8 * schedule.at(s, i) for i in range(2)), 0.2)
            y = s * torch.randn(3, 2, 6, 2, generator=torch.Generator().manual_seed(1))
            expected = clean(Mixture([pair[0], longer, pair[1]], weights), y, s)
            close(clean(nested, y, s), expected)


def test_the_field_is_the_weighted_mean_of_fields(pair):
    mixture = Mixture(pair, (0.3, 0.7))
    for s in LEVELS:
        y = s * torch.randn(3, 2, 4, 2)
        expected = 0.3 * clean(pair[0], y, s) + 0.7 * clean(pair[1], y, s)
        close(clean(mixture, y, s), expected)


@pytest.mark.parametrize("kinds", [("v", "flow"), ("epsilon", "v"), ("flow", "one_step")])
@pytest.mark.parametrize("weight", [0.25, 0.6])
def test_product_of_gaussians(kinds, weight):
    means, std, count = (-0.5, 0.9), 0.3, 20_000
    parents = [gaussian(mean, std, kind) for mean, kind in zip(means, kinds, strict=True)]
    sampler = Sampler(steps=60, solver=Solver.heun, clip=None)
    mixture = Mixture(parents, (weight, 1 - weight), sampler=sampler)
    drawn = mixture.plan(past(1), count, noise(1)).future.double()[0, :, 0]
    error = std / math.sqrt(count)
    expected = weight * means[0] + (1 - weight) * means[1]
    assert ((drawn.mean(0) - expected).abs() < 4.5 * error).all()
    assert ((drawn.var(0) / std**2 - 1).abs() < 4.5 * math.sqrt(2 / count) + 0.003).all()


def test_three_parents_of_different_widths_compose_as_posteriors():
    told = [(-0.5, 0.2), (0.1, 0.5), (0.8, 0.3)]
    parents = [gaussian(*each, kind) for each, kind in zip(told, ("v", "flow", "epsilon"), strict=True)]
    weights = (0.2, 0.5, 0.3)
    y = torch.randn(3, 1, 4, 2)
    for s in LEVELS:
        each = [mean + std**2 / (std**2 + s**2) * (y - mean) for mean, std in told]
        expected = sum(weight * one for weight, one in zip(weights, each, strict=True))
        close(clean(Mixture(parents, weights), y, s), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [((-2.0, -2.0), (4.0, 4.0)), ((-0.5, 3.5), (0.5, 4.5))])
def test_an_offset_and_a_common_factor_are_reconciled_exactly(scale):
    one, other = gaussian(0.2, 0.3), gaussian(0.2, 0.3, "flow", scale=scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AnisotropyWarning)
        mixture = Mixture([one, other], (0.4, 0.6))
    own = mixture.action_scale
    centre, width = own.scale(torch.tensor([0.2, 0.2])), 0.3 / own.std
    for s in (0.05, 0.4, 3.0):
        y = centre + (1 + s) * torch.randn(3, 2, 4, 2)
        expected = centre + width**2 / (width**2 + s**2) * (y - centre)
        close(clean(mixture, y, s), expected, atol=2e-5, rtol=1e-4)
    swapped = Mixture([other, one], (0.6, 0.4))
    assert torch.equal(swapped.action_scale.std, own.std) and torch.equal(draw(mixture), draw(swapped))
    ranges = [policy.config.sigma_min * float(policy.action_scale.std[0] / own.std[0]) for policy in (one, other)]
    assert mixture.field(past(), 1).sigma_min == pytest.approx(max(ranges))


def test_a_little_anisotropy_warns_and_its_cost_is_measured():
    one, other = gaussian(0.0, 0.3), gaussian(0.0, 0.3, scale=((-1.0, -1.15), (1.0, 1.15)))
    with pytest.warns(AnisotropyWarning, match=r"7\.2%"):
        mixture = Mixture([one, other], (0.5, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture.weighted((0.2, 0.8))  # says it no second time
    batch = {
        STATE: torch.zeros(4096, 1, 2),
        "observation.valid": torch.ones(4096, 1, dtype=torch.bool),
        "action": 0.3 * torch.randn(4096, 4, 2, generator=torch.Generator().manual_seed(1)),
        "action.valid": torch.ones(4096, 4, dtype=torch.bool),
    }
    policy, fit = one, fit_scale(one.action_scale, mixture.action_scale)
    assert not fit.same and fit.spread == pytest.approx(0.0724, abs=1e-3)
    (cost,) = anisotropy_cost(policy, mixture.action_scale, [batch], [0.3])
    own, gain = fit.level * 0.3, 0.09 / (0.09 + (fit.level * 0.3) ** 2)
    expected = [(1 - gain) ** 2 * 0.09 + gain**2 * s**2 for s in (own, float((fit.factor**2).mean()) ** 0.5 * 0.3)]
    assert cost.isotropic == pytest.approx(expected[0], rel=0.03) and cost.windows == 4096
    assert cost.anisotropic / cost.isotropic == pytest.approx(expected[1] / expected[0], rel=0.01)


def test_tokens_align_by_offset_and_the_tail_is_its_owners(pair):
    windows = [Window(observe=(0,), recall=(-2, -1), horizon=3), Window(observe=(-1, 0), recall=(-3, -1), horizon=6)]
    one, other = (make("v", seed, window=window) for seed, window in enumerate(windows))
    mixture = Mixture([one, other], (0.3, 0.7))
    assert mixture.window == Window(observe=(-1, 0), recall=(-3, -2, -1), horizon=6) and mixture.n_action_steps == 2
    y, s = torch.randn(3, 2, 9, 2), 0.7
    found = dict(zip(mixture.window.actions, clean(mixture, y, s).unbind(2), strict=True))
    parts = []
    for policy in (one, other):
        at = [mixture.window.actions.index(offset) for offset in policy.window.actions]
        parts.append(dict(zip(policy.window.actions, clean(policy, y[:, :, at], s).unbind(2), strict=True)))
    for offset, value in found.items():
        owners = [part[offset] for part in parts if offset in part]
        if len(owners) == 1:
            assert torch.equal(value, owners[0])
        else:
            close(value, 0.3 * owners[0] + 0.7 * owners[1])


def test_recalled_tokens_before_the_episode_began_are_padding(pair):
    recalling = make("flow", 6, window=Window(observe=(0,), recall=(-2, -1), horizon=4))
    mixture = Mixture([recalling, pair[0]], (0.5, 0.5))
    for now, padded in ((0, 2), (1, 1)):
        field = mixture.field(past(now=now), 1)
        y = torch.randn(3, 1, 6, 2)
        other = y.clone()
        other[:, :, :padded] += 1
        found = field(y, 0.5)
        assert torch.equal(found, field(other, 0.5)) and not found[:, :, :padded].any()
    plans = mixture.plan(past(now=0), 2, noise())
    assert plans.past.shape[2] == 2 and torch.isfinite(plans.future).all()


def test_weights_follow_the_noise_level(pair):
    schedule = WeightSchedule(weights=((0.0, 1.0), (0.6, 0.4)), angles=(0.25, 0.75))
    for angle, weight in ((0.1, 0.0), (0.25, 0.0), (0.5, 0.3), (0.75, 0.6), (0.9, 0.6)):
        assert schedule.at(math.tan(angle * math.pi / 2), 0) == pytest.approx(weight, abs=1e-9)
    mixture, y = Mixture(pair, schedule), torch.randn(3, 2, 4, 2)
    assert torch.equal(clean(mixture, y, 0.1), clean(pair[1], y, 0.1))
    close(clean(mixture, y, 1.0), 0.3 * clean(pair[0], y, 1.0) + 0.7 * clean(pair[1], y, 1.0))


def test_a_tail_whose_owner_weighs_nothing_at_a_level_stays_its_owners(pair):
    longer = make("v", 8, window=Window(observe=(0,), horizon=6))
    schedule = WeightSchedule(weights=((0.0, 1.0), (1.0, 0.0)), angles=(0.3, 0.9))
    y = torch.randn(3, 1, 6, 2)
    found = clean(Mixture([longer, pair[0]], schedule), y, 0.05)
    assert torch.equal(found[:, :, 4:], clean(longer, y, 0.05)[:, :, 4:])
    assert torch.equal(found[:, :, :4], clean(pair[0], y[:, :, :4], 0.05))


def test_the_composed_estimate_is_clipped_and_no_parents():
    parents = [gaussian(-2.0, 0.1), gaussian(2.5, 0.1, "flow")]
    inside = draw(Mixture(parents, (0.5, 0.5)))
    close(inside.mean(), torch.tensor(0.25), atol=0.05, rtol=0)
    assert draw(Mixture(parents, (0.1, 0.9))).max() <= 1


def test_one_sampler_for_all(pair):
    few, jumps = make("v", 1, sampler=Sampler(steps=4)), make("one_step", 2)
    assert Mixture([few, pair[1]], (0.5, 0.5)).sampler.steps == 10
    assert Mixture([few, jumps], (0.5, 0.5)).sampler.steps == 4
    assert Mixture([jumps, jumps], (0.5, 0.5)).sampler == Sampler()
    mixture = with_sampler(Mixture([few, pair[1]], (0.5, 0.5)), steps=3)
    assert mixture.weighted((0.2, 0.8)).sampler.steps == mixture.config.sampler.steps == 3
    field = Mixture(pair, (0.5, 0.5)).field(past(), 2)
    chunk = sample(field, noise().normal(2, 4, 2), noise_levels(10, field.sigma_min, field.sigma_max))
    assert torch.equal(draw(Mixture(pair, (0.5, 0.5))), chunk)


def test_what_is_read_is_the_union():
    other = make("flow", 2, inputs=(SCENE,), window=Window(observe=(-1, 0), horizon=4))
    mixture = Mixture([make("v", 1), other], (0.5, 0.5))
    assert mixture.inputs == (SCENE, STATE) and mixture.window.observe == (-1, 0)
    mixture.embodiment.check(BODY, mixture.inputs)


def other_body(**changes):
    return dataclasses.replace(BODY, **changes)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: make(body=other_body(action=("x", "z"))), "parents 1 and 2 .* differ in action"),
        (lambda: make(body=other_body(rate=20.0)), "differ in rate"),
        (lambda: make(body=other_body(state=("x", "v"))), "'observation.state' differs"),
        (lambda: make(scale=((-1.0, -1.3), (1.0, 1.3))), "scales of parents 1 and 2 have no common factor"),
        (lambda: make("regression"), r"parent 2 \(RegressionPolicy\) has no field"),
    ],
)
def test_refused_by_name(other, said):
    with pytest.raises(ParentsError, match=said):
        Mixture([make(), other()], (0.5, 0.5))


def test_parents_without_a_common_noise_level_are_refused(pair):
    quiet = make("v", 9, sigma_min=0.001, sigma_max=0.005)
    with pytest.raises(ParentsError, match="no noise level in common"):
        draw(Mixture([pair[0], quiet], (0.5, 0.5)))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((-0.1, 1.1), "not negative"),
        ((0.5, 0.6), "sum to 1"),
        ((float("nan"), 1.0), "not negative"),
        ((1.0,), "2 parents need as many weights"),
        ((), "not negative"),
    ],
)
def test_weights_that_are_not_convex_are_refused(pair, weights, said):
    with pytest.raises(ValueError, match=said):
        Mixture(pair, weights)


def test_schedules_that_make_no_sense_are_refused():
    one, two = (1.0,), (0.5, 0.5)
    for weights, angles in (((one,), (0.2, 0.4)), ((one, one), (0.4, 0.2)), ((one, two), (0.1, 0.2))):
        with pytest.raises(ValueError):
            WeightSchedule(weights=weights, angles=angles)


def test_the_common_scale_is_the_widest():
    scales = [make(scale=((-w, -w), (w, w))).action_scale for w in (1.0, 3.0, 2.0)]
    for order in itertools.permutations(scales):
        assert common_scale(order).std.tolist() == [3.0, 3.0]
