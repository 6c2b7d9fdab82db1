"""How far an emulated scene is from a picture of it: it grows as a thing is moved, and light has no say."""

import mujoco
import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.hardware.displacement import displacement, overlay

KEYS = {"type": "robot", "emulate": True, "clock": "simulated", "cameras": {"front": [240, 320]}}


@pytest.fixture(scope="module")
def lane():
    pytest.importorskip("daqp", reason="the guard's quadratic program")
    made = read_world(KEYS | {"task": "so101-pick-place"}).lane()
    made.reset(seed=1000)
    yield made
    made.close()


@pytest.fixture
def cube(lane):
    """(model, data, index of the cube's pose in qpos), put back afterwards."""
    shafts = lane.arm._shafts
    joint = int(np.flatnonzero(shafts.model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)[0])
    place = int(shafts.model.jnt_qposadr[joint])
    before = shafts.data.qpos.copy()
    yield shafts.model, shafts.data, place
    shafts.data.qpos[:] = before
    mujoco.mj_forward(shafts.model, shafts.data)


def look(lane):
    mujoco.mj_forward(lane.arm._shafts.model, lane.arm._shafts.data)
    return lane.seen()["observation.images.front"]


def test_it_grows_with_the_displacement_and_is_nothing_when_restored(lane, cube):
    _, data, place = cube
    reference, found = look(lane), []
    begin = data.qpos[place + 1]
    for mm in (2, 5, 10, 20, 40):
        data.qpos[place + 1] = begin + mm / 1000
        found.append(displacement(reference, look(lane)))
    assert np.allclose([each.pixels for each in found], [1.2, 2.9, 5.8, 11.6, 22.9], rtol=0.15, atol=0.3)  # 0.57 px/mm
    assert not found[-1].within(20) and found[0].within(2) and found[-1].difference > found[0].difference
    data.qpos[place + 1] = begin
    again = displacement(reference, look(lane))
    assert again.pixels == 0 and again.lost == 0 and again.within(0.1)


def test_light_alone_does_not_count(lane, cube):
    model, _, _ = cube
    reference = look(lane)
    lights = (model.light_diffuse, model.vis.headlight.ambient, model.vis.headlight.diffuse)
    before = [light.copy() for light in lights]
    try:
        for factor in (0.7, 1.3, np.array([1.2, 1.0, 0.8])):
            for light, was in zip(lights, before, strict=True):
                light[:] = was * factor
            found = displacement(reference, look(lane))
            assert found.within(1), (factor, str(found))
            assert found.difference > 3  # it is seen all the same
    finally:
        for light, was in zip(lights, before, strict=True):
            light[:] = was


def test_the_noise_of_a_camera_does_not_count(lane, cube):
    reference, rng = look(lane).astype(float), np.random.default_rng(0)
    one, other = (np.clip(reference + rng.normal(0, 2, reference.shape), 0, 255).astype(np.uint8) for _ in range(2))
    assert displacement(one, other).within(0.1)


def test_what_is_gone_is_lost_or_far_and_a_pose_of_the_arm_counts(lane, cube):
    model, data, place = cube
    reference = look(lane)
    data.qpos[place] += 5
    gone = displacement(reference, look(lane))
    assert not gone.within(20) and "away" in str(gone)
    data.qpos[place] -= 5
    data.qpos[lane.arm._shafts.wiring.qpos[0]] += 0.1
    assert not displacement(reference, look(lane)).within(5)


def test_pictures_of_other_sizes_are_refused_and_the_overlay_shows_edges_that_differ():
    dark = np.zeros((60, 80, 3), np.uint8)
    moved = dark.copy()
    moved[20:40, 30:50] = 255
    with pytest.raises(ValueError, match="80 x 60 and 40 x 60 pixels"):
        displacement(dark, dark[:, :40])
    seen = overlay(dark, moved)
    assert (seen == (235, 70, 60)).all(2).sum() > 40 and not (seen == (40, 200, 230)).all(2).any()
