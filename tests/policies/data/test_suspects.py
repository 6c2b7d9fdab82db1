"""A film that ended the process which decoded it is found by the next one, and refused if it would do so again."""

import os
import subprocess
import sys

import numpy as np
import pytest

from understudy.policies.data import suspects
from understudy.policies.data.decode import read_frames
from understudy.policies.data.encode import write_mp4
from understudy.policies.data.films import read_film
from understudy.policies.data.layout import DatasetError

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture
def film(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "film.mp4"
    write_mp4(path, [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(6)], 10)
    return path


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache/decoding").glob("*"))


def killed_while_decoding(film):
    """A process that dies in the middle of a film, as of a fault inside the decoder."""
    code = f"""
import numpy as np
from pathlib import Path
from understudy.policies.data.decode import read_frames
from understudy.policies.data.films import read_film
for picture in read_frames(read_film(Path({str(film)!r})), np.arange(6)):
    {DIES}
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -11


def test_a_film_that_was_read_leaves_no_note(film, tmp_path):
    assert len(list(read_frames(read_film(film), np.arange(6)))) == 6
    next(read_frames(read_film(film), np.arange(6)))  # left before its end
    assert left(tmp_path) == []


def test_after_a_death_the_film_is_tried_apart_and_read_if_it_is_whole(film, tmp_path):
    killed_while_decoding(film)
    assert len(left(tmp_path)) == 1
    assert len(list(read_frames(read_film(film), np.arange(6)))) == 6
    assert left(tmp_path) == []


def test_and_refused_by_name_if_another_process_dies_of_it(film, tmp_path, monkeypatch):
    killed_while_decoding(film)
    monkeypatch.setattr(suspects, "PROBE", DIES)
    for _ in range(2):
        with pytest.raises(DatasetError, match="film.mp4 cannot be decoded .the decoder dies of it, by signal 11"):
            list(read_frames(read_film(film), np.arange(6), "episode 3"))
    assert len(left(tmp_path)) == 1 and str(os.getpid()) not in left(tmp_path)[0]


def test_where_nothing_can_be_noted_films_are_read_all_the_same(film, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "file"))
    assert len(list(read_frames(read_film(film), np.arange(6)))) == 6
