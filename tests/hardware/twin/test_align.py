"""Alignment: the pose that the pictures show is found, forces bring bodies there, conflicts are noticed."""

import dataclasses

import mujoco
import numpy as np
import pytest

from understudy.hardware.twin.align import Aligner, AlignSettings
from understudy.hardware.twin.build import Build, build, start
from understudy.hardware.twin.forces import opposition, stiffness, turned_by, wrench
from understudy.hardware.twin.rigid import InVain
from understudy.hardware.twin.scene import TwinScene
from understudy.hardware.twin.splatting.views import Photographer

AWAY = np.array([0.012, -0.008, 0.15])  # m, m, rad: the real block beside the twin's
BLOCK = 0


@pytest.fixture(scope="module")
def scene() -> TwinScene:
    return build(Build(scene="pusht-mujoco", gaussians=200, robot_gaussians=60, distance=0.75, fit=False))


@pytest.fixture(scope="module")
def model(scene):
    return scene.spec().compile()


def twin(scene, model, away=(0.0, 0.0, 0.0)):
    data = start(scene.source, model, 3)
    data.qpos[:3] += away
    mujoco.mj_forward(model, data)
    return data


@pytest.fixture(scope="module")
def pictures(scene, model):
    """Of the real block, as cameras with other colours and noise show it."""
    real, rng = twin(scene, model, AWAY), np.random.default_rng(0)
    with Photographer(model, scene.cameras) as photographer:
        clean = {camera.name: photographer.picture(real, camera.name) / 255 for camera in scene.cameras}
    seen = {name: c * [0.9, 1, 0.95] + [0.04, 0, -0.02] + 0.02 * rng.normal(size=c.shape) for name, c in clean.items()}
    return {name: np.clip(np.rint(255 * picture), 0, 255).astype(np.uint8) for name, picture in seen.items()}


def found(correction, data) -> np.ndarray:
    """How far and how much turned the block shall be, from where it is: m, m, rad."""
    pose = correction.pose[BLOCK]
    turn = np.arctan2(pose[1, 0], pose[0, 0]) - data.qpos[2]
    return np.array([*(pose[:2, 3] - data.xpos[correction.ids[BLOCK], :2]), (turn + np.pi) % (2 * np.pi) - np.pi])


@pytest.mark.parametrize("solver, iterations", [("gauss-newton", 6), ("adam", 14)])
def test_one_tick_finds_the_pose(scene, model, pictures, solver, iterations):
    data = twin(scene, model)
    aligner = Aligner.of(scene, AlignSettings(solver=solver, iterations=iterations, lr_turn=0.015))
    correction = aligner.correct(model, data, pictures)
    assert (np.abs(found(correction, data) - AWAY) < [0.0045, 0.0045, 0.06]).all()
    assert list(correction.seen) == [2, 0] and not correction.wrench[1].any()  # the pusher is drawn, not corrected
    np.testing.assert_allclose(correction.pose[1, :3, 3], data.xpos[correction.ids[1]])
    force = correction.wrench[BLOCK]
    assert force[:2] @ AWAY[:2] > 0.9 * np.linalg.norm(force[:2]) * np.linalg.norm(AWAY[:2])


@pytest.mark.parametrize("mode", ["gaussian", "mask", "mask+se3"])
def test_forces_bring_the_block_there(scene, model, pictures, mode):
    data, aligner = twin(scene, model), Aligner.of(scene, AlignSettings(mode=mode))
    goal = data.qpos[:3] + AWAY
    for _ in range(40):
        aligner.correct(model, data, pictures).apply(data)
        mujoco.mj_step(model, data, 8)
        data.xfrc_applied[:] = 0
    left = data.qpos[:3] - goal
    assert np.linalg.norm(left[:2]) < 0.003 and abs(left[2]) < np.deg2rad(4)


def test_far_away_is_found_by_the_middle(scene, model, pictures):
    """Outlines that do not overlap have no gradient."""
    data = twin(scene, model, AWAY + [0.09, 0.06, 0])
    aligner = Aligner.of(scene, AlignSettings(iterations=8, limit=0.03, trust_move=0.2, reach=60))
    left = found(aligner.correct(model, data, pictures), data) + [0.09, 0.06, 0]
    assert np.linalg.norm(left[:2]) < 0.01


def test_given_masks_are_taken(scene, model, pictures):
    data, none = twin(scene, model), np.zeros((1, 96, 96))
    correction = Aligner.of(scene).correct(model, data, pictures, masks=dict.fromkeys(pictures, none))
    assert not correction.seen.any() and not correction.wrench.any()  # seen nowhere, moved nowhere


def test_a_covered_camera_has_no_say(scene, model, pictures):
    data, covered = twin(scene, model), pictures | {"view0": np.full((96, 96, 3), 90, np.uint8)}
    correction = Aligner.of(scene).correct(model, data, covered)
    assert correction.seen[BLOCK] == 1
    alone = Aligner.of(scene).correct(model, data, {"view1": pictures["view1"]})
    np.testing.assert_allclose(correction.wrench, alone.wrench)
    assert not Aligner.of(scene).correct(model, data, {}).wrench.any()


