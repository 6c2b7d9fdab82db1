"""An expert takes over from a policy that makes no headway: whose each step is, what is learned from, hand-backs."""

import json

import numpy as np
import pytest
import torch

from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.demos.demos import Demos
from understudy.eval.demos.policies import RECORDING
from understudy.eval.rollout.helped import TakeOverRule
from understudy.policies.agent.agent import Agent
from understudy.policies.data.corrections import INTERVENTION, PHASE, learned_steps, runs
from understudy.policies.data.open import open_dataset
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.sim.experts import EXPERTS

NEVER = TakeOverRule(after=10_000)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """An untrained policy for the point task, which reads two frames and executes four actions of eight."""
    embodiment, folder = read_world("point").embodiment(), tmp_path_factory.mktemp("policy")
    network = MLPConfig(width=16, depth=1, condition_width=8)
    window = Window(observe=(-1, 0), horizon=8)
    config = DiffusionConfig(window=window, inputs=(STATE, SCENE), network=network, n_action_steps=4)
    torch.manual_seed(0)
    model = config.build(embodiment, blank_scales(embodiment))
    save_checkpoint(folder, model, kind="policy", config=config)
    return str(folder)


def record(policy, folder, **changes):
    settings = {"task": "point", "episodes": 5, "policy": (policy,), "keep_failures": True, "block": 3, "workers": 0}
    Demos(**settings | {"out": str(folder)} | changes).run()
    return open_dataset(folder)


def same(one, other):
    assert np.array_equal(one.lengths, other.lengths)
    for name in set(one.columns) & set(other.columns):
        assert np.array_equal(one.columns[name], other.columns[name]), name


def test_whom_nobody_helps_acts_as_alone(policy, tmp_path):
    alone, watched = record(policy, tmp_path / "a"), record(policy, tmp_path / "b", takeover=NEVER)
    same(alone, watched)
    assert INTERVENTION not in alone.features and not watched.columns[INTERVENTION].any()


def test_the_expert_finishes_what_made_no_headway_and_is_learned_from(policy, tmp_path, capsys):
    rule = TakeOverRule(after=5)
    data = record(policy, tmp_path / "d", takeover=rule)
    columns, flags = data.columns, data.columns[INTERVENTION].ravel() > 0
    assert data.features[INTERVENTION] == {"dtype": "bool", "shape": [1], "names": None}
    assert np.array_equal(flags, columns[PHASE].ravel() == 2) and flags.any()
    assert np.maximum.reduceat(columns["next.success"][:, 0], data.starts).all()
    for begin, count in zip(data.starts, data.lengths, strict=True):
        rows = slice(begin, begin + count)
        progress = np.concatenate([[1 - distance(columns, begin)], columns["next.progress"][rows, 0]])
        assert np.flatnonzero(np.append(flags[rows], True))[0] == taken_over(progress, rule) or not flags[rows].any()
        assert (np.diff(flags[rows].astype(int)) >= 0).all()  # it is not handed back
    error = (columns[SCENE] - columns[STATE])[flags]
    expert = 4 * error / np.maximum(1, 4 * np.linalg.norm(error, axis=1, keepdims=True))
    np.testing.assert_allclose(columns["action"][flags], expert, atol=1e-6)
    learned = learned_steps(data, None, np.arange(5))
    assert np.array_equal(learned.weights > 0, flags)
    card = json.loads((tmp_path / "d" / RECORDING).read_text())
    assert card["how"]["takeover"] == {"after": 5, "gain": 0.01, "steps": 0}
    assert f"{flags.sum()} of {len(flags)} steps are the expert's" in capsys.readouterr().out


def distance(columns, row):
    return np.linalg.norm(columns[SCENE][row] - columns[STATE][row])


def taken_over(progress, rule):
    """The step before which `after` steps in a row have brought nothing above the best."""
    best, stalled = -np.inf, 0
    for step, now in enumerate(progress):
        best, stalled = (now, 0) if now > best + rule.gain else (best, stalled + 1)
        if stalled >= rule.after:
            return step
    return len(progress) - 1


def test_handed_back_the_policy_plans_from_what_was_executed_by_whomever(policy, tmp_path):
    data = record(
        policy, tmp_path / "d", takeover=TakeOverRule(after=3, steps=3), episodes=2, block=1, action_noise=0.1
    )
    columns, phases = data.columns, data.columns[PHASE].ravel()
    model = load_policy(policy)[0]
    for start, begin, count in zip((100_000, 100_001), data.starts, data.lengths, strict=True):
        mine = phases[begin : begin + count] == 0
        assert (np.diff(mine.astype(int)) == 1).any(), "nobody handed back"
        agent = Agent(model, lanes=1)
        agent.reset(np.array([start]), np.ones(1, bool), frames(columns, begin))
        for chunk in range(0, count - 4, 4):
            rows = slice(begin + chunk, begin + chunk + 4)
            asked, own = agent.act()[0], mine[chunk : chunk + 4]
            np.testing.assert_allclose(columns["action"][rows][own], asked[own], atol=1e-6)
            seen = [frames(columns, begin + chunk + 4 + offset) for offset in agent.look]
            obs = {key: np.stack([one[key] for one in seen], 1) for key in agent.inputs}
            agent.observe(obs, columns["action.sent"][rows][None], np.ones((1, 4), bool))
    first, last = runs(phases, data.starts)
    ended = np.isin(last, data.starts + data.lengths - 1)
    led = (phases == 2) & ~ended
    assert led.any() and set((last - first + 1)[led].tolist()) <= {3, 4, 5, 6}


def frames(columns, row):
    return {key: columns[key][row][None] for key in (STATE, SCENE)}


def test_workers_and_an_interruption_change_nothing(policy, tmp_path, monkeypatch):
    from understudy.policies.data.writer import DatasetWriter

    rule = TakeOverRule(after=3, steps=3)
    whole = record(policy, tmp_path / "whole", takeover=rule, workers=2)
    add = DatasetWriter.add

    def interrupted(self, episode):
        if self.episodes == 4:
            raise KeyboardInterrupt
        return add(self, episode)

    monkeypatch.setattr(DatasetWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match="--resume goes on"):
        record(policy, tmp_path / "cut", takeover=rule)
    monkeypatch.setattr(DatasetWriter, "add", add)
    same(record(policy, tmp_path / "cut", takeover=rule, resume=True), whole)
    with pytest.raises(ValueError, match="another recording: its how.takeover.after was 3, not 4"):
        record(policy, tmp_path / "cut", takeover=TakeOverRule(after=4, steps=3), resume=True)


def test_what_cannot_be_helped_is_refused(policy, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--takeover is from a policy"):
        Demos(task="point", out="d", takeover=NEVER)
    with pytest.raises(ValueError, match="--action_noise disturbs"):
        record(policy, tmp_path / "d", takeover=NEVER, noise=0.1)
    monkeypatch.delitem(EXPERTS, "point")
    with pytest.raises(LookupError, match="unknown expert 'point'"):
        record(policy, tmp_path / "d", takeover=NEVER)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("rule", [{"after": 0}, {"steps": -1}, {"gain": 1.0}, {"gain": float("nan")}])
def test_a_rule_that_makes_no_sense_is_refused(rule):
    with pytest.raises(ValueError, match="takeover"):
        TakeOverRule(**rule)
