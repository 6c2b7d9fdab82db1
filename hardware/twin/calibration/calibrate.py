"""`understudy twin calibrate`: a camera's lens from pictures of a board, and where the camera is.

    understudy twin calibrate --images shots --board.square 0.03 --board.marker 0.022 --out outputs/front

Writes `lens.json` (K, distortion, sizes, errors) and prints the reprojection error of every picture. With `--poses` it
also finds where the camera is (hand-eye): the board in the hand before a fixed camera, or the camera in the hand
before a fixed board. Poses are of the hand in the frame of the arm's base, or joint angles of a known arm. Start:
`cv2.calibrateHandEye` (Park and Martin 1994); then camera and board are moved until the reprojection error of all
pictures together is least.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ....configs.files import replace_text
from .fiducials import Board

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
LENS = "lens.json"
LEAST_VIEWS, LEAST_POINTS = 6, 8
POOR = 1.0  # px, a reprojection error that is told
WRONG = 10.0  # px, an error of one place for all pictures with which that is no camera's
FARTHEST = 10.0  # m, of a hand from the base
TURNED = np.deg2rad(15)  # rad, by which views of a board must differ in tilt


@dataclass(frozen=True, eq=False)
class Lens:
    """What a camera's lens does: K (3, 3) px, OpenCV's distortion (5,), size in px, root mean square error in px."""

    width: int
    height: int
    K: np.ndarray
    distortion: np.ndarray
    error: float

    def undistort(self, image: np.ndarray) -> np.ndarray:
        """The picture that a pinhole camera with the same K would have taken."""
        import cv2

        return cv2.undistort(np.ascontiguousarray(image), self.K, self.distortion)

    def write(self, folder: Path, **more) -> Path:
        """Write `lens.json` into the folder, which is made."""
        about = {"width": self.width, "height": self.height, "K": self.K.tolist()}
        about |= {"distortion": self.distortion.tolist(), "error_px": self.error} | more
        return replace_text(folder / LENS, json.dumps(about, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Lens:
        """What `write` wrote. FileNotFoundError, or ValueError: no lens."""
        path = folder / LENS
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            K, distortion = np.array(about["K"], float), np.array(about["distortion"], float)
            lens = cls(int(about["width"]), int(about["height"]), K, distortion, float(about["error_px"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no lens: {error!r}") from error
        if K.shape != (3, 3):
            raise ValueError(f"{path}: K is {K.shape}, not (3, 3)")
        return lens


@dataclass(frozen=True, eq=False)
class Sight:
    """The board in one picture: points (n, 3) m of the board, and where they are, (n, 2) px."""

    name: str
    points: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A lens, and for each picture camera_from_board (4, 4) and its root mean square error in px."""

    lens: Lens
    poses: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True, eq=False)
class HandEye:
    """Where a camera is: fixed: base_from_camera, and hand_from_board; in the hand: hand_from_camera, base_from_board.

    Attributes:
        camera: (4, 4), the camera's pose in the frame of the base or of the hand.
        board: (4, 4), the board's in that of the hand or of the base.
        error: px, root mean square over all points of all pictures, with one pose of camera and board for all.
        closure: (2,) m and rad, how far single pictures are from that, root mean square.
    """

    camera: np.ndarray
    board: np.ndarray
    error: float
    closure: tuple[float, float]


