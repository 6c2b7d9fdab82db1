"""What the intervals promise, over all outcomes that can happen; and the command that writes the study."""

import pytest

from understudy.eval.ledger.study import read_study
from understudy.eval.statistics.intervals import exact, wilson
from understudy.eval.studies.coverage import Coverage, rate_coverage, seeds

SIZES = (20, 21, 24, 30, 36, 39, 50, 75, 100, 200)


def test_wilson_covers_on_average_and_never_falls_far_below():
    """For n >= 20 and rates in [.05, .95]: mean at least .94, and never less than .90 at any rate."""
    found = [rate_coverage(wilson, n, 0.05) for n in SIZES]
    assert min(mean for mean, _, _ in found) >= 0.94
    assert min(worst for _, worst, _ in found) >= 0.90


@pytest.mark.slow
def test_wilson_covers_for_every_number_of_episodes():
    found = [rate_coverage(wilson, n, 0.05) for n in range(20, 401)]
    assert min(mean for mean, _, _ in found) >= 0.94 and min(worst for _, worst, _ in found) >= 0.90


def test_exact_covers_everywhere():
    for n in (1, 2, 3, 5, 9, *SIZES):
        assert rate_coverage(exact, n, 1e-6)[1] >= 0.95


def test_the_command_writes_studies(tmp_path, capsys):
    Coverage(out=tmp_path, runs=30, worlds=2, parts=("seeds",)).run()
    study = read_study(tmp_path / "coverage-seeds.json")
    assert len(study.rows) == 15 and "over training seeds" in capsys.readouterr().out
    assert study.command.endswith("--out DIR --parts seeds --runs 30 --worlds 2")
    assert study.rows == seeds(Coverage(out=tmp_path, runs=30)).rows  # the seed decides


def test_every_part_runs(tmp_path):
    Coverage(out=tmp_path, runs=4, worlds=1, parts=("means", "agreement")).run()
    for part, rows in (("means", 9), ("agreement", 18)):
        assert len(read_study(tmp_path / f"coverage-{part}.json").rows) == rows
