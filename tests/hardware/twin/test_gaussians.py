"""Gaussians and cameras: plain files, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from understudy.hardware.twin.gaussians import Gaussians, join, read_cameras, write_cameras
from understudy.hardware.twin.splatting.views import looking_at


def few(**changes) -> Gaussians:
    parts = {
        "mean": np.arange(9.0).reshape(3, 3) / 100,
        "quat": np.tile([2.0, 0, 0, 0], (3, 1)),
        "scale": np.full((3, 3), 0.01),
        "colour": np.full((3, 3), 0.5),
        "opacity": np.full(3, 0.9),
        "body": np.array([0, 1, 1]),
    }
    return Gaussians(("one", "two"), **(parts | changes))


def test_saved_and_loaded(tmp_path):
    few().save(tmp_path)
    loaded = Gaussians.load(tmp_path)
    assert loaded.bodies == ("one", "two")
    for name in ("mean", "quat", "scale", "colour", "opacity", "body"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(few(), name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gaussians.json", "gaussians.safetensors"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scale": np.zeros((3, 3))}, "scale: not positive"),
        ({"opacity": np.array([0.5, 1.5, 0.5])}, "opacity: outside 0..1, first at number 1"),
        ({"body": np.array([0, 1, 2])}, "body: not within 0..1"),
        ({"mean": np.full((3, 3), np.nan)}, "not finite"),
        ({"colour": np.zeros((2, 3))}, "colour of Gaussians has shape"),
        ({"quat": np.zeros((3, 4))}, "of length 0"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        few(**changes)


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gaussians.json"):
        Gaussians.load(tmp_path)
    few().save(tmp_path)
    (tmp_path / "gaussians.safetensors").write_bytes(b"xx")
    with pytest.raises(ValueError, match="damaged"):
        Gaussians.load(tmp_path)
    (tmp_path / "gaussians.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        Gaussians.load(tmp_path)


def test_some_bodies_and_all_again():
    whole = few()
    parts = [whole.of("two"), whole.of("one")]
    assert parts[0].bodies == ("two",) and len(parts[0]) == 2 and (parts[0].body == 0).all()
    both = join(parts)
    assert both.bodies == ("two", "one") and list(both.body) == [0, 0, 1]
    with pytest.raises(LookupError, match="There are: one, two"):
        whole.of("three")


def test_cameras_are_kept_and_resized(tmp_path):
    camera = looking_at("left", np.array([0.3, 0.2, 0.5]), np.zeros(3), 80, 60)
    write_cameras(tmp_path, [camera])
    (read,) = read_cameras(tmp_path)
    np.testing.assert_array_equal(read.K, camera.K)
    point = np.array([0.02, 0.03, 0.01])
    small, large = camera.project(point), camera.resized(160, 120).project(point)
    np.testing.assert_allclose(large[:2] + 0.5, 2 * (small[:2] + 0.5))  # edges of pixels stay where they are
    assert camera.project(np.zeros(3))[:2] == pytest.approx([39.5, 29.5])
    with pytest.raises(ValueError, match="no rotation"):
        dataclasses.replace(camera, world_from_camera=np.ones((4, 4)))
