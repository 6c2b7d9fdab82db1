"""Statements over training seeds: parity with rliable, coverage by simulation, refusals."""

import numpy as np
import pytest

from understudy.eval.statistics.intervals import wilson
from understudy.eval.statistics.seeds import (
    iqm,
    iqm_interval,
    optimality_gap,
    over_seeds,
    performance_profile,
    probability_of_improvement,
    t_interval,
)

EPISODES = 50
TOY = np.random.default_rng(5).binomial(EPISODES, [[0.3, 0.8, 0.55]], (10, 3)) / EPISODES
BETTER = np.random.default_rng(6).binomial(EPISODES, [[0.45, 0.8, 0.7]], (7, 3)) / EPISODES


@pytest.fixture
def rliable():
    """rliable ignores its `random_state` and draws from numpy's global generator, which is put back afterwards."""
    pytest.importorskip("rliable", reason="rliable is a test-only package of the extra 'dev'")
    from rliable import library, metrics

    state = np.random.get_state()
    np.random.seed(0)
    yield library, metrics
    np.random.set_state(state)


@pytest.mark.parametrize("shape", [(3, 1), (4, 1), (5, 2), (10, 3), (7, 26)])
def test_aggregates_equal_rliable(rliable, shape):
    _, theirs = rliable
    scores = np.random.default_rng(shape).random(shape)
    assert iqm(scores, episodes=9) == pytest.approx(theirs.aggregate_iqm(scores), abs=1e-12)
    assert optimality_gap(scores, episodes=9) == pytest.approx(theirs.aggregate_optimality_gap(scores), abs=1e-12)


def test_stratified_bootstrap_equals_rliable(rliable):
    """The same interval within the noise of drawing: two runs of either differ as much."""
    library, theirs = rliable
    _, interval = library.get_interval_estimates(
        {"toy": TOY}, lambda scores: np.array([theirs.aggregate_iqm(scores)]), reps=8000
    )
    ours = iqm_interval(TOY, np.random.default_rng(0), episodes=EPISODES, draws=8000)
    assert ours[::2] == pytest.approx(interval["toy"][:, 0], abs=0.006)


def test_performance_profile_equals_rliable(rliable):
    library, _ = rliable
    levels = np.linspace(0, 1, 11)
    shares, bands = library.create_performance_profile({"toy": TOY}, levels, reps=2000)
    ours = performance_profile(TOY, levels, np.random.default_rng(0), episodes=EPISODES)
    assert ours.estimate == pytest.approx(shares["toy"])
    assert np.stack([ours.low, ours.high]) == pytest.approx(bands["toy"], abs=0.04)


def test_probability_of_improvement_equals_rliable(rliable):
    library, theirs = rliable
    point, interval = library.get_interval_estimates(
        {"pair": (BETTER, TOY)}, lambda a, b: np.array([theirs.probability_of_improvement(a, b)]), reps=600
    )
    ours = probability_of_improvement(TOY, BETTER, np.random.default_rng(0), episodes=EPISODES)
    assert ours.estimate == pytest.approx(point["pair"][0])
    assert ours[::2] == pytest.approx(interval["pair"][:, 0], abs=0.03)


def test_probability_of_improvement_by_its_definition():
    first, second = [0.1, 0.5, 0.5], [0.5, 0.7]
    pairs = [(b > a) + 0.5 * (a == b) for a in first for b in second]
    rng = np.random.default_rng(0)
    assert probability_of_improvement(first, second, rng, episodes=9).estimate == pytest.approx(np.mean(pairs))
    assert probability_of_improvement(first, first, rng, episodes=9).estimate == 0.5
    with pytest.raises(ValueError, match="3 tasks cannot be compared with 1"):
        probability_of_improvement(TOY, first, rng, episodes=9)


@pytest.mark.parametrize(("rate", "said"), [(0.2, 0.0), (0.3, 0.1), (0.5, 0.5), (0.7, 0.9), (0.8, 1.0)])
def test_why_the_iqm_of_single_episodes_is_refused(rate, said):
    """What the refusal claims is true: the interquartile mean of 0/1 outcomes is no rate."""
    outcomes = np.repeat([1.0, 0.0], [round(1000 * rate), 1000 - round(1000 * rate)])
    assert iqm(outcomes, episodes=2) == pytest.approx(said)
    with pytest.raises(ValueError, match="single episodes.*no success rate"):
        iqm(outcomes, episodes=1)


def test_one_seed_speaks_for_its_checkpoint_only():
    said = over_seeds([30], [50])
    assert said.interval == wilson(30, 50) and "for this checkpoint" in str(said)
    with pytest.raises(ValueError, match="two seeds"):
        t_interval([0.4])


def test_seeds_are_the_unit():
    spread = over_seeds([10, 30, 48], [50, 50, 50])
    assert spread.interval == pytest.approx((0.0, 88 / 150, 1.0)) and spread.scope == "over 3 training seeds"
    alike = over_seeds([50, 50, 50], [50, 50, 50])
    assert alike.interval == wilson(150, 150)  # no spread among three is no certainty
    with pytest.raises(ValueError, match="one count"):
        over_seeds([1, 2], [3])
    with pytest.raises(ValueError, match="is not a rate"):
        over_seeds([4, 1], [3, 3])


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_seeds_cover_the_recipe(seeds):
    """Seeds whose true rates spread (sd .10 about .6): what is printed covers .6; pooling the episodes does not."""
    rng, runs, mean, sd = np.random.default_rng(seeds), 2000, 0.6, 0.1
    size = mean * (1 - mean) / sd**2 - 1
    successes = rng.binomial(EPISODES, rng.beta(mean * size, (1 - mean) * size, (runs, seeds)))
    printed = [over_seeds(row, np.full(seeds, EPISODES)).interval for row in successes]
    pooled = [wilson(int(row.sum()), seeds * EPISODES) for row in successes]
    covered, naive = (np.mean([low <= mean <= high for low, _, high in them]) for them in (printed, pooled))
    assert covered >= 0.94 and naive <= 0.85
