"""Printed tags and boards in pictures: where their corners are and where the tag is, alike for every detector.

Corners of a tag are top left, top right, bottom right, bottom left, as one sees the upright print, in OpenCV's pixels:
(0, 0) is the middle of the first pixel. The frame of a tag is x right, y up, z out of the print, the origin in its
middle. The detectors differ and are brought to this: pupil-apriltags begins at the top right corner, goes the other way
round, has its tag turned by 180 degrees, and counts pixels from the edge, as OpenCV's `CORNER_REFINE_APRILTAG` does;
OpenCV's corners without refinement are whole pixels, up to 1 px off, so that it is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ....configs.plugins import lookup

EDGE = 0.5  # px between counting from the edge and from the middle of the first pixel
PUPIL = {"apriltag_36h11": "tag36h11", "apriltag_25h9": "tag25h9", "apriltag_16h5": "tag16h5"}


@dataclass(frozen=True, eq=False)
class Tag:
    """A tag in a picture: its number, and its corners (4, 2) px in the order of the module."""

    id: int
    corners: np.ndarray


@dataclass(frozen=True)
class TagPose:
    """Where a tag is: camera_from_tag (4, 4) m; the reprojection error, px; and that of the next best pose.

    A square seen from far or straight on has two poses that fit nearly alike: trust one only where `other` is well
    above `error`.
    """

    camera_from_tag: np.ndarray
    error: float
    other: float


def dictionary(family: str):
    """OpenCV's dictionary of a family such as `apriltag_36h11` or `4x4_50`. LookupError lists the known ones."""
    import cv2

    known = {name[5:].lower(): name for name in dir(cv2.aruco) if name.startswith("DICT_")}
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, lookup("family of tags", family, known)))


def _opencv(refinement: str, shift: float) -> Callable[[np.ndarray, str], list[Tag]]:
    def detect(grey: np.ndarray, family: str) -> list[Tag]:
        import cv2

        settings = cv2.aruco.DetectorParameters()
        settings.cornerRefinementMethod = getattr(cv2.aruco, refinement)
        corners, ids, _ = cv2.aruco.ArucoDetector(dictionary(family), settings).detectMarkers(grey)
        numbers = [] if ids is None else ids.ravel().tolist()
        return [
            Tag(int(i), found.reshape(4, 2).astype(float) - shift) for i, found in zip(numbers, corners, strict=True)
        ]

    return detect


def _pupil(grey: np.ndarray, family: str) -> list[Tag]:
    try:
        from pupil_apriltags import Detector
    except ImportError as error:
        raise ImportError(f"detector pupil needs pupil-apriltags ({error}): pip install pupil-apriltags") from error
    detector = Detector(families=lookup("family of tags for pupil", family, PUPIL), quad_decimate=1.0)
    return [Tag(int(one.tag_id), np.asarray(one.corners, float)[[1, 0, 3, 2]] - EDGE) for one in detector.detect(grey)]


DETECTORS: dict[str, Callable[[np.ndarray, str], list[Tag]]] = {
    "subpixel": _opencv("CORNER_REFINE_SUBPIX", 0.0),
    "apriltag": _opencv("CORNER_REFINE_APRILTAG", EDGE),
    "pupil": _pupil,
}


def detect(image: np.ndarray, family: str, detector: str = "subpixel") -> list[Tag]:
    """All tags of a family in a picture (h, w) or (h, w, 3) uint8 RGB, by rising number.

    Raises:
        LookupError: unknown family or detector, listing the known ones.
        ImportError: the detector is not installed.
    """
    found = lookup("detector", detector, DETECTORS)(grey_of(image), family)
    return sorted(found, key=lambda tag: tag.id)


def grey_of(image: np.ndarray) -> np.ndarray:
    """(h, w) uint8 of a picture."""
    import cv2

    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"a picture is uint8 (h, w) or (h, w, 3), got {image.dtype} {image.shape}")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def square(side: float) -> np.ndarray:
    """(4, 3) m, a tag's corners in its frame."""
    half = side / 2
    return np.array([[-half, half, 0], [half, half, 0], [half, -half, 0], [-half, -half, 0]])


