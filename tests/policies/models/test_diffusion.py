"""Contracts of a policy with a denoiser: shapes, units, one encoding for N plans, loss equal to the hand-made one."""

import math
import warnings

import pytest
import torch

from understudy.configs.settings.decode import decode_choice
from understudy.configs.spec import Embodiment, EmbodimentError, Window
from understudy.policies.field import PredictionType
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.generative import Sampler, with_sampler
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.network import Layout
from understudy.policies.networks.unet import UNetConfig
from understudy.policies.policy import LaneNoise, Past, Planner, Plans, PolicyConfig, Scales, Trainable

EMBODIMENT = Embodiment(
    action=("x", "y"), action_units=("m", "m"), limits=((0.0, 4.0), (-2.0, 2.0)), rate=10.0,
    state=("x", "y"), state_units=("m", "m"), cameras={"top": (8, 8)},
)  # fmt: skip
SCALES = Scales(action=((0.0, -2.0), (4.0, 2.0)), states={"observation.state": ((1.0, 0.0), (2.0, 0.5))})
NETWORKS = {
    "mlp": MLPConfig(width=32, depth=2, condition_width=16),
    "unet": UNetConfig(channels=(16, 32), groups=4, time_width=16),
}


def build(network="mlp", window=None, action_noise=True, **settings):
    window = window or Window(observe=(-1, 0), recall=(-2, -1), horizon=6)
    torch.manual_seed(0)
    policy = DiffusionConfig(window=window, n_action_steps=3, network=NETWORKS[network], **settings).build(
        EMBODIMENT, SCALES
    )
    if action_noise:  # the output layers begin at zero
        for parameter in policy.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return policy.eval()


def past(lanes, window):
    generator = torch.Generator().manual_seed(lanes)
    return Past(
        obs={"observation.state": torch.randn(lanes, len(window.observe), 2, generator=generator)},
        obs_times=window.observe,
        obs_valid=torch.ones(lanes, len(window.observe), dtype=torch.bool),
        actions=torch.zeros(lanes, len(window.recall), 2),
        action_times=window.recall,
        action_valid=torch.ones(lanes, len(window.recall), dtype=torch.bool),
        now=torch.arange(lanes),
    )


def noise(lanes, seed=0):
    return LaneNoise(seed, torch.arange(lanes).numpy(), torch.zeros(lanes).long().numpy())


@pytest.mark.parametrize("network", NETWORKS)
def test_plans_have_their_shapes_and_lie_in_range(network):
    policy = build(network)
    assert isinstance(policy, Planner) and isinstance(policy, Trainable)
    plans = policy.plan(past(3, policy.window), 5, noise(3))
    assert plans.past.shape == (3, 5, 2, 2) and plans.future.shape == (3, 5, 6, 2)
    assert plans.start.tolist() == [0, 1, 2]
    low, high = torch.tensor(EMBODIMENT.limits).T
    assert bool(((plans.future >= low - 1e-5) & (plans.future <= high + 1e-5)).all())
    assert plans.future.std(1).mean() > 0.01, "candidates are all alike"


@pytest.mark.parametrize("network", NETWORKS)
def test_first_candidate_is_the_single_plan(network):
    policy = build(network)
    one = policy.plan(past(2, policy.window), 1, noise(2))
    many = policy.plan(past(2, policy.window), 7, noise(2))
    assert torch.allclose(one.future[:, 0], many.future[:, 0], atol=1e-5)


def test_plans_are_a_function_of_the_noise_key():
    policy = build()
    first, again = (policy.plan(past(2, policy.window), 2, noise(2)) for _ in range(2))
    assert torch.equal(first.future, again.future)
    other = policy.plan(past(2, policy.window), 2, noise(2, seed=1))
    assert not torch.allclose(first.future, other.future)


def test_observations_are_encoded_once():
    policy, calls = build(), []
    encode = policy.network.encode
    policy.network.encode = lambda frames, *masks: calls.append(len(frames)) or encode(frames, *masks)
    policy.plan(past(3, policy.window), 10, noise(3))
    assert calls == [3]


@pytest.mark.parametrize("prediction_type", [PredictionType.epsilon, PredictionType.x0, PredictionType.v])
@pytest.mark.parametrize("masked", [True, False])
def test_loss_is_the_hand_made_one(prediction_type, masked):
    policy = build(prediction_type=prediction_type, mask_padding=masked)
    batch = {
        "observation.state": torch.randn(4, 2, 2),
        "observation.valid": torch.ones(4, 2, dtype=torch.bool),
        "action": torch.rand(4, 8, 2) * 4 - torch.tensor([0.0, 2.0]),
        "action.valid": torch.arange(8)[None] < torch.tensor([8, 8, 5, 3])[:, None],
    }
    torch.manual_seed(7)
    loss, _ = policy.loss(batch)
    torch.manual_seed(7)
    clean = torch.stack([(batch["action"][..., 0] - 2) / 2, batch["action"][..., 1] / 2], -1)
    s = policy.draw_levels(4, clean)[:, None, None]
    eps = torch.randn_like(clean)
    alpha, sigma = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
    context = policy.context(batch)
    out = policy.network(alpha * clean + sigma * eps, torch.atan(s[:, 0, 0]) * 2 / math.pi, context)
    target = {PredictionType.epsilon: eps, PredictionType.x0: clean, PredictionType.v: alpha * eps - sigma * clean}[
        prediction_type
    ]
    error = (out - target).square()
    by_hand = error[batch["action.valid"]].mean() if masked else error.mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_noise_levels_are_stratified_within_the_range():
    policy = build(sigma_min=0.1, sigma_max=10.0)
    s = policy.draw_levels(1000, torch.zeros(1)).sort().values
    assert 0.1 <= s[0] and s[-1] <= 10.0
    angles = torch.atan(s)
    even = torch.linspace(math.atan(0.1), math.atan(10.0), 1000)
    assert (angles - even).abs().max() < 3e-3


