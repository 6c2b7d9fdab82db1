"""Fitted Q-evaluation against exact solutions of a small decision process, and the shortlist by hand."""

import dataclasses
import math

import numpy as np
import pytest

from understudy.eval.offline.fqe import Estimate, FitSettings, Logged, evaluate_logged
from understudy.eval.offline.shortlist import regret, sharpe_ratio, top

STATES, ACTIONS, GAMMA = 4, 2, 0.9
RNG = np.random.default_rng(3)
MOVES = RNG.dirichlet(np.ones(STATES) * 0.7, (STATES, ACTIONS))
PAYS = RNG.uniform(-1, 1, (STATES, ACTIONS))
ENDS = np.array([[0.0, 0.1], [0.05, 0.0], [0.0, 0.2], [0.1, 0.0]])  # probability that the episode ends here
POLICY = np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.05, 0.95]])
TABLE = FitSettings(widths=(), steps=600, batch=10_000, rate=0.1, tau=0.2, bounded=False, replicates=6)


def cell(state, action):
    """(..., S * A) one-hot."""
    return np.eye(STATES * ACTIONS, dtype=np.float32)[np.asarray(state) * ACTIONS + np.asarray(action)]


def logs(episodes, steps=12, draws=2, seed=0, pays=PAYS):
    """Episodes of a behaviour that acts by chance, as arrays of states, actions, ... and as `Logged`."""
    rng, rows, first = np.random.default_rng(seed), [], rng_states(episodes, seed)
    for episode, state in enumerate(first):
        for _ in range(steps):
            action = rng.integers(ACTIONS)
            later, over = rng.choice(STATES, p=MOVES[state, action]), rng.random() < ENDS[state, action]
            rows.append((state, action, pays[state, action], 0.0 if over else GAMMA, later, episode))
            state = later
            if over:
                break
    state, action, reward, discount, later, episode = map(np.array, zip(*rows, strict=True))
    drawn = (rng.random((len(later), draws)) < POLICY[later][:, 1:]).astype(int)
    begun = (rng.random((episodes, draws)) < POLICY[first][:, 1:]).astype(int)
    nothing = np.zeros((len(state), 0), np.float32)
    logged = Logged(
        nothing, cell(state, action), reward, discount, nothing, cell(later[:, None], drawn), episode,
        np.zeros((episodes, 0), np.float32), cell(first[:, None], begun),
    )  # fmt: skip
    return logged


def rng_states(episodes, seed):
    return np.random.default_rng([seed, 1]).integers(0, STATES, episodes)


def solution(logged):
    """The fixed point of the fit on these very transitions and draws: a linear system in the cells of the table."""
    cells = logged.action.argmax(1)
    count = np.maximum(np.bincount(cells, minlength=STATES * ACTIONS), 1)
    after, pays = np.zeros((STATES * ACTIONS,) * 2), np.zeros(STATES * ACTIONS)
    np.add.at(pays, cells, logged.reward)
    np.add.at(after, cells, logged.discount[:, None] * logged.later_action.mean(1))
    q = np.linalg.solve(np.eye(STATES * ACTIONS) - after / count[:, None], pays / count)
    return float((logged.first_action.mean(1) @ q).mean())


def truth(pays=PAYS):
    """The policy's value by the decision process itself, from uniform first states."""
    go = np.einsum("sa,sa,sat->st", POLICY, GAMMA * (1 - ENDS), MOVES)
    return float(np.linalg.solve(np.eye(STATES) - go, (POLICY * pays).sum(1)).mean())


def test_a_table_is_fitted_to_the_exact_solution():
    logged = logs(150)
    found = evaluate_logged(logged, TABLE)
    assert found.value.estimate == pytest.approx(solution(logged), abs=0.005)
    assert found.value.low < found.value.estimate < found.value.high


def test_the_interval_covers_the_truth_and_narrows_with_data():
    fit, widths = dataclasses.replace(TABLE, batch=256), []
    for episodes, seeds in ((40, range(3)), (300, range(3, 5))):
        found = [evaluate_logged(logs(episodes, seed=seed), fit).value for seed in seeds]
        assert sum(one.low <= truth() <= one.high for one in found) >= len(found) - 1
        widths.append(np.mean([one.high - one.low for one in found]))
    assert widths[1] < 0.6 * widths[0]


def test_bounded_networks_find_the_chance_of_success():
    """Reward 1 that ends the episode: values are discounted chances of success, and networks need no table."""
    logged = logs(300)
    logged = dataclasses.replace(logged, reward=(logged.discount == 0).astype(float))
    found = evaluate_logged(logged, FitSettings(widths=(32,), steps=800, batch=256, rate=0.01, tau=0.1, replicates=4))
    assert found.value.estimate == pytest.approx(solution(logged), abs=0.03)
    assert found.value.estimate == pytest.approx(truth(ENDS), abs=0.08) and isinstance(found, Estimate)


def test_the_same_seed_gives_the_same_estimate_and_wrong_parts_are_named():
    logged, fit = logs(20), dataclasses.replace(TABLE, steps=50)
    assert np.array_equal(evaluate_logged(logged, fit).replicates, evaluate_logged(logged, fit).replicates)
    with pytest.raises(ValueError, match="'reward' has 3 rows"):
        evaluate_logged(dataclasses.replace(logged, reward=logged.reward[:3]), fit)
    with pytest.raises(ValueError, match="episodes are numbered 0..4"):
        evaluate_logged(dataclasses.replace(logged, first=logged.first[:5], first_action=logged.first_action[:5]), fit)
    with pytest.raises(ValueError, match="2 replicates"):
        FitSettings(replicates=1)


def test_the_shortlist_by_hand():
    estimates, truths = [0.9, 0.1, 0.5, 0.4], [0.4, 0.9, 0.6, 0.2]
    assert top(estimates, truths, 3).tolist() == [0.4, 0.6, 0.2]
    assert sharpe_ratio(estimates, truths, 0.3, 2) == pytest.approx((0.6 - 0.3) / np.std([0.4, 0.6], ddof=1))
    assert sharpe_ratio(estimates, truths, 0.7, 3) == 0
    assert sharpe_ratio([1, 2], [0.5, 0.5], 0.4, 2) == math.inf and sharpe_ratio([1, 2], [0.5, 0.5], 0.5, 2) == 0
    assert regret(estimates, truths) == pytest.approx(0.5) and regret(estimates, truths, 4) == 0
    with pytest.raises(ValueError, match="k is at least 2"):
        sharpe_ratio(estimates, truths, 0.3, 1)
    with pytest.raises(ValueError, match="1..4 entries"):
        sharpe_ratio(estimates, truths, 0.3, 5)
    with pytest.raises(ValueError, match="not of the same policies"):
        sharpe_ratio(estimates, truths[:2], 0.3, 2)
