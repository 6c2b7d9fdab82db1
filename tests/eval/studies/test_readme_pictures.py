"""The picture of README.md: a task in the middle of its episode; the committed picture is small and whole."""

import re

import numpy as np

from understudy.eval.ledger.record import read_record
from understudy.eval.studies.readme_pictures import TALL, TILE, VIEWS, WIDE, View, picture


def test_a_task_is_shown_in_the_middle_of_its_episode():
    first, middle = (picture(View("pusht", "PushT", done, camera="image")) for done in (0.0, 0.5))
    assert first.shape == (*TILE, 3) and first.dtype == np.uint8
    assert (first != middle).any() and middle.std() > 5


def test_picture_and_table_of_the_readme_speak_of_the_same_record(root):
    readme, makefile = (root / "README.md").read_text(), (root / "Makefile").read_text()
    (shown,) = re.findall(r"readme_pictures --record (\S+)", makefile)
    won = read_record(root / shown).column("success")
    assert f"{sum(won)} of {len(won)} episodes succeeded" in readme
    (row,) = re.findall(r"^\| Lift, diffusion, .+$", readme, re.M)
    assert f"{sum(won) / len(won):.3f} [" in row and f"{len(won)} episodes" in row


def test_the_committed_picture_is_small_and_whole(root):
    import cv2

    path = root / "docs/pictures/overview.webp"
    assert path.stat().st_size < 300_000
    assert cv2.imread(str(path)).shape == (TALL, WIDE, 3)
    assert {view.world for view in VIEWS} == {"lift", "pusht", "so101-pick-place"}
