"""A deployment that is killed or unplugged leaves the arm at rest and whole episodes, and goes on."""

import pytest

from understudy.eval.ledger.study import read_study
from understudy.eval.studies.deploy_kills import COLUMNS, LIMIT, POLICY, STRUCK, DeployKillStudy

pytest.importorskip("daqp", reason="the guard's quadratic program: pip install 'understudy[hardware]'")


@pytest.mark.slow
def test_each_part_is_struck_and_the_deployment_goes_on(tmp_path):
    pytest.importorskip("lerobot", reason="the Feetech bus is lerobot's")
    DeployKillStudy(times=2, out=tmp_path / "kills.json").run()
    study = read_study(tmp_path / "kills.json")
    assert [row[0] for row in study.rows] == list(STRUCK)
    for row in study.rows:
        told = dict(zip(COLUMNS, row, strict=True))
        assert told["n"] == told["at rest in time"] == told["earlier ones whole"] == told["gone on"] == 2, study.notes
        assert told["longest until rest, s"] <= LIMIT and 0 < told["fastest goal, of bound"] <= 1
        assert told["processes left"] == 0 and told["most episodes lost"] <= (told["struck"] == POLICY)
        assert told["let go"] == 2 if told["struck"] == POLICY else told["let go"] <= 2
        assert told["as it must be"][1] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kills.json"]


def test_unknown_parts_and_no_times_are_refused(tmp_path):
    with pytest.raises(LookupError, match="unknown part of a deployment 'cat'"):
        DeployKillStudy(struck=("cat",), out=tmp_path / "x.json")
    with pytest.raises(ValueError, match="times: 0; at least 1"):
        DeployKillStudy(times=0, out=tmp_path / "x.json")
