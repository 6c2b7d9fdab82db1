"""Critics: their losses against plain numpy, what they read of a plan, pessimism, target networks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from understudy.configs.settings.decode import decode_choice
from understudy.configs.spec import STATE, Embodiment, EmbodimentError, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.critics.calql import CalQLConfig
from understudy.policies.critics.chunk import ChunkConfig
from understudy.policies.critics.combine import Weighted
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.critics.value import Pessimism, frozen
from understudy.policies.data.rewards import Rewards
from understudy.policies.policy import CriticConfig, Past, Plans, Scales

BODY = Embodiment(
    name="arm", action=("x", "y"), action_units=("px", "px"), limits=((0.0, 512.0), (0.0, 512.0)), rate=10.0,
    state=("a", "b", "c"), state_units=("m", "m", "m"),
)  # fmt: skip
SCALES = Scales(action=((0.0, 128.0), (512.0, 384.0)), states={STATE: ((0.0,) * 3, (1.0,) * 3)})
SMALL = {"widths": (16,), "rewards": Rewards(gamma=0.9)}


def build(config):
    torch.manual_seed(0)
    return config.build(BODY, SCALES).double()


def windows(horizon: int, count: int = 5, seed: int = 1) -> dict:
    """A batch of random windows; the second one was cut short, in the third success came first."""
    rng = torch.Generator().manual_seed(seed)
    batch = {
        STATE: torch.randn(count, 1, 3, generator=rng),
        "later." + STATE: torch.randn(count, 1, 3, generator=rng),
        "action": 512 * torch.rand(count, horizon, 2, generator=rng),
        "reward": torch.rand(count, generator=rng),
        "discount": torch.full((count,), 0.9),
        "return": torch.rand(count, generator=rng),
    }
    batch = {key: value.double() for key, value in batch.items()}
    batch |= {"action.valid": torch.ones(count, horizon, dtype=torch.bool), "whole": torch.ones(count, dtype=bool)}
    batch["whole"][1], batch["discount"][2] = False, 0.0
    return batch


def scaled(batch) -> torch.Tensor:
    low, high = (torch.tensor(side, dtype=torch.float64) for side in SCALES.action)
    return ((2 * batch["action"] - low - high) / (high - low)).clamp(-1, 1).flatten(1)


def outputs(judge, batch, actions=None, later=False) -> np.ndarray:
    obs = {STATE: batch["later." + STATE]} if later else batch
    return judge(obs, actions).detach().numpy()


def test_the_losses_of_iql_are_those_of_numpy():
    model, batch = build(IQLConfig(expectile=0.8, **SMALL)), windows(1)
    for parameter in model.target.parameters():
        parameter.mul_(1.5)
    actions = scaled(batch)
    q, held = outputs(model.q, batch, actions), outputs(model.target, batch, actions).min(0)
    v, later = outputs(model.v, batch)[0], outputs(model.v, batch, later=True)[0]
    wanted = batch["reward"].numpy() + batch["discount"].numpy() * later
    above = held - v
    state = (np.where(above < 0, 0.2, 0.8) * above**2).mean()
    action = ((q - wanted) ** 2).mean()
    loss, told = model.loss(batch)
    assert told["state_loss"] == pytest.approx(state) and told["action_loss"] == pytest.approx(action)
    assert loss.item() == pytest.approx(state + action)
    loss.backward()
    assert all(parameter.grad is None for parameter in model.target.parameters())


def test_chunks_cut_short_may_be_left_out():
    batch = windows(1)
    kept, left = (
        build(IQLConfig(bootstrap_timeouts=bootstrap_timeouts, **SMALL)) for bootstrap_timeouts in (True, False)
    )
    rest = {key: value[[0, 2, 3, 4]] for key, value in batch.items()}
    assert left.loss(batch)[0].item() == pytest.approx(kept.loss(rest)[0].item())
    assert left.loss(batch)[0].item() != pytest.approx(kept.loss(batch)[0].item())


@pytest.fixture
def calql():
    """(model, batch, the actor's actions now and later (4, B, 2), their log densities), all fixed."""
    model, batch = build(CalQLConfig(alpha=5.0, **SMALL)), windows(1)
    for parameter in model.target.parameters():
        parameter.mul_(1.5)
    rng = torch.Generator().manual_seed(3)
    ours, theirs = (2 * torch.rand(4, 5, 2, generator=rng, dtype=torch.float64) - 1 for _ in range(2))
    density, other = (torch.randn(4, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    answers = iter([(ours, density), (theirs, other)] * 3)
    model.actor.sample = lambda obs, n: next(answers)
    return model, batch, (ours, density), (theirs, other)


def test_the_critic_loss_of_calql_is_that_of_numpy(calql, monkeypatch):
    model, batch, (ours, density), (theirs, other) = calql
    uniform = 2 * torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64) - 1
    monkeypatch.setattr(torch, "rand_like", lambda like: (uniform + 1) / 2)
    at_later = np.stack([outputs(model.target, batch, a, later=True) for a in theirs])  # (4, 2, B)
    wanted = batch["reward"].numpy() + batch["discount"].numpy() * at_later.min(1).max(0)
    held = outputs(model.q, batch, scaled(batch))
    td = ((held - wanted) ** 2).mean()
    tried = [np.stack([outputs(model.q, batch, a) for a in group], 1) for group in (uniform, ours, theirs)]
    tried[1:] = [np.maximum(values, batch["return"].numpy()) for values in tried[1:]]  # policy samples only
    logs = [np.full((4, 5), 2 * math.log(0.5)), density.numpy(), other.numpy()]
    terms = np.concatenate([values - log for values, log in zip(tried, logs, strict=True)], 1)
    gap = (np.log(np.exp(terms).sum(1)) - held).mean()
    loss, told = model.loss(batch)
    assert told["td"] == pytest.approx(td) and told["gap"] == pytest.approx(gap)
    with torch.no_grad():
        values = outputs(model.q, batch, ours[0]).min(0)
    acting = (density[0].numpy() - values).mean()  # temperature 1
    assert told["actor"] == pytest.approx(acting)
    assert loss.item() == pytest.approx(td + 5 * gap + acting)  # log temperature is 0


def test_calibration_lifts_the_values_of_the_policy_alone(calql):
    model, batch, (ours, density), (theirs, other) = calql
    features, held = model.q.encode(batch), torch.zeros(2, 5, dtype=torch.float64)
    tried = torch.cat([torch.zeros_like(ours), ours, theirs])
    logs = torch.zeros(12, 5, dtype=torch.float64)
    high = torch.full((5,), 100.0, dtype=torch.float64)
    gap = model.conservative(held, features, tried, logs, high).detach().numpy()
    np.testing.assert_allclose(gap, 100 + math.log(8), rtol=1e-6)  # 8 of 12 are at the return
    low = model.conservative(held, features, tried, logs, -high).detach()
    plain = model.q(batch, ours[0]).detach()  # nothing is lifted by a low return
    assert (low < 90).all() and torch.isfinite(plain).all()
    uncalibrated = build(CalQLConfig(calibrated=False, **SMALL))
    assert (uncalibrated.conservative(held, features, tried, logs, high) < 90).all()


def test_the_actor_learns_from_the_critic_and_not_the_other_way(calql):
    model, batch, (ours, density), _ = calql
    moving = ours.clone().requires_grad_()
    acting, _ = model.act(model.q.encode(batch), moving, density, torch.ones(5, dtype=torch.float64))
    acting.backward()
    assert moving.grad.abs().sum() > 0 and all(parameter.grad is None for parameter in model.q.parameters())
    assert all(parameter.requires_grad for parameter in model.q.parameters())
    with frozen(model.q):
        assert not any(parameter.requires_grad for parameter in model.q.parameters())
    paces = {group["pace"]: sum(p.numel() for p in group["params"]) for group in model.groups()}
    assert paces[1.0] == sum(p.numel() for p in model.q.parameters()) and len(paces) == 2


def test_the_density_of_the_actor_is_that_of_its_samples():
    """A tanh-Gaussian of two numbers: the density by change of variables, by finite differences of tanh."""
    model = build(CalQLConfig(**SMALL))
    torch.manual_seed(1)
    batch = windows(1)
    actions, density = (part.detach() for part in model.actor.sample(batch, 2))
    mean, spread = model.actor.gauss.body(model.q.encode(batch)).detach().chunk(2, -1)
    before = actions.atanh()
    normal = torch.distributions.Normal(mean, spread.clamp(-5, 2).exp()).log_prob(before)
    slope = ((before + 1e-5).tanh() - (before - 1e-5).tanh()) / 2e-5
    torch.testing.assert_close(density, (normal - slope.log()).sum(-1), rtol=1e-4, atol=1e-6)


def test_the_losses_of_the_chunk_critic_are_those_of_numpy():
    config = ChunkConfig(
        window=Window(observe=(0,), horizon=4), prefix=2, quantile=0.7, distil=0.9, bounded=False, **SMALL
    )
    model, batch = build(config), windows(4)
    actions = scaled(batch)
    q, p = outputs(model.q, batch, actions), outputs(model.prefix, batch, actions[:, :4])
    v, later = outputs(model.v, batch)[0], outputs(model.target, batch, later=True)[0]
    wanted = batch["reward"].numpy() + batch["discount"].numpy() * later
    part = (np.where(q < p, 0.1, 0.9) * (q - p) ** 2).mean()
    above = p.min(0) - v
    state = (np.where(above < 0, 0.3, 0.7) * np.abs(above)).mean()
    loss, told = model.loss(batch)
    assert told["chunk_loss"] == pytest.approx(((q - wanted) ** 2).mean())
    assert told["prefix_loss"] == pytest.approx(part) and told["state_loss"] == pytest.approx(state)
    assert loss.item() == pytest.approx(((q - wanted) ** 2).mean() + part + state)


def test_bounded_values_are_learnt_by_cross_entropy():
    model, batch = build(IQLConfig(bounded=True, **SMALL)), windows(1)
    q = outputs(model.q, batch, scaled(batch))
    assert (q > 0).all() and (q < 1).all()
    later = outputs(model.v, batch, later=True)[0]
    wanted = (batch["reward"].numpy() + batch["discount"].numpy() * later).clip(0, 1)
    entropy = -(wanted * np.log(q) + (1 - wanted) * np.log(1 - q)).mean()
    assert model.loss(batch)[1]["action_loss"] == pytest.approx(entropy)


def test_what_is_padded_after_the_end_comes_from_other_windows():
    model, batch = build(ChunkConfig(window=Window(observe=(0,), horizon=4), prefix=2, **SMALL)), windows(4, count=64)
    batch["action"][:, 2:], batch["action.valid"][:, 2:] = batch["action"][:, 1:2], False
    plain = scaled(batch).unflatten(1, (4, 2))
    chunk = model.chunk(batch)
    assert torch.equal(chunk[:, :2], plain[:, :2])
    assert (chunk[:, 2:] != plain[:, 2:]).any(-1).float().mean() > 0.9
    known = {tuple(row) for row in plain.flatten(0, 1).tolist()}
    assert {tuple(row) for row in chunk.flatten(0, 1).tolist()} <= known


def past(count: int = 3) -> Past:
    obs = torch.randn(count, 1, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    yes = torch.ones(count, 1, dtype=torch.bool)
    none = torch.zeros(count, 0, 2)
    return Past({STATE: obs}, (0,), yes, none, (), yes[:, :0], torch.zeros(count, dtype=torch.int64))


def plans_of(future: torch.Tensor) -> Plans:
    return Plans(future[:, :, :0], future, torch.zeros(len(future), dtype=torch.int64))


def test_plans_come_in_units_and_are_read_in_the_critics_scale():
    """Policy to critic and back: what the limits clip is clipped first, then the critic's own scale."""
    model = build(IQLConfig(**SMALL))
    future = torch.tensor([[[[256.0, 256.0], [9.0, 9.0]], [[600.0, 320.0], [7.0, 7.0]]]], dtype=torch.float64)
    read = model.actions(future)
    torch.testing.assert_close(read, torch.tensor([[[0.0, 0.0], [1.0, 0.5]]], dtype=torch.float64))
    assert model.reads == 1 and read.shape == (1, 2, 2)
    back = model.action_scale.unscale(read)
    torch.testing.assert_close(back, torch.tensor([[[256.0, 256.0], [512.0, 320.0]]], dtype=torch.float64))
    with pytest.raises(ValueError, match="the critic values 1 actions of 2 numbers, the plans have 2 of 3"):
        model.score(past(), plans_of(torch.zeros(3, 1, 2, 3, dtype=torch.float64)))
    long = build(ChunkConfig(window=Window(observe=(0,), horizon=8), prefix=4, **SMALL))
    with pytest.raises(ValueError, match="values 4 actions of 2 numbers, the plans have 3 of 2"):
        long.score(past(), plans_of(torch.zeros(3, 1, 3, 2, dtype=torch.float64)))


def test_scores_are_pessimistic_over_the_ensemble():
    future = 512 * torch.rand(3, 7, 2, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    least = build(IQLConfig(ensemble=3, **SMALL))
    lower = build(IQLConfig(ensemble=3, pessimism=Pessimism.lower, std_penalty=2.0, **SMALL))
    obs = {STATE: past().obs[STATE].repeat_interleave(7, 0)}
    each = least.target(obs, least.actions(future).flatten(0, 1)).detach().unflatten(1, (3, 7))
    torch.testing.assert_close(least.score(past(), plans_of(future)), each.amin(0))
    torch.testing.assert_close(lower.score(past(), plans_of(future)), each.mean(0) - 2 * each.std(0, correction=0))


def test_target_networks_follow_after_a_step():
    model = build(IQLConfig(tau=0.25, **SMALL))
    before = [parameter.clone() for parameter in model.target.parameters()]
    with torch.no_grad():
        for parameter in model.q.parameters():
            parameter.add_(1.0)
    model.stepped()
    for old, new in zip(before, model.target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_a_critic_of_the_first_action_steers_an_agent_that_executes_more():
    first, eight = build(IQLConfig(**SMALL)).float(), build(ChunkConfig(**SMALL)).float()
    planner = SimpleNamespace(embodiment=BODY, window=Window(observe=(0,), horizon=16), inputs=(STATE,))
    assert Agent(planner, lanes=2, n_action_steps=8, candidates=4, critic=first).critic.reads == 1
    assert (
        Agent(planner, lanes=2, n_action_steps=8, candidates=4, critic=Weighted((first, eight), (1, 1))).critic.reads
        == 8
    )
    with pytest.raises(ValueError, match="scores 8 future actions, but 4 are executed"):
        Agent(planner, lanes=2, n_action_steps=4, candidates=4, critic=eight)
    other = build(ChunkConfig(prefix=4, **SMALL)).float()
    with pytest.raises(ValueError, match=r"different numbers of future actions: \[4, 8\]"):
        Weighted((other, eight), (1, 1))


def test_settings_that_make_no_sense_are_refused():
    for config, wrong, told in (
        (IQLConfig, {"expectile": 1.0}, "expectile is within"),
        (IQLConfig, {"window": Window(observe=(0,), recall=(-1,), horizon=1)}, "leave window.recall out"),
        (IQLConfig, {"ensemble": 0}, "ensemble of at least 1"),
        (CalQLConfig, {"samples": 0}, "samples must be at least 1"),
        (ChunkConfig, {"prefix": 17}, r"prefix must be within 1..16"),
        (ChunkConfig, {"distil": 1.0}, "distil are within 0 and 1"),
    ):
        with pytest.raises(ValueError, match=told):
            config(**wrong)
    with pytest.raises(ValueError, match="by the frozen encoders of a policy"):
        IQLConfig(inputs=("observation.images.top",))
    with pytest.raises(EmbodimentError, match="is needed but not offered"):
        IQLConfig(inputs=("observation.wrench",)).build(BODY, SCALES)


def test_former_names_of_a_critic_s_settings():
    raw = {"type": "iql", "needs": ["observation.state"], "doubt": 2.0, "crossing": False}
    config = decode_choice(CriticConfig, raw)
    assert (config.inputs, config.std_penalty, config.bootstrap_timeouts) == (("observation.state",), 2.0, False)
