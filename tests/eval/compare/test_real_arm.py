"""A duel on an arm that knows no seeds, as a real one: whoever lays things out is asked, the arm returns by itself."""

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest

from understudy.configs.spec import STATE
from understudy.configs.world import read_world
from understudy.eval.compare import arm as module
from understudy.eval.compare import restore
from understudy.eval.compare.compare import Compare
from understudy.eval.demos.arm import Words
from understudy.hardware.envelope import Envelope
from understudy.hardware.lane.arms import SteppedArm
from understudy.hardware.lane.robot_env import RobotWorld
from understudy.hardware.so101 import ENVELOPE
from understudy.policies.agent.agent import Agent

from ..deploy.test_deploy import policy_of

pytest.importorskip("daqp", reason="the guard's quadratic program")

KEYS = {"type": "robot", "emulate": True, "task": "so101-reach", "clock": "simulated"}
SIZE = 120, 160


class Standing(SteppedArm):
    """Begins an episode where it stands, whatever the seed; only the very first is drawn."""

    begun = False

    def begin(self, seed):
        if not self.begun:
            self.begun = True
            return super().begin(0)
        return self.guard.engage(self.servos.measure(), self.now()).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Bench(RobotWorld):
    """That arm, behind its guard, in simulated time; nobody but a person knows how an episode went."""

    def __post_init__(self):
        pass

    def embodiment(self):
        return read_world(KEYS | {"cameras": {"front": list(SIZE)}}).embodiment()

    def envelope(self):
        return Envelope(limits=self.embodiment().limits, **ENVELOPE)

    def arm(self):
        return Standing("so101-reach", {"front": SIZE}, self.embodiment().rate * self.set_points)


@pytest.fixture
def answers(monkeypatch):
    """Whoever is at the terminal: (what was printed, [part of it, lines that are then typed]), and a way to type."""
    read, write = os.pipe()
    heard, rules = [], []

    def said(*words, **how):
        text = " ".join(map(str, words))
        heard.append(text)
        for part, lines in rules:
            if part in text:
                os.write(write, lines.encode())

    for each in ("eval.compare.arm", "eval.compare.restore", "hardware.consent"):
        monkeypatch.setattr(f"understudy.{each}.print", said, raising=False)
    for each in (module, restore):
        monkeypatch.setattr(each, "on_terminal", lambda: True, raising=False)
    monkeypatch.setattr("understudy.hardware.consent.on_terminal", lambda: True)
    monkeypatch.setattr(module, "Words", lambda: Words(read))
    yield heard, rules, lambda text: os.write(write, text.encode())
    os.close(write)
    os.close(read)


def test_an_enter_too_many_begins_no_trial_and_the_arm_goes_back_to_the_start(answers, tmp_path):
    heard, rules, type_in = answers
    rules += [("Move it?", "yes\n"), ("lay things out", "\n"), ("the scene is restored", "\n")]
    rules += [("restore the scene", "o\n")]  # which the labels tell
    config = Compare(what=("a", "b"), robot="so101", operator="anna", restore_within=10.0, out="x")
    agents = [Agent(policy_of(inputs=(STATE,), spread=spread), lanes=1) for spread in (0.3, 0.5)]
    world = Bench(task="reach", clock="simulated", horizon=20)
    columns = [{"initial_conditions": "here", "policy_seed": 0}] * 2
    with module.Duel(config, agents, world, columns, tmp_path, True) as duel:
        first, second = duel.acts
        assert json.loads(first(1000)["labels"]).get("restored") is None
        arm = duel._lanes.call("seen", slots=[0])[0][STATE]
        start = restore.Start.load(tmp_path / "starts" / "1000")
        assert np.abs(arm - start.pose).max() > 0.05  # the trial has moved it

        type_in("\n\n")  # as after a score
        restored = json.loads(second(1000)["labels"])["restored"]
        assert "hands off: the arm goes to the pose that its trials begin from" in heard
        assert any("the scene" in text for text in heard)  # which is said only where no ENTER is there yet
        assert restored["px"] <= 10 and restored["camera"] == "front"

        first(1001)  # begins from the same pose
        again = restore.Start.load(tmp_path / "starts" / "1001")
        assert np.abs(again.pose - start.pose).max() < module.AWAY
        type_in("q\n")
        with pytest.raises(KeyboardInterrupt):
            second(1001)


def test_an_arm_that_does_not_come_to_a_pose_says_why(answers, tmp_path):
    lane = Bench(task="reach", clock="simulated", horizon=20).lane()
    lane.reset(seed=1000)
    home = lane.seen()[STATE]
    near = home + np.array([0.1, 0, 0, 0, 0, 0], np.float32)
    assert lane.go(near) < module.AWAY and np.abs(lane.seen()[STATE] - near).max() < module.AWAY
    lane.arm.guard.stop("enough")
    assert lane.go(home + 0.3) > module.AWAY and "enough" in "; ".join(lane.told()["reasons"])
    lane.close()
