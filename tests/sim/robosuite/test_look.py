"""How robosuite's scenes are drawn: the default look is robosuite's but for a hair, and no look touches the physics."""

import numpy as np
import pytest

from understudy.configs.spec import IMAGES, STATE
from understudy.sim.robosuite.look import drawn_meshes
from understudy.sim.robosuite.suite import Robosuite

SIZE = (84, 84)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Mean SSIM of Wang et al. (2004): Gaussian window of 11 px, sigma 1.5."""
    import cv2

    one, other = one.astype(np.float64), other.astype(np.float64)

    def blur(image):
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    a, b = blur(one), blur(other)
    spread, shared = blur(one * one) - a * a + blur(other * other) - b * b, blur(one * other) - a * b
    small, less = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * a * b + small) * (2 * shared + less) / ((a * a + b * b + small) * (spread + less))).mean())


@pytest.fixture(scope="module")
def lanes():
    kept = {}

    def lane(task, look):
        if (task, look) not in kept:
            cameras = {"agentview": SIZE, "robot0_eye_in_hand": SIZE}
            kept[task, look] = Robosuite(task=task, look=look, cameras=cameras).lane()
            kept[task, look].reset(seed=0)
            kept[task, look].sense()  # the first picture applies the look
        return kept[task, look]

    yield lane
    for one in kept.values():
        one.close()


def watch(lane) -> dict:
    lane.reset(seed=3)
    for _ in range(8):
        lane.advance(np.array([0.3, 0.2, -0.5, 0, 0, 0.2, 1], np.float32))
    return lane.sense()


SLOW = (pytest.param(task, marks=pytest.mark.slow) for task in ("square", "stack"))


@pytest.mark.parametrize("task", ["lift", "can", *SLOW])
def test_the_default_look_is_robosuite_s(lanes, task):
    exact, ours = watch(lanes(task, "exact")), watch(lanes(task, "stock"))
    for name in ("agentview", "robot0_eye_in_hand"):
        one, other = exact[IMAGES + name], ours[IMAGES + name]
        assert similarity(one, other) >= 0.97
        assert np.abs(one.astype(float) - other).mean() <= 2.0


def test_a_floor_mirrors_where_much_of_it_is_seen(lanes):
    seen = {}
    for task in ("lift", "can"):
        lane = lanes(task, "stock")
        seen[task] = {lane.suite.sim.model.camera_id2name(int(camera)) for camera in lane._mirrors}
        assert not lanes(task, "light")._mirrors
    assert {"robot0_eye_in_hand", "agentview"} <= seen["can"]
    assert "robot0_eye_in_hand" in seen["lift"] and "agentview" not in seen["lift"]


def test_no_look_changes_the_physics(lanes):
    for task in ("lift", "can"):
        seen = [watch(lanes(task, look)) for look in ("exact", "stock", "light")]
        assert all((one[STATE] == seen[0][STATE]).all() for one in seen)
        light, exact = seen[2][IMAGES + "agentview"], seen[0][IMAGES + "agentview"]
        assert similarity(light, exact) > 0.8


def test_triangles_are_few_and_name_corners_of_their_own_mesh(lanes):
    model, before = (lanes("lift", look).suite.sim.model._model for look in ("light", "exact"))
    meshes = drawn_meshes(model)
    assert sum(model.mesh_facenum[meshes]) < 0.1 * sum(before.mesh_facenum[meshes])
    for mesh in meshes:
        start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        faces = model.mesh_face[start : start + count]
        assert 0 < count <= before.mesh_facenum[mesh] and 0 <= faces.min() <= faces.max() < model.mesh_vertnum[mesh]
        assert (faces[:, 0] != faces[:, 1]).all() and (faces[:, 1] != faces[:, 2]).all()
    assert (model.geom_contype == before.geom_contype).all() and (model.body_mass == before.body_mass).all()
