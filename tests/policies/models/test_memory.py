"""Long memory: past-token prediction and its doses, padding, given actions, regression, self-verification."""

import dataclasses

import numpy as np
import pytest
import torch

from understudy.configs.parse import parse
from understudy.configs.settings.refusals import UsageError
from understudy.configs.spec import Embodiment, Window
from understudy.configs.world import read_world
from understudy.policies.agent.agent import Agent
from understudy.policies.critics.combine import FilterThenRank, Weighted, within
from understudy.policies.critics.open import open_critic
from understudy.policies.critics.recall import RecallCritic
from understudy.policies.field import from_clean
from understudy.policies.learning.checkpoint import blank_scales
from understudy.policies.learning.train import Train
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.transformer import TransformerConfig
from understudy.policies.networks.unet import UNetConfig
from understudy.policies.policy import LaneNoise, Past, Plans, Scales

STATE = "observation.state"
BODY = Embodiment(
    action=("x", "y"), action_units=("m", "m"), limits=((0.0, 4.0), (-2.0, 2.0)), rate=10.0,
    state=("x", "y"), state_units=("m", "m"),
)  # fmt: skip
SCALES = Scales(action=((0.0, -2.0), (4.0, 2.0)), states={STATE: ((1.0, 0.0), (2.0, 0.5))})
WINDOW = Window(observe=(-8, -4, 0), recall=(-8, -6, -4, -2), horizon=4)
RECALLED = 4
NETWORKS = {
    "mlp": MLPConfig(width=32, depth=2, condition_width=16),
    "unet": UNetConfig(channels=(16, 32), groups=4, time_width=16),
    "transformer": TransformerConfig(width=16, depth=2, heads=2),
}


def build(network="transformer", kind=DiffusionConfig, window=WINDOW, **settings):
    torch.manual_seed(0)
    policy = kind(window=window, n_action_steps=2, network=NETWORKS[network], **settings).build(BODY, SCALES)
    for parameter in policy.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy.eval()


def batch(count=5):
    """Windows at the start, in the middle and at the end of episodes."""
    generator = torch.Generator().manual_seed(3)
    valid = torch.ones(count, 8, dtype=torch.bool)
    valid[0, :4], valid[1, :2], valid[2, 6:] = False, False, False
    action = torch.rand(count, 8, 2, generator=generator) * 4 - torch.tensor([0.0, 2.0])
    action[:, :RECALLED][~valid[:, :RECALLED]] = 0
    seen = torch.ones(count, 3, dtype=torch.bool)
    seen[0, :2], seen[1, :1] = False, False
    return {
        STATE: torch.randn(count, 3, 2, generator=generator),
        "observation.valid": seen,
        "action": action,
        "action.valid": valid,
    }


def past(lanes=3, window=WINDOW, full=True):
    generator = torch.Generator().manual_seed(lanes)
    return Past(
        obs={STATE: torch.randn(lanes, len(window.observe), 2, generator=generator)},
        obs_times=window.observe,
        obs_valid=torch.ones(lanes, len(window.observe), dtype=torch.bool),
        actions=torch.rand(lanes, len(window.recall), 2, generator=generator),
        action_times=window.recall,
        action_valid=torch.full((lanes, len(window.recall)), full),
        now=torch.arange(lanes) + 20,
    )


