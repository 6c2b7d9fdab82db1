"""Average velocity: its target against finite differences, flow matching at r = t, one evaluation a plan, modes."""

import draccus
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.field import PredictionType, Solver, angle_of, to_clean
from understudy.policies.learning.checkpoint import load_config
from understudy.policies.models.generative import Sampler, with_sampler
from understudy.policies.models.one_step import ERROR_FLOOR, OneStepConfig, Predicts
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.transformer import TransformerConfig
from understudy.policies.networks.unet import UNetConfig
from understudy.policies.policy import LaneNoise, Past, Planner, Scales, Trainable

BODY = Embodiment(
    action=("x", "y"), action_units=("m", "m"), limits=((-1.0, 1.0),) * 2, rate=10.0, state=("x",), state_units=("m",)
)
SCALES = Scales(action=((-1.0,) * 2, (1.0,) * 2), states={"observation.state": ((0.0,), (1.0,))})
WINDOW = Window(observe=(0,), recall=(-1,), horizon=3)
NETWORKS = {
    "mlp": MLPConfig(width=32, depth=2, condition_width=16),
    "unet": UNetConfig(channels=(16, 32), groups=4, time_width=16),
    "transformer": TransformerConfig(width=16, depth=1, heads=2),
}


def build(network="mlp", window=WINDOW, **settings):
    torch.manual_seed(0)
    policy = OneStepConfig(window=window, n_action_steps=1, network=NETWORKS[network], **settings).build(BODY, SCALES)
    for parameter in policy.parameters():  # the output layers begin at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy.eval()


def batch_of(count, window=WINDOW):
    generator = torch.Generator().manual_seed(count)
    valid = torch.ones(count, len(window.actions), dtype=torch.bool)
    valid[0, : len(window.recall)] = False  # the episode begins here
    return {
        "observation.state": torch.randn(count, 1, 1, generator=generator),
        "observation.valid": torch.ones(count, 1, dtype=torch.bool),
        "action": torch.rand(count, len(window.actions), 2, generator=generator) * 2 - 1,
        "action.valid": valid,
    }


def past(lanes=1, window=WINDOW):
    return Past(
        obs={"observation.state": torch.zeros(lanes, 1, 1)},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, len(window.recall), 2),
        action_times=window.recall,
        action_valid=torch.zeros(lanes, len(window.recall), dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def noise(lanes=1):
    return LaneNoise(0, torch.arange(lanes).numpy(), torch.zeros(lanes).long().numpy())


@pytest.mark.parametrize("predicts", Predicts)
@pytest.mark.parametrize("network", NETWORKS)
def test_target_is_the_finite_difference(network, predicts):
    """u_target = v - (t - r) d/dt u(z(t), r, t) along the straight path of one action and one noise."""
    policy = build(network, predicts=predicts).double()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch_of(5).items()}
    clean, eps = batch["action"], torch.randn(5, 4, 2, dtype=torch.float64)
    r = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.2], dtype=torch.float64)
    t = torch.tensor([0.98, 0.4, 0.9, 0.5, 0.7], dtype=torch.float64)
    pinned, held = policy.held(batch, clean)
    context = policy.context(batch)
    out, target = policy.pair(clean, eps, r, t, context, pinned, held)

    def along(t):
        wide = t[:, None, None]
        return policy.velocity((1 - wide) * clean + wide * eps, r, t, context, pinned, held)

    step = 1e-5
    with torch.no_grad():
        slope = (along(t + step) - along(t - step)) / (2 * step)
        expected = (eps - clean) - (t - r)[:, None, None] * slope
        assert torch.allclose(out, along(t))
    there = ~held
    assert torch.allclose(target[there], expected[there], rtol=1e-6, atol=1e-7)
    assert (expected - (eps - clean))[there].abs().max() > 0.01, "the correction is too small to be tested"
    assert out.requires_grad and not target.requires_grad


