"""Lift-and-return: the common middle tells nothing, and success is split into completion and right context."""

import json

import numpy as np
import pytest

from understudy.configs.lanes import Lanes
from understudy.configs.spec import SCENE, STATE
from understudy.eval.contracts import check_world
from understudy.eval.demos import ExpertActor
from understudy.eval.rollout import rollout
from understudy.sim.memory_suite import DWELL, MIDDLE, ORIGINS, SuiteMemory

WORLD = SuiteMemory()


@pytest.fixture(scope="module")
def lane():
    made = WORLD.lane()
    yield made
    made.close()


def play(lane, start, wrong=False, shake=0.0):
    """The expert's episode, as if the cube came from the other origin where `wrong`: (observations, memory) a step."""
    obs, _ = lane.reset(seed=start, options={"shake": shake})
    seen, terminated, truncated = [], False, False
    while not (terminated or truncated):
        lane.origin ^= wrong
        action = lane.expert_action()
        lane.origin ^= wrong
        obs, _, terminated, truncated, info = lane.step(action)
        seen.append((obs, lane.memory(), info))
    return seen


def auc(features, classes, folds=5):
    """Area under the curve of a logistic regression, judged on episodes that it was not fitted to."""
    from scipy.optimize import minimize
    from scipy.stats import rankdata

    scores = np.zeros(len(classes))
    spread = features.std(0)
    features = np.c_[(features - features.mean(0)) / np.where(spread > 1e-9, spread, 1), np.ones(len(features))]
    for fold in range(folds):
        out = np.arange(len(classes)) % folds == fold
        x, sign = features[~out], 2.0 * classes[~out] - 1

        def loss(w, x=x, sign=sign):
            margin = sign * (x @ w)
            slope = -sign / (1 + np.exp(margin))
            return np.logaddexp(0, -margin).mean() + 1e-3 * w @ w, x.T @ slope / len(x) + 2e-3 * w

        weights = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
        scores[out] = rankdata(features[out] @ weights) / out.sum()
    ranks, ones = rankdata(scores), classes.sum()
    return (ranks[classes == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(classes) - ones))


def middles(lane, starts):
    """What is observed in the clamp, and the origins."""
    features, origins = [], []
    for start in starts:
        lane.reset(seed=start)
        while not lane.memory()["held"] and lane.ticks < lane.horizon:
            lane.advance(lane.expert_action())
        obs = lane.sense()
        features.append(np.concatenate([obs[STATE], obs[SCENE]]))
        origins.append(lane.origin)
    return np.array(features, np.float64), np.array(origins)


def test_the_world_keeps_its_contract():
    check_world(WORLD)


def test_starts_do_not_depend_on_what_was_played_before(lane):
    first = lane.reset(seed=3)[0]
    play(lane, 100000)
    again = lane.reset(seed=3)[0]
    other = WORLD.lane()
    fresh = other.reset(seed=3)[0]
    other.close()
    assert all((first[key] == again[key]).all() and (first[key] == fresh[key]).all() for key in first)


def test_both_origins_come(lane):
    sides, places = [], []
    for start in range(20):
        lane.reset(seed=start)
        sides.append(lane.origin)
        places.append(lane.cube()[:2] - ORIGINS[lane.origin])
    assert 4 < sum(sides) < 16
    assert 0.005 < np.abs(places).max() <= 0.016


def test_success_is_the_right_origin_and_completion_is_either(lane):
    right = play(lane, 100001)
    assert right[-1][2]["success"] and right[-1][2]["progress"] == 1
    assert lane.labels() == {"completion": True, "context": True, "origin": lane.origin}
    wrong = play(lane, 100001, wrong=True)
    assert not wrong[-1][2]["success"] and len(wrong) < lane.horizon
    assert lane.labels() == {"completion": True, "context": False, "origin": lane.origin}
    assert max(info["progress"] for _, _, info in wrong) < 1


def test_the_clamp_holds_whatever_is_asked_and_says_so(lane):
    lane.reset(seed=100002)
    while not lane.memory()["held"]:
        lane.advance(lane.expert_action())
    first, asked = lane.sense(), np.array([1, -1, 1, 0, 0, 1, -1], np.float32)
    assert np.linalg.norm(lane.cube() - MIDDLE) < 0.03
    for _ in range(DWELL):
        obs, _, _, _, info = lane.step(asked)
        assert all((obs[key] == first[key]).all() for key in obs)
        assert info["action.sent"].tolist() == [0, 0, 0, 0, 0, 0, 1]
    obs, *_ = lane.step(asked)
    assert np.abs(obs[STATE] - first[STATE]).max() > 1e-4


def test_what_follows_the_middle_is_the_same_whatever_came_before(lane):
    """One start from either origin: after the middle the same actions lead to the same observations, to the bit."""
    ends = []
    for origin in (0, 1):
        lane.reset(seed=100003)
        lane.origin = origin
        lane._put(ORIGINS[origin])
        while not lane.memory()["held"]:
            lane.advance(lane.expert_action())
        for _ in range(DWELL + 8):
            obs, *_ = lane.step(np.array([0.3, 0, -0.2, 0, 0, 0, 1], np.float32))
        ends.append(obs)
    assert all((ends[0][key] == ends[1][key]).all() for key in ends[0])


def test_a_probe_finds_what_there_is_to_find():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 400)
    noise = rng.normal(size=(400, 6))
    assert 0.4 < auc(noise, classes) < 0.6
    noise[:, 3] += classes
    assert auc(noise, classes) > 0.7


def test_a_probe_of_the_clamp_is_at_chance(lane):
    """The clamp's state does not depend on the way there, so that it can be asked for without going."""
    features, origins = [], []
    for start in range(200000, 200300):
        lane.reset(seed=start)
        lane._clamp()
        obs = lane.sense()
        features.append(np.concatenate([obs[STATE], obs[SCENE]]))
        origins.append(lane.origin)
    features, origins = np.array(features, np.float64), np.array(origins)
    assert (middles(lane, [200000, 200001])[0] == features[:2]).all()
    assert 0.4 < auc(features, origins) < 0.6


def test_labels_reach_the_rows_of_a_rollout():
    lanes = Lanes(WORLD, 2)
    rows = [result.row for result in rollout(ExpertActor(lanes), lanes, [100000, 100001])]
    lanes.close()
    assert all(row["success"] for row in rows)
    assert all(json.loads(row["labels"])["context"] for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_middle_does_not_tell_the_origin_to_a_probe(lane):
    features, origins = middles(lane, range(200000, 201720))
    assert min(np.bincount(origins)) >= 800
    assert 0.45 <= auc(features, origins) <= 0.55


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_expert_succeeds(lane):
    ends = [play(lane, start)[-1][2]["success"] for start in range(100000, 100100)]
    assert np.mean(ends) >= 0.95
