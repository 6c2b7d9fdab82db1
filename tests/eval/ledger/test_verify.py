"""A record that cannot be is refused by name: rows, manifest, table, lines, films."""

import json
import subprocess
import sys
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.__main__ import main
from understudy.configs.owner import InUseError, owned
from understudy.eval.ledger.films import film_paths
from understudy.eval.ledger.record import RecordWriter, open_record, read_record
from understudy.eval.ledger.table import RecordError, tables_equal

N = 6
MANIFEST = {"policy": {"path": "p"}, "starts": {"set": "point", "first": 1000, "count": N}}


def row(start, **changes):
    won = start % 2 == 0
    values = {
        "initial_conditions": "point", "env_seed": start, "policy_seed": 0, "task": "point", "success": won,
        "first_success": 3 if won else -1, "best_progress": 1.0 if won else 0.4, "final_progress": 1.0 if won else 0.3,
        "return": 1.5, "length": 3, "progress": [0.1, 0.2, 1.0] if won else [0.1, 0.4, 0.3],
        "terminated": won, "truncated": not won, "wall_physics": 0.1, "wall_render": 0.0, "wall_policy": 0.2,
        "attempt": 1, "worker": 0, "video": "", "error": "", "labels": "{}",
    }  # fmt: skip
    return values | changes


def write(root, **manifest):
    with RecordWriter(root, MANIFEST | manifest) as writer:
        for start in range(1000, 1000 + N):
            writer.add(row(start))
        return writer.close(complete=True)


@pytest.fixture
def old(tmp_path):
    """A record without digests, as earlier versions wrote it, so that rows alone must tell."""
    record = write(tmp_path / "old")
    manifest = json.loads((record.root / "manifest.json").read_text())
    del manifest["digests"]
    (record.root / "manifest.json").write_text(json.dumps(manifest))
    return record


def put(record, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=record.table.schema), record.root / "episodes.parquet")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: [rows[0], *rows], "a row for an initial condition that has one already: env seed 1000"),
        (lambda rows: rows[::-1], "rows out of order: env seed 1004"),
        (lambda rows: rows[:-1], "5 rows, but the manifest says 6 episodes"),
        (lambda rows: [*rows[:-1], rows[-1] | {"env_seed": 2001}], "outside of the manifest's env seeds 1000..1005"),
        (lambda rows: [rows[0] | {"env_seed": 3}, *rows[1:]], "outside of the manifest's env seeds 1000..1005.*seed 3"),
        (lambda rows: [*rows[:-1], rows[-1] | {"initial_conditions": "z"}], "initial conditions other than 'point'"),
    ],
)  # fmt: skip
def test_rows_and_manifest_must_agree(old, change, says):
    put(old, change(old.table.to_pylist()))
    with pytest.raises(RecordError, match=f"old/episodes.parquet: .*{says}"):
        read_record(old.root)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"first_success": -1}, "success, but first_success says never"),
        ({"success": False}, "no success, but first_success says when"),
        ({"first_success": 4}, "first_success after the episode's end"),
        ({"first_success": -2}, "first_success below -1"),
        ({"length": 2}, "progress has not a value for each step"),
        ({"length": -1}, "length below 0"),
        ({"progress": [0.1, 1.0]}, "progress has not a value for each step"),
        ({"progress": [0.1, 1.2, 1.0], "best_progress": 1.2}, "progress is no number in 0..1"),
        ({"progress": [float("nan"), 0.2, 1.0]}, "progress is no number in 0..1"),
        ({"best_progress": 0.5}, "best_progress is not that of its progress"),
        ({"final_progress": 0.5}, "final_progress is not that of its progress"),
        ({"best_progress": float("nan")}, "best_progress is no number in 0..1"),
        ({"final_progress": -0.5}, "final_progress is no number in 0..1"),
        ({"wall_policy": -1.0}, "wall_policy is no time"),
        ({"wall_physics": float("inf")}, "wall_physics is no time"),
        ({"return": float("nan")}, "return is no number"),
        ({"error": "broke"}, "success of an episode that ended in an error"),
        ({"labels": "[1]"}, "labels are no JSON object"),
        ({"success": None}, "column 'success' is empty in 1 of 6 rows"),
        ({"env_seed": None}, "column 'env_seed' is empty in 1 of 6 rows"),
    ],
)  # fmt: skip
def test_a_row_must_not_contradict_itself(old, change, says):
    put(old, [row(1000) | change, *old.table.to_pylist()[1:]])
    assert any(f"old/episodes.parquet: {says}" in fault for fault in open_record(old.root)[1])
    with pytest.raises(RecordError, match="old/episodes.parquet: "):
        read_record(old.root)


def test_all_faults_are_listed(old):
    bad = row(1000, success=False, wall_policy=-1.0, length=4, best_progress=2.0)
    put(old, [bad, *old.table.to_pylist()[1:]])
    assert len(open_record(old.root)[1]) == 5
    with pytest.raises(RecordError, match="and 2 more: `understudy doctor"):
        read_record(old.root)


