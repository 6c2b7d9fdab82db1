"""Square-long: what counts as a placing, what ends an episode, and that the count is not to be seen."""

import numpy as np
import pytest

from understudy.configs.spec import SCENE, STATE
from understudy.configs.world import find_world
from understudy.sim.experts import Manner
from understudy.sim.memory.square_long import FAR, NEAR
from understudy.sim.memory.suite import DWELL

ASKED = np.array([0.3, -0.3, 0.3, 0, 0, 0.3, -0.3], np.float32)


@pytest.fixture(scope="module")
def lane():
    made = find_world("square-long").lane()
    yield made
    made.close()


def flat(obs):
    return np.concatenate([obs[STATE], obs[SCENE]])


def play(lane, believe, middle=False, manner=0.0):
    """An episode of an expert that takes the count of placings for `believe(count)`: the best progress, the last info.
    `middle`: begin in the first middle."""
    _, info = lane.reset(seed=100001)
    if middle:
        lane.clamp()
    best, ended = 0.0, False
    while not ended:
        count = lane.visits
        lane.visits = believe(count)
        action = lane.expert_action(manner)
        lane.visits = count
        _, terminated, truncated, info = lane.advance(action)
        best, ended = max(best, info["progress"]), terminated or truncated
    return best, info


def test_success_is_two_placings_then_leaving(lane):
    best, info = play(lane, int)
    assert info["success"] and best == 1 and lane.ticks < lane.horizon
    assert lane.labels() == {"completion": True, "context": True, "count": 2}


@pytest.mark.parametrize(("believe", "count"), [(lambda n: n + 1, 1), (lambda n: min(n, 1), 3)])
def test_one_or_three_placings_complete_without_context(lane, believe, count):
    best, info = play(lane, believe, middle=True)
    assert not info["success"] and best < 1 and lane.ticks < lane.horizon
    assert lane.labels() == {"completion": True, "context": False, "count": count}


def test_a_demonstrator_may_forget(lane):
    failing = Manner(fail=1.0)
    start = next(start for start in range(100) if failing.of("square-long", start)["flaw"] == "forgets")
    lane.reset(seed=start)
    lane.clamp()
    while lane.answer is None and lane.ticks < lane.horizon:
        lane.advance(lane.expert_action(failing))
    assert lane.answer == 1


def test_nuts_lie_where_they_may(lane):
    places = []
    for start in range(20):
        lane.reset(seed=start)
        places.append(lane.nut())
    places = np.array(places)
    assert (places[:, :2] >= NEAR).all() and (places[:, :2] <= FAR).all() and (np.ptp(places, 0)[:2] > 0.1).all()
    assert lane.memory() == {"count": 0, "held": 0, "clear": 1} and not lane.labels()["completion"]


def test_a_nut_that_was_not_lifted_off_is_not_placed_again(lane):
    lane.reset(seed=5)
    lane.clamp()
    up, down = (np.array([0, 0, way, 0, 0, 0, 1], np.float32) for way in (0.3, -0.3))
    heights = []
    for action in [up] * (DWELL + 4) + [down] * 8:
        lane.step(action)
        heights.append(lane.nut()[2])
    assert max(heights) > heights[0] + 0.01 and heights[-1] < max(heights) - 0.01
    assert lane.visits == 1 and not lane.clear and lane.held == 0 and lane.answer is None


def test_what_follows_a_placing_is_the_same_whichever_it_was(lane):
    """The second middle is reached by the real way and made at once; and the count changes nothing that is seen."""
    ends = []
    for way in ("played", "made", "miscounted"):
        lane.reset(seed=100003)
        while way == "played" and not (lane.held and lane.visits == 2):
            lane.advance(lane.expert_action())
        if way != "played":
            lane.visits = 1
            lane.clamp()
        lane.visits = 1 if way == "miscounted" else lane.visits
        ends.append([flat(lane.step(ASKED)[0]) for _ in range(DWELL + 8)])
    assert np.array_equal(ends[0], ends[1]) and np.array_equal(ends[0], ends[2])
