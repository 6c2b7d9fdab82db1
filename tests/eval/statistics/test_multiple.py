"""Holm's correction, letters, and plans of how many episodes are needed."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from understudy.eval.statistics.multiple import differing, holm, letters
from understudy.eval.statistics.paired import mcnemar
from understudy.eval.statistics.power import detectable, discordance, needed, power_independent, power_paired


def test_holm_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1, 1] and holm([]).tolist() == [] and holm([0.2]).tolist() == [0.2]
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        holm([0.2, 1.2])


def test_holm_rejects_what_closed_testing_of_bonferroni_rejects():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(4) ** 3
        for one in range(4):
            others = [other for other in range(4) if other != one]
            worst = max(
                min(1, (size + 1) * min(p[one], *(p[i] for i in group), 1))
                for size in range(4)
                for group in itertools.combinations(others, size)
            )
            assert holm(p)[one] == pytest.approx(worst)


def test_letters_say_exactly_who_differs():
    rng = np.random.default_rng(1)
    for k in (1, 2, 3, 5, 7):
        for _ in range(60):
            upper = np.triu(rng.random((k, k)) < rng.random(), 1)
            table, values = upper | upper.T, rng.random(k)
            said = letters(values, table)
            for one, other in itertools.combinations(range(k), 2):
                assert bool(set(said[one]) & set(said[other])) != table[one, other]
            assert all(said) and "a" in said[int(np.argmax(values))]


def test_letters_are_few_and_ordered():
    assert letters([0.9, 0.5, 0.1], [[0, 0, 1], [0, 0, 0], [1, 0, 0]]) == ["a", "ab", "b"]
    assert letters([0.1, 0.9], [[0, 1], [1, 0]]) == ["b", "a"]
    assert letters([0.3, 0.4, 0.2], np.zeros((3, 3))) == ["a", "a", "a"]
    with pytest.raises(ValueError, match="symmetric"):
        letters([0.1, 0.2], [[0, 1], [0, 0]])


def test_differing_corrects_for_the_number_of_pairs():
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert differing(3, pairs, [0.04, 0.01, 0.5]).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_power_of_pairs_is_that_of_the_test():
    """By running through all tables of 25 pairs."""
    n, won, lost = 25, 0.4, 0.1
    total = sum(
        binom.pmf(d, n, won + lost) * binom.pmf(w, d, won / (won + lost))
        for d in range(n + 1)
        for w in range(d + 1)
        if mcnemar(w, d - w) <= 0.05
    )
    assert power_paired(n, won, lost) == pytest.approx(total)
    assert power_paired(n, 0.0, 0.0) == 0


def test_power_of_independent_episodes_is_that_of_the_score_test():
    """Within 3 points of running through all tables."""
    for n, first, second in ((50, 0.5, 0.7), (50, 0.7, 0.9), (100, 0.1, 0.3), (200, 0.5, 0.6)):
        a, b = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        middle = (a + b) / (2 * n)
        score = abs(a - b) / n / np.sqrt(np.maximum(2 * middle * (1 - middle) / n, 1e-12))
        chances = np.outer(binom.pmf(np.arange(n + 1), n, first), binom.pmf(np.arange(n + 1), n, second))
        assert power_independent(n, first, second) == pytest.approx(chances[score >= 1.959964].sum(), abs=0.03)


@pytest.mark.parametrize("paired", [False, True])
def test_detectable_and_needed_are_inverse(paired):
    for n, rate in ((50, 0.5), (100, 0.9), (400, 0.3)):
        gap = detectable(n, rate, paired=paired)
        other = rate - gap if rate >= 0.5 else rate + gap
        assert needed(rate, other, paired=paired) == pytest.approx(n, rel=0.06)


def test_plans_known_values():
    assert needed(0.5, 0.7) == 93  # the textbook's pooled formula
    assert needed(0.5, 0.7, paired=True, correlation=0.5) < 60 < needed(0.5, 0.7, paired=True)
    assert detectable(3, 0.9) is None and detectable(50, 1.0) < detectable(50, 0.5)
    assert discordance(0.5, 0.7) == pytest.approx((0.35, 0.15))
    assert discordance(0.9, 0.9, 1.0) == pytest.approx((0, 0))
    with pytest.raises(ValueError, match="equal rates"):
        needed(0.5, 0.5)
    with pytest.raises(ValueError, match="more than"):
        needed(0.5, 0.5001)
    with pytest.raises(ValueError, match="no such plan"):
        detectable(0, 0.5)
