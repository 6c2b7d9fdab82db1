"""Policies that see act wherever others do: the world's cameras are opened by themselves, at the sizes recorded."""

import warnings

import numpy as np
import pytest
import torch

import understudy
from understudy.configs.spec import IMAGES, STATE, EmbodimentError, Window
from understudy.configs.world import looked_at, read_world
from understudy.eval.compose.mix import Mix
from understudy.eval.demos.demos import Demos
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.sight import SightWarning
from understudy.policies.compositions.mixture import ConvexConfig, WeightSchedule
from understudy.policies.data.open import open_dataset
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.eyes import Vision
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.resnet import ResNetConfig

TOP, RECORDED, READ = IMAGES + "top", (24, 32), (12, 16)
WORLD = {"type": "point", "horizon": 6}
VISION = Vision(encoder=ResNetConfig(width=16, blocks=(1,), keypoints=4, features=4), size=READ)


def save(folder, inputs, camera="top", recall=()):
    """An untrained policy of the point task."""
    body = read_world("point").embodiment().with_cameras({camera: RECORDED})
    config = DiffusionConfig(
        window=Window(observe=(0,), recall=recall, horizon=4), inputs=inputs, n_action_steps=2,
        network=MLPConfig(width=16, depth=1, condition_width=8), vision=VISION if len(inputs) > 1 else None,
    )  # fmt: skip
    torch.manual_seed(0)
    save_checkpoint(folder, config.build(body, blank_scales(body)), kind="policy", config=config)
    return str(folder)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    return save(tmp_path_factory.mktemp("policies") / "seeing", (STATE, TOP))


@pytest.fixture(scope="module")
def mixed(seeing, tmp_path_factory):
    """A mixture with a policy of states."""
    folder = tmp_path_factory.mktemp("policies")
    how = ConvexConfig(weights=WeightSchedule(weights=((0.5, 0.5),)))
    Mix(parents=(seeing, save(folder / "blind", (STATE,))), how=how, out=folder / "m").run()
    return str(folder / "m")


def test_cameras_are_drawn_as_they_were_recorded_and_fitted_as_in_training(seeing):
    agent = Agent(load_policy(seeing)[0], lanes=1)
    assert agent.pictures == {TOP: RECORDED}
    world = looked_at(read_world(WORLD), agent.pictures)
    assert world.cameras == {"top": RECORDED}


def test_a_policy_that_sees_acts_alone_and_in_a_mixture_without_a_word_about_cameras(seeing, mixed):
    for path in (seeing, mixed):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SightWarning)
            tried = understudy.rollout(path, WORLD, episodes=2, num_envs=2, keep=True)
        assert tried.episodes[0].obs[TOP].shape[1:] == (*RECORDED, 3)
    opened = {**WORLD, "cameras": {"top": RECORDED}}
    one, other = (understudy.rollout(seeing, world, episodes=2, num_envs=2).actions for world in (opened, WORLD))
    assert all(np.array_equal(one[seed], other[seed]) for seed in one)


def test_what_it_did_is_recorded_as_data_with_its_pictures(seeing, tmp_path):
    settings = {"task": "point", "world": WORLD, "episodes": 2, "policy": (seeing,), "keep_failures": True}
    Demos(**settings, block=2, pictures="image", out=str(tmp_path / "d")).run()
    assert open_dataset(tmp_path / "d").embodiment.cameras == {"top": RECORDED}


def test_a_policy_in_the_hand_reads_a_single_picture_as_a_world_s(seeing):
    policy = understudy.load(seeing, world=WORLD)
    env = understudy.make(WORLD, cameras={"top": RECORDED})
    obs, _ = env.reset(seed=1000)
    policy.reset(env_seed=1000)
    ours = policy.select_action(obs)
    assert np.allclose(ours, understudy.rollout(seeing, WORLD, episodes=1, num_envs=1).actions[1000][0], atol=1e-5)
    policy.reset(env_seed=1000)
    floats = {**obs, TOP: torch.from_numpy(obs[TOP]).movedim(-1, 0).float() / 255}
    assert np.allclose(policy.select_action(floats), ours, atol=1e-6)


def test_self_verification_and_a_long_memory_work_on_embeddings(tmp_path):
    path = save(tmp_path / "past", (STATE, TOP), recall=(-2, -1))
    tried = understudy.rollout(path, WORLD, episodes=2, num_envs=2, candidates=3, critic="recall")
    assert len(tried.actions[1000]) == 6


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, *RECORDED, 1), np.uint8),
        np.zeros((1, *RECORDED, 3), np.uint16),
        np.zeros((1, 3, 24, 32), np.float32),
    ],
)
def test_pictures_of_another_kind_are_refused_before_it_acts(seeing, bad):
    agent = Agent(load_policy(seeing)[0], lanes=1)
    with pytest.raises(EmbodimentError, match="'observation.images.top' should be uint8 pictures"):
        agent.reset(np.zeros(1), np.ones(1, bool), {STATE: np.zeros((1, 2), np.float32), TOP: bad})


def test_a_camera_of_another_size_is_named_and_a_missing_one_refused(seeing, tmp_path):
    with pytest.warns(
        SightWarning, match="pictures of 30x30, the policy learnt from 24x32; they are cut to other prop"
    ):
        understudy.rollout(seeing, {**WORLD, "cameras": {"top": [30, 30]}}, episodes=1, num_envs=1)
    wrist = save(tmp_path / "wrist", (STATE, IMAGES + "wrist"), camera="wrist")
    with pytest.raises(EmbodimentError, match="'observation.images.wrist' is needed but 'point' does not offer it"):
        understudy.rollout(wrist, WORLD, episodes=1)