def noise(lanes=3):
    return LaneNoise(0, np.arange(lanes), np.zeros(lanes, int))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("past_loss_window", [None, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("mask_padding", [True, False])
def test_the_loss_is_the_sliced_one_for_every_dose(network, past_loss_window, mask_padding):
    policy, windows = build(network, past_loss_window=past_loss_window, mask_padding=mask_padding), batch()
    torch.manual_seed(7)
    loss, _ = policy.loss(windows)
    torch.manual_seed(7)
    clean = (windows["action"] - torch.tensor([2.0, 0.0])) / 2
    s = policy.draw_levels(5, clean)
    wide = s[:, None, None]
    y = clean + wide * torch.randn_like(clean)
    x = y / (1 + wide**2).sqrt()
    x[:, :RECALLED][~windows["action.valid"][:, :RECALLED]] = 0
    out = policy.evaluate(x, s, policy.context(windows))
    first = 0 if past_loss_window is None else RECALLED - past_loss_window
    error = (out - from_clean(policy.prediction_type, clean, y, wide)).square()
    parts = []
    for row in range(5):
        for token in range(first, 8):
            inside = bool(windows["action.valid"][row, token])
            if inside or (token >= RECALLED and not mask_padding):
                parts.append(error[row, token])
    assert loss.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [DiffusionConfig, RegressionConfig])
@pytest.mark.parametrize("given", [True, False])
def test_what_was_before_the_episode_matters_to_nobody(network, kind, given):
    policy, windows = build(network, kind, given=given), batch()
    other = dict(windows, action=windows["action"].clone())
    other["action"][:, :RECALLED][~windows["action.valid"][:, :RECALLED]] = 3.0
    losses = []
    for each in (windows, other):
        torch.manual_seed(1)
        losses.append(policy.loss(each)[0].item())
    assert losses[0] == losses[1]
    begun = past(full=False)
    first = policy.plan(begun, 2, noise())
    second = policy.plan(dataclasses.replace(begun, actions=begun.actions + 1), 2, noise())
    assert torch.isfinite(first.past).all() and torch.equal(first.future, second.future)


def test_frames_from_before_the_episode_are_not_looked_at_by_the_transformer():
    policy = build()
    begun = dataclasses.replace(past(full=False), obs_valid=torch.tensor([[False, False, True]] * 3))
    other = dataclasses.replace(begun, obs={STATE: begun.obs[STATE] + torch.tensor([[[9.0], [9.0], [0.0]]])})
    assert torch.equal(policy.plan(begun, 2, noise()).future, policy.plan(other, 2, noise()).future)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [DiffusionConfig, RegressionConfig])
def test_given_actions_are_inputs_in_the_order_of_time(network, kind):
    policy = build(network, kind, given=True)
    seen = past()
    plans = policy.plan(seen, 2, noise())
    assert torch.allclose(plans.past, seen.actions[:, None].expand(-1, 2, -1, -1), atol=1e-6)
    other = dataclasses.replace(seen, actions=seen.actions.flip(1))
    assert not torch.allclose(policy.plan(other, 2, noise()).future, plans.future, atol=1e-4)
    fed = build(network, kind, given=False).plan(other, 2, noise()).future
    assert torch.equal(fed, build(network, kind, given=False).plan(seen, 2, noise()).future)


def test_regression_is_a_mean_squared_error_and_all_its_plans_are_one():
    policy, windows = build(kind=RegressionConfig, past_loss_window=2), batch()
    plans = policy.plan(past(), 3, noise())
    assert plans.future.shape == (3, 3, 4, 2) and plans.past.shape == (3, 3, 4, 2)
    assert torch.equal(plans.future[:, 0], plans.future[:, 2])
    clean = (windows["action"] - torch.tensor([2.0, 0.0])) / 2
    out = policy.answer(policy.context(windows), *policy.held(windows, clean))
    error = (out - clean)[:, 2:][windows["action.valid"][:, 2:]].square().mean()
    assert policy.loss(windows)[0].item() == pytest.approx(error.item(), rel=1e-5)


def test_arms_have_their_names():
    short, clean = Window(observe=(-1, 0), horizon=4), Window(observe=(-8, 0), horizon=4)
    assert build(window=short).arm == "no history" and build(window=clean).arm == "future only"
    assert build(past_loss_window=0).arm == "noisy past without a target" and build().arm == "past-token prediction"
    assert build(past_loss_window=2).arm == "past-token prediction, last 2 of 4"
    assert build(given=True).arm == "past actions as inputs"
    assert build("mlp").arm == build("unet").arm == "past-token prediction, unmasked"


def test_settings_of_memory_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="past_loss_window must be within 0..4"):
        build(past_loss_window=5)
    with pytest.raises(ValueError, match="leave past_loss_window out"):
        build(past_loss_window=2, given=True)
    with pytest.raises(ValueError, match="window.recall is empty"):
        build(window=Window(observe=(0,), horizon=4), given=True)


