"""Constants, great offsets and rounding noise: judged in float64, trained as what they are, bounded when acting."""

import warnings

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, STATE, Embodiment, Window
from understudy.policies.data.open import open_dataset
from understudy.policies.data.statistics import action_range, nearly_constant, statistics
from understudy.policies.data.task_spec import ActionScale, TaskSpec
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Scale

NAMES = ("a", "b", "c")
BODY = Embodiment(
    name="arm", action=NAMES, action_units=("deg",) * 3, limits=((-2000.0, 2000.0),) * 3, rate=10.0,
    state=NAMES, state_units=("m",) * 3,
)  # fmt: skip
THIRD_STATES = {  # kind -> (third state of 30 frames, its standard deviation)
    "utm": (lambda rng: 6378137 + 100 * rng.normal(size=30), 100),
    "ticks": (lambda rng: 1e6 + 50 * rng.normal(size=30), 50),
    "encoder": (lambda rng: 2048 + 0.1 * rng.normal(size=30), 0.1),
}


def locked(rng):
    """The velocity of a locked joint in a simulator: rounding noise."""
    return 1e-7 * rng.normal(size=30)


def record(root, *, third_state=None, third_action=None, episodes=4):
    writer, none = DatasetWriter(root, BODY), np.zeros(30, np.float32)
    for start in range(episodes):
        rng = np.random.default_rng(start)
        state = np.cumsum(rng.normal(size=(30, 3)), 0)
        action = (state + 0.1).astype(np.float32)
        if third_state is not None:
            state[:, 2] = third_state(rng)
        if third_action is not None:
            action[:, 2] = third_action
        writer.add(
            Episode(
                start=start, task="reach", obs={STATE: state.astype(np.float32)}, action=action, sent=action,
                reward=none, progress=none, success=none.astype(bool), terminated=False, truncated=True,
            )
        )  # fmt: skip
    return root


def train(data, out, **changes):
    policy = DiffusionConfig(
        window=Window(observe=(0,), horizon=4),
        n_action_steps=2,
        network=MLPConfig(width=32, depth=1, condition_width=16),
    )
    Train(
        data=str(data), out=out, policy=policy, steps=20, batch=16, optimize=Optimize(lr=1e-3, warmup=5, ema=0.9),
        validation=0.2, save_every=20, device="cpu", threads=1, **changes,
    ).run()  # fmt: skip
    return load_policy(out)[0]


def plan(policy, state):
    past = Past(
        obs={STATE: torch.tensor([[state]], dtype=torch.float32)}, obs_times=(0,), obs_valid=torch.ones(1, 1).bool(),
        actions=torch.zeros(1, 0, 3), action_times=(), action_valid=torch.ones(1, 0).bool(), now=torch.zeros(1).long(),
    )  # fmt: skip
    return policy.plan(past, 1, LaneNoise(0, np.zeros(1), np.zeros(1))).future[0, 0]


@pytest.mark.parametrize("value", [0, 5, 90, -1000])
def test_an_action_that_never_changes_is_planned_as_that(tmp_path, value):
    policy = train(record(tmp_path / "data", third_action=value), tmp_path / "run")
    np.testing.assert_allclose(plan(policy, (0, 0, 0))[:, 2], value, atol=0.05)


def test_one_episode_with_two_constants_trains(tmp_path):
    def still(rng):
        return np.full(30, 1e7)

    data = record(tmp_path / "data", third_action=1e7, third_state=still, episodes=1)
    policy = train(data, tmp_path / "run")
    np.testing.assert_allclose(plan(policy, (0, 0, 1e7))[:, 2], 1e7, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1e-5, 6e-5])
def test_the_range_of_rounding_noise_around_a_great_value_is_wide_enough_for_float32(tmp_path, spread):
    data = open_dataset(record(tmp_path / "data", third_action=1000 + spread * (np.arange(30) % 2)))
    low, high = action_range(statistics(data, (ACTION,))[ACTION])
    assert high[2] - low[2] == pytest.approx(1.0) and (low[2] + high[2]) / 2 == pytest.approx(1000)
    Scale.between(low, high)


def test_a_range_above_rounding_noise_is_kept(tmp_path):
    data = open_dataset(record(tmp_path / "data", third_action=5.0 + 0.01 * (np.arange(30) % 2)))
    low, high = action_range(statistics(data, (ACTION,))[ACTION])
    np.testing.assert_allclose((low[2], high[2]), (5, 5.01), rtol=1e-6)


def test_a_pinned_scale_without_width_is_refused_by_name():
    spec = TaskSpec(scale=ActionScale(low=(0.0, 0.0, 90.0), high=(1.0, 1.0, 90.000001)))
    with pytest.raises(ValueError, match=r"'c' is 90 \.\. 90; it must rise.*half a unit"):
        spec.check(BODY)
    with pytest.raises(ValueError, match="'b' is nan"):
        TaskSpec(scale=ActionScale(low=(0.0, float("nan"), 0.0), high=(1.0, 1.0, 1.0))).check(BODY)


@pytest.mark.parametrize("kind", THIRD_STATES)
def test_what_moves_around_a_great_offset_has_its_own_scale(tmp_path, kind):
    third, deviation = THIRD_STATES[kind]
    data = open_dataset(record(tmp_path / "data", third_state=third))
    values = data.columns[STATE][:, 2].astype(np.float64)
    std = statistics(data, (STATE,))[STATE].std[2]
    assert std == pytest.approx(values.std(), rel=0.001) and std == pytest.approx(deviation, rel=0.2)
    assert nearly_constant(data, (STATE, ACTION), np.arange(4)) == []


def test_rounding_noise_is_no_scale_and_is_named(tmp_path, capsys):
    policy = train(record(tmp_path / "data", third_state=locked), tmp_path / "run")
    assert policy.state_scales["observation_state"].std[2] == 1
    said = capsys.readouterr().out
    assert "'c' of observation.state is nearly constant (standard deviation 9" in said and said.count("nearly") == 1
    torch.testing.assert_close(plan(policy, (0, 0, 0.001)), plan(policy, (0, 0, 0)), atol=0.02, rtol=0)


def test_states_far_from_the_training_are_bounded_and_named_once(tmp_path):
    policy = train(record(tmp_path / "data"), tmp_path / "run")
    scale = policy.state_scales["observation_state"]
    at_bound = (scale.mean + torch.tensor([0.0, 10.0, 0.0]) * scale.std).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = plan(policy, at_bound[:1] + [at_bound[1] * 0.9999999] + at_bound[2:])
    with pytest.warns(UserWarning, match=r"'b' of observation.state reads 1e\+06, .* the policy is told 10") as told:
        found = plan(policy, (at_bound[0], 1e6, at_bound[2]))
        plan(policy, (at_bound[0], 1e6, at_bound[2]))
    assert len(told) == 1
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
