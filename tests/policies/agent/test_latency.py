"""Plans that come late: which action is executed at which tick, what the next plan is told, and what is refused;
also where a thread thinks while the arm moves."""

import threading

import numpy as np
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.ahead import Ahead
from understudy.policies.agent.latency import Delayed, Mode, guidance, soft_prefix
from understudy.policies.field import Solver
from understudy.policies.models.generative import Sampler, walk
from understudy.policies.policy import Field, Plans, Policy, Scale

BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-100.0, 100.0),), rate=10.0, state=("t",), state_units=("1",)
)
KEY = "observation.state"
H, E = 12, 6
NOW = Window(observe=(0,), horizon=H)


class Ticks:
    """Plans 1000 * (tick it was asked at) + offset, so that an action says which plan and step it is of."""

    embodiment, inputs = BODY, (KEY,)

    def __init__(self, window=NOW):
        self.window, self.pasts = window, []

    def plan(self, past, n, rng):
        self.pasts.append(past.at(self.window))
        steps = torch.arange(self.window.horizon)[None, None, :, None] / 100
        future = past.now.float()[:, None, None, None] + steps.expand(len(past.now), n, -1, -1)
        return Plans(torch.zeros(len(past.now), n, len(self.window.recall), 1), future, past.now)


class Denoises(Ticks, Policy):
    """The same with a denoiser: plans of a Gaussian process, whose tokens are alike where they are near in time."""

    n_action_steps, action_scale = E, Scale.between(np.array([-100.0], np.float32), np.array([100.0], np.float32))
    sampler = Sampler(steps=16, solver=Solver.ddim)

    def field(self, past, n):
        self.pasts.append(past.at(self.window))
        times = torch.tensor(self.window.actions).float()
        cov = 0.04 * torch.exp(-(((times[:, None] - times[None]) / 4) ** 2))

        def denoise(y, s):
            return torch.linalg.solve(cov + s * s * torch.eye(len(times)), cov).T @ y

        return Field(denoise, (len(past.now), n, len(times), 1), self.window.actions, 0.01, 64.0)

    def plan(self, past, n, rng):
        return walk(self, past, n, rng)


def act(agent, chunks=3, lanes=1, lane=0):
    """(chunks, steps, 1) of a lane, or of all; the world executes what is asked, and shows the tick."""
    agent.reset(np.arange(lanes), np.ones(lanes, bool), {KEY: np.zeros((lanes, 1), np.float32)})
    made, tick = [], 0
    for _ in range(chunks):
        actions = agent.act()
        made.append(actions[lane])
        seen = tick + agent.n_action_steps + np.array(agent.look)
        obs = np.broadcast_to(seen[None, :, None], (lanes, len(seen), 1)).astype(np.float32)
        agent.observe({KEY: obs}, actions, np.ones(actions.shape[:2], bool))
        tick += agent.n_action_steps
    return np.array(made)


def agent_of(planner, mode, delay, n_action_steps=E, lanes=1):
    return Agent(planner, lanes=lanes, n_action_steps=n_action_steps, latency=Delayed.read(mode, delay))


def test_without_delay_nothing_changes():
    plain = act(Agent(Ticks(), lanes=1, n_action_steps=E))
    for mode in Mode:
        assert np.array_equal(act(agent_of(Ticks(), mode.value, 0)), plain)


def test_the_arm_waits_where_it_is():
    first, second, _ = act(agent_of(Ticks(), "wait", 2))
    assert len(first) == len(second) == E + 2
    assert second[:2, 0].tolist() == [first[-1, 0]] * 2  # as it was executed last
    assert np.allclose(second[2:, 0], 8 + np.arange(E) / 100)  # the plan of tick 8, from its first action on


def test_committed_actions_come_first_and_the_new_plan_from_its_own_step_on():
    first, second, third = act(agent_of(Ticks(), "switch", 2))[..., 0]
    assert np.allclose(first, np.arange(E) / 100)
    assert np.allclose(second, [0.06, 0.07, *(6 + np.arange(2, E) / 100)])
    assert np.allclose(third, [6.06, 6.07, *(12 + np.arange(2, E) / 100)])