def planted(lanes=2, n=5):
    """A past, and plans of which candidate 3 did in lane 0 what was executed, candidate 1 in lane 1."""
    seen = past(lanes)
    done = torch.rand(lanes, n, 4, 2, generator=torch.Generator().manual_seed(0))
    done[0, 3], done[1, 1] = seen.actions[0], seen.actions[1]
    return seen, Plans(done, torch.zeros(lanes, n, 4, 2), seen.now)


def test_recall_picks_the_plan_whose_past_was_executed():
    seen, plans = planted()
    critic = RecallCritic(WINDOW.recall, torch.tensor([2.0, 2.0]))
    scores = critic.score(seen, plans)
    assert scores.argmax(1).tolist() == [3, 1] and scores.max() == 0
    by_hand = -(((plans.past - seen.actions[:, None]) / 2) ** 2).mean((2, 3))
    assert torch.allclose(scores, by_hand, atol=1e-6)
    with pytest.raises(ValueError, match="recall 3 actions, the critic compares 4"):
        critic.score(seen, Plans(plans.past[:, :, 1:], plans.future, plans.start))


def test_recall_weighs_dimensions_by_the_range_of_the_action():
    seen = past(1)
    done = seen.actions[:, None].repeat(1, 2, 1, 1)
    done[0, 0, :, 0] += 1.0  # a tenth of its half range
    done[0, 1, :, 1] += 0.5  # all of its half range
    critic = RecallCritic(WINDOW.recall, torch.tensor([10.0, 0.5]))
    assert critic.score(seen, Plans(done, done, seen.now)).argmax().item() == 0


def test_recall_abstains_until_the_history_is_full_unless_told_otherwise():
    seen, plans = planted()
    valid = seen.action_valid.clone()
    valid[0, 0] = False
    seen = dataclasses.replace(seen, action_valid=valid)
    scores = RecallCritic(WINDOW.recall, torch.ones(2)).score(seen, plans)
    assert scores[0].tolist() == [0.0] * 5 and scores.argmax(1).tolist() == [0, 1]
    masked = RecallCritic(WINDOW.recall, torch.ones(2), whole=False).score(seen, plans)
    assert masked.argmax(1).tolist() == [3, 1]
    by_hand = -(plans.past[0, :, 1:] - seen.actions[0, 1:]).square().mean((1, 2))
    assert torch.allclose(masked[0], by_hand, atol=1e-6)


def play(agent, replans=6):
    """Actions of two lanes that see their own ticks."""
    agent.reset(np.array([5, 6]), np.ones(2, bool), {STATE: np.zeros((2, 2), np.float32)})
    acted = []
    for replan in range(replans):
        actions = agent.act()
        acted.append(actions)
        seen = np.full((2, len(agent.look), 2), 0.1 * replan, np.float32)
        agent.observe({STATE: seen}, actions, np.ones((2, 2), bool))
    return np.stack(acted)


def test_one_candidate_is_plain_sampling_bit_for_bit_and_so_is_the_start_with_many():
    policy = build()
    plain = play(Agent(policy, lanes=2, n_action_steps=2))
    critic = open_critic("recall", policy)
    assert np.array_equal(play(Agent(policy, lanes=2, n_action_steps=2, candidates=1, critic=critic)), plain)
    many = play(Agent(policy, lanes=2, n_action_steps=2, candidates=50, critic=critic))
    assert np.allclose(many[:4], plain[:4], atol=1e-5), "before 8 actions were executed, the first candidate acts"
    assert not np.allclose(many[4:], plain[4:], atol=1e-3)


