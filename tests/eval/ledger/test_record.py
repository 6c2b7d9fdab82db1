"""Episode records: never half, never overwritten, readable after a kill."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.eval.ledger.provenance import provenance
from understudy.eval.ledger.record import RecordWriter, read_record
from understudy.eval.ledger.table import COLUMNS, RecordError, table_of, tables_equal


def row(start, **changes):
    values = {
        "initial_conditions": "point", "env_seed": start, "policy_seed": 0, "task": "point", "success": start % 2 == 0,
        "first_success": 3 if start % 2 == 0 else -1,
        "best_progress": 0.1, "final_progress": 0.1, "return": 1.5, "length": 3, "progress": [0.1, 0.05, 0.1],
        "terminated": True, "truncated": False, "wall_physics": 0.1, "wall_render": 0.0, "wall_policy": 0.2,
        "attempt": 0, "worker": 1, "video": "", "error": "", "labels": "{}",
    }  # fmt: skip
    return values | changes


def test_columns_and_types(tmp_path):
    with RecordWriter(tmp_path / "r", {}) as writer:
        writer.add(row(5))
        writer.add(row(2))
    table = pq.read_table(tmp_path / "r" / "episodes.parquet")
    kinds = {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)}
    assert kinds.pop("progress") == "list<element: float>"
    names = {"float32": "float", "float64": "double"}
    assert kinds == {name: names.get(kind, kind) for name, kind in COLUMNS.items() if name != "progress"}
    assert table["env_seed"].to_pylist() == [2, 5]


def test_a_used_folder_is_refused(tmp_path):
    with pytest.raises(RecordError, match="exists.*--out.*--resume"):
        RecordWriter(tmp_path, {})


def test_rows_are_on_disk_before_the_run_closes(tmp_path):
    writer = RecordWriter(tmp_path / "r", {"policy": {"path": "p"}})
    writer.add(row(1))
    writer.add(row(0))
    with open(tmp_path / "r" / "episodes.jsonl", "a") as file:
        file.write('{"initial_conditions": "point", "sta')  # a kill in the middle of a line
    record = read_record(tmp_path / "r")
    assert record.column("env_seed") == [0, 1] and record.manifest["complete"] is False
    assert tables_equal(record.table, table_of([row(0), row(1)]))
    assert tables_equal(writer.close(True).table, record.table)
    assert tables_equal(read_record(tmp_path / "r").table, record.table)
    assert not (tmp_path / "r" / "episodes.jsonl").exists()


def test_resume_goes_on_with_the_same_run_only(tmp_path):
    manifest = {"policy": {"path": "a", "fingerprint": "1"}, "starts": {"count": 2}}
    with RecordWriter(tmp_path / "r", manifest) as writer:
        writer.add(row(0))
    with RecordWriter(tmp_path / "r", manifest, resume=True) as writer:
        assert writer.done == {0}
        writer.add(row(1))
        record = writer.close(complete=True)
    assert record.column("env_seed") == [0, 1] and json.loads((tmp_path / "r/manifest.json").read_text())["complete"]
    with pytest.raises(RecordError, match="its policy was .*'1'.*now it is .*'2'"):
        RecordWriter(tmp_path / "r", manifest | {"policy": {"path": "a", "fingerprint": "2"}}, resume=True)


def test_equal_tables_ignore_only_what_is_incidental():
    table = table_of([row(0), row(1)])
    assert tables_equal(table, table_of([row(1, worker=0, attempt=1), row(0, wall_policy=9.0, wall_render=1.0)]))
    for change in ({"best_progress": 0.1000001}, {"length": 4}, {"video": "a.mp4"}, {"progress": [0.1]}):
        assert not tables_equal(table, table_of([row(0), row(1, **change)]))


def test_wrong_rows_and_folders_are_named(tmp_path):
    with RecordWriter(tmp_path / "r", {}) as writer:
        with pytest.raises(RecordError, match="column 'worker' is missing"):
            writer.add({name: value for name, value in row(0).items() if name != "worker"})
        with pytest.raises(RecordError, match="column 'colour' is unknown"):
            writer.add(row(0) | {"colour": "red"})
    with pytest.raises(FileNotFoundError, match="is not an episode record"):
        read_record(tmp_path)
    (tmp_path / "r" / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(RecordError, match="newer"):
        read_record(tmp_path / "r")


def test_a_full_disk_leaves_no_half_table(tmp_path, monkeypatch):
    writer = RecordWriter(tmp_path / "r", {})
    writer.add(row(0))

    def full(table, path):
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        writer.close(True)
    monkeypatch.undo()
    assert read_record(tmp_path / "r").column("env_seed") == [0]


def test_provenance_names_no_person_or_place():
    import getpass
    import socket

    told = provenance()
    assert told["versions"]["python"] and told["versions"]["torch"] and told["machine"]["cores"]
    assert "understudy" in told["code"]
    assert socket.gethostname() not in json.dumps(told) and f"/{getpass.getuser()}/" not in json.dumps(told)


def test_an_empty_table_keeps_its_columns():
    assert isinstance(table_of([]), pa.Table) and table_of([]).schema.names == list(COLUMNS)
