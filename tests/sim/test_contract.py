"""The contract of a world, asked of every registered simulator: seeded, honest about its spaces, and solvable."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from understudy.configs.lanes.lane import Lane
from understudy.configs.plugins import discover
from understudy.configs.world import WORLDS, find_world
from understudy.sim.experts import EXPERTS

discover("sim")
SIMULATORS = sorted(name for name, world in WORLDS.items() if type(world).__module__.startswith("understudy.sim."))


@pytest.fixture(scope="module", params=SIMULATORS)
def world(request):
    """(name, world, two lanes of it)."""
    found = find_world(request.param)
    lanes = found.lane(), found.lane()
    yield request.param, found, lanes
    for lane in lanes:
        lane.close()


def some_actions(lane: Lane, count: int) -> np.ndarray:
    low, high = lane.action_space.low, lane.action_space.high
    return np.random.default_rng(0).uniform(low, high, (count, len(low))).astype(np.float32)


def same(one, other) -> bool:
    return all((one[key] == other[key]).all() for key in one)


def test_gymnasium_agrees(world):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises bounded, symmetric spaces
        check_env(world[2][0], skip_render_check=True)


def test_two_copies_give_one_episode(world):
    _, _, (one, other) = world
    other.reset(seed=1)  # what was done before must not matter
    other.step(other.action_space.high)
    first, second = one.reset(seed=1042), other.reset(seed=1042)
    assert same(first[0], second[0])
    for action in some_actions(one, 12):
        first, second = one.step(action), other.step(action)
        assert same(first[0], second[0]) and first[1:4] == second[1:4]
        assert first[4]["progress"] == second[4]["progress"]
    assert not same(one.reset(seed=1042)[0], one.reset(seed=1043)[0]), "another start is another state"


def test_what_is_seen_is_in_the_space_and_belongs_to_the_reader(world):
    _, found, (lane, _) = world
    obs, info = lane.reset(seed=3)
    assert set(obs) == set(found.embodiment().offers())
    for action in some_actions(lane, 3):
        kept = {key: value.copy() for key, value in obs.items()}
        seen, reward, terminated, truncated, info = lane.step(action)
        assert lane.observation_space.contains(seen)
        assert same(obs, kept) and not any(np.shares_memory(obs[key], seen[key]) for key in seen)
        assert 0 <= info["progress"] <= 1 and info["success"] in (True, False)
        assert info["action.sent"].dtype == np.float32 and lane.action_space.contains(info["action.sent"])
        obs = seen


def test_doing_nothing_does_not_succeed(world):
    _, found, (lane, _) = world
    for start in (0, 1):
        lane.reset(seed=start)
        for tick in range(1, found.steps() + 1):
            _, _, terminated, truncated, info = lane.step(lane.rest())
            assert not terminated and not info["success"] and info["progress"] < 1
            assert truncated == (tick == found.steps())


def test_the_expert_succeeds_and_stops_at_the_first_success(world):
    name, found, (lane, _) = world
    if found.task not in EXPERTS:
        pytest.skip(f"{name} has no scripted expert")
    for start in (100000, 100001, 100002):
        lane.reset(seed=start)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = lane.step(lane.expert_action())
        assert terminated and not truncated and info["success"] and info["progress"] == 1.0


def test_actions_are_clipped_to_the_limits(world):
    _, _, (lane, _) = world
    lane.reset(seed=0)
    low, high = lane.action_space.low, lane.action_space.high
    _, _, _, _, info = lane.step(high + 3 * (high - low))
    assert (info["action.sent"] == high).all()


def test_a_delay_executes_the_action_later(world):
    _, found, (lane, _) = world
    late = dataclasses.replace(found, delay=2).lane()
    obs, _ = lane.reset(seed=5)
    late_obs, _ = late.reset(seed=5)
    actions = some_actions(lane, 4)
    rest = late.rest()
    for action in (rest, rest, *actions[:2]):
        lane.step(action)
    sent = [late.step(action)[4]["action.sent"] for action in actions]
    assert np.allclose(sent, [rest, rest, *actions[:2]])
    assert same(lane.sense(), late.sense())
    late.close()


def test_a_shake_disturbs_what_is_executed(world):
    _, _, (lane, _) = world
    sent = []
    for _ in range(2):
        lane.reset(seed=5, options={"action_noise": 0.1})
        sent.append([lane.step(lane.rest())[4]["action.sent"] for _ in range(6)])
    lane.reset(seed=5)
    clean = lane.step(lane.rest())[4]["action.sent"]
    assert np.array_equal(sent[0], sent[1]) and not np.array_equal(sent[0][0], clean)


def test_the_fingerprint_is_plain_and_complete(world):
    _, found, _ = world
    told = json.loads(json.dumps(found.fingerprint()))
    assert told["task"] == found.task and told["horizon"] == found.steps() and told["delay"] == 0
    assert all(version != "absent" for version in told["versions"].values())
    assert dataclasses.replace(found, delay=1).fingerprint() != found.fingerprint()


def test_the_film_picture_is_a_picture(world):
    _, _, (lane, _) = world
    lane.reset(seed=0)
    picture = lane.render()
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8 and picture.std() > 5


def test_unknown_names_list_the_known():
    with pytest.raises(LookupError, match="Did you mean 'lift'"):
        find_world("lit")
    for name, camera in (("pusht", "image"), ("lift", "agentview"), ("point", "top")):
        with pytest.raises(LookupError, match=camera):
            dataclasses.replace(find_world(name), cameras={"attic": (8, 8)}).embodiment()
