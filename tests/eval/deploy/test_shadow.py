"""`deploy --shadow`: a twin beside the emulated arm foresees, vetoes, looks through its cameras and is recorded."""

import json
import os
import signal
import time

import numpy as np
import pytest
import yaml

from understudy.configs.plugins import discover
from understudy.configs.spec import STATE, EmbodimentError, Window
from understudy.configs.world import read_world
from understudy.eval.deploy.deploy import Deploy
from understudy.hardware.lane.robot_env import RobotWorld
from understudy.hardware.twin.beside import BesideSettings, beside_settings
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
    force, vetoed, parted, heard = columns["shadow"].T
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
    with pytest.raises((ValueError, EmbodimentError), match=r"was built of so101-pusht; the arm is in the scene of"):
        RobotWorld(task="so101-reach", emulate=True, shadow=scene)
        from understudy.eval.deploy.checks import check_shadow

        check_shadow(RobotWorld(task="so101-reach", emulate=True, shadow=scene))
    file = tmp_path / "shadow.yaml"
    file.write_text(yaml.safe_dump({"scene": scene, "looks": 5.0}))
    assert beside_settings(str(file)) == BesideSettings(scene=scene, looks=5.0)


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


@pytest.fixture(scope="module")
def live(scene):
    """An emulated arm in wall time, with a shadow in its own process."""
    lane = lane_of(scene, clock="wall")
    yield lane
    lane.close()


@pytest.mark.slow
def test_a_shadow_in_its_own_process_from_end_to_end(live):
    obs, _ = live.reset(seed=1010)
    home = obs[STATE].copy()
    for step in range(30):
        live.step(home + np.float32([0.01 * step, 0, 0, 0, 0, 0]))
    force, vetoed, parted, heard = np.array(live.steps.shadow).T
    assert heard.mean() > 0.5 and not vetoed.any() and not parted.any()
    for step in range(60):
        live.step(home + np.float32([0.3, min(0.02 * step, 0.9), 0, 0, 0, 0]))
    force, vetoed, parted, heard = np.array(live.steps.shadow).T
    assert vetoed.any() and force.max() > 6.0
    assert not live.stopped or "in the twin" in live.stopped


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGSTOP", "SIGKILL"])
def test_a_slow_or_dead_shadow_never_stalls_the_guard(scene, how):
    lane = lane_of(scene, clock="wall")
    try:
        obs, _ = lane.reset(seed=1010)
        for _ in range(10):
            lane.step(obs[STATE])
        os.kill(lane.arm.shadow.process, getattr(signal, how))
        late = []
        for step in range(40):
            before = time.monotonic()
            lane.step(obs[STATE] + np.float32([0.005 * step, 0, 0, 0, 0, 0]))
            late.append(time.monotonic() - before)
        assert np.median(late) < 0.06 and max(late) < 0.5  # a step takes 33 ms
        assert not lane.stopped and not np.array(lane.steps.shadow)[-20:, 3].any()  # and it is recorded
    finally:
        lane.close()


@pytest.mark.slow
def test_a_lost_shadow_stops_the_arm_where_that_is_asked_for(scene):
    lane = lane_of(scene, clock="wall", lost="stop")
    try:
        obs, _ = lane.reset(seed=1010)
        lane.step(obs[STATE])
        os.kill(lane.arm.shadow.process, signal.SIGKILL)
        for _ in range(60):
            lane.step(obs[STATE])
            if lane.stopped:
                break
        assert "the shadow's process is gone" in lane.stopped
    finally:
        lane.close()
