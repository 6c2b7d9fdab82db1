"""The run-time alarm: what the signals measure, how the score sums them, and that the false-alarm rate is kept."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from understudy.configs.spec import STATE, Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.alarm import FLOOR, SIGNALS, Alarm, AlarmError, conformal, load_alarm, normal_course
from understudy.policies.agent.monitor import Monitor, drift, recall_error, spread
from understudy.policies.critics.recall import RecallConfig
from understudy.policies.learning.checkpoint import blank_scales
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Plans

BODY = Embodiment(
    action=("x", "y"), action_units=("m", "m"), limits=((-1.0, 1.0), (-5.0, 5.0)), rate=10.0, state=("s",),
    state_units=("1",),
)  # fmt: skip
HALF = torch.tensor([1.0, 5.0])
ALARM = Alarm(
    policy="abc", agent={"n_action_steps": 2, "candidates": 1, "block": 8}, candidates=4, world={"type": "point"},
    signals=("spread", "drift"), centre={"spread": [0.0, 1.0], "drift": [math.nan, 0.0]},
    scale={"spread": [1.0, 2.0], "drift": [1.0, 0.5]}, slack=0.5, threshold=3.0, clock=40, alpha=0.05, n=40, fit=20,
)  # fmt: skip


def small_policy(recall=(-2, -1)):
    torch.manual_seed(0)
    config = DiffusionConfig(
        window=Window(observe=(-1, 0), recall=recall, horizon=5), inputs=(STATE,),
        network=MLPConfig(width=16, depth=1, condition_width=8), n_action_steps=2,
    )  # fmt: skip
    return config.build(BODY, blank_scales(BODY)).eval()


def play(agent, chunks=6, lanes=3, starts=(5, 6, 7)):
    """Actions of an agent in a world whose observation answers its actions."""
    state, everyone, sent = np.zeros((lanes, 1), np.float32), np.ones(lanes, bool), []
    agent.reset(np.array(starts), everyone, {STATE: state})
    for _ in range(chunks):
        sent.append(agent.act())
        seen = state[:, None] + np.cumsum(sent[-1][..., :1], 1)
        state = seen[:, -1]
        look = np.array(agent.look) + agent.n_action_steps - 1
        agent.observe({STATE: seen[:, look]}, sent[-1], np.ones((lanes, agent.n_action_steps), bool))
    return np.concatenate(sent, 1)


def plans_of(future, past=None, start=0):
    future = torch.as_tensor(future, dtype=torch.float32)
    past = torch.zeros(*future.shape[:2], 0, 2) if past is None else past
    return Plans(past, future, torch.full((len(future),), start))


def test_spread_is_the_mean_over_pairs_in_the_scaled_space():
    future = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 5, 2)))
    scaled = (future / HALF)[:, :, :3]
    pairs = [(scaled[:, i] - scaled[:, j]).square().mean((1, 2)) for i in range(4) for j in range(4) if i != j]
    assert torch.allclose(spread(plans_of(future), 3, HALF).double(), torch.stack(pairs).mean(0), atol=1e-5)
    assert spread(plans_of(future[:, :1].expand(-1, 4, -1, -1)), 3, HALF).abs().max() < 1e-12


def test_drift_is_the_energy_distance_on_the_common_steps():
    rng = np.random.default_rng(1)
    old, new = (torch.from_numpy(rng.normal(size=(2, 4, 5, 2))).float() for _ in range(2))
    a, b = (old / HALF)[:, :, 2:].flatten(2), (new / HALF)[:, :, :3].flatten(2)

    def apart(x, y):
        return torch.stack([(x[:, i] - y[:, j]).square().mean(1).sqrt() for i in range(4) for j in range(4)]).mean(0)

    found = drift(plans_of(old, start=4), plans_of(new, start=6), 2, HALF)
    assert torch.allclose(found, 2 * apart(a, b) - apart(a, a) - apart(b, b), atol=1e-5)
    kept = torch.cat([old[:, :, 2:], new[:, :, :2]], 2)
    assert drift(plans_of(old), plans_of(kept, start=2), 2, HALF).abs().max() < 1e-5
    assert drift(plans_of(old), plans_of(new, start=0), 2, HALF).isnan().all(), "the episode has begun anew"
    assert drift(plans_of(old), plans_of(new, start=5), 5, HALF).isnan().all(), "nothing in common"


def test_recall_error_is_the_mean_over_plans_and_unknown_at_the_start():
    policy, pasts = small_policy(), []
    draw = policy.plan
    policy.plan = lambda past, n, rng: pasts.append(past) or draw(past, n, rng)
    play(Agent(policy, lanes=3, n_action_steps=2), chunks=2)
    critic = RecallConfig(whole=False).beside(policy)
    plans = Plans(torch.randn(3, 4, 2, 2), torch.zeros(3, 4, 5, 2), pasts[1].now)
    off = (plans.past - pasts[1].actions[:, None]) / critic.half
    assert torch.allclose(recall_error(pasts[1], plans, critic), off.square().mean((1, 2, 3)))
    assert recall_error(pasts[0], plans, critic).isnan().all()


@pytest.mark.parametrize("options", [{}, {"candidates": 3, "critic": True}, {"candidates": 4, "critic": True}])
def test_watching_changes_no_action(options):
    policy = small_policy()
    options = options | {"critic": RecallConfig().beside(policy)} if options else {}
    plain = play(Agent(policy, lanes=3, n_action_steps=2, **options))
    monitor = Monitor(policy, lanes=3, n_action_steps=2, candidates=4)
    assert np.array_equal(play(Agent(policy, lanes=3, n_action_steps=2, monitor=monitor, **options)), plain)
    row = monitor.told(1)
    assert set(row) == {f"signal_{name}" for name in SIGNALS} and all(len(values) == 6 for values in row.values())
    assert row["signal_recall"][0] is None and row["signal_drift"][0] is None and min(row["signal_spread"]) > 0


def test_an_episode_is_watched_alone():
    policy = small_policy()

    def rows(starts):
        monitor = Monitor(policy, lanes=3, n_action_steps=2, candidates=4, alarm=ALARM)
        agent = Agent(policy, lanes=3, n_action_steps=2, monitor=monitor)
        play(agent, starts=(1, 2, 3))
        play(agent, starts=starts)
        return [monitor.told(lane) for lane in range(3)]

    first, second = rows((5, 6, 7)), rows((5, 8, 9))
    assert first[0] == second[0] and first[1] != second[1], "neither the episode before nor the neighbours matter"
    signals = np.array([[math.nan if v is None else v for v in first[0][f"signal_{name}"]] for name in SIGNALS]).T
    assert np.allclose(ALARM.scores(signals), first[0]["score"])
    over = np.flatnonzero(np.array(first[0]["score"]) > ALARM.threshold)
    assert first[0]["alarm"] == (2 * over[0] if len(over) else -1)


def test_the_alarm_stays_on_once_it_rang():
    policy = small_policy(recall=())
    loud = dataclasses.replace(ALARM, signals=("spread",), centre={"spread": [-9.0]}, scale={"spread": [0.1]}, slack=0)
    monitor = Monitor(policy, lanes=2, n_action_steps=2, candidates=4, alarm=loud)
    past = type("Past", (), {"now": torch.tensor([0, 4])})()
    wide, narrow = (plans_of(width * torch.randn(2, 4, 5, 2)) for width in (1.0, 0.0))
    assert monitor.update_alarm(past, narrow).tolist() == [False, False]
    assert monitor.update_alarm(past, wide).tolist() == [True, True]
    assert monitor.update_alarm(past, narrow).tolist() == [True, True] and monitor.told(1)["alarm"] == 4
    monitor.reset(np.array([False, True]))
    assert monitor.raised.tolist() == [True, False]
    assert monitor.update_alarm(past, narrow).tolist() == [True, False] and monitor.told(1)["alarm"] == -1


def test_a_policy_that_is_given_its_past_has_no_recall_error():
    torch.manual_seed(0)
    config = DiffusionConfig(
        window=Window(observe=(0,), recall=(-1,), horizon=4), inputs=(STATE,), given=True,
        network=MLPConfig(width=16, depth=1, condition_width=8), n_action_steps=2,
    )  # fmt: skip
    policy = config.build(BODY, blank_scales(BODY)).eval()
    monitor = Monitor(policy, lanes=3, n_action_steps=2, candidates=2)
    play(Agent(policy, lanes=3, n_action_steps=2, monitor=monitor))
    assert monitor.told(0)["signal_recall"] == [None] * 6


def test_a_watch_needs_several_plans():
    with pytest.raises(ValueError, match="at least 2 candidates"):
        Monitor(small_policy(), lanes=1, n_action_steps=2, candidates=1)


def test_the_score_by_hand():
    signals = np.exp([[0.0, 2.0, 9.0], [0.0, 3.0, 1.0], [0.0, -9.0, -3.0], [0.0, 5.0, 0.0]]) - FLOOR
    signals[3, 2] = math.nan
    # z: 2; then (3 - 1) / 2 = 1 and 1 / 0.5 = 2; then far below; then (5 - 1) / 2 = 2, drift unknown
    assert ALARM.scores(signals) == pytest.approx([1.5, 2.5, 0.0, 1.5], abs=1e-6)
    assert ALARM.after(1.25, 0, np.full(3, math.nan)) == 1.25, "no signal, no evidence"


def test_the_normal_course_is_that_of_the_same_replanning():
    rng = np.random.default_rng(0)
    episodes = [np.exp(np.arange(3 + i % 2)[:, None] + 0.1 * rng.normal(size=(3 + i % 2, 3))) for i in range(30)]
    centre, scale = normal_course(episodes, "drift")
    assert np.allclose(centre, np.arange(4), atol=0.1) and np.allclose(scale, 0.1, atol=0.05)
    assert normal_course([np.ones((3, 3))] * 9, "drift") is None
    assert normal_course([np.full((3, 3), np.nan)] * 9, "drift") is None
    few = normal_course([*episodes, *[np.ones((9, 3))] * 3], "drift")
    assert len(few[0]) == 4, "three episodes do not say how long ones go"


def test_the_threshold_is_the_conformal_rank():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 40.0))
    assert conformal(values, 0.05) == 38.0 and conformal(values, 0.1) == 36.0 and conformal(values, 1 / 40) == 39.0
    with pytest.raises(AlarmError, match="alpha 0.02 needs 49 successful episodes .* there are 39; .*alpha 0.025"):
        conformal(values, 0.02)
    with pytest.raises(AlarmError, match="between 0 and 1"):
        conformal(values, 1.0)


def synthetic(rng):
    """Signals of one episode: heavy tails, correlated in time and with its length, differing between episodes."""
    steps = rng.integers(4, 12)
    mood = rng.standard_t(3)
    return np.exp(0.5 * mood + np.cumsum(0.3 * rng.normal(size=(steps, 3)), 0) + 0.1 * np.arange(steps)[:, None])


def false_alarms(runs, alpha, n=39, fit=12):
    raised = 0
    for run in range(runs):
        rng = np.random.default_rng([11, run])
        episodes = [synthetic(rng) for _ in range(fit + n + 1)]
        normal = {name: normal_course(episodes[:fit], name) for name in ("spread", "drift")}
        alarm = dataclasses.replace(
            ALARM, centre={k: v[0] for k, v in normal.items()}, scale={k: v[1] for k, v in normal.items()}
        )
        held = [alarm.scores(one).max() for one in episodes[fit:-1]]
        raised += alarm.scores(episodes[-1]).max() > conformal(held, alpha)
    return raised


def within(raised, runs, alpha, n=39):
    """Neither more than alpha, nor less than the conformal rank says where scores seldom tie (small alpha)."""
    exact = 1 - math.ceil((n + 1) * (1 - alpha)) / (n + 1)
    return binom.ppf(0.001, runs, exact) <= raised <= binom.ppf(0.999, runs, alpha)


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_the_false_alarm_rate_is_kept(alpha):
    assert within(false_alarms(200, alpha), 200, alpha)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_the_false_alarm_rate_is_kept_over_2000_calibrations(alpha):
    assert within(false_alarms(2000, alpha), 2000, alpha)


def test_an_alarm_comes_back_from_its_file(tmp_path):
    path = ALARM.save(tmp_path / "alarms" / "alarm.json")
    again = load_alarm(path)
    assert json.loads(json.dumps(dataclasses.asdict(again))).keys() == dataclasses.asdict(ALARM).keys()
    signals = np.random.default_rng(0).random((6, 3))
    assert np.array_equal(again.scores(signals), ALARM.scores(signals)) and again.threshold == ALARM.threshold
    with pytest.raises(FileExistsError, match="another --out"):
        ALARM.save(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no alarm"),
        ('{"kind": "alarm", "format": 9}', "newer"),
        ('{"kind": "alarm", "format": 1, "policy": "x"}', "'agent' is missing"),
    ],
)
def test_files_that_are_no_alarm_are_refused(tmp_path, text, message):
    (tmp_path / "alarm.json").write_text(text)
    with pytest.raises(AlarmError, match=message):
        load_alarm(tmp_path / "alarm.json")
    with pytest.raises(FileNotFoundError, match="understudy calibrate"):
        load_alarm(tmp_path / "none.json")


def test_other_weights_and_settings_are_refused_by_name():
    ALARM.check("abc", {"n_action_steps": 2, "candidates": 1, "block": 3, "policy_seed": 5, "monitor": 4})
    with pytest.raises(AlarmError, match="weights abc, these are def"):
        ALARM.check("def", ALARM.agent)
    with pytest.raises(AlarmError, match="n_action_steps = 2, now it is 1"):
        ALARM.check("abc", {"n_action_steps": 1, "candidates": 1})
    with pytest.raises(AlarmError, match="critic = None, now it is recall"):
        ALARM.check("abc", {"n_action_steps": 2, "candidates": 1, "critic": "recall"})
