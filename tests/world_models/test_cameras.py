"""Points in space as a fixed camera of a task sees them, beside what it draws."""

import numpy as np
import pytest
import torch

from understudy.configs.spec import IMAGES, SCENE
from understudy.configs.world import read_world
from understudy.world_models.blocks import PictureMap
from understudy.world_models.cameras import looked_up, projection

BALL = PictureMap(take=(0, 1, 2), task="so101-reach")
SIZES = {"front": (48, 64), "wrist": (48, 64)}


def test_a_ball_is_where_its_projection_says():
    height, width = SIZES["front"]
    lane = read_world({"type": "mujoco", "task": "so101-reach", "cameras": {"front": [height, width]}}).lane()
    one = looked_up(BALL, ("front",), SIZES)
    off = []
    for seed in range(1000, 1008):
        obs, _ = lane.reset(seed=seed)
        picture = obs[IMAGES + "front"].astype(int)
        rows, columns = np.nonzero((picture[..., 0] - picture[..., 1:].max(-1)) > 50)
        assert len(rows)
        place = one.places(torch.from_numpy(np.asarray(obs[SCENE], np.float32)))
        assert place.shape == (1, 2)
        told = (place[0].numpy() + 1) / 2 * [width, height]
        off.append(told - [columns.mean() + 0.5, rows.mean() + 0.5])
    assert np.abs(off).max() < 1.0  # px; a ball is three wide


@pytest.mark.parametrize(
    "task, camera, said",
    [
        ("so101-reach", "wrist", "'wrist' of so101-reach moves"),
        ("so101-reach", "top", "no camera 'top' .it has front, wrist"),
        ("pusht-mujoco", "image", "orthographic.*give `low` and `high`"),
        ("so101-nothing", "front", "no task 'so101-nothing'.*so101-reach"),
    ],
)
def test_a_camera_in_whose_pictures_points_have_no_place_is_refused(task, camera, said):
    with pytest.raises(ValueError, match=said):
        projection(task, camera, 1.0)


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"take": (0, 1), "task": "so101-reach"}, "threes of dimensions"),
        ({"take": (0, 1, 2)}, "pairs of dimensions"),
        ({"view": "front"}, "names no `task`"),
        ({"take": (0, 1, 2), "task": "so101-reach", "high": (512, 512)}, "no use for `low` and `high`"),
    ],
)
def test_maps_that_mean_nothing_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        PictureMap(**keys)


def test_the_camera_of_the_data_may_have_another_name():
    one = PictureMap(take=(0, 1, 2), task="so101-reach", camera=1, view="front")
    assert looked_up(one, ("wrist", "scene"), {"scene": (48, 64)}).projection == projection(
        "so101-reach", "front", 4 / 3
    )


def test_a_map_is_of_the_camera_that_it_was_made_for():
    one = looked_up(BALL, ("front",), SIZES)
    assert looked_up(one, ("front",), SIZES) == one
    with pytest.raises(ValueError, match="not where it was"):
        looked_up(one, ("front",), {"front": (64, 64)})  # the picture has other borders
    with pytest.raises(ValueError, match="names camera 2; there are 1: front"):
        looked_up(PictureMap(camera=2), ("front",), SIZES)
    with pytest.raises(ValueError, match="nobody has looked up"):
        BALL.places(torch.zeros(1, 3))
