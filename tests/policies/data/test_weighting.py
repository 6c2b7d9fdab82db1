"""Weighted sampling: frequencies equal the formula, limits of alpha, exact resume, use through the config."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import Embodiment, Window
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.weighting import (
    By,
    Outcome,
    WeightedOrder,
    Weighting,
    episode_returns,
    expected_returns,
    trajectory_weights,
)
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.loop import Interrupted, Loop
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

BODY = Embodiment(
    name="walker", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0,
    state=("x",), state_units=("m",),
)  # fmt: skip
LENGTHS = (5, 9, 7, 12, 6)
BEST = (0.2, 0.9, 0.4, 1.0, 0.2)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Five episodes of known lengths and returns; the action of an episode is its best reward."""
    root = tmp_path_factory.mktemp("weighted") / "demos"
    writer = DatasetWriter(root, BODY)
    for start, (length, best) in enumerate(zip(LENGTHS, BEST, strict=True)):
        reward = np.linspace(0, best, length).astype(np.float32)
        action = np.full((length, 1), best, np.float32)
        state = np.full((length, 1), (start - 2.0) ** 2, np.float32)
        success = reward >= 1
        writer.add(
            Episode(
                start=start,
                task="walk",
                obs={"observation.state": state},
                action=action,
                sent=action,
                reward=reward,
                progress=reward,
                success=success,
                terminated=bool(success[-1]),
                truncated=not success[-1],
            )  # fmt: skip
        )
    return root


def softmax(values, alpha):
    scaled = [(v - min(values)) / (max(values) - min(values)) for v in values]
    total = sum(math.exp(a / alpha) for a in scaled)
    return [math.exp(a / alpha) / total for a in scaled]


def test_weights_are_the_formula():
    """Scaled to 0..1 first: returns in any unit and with any offset give the same weights."""
    returns = np.array([3.0, 10.0, 4.0, 7.0])
    expected = softmax(returns.tolist(), 0.3)
    assert trajectory_weights(returns, 0.3) == pytest.approx(expected)
    assert trajectory_weights(1e4 * returns - 77, 0.3) == pytest.approx(expected)


def test_limits_of_alpha():
    returns = np.array([0.1, 0.5, 1.0])
    assert trajectory_weights(returns, 1e6) == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert trajectory_weights(returns, 1e-4) == pytest.approx([0, 0, 1])
    assert trajectory_weights(np.full(4, 0.3), 0.1).tolist() == [0.25] * 4


def test_frequencies_equal_the_formula():
    """A frame of episode i is drawn in proportion to p_i: the episode in proportion to length times p_i."""
    p = np.array(softmax(BEST, 0.5))
    order = WeightedOrder(np.repeat(p, LENGTHS), 500, seed=3)
    drawn = torch.cat([order.indices(step) for step in range(200)]).numpy()
    counts = np.bincount(drawn, minlength=sum(LENGTHS))
    expected = np.repeat(p, LENGTHS) / (p * LENGTHS).sum() * len(drawn)
    chi = ((counts - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert abs(chi - freedom) < 4 * math.sqrt(2 * freedom)


def test_windows_of_no_weight_never_come():
    order = WeightedOrder(np.array([0.0, 1.0, 0.0, 2.0, 0.0]), 1000, seed=0)
    assert set(order.indices(0).tolist()) == {1, 3}
    with pytest.raises(ValueError, match="no window"):
        WeightedOrder(np.zeros(3), 2, 0)


def test_a_batch_is_a_function_of_seed_and_step():
    first, again = (WeightedOrder(np.arange(1.0, 50), 16, seed=5) for _ in range(2))
    first.indices(3)
    assert torch.equal(first.indices(8), again.indices(8))
    assert not torch.equal(first.indices(8), first.indices(9))
    assert not torch.equal(first.indices(8), WeightedOrder(np.arange(1.0, 50), 16, seed=6).indices(8))


def test_returns_are_read_as_asked(demos):
    dataset = open_dataset(demos)
    assert episode_returns(dataset, Outcome.best) == pytest.approx(BEST, abs=1e-6)
    assert episode_returns(dataset, Outcome.total) == pytest.approx(
        [n * b / 2 for n, b in zip(LENGTHS, BEST, strict=True)], rel=1e-5
    )
    assert episode_returns(dataset, Outcome.success).tolist() == [0, 0, 0, 1, 0]
    with pytest.raises(DatasetError, match="next.reward"):
        episode_returns(open_dataset(demos, columns=("observation.state",)), Outcome.best)


def test_advantage_takes_away_what_the_first_state_explains(demos):
    dataset = open_dataset(demos)
    states = np.array([[4.0], [1.0], [0.0], [1.0], [4.0]])
    slope, constant = np.polyfit(states[:, 0], BEST, 1)
    left = np.array(BEST) - slope * states[:, 0] - constant
    assert np.array(BEST) - expected_returns(np.array(BEST), states) == pytest.approx(left)
    weights = Weighting(by=By.advantage).weights(dataset, np.arange(5), ("observation.state",))
    assert weights == pytest.approx(softmax(left.tolist(), 0.1), rel=1e-4)
    with pytest.raises(ValueError, match="explains any return"):
        expected_returns(np.array([0.0, 1.0]), states[:2])
    with pytest.raises(ValueError, match="state vector"):
        Weighting(by=By.advantage).weights(dataset, np.arange(5), ())


def settings(demos, out, **changes):
    policy = DiffusionConfig(
        window=Window(horizon=4), n_action_steps=2, network=MLPConfig(width=16, depth=1, condition_width=8)
    )
    plain = Train(
        data=str(demos), out=out, policy=policy, steps=30, batch=16, optimize=Optimize(warmup=5), validation=0,
        log_every=10, validate_every=30, save_every=10, device="cpu", threads=1,
        weighting=Weighting(outcome=Outcome.success, alpha=1e-3),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def test_training_sees_the_good_episode_only(demos, tmp_path, monkeypatch):
    seen, step = set(), Loop.train_step

    def watch(self):
        seen.update(self.feed(self.step)["episode"].tolist())
        return step(self)

    monkeypatch.setattr(Loop, "train_step", watch)
    settings(demos, tmp_path / "run").run()
    assert seen == {3}


def test_resume_of_a_weighted_run_is_exact(demos, tmp_path, monkeypatch):
    soft = Weighting(by=By.returns, alpha=0.5)
    settings(demos, tmp_path / "whole", weighting=soft).run()
    step = Loop.train_step

    def stop(self):
        if self.step == 14:
            self._interrupt()
        return step(self)

    monkeypatch.setattr(Loop, "train_step", stop)
    with pytest.raises(Interrupted):
        settings(demos, tmp_path / "stopped", weighting=soft).run()
    monkeypatch.setattr(Loop, "train_step", step)
    Train(resume=tmp_path / "stopped").run()
    whole, stopped = ((tmp_path / n / "last" / "model.safetensors").read_bytes() for n in ("whole", "stopped"))
    assert whole == stopped
    settings(demos, tmp_path / "uniform", weighting=None).run()
    assert (tmp_path / "uniform" / "last" / "model.safetensors").read_bytes() != whole


def test_a_senseless_temperature_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        Weighting(alpha=0.0)
