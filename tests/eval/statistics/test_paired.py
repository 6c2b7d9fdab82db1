"""Paired and independent differences: against the definitions, by enumeration and by simulation."""

import numpy as np
import pytest
from scipy.stats import binom, multinomial, norm

from understudy.eval.ledger.pairs import PairingError, join
from understudy.eval.ledger.record import Record
from understudy.eval.ledger.summary import summarize
from understudy.eval.ledger.table import table_of
from understudy.eval.statistics.paired import mcnemar, newcombe, paired_bootstrap, paired_difference, tango
from understudy.eval.statistics.power import detectable, discordance


def record(tmp_path, name, wins, first=0, initial_conditions="point"):
    """An episode a start; `wins` are the starts that succeed, of 20."""
    rows = [
        {
            "initial_conditions": initial_conditions, "env_seed": start, "policy_seed": 0, "task": "point",
            "success": start in wins,
            "first_success": -1, "best_progress": 1.0 if start in wins else 0.25, "final_progress": 0.0,
            "return": 0.0, "length": 3, "progress": [0.0], "terminated": False, "truncated": True,
            "wall_physics": 0.0, "wall_render": 0.0, "wall_policy": 0.0, "attempt": 0, "worker": 0, "video": "",
            "error": "", "labels": "{}",
        }
        for start in range(first, first + 20)
    ]  # fmt: skip
    return Record(tmp_path / name, {}, table_of(rows))


def test_records_join_on_their_starts(tmp_path):
    a, b = record(tmp_path, "a", {5, 6, 7}), record(tmp_path, "b", {6, 10, 11, 30}, first=5)
    pairs = join(a, b)
    assert [start for _, start in pairs.starts] == list(range(5, 20)) and pairs.left_out == 10
    assert (pairs.only_first, pairs.only_second) == (2, 2)
    said = paired_difference(join(a, b), np.random.default_rng(0))
    assert said.n == 15 and said.success.estimate == 0 and said.p == 1
    assert said.progress.low <= said.progress.estimate == 0 <= said.progress.high


def test_records_without_a_common_start_are_refused(tmp_path):
    a = record(tmp_path, "a", {})
    with pytest.raises(PairingError, match="share no initial condition: .*point 0..19.*elsewhere 0..19"):
        join(a, record(tmp_path, "b", {}, initial_conditions="elsewhere"))


def test_mcnemar_is_the_coin_that_its_definition_says():
    for won in range(8):
        for lost in range(8):
            n = won + lost
            chances = [binom.pmf(k, n, 0.5) for k in range(n + 1)]
            as_extreme = sum(chance for chance in chances if chance <= chances[won] * (1 + 1e-9))
            assert mcnemar(won, lost) == pytest.approx(min(1, as_extreme))


def test_mcnemar_never_exceeds_its_size():
    """Exactly, for every share of discordant pairs."""
    for n in (10, 30, 100):
        p = np.array([mcnemar(won, n - won) for won in range(n + 1)])
        assert binom.pmf(np.arange(n + 1), n, 0.5)[p <= 0.05].sum() <= 0.05


def test_tango_inverts_its_score():
    """The ends are where the score statistic, its variance maximised numerically, reaches the normal quantile."""
    z = norm.isf(0.025)
    for won, lost, n in ((3, 1, 20), (0, 4, 15), (12, 5, 60), (7, 25, 100)):
        for end, sign in zip(tango(won, lost, n)[::2], (1, -1), strict=True):
            q = np.linspace(max(0, -end), (1 - end) / 2, 200_001)[1:-1]
            likelihood = won * np.log(q + end) + lost * np.log(q) + (n - won - lost) * np.log(1 - 2 * q - end)
            rate = q[np.argmax(likelihood)]
            score = (won - lost - n * end) / np.sqrt(n * (2 * rate + end * (1 - end)))
            assert score == pytest.approx(sign * z, abs=2e-3)


def test_tango_at_zero_is_mcnemar_and_is_antisymmetric():
    assert tango(20, 0, 20).high == 1 and tango(0, 20, 20).low == -1
    for won, lost, n in ((5, 0, 20), (9, 2, 40), (15, 5, 50), (15, 6, 50)):
        interval, mirrored = tango(won, lost, n), tango(lost, won, n)
        assert mirrored == pytest.approx((-interval.high, -interval.estimate, -interval.low))
        assert (interval.low > 0) == ((won - lost) / np.sqrt(won + lost) > norm.isf(0.025))
    assert tango(0, 0, 20)[::2] == pytest.approx((-0.1611, 0.1611), abs=1e-4)  # z^2 / (n + z^2)