def test_unet_has_the_published_number_of_weights():
    network = UNetConfig(channels=(64, 128, 256), time_width=128).build(Layout(tuple(range(16)), 2, (-1, 0), (2, 16)))
    kernel, time, condition = 5, 128, 36
    blocks = [(2, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256),
              (512, 128), (128, 128), (256, 64), (64, 64)]  # fmt: skip
    expected = (time * 4 * time + 4 * time) + (4 * time * time + time)
    for a, b in blocks:
        expected += a * b * kernel + b + b * b * kernel + b + 4 * b  # convolutions and group norms
        expected += (a * b + b if a != b else 0) + (time + condition) * 2 * b + 2 * b  # skip and FiLM
    expected += sum(c * c * 3 + c for c in (64, 128)) + sum(c * c * 4 + c for c in (128, 64))
    expected += 64 * 64 * kernel + 64 + 2 * 64 + 64 * 2 + 2
    assert sum(p.numel() for p in network.parameters()) == expected


def test_it_learns_two_modes():
    """One observation, two demonstrated answers: samples find both and little else."""
    torch.manual_seed(0)
    window = Window(observe=(0,), horizon=4)
    policy = DiffusionConfig(
        window=window,
        n_action_steps=1,
        network=MLPConfig(width=64, depth=2, condition_width=32),
        sampler=Sampler(steps=10),
    ).build(EMBODIMENT, SCALES)
    optimizer = torch.optim.AdamW(policy.parameters(), 2e-3)
    sides = torch.where(torch.arange(128)[:, None, None] % 2 == 0, 1.2, -1.2)
    batch = {
        "observation.state": torch.zeros(128, 1, 2),
        "observation.valid": torch.ones(128, 1, dtype=torch.bool),
        "action": torch.cat([torch.full((128, 4, 1), 2.0), sides.expand(128, 4, 1)], -1),
        "action.valid": torch.ones(128, 4, dtype=torch.bool),
    }
    for _ in range(400):
        loss, _ = policy.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    y = policy.eval().plan(past(1, window), 200, noise(1)).future[0, :, 0, 1]
    near = ((y.abs() - 1.2).abs() < 0.3).float().mean()
    assert near > 0.9 and 0.3 < (y > 0).float().mean() < 0.7


def test_sampler_can_be_changed_and_says_what_is_too_much():
    policy = with_sampler(build(), steps=3, solver=None)
    assert policy.sampler == Sampler(steps=3)
    with pytest.raises(ValueError, match="at most"):
        with_sampler(policy, steps=5000).plan(past(1, policy.window), 1, noise(1))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="n_action_steps must be within 1..4"):
        DiffusionConfig(window=Window(horizon=4), n_action_steps=5)
    with pytest.raises(ValueError, match="flow matching"):
        DiffusionConfig(prediction_type=PredictionType.flow)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        DiffusionConfig(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(EmbodimentError, match="'observation.images.wrist' is needed but not offered"):
        DiffusionConfig(inputs=("observation.images.wrist",)).build(EMBODIMENT, SCALES)
    with pytest.raises(EmbodimentError, match="it offers|offers observation.state"):
        DiffusionConfig(inputs=("observation.environment_state",)).build(EMBODIMENT, SCALES)
    with pytest.raises(ValueError, match="multiple of 2 tokens, got 7"):
        DiffusionConfig(window=Window(horizon=7), n_action_steps=1, network=NETWORKS["unet"]).build(EMBODIMENT, SCALES)


def test_past_is_read_by_offset():
    window = Window(observe=(-3, -1, 0), recall=(-2, -1), horizon=2)
    held = past(2, window)
    part = held.at(Window(observe=(-1,), recall=(-2,), horizon=2))
    assert torch.equal(part.obs["observation.state"][:, 0], held.obs["observation.state"][:, 1])
    with pytest.raises(KeyError, match="observation at offset -2 is not held"):
        held.at(Window(observe=(-2, 0), horizon=2))


def test_plans_pick_one_candidate_a_lane():
    plans = Plans(torch.zeros(2, 3, 0, 1), torch.arange(6.0).view(2, 3, 1, 1), torch.zeros(2).long())
    assert plans.pick(torch.tensor([2, 0])).future.flatten().tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("word", "ours"), [("sample", "x0"), ("v_prediction", "v"), ("epsilon", "epsilon")])
def test_prediction_types_may_be_spelled_as_in_diffusers(word, ours):
    config = decode_choice(PolicyConfig, {"type": "diffusion", "prediction_type": word})
    assert config.prediction_type.value == ours


def test_environments_without_an_episode_are_not_warned_of():
    policy = DiffusionConfig(window=Window(observe=(0,), horizon=4), n_action_steps=2).build(EMBODIMENT, SCALES)
    scale = policy.state_scales["observation_state"]
    scale.mean.fill_(100.0)
    scale.std.fill_(1.0)
    near = torch.full((2, 1, len(scale.mean)), 100.5)
    near[1] = 0.0  # idle
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.frames({"observation.state": near}, warn=True)
    far = near.clone()
    far[0, 0, 0] = 200.0
    with pytest.warns(UserWarning, match="reads 200, 100 standard deviations"):
        policy.frames({"observation.state": far}, warn=True)
