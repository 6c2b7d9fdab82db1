"""Tags and boards drawn as a pinhole camera sees them, to the hundredth of a pixel."""

import cv2
import numpy as np

K = np.array([[520.0, 0, 319.5], [0, 520.0, 239.5], [0, 0, 1]])
SIZE = (480, 640)
FINE = 6  # times as many pixels before they are averaged


def turned(x, y, z):
    """(3, 3) of a turn vector, rad."""
    return cv2.Rodrigues(np.array([x, y, z], float))[0]


def drawn(texture, metres, pose, K=K, size=SIZE):
    """A picture (h, w) of a print `texture` (h, w), `metres` (width, height) large.

    `pose` (4, 4): camera_from_print, whose origin is the top left corner of the print, x right, y down, z into it.
    """
    scale = np.diag([metres[0] / texture.shape[1], metres[1] / texture.shape[0], 1.0])
    middle = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # a texel's middle is half a texel from the edge
    fine = np.array([[FINE, 0, (FINE - 1) / 2], [0, FINE, (FINE - 1) / 2], [0, 0, 1.0]])
    homography = fine @ K @ pose[:3][:, [0, 1, 3]] @ scale @ middle
    large = (size[1] * FINE, size[0] * FINE)
    picture = cv2.warpPerspective(texture, homography, large, flags=cv2.INTER_LINEAR, borderValue=255)
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def tag_picture(number, camera_from_tag, side=0.08, family="DICT_APRILTAG_36h11", K=K):
    """A picture of a tag with a white margin; `camera_from_tag`: x right, y up, z out of the print, from its middle."""
    found = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, family))
    cells = found.markerSize + 2
    tag = cv2.aruco.generateImageMarker(found, number, cells * 40)
    texture = cv2.copyMakeBorder(tag, 80, 80, 80, 80, cv2.BORDER_CONSTANT, value=255)
    metres = side * texture.shape[0] / tag.shape[0]
    flip = np.diag([1.0, -1.0, -1.0, 1.0])  # from the print's y down and z in
    flip[:3, 3] = [-metres / 2, metres / 2, 0]
    return drawn(texture, (metres, metres), camera_from_tag @ flip, K)


def looking_at(place, turn):
    """camera_from_tag (4, 4) of an upright tag before the camera, turned by `turn` (3, 3) in its own frame."""
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ turn
    pose[:3, 3] = place
    return pose
