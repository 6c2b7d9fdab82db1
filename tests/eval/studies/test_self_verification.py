"""The study of self-verification: every N from the same starts, the error of the kept plan's past, one encoding."""

import numpy as np
import pytest
import torch

from understudy.configs.plugins import discover
from understudy.configs.spec import Window
from understudy.configs.world import read_world
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.eval.studies.self_verification import CRITIC, SelfVerification, first_lane, latency, measure
from understudy.policies.agent.agent import Agent
from understudy.policies.critics.open import open_critic
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

STATE = "observation.state"


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    """A policy that recalls three actions and was taught nothing; its past is as likely wrong as right."""
    discover("policies", "sim")
    body = read_world("point").embodiment()
    network = MLPConfig(width=16, depth=1, condition_width=8)
    window = Window(observe=(0,), recall=(-3, -2, -1), horizon=4)
    config = DiffusionConfig(inputs=(STATE,), window=window, n_action_steps=2, network=network)
    torch.manual_seed(0)
    policy = config.build(body, blank_scales(body))
    for parameter in policy.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("policy") / "00000001"
    save_checkpoint(folder, policy, kind="policy", config=config)
    return folder


def test_the_past_error_falls_with_n_and_one_plan_acts_as_the_plain_policy(remembering, tmp_path):
    world = {"type": "point", "horizon": 11}
    study = measure(
        SelfVerification(
            policy=str(remembering), world=world, out=tmp_path / "s.json", candidates=(1, 4, 16), episodes=10, rounds=2
        )
    )
    success, error = [row[1] for row in study.rows], [row[2][1] for row in study.rows]
    assert [row[0] for row in study.rows] == [1, 4, 16] and study.rows[0][4] == 1
    assert error[0] > error[1] > error[2] > 0
    plain = evaluate(Eval(policy=str(remembering), world=world, episodes=10, out=str(tmp_path / "r"), videos=0))
    assert success[0][1] == np.mean(plain.column("success"))


def test_the_observation_is_encoded_once_whatever_n(remembering):
    policy, _ = load_policy(remembering)
    agent = Agent(policy, lanes=3, n_action_steps=2, critic=open_critic(CRITIC, policy), candidates=2)
    agent.reset(np.arange(3), np.ones(3, bool), {STATE: np.zeros((3, len(policy.embodiment.state)), np.float32)})
    past, calls, encode = first_lane(agent.past()), [], policy.network.encode
    assert len(past.now) == 1 and len(past.obs[STATE]) == 1
    policy.network.encode = lambda *args: calls.append(args) or encode(*args)
    times = latency(policy, past, (1, 50), rounds=3)
    assert set(times) == {1, 50} and len(calls) == 2 * (3 + 2)  # once a plan, two warm-up rounds
    assert all(len(args[0]) == 1 for args in calls)


def test_a_used_file_is_refused(tmp_path):
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(FileExistsError, match="choose another --out"):
        SelfVerification(policy="runs/none", world="point", out=tmp_path / "s.json").run()


def test_the_command_says_what_differs_from_the_defaults(tmp_path):
    study = SelfVerification(policy="runs/a b", world="point", out=tmp_path / "s.json", candidates=(1, 3), episodes=9)
    said = f"understudy study self_verification --policy 'runs/a b' --world point --out {tmp_path / 's.json'} "
    assert study.command == said + "--candidates '[1, 3]' --episodes 9"
