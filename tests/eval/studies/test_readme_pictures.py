"""The picture of README.md: a task in the middle of its episode; the committed picture is small and whole."""

import numpy as np

from understudy.eval.studies.readme_pictures import TALL, TILE, VIEWS, WIDE, View, picture


def test_a_task_is_shown_in_the_middle_of_its_episode():
    first, middle = (picture(View("pusht", "PushT", done, camera="image")) for done in (0.0, 0.5))
    assert first.shape == (*TILE, 3) and first.dtype == np.uint8
    assert (first != middle).any() and middle.std() > 5


def test_the_committed_picture_is_small_and_whole(root):
    import cv2

    path = root / "docs/pictures/overview.webp"
    assert path.stat().st_size < 300_000
    assert cv2.imread(str(path)).shape == (TALL, WIDE, 3)
    assert {view.world for view in VIEWS} == {"lift", "pusht", "so101-pick-place"}
