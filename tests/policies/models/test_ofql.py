"""One-step flow Q-learning: its loss from the networks' outputs, who learns from whom, and two modes."""

import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.data.rewards import Rewards
from understudy.policies.models.generative import Sampler
from understudy.policies.models.ofql import OFQLConfig
from understudy.policies.models.one_step import OneStepConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Scales

BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("s",), state_units=("m",)
)
STATE = "observation.state"
SCALES = Scales(action=((-1.0,), (1.0,)), states={STATE: ((0.0,), (1.0,))})
SHARED = {"window": Window(observe=(0,), horizon=4), "n_action_steps": 2}
SMALL = MLPConfig(width=32, depth=2, condition_width=16)


def build(config):
    torch.manual_seed(0)
    policy = config.build(BODY, SCALES)
    for parameter in policy.network.parameters():  # the output layers begin at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy


def batch_of(count=6):
    rng = torch.Generator().manual_seed(1)
    yes = torch.ones(count, 1, dtype=torch.bool)
    return {
        STATE: torch.randn(count, 1, 1, generator=rng),
        "later." + STATE: torch.randn(count, 1, 1, generator=rng),
        "observation.valid": yes, "later.observation.valid": yes,
        "action": 2 * torch.rand(count, 4, 1, generator=rng) - 1,
        "action.valid": torch.ones(count, 4, dtype=torch.bool),
        "reward": torch.rand(count, generator=rng),
        "discount": torch.tensor([0.9] * (count - 1) + [0.0]),
        "whole": yes[:, 0],
    }  # fmt: skip


def test_the_loss_is_imitation_plus_regression_minus_the_weighted_value(monkeypatch):
    policy, batch = build(OFQLConfig(**SHARED, network=SMALL, eta=0.3, widths=(16,))), batch_of()
    plain = build(OneStepConfig(**SHARED, network=SMALL))
    plain.network.load_state_dict(policy.network.state_dict())
    torch.manual_seed(5)
    imitation = plain.loss(batch)[0].item()
    jumps = iter([2 * torch.rand(6, 2) - 1 for _ in range(4)])
    taken = []
    monkeypatch.setattr(policy, "jump", lambda context: taken.append(next(jumps)) or taken[-1])
    torch.manual_seed(5)
    loss, told = policy.loss(batch)
    at_later, ours = taken
    wanted = batch["reward"] + batch["discount"] * policy.target({STATE: batch["later." + STATE]}, at_later).amin(0)
    td = (policy.q(batch, batch["action"][:, :2].flatten(1)) - wanted).square().mean().item()
    values = policy.q(batch, ours).amin(0).detach()
    gain = 0.3 * (values.mean() / values.abs().mean()).item()
    assert told["imitation"] == pytest.approx(imitation) and told["td"] == pytest.approx(td)
    assert loss.item() == pytest.approx(imitation + td - gain, rel=1e-5)


def test_the_policy_learns_from_the_critic_and_not_the_other_way():
    batch = batch_of()
    grads = {}
    for eta in (0.0, 0.5):
        policy = build(OFQLConfig(**SHARED, network=SMALL, eta=eta, widths=(16,)))
        torch.manual_seed(5)
        policy.loss(batch)[0].backward()
        grads[eta] = [
            torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None])
            for part in (policy.q, policy.network)
        ]
        assert all(p.grad is None for p in policy.target.parameters())
    assert torch.equal(grads[0.0][0], grads[0.5][0]) and not torch.allclose(grads[0.0][1], grads[0.5][1])


def test_a_jump_is_the_plan_of_one_evaluation():
    policy, calls = build(OFQLConfig(**SHARED, network=SMALL)).eval(), []
    policy.network.register_forward_hook(lambda *_: calls.append(1))
    context = policy.context(batch_of())
    assert policy.jump(context).shape == (6, 2) and len(calls) == 1
    yes = torch.ones(6, 1, dtype=torch.bool)
    past = Past(
        {STATE: batch_of()[STATE]}, (0,), yes, torch.zeros(6, 0, 1), (), yes[:, :0], torch.zeros(6, dtype=torch.int64)
    )
    lanes = torch.arange(6).numpy()
    plans = policy.plan(past, 5, LaneNoise(0, lanes, lanes))
    assert plans.future.shape == (6, 5, 4, 1) and len(calls) == 2


def test_of_two_modes_the_critic_lets_the_better_one_be_taken():
    """Data hold -0.6 and 0.6 alike, only 0.6 is rewarded: imitation keeps both, with the critic most plans are 0.6."""
    rng = torch.Generator().manual_seed(0)
    mode = torch.where(torch.rand(128, 1, 1, generator=rng) < 0.5, -0.6, 0.6)
    zeros, yes = torch.zeros(128, 1, 1), torch.ones(128, 1, dtype=torch.bool)
    batch = {STATE: zeros, "later." + STATE: zeros, "observation.valid": yes, "later.observation.valid": yes}
    batch |= {"action": mode, "action.valid": yes, "reward": (mode > 0).float().flatten(), "discount": torch.zeros(128)}
    taken = {}
    for eta in (0.0, 1.0):
        config = OFQLConfig(
            window=Window(observe=(0,), horizon=1), n_action_steps=1, network=SMALL, eta=eta, widths=(32,)
        )
        policy = build(config)
        optimizer = torch.optim.Adam(policy.parameters(), 5e-3)
        torch.manual_seed(1)
        for _ in range(100):
            optimizer.zero_grad()
            policy.loss(batch)[0].backward()
            optimizer.step()
            policy.stepped()
        with torch.no_grad():
            taken[eta] = (policy.jump(policy.context(batch)) > 0).float().mean().item()
    assert 0.2 < taken[0.0] < 0.8 and taken[1.0] > 0.85


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="leave window.recall out"):
        OFQLConfig(window=Window(observe=(0,), recall=(-1,), horizon=4), n_action_steps=2)
    for wrong in ({"eta": -1.0}, {"sampler": Sampler(steps=2)}):
        with pytest.raises(ValueError, match="eta >= 0 and one jump a plan"):
            OFQLConfig(**SHARED, **wrong)
    assert OFQLConfig(**SHARED, rewards=Rewards(gamma=0.5)).ahead == 2