def test_blending_goes_over_from_the_old_plan_to_the_new_one():
    _, second, _ = act(agent_of(Ticks(), "blend", 2))[..., 0]
    share = np.arange(1, 5) / 5  # of the new plan, at the four steps beyond the committed ones that the old reaches
    expected = (1 - share) * (np.arange(8, 12) / 100) + share * (6 + np.arange(2, 6) / 100)
    assert np.allclose(second, [0.06, 0.07, *expected], atol=1e-6)


def seam(mode, planner=Denoises):
    """Mean size of the jump where the new plan takes over, and the chunks of all lanes."""
    made = act(agent_of(planner(), mode, 4, lanes=32), lanes=32, chunks=2, lane=slice(None))[..., 0]
    return np.abs(made[1, :, 4] - made[1, :, 3]).mean(), made


def test_known_prefixes_and_guidance_close_the_seam():
    (apart, switched), (known, given), (guided, drawn) = (seam(mode) for mode in ("switch", "prefix", "rtc"))
    assert known < 0.7 * apart and guided < 0.7 * apart
    for chunks in (given, drawn):  # the first plan is the plain one, the committed actions its own
        assert np.array_equal(chunks[0], switched[0]) and np.array_equal(chunks[1, :, :4], switched[1, :, :4])


def test_weights_and_guidance_are_those_of_the_paper():
    assert soft_prefix(2, 5, 7) == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0])
    for tau in (0.1, 0.5, 0.9):  # (1 - tau) min(beta, (1 - tau) / (tau r^2)), r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2)
        r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        assert guidance((1 - tau) / tau) == pytest.approx((1 - tau) * min(10, (1 - tau) / (tau * r2)))


def test_a_policy_that_sees_late_is_asked_from_ahead_with_committed_actions_as_past_ones():
    planner = Denoises(Window(observe=(-4, -3), recall=(-3, -2, -1), horizon=H))
    made = act(agent_of(planner, "past", 3))
    begins, later = planner.pasts[0], planner.pasts[1]
    assert begins.now.tolist() == [0] and not begins.action_valid.any()
    assert later.now.tolist() == [E + 3]  # three steps from now
    assert later.obs[KEY][0, :, 0].tolist() == [E - 1, E]  # of now, though the policy calls it three steps ago
    assert later.actions[0, :, 0].tolist() == pytest.approx(made[1, :3, 0].tolist())  # what is executed until then
    assert later.action_valid.all()


def test_executed_actions_are_known_tokens():
    planner = Denoises(Window(observe=(0,), recall=(-2, -1), horizon=H))
    plain, told = (act(agent_of(planner, mode, 2))[..., 0] for mode in ("prefix", "past"))
    assert np.array_equal(plain[0], told[0]) and not np.array_equal(plain[1], told[1])


def test_lanes_that_begin_anew_have_nothing_committed():
    alone, both = agent_of(Ticks(), "switch", 2), agent_of(Ticks(), "switch", 2, lanes=2)
    act(both, lanes=2, chunks=1)
    both.reset(np.array([0, 5]), np.array([False, True]), {KEY: np.zeros((2, 1), np.float32)})
    assert np.array_equal(both.act()[1], act(alone, chunks=1)[0])


@pytest.mark.parametrize(
    ("mode", "delay", "executed", "words"),
    [
        ("blend", 7, 6, "longer than the 6 actions"),
        ("switch", 4, 9, "need plans of 13"),
        ("rtc", 2, 6, "offers none"),
        ("past", 2, 6, "offers none"),
        ("swim", 2, 6, "blend, past, prefix"),
        ("wait", -1, 6, "before it begins"),
    ],
)
def test_what_does_not_fit_is_refused(mode, delay, executed, words):
    with pytest.raises((ValueError, LookupError), match=words):
        agent_of(Ticks(), mode, delay, executed)


