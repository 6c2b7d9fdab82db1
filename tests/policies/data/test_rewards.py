"""Rewards, masks, returns and later observations that critics learn from, against a plain loop over the steps."""

import dataclasses

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import STATE, Embodiment, Window
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.rewards import EVERY, SENT, Kind, Rewards, open_windows
from understudy.policies.data.task_spec import Mirror, Reflection
from understudy.policies.data.writer import DatasetWriter

BODY = Embodiment(
    name="walker", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0,
    state=("x",), state_units=("m",),
)  # fmt: skip
EPISODES = ((9, 8), (6, None), (2, 1), (7, 4), (1, None))  # length, first success; one goes on after it
GAMMA = 0.9


def write(root, episodes=EPISODES, success=None):
    writer = DatasetWriter(root, BODY)
    for start, (length, first) in enumerate(episodes):
        state = (100 * start + np.arange(length, dtype=np.float32))[:, None]
        zeros, won = np.zeros(length, np.float32), np.zeros(length, bool)
        if first is not None:
            won[first:] = True
        writer.add(
            Episode(
                start=start,
                task="walk",
                obs={STATE: state},
                action=state / 1000,
                sent=-state / 1000,
                reward=zeros,
                progress=zeros,
                success=won,
                terminated=first is not None,
                truncated=first is None,
            )  # fmt: skip
        )
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("value") / "demos")


def opened(root, rewards: Rewards):
    return rewards.open(root, (STATE,))


def by_hand(length, first, kind: Kind, final: int, steps: int):
    """Rows (reward, discount, return, whole) of one episode, step by step."""
    later, done = kind.pays
    reward = [done if first is not None and t > first - final else later for t in range(length)]
    mask = [0.0 if first is not None and t > first - final else 1.0 for t in range(length)]
    returns, after = [0.0] * length, later / (1 - GAMMA)
    for t in reversed(range(length)):
        returns[t] = after = reward[t] + GAMMA * mask[t] * after
    rows = []
    for t in range(length):
        total, discount, taken = 0.0, 1.0, 0
        for k in range(t, min(t + steps, length)):
            total, discount, taken = total + discount * reward[k], discount * GAMMA * mask[k], taken + 1
            if not mask[k]:
                break
        rows.append((total, discount, returns[t], taken == steps or discount == 0))
    return rows


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("final", [1, 3])
@pytest.mark.parametrize("steps", [1, 4])
def test_rewards_masks_and_returns_are_those_of_a_plain_loop(root, kind, final, steps):
    rewards = Rewards(kind=kind, gamma=GAMMA, final=final)
    rows = rewards.rows(opened(root, rewards), steps)
    wanted = np.array([row for length, first in EPISODES for row in by_hand(length, first, kind, final, steps)])
    for place, name in enumerate(("reward", "discount", "return", "whole")):
        np.testing.assert_allclose(rows[name], wanted[:, place], rtol=1e-5, atol=1e-6, err_msg=name)
    low, high = rewards.bounds
    assert (rows["return"] >= low - 1e-5).all() and (rows["return"] <= high + 1e-5).all()


def test_the_published_returns_with_three_final_steps(root):
    """gamma^n, or -(1 - gamma^n) / (1 - gamma), n steps before the last three; a failure fails for ever."""
    steps_left = np.maximum(np.arange(9)[::-1] - 2, 0)
    for kind, wanted, failed in (
        (Kind.zero_one, GAMMA**steps_left, 0.0),
        (Kind.minus_one, -(1 - GAMMA**steps_left) / (1 - GAMMA), -1 / (1 - GAMMA)),
    ):
        rewards = Rewards(kind=kind, gamma=GAMMA)
        rows = rewards.rows(opened(root, rewards), 1)
        np.testing.assert_allclose(rows["return"][:9], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows["return"][9:15], failed, rtol=1e-5)
        assert (rows["discount"][6:9] == 0).all() and (rows["discount"][9:15] > 0).all()  # time-outs are bootstrapped


