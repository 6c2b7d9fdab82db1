"""Steering: which of the candidates is executed, drawn by what, and what is kept of the scores."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from understudy.configs.spec import Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.steering import choice_draws, choose, within_kept
from understudy.policies.critics.combine import FilterThenRank
from understudy.policies.critics.controls import RandomCritic, UniformPlanner
from understudy.policies.critics.open import open_critic
from understudy.policies.foreign.planner import callable_planner
from understudy.policies.policy import Plans

KEY = "observation.state"
BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-9.0, 9.0),), rate=10.0, state=("t",), state_units=("1",)
)
REACH = Window(observe=(0,), horizon=4)


class Gaussian:
    """A planner whose plan is a number, drawn from a standard normal, at every step; its past is the number's sign."""

    embodiment, inputs = BODY, (KEY,)
    window = Window(observe=(0,), recall=(-1,), horizon=4)

    def plan(self, past, n, rng):
        drawn = rng.normal(n, 1, 1)
        return Plans(drawn.sign(), drawn.expand(-1, -1, 4, -1), past.now)


class Value:
    """Prefers large plans by their first `reads` actions."""

    inputs, window = (KEY,), Window(observe=(0,), horizon=1)

    def __init__(self, reads=2):
        self.reads = reads

    def score(self, past, plans):
        return plans.future[:, :, : self.reads].mean((2, 3))


class Negative(Value):
    """Prefers plans with a negative past."""

    reads = 0

    def __init__(self):
        pass

    def score(self, past, plans):
        return -plans.past[:, :, 0, 0]


def act(lanes=64, replans=3, planner=None, n_action_steps=2, **settings):
    """(replans, lanes) first executed action of each plan, and the agent."""
    agent = Agent(planner or Gaussian(), lanes=lanes, n_action_steps=n_action_steps, **settings)
    agent.reset(np.arange(lanes), np.ones(lanes, bool), {KEY: np.zeros((lanes, 1), np.float32)})
    taken = []
    for _ in range(replans):
        actions = agent.act()
        taken.append(actions[:, 0, 0])
        looked = np.zeros((lanes, len(agent.look), 1), np.float32)
        agent.observe({KEY: looked}, actions, np.ones((lanes, n_action_steps), bool))
    return np.array(taken), agent


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_candidate_is_the_base_bit_for_bit(temperature):
    base, agent = act()
    steered, _ = act(candidates=1, critic=Value(), temperature=temperature)
    assert np.array_equal(base, steered) and agent.told(0) == {}


def test_the_coldest_is_the_best_and_the_hottest_is_any():
    best, agent = act(candidates=10, critic=Value())
    cold, _ = act(candidates=10, critic=Value(), temperature=1e-6)
    assert np.array_equal(best, cold)
    assert best.mean() == pytest.approx(1.54, abs=0.15)  # the greatest of 10 standard normals
    means = [act(lanes=400, candidates=10, critic=Value(), temperature=t)[0].mean() for t in (0.2, 1.0, 5.0, 1e6)]
    assert means == sorted(means, reverse=True) and abs(means[-1]) < 0.15
    told = agent.told(3)
    np.testing.assert_allclose(told["value"], best[:, 3], rtol=1e-6)
    assert all(abs(mean) < 1.5 for mean in told["value_mean"]) and min(told["value_spread"]) > 0.2


@pytest.mark.parametrize("settings", [{"critic": Value(), "temperature": 1e9}, {"critic": RandomCritic()}])
def test_a_random_pick_is_the_base_in_distribution(settings):
    base, _ = act(lanes=2000, replans=1)
    picked, _ = act(lanes=2000, replans=1, candidates=7, **settings)
    assert ks_2samp(base[0], picked[0]).pvalue > 0.01
    assert 0.05 < np.mean(base[0] == picked[0]) < 0.25  # the first candidate is base's own; it is one of 7


