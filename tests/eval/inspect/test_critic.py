"""What a critic's scores say beside recorded episodes: statistics by hand, known critics, and the page."""

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.demos.demos import Demos
from understudy.eval.inspect.critic import above, facts_study, look
from understudy.eval.inspect.critic_facts import auc, best_of, bootstrap, by_episode, calibration, with_time_to_go
from understudy.eval.ledger.study import read_study
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.data.open import open_dataset
from understudy.policies.data.weighting import successes
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Plans


def test_auc_is_the_chance_of_the_right_order():
    assert auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(0.75)
    assert auc([1, 1, 1, 1], [True, False, True, False]) == 0.5 and auc([3, 1], [True, False]) == 1
    rng = np.random.default_rng(0)
    scores, won = rng.integers(0, 5, 60), rng.random(60) < 0.4
    pairs = np.sign(scores[won][:, None] - scores[~won])
    assert auc(scores, won) == pytest.approx((pairs + 1).mean() / 2)
    with pytest.raises(ValueError, match="2 successes and 0 failures"):
        auc([1, 2], [True, True])


def test_time_to_go_is_perfect_for_scores_that_rise():
    rising, falling, flat = np.arange(9.0) ** 3, -np.arange(5.0), np.ones(6)
    found = with_time_to_go([rising, falling, flat, rising[:2], rising], [8, 4, 5, 1, -1])
    np.testing.assert_allclose(found, [-1, 1, 0])
    late = np.concatenate([np.arange(5.0), [-9, -9]])  # what came after the success does not count
    np.testing.assert_allclose(with_time_to_go([late], [4]), [-1])


def test_calibration_and_episodes():
    scores, returns = np.array([0.9, 0.1, 0.5, 0.2]), np.array([1.0, 0.0, 0.5, 0.5])
    assert calibration(scores, returns, 2) == [(2, pytest.approx(0.15), 0.25), (2, pytest.approx(0.7), 0.75)]
    assert len(calibration(scores, returns, 10)) == 4
    parts = by_episode(np.arange(5), np.array([0, 2]), np.array([2, 3]))
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3, 4]]


def test_the_best_of_some_is_that_of_all_subsets():
    from itertools import combinations

    rng = np.random.default_rng(0)
    scores, worth = rng.normal(size=(2, 4, 6))
    for count in (1, 3, 6):
        subsets = [list(some) for some in combinations(range(6), count)]
        chosen = [[worth[s, some[int(scores[s, some].argmax())]] for some in subsets] for s in range(4)]
        assert best_of(scores, worth, count) == pytest.approx(np.mean(chosen))
    assert best_of(scores, worth, 1) == pytest.approx(worth.mean())
    with pytest.raises(ValueError, match="cannot be drawn"):
        best_of(scores, worth, 7)


def test_the_bootstrap_covers_and_leaves_out_what_cannot_be_told():
    rng = np.random.default_rng(1)
    values = [rng.normal(size=30) for _ in range(60)]
    told = [bootstrap(lambda some, v=v: float(v[some].mean()), 30, rng) for v in values]
    assert 0.85 < np.mean([one.low <= 0 <= one.high for one in told]) <= 1
    won = np.array([True, False, False])
    assert bootstrap(lambda some: auc(np.array([2, 1, 0])[some], won[some]), 3, rng).estimate == 1


class Nearness:
    """Knows how far the point is from its target, and whether an action goes there."""

    window, inputs, reads = Window(observe=(0,), horizon=1), (STATE, SCENE), 1

    def score(self, past, plans):
        gap = past.obs[SCENE][:, -1] - past.obs[STATE][:, -1]
        return -(gap[:, None] - plans.future[:, :, 0].clamp(-1, 1) / 20).norm(dim=-1)


class Spread:
    """A policy that plans any velocity."""

    window, inputs = Window(observe=(0,), horizon=4), (STATE,)

    def __init__(self, embodiment):
        self.embodiment = embodiment

    def plan(self, past, n, rng):
        return Plans(torch.zeros(len(past.now), n, 0, 2), 0.5 * rng.normal(n, 4, 2), past.now)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Episodes of a noisy expert, some cut short."""
    folder = tmp_path_factory.mktemp("critic") / "data"
    world = {"type": "point", "horizon": 18}
    Demos(task="point", world=world, episodes=30, noise=0.4, keep_failures=True, out=str(folder)).run()
    return folder


def test_a_critic_that_knows_passes(recorded):
    dataset = open_dataset(recorded)
    episodes = np.arange(len(dataset.lengths))
    seen = look(Nearness(), dataset, episodes, "all")
    assert 3 <= seen.won.sum() < 30 and seen.returns is None
    assert [len(one) for one in seen.scores] == dataset.lengths.tolist()
    assert with_time_to_go(seen.scores, seen.first).mean() < -0.8
    config = type("Asked", (), {"critic": "nearness", "data": ""})
    facts = {row[0]: row[1] for row in facts_study(config, seen).rows}
    assert facts["success above failure, by the episode's last score (AUC)"][1] > 0.9 and len(facts) == 6
    shares = above(Nearness(), Spread(dataset.embodiment), dataset, episodes, 60, np.random.default_rng(0))
    assert {name: len(share) for name, share in shares.items()} == dict.fromkeys(shares, len(list(shares.values())[0]))
    assert all(share.mean() > 0.8 for share in shares.values()) and len(shares) == 2


def test_the_page_of_a_trained_critic(recorded, tmp_path, capsys):
    embodiment = read_world("point").embodiment()
    scales = blank_scales(embodiment)
    torch.manual_seed(0)
    value = IQLConfig(window=Window(observe=(0,), horizon=1), inputs=(STATE, SCENE), widths=(16,))
    save_checkpoint(tmp_path / "value", value.build(embodiment, scales), kind="critic", config=value)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    policy = DiffusionConfig(
        window=Window(observe=(0,), horizon=4), inputs=(STATE, SCENE), network=network, n_action_steps=4
    )
    save_checkpoint(tmp_path / "policy", policy.build(embodiment, scales), kind="policy", config=policy)
    words = ["inspect", "--critic", str(tmp_path / "value"), "--data", str(recorded), "--out", str(tmp_path / "c.html")]
    assert main([*words, "--policy", str(tmp_path / "policy"), "--record", str(tmp_path / "c.json")]) == 0
    text, page = capsys.readouterr().out, (tmp_path / "c.html").read_text()
    won = int((successes(open_dataset(recorded)) >= 0).sum())
    assert f"30 of {recorded}, all episodes, {won} successes" in text and "mean return" in text
    assert page.count("<table>") == 3 and "polyline" in page and "itself moved by" in page
    kept = read_study(tmp_path / "c.json")
    assert kept.rows[0][2] == won and kept.command.endswith(f"--data {recorded} --policy {tmp_path / 'policy'}")
    assert [row[0].split(",")[0] for row in kept.rows[-2:]] == [
        "recorded action above itself moved by the policy's spread", "recorded action above any action"
    ]  # fmt: skip
    assert main(words) == 2 and "exists; choose another" in capsys.readouterr().err
    assert main(["inspect", "--critic", str(tmp_path / "value"), "--out", str(tmp_path / "d.html")]) == 2
    assert "give --data with successes and failures" in capsys.readouterr().err