def calibrate_lens(sights: list[Sight], size: tuple[int, int]) -> Calibrated:
    """The lens of a camera of `size` (height, width) px.

    Raises:
        ValueError: too few pictures, or all from one side, so that focal length and distance cannot be told apart.
    """
    import cv2

    if len(sights) < LEAST_VIEWS:
        raise ValueError(f"the board is seen in {len(sights)} pictures; a lens needs {LEAST_VIEWS}, better 15 to 30")
    points = [sight.points.astype(np.float32) for sight in sights]
    pixels = [sight.pixels.astype(np.float32) for sight in sights]
    unknown: Any = None  # OpenCV's types ask for a first guess, its function does not
    found = cv2.calibrateCameraExtended(points, pixels, size[::-1], unknown, unknown)
    error, K, distortion, turns, places, _, _, errors = found
    poses = np.array([_pose(turn, place) for turn, place in zip(turns, places, strict=True)])

    axes = poses[:, :3, 2]
    spread = np.arccos(np.clip(axes @ axes.T, -1, 1)).max()
    if spread < TURNED:
        raise ValueError(
            f"all pictures see the board from one side (their tilts differ by {np.rad2deg(spread):.0f} degrees): "
            "turn it by 30 degrees and more, about both axes"
        )
    lens = Lens(size[1], size[0], K, distortion.ravel()[:5], float(error))
    return Calibrated(lens, poses, errors.ravel())


def hand_eye(sights: list[Sight], seen: Calibrated, hands: np.ndarray, fixed: bool) -> HandEye:
    """Where the camera is.

    Args:
        hands: (n, 4, 4) base_from_hand in each picture.
        fixed: whether the camera is fixed and the board in the hand; else the other way round.

    Raises:
        ValueError: too few pictures, or a hand that turned about one axis alone.
    """
    import cv2

    if len(sights) < 4:
        raise ValueError(f"a hand-eye calibration needs at least 4 pictures with poses, got {len(sights)}")
    _check_turns(hands)
    moved = np.linalg.inv(hands) if fixed else hands
    one, two = ((list(poses[:, :3, :3]), list(poses[:, :3, 3])) for poses in (moved, seen.poses))
    turn, place = cv2.calibrateHandEye(*one, *two, method=cv2.CALIB_HAND_EYE_PARK)
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = turn, place.ravel()
    boards = np.array([a @ camera @ b for a, b in zip(moved, seen.poses, strict=True)])
    camera, board, error = _refine(sights, seen.lens, moved, camera, boards[0])

    off = [np.linalg.inv(board) @ (a @ camera @ b) for a, b in zip(moved, seen.poses, strict=True)]
    metres = np.sqrt(np.mean([np.square(one[:3, 3]).sum() for one in off]))
    angles = np.sqrt(np.mean([_angle(one[:3, :3]) ** 2 for one in off]))
    return HandEye(camera, board, error, (float(metres), float(angles)))


def _refine(sights, lens: Lens, moved: np.ndarray, camera: np.ndarray, board: np.ndarray):
    """Camera and board with the least reprojection error, from a first guess; and that error."""
    import cv2
    from scipy.optimize import least_squares

    def residuals(numbers: np.ndarray) -> np.ndarray:
        one, two = _of(numbers[:6]), _of(numbers[6:])
        away = []
        for sight, hand in zip(sights, moved, strict=True):
            pose = np.linalg.inv(one) @ np.linalg.inv(hand) @ two
            seen, _ = cv2.projectPoints(
                sight.points, cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3], lens.K, lens.distortion
            )
            away.append((seen.reshape(-1, 2) - sight.pixels).ravel())
        return np.concatenate(away)

    found = least_squares(residuals, np.concatenate([_numbers(camera), _numbers(board)]), method="lm", x_scale="jac")
    points = len(found.fun) / 2
    return _of(found.x[:6]), _of(found.x[6:]), float(np.sqrt(np.square(found.fun).sum() / points))


def _check_turns(hands: np.ndarray) -> None:
    """Rotations between poses must have two axes, or the place along one of them stays unknown."""
    import cv2

    turns = np.array([cv2.Rodrigues(hands[0, :3, :3].T @ one[:3, :3])[0].ravel() for one in hands[1:]])
    second = np.linalg.svd(turns, compute_uv=False)[1] / np.sqrt(len(turns))
    if second < np.deg2rad(5):
        raise ValueError("the hand hardly turns, or about one axis alone: turn it by 20 degrees, about two axes")


