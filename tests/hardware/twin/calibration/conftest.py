"""What these tests share: tags and boards drawn as a pinhole camera sees them, to the hundredth of a pixel."""

import cv2
import numpy as np
import pytest

FINE = 6  # times as many pixels before they are averaged


class Prints:
    """Draws prints before a camera."""

    K = np.array([[520.0, 0, 319.5], [0, 520.0, 239.5], [0, 0, 1]])
    size = (480, 640)

    @staticmethod
    def turned(x, y, z):
        """(3, 3) of a turn vector, rad."""
        return cv2.Rodrigues(np.array([x, y, z], float))[0]

    def drawn(self, texture, metres, pose):
        """A picture (h, w) of a print `texture` (h, w), `metres` (width, height) large.

        `pose` (4, 4): camera_from_print; origin in the print's top left corner, x right, y down, z into it.
        """
        scale = np.diag([metres[0] / texture.shape[1], metres[1] / texture.shape[0], 1.0])
        middle = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # a texel's middle is half a texel from the edge
        fine = np.array([[FINE, 0, (FINE - 1) / 2], [0, FINE, (FINE - 1) / 2], [0, 0, 1.0]])
        homography = fine @ self.K @ pose[:3][:, [0, 1, 3]] @ scale @ middle
        large = (self.size[1] * FINE, self.size[0] * FINE)
        picture = cv2.warpPerspective(texture, homography, large, flags=cv2.INTER_LINEAR, borderValue=255)
        return cv2.resize(picture, self.size[::-1], interpolation=cv2.INTER_AREA)

    def tag(self, number, camera_from_tag, side):
        """A picture of tag 36h11 with a white margin; the tag's frame is that of `fiducials.py`."""
        family = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36h11)
        tag = cv2.aruco.generateImageMarker(family, number, 400)
        texture = cv2.copyMakeBorder(tag, 80, 80, 80, 80, cv2.BORDER_CONSTANT, value=255)
        metres = side * texture.shape[0] / tag.shape[0]
        flip = np.diag([1.0, -1.0, -1.0, 1.0])  # from the print's y down and z in
        flip[:3, 3] = [-metres / 2, metres / 2, 0]
        return self.drawn(texture, (metres, metres), camera_from_tag @ flip)

    def board(self, board, camera_from_board):
        """A picture of a printed board with a white margin."""
        texture = cv2.copyMakeBorder(board.draw(60), 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=255)
        texel, shift = board.square / 60, np.eye(4)
        shift[:2, 3] = -60 * texel
        return self.drawn(texture, (texture.shape[1] * texel, texture.shape[0] * texel), camera_from_board @ shift)

    @classmethod
    def before(cls, place, turn):
        """camera_from_tag (4, 4) of an upright tag before the camera, turned by a turn vector in its own frame."""
        pose = np.eye(4)
        pose[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ cls.turned(*turn)
        pose[:3, 3] = place
        return pose


@pytest.fixture(scope="session")
def prints():
    return Prints()