@pytest.mark.parametrize("name", ["error", "success", "env_seed", "progress"])
def test_missing_columns_are_named(old, name):
    pq.write_table(old.table.drop_columns([name]), old.root / "episodes.parquet")
    with pytest.raises(RecordError, match=f"old/episodes.parquet lacks the column {name}"):
        read_record(old.root)


@pytest.mark.parametrize(("name", "kind"), [("length", pa.string()), ("success", pa.int64()), ("progress", pa.int8())])
def test_columns_of_another_type_are_named(old, name, kind):
    values = pa.array([1] * N).cast(kind)
    table = old.table.set_column(old.table.column_names.index(name), name, values)
    pq.write_table(table, old.root / "episodes.parquet")
    with pytest.raises(RecordError, match=f"old/episodes.parquet: column '{name}' is of type {kind}"):
        read_record(old.root)


def test_whole_numbers_of_another_width_are_fine(old):
    table = old.table.set_column(old.table.column_names.index("length"), "length", old.table["length"].cast(pa.int64()))
    pq.write_table(table, old.root / "episodes.parquet")
    assert tables_equal(read_record(old.root).table, old.table)


@pytest.mark.parametrize("damage", [lambda data: data[:300], lambda data: b"", lambda data: b"PAR1" * 30])
def test_a_damaged_table_is_named(old, damage):
    path = old.root / "episodes.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError, match="old/episodes.parquet is damaged"):
        read_record(old.root)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "no JSON"), (b"", "no JSON"), (b"\xff\xfe", "no JSON"), (b"[1]", "holds a list"), (b"3", "holds a int"),
        (b'{"format": "2"}', "its 'format' is"), (b'{"starts": [1]}', "its 'starts' is"),
        (b'{"policy": 3}', "its 'policy' is"), (b"[" * 100_000, "no JSON"),
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(old, text, says):
    (old.root / "manifest.json").write_bytes(text)
    with pytest.raises(RecordError, match=f"old/manifest.json is damaged: .*{says}"):
        read_record(old.root)


def test_what_was_changed_after_closing_is_told(tmp_path):
    record = write(tmp_path / "r")
    assert tables_equal(read_record(record.root).table, record.table)
    pq.write_table(record.table, record.root / "episodes.parquet", compression="gzip", row_group_size=2)
    assert tables_equal(read_record(record.root).table, record.table), "packed otherwise, the same rows"
    put(record, [row(1000, **{"return": 1.25}), *record.table.to_pylist()[1:]])
    with pytest.raises(RecordError, match="r/episodes.parquet: its rows were changed since they were written"):
        read_record(record.root)

    put(record, [row(1000, video="../x.mp4"), *record.table.to_pylist()[1:]])
    with pytest.raises(RecordError, match=r"the film '../x.mp4' lies outside of the record; .*rows were changed"):
        read_record(record.root)

    record = write(tmp_path / "s")
    path = record.root / "manifest.json"
    path.write_text(path.read_text().replace('"path": "p"', '"path": "q"'))
    with pytest.raises(RecordError, match="s/manifest.json was changed since it was written"):
        read_record(record.root)


def killed(root):
    """A record whose run was killed after four episodes."""
    writer = RecordWriter(root, MANIFEST)
    for start in range(1000, 1004):
        writer.add(row(start))
    writer._file.close()
    writer._lock.release()
    return root / "episodes.jsonl"


@pytest.mark.parametrize(
    "damage", [lambda line: line[:40], lambda line: "\0" * 30, lambda line: line.replace("0.3", "0.2")]
)
def test_a_damaged_line_is_said_and_its_episode_runs_again(tmp_path, damage):
    path = killed(tmp_path / "r")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage(lines[1]), *lines[2:]]) + "\n")
    with pytest.warns(UserWarning, match="episodes.jsonl, line 2 is damaged and left out"):
        assert read_record(tmp_path / "r").column("env_seed") == [1000, 1002, 1003]
    with pytest.warns(UserWarning), RecordWriter(tmp_path / "r", MANIFEST, resume=True) as writer:
        assert writer.done == {1000, 1002, 1003}


def test_half_of_the_last_line_is_dropped_without_a_word(tmp_path):
    path = killed(tmp_path / "r")
    path.write_bytes(path.read_bytes()[:-50])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_record(tmp_path / "r").column("env_seed") == [1000, 1001, 1002]


