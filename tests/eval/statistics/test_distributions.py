"""The distributions are those of scipy.stats, which an evaluation does not wait for."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from understudy.eval.statistics import distributions as ours
from understudy.eval.statistics.power import _mcnemar_edge

TAILS = (1e-9, 0.003, 0.025, 0.5, 0.9, 0.999)


@pytest.mark.parametrize("tail", TAILS)
def test_tails_and_quantiles_are_scipy_s(tail):
    at = stats.norm.isf(tail)
    assert ours.normal_isf(tail) == pytest.approx(at, rel=1e-12, abs=1e-12)
    assert ours.normal_cdf(at) == pytest.approx(1 - tail, rel=1e-12)
    for freedom in (1, 2, 9, 400):
        at = stats.t.isf(tail, freedom)
        assert ours.t_isf(tail, freedom) == pytest.approx(at, rel=1e-9, abs=1e-9)
        assert ours.t_sf(at, freedom) == pytest.approx(tail, rel=1e-9)
    for a, b in ((1, 20), (16, 5), (150, 151)):
        assert ours.beta_ppf(tail, a, b) == pytest.approx(stats.beta.ppf(tail, a, b), rel=1e-9)
        assert ours.beta_isf(tail, a, b) == pytest.approx(stats.beta.isf(tail, a, b), rel=1e-9)


@pytest.mark.parametrize("n", [0, 1, 7, 40, 3000])
@pytest.mark.parametrize("p", [0.0, 0.02, 0.5, 0.7, 1.0])
def test_binomials_are_scipy_s(n, p):
    k = np.arange(-1, n + 2)
    assert ours.binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-9, abs=1e-300)
    assert ours.binomial_sf(k, n, p) == pytest.approx(stats.binom.sf(k, n, p), rel=1e-9, abs=1e-300)
    assert ours.binomial_pmf(k[1:-1], n, p) == pytest.approx(stats.binom.pmf(k[1:-1], n, p), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 0.05, 0.3, 0.9])
def test_the_edge_of_mcnemar_s_test_is_the_last_that_rejects(alpha):
    counts = np.arange(600)
    edge = _mcnemar_edge(counts, alpha)
    assert (stats.binom.cdf(edge, counts, 0.5) <= alpha / 2).all()
    assert (stats.binom.cdf(edge + 1, counts, 0.5) > alpha / 2).all()
    assert edge.min() == -1 and edge.max() > 100


def test_an_interval_and_a_power_do_without_scipy_stats():
    code = (
        "import sys; from understudy.eval.statistics import intervals, power; intervals.wilson(3, 9); "
        "intervals.exact(3, 9); intervals.mean_interval([.1, .5]); power.detectable(20, .5, paired=True); "
        "sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