def test_late_pictures_belong_to_earlier_poses(scene, model, pictures):
    """The twin has moved since the exposure: the same difference is found, and added to where it is now."""
    then, now = twin(scene, model), twin(scene, model, (0.03, 0.0, 0.0))
    early = Aligner.of(scene).correct(model, then, pictures)
    poses = np.stack([np.block([[then.xmat[i].reshape(3, 3), then.xpos[i][:, None]], [0, 0, 0, 1]]) for i in early.ids])
    late = Aligner.of(scene).correct(model, now, pictures, poses=poses)
    np.testing.assert_allclose(found(late, now), found(early, then), atol=1e-9)


def test_contact_that_blocks_the_correction_is_a_conflict(scene, model, pictures):
    """The twin's pusher stands where the real block is."""
    data = twin(scene, model)
    free = Aligner.of(scene)
    for _ in range(30):
        calm = free.correct(model, data, pictures)
    data.qpos[3:5] = data.ctrl[:] = data.qpos[:2] + [0.030, -0.030]
    aligner = Aligner.of(scene)
    for _ in range(60):
        data.xfrc_applied[:] = 0
        correction = aligner.correct(model, data, pictures)
        correction.apply(data)
        mujoco.mj_step(model, data, 8)
    assert calm.conflict[BLOCK] == 0 and correction.conflict[BLOCK] > 0.3
    aligner.reset()
    assert not aligner.correct(model, twin(scene, model), pictures).conflict.any()


def test_springs_and_their_stiffness(model):
    rng = np.random.default_rng(0)
    place, opacity, centre = rng.normal(size=(50, 3)), rng.random(50), np.array([0.1, 0.2, 0.3])
    twist = np.array([0.01, 0.02, -0.01, 0.001, -0.002, 0.003])
    motion = turned_by(twist, centre)
    np.testing.assert_allclose(motion[:3, :3] @ centre + motion[:3, 3], centre + twist[:3])
    moved = place @ (motion[:3, :3] - np.eye(3)).T + motion[:3, 3]
    force = wrench(moved, place, opacity, centre, 3.0)
    np.testing.assert_allclose(force[:3], 3 * (opacity[:, None] * moved).sum(0))
    np.testing.assert_allclose(
        force[3:], sum(np.cross(p - centre, 3 * o * m) for p, o, m in zip(place, opacity, moved, strict=True))
    )

    # one tick of that force removes the share that was asked for
    data, block = mujoco.MjData(model), model.body("block").id
    data.qpos[:2], data.qpos[3:5], data.ctrl[:] = 0.1, -0.2, -0.2
    data.xfrc_applied[block, 0] = 10 * stiffness(model, block, 0.3, 1 / 60, 10.0) * 0.01
    mujoco.mj_step(model, data, 8)
    assert (data.qpos[0] - 0.1) / 0.01 == pytest.approx(0.3 * 0.96, rel=0.05)  # 8 steps are 16 ms


def test_opposition():
    assert opposition(np.array([2.0, 0, 0]), np.array([-1.0, 5, 0])) == pytest.approx(0.5)
    assert opposition(np.array([2.0, 0, 0]), np.array([9.0, 0, 0])) == 0
    assert opposition(np.zeros(3), np.ones(3)) == 0


def test_refusals(scene, model, pictures):
    data, aligner = twin(scene, model), Aligner.of(scene)
    with pytest.raises(ValueError, match="mode: 'masks' is none of gaussian, mask, mask\\+se3"):
        AlignSettings(mode="masks")
    with pytest.raises(ValueError, match="iterations must be positive"):
        AlignSettings(iterations=0)
    with pytest.raises(LookupError, match="camera 'top', and the twin has view0, view1"):
        aligner.correct(model, data, {"top": pictures["view0"]})
    with pytest.raises(ValueError, match="not uint8"):
        aligner.correct(model, data, {"view0": pictures["view0"] / 255})
    with pytest.raises(ValueError, match="masks of view0"):
        aligner.correct(model, data, pictures, masks={"view0": np.zeros((96, 96))})
    with pytest.raises(LookupError, match="no Gaussians of a body 'cup'"):
        Aligner(scene.gaussians, scene.cameras, objects=("cup",))
    with pytest.raises(ValueError, match="no background of camera view1"):
        Aligner(scene.gaussians, scene.cameras, backgrounds={"view0": scene.backgrounds["view0"]})
    renamed = dataclasses.replace(scene.gaussians, bodies=("cup", "pusher"))
    with pytest.raises(LookupError, match="no body 'cup'"):
        Aligner(renamed, scene.cameras, objects=("cup",)).correct(model, data, pictures)


def test_a_search_in_vain_is_not_done_again_for_a_while():
    """Unless the object was found since, or outlines part further."""
    in_vain, case = InVain(), (0, ("front",))
    in_vain.note(case, 0.4)
    assert [in_vain.again(case, 0.4) for _ in range(11)] == [True] * 10 + [False]
    in_vain.note(case, 0.4)
    assert not in_vain.again(case, 0.25)
    in_vain.note(case, 0.4)
    in_vain.forget(case)
    assert not in_vain.again(case, 0.4)
