"""Tags drawn to a hundredth of a pixel: every detector has the same corners, in the same order, and the same pose."""

import importlib.util

import numpy as np
import pytest

from understudy.hardware.twin.calibration.fiducials import DETECTORS, Board, detect, square, tag_pose

PUPIL = importlib.util.find_spec("pupil_apriltags")
EACH = [
    pytest.param(name, marks=pytest.mark.skipif(name == "pupil" and PUPIL is None, reason="pupil-apriltags"))
    for name in DETECTORS
]
SIDE = 0.08
POSES = [  # place, turn
    ([0.03, -0.02, 0.4], (0, 0, 0)),  # upright
    ([-0.05, 0.03, 0.5], (0.4, -0.3, 0.2)),
    ([0.0, 0.05, 0.35], (-0.3, 0.4, np.pi / 2)),  # on its side
    ([0.06, 0.0, 0.45], (0.2, 0.3, np.pi - 0.05)),  # upside down
]


@pytest.mark.parametrize("detector", EACH)
@pytest.mark.parametrize("number", range(len(POSES)))
def test_corners_and_pose(detector, number, prints):
    pose = prints.before(*POSES[number])
    found = detect(prints.tag(7, pose, SIDE), "apriltag_36h11", detector)
    assert [tag.id for tag in found] == [7]

    seen = square(SIDE) @ pose[:3, :3].T + pose[:3, 3]
    wanted = (seen @ prints.K.T)[:, :2] / seen[:, 2:]
    off = found[0].corners - wanted
    assert np.abs(off).max() < 0.5 and np.abs(off.mean(0)).max() < 0.15  # half a pixel would be another convention

    guessed = tag_pose(found[0], SIDE, prints.K)
    turn = guessed.camera_from_tag[:3, :3].T @ pose[:3, :3]
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
    assert angle < np.deg2rad(1.5 if number else 15)  # straight on, a tilt hardly shows
    assert np.linalg.norm(guessed.camera_from_tag[:3, 3] - pose[:3, 3]) < 0.004


def test_upright_begins_top_left_and_goes_clockwise(prints):
    corners = detect(prints.tag(3, prints.before(*POSES[0]), SIDE), "apriltag_36h11")[0].corners
    left, top = corners[:, 0] < corners[:, 0].mean(), corners[:, 1] < corners[:, 1].mean()
    assert left.tolist() == [True, False, False, True] and top.tolist() == [True, True, False, False]


def test_refusals():
    picture = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(LookupError, match="apriltag_36h11"):
        detect(picture, "apriltag_36h1")
    with pytest.raises(LookupError, match="subpixel"):
        detect(picture, "apriltag_36h11", "best")
    with pytest.raises(ValueError, match="uint8"):
        detect(picture / 255.0, "apriltag_36h11")
    with pytest.raises(ValueError, match="smaller than square"):
        Board(square=0.02, marker=0.03)
