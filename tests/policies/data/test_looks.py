"""Swapped and colourless cameras are named; what varies as scenes do is not."""

import numpy as np

from understudy.policies.data.looks import differences, is_grey, look_of

RNG = np.random.default_rng(0)


def scene(colour, count=8):
    """Pictures of 20x30 of a ground of one colour, with a bright block somewhere."""
    pictures = np.full((count, 20, 30, 3), colour, np.uint8)
    for picture in pictures:
        y, x = RNG.integers(0, 15), RNG.integers(0, 25)
        picture[y : y + 5, x : x + 5] = 230
    return pictures


TOP, WRIST = scene((40, 60, 120)), scene((150, 120, 60))
KNOWN = {"top": look_of(TOP), "wrist": look_of(WRIST)}


def test_cameras_that_changed_places_are_named():
    (said,) = differences(KNOWN, {"top": look_of(WRIST[:1]), "wrist": look_of(TOP[:1])})
    assert said == "'top' looks as 'wrist' did before, and the other way round: are the two cameras swapped?"


def test_other_scenes_and_another_light_are_not():
    assert not [
        *differences(KNOWN, {"top": look_of(scene((40, 60, 120), 1)), "wrist": look_of(scene((150, 120, 60), 1))})
    ]
    darker = {"top": look_of(TOP // 2), "wrist": look_of(WRIST // 2)}
    assert not [*differences(KNOWN, darker)] and not [*differences({}, darker)] and not [*differences(KNOWN, {})]


def test_a_camera_that_lost_its_colours_is_named():
    grey = np.repeat(TOP.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    (said,) = differences(KNOWN, {"top": look_of(grey), "wrist": look_of(WRIST)})
    assert said.startswith("'top' shows no colours") and is_grey(grey[0]) and not is_grey(TOP[0])
