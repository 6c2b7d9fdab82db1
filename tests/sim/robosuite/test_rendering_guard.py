"""robosuite's camera pictures against an independent renderer, through hard resets and forced collections."""

import ctypes.util
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from understudy.configs.spec import IMAGES
from understudy.sim.robosuite.suite import Robosuite

SIZE = (64, 80)

# In a process of its own: what happens to a GL context depends on all that was drawn before.
TRIAL = """
import gc
import numpy as np
from understudy.configs.machine import prepare
prepare()
import mujoco
from understudy.configs.spec import IMAGES
from understudy.sim.robosuite import suite
if {stock}:
    import understudy.sim.rendering
    understudy.sim.rendering.guard_robosuite = lambda: None

def reference(lane):
    model, data = lane.suite.sim.model._model, lane.suite.sim.data._data
    renderer = mujoco.Renderer(model, 64, 80)
    option = mujoco.MjvOption()
    option.geomgroup[:2] = 0, 1
    renderer.update_scene(data, "agentview", scene_option=option)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = model.camera("agentview").id in lane._mirrors
    picture = renderer.render()
    renderer.close()
    return picture

gc.disable()  # so that a collection happens exactly where this test wants it
wrong = 0
lane = suite.Robosuite(task="lift", cameras={{"agentview": (64, 80)}}, look="{look}").lane()
obs, _ = lane.reset(seed=0)
wrong += int(np.abs(obs[IMAGES + "agentview"].astype(int) - reference(lane)).mean() > 0)
for hard in range(3):
    lane.suite.hard_reset = True  # leaves the old render context in a reference cycle
    lane.suite._observables.update(lane.suite._setup_observables())  # which a hard reset expects
    lane.reset(seed=hard)
    lane.suite.hard_reset = False
    lane.suite._observables.clear()
    seen = set()
    for step in range(4):
        obs, *_ = lane.step(np.array([0, 0, 1.0, 0, 0, 0, 0]))
        if step == 1:
            gc.collect()  # the old context dies now
        picture = lane.sense()[IMAGES + "agentview"]
        seen.add(picture.tobytes())
        if step != 2:  # at step 2 nobody rebinds anything between collection and drawing
            wrong += int(np.abs(picture.astype(int) - reference(lane)).mean() > 0)
    wrong += len(seen) != 4
print("wrong", wrong)
"""


PLAIN = """
import gc
import sys
import numpy as np
from understudy.configs.machine import prepare
prepare()
import mujoco
from understudy.configs.spec import IMAGES
from understudy.configs.world import find_world
import dataclasses

gc.disable()
world = dataclasses.replace(find_world("pusht-mujoco"), cameras={{"image": (64, 80)}})
wrong, seen = 0, set()
for build in range(3):
    lane = world.lane()
    lane.loop = lane  # in a cycle, so that only a collection frees it
    for step in range(4):
        obs = lane.reset(seed=build)[0] if step == 0 else lane.step(np.array([100.0, 100.0 + 90 * step]))[0]
        if step == 1:
            gc.collect()  # the lane before dies now
        picture = lane.sense()[IMAGES + "image"]
        seen.add(picture.tobytes())
        renderer = mujoco.Renderer(lane.model, 64, 80)
        renderer.update_scene(lane.data, "image")
        wrong += int((renderer.render() != picture).any() or (obs[IMAGES + "image"] != picture).any())
        renderer.close()
print("wrong", wrong + (len(seen) != 12))
"""


def trial(script: str, gl: str = "", **settings) -> int:
    if gl and not ctypes.util.find_library({"egl": "EGL", "osmesa": "OSMesa"}[gl]):
        pytest.skip(f"{gl} is not installed")
    environment = os.environ | ({"MUJOCO_GL": gl, "PYOPENGL_PLATFORM": gl} if gl else {})  # MuJoCo leaves the latter
    script = textwrap.dedent(script.format(**settings))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


SLOW = [
    pytest.param(gl, look, marks=pytest.mark.slow)
    for gl in ("egl", "osmesa")
    for look in ("light", "stock", "exact")
    if (gl, look) not in (("egl", "light"), ("osmesa", "stock"))
]


@pytest.mark.parametrize(("gl", "look"), [("egl", "light"), ("osmesa", "stock"), *SLOW])
def test_pictures_equal_an_independent_renderer_whatever_is_collected(gl, look):
    assert trial(TRIAL, gl, stock=False, look=look) == 0


@pytest.mark.parametrize("gl", ["egl", "osmesa"])
def test_pictures_of_a_task_of_ours_equal_an_independent_renderer(gl):
    assert trial(PLAIN, gl) == 0


@pytest.mark.slow
def test_without_the_guard_they_do_not():
    """If this fails, robosuite has mended itself and the guard can go."""
    assert trial(TRIAL, stock=True, look="light") > 0


def test_pictures_are_upright_and_follow_the_scene():
    lane = Robosuite(task="lift", cameras={"agentview": SIZE, "robot0_eye_in_hand": (48, 48)}, look="light").lane()
    obs, _ = lane.reset(seed=0)
    front, hand = obs[IMAGES + "agentview"], obs[IMAGES + "robot0_eye_in_hand"]
    assert front.shape == (*SIZE, 3) and hand.shape == (48, 48, 3) and front.flags.c_contiguous
    red = (front[..., 0] > 1.8 * front[..., 1].clip(1)) & (front[..., 0] > 80)
    assert red.any() and np.argwhere(red)[:, 0].mean() > SIZE[0] / 2, "the cube lies on the table, in the lower half"
    moved, *_ = lane.step(np.array([1.0, 0, -1, 0, 0, 0, 0]))
    assert (moved[IMAGES + "agentview"] != front).any()
    lane.close()