def _check_pose(pose: np.ndarray, whose: str) -> None:
    """Refuse a 4 x 4 matrix that is no pose. Raises ValueError."""
    turn = pose[:3, :3]
    if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
        raise ValueError(f"{whose} has no rotation in its upper left 3 x 3")
    if not (np.isfinite(pose).all() and np.allclose(pose[3], [0, 0, 0, 1])):
        raise ValueError(f"{whose}: the last row of a pose is 0, 0, 0, 1, the place (finite, m) its last column")


def _numbers(pose: np.ndarray) -> np.ndarray:
    import cv2

    return np.concatenate([cv2.Rodrigues(pose[:3, :3])[0].ravel(), pose[:3, 3]])


def _of(numbers: np.ndarray) -> np.ndarray:
    return _pose(numbers[:3], numbers[3:])


def _pose(turn: np.ndarray, place: np.ndarray) -> np.ndarray:
    import cv2

    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(np.asarray(turn, float))[0], np.ravel(place)
    return pose


def _angle(turn: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Find a camera's lens, and where the camera is, from pictures of a printed board."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ()
    DISCOVER: ClassVar[tuple[str, ...]] = ("sim",)

    # folder with the pictures, all of one camera and size
    images: Path | None = None
    board: Board = field(default_factory=Board)  # the print
    # JSON: picture -> (4, 4) pose of the hand in the frame of the base, or -> the arm's joint angles in rad
    poses: Path | None = None
    arm: str = "so101"  # whose joint angles they are
    mount: str = "fixed"  # where the camera is: fixed (the board in the hand) or hand (the board fixed)
    name: str = "camera"  # of the camera, as the arm's pictures are named
    out: Path | None = None  # folder for lens.json, and cameras.json where the camera's place is found and fixed
    draw: Path | None = None  # write the board as a picture to print to this file, and do nothing else

    def __post_init__(self) -> None:
        if self.mount not in ("fixed", "hand"):
            raise ValueError(f"mount of a camera is fixed or hand, not '{self.mount}'")

    def run(self) -> None:
        if self.draw is not None:
            self._draw(self.draw)
            return
        sights, size, blind = self._look()
        if blind:
            print(f"no board in {len(blind)} of {len(blind) + len(sights)} pictures: {', '.join(blind[:5])}")
        seen = calibrate_lens(sights, size)
        print(describe(seen, sights))
        more: dict = {"views": len(sights)}
        if self.poses is not None:
            hands = self._hands(sights)
            found = hand_eye(sights, seen, hands, self.mount == "fixed")
            print(describe_place(found, self.mount))
            if found.error > WRONG:
                raise ValueError(
                    f"no place of the camera fits all pictures (off by {found.error:.0f} px), so nothing is written: "
                    "are the poses of the hand in the frame of the base (not the other way round), in m, of these very "
                    f"pictures, and is the camera {'fixed' if self.mount == 'fixed' else 'in the hand'} (--mount)?"
                )
            more["hand_eye"] = {"mount": self.mount, "camera": found.camera.tolist(), "board": found.board.tolist()}
            more["hand_eye"] |= {"error_px": found.error, "closure": found.closure}
            if self.out is not None and self.mount == "fixed":
                self._write_camera(seen.lens, found)
        if self.out is not None:
            print(f"wrote {seen.lens.write(self.out, **more)}")

    def _look(self) -> tuple[list[Sight], tuple[int, int], list[str]]:
        """Boards in the pictures, their size, and the names of those without. Raises ValueError, OSError."""
        import cv2

        if self.images is None:
            raise ValueError("which pictures? Name their folder with --images (--draw FILE makes a board to print)")
        files = sorted(file for file in self.images.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{self.images} holds no pictures ({', '.join(SUFFIXES)})")
        sights, blind, size = [], [], None
        for file in files:
            picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            if picture is None:
                raise ValueError(f"{file} is no picture")
            if size is not None and picture.shape != size:
                raise ValueError(f"{file} has {picture.shape[::-1]} px, others {size[::-1]}: one camera a folder")
            size = picture.shape
            points, pixels = self.board.find(picture)
            if len(points) >= LEAST_POINTS:
                sights.append(Sight(file.name, points, pixels))
            else:
                blind.append(file.name)
        assert size is not None
        return sights, size, blind

    def _hands(self, sights: list[Sight]) -> np.ndarray:
        """(n, 4, 4) base_from_hand of the pictures. Raises ValueError naming the first that lacks one."""
        assert self.poses is not None
        try:
            told = json.loads(self.poses.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.poses} is no JSON: {error}") from error
        rows, kinematics = [], None
        for sight in sights:
            if sight.name not in told:
                raise ValueError(f"{self.poses} has no pose for {sight.name}")
            value = np.asarray(told[sight.name], float)
            if value.shape != (4, 4):
                from ....sim.arms import Kinematics, find_arm

                kinematics = kinematics or Kinematics(find_arm(self.arm))
                if value.shape != (len(kinematics.arm.joints),):
                    raise ValueError(f"{self.poses}: {sight.name} has numbers of shape {value.shape}, not (4, 4)")
                if np.abs(value).max() > 2 * np.pi:
                    raise ValueError(f"{self.poses}: {sight.name} has {np.abs(value).max():g} rad: are these degrees?")
                pose = np.eye(4)
                pose[:3, 3], pose[:3, :3] = kinematics.forward(value)
                value = pose
            _check_pose(value, f"{self.poses}: {sight.name}")
            if np.abs(value[:3, 3]).max() > FARTHEST:
                raise ValueError(f"{self.poses}: in {sight.name} the hand is {value[:3, 3]} m away: are these mm?")
            rows.append(value)
        return np.array(rows)

    def _write_camera(self, lens: Lens, found: HandEye) -> None:
        from ..gaussians import Camera, write_cameras

        assert self.out is not None
        camera = Camera(self.name, lens.width, lens.height, lens.K, found.camera)
        print(f"wrote {write_cameras(self.out, [camera])}: of pictures without distortion, see lens.json")

    def _draw(self, file: Path) -> None:
        import cv2

        file.parent.mkdir(parents=True, exist_ok=True)
        picture = cv2.copyMakeBorder(self.board.draw(120), 120, 120, 120, 120, cv2.BORDER_CONSTANT, value=255)
        if not cv2.imwrite(str(file), picture):
            raise OSError(f"{file} cannot be written")
        print(f"wrote {file}: print it so that a square is {1000 * self.board.square:g} mm, and measure it again")


def describe(seen: Calibrated, sights: list[Sight]) -> str:
    """What a terminal shows of a lens."""
    lens = seen.lens
    lines = [
        f"lens            {lens.width} x {lens.height} px, fx {lens.K[0, 0]:.2f}, fy {lens.K[1, 1]:.2f}, "
        f"middle {lens.K[0, 2]:.2f}, {lens.K[1, 2]:.2f}",
        f"distortion      {', '.join(f'{value:.4f}' for value in lens.distortion)}",
        f"reprojection    {lens.error:.3f} px root mean square over {len(sights)} pictures",
    ]
    for sight, error in zip(sights, seen.errors, strict=True):
        lines.append(f"  {sight.name:<28} {error:6.3f} px  {len(sight.points):4d} points")
    if lens.error > POOR:
        worst = sights[int(np.argmax(seen.errors))].name
        lines.append(f"more than {POOR:g} px: is the board flat, its size right? leave blurred ones out, first {worst}")
    return "\n".join(lines)


def describe_place(found: HandEye, mount: str) -> str:
    """What a terminal shows of a camera's place."""
    frame = "base" if mount == "fixed" else "hand"
    x, y, z = found.camera[:3, 3]
    metres, angle = found.closure
    return (
        f"camera          at {x:.4f}, {y:.4f}, {z:.4f} m in the frame of the {frame}\n"
        f"reprojection    {found.error:.3f} px with one place for all pictures; single pictures are off by "
        f"{1000 * metres:.2f} mm and {np.rad2deg(angle):.2f} degrees"
        + (f"\nmore than {POOR:g} px: are the arm's joints calibrated, and was it still?" if found.error > POOR else "")
    )
