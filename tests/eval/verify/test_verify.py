"""`understudy verify`: a record that is as it was written has its seal; any changed byte that counts is found."""

import json

import numpy as np
import pytest

from understudy.eval.ledger.record import RecordWriter
from understudy.eval.ledger.table import RecordError
from understudy.eval.verify.verify import Verify, verify
from understudy.policies.data.encode import write_mp4


def row(seed):
    return {
        "initial_conditions": "point", "env_seed": seed, "policy_seed": 0, "task": "point", "success": seed > 3,
        "first_success": 5 if seed > 3 else -1, "best_progress": 1.0, "final_progress": 1.0, "return": 0.5, "length": 5,
        "progress": [0.5, 0.5, 0.5, 0.5, 1.0], "terminated": True, "truncated": False, "wall_physics": 0.1,
        "wall_render": 0.1, "wall_policy": 0.1, "attempt": 0, "worker": 0, "video": "", "error": "", "labels": "{}",
    }  # fmt: skip


@pytest.fixture
def record(tmp_path):
    root = tmp_path / "records/one"
    with RecordWriter(
        root, {"policy": {"path": "runs/a"}, "starts": {"set": "point", "first": 0, "count": 8}}
    ) as writer:
        for seed in range(8):
            writer.add(row(seed))
        (root / "videos").mkdir()
        write_mp4(root / "videos/1.mp4", np.zeros((6, 64, 64, 3), np.uint8), 10.0)
        writer.set_video(1, "videos/1.mp4")
        writer.close(complete=True)
    return root


def change_manifest(root, change):
    manifest = json.loads((root / "manifest.json").read_text())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))


def flip_a_success(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(root / "episodes.parquet")
    won, first = table["success"].to_pylist(), table["first_success"].to_pylist()
    won[0], first[0] = True, 5
    for name, values in (("success", won), ("first_success", first)):
        kind = table.schema.field(name).type
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    pq.write_table(table, root / "episodes.parquet")


def test_a_record_as_written_is_told_with_its_seal(record, capsys):
    seal = json.loads((record / "manifest.json").read_text())["digests"]["manifest.json"]
    Verify(records=[str(record.parent), str(record)], seal=seal[:12].upper()).run()
    said = capsys.readouterr().out
    assert said.startswith("ok") and seal in said and "1 of 1 records are as they were written, 0 are not" in said


def test_the_seal_of_another_record_is_refused(record):
    with pytest.raises(RecordError, match="the seal of"):
        Verify(records=[str(record)], seal="0" * 64).run()


def test_films_that_are_left_out_are_told(record, capsys):
    (record / "videos/1.mp4").unlink()
    Verify(records=[str(record)]).run()
    said = capsys.readouterr().out
    assert said.startswith("ok") and "without 1 of its films" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flip_a_success, "rows were changed"),
        (lambda root: (root / "videos/1.mp4").write_bytes((root / "videos/1.mp4").read_bytes() + b"x"), "changed"),
        (lambda root: change_manifest(root, lambda m: m["policy"].update(path="runs/b")), "manifest.json was changed"),
        (lambda root: (root / "episodes.parquet").unlink(), "neither"),
        (lambda root: (root / "manifest.json").write_text("{"), "is no JSON"),
    ],
)
def test_what_was_changed_is_found(record, change, said, capsys):
    change(record)
    with pytest.raises(SystemExit):
        Verify(records=[str(record)]).run()
    printed = capsys.readouterr().out
    assert printed.startswith("!!") and said in printed and "1 are not" in printed


def test_a_record_without_hashes_is_not_called_verified(record, capsys):
    change_manifest(record, lambda manifest: manifest.pop("digests"))
    Verify(records=[str(record)]).run()
    assert "0 of 1 records are as they were written, 1 without hashes, 0 are not" in capsys.readouterr().out
    assert verify(record).seal == ""


def test_bad_words_are_refused(record, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, error, said in (
        ({"records": [str(tmp_path / "empty")]}, FileNotFoundError, "neither an episode record nor"),
        ({"records": [str(record)], "seal": "xyz"}, ValueError, "64 hexadecimal digits"),
    ):
        with pytest.raises(error, match=said):
            Verify(**words).check_names()


def test_hashes_that_are_added_later_say_so_and_find_what_changes_then(record, capsys):
    change_manifest(record, lambda manifest: manifest.pop("digests"))
    Verify(records=[str(record)], add_hashes=True).run()
    said = capsys.readouterr().out
    assert "no hashes of its own; its files are those of 20" in said and "1 as they were when hashes were added" in said
    noted = (record / "added_hashes.txt").read_text()
    assert "made after the record was written" in noted and "episodes.parquet" in noted
    Verify(records=[str(record)], add_hashes=True).run()
    assert (record / "added_hashes.txt").read_text() == noted, "what is there is never replaced"
    (record / "videos/1.mp4").unlink()
    assert not verify(record).faults, "copies may leave films out"
    change_manifest(record, lambda manifest: manifest["policy"].update(path="runs/b"))
    assert "manifest.json is not the file that it was on" in verify(record).faults[-1]
    (record / "added_hashes.txt").write_text(noted.replace("manifest.json", "../a"))
    assert "names '../a', which is no file of the record" in verify(record).faults[0]


def test_nothing_is_added_to_a_record_that_has_hashes(record):
    Verify(records=[str(record)], add_hashes=True).run()
    assert not (record / "added_hashes.txt").exists()
