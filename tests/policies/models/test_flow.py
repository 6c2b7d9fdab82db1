"""Flow matching: its density of times, and that its field is the posterior mean that diffusion learns too."""

import functools
import math

import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.field import angle_of, sample
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import Density, FlowConfig, Times, time_of
from understudy.policies.models.generative import Sampler
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Planner, Scales, Trainable

BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",), state_units=("m",)
)
SCALES = Scales(action=((-1.0,), (1.0,)), states={"observation.state": ((0.0,), (1.0,))})
WINDOW = Window(observe=(0,), horizon=1)
NETWORK = MLPConfig(width=48, depth=2, condition_width=32)
SETTINGS = {"window": WINDOW, "n_action_steps": 1, "network": NETWORK, "sampler": Sampler(steps=10)}
KINDS = [
    Times(),
    Times(density=Density.logit_normal, mean=-0.4),
    Times(density=Density.beta, power=1.5),
]


def past(lanes=1):
    return Past(
        obs={"observation.state": torch.zeros(lanes, 1, 1)},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 1),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def gaussian(y, s, mean=0.2, std=0.3):
    return mean + std**2 / (std**2 + s**2) * (y - mean)


def two_modes(y, s, centre=0.6, width=0.1):
    spread = width**2 + s**2
    right = torch.sigmoid(2 * centre * y / spread)
    means = [m + width**2 / spread * (y - m) for m in (centre, -centre)]
    return right * means[0] + (1 - right) * means[1]


def draw_gaussian(count):
    return 0.2 + 0.3 * torch.randn(count, 1, 1)


def draw_two_modes(count):
    return 0.6 * torch.randint(0, 2, (count, 1, 1)).mul(2).sub(1) + 0.1 * torch.randn(count, 1, 1)


@functools.cache
def fitted(config, draw, steps=400, batch=256):
    torch.manual_seed(0)
    policy = config.build(BODY, SCALES)
    optimizer = torch.optim.AdamW(policy.parameters(), 4e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch_now = {
            "observation.state": torch.zeros(batch, 1, 1),
            "observation.valid": torch.ones(batch, 1, dtype=torch.bool),
            "action": draw(batch),
            "action.valid": torch.ones(batch, 1, dtype=torch.bool),
        }
        loss, _ = policy.loss(batch_now)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return policy.eval()


def probes(s, exact_draw):
    torch.manual_seed(1)
    return exact_draw(400).view(1, 400, 1, 1) + s * torch.randn(1, 400, 1, 1)


@pytest.mark.parametrize("times", KINDS, ids=[t.density.value for t in KINDS])
def test_times_follow_their_density(times):
    torch.manual_seed(0)
    low, high = 0.01, 0.985
    drawn = times.draw(20_000, low, high, torch.device("cpu")).double().sort().values
    assert low <= drawn[0] and drawn[-1] <= high
    logit = {
        Density.uniform: lambda t: t,
        Density.beta: lambda t: t**times.power,
        Density.logit_normal: lambda t: (
            0.5 * (1 + torch.erf((torch.log(t / (1 - t)) - times.mean) / times.std / math.sqrt(2)))
        ),
    }[times.density]
    bottom, top = (logit(torch.tensor(x, dtype=torch.float64)) for x in (low, high))
    expected = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert ((logit(drawn) - bottom) / (top - bottom) - expected).abs().max() < 1e-3


def test_straight_path_is_the_common_coordinate():
    """x = (1 - t) x0 + t noise is y = x0 + s noise seen at t = s / (1 + s): the velocity head gives back x0."""
    x0, noise = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for s in (0.01, 1.0, 64.0):
        t = time_of(s)
        x = (1 - t) * x0 + t * noise
        assert torch.allclose(x / (1 - t), x0 + s * noise)
        assert torch.allclose(x - t * (noise - x0), x0)


def test_loss_is_the_velocity_error():
    torch.manual_seed(0)
    policy = FlowConfig(**SETTINGS).build(BODY, SCALES)
    for parameter in policy.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    batch = {
        "observation.state": torch.randn(6, 1, 1),
        "observation.valid": torch.ones(6, 1, dtype=torch.bool),
        "action": torch.rand(6, 1, 1),
        "action.valid": torch.tensor([True] * 4 + [False] * 2)[:, None],
    }
    torch.manual_seed(3)
    loss, _ = policy.loss(batch)
    torch.manual_seed(3)
    s = policy.draw_levels(6, batch["action"])[:, None, None]
    noise = torch.randn(6, 1, 1)
    t = s / (1 + s)
    x = (1 - t) * batch["action"] + t * noise
    unit = x / ((1 - t) ** 2 + t**2).sqrt()
    out = policy.network(unit, angle_of(s[:, 0, 0]), policy.context(batch))
    assert loss.item() == pytest.approx((out - (noise - batch["action"])).square()[:4].mean().item(), rel=1e-5)


@pytest.mark.parametrize("draw, exact", [(draw_gaussian, gaussian), (draw_two_modes, two_modes)])
def test_field_is_the_posterior_mean_that_diffusion_learns(draw, exact):
    flow = fitted(FlowConfig(**SETTINGS), draw)
    diffusion = fitted(DiffusionConfig(**SETTINGS), draw)
    fields = [policy.field(past(), 400) for policy in (flow, diffusion)]
    assert (fields[0].sigma_min, fields[0].sigma_max, fields[0].times) == (
        fields[1].sigma_min,
        fields[1].sigma_max,
        fields[1].times,
    )
    for s in (0.05, 0.2, 0.5, 1.0, 2.0):
        y = probes(s, draw)
        with torch.no_grad():
            of_flow, of_diffusion = (field(y, s) for field in fields)
        assert (of_flow - exact(y, s)).square().mean().sqrt() < 0.1, f"not the posterior mean at s = {s}"
        assert (of_flow - of_diffusion).square().mean().sqrt() < 0.1, f"flow and diffusion differ at s = {s}"


def test_plans_find_both_modes_and_compose_with_diffusion():
    flow = fitted(FlowConfig(**SETTINGS), draw_two_modes)
    assert isinstance(flow, Planner) and isinstance(flow, Trainable)
    lane = torch.zeros(1).long().numpy()
    plans = flow.plan(past(), 500, LaneNoise(0, lane, lane)).future.flatten()
    diffusion = fitted(DiffusionConfig(**SETTINGS), draw_two_modes)
    fields = [policy.field(past(), 500) for policy in (flow, diffusion)]
    with torch.no_grad():
        composed = sample(
            lambda y, s: (fields[0](y, s) + fields[1](y, s)) / 2,
            LaneNoise(0, lane, lane).normal(500, 1, 1),
            [*(math.tan(math.atan(64) * (1 - i / 10)) for i in range(10)), 0.0],
        ).flatten()
    for drawn in (plans, composed):
        assert 0.4 < (drawn > 0).float().mean() < 0.6
        assert ((drawn.abs() - 0.6).abs() < 0.3).float().mean() > 0.9


def test_senseless_times_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        Times(density=Density.beta, power=0.0)
