"""The study of the guard judges what is sent: a few commands of every kind, none beyond the envelope."""

import pytest

from understudy.eval.studies._kept import Kept
from understudy.eval.studies.guard import COLUMNS, KINDS, GuardStudy, guard_study

pytest.importorskip("daqp", reason="the guard's quadratic program: pip install 'understudy[hardware]'")


def test_every_kind_is_sent_and_judged(tmp_path):
    settings = GuardStudy(commands=20 * len(KINDS), silences=1, out=tmp_path / "guard.json")
    kept = Kept(settings.out, settings)
    study = guard_study(settings, kept)
    assert [row[0] for row in study.rows] == list(KINDS)
    for row in study.rows:
        said = dict(zip(COLUMNS, row, strict=True))
        assert said["n"] == 20 and 0 < said["torque by the model, N m"] <= 2.4 >= said["torque of the motors, N m"]
        assert said["engagements that left the envelope"][1] == 0

    again = Kept(settings.out, settings)  # as after a kill: what is done is not done again
    assert len(again) == len(KINDS) + 1 and guard_study(settings, again).rows == study.rows
    with pytest.raises(ValueError, match="other settings or code"):
        Kept(settings.out, GuardStudy(commands=50, out=settings.out))
    with pytest.raises(KeyboardInterrupt, match="8 parts are kept, the same command goes on"), again.going_on():
        raise KeyboardInterrupt
    with again.going_on():
        pass
    assert list(tmp_path.iterdir()) == []


def test_unknown_kinds_are_named(tmp_path):
    with pytest.raises(LookupError, match="unknown kind of commands 'wild'"):
        GuardStudy(kinds=("wild",), out=tmp_path / "x.json")
