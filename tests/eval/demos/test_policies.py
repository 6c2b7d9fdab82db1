"""Rollouts of policies as data: every episode kept and labelled, fit to go on with, no reporting start among them."""

import json

import numpy as np
import pytest

from understudy.configs.spec import SCENE, STATE, EmbodimentError, Window
from understudy.configs.world import read_world
from understudy.eval.demos.demos import Demos
from understudy.eval.demos.policies import RECORDING, RecordingError, shares
from understudy.eval.rollout.actors import NoisyActor
from understudy.eval.rollout.rollout import ArmError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

from ..clocked import ARM, CLOCKED

WORLD = {"type": "point", "horizon": 12}


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Two checkpoints of untrained policies for the point task."""
    import torch

    embodiment = read_world("point").embodiment()
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(
        window=Window(observe=(0,), horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=4
    )
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        paths.append(tmp_path_factory.mktemp("policies") / f"{seed}")
        model = config.build(embodiment, blank_scales(embodiment))
        save_checkpoint(paths[-1], model, kind="policy", config=config)
    return tuple(map(str, paths))


def record(policies, folder, **changes):
    settings = {"task": "point", "world": WORLD, "episodes": 7, "policy": policies, "keep_failures": True}
    Demos(**settings | {"out": str(folder), "block": 3} | changes).run()
    return open_dataset(folder)


def test_failures_are_kept_and_are_no_successes(policies, tmp_path):
    dataset = record(policies, tmp_path / "d")
    assert len(dataset.lengths) == 7
    success, last = dataset.columns["next.success"][:, 0], dataset.starts + dataset.lengths - 1
    won = np.maximum.reduceat(success, dataset.starts)
    assert 0 < (won == 0).sum()
    assert (dataset.lengths[won == 0] == 12).all() and (dataset.columns["next.done"][last] == 1).all()
    assert {"action", "action.sent", "next.reward", "next.success", "next.done", "next.progress"} <= set(
        dataset.columns
    )
    card = json.loads((tmp_path / "d" / RECORDING).read_text())
    assert [one["starts"] for one in card["who"]] == [[100_000, 100_004], [100_004, 100_007]]
    assert card["who"][0]["fingerprint"] != card["who"][1]["fingerprint"]


def test_a_policy_of_another_body_is_refused_before_the_first_one_acts(policies, tmp_path, monkeypatch):
    body = read_world("pusht").embodiment()
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(observe=(0,), horizon=8), inputs=(STATE,), network=network, n_action_steps=4)
    save_checkpoint(tmp_path / "other", config.build(body, blank_scales(body)), kind="policy", config=config)
    monkeypatch.setattr("understudy.eval.demos.policies.crew_for", None)  # no world is begun
    with pytest.raises(EmbodimentError):
        record((*policies, str(tmp_path / "other")), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_an_interrupted_recording_goes_on_to_the_same_dataset(policies, tmp_path, monkeypatch):
    whole = record(policies, tmp_path / "whole", noise=0.2, workers=2)
    add = DatasetWriter.add

    def interrupted(self, episode):
        if self.episodes == 5:
            raise KeyboardInterrupt
        return add(self, episode)

    monkeypatch.setattr(DatasetWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(policies, tmp_path / "part", noise=0.2)
    monkeypatch.undo()
    assert len(open_dataset(tmp_path / "part").lengths) == 5
    assert record(policies, tmp_path / "part", noise=0.2, resume=True).fingerprint == whole.fingerprint
    with pytest.raises(RecordingError, match="another recording: its how.noise was"):
        record(policies, tmp_path / "part", noise=0.3, resume=True)


def test_noise_is_asked_for_and_sent_and_differs_by_start_and_step():
    class Still:
        n_action_steps, look = 2, ()

        def reset(self, starts, mask, obs):
            pass

        def act(self):
            return np.full((2, 2, 1), 5.0, np.float32)

        def observe(self, obs, sent, valid):
            pass

    limits = ((0.0, 10.0),)
    actor = NoisyActor(Still(), limits, 0.1, 2)
    chunks = []
    for _ in range(200):
        actor.reset(np.array([7, 8]), np.ones(2, bool) if not chunks else np.zeros(2, bool), {})
        chunks.append(actor.act())
        actor.observe({}, chunks[-1], np.ones((2, 2), bool))
    noise = np.stack(chunks) - 5
    assert abs(noise.std() - 0.5) < 0.05 and abs(noise.mean()) < 0.1
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.2
    assert len(np.unique(noise)) == noise.size
    again = NoisyActor(Still(), limits, 0.1, 2)
    again.reset(np.array([7, 8]), np.ones(2, bool), {})
    assert np.array_equal(again.act(), chunks[0])


def test_by_the_clock_there_is_one_process_and_one_arm(policies, tmp_path):
    for world, changes, message in (
        (ARM, {"workers": 1}, "there is one arm"),
        (CLOCKED, {"workers": 2}, "--workers 2: this world goes by the clock"),
        (CLOCKED, {"block": 3}, "--block 3: one environment acts at a time"),
    ):
        for who in (policies, ()):
            with pytest.raises(ValueError, match=message):
                record(who, tmp_path / "d", world=world, **{"block": 1} | changes)
    assert not (tmp_path / "d").exists()


def test_an_arm_that_fails_ends_a_recording_that_goes_on_when_asked(policies, tmp_path):
    faults = [{"start": 100_000 + i, "step": 2, "once": str(tmp_path / str(i))} for i in (0, 2)]
    acting = {"world": ARM | {"faults": faults}, "block": 1}
    with pytest.raises(ArmError, match=r"env seed 100000 failed: .*before an episode was kept; nothing is written"):
        record(policies, tmp_path / "d", **acting)
    assert not (tmp_path / "d").exists()
    with pytest.raises(ArmError, match=r"env seed 100002 failed: .*; 2 episodes are kept in .*--resume goes on"):
        record(policies, tmp_path / "d", **acting)
    assert len(record(policies, tmp_path / "d", **acting, resume=True).lengths) == 7


def test_shares_cover_all_starts_once():
    config = Demos(task="point", out="d", episodes=10, policy=("a", "b", "c"), env_seed=100_000)
    assert [len(part) for part in shares(config)] == [4, 3, 3]
    assert [start for part in shares(config) for start in part] == list(range(100_000, 100_010))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_seed": 1000}, "choosing or reporting"),
        ({"episodes": 1}, "cannot be shared"),
        ({"resume": True}, "no recording to go on with"),
        ({"fail": 0.5}, "scripted experts"),
        ({"noise": -0.1}, "standard deviation"),
    ],
)
def test_what_must_not_be_recorded_is_refused(policies, tmp_path, changes, message):
    with pytest.raises(RecordingError, match=message):
        record(policies, tmp_path / "d", **changes)
    assert not (tmp_path / "d").exists()
