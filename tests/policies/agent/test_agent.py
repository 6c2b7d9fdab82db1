"""The agent: what it remembers at which offset, when it replans, how it chooses."""

import numpy as np
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.policy import Plans

EMBODIMENT = Embodiment(
    action=("x",), action_units=("m",), limits=((-100.0, 100.0),), rate=10.0, state=("t",), state_units=("1",)
)
KEY = "observation.state"


class Recorder:
    """A planner that keeps each past it is shown; plan n of a lane is `start tick + n` at every step."""

    embodiment, inputs = EMBODIMENT, (KEY,)

    def __init__(self, window):
        self.window, self.pasts = window, []

    def plan(self, past, n, rng):
        self.pasts.append(past.at(self.window))
        future = past.now.float()[:, None, None, None] + torch.arange(n).float()[None, :, None, None]
        return Plans(torch.zeros(len(past.now), n, 0, 1), future.expand(-1, -1, self.window.horizon, -1), past.now)


class Last:
    """A critic that prefers the last candidate."""

    window, inputs = Window(observe=(0,), horizon=1), (KEY,)

    def __init__(self, reads):
        self.reads = reads

    def score(self, past, plans):
        return torch.arange(plans.future.shape[1]).float().expand(plans.future.shape[:2])


def play(agent, chunks, lanes=2, n_action_steps=3):
    """A world whose observation is the tick + 100 * lane, and whose executed action is minus the tick."""
    lane = np.arange(lanes)
    agent.reset(lane, np.ones(lanes, bool), {KEY: (100.0 * lane)[:, None].astype(np.float32)})
    for chunk in range(chunks):
        agent.act()
        ticks = chunk * n_action_steps + 1 + np.arange(n_action_steps)
        look = np.array(agent.look) + n_action_steps - 1
        obs = (100.0 * lane[:, None] + ticks[look][None])[..., None].astype(np.float32)
        sent = np.broadcast_to(-(ticks - 1.0)[None, :, None], (lanes, n_action_steps, 1)).astype(np.float32)
        agent.observe({KEY: obs}, sent, np.ones((lanes, n_action_steps), bool))
    agent.act()


@pytest.mark.parametrize("observe", [(0,), (-1, 0), (-4, -2, 0), tuple(range(-9, 1)), (-8, -1, 0)])
@pytest.mark.parametrize("n_action_steps", [1, 3, 5])
def test_history_holds_what_happened_at_each_offset(observe, n_action_steps):
    window = Window(observe=observe, recall=(-5, -2, -1), horizon=6)
    planner = Recorder(window)
    play(Agent(planner, lanes=2, n_action_steps=n_action_steps), chunks=6, n_action_steps=n_action_steps)
    for replan, past in enumerate(planner.pasts):
        now = replan * n_action_steps
        assert past.now.tolist() == [now, now]
        for lane in (0, 1):
            seen = [100.0 * lane + max(now + offset, 0) for offset in observe]
            assert past.obs[KEY][lane, :, 0].tolist() == seen
            assert past.obs_valid[lane].tolist() == [now + offset >= 0 for offset in observe]
            done = [-float(now + offset) if now + offset >= 0 else 0.0 for offset in window.recall]
            assert past.actions[lane, :, 0].tolist() == done
            assert past.action_valid[lane].tolist() == [now + offset >= 0 for offset in window.recall]


def test_only_frames_that_are_read_are_asked_for():
    assert Agent(Recorder(Window(observe=(-1, 0), horizon=8)), lanes=1, n_action_steps=8).look == (-1, 0)
    assert Agent(Recorder(Window(observe=(-16, -8, 0), horizon=8)), lanes=1, n_action_steps=8).look == (0,)
    assert Agent(Recorder(Window(observe=(-3, 0), horizon=8)), lanes=1, n_action_steps=2).look == (-1, 0)


def test_a_lane_begins_anew_alone():
    planner = Recorder(Window(observe=(-1, 0), recall=(-1,), horizon=4))
    agent = Agent(planner, lanes=2, n_action_steps=2)
    play(agent, chunks=2, n_action_steps=2)
    agent.reset(np.array([7, 9]), np.array([False, True]), {KEY: np.array([[5.0], [6.0]], np.float32)})
    agent.act()
    past = planner.pasts[-1]
    assert past.now.tolist() == [4, 0]
    assert past.obs[KEY][1, :, 0].tolist() == [6.0, 6.0] and past.obs_valid[1].tolist() == [False, True]
    assert past.obs[KEY][0, :, 0].tolist() == [3.0, 4.0]
    assert past.actions[1].item() == 0 and not past.action_valid[1].item()