def test_what_is_drawn_is_fresh_at_each_replanning_and_the_same_in_every_run():
    scores = torch.zeros(4, 50)
    starts = np.array([1, 2, 3, -1])
    first, again, later, other = (
        choose(scores, 1.0, choice_draws(seed, starts, np.full(4, replan), 50))
        for seed, replan in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert torch.equal(first, again)
    assert (first != later).any() and (first != other).any() and len(set(first.tolist())) > 1
    assert torch.equal(
        choice_draws(0, starts, np.zeros(4, int), 50)[:, :7], choice_draws(0, starts, np.zeros(4, int), 7)
    )


def test_the_softmax_has_its_shares_whatever_the_unit_of_the_scores():
    row, temperature = torch.tensor([0.0, 1.0, 3.0]), 0.7
    z = (row - row.mean()) / row.std(correction=0)
    wanted = torch.softmax(z / temperature, 0)
    draws = torch.from_numpy(np.random.default_rng(0).random((20_000, 3)))
    for scores in (row, 1000 * row - 7):
        picked = choose(scores.expand(20_000, 3), temperature, draws)
        np.testing.assert_allclose(torch.bincount(picked, minlength=3) / 20_000, wanted, atol=0.012)
    assert within_kept(torch.ones(2, 3)).abs().max() == 0


def test_past_consistency_first_and_value_second():
    critic = FilterThenRank(Negative(), 1, Value())  # equal ones stay: all plans that are negative
    taken, agent = act(candidates=12, critic=critic)
    free, _ = act(candidates=12, critic=Value())
    assert (taken < 0).mean() > 0.99 and (free > 0).mean() > 0.95
    assert all(value < 0 for value in agent.told(0)["value_mean"])  # of those that were kept
    hot, _ = act(candidates=12, critic=critic, temperature=1e6)
    assert (hot < 0).mean() > 0.99 and hot.mean() < taken.mean() - 0.3
    named = open_critic("recall:5>random", Gaussian())
    assert isinstance(named.parts[1], RandomCritic) and named.keep == 5


def noisy(rows):
    return torch.randn(len(rows[KEY]), 4, 1) + 0 * rows[KEY][:, :, :1]


@pytest.mark.parametrize("batched", [True, False])
def test_a_black_box_is_steered_like_any_policy(batched):
    calls = []

    def box(rows):
        calls.append(len(rows[KEY]))
        return noisy(rows)

    planner = callable_planner(box, embodiment=BODY, inputs=(KEY,), window=REACH, n_action_steps=2, batched=batched)
    settings = {"lanes": 3, "planner": planner}
    base, _ = act(replans=2, **settings)
    one, _ = act(replans=2, candidates=1, critic=Value(), **settings)
    assert np.array_equal(base, one)
    calls.clear()
    best, agent = act(replans=2, candidates=20, critic=Value(), **settings)
    assert calls == ([60, 60] if batched else [1] * 120)
    chosen = np.array([agent.told(lane)["value"] for lane in range(3)]).T
    assert (best.mean() > base.mean()) and (chosen > 0.5).all()


def test_a_score_that_is_no_number_stops_before_the_arm():
    class Broken(Value):
        def score(self, past, plans):
            return super().score(past, plans) * torch.nan

    with pytest.raises(FloatingPointError, match="the critic scored an action chunk NaN"):
        act(candidates=3, critic=Broken())
    with pytest.raises(ValueError, match="temperature must be at least 0"):
        act(candidates=3, critic=Value(), temperature=-1.0)


def test_random_scores_are_uniform_and_belong_to_the_plan():
    plans = Plans(torch.zeros(5, 400, 0, 1), torch.randn(5, 400, 8, 1), torch.zeros(5, dtype=torch.int64))
    scores = RandomCritic().score(None, plans)
    assert 0.45 < scores.mean() < 0.55 and scores.std() == pytest.approx(12**-0.5, abs=0.02)
    assert abs(np.corrcoef(scores.ravel(), plans.future.mean((2, 3)).ravel())[0, 1]) < 0.1
    order = torch.randperm(400)
    shuffled = Plans(plans.past[:, order], plans.future[:, order], plans.start)
    assert torch.equal(RandomCritic().score(None, shuffled), scores[:, order])


def test_plans_that_owe_nothing_to_a_policy_cover_the_limits():
    planner = UniformPlanner(Gaussian())
    taken, _ = act(lanes=400, planner=planner)
    assert taken.min() < -8.5 and taken.max() > 8.5 and abs(taken.mean()) < 0.6
    assert taken.std() == pytest.approx(18 / 12**0.5, rel=0.05)
    best, agent = act(lanes=50, planner=planner, candidates=100, critic=Value())
    assert best.min() > 7.5 and max(agent.told(0)["value"]) <= 9
    assert np.array_equal(act(lanes=4, planner=planner)[0], act(lanes=4, planner=planner, candidates=1)[0])
