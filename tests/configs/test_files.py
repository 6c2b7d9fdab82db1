"""Files and folders that are there whole or not at all."""

import os
import subprocess
import sys

import pytest

from understudy.configs import files
from understudy.configs.files import replace_file, replace_folder, replace_text


def test_text_replaces_what_was_there_and_makes_the_folder(tmp_path):
    path = tmp_path / "a" / "b.json"
    assert replace_text(path, "eins\n") == path and replace_text(path, "zwei é\n") == path
    assert path.read_bytes() == "zwei é\n".encode() and os.listdir(path.parent) == ["b.json"]


def test_a_failure_leaves_the_old_file_and_nothing_beside(tmp_path):
    path = replace_text(tmp_path / "f", "old")

    def half(beside):
        beside.write_text("new, but")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(path, half)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_a_link_is_replaced_itself_not_what_it_points_to(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        replace_file(tmp_path / "last", lambda fresh, name=name: fresh.symlink_to(name))
    assert os.readlink(tmp_path / "last") == "two" and not os.listdir(tmp_path / "one")


def test_a_folder_is_replaced_whole(tmp_path):
    def fill(word):
        def make(beside):
            assert not beside.exists() and beside.parent == tmp_path
            beside.mkdir()
            (beside / word).write_text(word)

        return make

    folder = tmp_path / "run"
    replace_folder(folder, fill("one"))
    assert replace_folder(folder, fill("two"), settle=True) == folder
    assert os.listdir(folder) == ["two"] and os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_fill_raises_leaves_the_old_folder_and_nothing_beside(tmp_path, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")

    def fill(beside):
        beside.mkdir()
        (beside / "new").write_text("half")
        raise error

    with pytest.raises(type(error)):
        replace_folder(tmp_path / "run", fill)
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == ["old"]


def test_every_file_is_flushed_before_the_rename(tmp_path, monkeypatch):
    flushed = []

    def fsync(number):
        assert not (tmp_path / "run").exists()
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")) if sys.platform == "linux" else "?")

    def fill(beside):
        (beside / "inner").mkdir(parents=True)
        (beside / "a").write_text("a")
        (beside / "inner" / "b").write_text("b")

    monkeypatch.setattr(files.os, "fsync", fsync)
    replace_folder(tmp_path / "run", fill, settle=True)
    assert sorted(flushed) == ["a", "b"] if sys.platform == "linux" else len(flushed) == 2
    replace_folder(tmp_path / "other", fill)
    assert len(flushed) == 2


def test_what_a_killed_process_leaves_is_found_by_its_ending(tmp_path):
    code = """
import os, sys
from pathlib import Path
from understudy.configs.files import replace_file, replace_folder
def die(beside):
    beside.mkdir() if sys.argv[2] == "folder" else beside.write_text("half")
    os._exit(9)
(replace_folder if sys.argv[2] == "folder" else replace_file)(Path(sys.argv[1]) / "x", die)
"""
    for what in ("file", "folder"):
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path), what], timeout=60).returncode == 9
    assert not (tmp_path / "x").exists() and len(list(tmp_path.iterdir())) == 2
    assert len(list(tmp_path.glob(f".x.*{files.PART}"))) == len(list(tmp_path.glob(f".x.*{files.HALF}"))) == 1