def test_the_critic_chooses_and_the_limits_hold():
    planner = Recorder(Window(observe=(0,), horizon=4))
    agent = Agent(planner, lanes=1, n_action_steps=2, candidates=5, critic=Last(reads=2))
    agent.reset(np.zeros(1, int), np.ones(1, bool), {KEY: np.zeros((1, 1), np.float32)})
    assert agent.act().tolist() == [[[4.0], [4.0]]]
    agent = Agent(planner, lanes=1, n_action_steps=2, candidates=500, critic=Last(reads=0))
    agent.reset(np.zeros(1, int), np.ones(1, bool), {KEY: np.zeros((1, 1), np.float32)})
    assert agent.act().max() == 100.0


def test_settings_that_make_no_sense_are_refused():
    planner = Recorder(Window(observe=(0,), horizon=4))
    with pytest.raises(ValueError, match="within 1..4"):
        Agent(planner, lanes=1, n_action_steps=5)
    with pytest.raises(ValueError, match="critic chooses"):
        Agent(planner, lanes=1, n_action_steps=2, candidates=3)
    with pytest.raises(ValueError, match="scores 3 future actions, but 2 are executed"):
        Agent(planner, lanes=1, n_action_steps=2, candidates=3, critic=Last(reads=3))


@pytest.mark.parametrize("n_action_steps", [1, 2, 3])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_temporal_ensembling_averages_the_plans_of_this_episode_that_cover_a_step(n_action_steps, decay):
    planner, lanes = Recorder(Window(observe=(0,), horizon=5)), 2
    agent = Agent(planner, lanes=lanes, n_action_steps=n_action_steps, ensemble=decay)
    first = {KEY: np.zeros((lanes, 1), np.float32)}
    agent.reset(np.arange(lanes), np.ones(lanes, bool), first)
    begun = np.zeros(lanes, int)  # tick of the whole run at which the lane's episode began
    for replan in range(7):
        now = replan * n_action_steps
        if replan == 4:
            begun[1] = now
            agent.reset(np.arange(lanes), np.array([False, True]), first)
        actions = agent.act()
        for lane in range(lanes):
            tick = now - begun[lane]  # a plan says its own start tick at every step
            for step in range(n_action_steps):
                ages = [age for age in range(tick // n_action_steps + 1) if age * n_action_steps + step < 5]
                weights = np.exp(decay * np.array(ages))
                said = (weights * (tick - np.array(ages) * n_action_steps)).sum() / weights.sum()
                assert actions[lane, step, 0] == pytest.approx(said, abs=1e-5)
        looked = np.zeros((lanes, len(agent.look), 1), np.float32)
        agent.observe({KEY: looked}, actions, np.ones((lanes, n_action_steps), bool))


def test_temporal_ensembling_refuses_a_negative_decay():
    with pytest.raises(ValueError, match="at least 0"):
        Agent(Recorder(Window(observe=(0,), horizon=5)), lanes=1, n_action_steps=1, ensemble=-1.0)


def test_a_plan_that_is_not_finite_stops_before_the_arm():
    class Broken(Recorder):
        def plan(self, past, n, rng):
            plans = super().plan(past, n, rng)
            return Plans(plans.past, plans.future * float("nan"), plans.start)

    agent = Agent(Broken(Window(observe=(0,), horizon=4)), lanes=2, n_action_steps=2)
    agent.reset(np.array([41, 42]), np.ones(2, bool), {KEY: np.zeros((2, 1), np.float32)})
    with pytest.raises(FloatingPointError, match="start 41"):
        agent.act()


class Noisy:
    """A planner whose plans are its noise, about what it sees."""

    embodiment, inputs, window = EMBODIMENT, (KEY,), Window(observe=(0,), horizon=3)

    def plan(self, past, n, rng):
        return Plans(torch.zeros(len(past.now), n, 0, 1), past.obs[KEY][:, :1, None] + rng.normal(n, 3, 1), past.now)


def test_a_noiseless_policy_is_a_function_of_what_it_sees():
    chunks = {}
    for noiseless in (False, True):
        for seed in (0, 1):
            agent = Agent(Noisy(), lanes=2, n_action_steps=3, seed=seed, noiseless=noiseless)
            agent.reset(np.arange(2), np.ones(2, bool), {KEY: np.array([[5.0], [7.0]], np.float32)})
            chunks[noiseless, seed] = agent.act()
    assert not np.allclose(chunks[False, 0], chunks[False, 1])
    assert chunks[True, 0][:, :, 0].tolist() == chunks[True, 1][:, :, 0].tolist() == [[5.0] * 3, [7.0] * 3]
    with pytest.raises(ValueError, match="noiseless policy has one plan"):
        Agent(Noisy(), lanes=2, n_action_steps=3, candidates=2, critic=Last(0), noiseless=True)