def tag_pose(tag: Tag, side: float, K: np.ndarray, distortion: np.ndarray | None = None) -> TagPose:
    """Where a tag of `side` m is. Source: IPPE (Collins and Bartoli 2014) in OpenCV."""
    import cv2

    lens = np.zeros(5) if distortion is None else np.asarray(distortion, float)
    _, turns, places, errors = cv2.solvePnPGeneric(
        square(side), tag.corners[:, None], np.asarray(K, float), lens, flags=cv2.SOLVEPNP_IPPE_SQUARE
    )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turns[0])[0], places[0].ravel()
    other = float(errors[1].item()) if len(errors) > 1 else np.inf
    return TagPose(pose, float(errors[0].item()), other)


@dataclass(frozen=True, kw_only=True)
class Board:
    """A printed board: `charuco` (a chessboard with tags in its white squares) or `tags` (a grid of tags)."""

    kind: str = "charuco"  # charuco | tags
    columns: int = 7  # squares, or tags, side by side
    rows: int = 5  # one above the other
    square: float = 0.03  # m, side of a square; of a grid: from the edge of a tag to the same edge of the next
    marker: float = 0.022  # m, side of a tag, black edge to black edge
    family: str = "4x4_50"  # of the tags, such as apriltag_36h11
    detector: str = "subpixel"  # of the tags: subpixel | apriltag | pupil
    legacy: bool = False  # charuco with an even number of rows, printed with OpenCV before 4.6

    def __post_init__(self) -> None:
        lookup("board", self.kind, dict.fromkeys(("charuco", "tags")))
        lookup("detector", self.detector, DETECTORS)
        if min(self.columns, self.rows) < (3 if self.kind == "charuco" else 1):
            raise ValueError(f"a board of {self.columns} x {self.rows} is too small")
        if self.square > 2:
            raise ValueError(f"square is {self.square:g} m: sizes of a board are in m, not mm")
        if not 0 < self.marker < self.square:
            raise ValueError(f"marker ({self.marker:g} m) must be smaller than square ({self.square:g} m)")

    def find(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the board that are seen: (n, 3) m in its frame, x right, y down as printed, and (n, 2) px."""
        return self._charuco(grey_of(image)) if self.kind == "charuco" else self._tags(image)

    def draw(self, pixels_a_square: int = 60) -> np.ndarray:
        """(h, w) uint8, the board to print, without a margin."""
        size = (self.columns * pixels_a_square, self.rows * pixels_a_square)
        if self.kind == "charuco":
            return self._board().generateImage(size, marginSize=0)
        import cv2

        picture = np.full(size[::-1], 255, np.uint8)
        side = round(self.marker / self.square * pixels_a_square)
        for number in range(self.columns * self.rows):
            row, column = divmod(number, self.columns)
            tag = cv2.aruco.generateImageMarker(dictionary(self.family), number, side)
            y, x = row * pixels_a_square, column * pixels_a_square
            picture[y : y + side, x : x + side] = tag
        return picture

    def _board(self):
        import cv2

        size = (self.columns, self.rows)
        board = cv2.aruco.CharucoBoard(size, self.square, self.marker, dictionary(self.family))
        board.setLegacyPattern(self.legacy)
        return board

    def _charuco(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        board = self._board()
        corners, ids, _, _ = cv2.aruco.CharucoDetector(board).detectBoard(grey)
        if ids is None or not len(ids):
            return np.empty((0, 3)), np.empty((0, 2))
        return np.asarray(board.getChessboardCorners(), float)[ids.ravel()], corners.reshape(-1, 2).astype(float)

    def _tags(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, pixels = [], []
        for tag in detect(image, self.family, self.detector):
            if tag.id < self.columns * self.rows:
                row, column = divmod(tag.id, self.columns)
                corner = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * self.marker + [
                    column * self.square,
                    row * self.square,
                ]
                points.append(np.column_stack([corner, np.zeros(4)]))
                pixels.append(tag.corners)
        if not points:
            return np.empty((0, 3)), np.empty((0, 2))
        return np.concatenate(points), np.concatenate(pixels)