def test_a_batch_holds_what_is_seen_later_and_what_was_executed(root):
    config = IQLConfig(window=Window(observe=(-1, 0), horizon=4), rewards=Rewards(gamma=GAMMA))
    windows = open_windows(opened(root, config.rewards), config, np.arange(len(EPISODES)))
    batch = windows.gather(np.arange(len(windows)))
    length = np.repeat([length for length, _ in EPISODES], [length for length, _ in EPISODES])
    episode = np.repeat(np.arange(len(EPISODES)), [length for length, _ in EPISODES])
    now = batch[STATE][:, -1, 0].numpy() - 100 * episode
    later = np.minimum(now + 4, length - 1)
    np.testing.assert_array_equal(batch["later." + STATE][:, 1, 0], 100 * episode + later)
    np.testing.assert_array_equal(batch["later." + STATE][:, 0, 0], 100 * episode + np.maximum(later - 1, 0))
    np.testing.assert_array_equal(batch["later.observation.valid"][:, 0], later > 0)
    np.testing.assert_allclose(batch["action"][:, 0, 0], -batch[STATE][:, -1, 0] / 1000)  # sent, not asked for
    assert batch["reward"].shape == batch["return"].shape == (25,) and str(batch["whole"].dtype) == "torch.bool"


def test_a_recording_without_executed_actions_gives_those_asked_for(root):
    rewards = Rewards()
    plain = open_dataset(root, columns=(STATE,))
    assert SENT not in plain.columns and (opened(root, rewards).columns[SENT] == -plain.columns["action"]).all()


def test_every_episode_may_count_as_a_success(root):
    rewards = Rewards(success=EVERY)
    dataset = opened(root, rewards)
    assert (rewards.successes(dataset) == dataset.lengths - 1).all()
    assert "without failures" in rewards.account(dataset, np.arange(5))
    assert Rewards().successes(opened(root, Rewards())).tolist() == [8, -1, 1, 4, -1]


def test_labels_that_tell_nothing_are_refused(root, tmp_path):
    with pytest.raises(DatasetError, match="nobody says which episodes succeeded.*rewards.success to every"):
        opened(root, Rewards(success="next.victory"))
    broken = opened(root, Rewards())
    values = broken.columns["next.success"].copy()
    values[3] = np.nan
    broken = dataclasses.replace(broken, columns=broken.columns | {"next.success": values})
    with pytest.raises(DatasetError, match="'next.success' of .* is NaN or infinite in row 3"):
        Rewards().rows(broken, 1)
    with pytest.raises(DatasetError, match="is 2 numbers a frame"):
        wide = np.zeros((25, 2), np.float32)
        Rewards().rows(dataclasses.replace(broken, columns=broken.columns | {"next.success": wide}), 1)
    lost = write(tmp_path / "lost", ((4, None), (3, None)))
    with pytest.raises(DatasetError, match="no episode of .* succeeded"):
        Rewards().account(opened(lost, Rewards()), np.arange(2))
    for wrong in ({"gamma": 1.0}, {"final": 0}):
        with pytest.raises(ValueError, match="must be within|at least 1"):
            Rewards(**wrong)


def test_the_mirror_reflects_what_is_seen_later_too(root):
    config = IQLConfig(window=Window(observe=(0,), horizon=2))
    batch = open_windows(opened(root, config.rewards), config, np.arange(5)).gather(np.arange(25))
    flip = Reflection(take=(0,), sign=(-1.0,), plus=(0.0,))
    mirrored = Mirror({STATE: flip, "action": flip}, (STATE,))(batch)
    signs = mirrored[STATE][1:, 0, 0].sign() * batch[STATE][1:, 0, 0].sign()
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert (mirrored["later." + STATE][1:, 0, 0] == signs * batch["later." + STATE][1:, 0, 0]).all()
    assert (mirrored["action"][1:, 0, 0] == signs * batch["action"][1:, 0, 0]).all()
