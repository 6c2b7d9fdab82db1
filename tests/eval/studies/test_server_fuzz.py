"""A few thousand wrong messages: the quick form of the study."""

import pytest

pytest.importorskip("websockets", reason="the policy server: pip install 'understudy[serve]'")


def test_nothing_wrong_is_planned_for(tmp_path, monkeypatch):
    from understudy.eval.studies.server_fuzz import COLUMNS, ServerFuzz, fuzz

    monkeypatch.chdir(tmp_path)  # where the pickles would leave their mark
    study = fuzz(ServerFuzz(messages=2200, out=tmp_path / "fuzz.json"))
    everything = dict(zip(COLUMNS, study.rows[-1], strict=True))
    assert everything["n"] == 2200 and everything["refused"] + everything["hung up on"] > 2100
    assert everything["planned without an answer"] == everything["wrong plans after"] == 0
    assert list(tmp_path.iterdir()) == []
