"""PushT is gym-pusht, unchanged: states, rewards and pictures."""

import warnings

import gymnasium
import numpy as np
import pytest

from understudy.configs.spec import IMAGES, SCENE, STATE
from understudy.sim.pusht.gym_pusht import GymPushT


@pytest.fixture(scope="module")
def original():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gym_pusht  # noqa: F401 (registers the environment)

        env = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos").unwrapped
    yield env
    env.close()


def test_equals_gym_pusht_step_by_step(original):
    lane = GymPushT(cameras={"image": (96, 96)}).lane()
    obs, info = lane.reset(seed=1007)
    seen, _ = original.reset(seed=1007)
    toward = np.array(original.block.position)
    for step in range(25):
        assert np.abs(obs[STATE] - seen["agent_pos"]).max() < 1e-4
        assert np.abs(obs[SCENE] - seen["environment_state"]).max() < 1e-4
        assert (obs[IMAGES + "image"] == original._render()).all()
        action = (toward + [3 * step, -2 * step]).astype(np.float32)
        obs, reward, terminated, _, info = lane.step(action)
        seen, expected, ended, _, told = original.step(action)
        assert reward == expected and terminated == ended
        assert info["progress"] == pytest.approx(min(1, told["coverage"] / 0.95))
    assert np.abs(obs[SCENE][:2] - lane.reset(seed=1007)[0][SCENE][:2]).max() > 5, "the block was pushed"


def test_begins_at_a_given_state(original):
    state = [100.0, 120.0, 256.0, 300.0, 0.7]
    lane = GymPushT().lane()
    obs, info = lane.reset(seed=0, options={"state": state})
    seen, _ = original.reset(seed=0, options={"reset_to_state": state})
    assert np.allclose(obs[STATE], seen["agent_pos"]) and np.allclose(obs[SCENE], seen["environment_state"])
    assert np.allclose(lane.block_pose(), [*original.block.position, original.block.angle])
    assert 0 < info["progress"] < 1


def test_success_ends_the_episode(original):
    lane = GymPushT().lane()
    lane.reset(seed=0, options={"state": [400, 400, 256, 256, np.pi / 4]})
    lane._game.block.position, lane._game.block.angle = (256, 256), np.pi / 4
    _, reward, terminated, truncated, info = lane.step(np.array([400, 400]))
    assert terminated and not truncated and info["success"] and info["progress"] == 1.0 and reward == 1.0


def test_pictures_have_the_size_asked_for():
    lane = GymPushT(cameras={"image": (64, 80)}).lane()
    obs, _ = lane.reset(seed=0)
    assert obs[IMAGES + "image"].shape == (64, 80, 3) and lane.observation_space.contains(obs)


def test_the_horizon_is_ours():
    lane = GymPushT(horizon=310).lane()
    lane.reset(seed=0)
    truncated = [lane.step(lane.rest())[3] for _ in range(310)]
    assert truncated.index(True) == 309