def test_past_needs_past_tokens():
    with pytest.raises(ValueError, match="window.recall"):
        agent_of(Denoises(), "past", 2)


class Slow(Ticks):
    """Waits for a word before it plans, from the `after`-th plan on."""

    def __init__(self, after=1):
        super().__init__()
        self.after, self.go = after, threading.Event()

    def plan(self, past, n, rng):
        if len(self.pasts) >= self.after:
            assert self.go.wait(10)
        return super().plan(past, n, rng)


def step(ahead, tick, sent=None):
    action = ahead.act()
    obs = {KEY: np.full((1, 1, 1), tick + 1, np.float32)}
    ahead.observe(obs, action if sent is None else np.full_like(action, sent), np.ones((1, 1), bool))
    return float(action[0, 0, 0])


def begun(planner, mode, delay, **how):
    ahead = Ahead(agent_of(planner, mode, delay), **how)
    ahead.reset(np.arange(1), np.ones(1, bool), {KEY: np.zeros((1, 1), np.float32)})
    return ahead


@pytest.mark.parametrize(("mode", "delay"), [("wait", 2), ("switch", 3), ("blend", 3)])
def test_in_time_the_actions_are_those_of_the_agent(mode, delay):
    expected = act(agent_of(Ticks(), mode, delay), chunks=3).ravel()
    ahead, made = begun(Ticks(), mode, delay), []
    for tick in range(len(expected)):
        if ahead._future is not None:
            ahead._future.exception()  # the thread had its time
        made.append(step(ahead, tick))
    assert np.allclose(made, expected)
    assert not any(ahead.log.late) and len(ahead.log.seconds) >= 3
    ahead.close()


def test_a_late_plan_takes_over_at_its_own_step():
    planner = Slow()
    ahead = begun(planner, "switch", 2)
    made = [step(ahead, tick) for tick in range(E + 4)]
    assert np.allclose(made[E:], [0.06, 0.07, 0.08, 0.09])  # committed, then what the plan before still says
    assert ahead.log.late[E:] == [False, False, True, True]
    planner.go.set()
    ahead._future.exception()
    assert step(ahead, E + 4) == pytest.approx(6.04)
    ahead.close()


def test_a_plan_later_than_its_chunk_is_thrown_away_and_the_arm_stands():
    planner = Slow()
    ahead = begun(planner, "wait", 2)
    made = [step(ahead, tick) for tick in range(40)]
    assert made[-20:] == [made[-1]] * 20
    planner.go.set()
    tick = 40
    while not ahead.log.thrown:
        ahead._future.exception()
        step(ahead, tick)
        tick += 1
    ahead._future.exception()
    assert step(ahead, tick) >= 2 * E  # planned anew, from now
    ahead.close()


@pytest.mark.parametrize("mode", [mode.value for mode in Mode])
def test_what_was_executed_is_the_history(mode):
    planner = Denoises(Window(observe=(0,), recall=(-2, -1), horizon=H))
    ahead, tick = begun(planner, mode, 3, patience=None), 0
    for _ in range(3 * ahead.agent.n_action_steps):
        step(ahead, tick, sent=100 + tick)  # never what was planned
        tick += 1
    ahead.close()
    asked = {int(past.now[0]): past.actions[0, :, 0].tolist() for past in planner.pasts}
    whole = ahead.agent.n_action_steps
    assert set(asked) == {0, whole, 2 * whole, 3 * whole}
    assert all(recalled == [100 + now - 2, 100 + now - 1] for now, recalled in asked.items() if now)


def test_a_pause_stands_and_is_no_history():
    stop = []
    ahead = begun(Ticks(), "switch", 2, pause=lambda: bool(stop))
    first = step(ahead, 0)
    stop.append(1)
    assert [step(ahead, tick) for tick in range(1, 9)] == [first] * 8
    stop.clear()
    assert step(ahead, 9) == pytest.approx(0.01)
    ahead.close()
