"""The study of the guard judges what is sent: a few commands of every kind, none beyond the envelope."""

import pytest

from understudy.eval.studies.guard import COLUMNS, KINDS, GuardStudy, guard_study

pytest.importorskip("daqp", reason="the guard's quadratic program: pip install 'understudy[hardware]'")


def test_every_kind_is_sent_and_judged(tmp_path):
    study = guard_study(GuardStudy(commands=20 * len(KINDS), silences=1, out=tmp_path / "guard.json"))
    assert [row[0] for row in study.rows] == list(KINDS)
    for row in study.rows:
        said = dict(zip(COLUMNS, row, strict=True))
        assert said["n"] == 20 and said["left the envelope"] == 0 and 0 < said["torque by the model, N m"] <= 2.4


def test_unknown_kinds_are_named(tmp_path):
    with pytest.raises(LookupError, match="unknown kind of commands 'wild'"):
        GuardStudy(kinds=("wild",), out=tmp_path / "x.json")
