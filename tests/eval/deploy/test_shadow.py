"""`deploy --shadow`: a twin beside the emulated arm foresees, vetoes, looks through its cameras and is recorded."""

import dataclasses
import json
import os
import shutil
import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest
import yaml

from understudy.configs.plugins import discover
from understudy.configs.spec import STATE, Window
from understudy.configs.world import read_world
from understudy.eval.deploy.deploy import Deploy
from understudy.eval.deploy.tally import shadow_lines
from understudy.hardware.lane.robot_env import SHADOW, RobotWorld
from understudy.hardware.twin.beside_settings import BesideSettings, beside_settings, check_beside
from understudy.hardware.twin.build import Build, build
from understudy.policies.data.open import open_dataset
from understudy.policies.learning.checkpoint import save_checkpoint
from understudy.policies.models.flow import FlowConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Scales

pytest.importorskip("daqp", reason="the guard's quadratic program")
pytest.importorskip("numba", reason="the splats")

TASK = "so101-pusht"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Of the task, looked at by the one camera that the emulated arm has, too."""
    folder = tmp_path_factory.mktemp("scene") / "twin"
    settings = Build(scene=TASK, cameras=("front",), gaussians=120, robot_gaussians=120, size=(64, 64))
    return str(build(settings).save(folder))


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Untrained: its actions lie between the home pose and one with the stick in the table."""
    import torch

    torch.manual_seed(0)
    body = read_world(TASK).embodiment()
    low, high = np.array(TARGET) - 0.02, np.array(TARGET) + 0.02
    network = MLPConfig(width=16, depth=1, condition_width=8)
    window = Window(observe=(0,), recall=(-2, -1), horizon=8)
    scales = Scales(action=(tuple(low), tuple(high)), states={STATE: ((0.0,) * 6, (1.0,) * 6)})
    made = FlowConfig(inputs=(STATE,), window=window, n_action_steps=4, network=network).build(body, scales).eval()
    folder = tmp_path_factory.mktemp("policy") / "down"
    save_checkpoint(folder, made, kind="policy", config=made.config)
    return str(folder)


HOME = np.array([0.0, -0.75, 0.7, 1.55, 0.0, 0.0])
TARGET = tuple(HOME + [0, 0.75, 0, 0, 0, 0])


def deploy(policy, **how):
    how = {"emulate": True, "task": TASK, "clock": "simulated", "yes": True, "device": "cpu", "delay": 0} | how
    config = Deploy(policy=policy, **how)
    config.check_names()
    config.run()


def lane_of(scene, clock="simulated", **shadow):
    discover("sim")
    return RobotWorld(task=TASK, emulate=True, clock=clock, rate=30, shadow={"scene": scene} | shadow).lane()


def test_a_deployed_policy_is_vetoed_recorded_and_told(scene, policy, tmp_path, capsys):
    out, how = tmp_path / "data", {"scene": scene, "force": 3.0, "looks": 5.0}
    deploy(policy, shadow=how, seconds=1.4, out=str(out), env_seed=1010)
    said = capsys.readouterr().out
    assert "the shadow compares itself with front" in said
    assert "control steps vetoed, at most" in said and "in the twin " in said
    columns = open_dataset(str(out)).columns
    force, vetoed, parted, heard, compared = columns["shadow"].T
    assert compared.all() and "not compared" not in said
    assert vetoed.any() and force[vetoed > 0].min() > 3.0 and not parted.any()
    assert heard[0] == 0 and heard[1:].all()  # nothing was asked before the first set-point
    assert np.abs(columns["shadow.torque"]).max() > 0.1
    assert (columns["guard.outcome"].ravel()[vetoed > 0] >= 1).all()
    card = json.loads((out / "meta/recording.json").read_text())
    assert card["world"]["shadow"]["scene"]["source"] == TASK and card["world"]["shadow"]["force"] == 3.0

    with pytest.raises(ValueError, match=r"world.shadow.force was 3.0, not 5.0"):
        deploy(policy, shadow=how | {"force": 5.0}, seconds=1.4, out=str(out), env_seed=1010, resume=True, episodes=2)