def test_impossible_lines_are_refused(tmp_path):
    path = killed(tmp_path / "r")
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[1] + "\n")
    with pytest.raises(RecordError, match="episodes.jsonl: env seed 1001 has two rows, lines 2 and 5"):
        read_record(tmp_path / "r")
    path.write_text(json.dumps({"env_seed": 1000}) + "\n")
    with pytest.raises(RecordError, match="episodes.jsonl, line 1: column 'attempt' is missing"):
        read_record(tmp_path / "r")
    path.write_text(json.dumps(row(1000, length="long")) + "\n")
    with pytest.raises(RecordError, match="episodes.jsonl holds a row with a value of another type"):
        read_record(tmp_path / "r")
    path.write_text(json.dumps(row(1000, progress=[0.1, 7.0, 1.0], best_progress=7.0)) + "\n")
    with pytest.raises(RecordError, match=r"episodes.jsonl: .*no number in 0..1"):
        read_record(tmp_path / "r")


def test_one_process_writes_a_record(tmp_path):
    writer = RecordWriter(tmp_path / "r", MANIFEST)
    writer.add(row(1000))
    with pytest.raises(InUseError, match="is being written by another process"):
        RecordWriter(tmp_path / "r", MANIFEST, resume=True)
    assert read_record(tmp_path / "r").column("env_seed") == [1000], "reading takes no lock"
    writer.close(complete=False)
    with RecordWriter(tmp_path / "r", MANIFEST, resume=True) as again:
        assert again.done == {1000}
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["episodes.parquet", "manifest.json"]


def test_a_folder_is_free_once_its_owner_is_gone(tmp_path):
    with owned(tmp_path), pytest.raises(InUseError):
        owned(tmp_path)
    owned(tmp_path)  # nobody keeps it
    owned(tmp_path).release()


def test_a_child_process_does_not_keep_its_parents_folder(tmp_path):
    """The parent is killed while a forked child lives on."""
    code = f"""
import os, sys, time
from pathlib import Path
from understudy.__main__ import main
from understudy.configs.owner import owned
held = owned(Path({str(tmp_path)!r}))
if os.fork() == 0:
    print("owned", flush=True)
    sys.stdin.read()
    os._exit(0)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"owned\n"
        with pytest.raises(InUseError):
            owned(tmp_path)
        parent.kill()
        parent.wait()
        owned(tmp_path).release()
        parent.stdin.close()


MP4 = b"\0\0\0\x18ftypisom" + b"\0" * 20


def test_films_lie_inside_their_record(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(MP4)
    root = tmp_path / "r"
    outside = [
        "../secret.mp4",
        str(tmp_path / "secret.mp4"),
        "videos/link.mp4",
        "videos/../../secret.mp4",
        "up/secret.mp4",
    ]
    with RecordWriter(root, MANIFEST) as writer:
        (root / "videos").mkdir()
        (root / "videos" / "good.mp4").write_bytes(MP4)
        (root / "videos" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
        (root / "up").symlink_to(tmp_path)
        for start, name in enumerate(["videos/good.mp4", *outside], 1000):
            writer.add(row(start, video=name))
        record = writer.close(complete=True)
    with pytest.warns(UserWarning) as told:
        assert film_paths(record) == {1000: (root / "videos" / "good.mp4").resolve()}
    assert len(told) == len(outside)
    for warning, name in zip(told, outside, strict=True):
        assert f"the film {name!r}" in str(warning.message) and "outside of the record" in str(warning.message)


@pytest.mark.parametrize(("name", "says"), [("manifest.json", "is no mp4"), ("", None), ("gone.mp4", None)])
def test_what_is_no_film_is_left_out(tmp_path, name, says):
    with RecordWriter(tmp_path / "r", MANIFEST) as writer:
        writer.add(row(1000, video=name))
        record = writer.close(complete=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert film_paths(record) == {}
    assert [says in str(warning.message) for warning in told] == [True] * bool(says)


def test_a_changed_film_is_left_out(tmp_path):
    with RecordWriter(tmp_path / "r", MANIFEST) as writer:
        (tmp_path / "r" / "a.mp4").write_bytes(MP4)
        writer.add(row(1000, video="a.mp4"))
        record = writer.close(complete=False)
    assert list(film_paths(record)) == [1000]
    (tmp_path / "r" / "a.mp4").write_bytes(MP4 + b"more")
    with pytest.warns(UserWarning, match="was changed since it was written"):
        assert film_paths(record) == {}


def test_the_doctor_tells_all_of_a_record(old, tmp_path, capsys):
    assert main(["doctor", str(write(tmp_path / "sound").root)]) == 0
    assert "6 episodes" in capsys.readouterr().out
    rows = [row(1000, success=False, video="../x.mp4"), row(1001, wall_policy=-1.0), *old.table.to_pylist()[2:]]
    put(old, rows)
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", str(old.root)])
    said = capsys.readouterr().out
    for text in (
        "first_success says when: env seed 1000",
        "wall_policy is no time",
        "'../x.mp4'",
        "old/episodes.parquet",
    ):
        assert text in said
    (old.root / "manifest.json").write_text("{")
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", str(old.root)])
    assert "manifest.json is damaged" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path)]) == 2
    assert "is no episode record" in capsys.readouterr().err
