"""Gaussians from pictures with depth and masks; colours of pictures brought to the twin's; masks from colours."""

import mujoco
import numpy as np
import pytest

from understudy.hardware.twin.colour import ColourMap, fit_colours
from understudy.hardware.twin.masks import Palette, find_masks
from understudy.hardware.twin.splat import CpuRenderer
from understudy.hardware.twin.splatting.fit import FitSettings, View, from_views, points_of
from understudy.hardware.twin.splatting.views import Photographer, add_camera, looking_at

CUBE = """
<mujoco><visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual><worldbody>
<geom type="plane" size="1 1 .1" rgba=".9 .9 .9 1"/>
<body name="cube" pos="0 0 .03"><geom type="box" size=".04 .02 .03" rgba=".7 .2 .1 1"/></body>
</worldbody></mujoco>
"""


def views() -> list[View]:
    spots = [np.array([0.3 * np.cos(a), 0.3 * np.sin(a), 0.3]) for a in np.arange(4) * np.pi / 2 + 0.4]
    cameras = [looking_at(f"c{i}", spot, np.array([0, 0, 0.03]), 64, 64, 22.0) for i, spot in enumerate(spots)]
    spec = mujoco.MjSpec.from_string(CUBE)
    for camera in cameras:
        add_camera(spec, camera)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = []
    with Photographer(model, cameras) as photographer:
        for camera in cameras:
            mask = (photographer.bodies(data, camera.name) == 1).astype(float)
            picture, depth = photographer.picture(data, camera.name) / 255, photographer.depth(data, camera.name)
            found.append(View(camera, picture, mask, depth))
    return found


def test_a_body_from_views_with_depth():
    seen = views()
    body = from_views("cube", seen, 150, np.random.default_rng(0), FitSettings(steps=80))
    away = np.abs(body.mean - [0, 0, 0.03]) - [0.04, 0.02, 0.03]
    assert away.max() < 0.004 and np.abs(away.max(1)).mean() < 0.003  # on the cube's surface
    np.testing.assert_allclose(np.median(body.colour, 0), [0.7, 0.2, 0.1], atol=0.05)
    for view in seen:
        drawn = CpuRenderer().render(body, np.eye(4)[None], view.camera).masks[0] > 0.5
        assert (drawn & (view.mask > 0.5)).sum() > 0.75 * (drawn | (view.mask > 0.5)).sum()


def test_depth_that_is_none_is_refused():
    view = views()[0]
    with pytest.raises(ValueError, match="are depths in m"):
        points_of([View(view.camera, view.image, view.mask, 1000 * view.depth)])
    with pytest.raises(ValueError, match="mask of view c0 is 3 x 3"):
        View(view.camera, view.image, np.zeros((3, 3)))


def test_colours_are_brought_back_whatever_stands_before():
    rng = np.random.default_rng(0)
    background = rng.random((48, 48, 3)) * 0.8 + 0.1
    true = ColourMap(np.diag([0.85, 1.0, 0.9]) + 0.02, np.array([0.05, 0.0, -0.02]))
    picture = true.to_camera(background) + 0.01 * rng.standard_normal(background.shape)
    picture[10:20, 10:25] = [0.8, 0.6, 0.5]  # a hand
    found = fit_colours(picture, background, np.ones((48, 48), bool))
    assert np.abs(found.to_twin(picture) - background)[25:].mean() < 0.015
    np.testing.assert_allclose(found.to_twin(found.to_camera(background)), background, atol=1e-9)
    assert (fit_colours(picture, background, np.zeros((48, 48), bool)).gain == np.eye(3)).all()


def test_masks_are_shares_of_pixels_and_strangers_are_nobodys():
    background = np.full((40, 40, 3), 0.9)
    palette = Palette(np.array([[0.2, 0.4, 0.9], [0.5, 0.6, 0.7]]), np.array([-1, 0]))  # robot, object
    picture = background.copy()
    picture[10:20, 10:20] = palette.colours[1]
    picture[10:20, 20] = 0.5 * palette.colours[1] + 0.45  # half a pixel
    picture[25:30, 25:30] = palette.colours[0]
    picture[2:6, 30:36] = [0.1, 0.9, 0.1]  # a stranger
    picture[32:38, 2:8] = palette.colours[1]  # of the object's colour, but far from it
    expected = np.zeros((1, 40, 40))
    expected[0, 12:22, 12:22] = 1
    seen = find_masks(picture, background, palette, expected, expected[0] == 0, 0.05, 4)
    truth = np.zeros((40, 40))
    truth[10:20, 10:20], truth[10:20, 20] = 1, 0.5
    np.testing.assert_allclose(seen.masks[0], truth, atol=0.02)
    assert not seen.trust[26, 26] and not seen.trust[3, 32] and seen.trust[15, 15] and seen.clear > 0.8