@pytest.mark.parametrize("predicts", Predicts)
@pytest.mark.parametrize("network", NETWORKS)
def test_at_equal_times_it_is_flow_matching(network, predicts):
    policy = build(network, same=1.0, predicts=predicts, adaptive=0.0)
    batch = batch_of(6)
    torch.manual_seed(3)
    loss, _ = policy.loss(batch)
    torch.manual_seed(3)
    r, t = policy.draw_times(6, torch.device("cpu"))
    assert torch.equal(r, t)
    eps = torch.randn(6, 4, 2)
    _, target = policy.pair(batch["action"], eps, r, t, policy.context(batch), *policy.held(batch, batch["action"]))
    there = batch["action.valid"]
    assert torch.equal(target[there], (eps - batch["action"])[there])
    s = (t / (1 - t))[:, None, None]
    y = (batch["action"] + s * eps) * there[..., None]
    out = policy.evaluate(y / (1 + s * s).sqrt(), s[:, 0, 0], policy.context(batch))
    assert loss.item() == pytest.approx((out - eps + batch["action"]).square()[there].mean().item(), rel=1e-4)
    denoised = policy.denoise(y, s[:, 0, 0], policy.context(batch))
    assert torch.allclose(denoised, to_clean(PredictionType.flow, out, y, s), atol=1e-5)


@pytest.mark.parametrize("jumps", [1, 3])
def test_a_plan_takes_one_evaluation_a_jump(jumps):
    policy = with_sampler(build(), steps=None if jumps == 1 else jumps)
    assert isinstance(policy, Planner) and isinstance(policy, Trainable)
    calls = []
    policy.network.register_forward_hook(lambda *_: calls.append(1))
    plans = policy.plan(past(2), 5, noise(2))
    assert len(calls) == jumps
    assert plans.past.shape == (2, 5, 1, 2) and plans.future.shape == (2, 5, 3, 2)
    assert bool((plans.past == 0).all()), "before the episode there was no action"
    assert plans.future.abs().max() <= 1 and plans.future.std(1).mean() > 0.01


def test_the_first_candidate_is_the_single_plan():
    policy = build()
    one, many = (policy.plan(past(2), n, noise(2)).future for n in (1, 7))
    assert torch.allclose(one[:, 0], many[:, 0], atol=1e-6)


def test_gradients_reach_every_weight():
    policy = build().train()
    policy.loss(batch_of(8))[0].backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())


def test_adaptive_windows_count_alike_whatever_their_error():
    """At power 1 each window's loss is its error / (error + c); windows that do not count at all leave no trace."""
    batch = batch_of(8)
    batch["action"][0] *= 100
    policy = build(adaptive=1.0)
    errors = _errors(policy, batch)
    torch.manual_seed(5)
    adaptive = policy.loss(batch)[0].item()
    counts = batch["action.valid"].sum(1).float()
    expected = (counts * errors / (errors + ERROR_FLOOR)).sum() / counts.sum()
    assert errors.max() > 100 * errors.median(), "the windows do not differ"
    assert adaptive == pytest.approx(expected.item(), rel=1e-4) and adaptive < 1


def _errors(policy, batch):
    """(B,) each window's mean squared error, with the random numbers that `loss` would draw."""
    torch.manual_seed(5)
    r, t = policy.draw_times(len(batch["action"]), torch.device("cpu"))
    pinned, held = policy.held(batch, batch["action"])
    noise = torch.randn_like(batch["action"])
    out, target = policy.pair(batch["action"], noise, r, t, policy.context(batch), pinned, held)
    error, valid = (out - target).square().mean(-1).detach(), batch["action.valid"]
    return (error * valid).sum(1) / valid.sum(1)


