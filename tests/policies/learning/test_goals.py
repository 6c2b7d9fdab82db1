"""Policies that act for a goal picture do what it shows, and refuse what they cannot read."""

import json

import cv2
import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import GOAL, IMAGES, STATE, Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.goal import windows_of
from understudy.policies.agent.open import Acting, agent_settings, open_agent
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.resident import ResidentWindows
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.memory import kept_bytes
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train, start_run
from understudy.policies.load import load_policy
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.augment import Augment
from understudy.policies.networks.eyes import Vision
from understudy.policies.networks.goals import GoalError
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.resnet import ResNetConfig

pytestmark = pytest.mark.usefixtures("cache")

TOP, SIDE = IMAGES + "top", 16
BODY = Embodiment(
    name="point", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",),
    state_units=("m",), cameras={"top": (SIDE, SIDE)},
)  # fmt: skip
SETTINGS = {
    "inputs": (STATE, TOP),
    "goal": (TOP,),
    "window": Window(observe=(0,), horizon=2),
    "n_action_steps": 1,
    "network": MLPConfig(width=32, depth=1, condition_width=32),
    "vision": Vision(encoder=ResNetConfig(width=16, blocks=(1,), keypoints=8, features=8), augment=Augment(shift=0)),
}


def picture(x: float) -> np.ndarray:
    """A bright bar on grey at x in [-1, 1]."""
    out = np.full((SIDE, SIDE, 3), 60, np.uint8)
    left = round((x + 1) / 2 * (SIDE - 4))
    out[:, left : left + 4] = (250, 200, 40)
    return out


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """From the middle to the left or to the right: the last picture alone tells which."""
    root, rng = tmp_path_factory.mktemp("goals") / "demos", np.random.default_rng(0)
    writer = DatasetWriter(root, BODY, pictures="image")
    for start in range(16):
        side = 1 if start % 2 else -1
        state, none = rng.uniform(-0.3, 0.3, (9, 1)).astype(np.float32), np.zeros(9, np.float32)
        state[-1] = 0.8 * side
        action = np.full((9, 1), 0.8 * side, np.float32)
        obs = {STATE: state, TOP: np.stack([picture(float(x)) for x in state[:, 0]])}
        quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
        writer.add(Episode(start=start, task="go", obs=obs, action=action, sent=action, **quiet))
    return root


def run(demos, out, policy, steps=150):
    pace = {"log_every": 50, "validate_every": steps, "save_every": steps}
    optimize = Optimize(lr=3e-3, warmup=10, ema=0.9)
    start_run(Train(data=str(demos), policy=policy, out=out, steps=steps, batch=32, optimize=optimize, **pace))
    return out


@pytest.fixture(scope="module")
def trained(demos, tmp_path_factory):
    return run(demos, tmp_path_factory.mktemp("runs") / "goal", RegressionConfig(**SETTINGS))


def act(trained, goal):
    agent, _ = open_agent(Acting(policy=str(trained), block=2, goal=goal), lambda: BODY)
    first = {STATE: np.zeros((2, 1), np.float32), TOP: np.stack([picture(0.0)] * 2)}
    agent.reset(np.zeros(2), np.ones(2, bool), first)
    assert agent_settings(Acting(policy=str(trained), goal=goal), agent)["goal"] == goal
    return agent.act()[:, 0, 0]


def test_a_policy_does_what_the_goal_shows(demos, trained, tmp_path, capsys):
    left, right = tmp_path / "left.png", tmp_path / "right.png"
    for file, side in ((left, -0.8), (right, 0.8)):
        cv2.imwrite(str(file), picture(side)[..., ::-1])
        assert act(trained, str(file)) == pytest.approx(np.full(2, side), abs=0.25)
    assert f"acts for the goal {right}" in capsys.readouterr().out
    assert act(trained, f"{demos}:2")[0] < -0.4 < 0.4 < act(trained, f"{demos}:3")[0]
    assert act(trained, f"top={right}")[0] > 0.4
    document = json.loads((trained / "last" / "config.json").read_text())
    assert document["config"]["goal"] == [TOP]


def test_goals_are_gathered_with_windows_wherever_these_lie(demos, trained):
    dataset = open_dataset(demos, columns=(STATE, TOP))
    windows = Windows(dataset, Window(), (STATE, TOP), **windows_of(load_policy(trained)[0]))
    batch = windows.gather(torch.tensor([0, 8, 9]))
    assert torch.equal(batch[GOAL + TOP][0], batch[GOAL + TOP][1])
    assert torch.equal(batch[GOAL + TOP][1], batch[TOP][1, -1]) and batch[GOAL + TOP].shape == (3, SIDE, SIDE, 3)
    for room in (1e9, 0):
        held = ResidentWindows(windows, "cpu", room)(torch.tensor([0, 8, 9]))
        assert all(torch.equal(batch[key], held[key]) for key in batch)


def test_a_goal_through_a_frozen_encoder_is_read_from_kept_embeddings(demos, trained, tmp_path):
    vision = Vision(init=str(trained), frozen=True)
    head = run(demos, tmp_path / "head", FlowConfig(**{**SETTINGS, "vision": vision}, noise_draws=2), steps=4)
    assert act(head, f"{demos}:2").shape == (2,)


def test_goals_that_cannot_be_read_are_refused_by_name(demos, trained, tmp_path):
    def refused(goal, match, error=GoalError):
        with pytest.raises(error, match=match):
            act(trained, goal)

    def written(name, pixels):
        cv2.imwrite(str(tmp_path / name), pixels)
        return str(tmp_path / name)

    refused(None, r"acts for a goal picture \(top\), and none is given; give --goal PICTURE, or --goal DATA:EPISODE")
    refused(str(tmp_path / "none.png"), "there is no picture .*none.png; give a file, or DATA:EPISODE")
    refused(written("large.png", np.zeros((32, 20, 3), np.uint8)), "is 32x20; the policy learnt from 16x16")
    refused(written("grey.png", np.zeros((16, 16), np.uint8)), "shades of grey alone")
    refused(written("deep.png", np.zeros((16, 16, 3), np.uint16)), "16 bits a channel")
    refused("wrist=a.png", "goal of each of top; give --goal top=PICTURE")
    (tmp_path / "text.png").write_text("no picture")
    refused(str(tmp_path / "text.png"), "is no readable picture")
    refused(f"{demos}:99", "99", DatasetError)
    with pytest.raises(GoalError, match="'observation.images.side' cannot be a goal: `goal` names cameras among"):
        run(demos, tmp_path / "run", RegressionConfig(**{**SETTINGS, "goal": (IMAGES + "side",)}))
    assert not (tmp_path / "run").exists()


def test_a_policy_without_goals_takes_none(demos, tmp_path):
    plain = run(demos, tmp_path / "plain", RegressionConfig(**{**SETTINGS, "goal": ()}), steps=2)
    with pytest.raises(GoalError, match="acts for no goal picture; leave out --goal"):
        act(plain, f"{demos}:2")
    agent = Agent(load_policy(plain)[0], lanes=1)
    assert agent.planner.goals is None


def test_the_memory_of_a_step_counts_the_goals_too(trained):
    model, _ = load_policy(trained)
    shown = torch.zeros(2, 1, SIDE, SIDE, 3, dtype=torch.uint8)
    seen = kept_bytes(model.train(), {TOP: shown, GOAL + TOP: shown[:, 0]})
    model.goals = None
    alone = kept_bytes(model, {TOP: shown})
    assert seen > 1.8 * alone
