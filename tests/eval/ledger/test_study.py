"""The JSON form of studies: what is written is read again, and what is no table is refused by name."""

import json

import numpy as np
import pytest

from understudy.eval.ledger.study import Study, StudyError, read_study, table
from understudy.eval.statistics.intervals import Interval

PLAIN = {"title": "Coverage", "command": "understudy list", "columns": ("what", "n", "rate"), "rows": [("a|b", 3, 0.5)]}


def test_a_study_comes_back_as_it_was(tmp_path):
    rows = [("wilson", np.int64(12_345), Interval(0.1, 0.2, 0.3)), ("exact", None, np.float32(0.5)), ("z", True, 1e-5)]
    path = Study(**PLAIN | {"rows": rows, "notes": ["n = 3", "seed 0"]}).write(tmp_path / "deep" / "s.json")
    study = read_study(path)
    assert study.rows == (("wilson", 12_345, (0.1, 0.2, 0.3)), ("exact", None, 0.5), ("z", True, 1e-5))
    assert study.notes == ("n = 3", "seed 0") and study.provenance["versions"]["python"]
    assert study.write(tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*.json")) == ["again.json", "s.json"]
    assert study.markdown().splitlines()[1:3] == [
        "| :-- | --: | --: |",
        "| wilson | 12,345 | 0.200 [0.100, 0.300] |",
    ]


def test_bars_and_line_breaks_stay_inside_their_cell():
    assert table(("a", "b"), [("x|y", "two\nlines")]).splitlines()[-1] == "| x\\|y | two lines |"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ""}, "needs a title"),
        ({"command": ""}, "needs a command"),
        ({"rows": [("a", 1)]}, "3 columns, but a row of 2"),
        ({"rows": [("a", 1, float("nan"))]}, "not finite"),
        ({"rows": [("a", 1, (0.1, 0.2))]}, "low, estimate, high"),
        ({"rows": [("a", 1, {})]}, "a cell is text"),
        ({"notes": "n = 3"}, "lists of texts"),
    ],
)
def test_what_is_no_table_is_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        Study(**PLAIN | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no study"),
        (json.dumps({"kind": "study", "format": 2}), "newer"),
        (json.dumps({"kind": "study", "format": 1, "titel": "x"}), "unknown key 'titel'"),
        (json.dumps({"kind": "study", "format": 1, "title": "x"}), "'columns' is missing"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(StudyError, match=message):
        read_study(tmp_path / "s.json")