@pytest.mark.parametrize("predicts", Predicts)
def test_the_field_is_the_network_at_equal_times(predicts):
    policy = build(predicts=predicts)
    batch = batch_of(3)
    batch["action.valid"][:] = True
    context, (pinned, held) = policy.context(batch), policy.held(batch, batch["action"])
    t = torch.tensor([0.2, 0.5, 0.9])
    z, s = torch.randn(3, 4, 2), t / (1 - t)
    x = z / ((1 - t) ** 2 + t**2).sqrt()[:, None, None]
    with torch.no_grad():
        field, jump = policy.evaluate(x, s, context), policy.velocity(z, t, t, context, pinned, held)
    assert not held.any() and torch.allclose(field, jump, atol=1e-5)


def test_one_jump_finds_both_modes_and_the_field_is_the_posterior_mean():
    """One observation, two demonstrated answers of spread 0.1; the exact posterior mean is known."""
    torch.manual_seed(0)
    window = Window(observe=(0,), horizon=1)
    network = MLPConfig(width=48, depth=2, condition_width=32)
    policy = OneStepConfig(window=window, n_action_steps=1, network=network).build(BODY, SCALES)
    optimizer = torch.optim.AdamW(policy.parameters(), 4e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    batch = batch_of(256, window)
    for _ in range(800):
        side = torch.randint(0, 2, (256, 1, 1)) * 1.2 - 0.6
        batch["action"] = torch.cat([side + 0.1 * torch.randn(256, 1, 1), torch.zeros(256, 1, 1)], -1)
        loss, _ = policy.loss(batch | {"observation.state": torch.zeros(256, 1, 1)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x, other = policy.eval().plan(past(1, window), 1000, noise()).future[0, :, 0].T
    assert 0.4 < (x > 0).float().mean() < 0.6
    assert ((x.abs() - 0.6).abs() < 0.3).float().mean() > 0.75 and other.abs().mean() < 0.1
    field = policy.field(past(1, window), 1000)
    for s in (0.1, 0.5, 1.0):
        y = torch.stack([x.sign() * 0.6, torch.zeros(1000)], -1).view(1, 1000, 1, 2) + s * torch.randn(1, 1000, 1, 2)
        spread = 0.01 + s * s
        right = torch.sigmoid(2 * 0.6 * y[..., 0] / spread)
        means = [m + 0.01 / spread * (y[..., 0] - m) for m in (0.6, -0.6)]
        with torch.no_grad():
            error = field(y, s)[..., 0] - (right * means[0] + (1 - right) * means[1])
        assert error.square().mean().sqrt() < 0.12, f"not the posterior mean at s = {s}"


def test_pairs_of_times_are_ordered_and_as_often_alike_as_said():
    policy = build(same=0.25)
    torch.manual_seed(0)
    r, t = policy.draw_times(20_000, torch.device("cpu"))
    assert bool((r <= t).all()) and r.min() >= 0 and t.max() <= 1
    assert (r == t).float().mean().item() == pytest.approx(0.25, abs=0.015)
    s = t[r == t] / (1 - t[r == t])
    assert s.min() >= policy.config.sigma_min * 0.999 and s.max() <= policy.config.sigma_max * 1.001
    assert torch.isfinite(angle_of(s)).all()


def test_a_checkpoint_of_before_there_was_a_choice_predicts_velocities():
    document = {"kind": "policy", "type": "one_step", "config": draccus.encode(OneStepConfig())}
    assert load_config(document).predicts is Predicts.clean
    del document["config"]["predicts"]
    assert load_config(document).predicts is Predicts.velocity


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="within 0..1"):
        OneStepConfig(same=1.5)
    with pytest.raises(ValueError, match="power within 0..1"):
        OneStepConfig(adaptive=-1)
    with pytest.raises(ValueError, match="walks no path"):
        OneStepConfig(sampler=Sampler(steps=1, solver=Solver.heun))
    with pytest.raises(ValueError, match="walks no path"):
        with_sampler(build(), solver=Solver.dpmpp).plan(past(), 1, noise())
    with pytest.raises(ValueError, match="at least 1 step"):
        with_sampler(build(), steps=0).plan(past(), 1, noise())
