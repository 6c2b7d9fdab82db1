"""A shadow in a process of its own answers guard and caller; neither waits for it when it stands still or is gone."""

import multiprocessing
import os
import signal
import time

import mujoco
import numpy as np
import pytest

from understudy.configs.spec import IMAGES
from understudy.hardware.envelope import Measured
from understudy.hardware.foresee import Outlook
from understudy.hardware.talk import Line
from understudy.hardware.twin.beside import Beside, Watcher, _answer
from understudy.hardware.twin.beside_settings import BesideSettings
from understudy.hardware.twin.bodies import body_ids, body_poses
from understudy.hardware.twin.build import Build, build
from understudy.hardware.twin.scene import TwinScene
from understudy.hardware.twin.shadow import PARTED
from understudy.hardware.twin.splat import CpuRenderer
from understudy.sim.arms import find_arm

pytest.importorskip("numba", reason="the splats")

TASK = "so101-pick-place"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "twin"
    settings = Build(scene=TASK, cameras=("front",), gaussians=40, robot_gaussians=60, size=(48, 48), fit=False)
    return str(build(settings).save(folder))


def answer(outlook, ahead, pose, patience=240.0):
    """Ask, and look for the answer, as a guard does step by step."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        now = time.monotonic()
        outlook.ask(ahead, Measured(position=pose, time=now))
        outlook._hear()
        if outlook._answer is not None:
            return outlook._answer
        time.sleep(0.002)
    raise AssertionError("the shadow says nothing")


@pytest.mark.slow
def test_a_process_foresees_looks_and_makes_nobody_wait(scene):
    beside, home = Beside(BesideSettings(scene=scene, looks=50.0), 60.0), np.array(find_arm("so101").home)
    outlook = Outlook(beside.open())
    try:
        beside.begin(0, {IMAGES + "front": np.full((96, 96, 3), 128, np.uint8)}, home, time.monotonic())
        assert beside.told(time.monotonic()).warnings == ()
        found = answer(outlook, home, home)
        assert found.allowed and found.force == 0
        for _ in range(3):  # the first may be to the question before
            outlook._answer = None
            found = answer(outlook, home + [0, 0.9, 0, 0, 0, 0], home)
        assert not found.allowed and "table" in found.reasons[0] and np.abs(found.torque).max() > 0.1

        os.kill(beside.process, signal.SIGSTOP)
        assert outlook.lost(time.monotonic()) == ""
        begun = time.process_time()
        for _ in range(300):
            outlook.ask(home, Measured(position=home, time=time.monotonic()))
            outlook.newest(time.monotonic())
            now = time.monotonic()
            beside.show({IMAGES + "front": np.zeros((96, 96, 3), np.uint8)}, {IMAGES + "front": now})
            beside.told(now)
        assert time.process_time() - begun < 2.0  # of work: nobody waited for an answer
        assert "silent" in outlook.lost(time.monotonic() + 5.0)

        os.kill(beside.process, signal.SIGKILL)
        end = time.monotonic() + 60
        while not outlook.lost(time.monotonic()).endswith("gone") and time.monotonic() < end:
            outlook.ask(home, Measured(position=home, time=time.monotonic()))
            outlook.newest(time.monotonic())
        assert outlook.newest(time.monotonic()) is None
        assert outlook.lost(time.monotonic()) == "the shadow's process is gone"
    finally:
        beside.close()


@pytest.mark.slow
def test_a_scene_that_cannot_be_opened_is_told_before_the_arm_is_touched(scene, tmp_path):
    import shutil

    broken = shutil.copytree(scene, tmp_path / "broken")
    (broken / "gaussians.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConnectionError, match="does not begin"):
        Beside(BesideSettings(scene=str(broken)), 60.0).open()


@pytest.fixture
def watched(scene):
    """A shadow with one camera, what the camera sees of its scene with the arm at a pose, and that it has begun."""
    watcher = Watcher(BesideSettings(scene=scene, looks=10.0), 60.0)
    loaded, home = TwinScene.load(watcher.settings.folder), np.array(find_arm("so101").home)
    renderer = CpuRenderer()

    def see(pose):
        shadow = watcher.shadow
        data = mujoco.MjData(shadow.model)
        data.qpos[:] = shadow.data.qpos
        data.qpos[shadow.joints.qpos] = pose
        mujoco.mj_kinematics(shadow.model, data)
        poses = body_poses(data, body_ids(shadow.model, loaded.gaussians.bodies))
        drawn = renderer.render(loaded.gaussians, poses, loaded.cameras[0], loaded.backgrounds["front"]).image
        return {IMAGES + "front": np.rint(255 * np.clip(drawn, 0, 1)).astype(np.uint8)}

    watcher.begin(0, see(home), home, 0.0)
    return watcher, home, see


def moved(watcher, home):
    """Stand for 0.2 s, then turn the arm by half a rad in 0.1 s."""
    for step in range(1, 19):
        pose = home + [max(0.0, 5 * (step / 60 - 0.2)), 0, 0, 0, 0, 0]
        watcher.check(pose, Measured(position=pose, time=step / 60))


def test_a_picture_is_compared_with_the_twin_of_its_moment(watched):
    watcher, home, see = watched
    moved(watcher, home)
    looks = watcher.look(see(home), {IMAGES + "front": 0.2})
    assert looks.compared == 0.2 and watcher.shadow._health.left_out == ()
    watcher.look(see(home), {IMAGES + "front": 0.3})  # the same picture, taken for one of now
    assert watcher.shadow._health.left_out == ("front",)


def test_old_pictures_are_left_aside_and_a_picture_counts_once(watched):
    watcher, home, see = watched
    moved(watcher, home)
    before = watcher.shadow.compared
    for when in (0.11, 0.14):  # the joints are of 0.3 s
        looks = watcher.look(see(home), {IMAGES + "front": when})
        assert looks.compared == before and not looks.parted
    assert [warning for warning in watcher.shadow._health.warnings if "leaves them aside" in warning] != []
    pose = home + [0.5, 0, 0, 0, 0, 0]
    assert watcher.look(see(pose), {IMAGES + "front": 0.3}).compared == 0.3
    place = watcher.shadow.data.qpos.copy()
    watcher.shadow.look({"front": np.zeros((48, 48, 3), np.uint8)}, {"front": 0.3})  # a camera that hangs
    assert (watcher.shadow.data.qpos == place).all()


def test_one_that_looks_rarely_has_not_parted_between_its_looks(watched):
    watcher, home, see = watched
    for step in range(1, 121):
        when = step / 60
        found = watcher.check(home, Measured(position=home, time=when))
        assert PARTED not in found.warnings
        if step % 54 == 0:  # every 0.9 s, rarer than its patience
            assert not watcher.look(see(home), {IMAGES + "front": when}).parted


def test_what_is_not_found_at_the_start_is_told(watched):
    watcher, home, see = watched
    assert not watcher.check(home, Measured(position=home, time=0.01)).warnings
    grey = {IMAGES + "front": np.full((48, 48, 3), 128, np.uint8)}
    watcher.begin(0, grey, home, 1.0)
    (warning,) = watcher.check(home, Measured(position=home, time=1.01)).warnings
    assert "cube is not found in the pictures of the start" in warning


def test_of_another_episode_it_knows_nothing():
    ours, theirs = multiprocessing.Pipe()
    outlook = Outlook(ours)
    outlook.ask(np.zeros(6), Measured(position=np.zeros(6), time=1.0))
    _answer(Line(theirs), None, knows=False)
    assert outlook.newest(1.0) is None and outlook.lost(1.5) == ""  # it answers, and knows nothing
