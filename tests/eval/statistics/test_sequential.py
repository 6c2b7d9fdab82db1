"""Sequential tests: what they promise holds where the truth is known, and they say what they do."""

import numpy as np
import pytest

from understudy.eval.ledger.study import read_study
from understudy.eval.statistics import barnard
from understudy.eval.statistics.barnard import BarnardTest, decision_table, operating, synthesise, table_risk
from understudy.eval.statistics.betting import BettingTest
from understudy.eval.statistics.by_name import sequential_test
from understudy.eval.statistics.permutation import PermutationTest
from understudy.eval.studies.sequential_tests import SequentialStudy, follow, peeking_z, score_pairs, success_pairs

BAND = 0.06  # upper end of the binomial band of 5 % at 2,000 runs


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# -- the decision table


@pytest.mark.parametrize("most", [20, 60])
def test_table_spends_at_most_alpha_at_any_rate(most):
    table = synthesise(most, 0.025)
    fine = np.sin(np.linspace(1e-4, np.pi / 2 - 1e-4, 20 * barnard.POINTS)) ** 2
    risk = table_risk(table, fine)
    assert risk.max() <= 0.025 and risk[len(risk) // 2] > 0.023
    assert all(operating(table, p + 0.02, p, both=False)[1] < risk.max() for p in (0.05, 0.3, 0.6, 0.9))


def test_region_grows_with_the_lead_so_that_a_better_other_side_is_safe():
    """If (x, y) is stopped, so are (x, y + 1) and (x - 1, y): needed for nulls with p_A > p_B."""
    table = synthesise(50, 0.025)
    for lead in table.lead[8:].astype(int):
        for s in np.flatnonzero(lead < barnard.NEVER)[:-1]:
            if lead[s + 1] < barnard.NEVER:
                assert lead[s + 1] <= lead[s] + 1 and lead[s] <= lead[s + 1] + 1


def test_two_hundred_pairs_are_as_good_as_the_published_test():
    table = decision_table(200, 0.05)  # per side, as published: 98.7 %, 75 pairs of 300 runs
    _, called, pairs = operating(table, 0.5, 0.7)
    assert called > 0.98 and pairs <= 75


@pytest.mark.slow
def test_two_hundred_pairs_at_two_sided_alpha():
    _, called, pairs = operating(decision_table(200, 0.025), 0.5, 0.7)
    assert called > 0.96 and pairs <= 95


def test_exact_figures_equal_a_simulation(rng):
    a, b = success_pairs(rng, 4000, 50, 0.4, 0.7)
    test = follow(BarnardTest(50, runs=4000, rng=rng), a, b)
    _, called, pairs = operating(test.table, 0.4, 0.7)
    assert abs((test.side > 0).mean() - called) < 0.025 and abs(test.when.mean() - pairs) < 0.8


def test_table_is_kept_and_a_damaged_one_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    first = decision_table(12, 0.05)
    (path,) = (tmp_path / "tables").iterdir()
    monkeypatch.setattr(barnard, "synthesise", None)
    again = decision_table(12, 0.05)
    assert (first.lead == again.lead).all() and (first.part == again.part).all()
    path.write_bytes(b"half")
    monkeypatch.undo()
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    assert (decision_table(12, 0.05).lead == first.lead).all()


def test_table_refuses_what_it_cannot_do(rng):
    with pytest.raises(ValueError, match="betting test has no such limit"):
        decision_table(501, 0.025)
    with pytest.raises(ValueError, match="for scores use the betting test"):
        BarnardTest(20, rng=rng).update(0.5, 1)


# -- false positives


@pytest.mark.parametrize(("correlation", "p"), [(-0.5, 0.5), (0, 0.1), (0, 0.5), (0.5, 0.3), (0.9, 0.5)])
def test_betting_on_success_holds_for_any_correlation(rng, correlation, p):
    test = follow(BettingTest(120, runs=2000), *success_pairs(rng, 2000, 120, p, p, correlation))
    assert (test.side != 0).mean() <= BAND


@pytest.mark.parametrize("correlation", [-0.5, 0, 0.5, 0.9])
def test_betting_on_progress_holds_for_any_correlation(rng, correlation):
    test = follow(BettingTest(120, runs=2000), *score_pairs(rng, 2000, 120, (0.5, 0.5), correlation))
    assert (test.side != 0).mean() <= BAND


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_table_holds_for_independent_pairs(rng, p):
    test = follow(BarnardTest(60, runs=2000, rng=rng), *success_pairs(rng, 2000, 60, p, p))
    assert (test.side != 0).mean() <= BAND


def test_peeking_does_not_hold(rng):
    a, b = success_pairs(rng, 2000, 100, 0.5, 0.5)
    assert 0.25 < peeking_z(a, b, paired=False).mean() < 0.33
    a, b = success_pairs(rng, 2000, 100, 0.5, 0.5, 0.5)
    assert peeking_z(a, b, paired=True).mean() > 0.2


def test_outcomes_have_the_correlation_asked_for(rng):
    a, b = success_pairs(rng, 1, 200_000, 0.5, 0.5, -0.5)
    assert np.corrcoef(a[0], b[0])[0, 1] == pytest.approx(-0.5, abs=0.01)
    with pytest.raises(ValueError, match="cannot correlate"):
        success_pairs(rng, 1, 10, 0.1, 0.1, -0.5)


# -- what a test says


@pytest.mark.parametrize("name", ["betting", "table"])
def test_sides_are_mirrored(name):
    for first, second, decision in ((0, 1, "B"), (1, 0, "A")):
        test = sequential_test(name, 60)
        while test.decision is None:
            state = test.update(first, second)
        assert test.decision == state.decision == decision and test.n < 15
        assert test.evidence == state.evidence == (1.0 if decision == "B" else -1.0)
        assert test.update(1 - first, 1 - second).decision == decision and test.n == state.pairs


@pytest.mark.parametrize("name", ["betting", "table"])
def test_equal_outcomes_never_decide_and_are_given_up(name):
    test = sequential_test(name, 60)
    for _ in range(40):
        state = test.update(1, 1)
        assert state.decision is None and state.evidence == 0
    assert test.hopeless() and test.decision == "hopeless" and test.state().decision == "hopeless"
    for _ in range(20):
        state = test.update(1, 1)
    assert state.decision == "undecided"
    with pytest.raises(ValueError, match="plan a larger budget beforehand"):
        test.update(1, 1)


@pytest.mark.parametrize("name", ["betting", "table"])
def test_a_promising_comparison_is_not_given_up_and_the_outlook_is_repeatable(name):
    test = sequential_test(name, 120)
    for pair in range(32):
        test.update(pair % 5 == 0, pair % 5 in (1, 2))
    assert test.decision is None and not test.hopeless()
    outlooks = {test.outlook(np.random.default_rng(3), 200) for _ in range(2)}
    assert len(outlooks) == 1 and 0.2 < outlooks.pop() < 1
    assert test.n == 32 and test.decision is None


def test_betting_money_never_falls_to_nothing_and_p_is_valid():
    test = BettingTest(300)
    assert test.p_value() == 1.0
    for _ in range(100):
        test.update(1, 0)
    money = test.money()
    assert test.decision == "A" and money[0] >= 40 and money[1] > 0 and test.p_value() <= 0.05


@pytest.mark.parametrize("pair", [(1.2, 0), (0, -0.1), (float("nan"), 0)])
def test_outcomes_outside_are_refused(pair):
    with pytest.raises(ValueError, match="outcomes must lie in"):
        BettingTest(10).update(*pair)


def test_unknown_tests_are_named():
    with pytest.raises(LookupError, match="Did you mean 'betting'"):
        sequential_test("beting", 10)


# -- several training seeds


def test_permutation_test_of_two_holds_and_finds(rng):
    called = {0.0: 0, 2.0: 0}
    for shift in called:
        for _ in range(150):
            test = PermutationTest(rng=rng, looks=3, draws=499)
            while test.decision is None:
                test.update(rng.normal(), rng.normal() + shift)
            called[shift] += test.decision == "B" if shift else test.decision in ("A", "B")
    assert called[0.0] <= 16 and called[2.0] >= 135  # 5 % of 150 is 7.5; P(> 16) is below 0.2 %


def test_permutation_test_of_four_names_only_what_differs(rng):
    false = complete = 0
    for _ in range(30):
        test = PermutationTest("ABCD", rng=rng, looks=2, draws=499)
        while test.decision is None:
            test.update(*(rng.normal(size=4) + [0, 0, 3, 3]))
        found = set(test.better())
        false += bool(found & {("A", "B"), ("B", "A"), ("C", "D"), ("D", "C")})
        complete += found >= {("C", "A"), ("C", "B"), ("D", "A"), ("D", "B")}
    assert false <= 5 and complete >= 25


def test_permutation_statistic_is_absolute():
    """Mirrored scores give the mirrored verdict at the same look."""
    rows = np.random.default_rng(5).normal(size=(25, 2)) + [0, 1.2]
    ends = []
    for order in ((0, 1), (1, 0)):
        test = PermutationTest(rng=np.random.default_rng(1), draws=999)
        for row in rows[:, order]:
            if test.decision is None:
                test.update(*row)
        ends.append((test.n, test.decision))
    assert ends[0][1] == "B" and ends[1][1] == "A" and ends[0][0] == ends[1][0]


def test_permutation_plans_that_cannot_decide_are_refused(rng):
    with pytest.raises(ValueError, match="2 to 6 agents"):
        PermutationTest("ABCDEFG", rng=rng)
    with pytest.raises(ValueError, match="no such plan"):
        PermutationTest(rng=rng, draws=50)
    with pytest.raises(ValueError, match="one finite score for each of A, B"):
        PermutationTest(rng=rng).update(1.0)


# -- the study


def test_study_runs_and_can_be_read(tmp_path):
    SequentialStudy(out=tmp_path, runs=20, pairs=20, doubt_runs=2, parts=("power", "giving-up")).run()
    study = read_study(tmp_path / "sequential-power.json")
    assert len(study.rows) == 16 and "--runs 20 --pairs 20" in study.command


def test_study_of_other_rates_says_which(tmp_path):
    SequentialStudy(out=tmp_path, runs=20, pairs=50, parts=("power",), cases=("0.2/0.9/0.1",)).run()
    study = read_study(tmp_path / "sequential-power-cases.json")
    assert study.rows[0][0] == "0.2, 0.9" and "--cases '[0.2/0.9/0.1]'" in study.command


@pytest.mark.slow
def test_full_study_of_false_positives(tmp_path):
    SequentialStudy(out=tmp_path, parts=("false-positives",)).run()
    rows = read_study(tmp_path / "sequential-false-positives.json").rows
    assert all(row[4] for row in rows if row[0] == "betting")
    assert any(not row[4] for row in rows if "peeking" in row[0])
