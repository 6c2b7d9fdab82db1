"""Many episodes in a world that misbehaves: the others do not notice, and memory stays flat."""

import pytest

from understudy.eval.studies.misbehaving_worlds import MisbehavingWorlds, measure


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_other_episodes_notice_nothing(workers):
    study = measure(MisbehavingWorlds(episodes=230, horizon=12, workers=(workers,), timeout=0.5))
    plain, disturbed = (dict(zip(study.columns, row, strict=True)) for row in study.rows)
    assert plain["episodes"] == disturbed["episodes"] == 230 and disturbed["misbehaving"] == 23
    tried_again = 2 if workers else 1  # a full machine; a killed worker
    assert disturbed["rows with an error"] == 23 - tried_again
    assert disturbed["of them unlike expected"] == disturbed["other rows that differ"] == 0
    assert disturbed["at the end, MB"] < disturbed["memory, MB"] + 15
