"""The lens and the place of a camera that is known, from pictures of boards drawn before it."""

import json

import cv2
import numpy as np
import pytest

from understudy.__main__ import main
from understudy.hardware.twin.calibration.calibrate import Calibrate, Lens, Sight, calibrate_lens, hand_eye
from understudy.hardware.twin.calibration.fiducials import Board
from understudy.hardware.twin.gaussians import read_cameras

VIEWS = 9


@pytest.fixture(scope="module")
def shots(prints):
    """(board, pictures, camera_from_board (n, 4, 4))"""
    board, rng = Board(), np.random.default_rng(1)
    middle = np.array([board.columns, board.rows, 0]) * board.square / 2
    poses = []
    for _ in range(VIEWS):
        pose = np.eye(4)
        pose[:3, :3] = prints.turned(*rng.uniform(-0.6, 0.6, 2), rng.uniform(-0.5, 0.5))
        pose[:3, 3] = [*rng.uniform(-0.04, 0.04, 2), rng.uniform(0.3, 0.45)] - pose[:3, :3] @ middle
        poses.append(pose)
    return board, [prints.board(board, pose) for pose in poses], np.array(poses)


@pytest.fixture(scope="module")
def places(prints):
    """base_from_camera and hand_from_board, (4, 4) each."""
    camera, board = np.eye(4), np.eye(4)
    camera[:3, :3], camera[:3, 3] = prints.turned(2.2, 0.3, 0.1), [0.4, 0.1, 0.5]
    board[:3, :3], board[:3, 3] = prints.turned(0.1, 0.2, 0.3), [0.02, 0.01, 0.05]
    return camera, board


def test_command_finds_lens_and_place(shots, places, prints, tmp_path, capsys):
    board, pictures, poses = shots
    camera, in_hand = places
    hands = camera @ poses @ np.linalg.inv(in_hand)
    told = {}
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        told[f"{number}.png"] = hands[number].tolist()
    (tmp_path / "poses.json").write_text(json.dumps(told))

    out = tmp_path / "out"
    words = ["--images", str(tmp_path), "--poses", str(tmp_path / "poses.json"), "--out", str(out), "--name", "front"]
    assert main(["twin", "calibrate", *words]) == 0
    text = capsys.readouterr().out
    assert "reprojection" in text and "8.png" in text

    lens = Lens.read(out)
    assert lens.error < 0.15 and np.abs(lens.K - prints.K).max() < 4
    (found,) = read_cameras(out)
    assert found.name == "front"
    assert np.linalg.norm(found.world_from_camera[:3, 3] - camera[:3, 3]) < 0.002
    assert np.abs(found.world_from_camera[:3, :3] - camera[:3, :3]).max() < 0.005


def test_camera_in_the_hand(shots, places, prints):
    board, pictures, poses = shots
    camera, fixed = places  # of the hand here, and of the base
    sights = [Sight(str(number), *board.find(picture)) for number, picture in enumerate(pictures)]
    seen = calibrate_lens(sights, prints.size)
    hands = fixed @ np.linalg.inv(poses) @ np.linalg.inv(camera)
    found = hand_eye(sights, seen, hands, fixed=False)
    assert np.linalg.norm(found.camera[:3, 3] - camera[:3, 3]) < 0.002 and found.error < 0.2
    assert found.closure[0] < 0.001


def test_refusals(shots, prints):
    board, pictures, poses = shots
    sights = [Sight(str(number), *board.find(picture)) for number, picture in enumerate(pictures)]
    with pytest.raises(ValueError, match="3 pictures"):
        calibrate_lens(sights[:3], prints.size)
    with pytest.raises(ValueError, match="from one side"):
        calibrate_lens([sights[0]] * 8, prints.size)
    straight = np.tile(np.eye(4), (VIEWS, 1, 1))
    straight[:, 0, 3] = range(VIEWS)
    with pytest.raises(ValueError, match="one axis alone"):
        hand_eye(sights, calibrate_lens(sights, prints.size), straight, fixed=True)
    with pytest.raises(ValueError, match="in m, not mm"):
        Board(square=30, marker=22)
    points, _ = board.find(np.full(prints.size, 128, np.uint8))
    assert len(points) == 0


@pytest.mark.parametrize("pose, says", [([0, 30, -90, 0, 0, 0], "degrees"), (np.diag([1, 1, 1, 1]) * 1.0, "mm")])
def test_poses_in_other_units_are_refused(tmp_path, pose, says):
    pose = np.array(pose, float)
    if pose.ndim == 2:
        pose[0, 3] = 250.0
    (tmp_path / "poses.json").write_text(json.dumps({"a.png": pose.tolist()}))
    settings = Calibrate(images=tmp_path, poses=tmp_path / "poses.json")
    with pytest.raises(ValueError, match=says):
        settings._hands([Sight("a.png", np.zeros((8, 3)), np.zeros((8, 2)))])


def turned(value):
    return [[0.0, -value, 0, 0.1], [value, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    "pose, says",
    [
        (turned(1.2), "no rotation"),
        (np.transpose(turned(1.0)).tolist(), "last row"),
        (turned(float("nan")), "rotation"),
    ],
)
def test_matrices_that_are_no_poses_are_refused(tmp_path, pose, says):
    """Scaled, transposed, not finite: OpenCV made a camera of them."""
    (tmp_path / "poses.json").write_text(json.dumps({"a.png": pose}))
    settings = Calibrate(images=tmp_path, poses=tmp_path / "poses.json")
    with pytest.raises(ValueError, match=says):
        settings._hands([Sight("a.png", np.zeros((8, 3)), np.zeros((8, 2)))])


def test_poses_the_other_way_round_give_no_camera(shots, places, tmp_path, capsys):
    """hand_from_base in place of base_from_hand: a cameras.json was written, and the error printed beside it."""
    _, pictures, poses = shots
    camera, in_hand = places
    told = {}
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        told[f"{number}.png"] = np.linalg.inv(camera @ poses[number] @ np.linalg.inv(in_hand)).tolist()
    (tmp_path / "poses.json").write_text(json.dumps(told))
    out = tmp_path / "out"
    words = ["twin", "calibrate", "--images", str(tmp_path), "--poses", str(tmp_path / "poses.json"), "--out", str(out)]
    assert main(words) != 0
    assert "not the other way round" in capsys.readouterr().err and not out.exists()
