"""Intervals against published numbers and by simulation."""

import numpy as np
import pytest

from understudy.eval.statistics.intervals import bootstrap_interval, exact, mean_interval, success_by_step, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(5, 20, 0.11, 0.47), (17, 20, 0.64, 0.95), (30, 60, 0.38, 0.62), (0, 20, 0, 0.16)],
)
def test_wilson_known_values(successes, n, low, high):
    interval = wilson(successes, n)
    assert interval.low == pytest.approx(low, abs=0.005)
    assert interval.high == pytest.approx(high, abs=0.005)
    assert interval.estimate == successes / n


def test_exact_known_values():
    assert exact(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert exact(5, 20)[::2] == pytest.approx((0.0866, 0.4910), abs=1e-4)
    assert exact(20, 20).low == pytest.approx(0.025 ** (1 / 20))
    assert (exact(0, 9).low, exact(9, 9).high) == (0, 1)


def test_exact_is_never_short_of_its_coverage():
    for n, rate in ((10, 0.5), (20, 0.9), (50, 0.97)):
        counts = np.random.default_rng(0).binomial(n, rate, 4000)
        hits = [interval.low <= rate <= interval.high for interval in (exact(int(count), n) for count in counts)]
        assert np.mean(hits) >= 0.95 - 0.007


def test_both_intervals_treat_success_and_failure_alike():
    for n in (5, 20, 100):
        for successes in range(n + 1):
            for interval in (wilson, exact):
                low, rate, high = interval(successes, n)
                assert 0 <= low <= rate <= high <= 1
                assert interval(n - successes, n) == pytest.approx((1 - high, 1 - rate, 1 - low))


def test_mean_interval_is_student_t():
    interval = mean_interval([0.2, 0.4, 0.6, 0.8])
    half = 3.182446 * np.std([0.2, 0.4, 0.6, 0.8], ddof=1) / 2  # the 97.5 % point of t with 3 degrees of freedom
    assert interval == pytest.approx((0.5 - half, 0.5, 0.5 + half), abs=1e-6)


def test_mean_interval_of_equal_values_keeps_a_width():
    interval = mean_interval(np.ones(50))
    assert interval.estimate == interval.high == 1
    assert interval.low == pytest.approx(exact(50, 50).low)
    assert mean_interval([0.5] * 10).low < 0.5 < mean_interval([0.5] * 10).high


def test_bootstrap_agrees_with_t_and_repeats():
    values = np.random.default_rng(1).beta(4, 2, 80)
    one, two = (bootstrap_interval(values, np.random.default_rng(3)) for _ in range(2))
    assert one == two
    assert one == pytest.approx(mean_interval(values), abs=0.01)


def test_success_by_step():
    assert success_by_step([2, -1, 0, 4], 4).tolist() == [0.25, 0.25, 0.5, 0.5, 0.75]
    assert success_by_step([-1, -1], 3).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="is not a rate"):
        wilson(*counts)


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [float("nan")], [[0.1]]])
def test_unbounded_values_are_refused(values):
    with pytest.raises(ValueError, match="interval needs|must lie"):
        mean_interval(values)