def test_the_error_of_the_kept_past_falls_with_the_number_of_candidates():
    policy, seen = build(), past(16)
    critic = open_critic("recall", policy)
    errors = []
    for n in (1, 3, 10, 50):
        plans = policy.plan(seen, n, noise(16))
        kept = plans.pick(critic.score(seen, plans).argmax(1))
        errors.append(critic.distance(seen, kept).mean().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


class Fixed:
    """A critic with scores that are given."""

    window, inputs, reads = Window(observe=(0,), horizon=1), (), 0

    def __init__(self, *rows, reads=0):
        self.rows, self.reads = torch.tensor(rows), reads

    def score(self, past, plans):
        return self.rows


def test_critics_combine():
    sieve, rank = Fixed([4.0, 3.0, 2.0, 1.0]), Fixed([0.0, 1.0, 2.0, 3.0])
    assert FilterThenRank(sieve, 2, rank).score(None, None).argmax(1).item() == 1
    assert FilterThenRank(sieve, 9, rank).score(None, None).argmax(1).item() == 3
    assert FilterThenRank(Fixed([0.0] * 4), 1, rank).score(None, None).argmax(1).item() == 3, "an abstaining sieve"
    scores = Weighted((sieve, rank, Fixed([1.0] * 4)), (1.0, 3.0, 9.0)).score(None, None)
    assert torch.allclose(scores, 2 * within(rank.rows), atol=1e-6)
    assert within(rank.rows).std(correction=0).item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="different numbers of future actions"):
        FilterThenRank(Fixed([0.0], reads=2), 1, Fixed([0.0], reads=3))
    with pytest.raises(ValueError, match="at least 1"):
        FilterThenRank(sieve, 0, rank)


def test_a_critic_is_named_on_the_command_line():
    policy = build()
    assert open_critic("recall", policy).whole and not open_critic("recall_partly", policy).whole
    sieve = open_critic("recall:3>0.5*recall+recall", policy)
    assert sieve.keep == 3 and sieve.parts[1].weights == (0.5, 1.0)
    assert sieve.window.recall == WINDOW.recall
    for text, error, message in (
        ("recal", LookupError, "Did you mean 'recall'.*folder of a trained critic"),
        ("recall>recall", ValueError, "how many plans are kept"),
        ("a lot*recall", ValueError, "is no weight"),
    ):
        with pytest.raises(error, match=message):
            open_critic(text, policy)
    with pytest.raises(ValueError, match="predicts no past actions"):
        open_critic("recall", build(window=Window(observe=(0,), horizon=4)))
    with pytest.raises(ValueError, match="is given its past actions"):
        open_critic("recall", build(given=True))


def test_strided_windows_are_written_short():
    words = ["--policy.type", "diffusion", "--policy.window.horizon", "8"]
    strided = ["--policy.window.observe", "{count: 4, stride: 3}", "--policy.window.recall", "{count: 2, stride: 3}"]
    window = parse(Train, None, words + strided).policy.window
    assert window == Window(observe=(-9, -6, -3, 0), recall=(-6, -3), horizon=8)
    assert parse(Train, None, [*words, "--policy.window.recall", "{count: 0}"]).policy.window.recall == ()
    for wrong in ("{count: 0}", "{count: 2, stride: 0}", "{frames: 2}", "{count: two}"):
        with pytest.raises((UsageError, ValueError), match="window.observe"):
            parse(Train, None, [*words, "--policy.window.observe", wrong])


@pytest.mark.parametrize("world", ["push-and-return", "count-scoops"])
def test_the_memory_experiments_differ_in_memory_alone_and_are_small(root, world):
    arms, settings = {}, []
    for arm in ("none", "clean", "masked", "ptp"):
        words = ["--task_spec", str(root / "configs" / "task_specs" / f"{world}.yaml")]
        config = parse(Train, str(root / "configs" / "train" / f"memory_{arm}.yaml"), words)
        body = read_world(world).embodiment()
        config.task_spec.check(body)
        policy = config.policy.build(body, blank_scales(body))
        assert sum(parameter.numel() for parameter in policy.parameters()) <= 500_000
        arms[arm] = policy.arm
        same = dataclasses.replace(config.policy, window=Window(horizon=16), past_loss_window=None)
        settings.append(dataclasses.replace(config, policy=same, out=None))
    assert arms == {
        "none": "no history",
        "clean": "future only",
        "masked": "noisy past without a target",
        "ptp": "past-token prediction",
    }
    assert all(each == settings[0] for each in settings)