@pytest.mark.parametrize("n", [20, 50])
def test_tango_covers(n):
    """Exact coverage over all tables: near 95 % on average and above 92 % for rates inside [.1, .9]."""
    tables = [(won, lost) for won in range(n + 1) for lost in range(n + 1 - won)]
    intervals = np.array([tango(*table, n) for table in tables])
    coverages = []
    for first, second in ((0.5, 0.5), (0.5, 0.7), (0.8, 0.9), (0.1, 0.3), (0.9, 0.9)):
        for correlation in (0, 0.5):
            won, lost = discordance(first, second, correlation)
            chances = multinomial.pmf([(*table, n - sum(table)) for table in tables], n, (won, lost, 1 - won - lost))
            inside = (intervals[:, 0] <= second - first) & (second - first <= intervals[:, 2])
            coverages.append(chances[inside].sum())
    assert np.mean(coverages) >= 0.945 and np.min(coverages) >= 0.92


def test_newcombe_known_values_and_coverage():
    assert newcombe((48, 80), (56, 70))[::2] == pytest.approx((0.0524, 0.3339), abs=1e-4)  # Newcombe 1998, case a
    n, counts = 30, np.arange(31)
    intervals = np.array([[newcombe((int(a), n), (int(b), n)) for b in counts] for a in counts])
    for first, second in ((0.5, 0.5), (0.5, 0.7), (0.1, 0.3), (0.9, 0.95)):
        chances = np.outer(binom.pmf(counts, n, first), binom.pmf(counts, n, second))
        inside = (intervals[..., 0] <= second - first) & (second - first <= intervals[..., 2])
        assert chances[inside].sum() >= 0.93


@pytest.mark.parametrize("n", [20, 50])
def test_paired_bootstrap_covers(n):
    rng, runs = np.random.default_rng(n), 600
    hits = 0
    for _ in range(runs):
        ease = rng.beta(2, 2, n)  # some starts are easier, for both
        one, other = np.clip(ease + rng.normal(0, 0.2, (2, n)) + [[0.0], [0.1]], 0, 1)
        interval = paired_bootstrap(other - one, rng, draws=500)
        hits += interval.low <= EASE_GAP <= interval.high
    assert hits / runs >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / runs)


def _gap() -> float:
    """The true mean difference of the simulation above, by a large draw."""
    rng = np.random.default_rng(9)
    ease = rng.beta(2, 2, 1_000_000)
    noise = rng.normal(0, 0.2, (2, len(ease)))
    return float((np.clip(ease + noise[1] + 0.1, 0, 1) - np.clip(ease + noise[0], 0, 1)).mean())


EASE_GAP = _gap()


def test_paired_bootstrap_repeats_and_keeps_a_width():
    values = np.random.default_rng(0).choice([-1, 0, 1], 60, p=[0.1, 0.6, 0.3])
    one, two = (paired_bootstrap(values, np.random.default_rng(3)) for _ in range(2))
    assert one == two and one == pytest.approx(tango((values > 0).sum(), (values < 0).sum(), 60), abs=0.03)
    same = paired_bootstrap(np.zeros(50), np.random.default_rng(0))
    assert same.low == -same.high < 0 and same.high < 0.08
    for wrong in ([], [0.2, 1.5], [np.nan], [[0.1]]):
        with pytest.raises(ValueError, match="paired differences"):
            paired_bootstrap(wrong, np.random.default_rng(0))


@pytest.mark.parametrize("counts", [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_impossible_tables_are_refused(counts):
    with pytest.raises(ValueError, match="do not fit"):
        tango(*counts)


def test_a_summary_says_what_it_could_detect(tmp_path):
    summary = summarize(record(tmp_path, "a", set(range(10))))
    assert summary.detects == detectable(20, 0.5, paired=True)
    assert f"a difference of {summary.detects:.2f} in success" in summary.text()
    few = record(tmp_path, "b", {0})
    few = Record(few.root, few.manifest, few.table.slice(0, 4))
    assert "4 episodes are too few" in summarize(few).text()
