"""The velocity of a flow policy made elsewhere is the common field, in both conventions of time."""

import numpy as np
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.field import PredictionType, from_clean, sample
from understudy.policies.foreign.velocity import Clock, VelocityPolicy, velocity_field
from understudy.policies.models.generative import Sampler
from understudy.policies.policy import LaneNoise, Past, Policy, Scale

BODY = Embodiment(
    action=("x", "y"),
    action_units=("px", "px"),
    limits=((0.0, 512.0), (0.0, 512.0)),
    rate=10.0,
    state=("x", "y"),
    state_units=("px", "px"),
)


def past(lanes):
    return Past(
        obs={"observation.state": torch.zeros(lanes, 1, 2)},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 2),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def gaussian_velocity(clock, mean=0.2, std=0.3):
    """The velocity of a normal distribution, in either convention."""

    def velocity(x, t, context=None):
        t = (1 - t if clock is Clock.noise_at_zero else t)[:, None, None]
        y, s = x / (1 - t), t / (1 - t)
        clean = mean + std**2 / (std**2 + s**2) * (y - mean)
        u = from_clean(PredictionType.flow, clean, y, s)
        return -u if clock is Clock.noise_at_zero else u

    return velocity


@pytest.mark.parametrize("clock", Clock)
def test_a_velocity_gives_the_posterior_mean_in_both_conventions(clock):
    field = velocity_field(gaussian_velocity(clock), (2, 3, 4, 1), tuple(range(4)), clock=clock)
    y = torch.linspace(-2, 2, 24).view(2, 3, 4, 1)
    for s in (field.sigma_min, 0.1, 1.0, 7.0, field.sigma_max):
        wanted = 0.2 + 0.09 / (0.09 + s**2) * (y - 0.2)
        assert (field(y, s) - wanted).abs().max() < 1e-4 * (1 + s)  # x and t u cancel where noise drowns the rest


@pytest.mark.parametrize("clock", Clock)
def test_their_euler_loop_is_our_first_order_walk(clock):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)).requires_grad_(False)

    def velocity(x, t):
        return net(torch.cat([x, t[:, None, None].expand(*x.shape[:2], 1)], -1))

    noise, steps = torch.randn(6, 5, 2), torch.linspace(0.9, 0, 11).tolist()
    x = 0.9 * noise
    for now, after in zip(steps[:-1], steps[1:], strict=True):  # t = 1 is the noise
        there, sign = (1 - now, -1) if clock is Clock.noise_at_zero else (now, 1)
        x = x + sign * (after - now) * velocity(x, torch.full((6,), there))
    field = velocity_field(velocity, (2, 3, 5, 2), tuple(range(5)), clock=clock)
    ours = sample(field, noise.view(2, 3, 5, 2), [t / (1 - t) for t in steps], clip=None)
    assert (ours.view_as(x) - x).abs().max() < 1e-5


def test_a_velocity_policy_is_a_policy_that_encodes_once():
    calls = []

    def encode(obs):
        calls.append(1)
        return {"state": (obs["observation.state"].flatten(1),)}

    def velocity(x, t, context):
        assert context["state"][0].shape == (len(x), 2)
        return gaussian_velocity(Clock.noise_at_one)(x, t)

    policy = VelocityPolicy(
        encode,
        velocity,
        embodiment=BODY,
        window=Window(observe=(0,), horizon=8),
        inputs=("observation.state",),
        action_scale=Scale.between([0.0, 0.0], [512.0, 512.0]),
        sampler=Sampler(steps=20),
    )
    assert isinstance(policy, Policy)
    future = policy.plan(past(40), 25, LaneNoise(5, np.arange(40), np.zeros(40, np.int64))).future
    assert len(calls) == 1 and future.shape == (40, 25, 8, 2)
    scaled = policy.action_scale.scale(future)
    assert abs(scaled.mean() - 0.2) < 0.02 and abs(scaled.std() - 0.3) < 0.03
    with pytest.raises(ValueError, match="span"):
        velocity_field(lambda x, t: x, (1, 1, 1, 1), (0,), span=(0.0, 1.0))
