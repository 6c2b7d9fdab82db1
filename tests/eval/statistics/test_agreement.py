"""Agreement between worlds: parity with the published formulas, coverage and size by simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats

from understudy.eval.statistics.agreement import (
    OutcomeTables,
    agreement_intervals,
    kendall,
    mmrv,
    noise_ceiling,
    pearson,
    permutation_bound,
    spearman,
)


def published_mmrv(sim, real):
    """SIMPLER, equation 2, loop by loop."""
    worst = []
    for i in range(len(sim)):
        violation = 0.0
        for j in range(len(sim)):
            if (sim[i] > sim[j]) != (real[i] > real[j]):
                violation = max(violation, abs(real[i] - real[j]))
        worst.append(violation)
    return sum(worst) / len(worst)


def published_r(sim, real):
    """SIMPLER, equation 1, with the small number that its code adds below the line."""
    sim, real = sim - np.mean(sim), real - np.mean(real)
    if np.all(sim == real):
        return 1.0
    return np.sum(sim * real) / (np.sqrt(np.sum(sim**2) * np.sum(real**2)) + 1e-8)


def inputs(count=10_000):
    """Rates of 2 to 9 policies; coarse ones, so that most inputs have ties."""
    rng = np.random.default_rng(2024)
    for _ in range(count):
        k, n = rng.integers(2, 10), rng.choice([2, 5, 10, 1000])
        yield rng.integers(0, n + 1, k) / n, rng.integers(0, n + 1, k) / n


def test_mmrv_and_r_equal_the_published_formulas():
    ties, undefined = 0, 0
    for proxy, truth in inputs():
        ties += len(set(proxy)) < len(proxy) or len(set(truth)) < len(truth)
        assert mmrv(truth=truth, proxy=proxy) == pytest.approx(published_mmrv(proxy, truth), abs=1e-12)
        ours, theirs = pearson(truth=truth, proxy=proxy), published_r(proxy, truth)
        scale = np.sqrt(len(proxy) * truth.var() * len(proxy) * proxy.var())
        if scale > 1e-14:
            assert ours == pytest.approx(theirs * (scale + 1e-8) / scale if theirs != 1.0 else 1.0, abs=1e-9)
        else:  # all equal in one world: the published code says 0 (or 1 if in both), which is no correlation
            undefined += 1
            assert np.isnan(ours) and (theirs == 1.0 or abs(theirs) < 1e-12)
    assert ties > 5000 and undefined > 100


def test_mmrv_is_not_symmetric_and_needs_names():
    one, other = np.array([0.1, 0.5, 0.6]), np.array([0.2, 0.6, 0.5])
    assert mmrv(truth=one, proxy=other) == pytest.approx(2 * 0.1 / 3)
    assert mmrv(truth=np.array([0.1, 0.4, 0.6]), proxy=other) != mmrv(truth=other, proxy=np.array([0.1, 0.4, 0.6]))
    for measure in (pearson, spearman, kendall, mmrv):
        with pytest.raises(TypeError):
            measure(one, other)
    with pytest.raises(ValueError, match="one rate for each policy"):
        mmrv(truth=one, proxy=other[:2])


def test_rank_correlations_equal_scipy_with_ties():
    for proxy, truth in itertools.islice(inputs(), 300):
        if len(set(proxy)) > 1 and len(set(truth)) > 1:
            assert kendall(truth=truth, proxy=proxy) == pytest.approx(scipy.stats.kendalltau(truth, proxy).statistic)
            assert spearman(truth=truth, proxy=proxy) == pytest.approx(scipy.stats.spearmanr(truth, proxy).statistic)


def test_measures_take_many_inputs_at_once():
    rng = np.random.default_rng(0)
    truth, proxy = rng.random((2, 20, 6))
    for measure in (pearson, spearman, kendall, mmrv):
        singles = [float(measure(truth=x, proxy=y)) for x, y in zip(truth, proxy, strict=True)]
        assert measure(truth=truth, proxy=proxy) == pytest.approx(singles)


def test_few_policies_have_a_bound():
    rng = np.random.default_rng(0)
    for k, least in ((3, 1 / 6), (4, 1 / 24), (5, 1 / 120)):
        perfect = permutation_bound(truth=np.arange(k) / k, proxy=np.arange(k) / k, rng=rng)
        assert perfect.p == pytest.approx(least) == pytest.approx(perfect.least)
    assert permutation_bound(truth=[0.1, 0.5, 0.9], proxy=[0.9, 0.5, 0.1], rng=rng).p == 1
    assert permutation_bound(truth=[0.5, 0.5], proxy=[0.9, 0.1], rng=rng).p == 1
    assert permutation_bound(truth=[0.1, 0.5, 0.5, 0.9], proxy=[0, 0.2, 0.2, 1], rng=rng).p == pytest.approx(2 / 24)


@pytest.mark.parametrize("k", [5, 7, 12])
def test_the_permutation_test_holds_its_size(k):
    rng, runs = np.random.default_rng(k), 250
    p = [permutation_bound(truth=rng.random(k), proxy=rng.random(k), rng=rng, draws=500).p for _ in range(runs)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def outcomes(k, n, rng):
    """Cells of k policies whose true rates in the two worlds are the same, from common starts."""
    rates = rng.random(k)
    return OutcomeTables(*(rng.random((2, n, k)) < rates).astype(float))


def test_intervals_cover_what_many_policies_would_show():
    """r between measured rates, 10 policies and 40 episodes; the truth by 100,000 policies."""
    rng, n, runs = np.random.default_rng(1), 40, 150
    rates = rng.random(100_000)
    target = pearson(truth=rng.binomial(n, rates) / n, proxy=rng.binomial(n, rates) / n)
    found = [agreement_intervals(outcomes(10, n, rng), rng, draws=300)["r"] for _ in range(runs)]
    assert np.mean([low <= target <= high for low, _, high in found]) >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / runs)


def test_starts_are_resampled_together():
    """Two worlds with the same outcomes: whatever starts are drawn, the rates stay equal."""
    rng = np.random.default_rng(0)
    table = (rng.random((50, 6)) < [0.05, 0.2, 0.4, 0.6, 0.8, 0.95]).astype(float)
    found = agreement_intervals(OutcomeTables(table, table), rng, draws=200)
    assert found["r"].low == pytest.approx(1) and found["mmrv"].high == 0


def test_missing_cells_keep_their_numbers():
    """Policies tested from different starts, and a world with starts of its own."""
    rng = np.random.default_rng(0)
    truth = np.full((60, 6), np.nan)
    proxy = truth.copy()
    truth[:40, :2], truth[20:40, 2:4], truth[:10, 4:] = 1.0, rng.random((20, 2)) < 0.5, 0.0
    proxy[40:, :] = rng.random((20, 6)) < [0.9, 0.8, 0.5, 0.4, 0.2, 0.1]
    found = agreement_intervals(OutcomeTables(truth, proxy), rng, groups=[0] * 6, draws=200)
    assert 0 < found["r"].low <= found["r"].estimate <= found["r"].high < 1
    same = agreement_intervals(OutcomeTables(truth, truth), rng, groups=[0] * 6, draws=200)
    assert same["r"].low == pytest.approx(1)


def test_runs_are_resampled_as_wholes():
    """Twelve checkpoints of six runs: less is known than of twelve independent policies."""
    rng = np.random.default_rng(3)
    rates = np.repeat(rng.random(6), 2)
    noisy = np.clip(rates + 0.15 * np.repeat(rng.normal(size=(2, 6)), 2, axis=1), 0, 1)
    cells = OutcomeTables(*(rng.random((2, 400, 12)) < noisy[:, None]).astype(float))
    free, bound = (
        agreement_intervals(cells, np.random.default_rng(0), groups)["r"] for groups in (None, np.arange(12) // 2)
    )
    assert bound.high - bound.low > free.high - free.low


def test_the_noise_ceiling_is_what_a_perfect_proxy_shows():
    rng = np.random.default_rng(0)
    rates, n = np.linspace(0.2, 0.8, 8), 25
    draws = rng.binomial(n, rates, (2, 4000, 8)) / n
    shown = np.median(pearson(truth=draws[0], proxy=draws[1]))
    error = np.sqrt(rates * (1 - rates) / n)
    said = [
        noise_ceiling(truth=measured, error_truth=error, error_proxy=error, rng=rng, draws=300).estimate
        for measured in draws[0][:300]
    ]
    assert np.nanmedian(said) == pytest.approx(shown, abs=0.02)
    none = noise_ceiling(truth=[0.5, 0.5, 0.5], error_truth=[0.1] * 3, error_proxy=[0.1] * 3, rng=rng)
    assert np.isnan(none.estimate)