def test_what_does_not_fit_is_refused_before_the_arm_is_touched(scene, policy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        deploy(policy, shadow=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="forc"):
        deploy(policy, shadow={"scene": scene, "forc": 3.0})
    with pytest.raises(ValueError, match="go on' or 'stop"):
        deploy(policy, shadow={"scene": scene, "lost": "ignore"})
    with pytest.raises(ValueError, match="ahead of a shadow beside an arm must be 0.12 s or more"):
        deploy(policy, shadow={"scene": scene, "ahead": 0.05})
    for shadow, said in (
        ({}, "was built of so101-pusht; the arm is in the scene of so101-reach"),
        ({"start": 5}, "start 5 of a shadow is of a real arm"),
        ({"trust": {"bounds": {"frnot": 0.1}}}, "no camera 'frnot'; its scene has front"),
        ({"torque": (1.0, 2.0)}, "one for each of 6 joints"),
    ):
        task = TASK if shadow else "so101-reach"
        world = RobotWorld(task=task, emulate=True, shadow={"scene": scene} | shadow)
        with pytest.raises(ValueError, match=said):
            world.lane()  # of eval, demos and deploy alike
    file = tmp_path / "shadow.yaml"
    file.write_text(yaml.safe_dump({"scene": scene, "looks": 5.0}))
    assert beside_settings(str(file)) == BesideSettings(scene=scene, looks=5.0)


def test_an_arm_whose_zero_is_another_is_told(scene):
    settings, arm = BesideSettings(scene=scene), read_world(TASK).embodiment()
    assert check_beside(settings, arm) == check_beside(settings, arm, TASK)
    limits = np.array(arm.limits)
    limits[1] += 0.5
    turned = dataclasses.replace(arm, limits=tuple(map(tuple, limits.tolist())))
    (warning, *_) = check_beside(settings, turned)
    assert f"warning: {arm.action[1]} goes from" in warning and "calibration" in warning


def test_twin_and_camera_that_part_are_told_and_a_quiet_scene_is_not(scene):
    lane = lane_of(scene)
    obs, _ = lane.reset(seed=1010)
    for _ in range(8):
        lane.step(obs[STATE])
    assert lane.labels()["shadow"]["parted"] == 0 and not lane.warnings

    data = lane.arm._shafts.data  # a hand takes the block away
    joint = lane.arm._shafts.model.joint("t").qposadr[0]
    data.qpos[joint : joint + 2] = 0.3, 0.25
    for _ in range(24):
        lane.step(obs[STATE])
    parted = np.array(lane.steps.shadow)[:, 2]
    assert parted[-1] == 1 and any("elsewhere" in w or "parted" in w or "moved by hand" in w for w in lane.warnings)
    lane.close()


def test_its_objects_follow_the_pictures(scene):
    """A block that lies elsewhere than where the shadow has it is found at a quiet start."""
    lane = lane_of(scene)
    lane.arm.connect()
    lane.arm.servos.chain.shafts.begin(1010)
    arm, shadow = lane.arm, lane.arm.shadow
    arm.begin(1010)
    truth = arm._shafts.data.body("t").xpos.copy()
    shadow.begin(1012, arm.look().obs, arm.servos.measure().position, arm.now())  # another start than the arm's
    found = shadow._watcher.shadow.data.body("t").xpos
    assert np.linalg.norm(found - truth) < 0.006
    lane._connected = True
    lane.close()


def test_what_no_camera_compares_is_said(scene, capsys):
    """Pictures of long ago: the twin is neither with nor apart from what they show."""
    lane = lane_of(scene)
    obs, _ = lane.reset(seed=1010)
    now = lane.arm.look

    def late():
        look = now()
        return dataclasses.replace(look, times=dict.fromkeys(look.times, lane.arm.now() - 0.4))

    lane.arm.look = late
    for _ in range(30):
        lane.step(obs[STATE])
    force, vetoed, parted, heard, compared = np.array(lane.steps.shadow).T
    assert not compared[-10:].any() and not parted.any() and heard[1:].all()
    assert any("pictures and joints are 0.3" in w or "pictures and joints are 0.4" in w for w in lane.warnings)
    (line, *_) = shadow_lines(lane.labels()["shadow"], 30)
    assert f"not compared in {int((compared == 0).sum())}" in line
    lane.close()


PATIENCE = 240.0  # s, of a busy machine


@contextmanager
def live(scene, **shadow):
    """An emulated arm in wall time, with a shadow in its own process, held at a start."""
    lane = lane_of(scene, clock="wall", **shadow)
    try:
        obs, _ = lane.reset(seed=1010)
        yield lane, obs[STATE].copy()
    finally:
        lane.close()


def go_on(lane, pose, until):
    """Step to a pose until something holds, or fail; a busy machine may take its time."""
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end and not (lane.stopped and not until()), lane.stopped or "nothing came of it"
        lane.step(np.asarray(pose, np.float32))


@pytest.mark.slow
def test_a_shadow_in_its_own_process_from_end_to_end(scene):
    with live(scene) as (lane, home):
        said = lambda: np.array(lane.steps.shadow).reshape(-1, len(SHADOW))  # noqa: E731
        go_on(lane, home, lambda: said()[:, 3].sum() >= 5 and said()[:, 4].sum() >= 5)  # heard and compared
        assert not said()[:, 1].any()
        low = home + np.float32([0.3, 0.9, 0, 0, 0, 0])
        go_on(lane, low, lambda: said()[:, 1].any())
        assert said()[:, 0].max() > 6.0
        assert not lane.stopped or "in the twin" in lane.stopped


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGSTOP", "SIGKILL"])
def test_a_slow_or_dead_shadow_never_stalls_the_guard(scene, how):
    with live(scene) as (lane, home):
        go_on(lane, home, lambda: bool(lane.steps.shadow) and np.array(lane.steps.shadow)[:, 3].any())
        os.kill(lane.arm.shadow.process, getattr(signal, how))
        late = []
        for step in range(60):
            before = time.monotonic()
            lane.step(home + np.float32([0.005 * step, 0, 0, 0, 0, 0]))
            late.append(time.monotonic() - before)
        assert np.median(late) < 0.5 and not lane.stopped  # who waits for it waits for ever, or until it is given up
        assert not np.array(lane.steps.shadow)[-20:, 3].any()  # and it is recorded
        said = "the shadow is silent" if how == "SIGSTOP" else "the shadow's process is gone"
        go_on(lane, home, lambda: said in lane.warnings)


@pytest.mark.slow
def test_one_that_stands_still_begins_the_next_episode_before_it_answers(scene):
    """What it knows of the episode before counts for nothing."""
    with live(scene) as (lane, home):
        go_on(lane, home, lambda: bool(lane.steps.shadow) and np.array(lane.steps.shadow)[:, 3].any())
        os.kill(lane.arm.shadow.process, signal.SIGSTOP)
        lane.reset(seed=1011)  # takes as long as a shadow is waited for
        for _ in range(5):
            lane.step(home)
        assert "the shadow is silent" in lane.warnings and not np.array(lane.steps.shadow)[:, 3].any()
        os.kill(lane.arm.shadow.process, signal.SIGCONT)
        go_on(lane, home, lambda: np.array(lane.steps.shadow)[-1, 3:].all())  # heard and compared
        assert not np.array(lane.steps.shadow)[-1, 2]  # with the block where this episode has it


@pytest.mark.slow
def test_a_lost_shadow_stops_the_arm_where_that_is_asked_for(scene):
    with live(scene, lost="stop") as (lane, home):
        lane.step(home)
        os.kill(lane.arm.shadow.process, signal.SIGKILL)
        for _ in range(60):
            lane.step(home)
            if lane.stopped:
                break
        assert "the shadow's process is gone" in lane.stopped


@pytest.mark.slow
def test_one_that_does_not_begin_says_why(scene, tmp_path):
    broken = shutil.copytree(scene, tmp_path / "broken")
    lane = lane_of(str(broken), clock="wall")
    (broken / "gaussians.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConnectionError, match="the shadow of .*broken does not begin"):
        lane.reset(seed=1010)
