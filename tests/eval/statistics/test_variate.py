"""Imagined pairs beside true ones: no false verdicts whatever the model says, fewer true pairs where it is good."""

import numpy as np
import pytest

from understudy.eval.statistics.betting import BettingTest
from understudy.eval.statistics.variate import CHARGED, VariateTest, mean_of, worth


def duels(seed, runs, pairs, rates, agree, flatter=0.0, shared=0.5):
    """(a, b, a', b') bool (runs, pairs): success in truth and dream; half of the starts share difficulty."""
    rng = np.random.default_rng(seed)
    hard = rng.random((runs, pairs, 1))
    own = rng.random((runs, pairs, 2))
    level = np.where(rng.random((runs, pairs, 1)) < shared, hard, own)
    true = level < np.asarray(rates)
    same = rng.random((runs, pairs, 2)) < agree
    dreamt = np.where(same, true, ~true) | (rng.random((runs, pairs, 2)) < flatter)
    return *np.moveaxis(true, 2, 0), *np.moveaxis(dreamt, 2, 0)


def held(seed, rates, agree, flatter=0.0, runs=400, pairs=150, imagined=4000):
    """(share of verdicts, mean pairs) plain and imagined."""
    past = duels(seed + 1, 1, 200, rates, agree, flatter)
    d, e = ((part[1].astype(float) - part[0])[0] for part in (past[:2], past[2:]))
    factor = worth(d, e, imagined).factor
    _, _, x, y = duels(seed + 2, runs, imagined, rates, agree, flatter)
    variates = [mean_of(row, factor) for row in y.astype(float) - x]
    a, b, x, y = duels(seed + 3, runs, pairs, rates, agree, flatter)
    plain = BettingTest(pairs, 0.05, runs)
    test = VariateTest(pairs, 0.05, y.astype(float) - x, variates, runs)
    for i in range(pairs):
        plain.update(a[:, i], b[:, i])
        test.update(a[:, i], b[:, i])
    return [((one.side != 0).mean(), one.when.mean()) for one in (plain, test)]


@pytest.mark.parametrize(("agree", "flatter"), [(0.7, 0.0), (0.95, 0.0), (0.9, 0.3)])
def test_equal_policies_are_told_apart_no_more_often_than_alpha(agree, flatter):
    plain, imagined = held(0, (0.5, 0.5), agree, flatter)
    assert imagined[0] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_a_p_value_is_never_below_what_the_mean_is_charged():
    """The mean's interval is wrong at `CHARGED` of alpha, whatever was won; at alpha p says as the test does."""
    test = VariateTest(200, 0.05, np.zeros(200), mean_of(np.tile([-1.0, 1.0], 100), 0.5))
    while not test.decision:
        test.update(0, 1)
        assert (test.p_value() <= 0.05) == (test.decision == "B")
    assert test.p_value() >= 0.05 * CHARGED and f"({2 / 0.045:.0f} needed)" in test.state().note


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_the_mean_lies_inside_where_imagined_differences_are_rare(share):
    """Of 100 pairs none may differ; an interval of no width would then be sure of a wrong mean."""
    drawn = (np.random.default_rng(0).random((2000, 100)) < share).astype(float)
    inside = [one.low <= share <= one.high for one in (mean_of(row, 1.0) for row in drawn)]
    assert 1 - np.mean(inside) <= 0.05 * CHARGED + 3 * np.sqrt(0.005 / 2000)


def test_a_good_model_saves_true_pairs():
    plain, imagined = held(5, (0.5, 0.65), 0.97)
    assert imagined[0] > plain[0] and imagined[1] < 0.9 * plain[1]


def test_it_is_off_where_it_does_not_pay():
    def asked(agree, k=200):
        a, b, x, y = duels(9, 1, k, (0.5, 0.6), agree)
        return worth((b * 1.0 - a)[0], (y * 1.0 - x)[0], 4000)

    good, poor, few = asked(0.97), asked(0.6), asked(0.97, 20)
    assert good.pays and 0.3 < good.pairs < 0.9 and "is on" in good.text()
    assert not poor.pays and "would not pay" in poor.text()
    assert not few.pays and "30 or more" in few.text()
    still = worth(np.zeros(50), np.arange(50) % 2, 4000)
    assert not still.pays and "never vary" in still.text()


def test_a_single_comparison_looks_ahead_and_says_its_p():
    a, b, x, y = duels(3, 1, 120, (0.4, 0.8), 0.97)
    variate = mean_of((duels(4, 1, 4000, (0.4, 0.8), 0.97)[3] * 1.0 - duels(4, 1, 4000, (0.4, 0.8), 0.97)[2])[0], 0.8)
    test = VariateTest(120, 0.05, (y * 1.0 - x)[0], variate)
    for i in range(120):
        if test.decision:
            break
        test.update(a[0, i], b[0, i])
        if i == 5:
            assert 0 < test.outlook(np.random.default_rng(0), 50) <= 1
    assert test.decision == "B" and test.p_value() <= 0.05
