"""JSON files of ours: sealed, verified, and refused in one sentence with their path."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from understudy.configs.documents import check_fields, read_document, read_object, sealed
from understudy.eval.catalog.measured import read_measured
from understudy.eval.compare.comparison import read_comparison
from understudy.eval.compose.compose import read_search
from understudy.eval.ledger.study import Study, StudyError, read_study
from understudy.policies.agent.alarm import load_alarm


class Pair(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Inner:
    pair: Pair


@dataclass(frozen=True)
class Outer:
    name: str
    n: int
    parts: tuple[Inner, ...]
    table: Mapping[str, Sequence[float]]
    p: float | None
    done: bool = False


GOOD = {"name": "a", "n": 1, "parts": [{"pair": [0, 0.5]}], "table": {"x": [1.0, 2]}, "p": None}


def test_what_fits():
    check_fields(Outer, GOOD, "f", ValueError)
    check_fields(Outer, GOOD | {"p": 0.5, "done": True}, "f", ValueError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n": 1.5}, "'n' is 1.5"), ({"n": True}, "'n' is true"), ({"name": 3}, "'name' is 3"), ({"p": "x"}, "'p' is"),
        ({"parts": {}}, "'parts' is"), ({"parts": [{"pair": [1]}]}, "'pair' is"),
        ({"parts": [{}]}, "'pair' is missing"),
        ({"table": []}, "'table' is"), ({"table": {"x": 3}}, "'table' is 3"), ({"done": 1}, "'done' is 1"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change, says):
    with pytest.raises(ValueError, match=f"^f is damaged: {says}"):
        check_fields(Outer, GOOD | change, "f", ValueError)


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="'n' is missing"):
        check_fields(Outer, {name: value for name, value in GOOD.items() if name != "n"}, "f", ValueError)


def test_one_changed_number_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(sealed({"kind": "x", "format": 1, "n": 10})))
    assert read_document(path, "x", 1, ValueError) == {"n": 10}
    path.write_text(path.read_text().replace("10", "11"))
    with pytest.raises(ValueError, match=r"a.json was changed since it was written"):
        read_document(path, "x", 1, ValueError)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe{", b"[" * 100_000])
@pytest.mark.parametrize("read", ["object", "document", "study", "comparison", "search", "alarm", "measured"])
def test_what_is_no_document_of_ours_is_one_sentence(tmp_path, text, read):
    names = {"comparison": "compare.json", "search": "search.json"}
    path = tmp_path / names.get(read, "a.json")
    path.write_bytes(text)
    readers = {
        "object": lambda: read_object(path, ValueError),
        "document": lambda: read_document(path, "x", 1, ValueError),
        "study": lambda: read_study(path),
        "comparison": lambda: read_comparison(tmp_path),
        "search": lambda: read_search(path),
        "alarm": lambda: load_alarm(path),
        "measured": lambda: read_measured("a", tmp_path),
    }
    with pytest.raises(ValueError, match=path.name) as told:
        readers[read]()
    assert "\n" not in str(told.value)


def test_a_study_is_sealed_and_older_ones_open(tmp_path):
    study = Study(title="t", command="c", columns=("a",), rows=((1,),), provenance={"x": 1})
    path = study.write(tmp_path / "s.json")
    assert read_study(path) == study
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"rows": [[2]]}))
    with pytest.raises(StudyError, match="s.json was changed"):
        read_study(path)
    del values["sha256"]
    path.write_text(json.dumps(values | {"rows": [[2]]}))
    assert read_study(path).rows == ((2,),)
    for change in (
        {"rows": 3},
        {"rows": [[1, 2]]},
        {"columns": [1]},
        {"notes": "x"},
        {"title": ""},
        {"provenance": []},
    ):
        path.write_text(json.dumps(values | change))
        with pytest.raises(StudyError, match="s.json"):
            read_study(path)
