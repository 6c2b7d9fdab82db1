"""Policies judged by recorded episodes: which transitions count, what the policy would do there, the table."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import ACTION, SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.demos.demos import Demos
from understudy.eval.ledger.study import read_study
from understudy.eval.offline.estimate import LoggedPolicies, chunks, transitions
from understudy.policies.data.open import open_dataset
from understudy.policies.data.weighting import successes
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig


class Rows(SimpleNamespace):
    def __len__(self):
        return int(self.lengths.sum())


def test_transitions_end_with_success_and_those_cut_short_are_left_out():
    success = np.zeros((12, 1), np.float32)
    success[4] = 1  # episode 0: rows 0-4, success at its last step; episode 1: rows 5-11, none
    data = Rows(starts=np.array([0, 5]), lengths=np.array([5, 7]), columns={"next.success": success})
    first = successes(data)
    assert first.tolist() == [4, -1]
    rows, reward, discount = chunks(data, first, 3, 0.5)
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(reward, [0, 0, 0.25, 0.5, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(discount, [0.125, 0.125, 0, 0, 0, 0.125, 0.125, 0.125, 0.125])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Episodes of a noisy expert, good and bad, and two checkpoints of untrained policies."""
    folder = tmp_path_factory.mktemp("logged")
    world = {"type": "point", "horizon": 16}
    Demos(task="point", world=world, episodes=16, noise=0.5, keep_failures=True, out=str(folder / "data")).run()
    embodiment = read_world("point").embodiment()
    network = MLPConfig(width=16, depth=1, condition_width=8)
    window = Window(observe=(-1, 0), recall=(-1,), horizon=8)
    config = DiffusionConfig(window=window, inputs=(STATE, SCENE), network=network, n_action_steps=4)
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = config.build(embodiment, blank_scales(embodiment))
        save_checkpoint(folder / f"{seed}", model, kind="policy", config=config)
    return folder


def test_the_policy_is_asked_at_first_states_and_at_the_ends_of_chunks(recorded):
    config = LoggedPolicies(policies=(str(recorded / "0"),), data=str(recorded / "data"), draws=3)
    policy, dataset = load_policy(config.policies[0])[0], open_dataset(recorded / "data")
    logged, behaviour, about = transitions(policy, config)
    assert logged.later_action.shape == (len(logged.state), 3, 8) and logged.first_action.shape == (16, 3, 8)
    assert logged.state.shape[1] == 4 and np.abs(logged.later_action).max() <= 1.5
    first = successes(dataset)
    assert 0 < (first >= 0).sum() < 16 and f"{(first >= 0).sum()} successes" in about
    assert behaviour.estimate == pytest.approx(np.where(first >= 0, 0.99 ** np.maximum(first, 0), 0).mean())
    rows, _, _ = chunks(dataset, first, 4, 0.99)
    done = dataset.columns[ACTION][rows[0] : rows[0] + 4].ravel()
    np.testing.assert_allclose(logged.action[0], done, atol=1e-6)
    assert (logged.episode[1:] >= logged.episode[:-1]).all() and logged.episode.max() == 15


def test_a_table_is_printed_and_written(recorded, capsys):
    words = [str(recorded / "0"), str(recorded / "1"), "--data", str(recorded / "data"), "--out"]
    fast = ["--fit.steps", "20", "--fit.replicates", "2", "--fit.widths", "[8]", "--draws", "1"]
    assert main(["estimate", *words, str(recorded / "fqe.json"), *fast]) == 0
    study = read_study(recorded / "fqe.json")
    assert [row[0] for row in study.rows] == ["recorded episodes", *words[:2]]
    assert "the policies never acted" in capsys.readouterr().out
    assert main(["estimate", *words[:4], "--truth", "nowhere"]) == 2
    assert "1 record for 2 policies" in capsys.readouterr().err
