"""A person takes the arm from a policy and hands it back: nothing jumps, all is recorded, and it is learned from."""

import json

import numpy as np
import pytest

from understudy.eval.deploy.deploy import Deploy
from understudy.eval.deploy.session import deploy, open_for_arm
from understudy.hardware.so101 import ENVELOPE
from understudy.policies.data.corrections import INTERVENTION, PHASE
from understudy.policies.data.open import open_dataset
from understudy.policies.learning.checkpoint import save_checkpoint
from understudy.sim.arms import find_arm
from understudy.tests.eval.deploy.test_deploy import policy_of

pytest.importorskip("daqp", reason="the guard's quadratic program")

HOME = np.array(find_arm("so101").home)
AWAY = np.array([0.5, -0.3, 0.2, 0.1, -0.4, 0.3])  # rad from home, where the person holds the leader


class Person:
    """Says words at control steps, and leads a leader: to and fro about a pose. `silent`: steps without an answer."""

    def __init__(self, words, silent=(), pose=HOME + AWAY, puts=()):
        self.words, self.silent, self.pose, self.puts = dict(words), silent, pose, dict(puts)
        self.step, self.over = -1, False

    def next(self):
        self.step += 1
        self.pose = self.puts.get(self.step, self.pose)
        return self.words.get(self.step)

    def read(self):
        if self.step in self.silent:
            raise ConnectionError("no answer")
        return self.pose + 0.1 * np.sin(self.step / 10)


@pytest.fixture
def acted(tmp_path):
    def act(person, seconds=4.0, settings=(), **how):
        folder, out = tmp_path / "policy", tmp_path / "data"
        policy = policy_of(**how)
        save_checkpoint(folder, policy, kind="policy", config=policy.config)
        settings = {"delay": 2, "latency": "past"} | dict(settings)
        config = Deploy(policy=str(folder), emulate=True, task="so101-reach", clock="simulated", yes=True, device="cpu",
                        seconds=seconds, out=str(out), env_seed=1000, **settings)  # fmt: skip
        agent, about, world = open_for_arm(config)
        tally = deploy(config, agent, about, world, person, person)
        return tally, open_dataset(str(out)), agent, config

    return act


def envelope_kept(columns, set_points=2, rate=30.0):
    """Greatest velocity and acceleration of what was sent, each control step, as parts of the guard's."""
    speed = np.diff(columns["action.sent"], axis=0) * rate
    bend = np.diff(speed, axis=0) * rate
    return np.abs(speed / np.asarray(ENVELOPE["velocity"])).max(), np.abs(bend).max() / np.max(ENVELOPE["acceleration"])


def test_the_arm_is_taken_over_and_handed_back_without_a_jump(acted, capsys):
    tally, data, agent, config = acted(Person({20: "t", 90: "p"}))
    columns, phase = data.columns, data.columns[PHASE].ravel()
    flags = columns[INTERVENTION].ravel()
    assert data.features[INTERVENTION] == {"dtype": "bool", "shape": [1], "names": None}
    assert phase[:20].max() == 0 and phase[20] == 1 and phase[89] == 2 and phase[90:].max() == 0
    assert np.array_equal(flags, phase == 2) and 20 < flags.sum() < 70
    come = int(np.argmax(phase == 2))
    approach = np.abs(np.diff(columns["action.sent"][24:come], axis=0)) * 30
    assert approach.max() <= 0.4 + 1e-3  # what the guard lets a first command do
    speed, bend = envelope_kept(columns)
    assert speed <= 1 + 1e-6 and bend <= 1 + 1e-6
    assert np.abs(columns["action"][come:90] - columns["action.sent"][come:90]).max() < 0.1  # it follows the leader
    assert set(columns["plan.start"].ravel()[20:90]) == {-1} and columns["plan.start"].ravel()[90] == 90
    said = capsys.readouterr().out
    assert "hold the leader still" in said and "you lead the arm" in said and "with 1 take-over of 2.3 s" in said
    text = tally.text(config)
    assert "take-overs      1 in 1 of 1 episode, 2.3 s in all" in text
    labels = json.loads(tally.rows[0]["labels"])
    assert labels["takeovers"] == 1 and labels["takeover_s"] == pytest.approx(70 / 30, abs=1e-3)
