"""A shadow in a process of its own answers guard and caller; neither waits for it when it stands still or is gone."""

import os
import signal
import time

import numpy as np
import pytest

from understudy.configs.spec import IMAGES
from understudy.hardware.envelope import Measured
from understudy.hardware.foresee import Outlook
from understudy.hardware.twin.beside import Beside, BesideSettings
from understudy.hardware.twin.build import Build, build
from understudy.sim.arms import find_arm

pytest.importorskip("numba", reason="the splats")

TASK = "so101-pick-place"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "twin"
    settings = Build(scene=TASK, cameras=("front",), gaussians=40, robot_gaussians=60, size=(48, 48), fit=False)
    return str(build(settings).save(folder))


def answer(outlook, ahead, pose, patience=60.0):
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
        assert beside.told().warnings == ()
        found = answer(outlook, home, home)
        assert found.allowed and found.force == 0
        for _ in range(3):  # the first may be to the question before
            outlook._answer = None
            found = answer(outlook, home + [0, 0.9, 0, 0, 0, 0], home)
        assert not found.allowed and "table" in found.reasons[0] and np.abs(found.torque).max() > 0.1

        os.kill(beside.process, signal.SIGSTOP)
        begun = time.process_time()
        for _ in range(300):
            outlook.ask(home, Measured(position=home, time=time.monotonic()))
            outlook.newest(time.monotonic())
            beside.show({IMAGES + "front": np.zeros((96, 96, 3), np.uint8)}, time.monotonic())
            beside.told()
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
