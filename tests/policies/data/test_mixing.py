"""Shares of several datasets hold in every batch; each is read through in rounds; contradictions are refused."""

import json

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.plugins import discover
from understudy.policies.data.mixing import SharedOrder, SharesError, check_shares, counts, shares_of
from understudy.policies.data.weighting import Weighting
from understudy.policies.learning.settings import Settings
from understudy.policies.models.regression import RegressionConfig


def test_a_batch_is_divided_by_largest_remainders():
    assert shares_of("2,1") == (2, 1) and shares_of("") == () and shares_of("[1, 3]") == (1, 3)
    assert counts((2, 1), 64) == [43, 21] and counts((0.5, 0.3, 0.2), 10) == [5, 3, 2] and counts((1, 1), 3) == [2, 1]


def test_every_batch_has_its_shares_and_each_dataset_comes_round():
    large, small = np.arange(0, 90), np.arange(90, 97)
    order = SharedOrder((large, small), (2, 1), 15, seed=3)
    batches = [order.indices(step).numpy() for step in range(14)]
    assert all((batch < 90).sum() == 10 and (batch >= 90).sum() == 5 for batch in batches)
    of_small = np.concatenate([batch[10:] for batch in batches])
    assert all(sorted(of_small[start : start + 7]) == small.tolist() for start in range(0, 70, 7))
    assert sorted(np.concatenate([batch[:10] for batch in batches[:9]])) == large.tolist()

    again = SharedOrder((large, small), (2, 1), 15, seed=3)  # a function of the step alone, whatever was asked before
    assert np.array_equal(again.indices(11), batches[11]) and np.array_equal(again.indices(2), batches[2])
    assert not np.array_equal(SharedOrder((large, small), (2, 1), 15, seed=4).indices(0), batches[0])


@pytest.mark.parametrize(
    ("shares", "datasets", "weighted", "batch", "said"),
    [
        ((2, 1), 2, True, 64, "and `weighting` both say how often"),
        ((2, 1), 1, False, 64, "is 2 numbers for 1 dataset; give one for each of --data A,B"),
        ((2, 1, 1), 2, False, 64, "is 3 numbers for 2 datasets"),
        ((2, 0), 2, False, 64, "a share is above 0"),
        ((99, 1), 2, False, 10, "leave no window of a batch of 10 to one dataset"),
    ],
)
def test_what_contradicts_itself_is_refused(shares, datasets, weighted, batch, said):
    with pytest.raises(SharesError, match=said):
        check_shares(shares, datasets, weighted, batch)
    discover("policies")
    weighting = Weighting() if weighted else None
    data = ",".join("ab"[:datasets])
    with pytest.raises(SharesError, match=said):
        Settings(
            data=data, policy=RegressionConfig(), shares=",".join(map(str, shares)), weighting=weighting, batch=batch
        ).check()


def test_a_training_says_what_comes_from_where_and_keeps_it(tmp_path, capsys):
    for name, episodes in (("a", 4), ("b", 2)):
        words = ["--episodes", str(episodes), "--keep_failures", "true", "--out", str(tmp_path / name)]
        assert main(["demos", "point", *words]) == 0
    words = ["--data", f"{tmp_path / 'a'},{tmp_path / 'b'}", "--shares", "1,3", "--policy.type", "regression"]
    run = ["--steps", "2", "--batch", "8", "--validation", "0", "--out", str(tmp_path / "run")]
    assert main(["train", *words, *run]) == 0
    said = capsys.readouterr().out
    assert f"windows of each batch: 2 of {tmp_path / 'a'}, 6 of {tmp_path / 'b'}" in said
    assert "shares: 1,3" in (tmp_path / "run" / "config.yaml").read_text()
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
