#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "OpenCV and pupil-apriltags see the same upright AprilTag half a turn apart: OpenCV lists its corners clockwise from
the top left, pupil-apriltags anticlockwise from the top right, and its pose is turned by 180 degrees about the tag's normal."

environment 3.11 opencv-python-headless==5.0.0.93 pupil-apriltags==1.0.4.post11 numpy==2.2.6
"$python" - <<'PY'
import cv2
import numpy as np
from pupil_apriltags import Detector

family = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
picture = np.full((440, 440), 255, np.uint8)
picture[120:320, 120:320] = cv2.aruco.generateImageMarker(family, 0, 200)
focal, centre, side = 500.0, 219.5, 0.1

corners = cv2.aruco.ArucoDetector(family).detectMarkers(picture)[0][0][0]
tag = np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]]) * side / 2
camera = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1]])
turn = cv2.solvePnP(tag, corners, camera, None, flags=cv2.SOLVEPNP_IPPE_SQUARE)[1]
matrix = cv2.Rodrigues(turn)[0]

settings = dict(estimate_tag_pose=True, camera_params=(focal, focal, centre, centre), tag_size=side)
(found,) = Detector(families="tag36h11").detect(picture, **settings)


def names(points):
    return [("top" if y < centre else "bottom") + (" left" if x < centre else " right") for x, y in points]


print("OpenCV:         ", names(corners), "rotation diagonal", np.diag(matrix).round(2))
print("pupil-apriltags:", names(found.corners), "rotation diagonal", np.diag(found.pose_R).round(2))
assert names(corners) == ["top left", "top right", "bottom right", "bottom left"], "the behaviour has changed"
assert names(found.corners) == ["top right", "top left", "bottom left", "bottom right"], "the behaviour has changed"
assert np.allclose(np.diag(found.pose_R), [-1, -1, 1], atol=0.01), "the behaviour has changed"
PY
