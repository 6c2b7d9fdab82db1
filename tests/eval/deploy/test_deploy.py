"""A policy on an emulated arm: what is refused before the torque, what is recorded, and how it all ends."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from understudy.configs.spec import SCENE, STATE, EmbodimentError, Window
from understudy.configs.world import read_world
from understudy.eval.demos.recording import RecordingError
from understudy.eval.deploy.checks import check_arm
from understudy.eval.deploy.deploy import Deploy
from understudy.eval.deploy.session import open_for_arm, poor_rehearsal
from understudy.eval.deploy.tally import Tally
from understudy.hardware.consent import Refused
from understudy.hardware.emulator.arm import find_kind, write_calibration
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.alarm import Alarm, AlarmError
from understudy.policies.agent.open import agent_settings
from understudy.policies.data.open import open_dataset
from understudy.policies.learning.checkpoint import save_checkpoint
from understudy.policies.models.flow import FlowConfig
from understudy.policies.networks.language import TableConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Scales
from understudy.sim.arms import find_arm

pytest.importorskip("daqp", reason="the guard's quadratic program")

BODY = read_world("so101-reach").embodiment()


def policy_of(body=BODY, inputs=(STATE, SCENE), delay=2, spread=0.1, **more):
    import torch

    torch.manual_seed(0)
    low, high = np.array(body.limits).T
    home = np.array(find_arm("so101").home)
    states = {key: ((0.0,) * n, (1.0,) * n) for key, n in ((STATE, 6), (SCENE, 3)) if key in inputs}
    scales = Scales(action=(tuple(home - spread), tuple(home + spread)), states=states)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    window = Window(observe=(0,), recall=(-2, -1), horizon=8)
    config = FlowConfig(inputs=inputs, window=window, n_action_steps=4, network=network, **more)
    return config.build(body, scales).eval()


@pytest.fixture
def saved(tmp_path):
    def save(**how):
        folder = tmp_path / f"policy{len(list(tmp_path.iterdir()))}"
        policy = policy_of(**how)
        save_checkpoint(folder, policy, kind="policy", config=policy.config)
        return str(folder)

    return save


def deploy(policy, **how):
    how = {"emulate": True, "task": "so101-reach", "clock": "simulated", "yes": True, "device": "cpu"} | how
    config = Deploy(policy=policy, **how)
    config.check_names()
    config.run()


def test_an_episode_is_recorded_with_all_that_happened(saved, tmp_path, capsys):
    out = tmp_path / "data"
    how = {"seconds": 0.5, "out": str(out), "delay": 2, "latency": "past", "env_seed": 1000}
    policy = saved()
    deploy(policy, episodes=1, **how)
    deploy(policy, episodes=2, resume=True, **how)  # goes on with the second
    data = open_dataset(str(out))
    assert len(data.episode_ids) == 2 and len(data.columns["action"]) == 30
    columns = data.columns
    assert np.abs(columns["action.sent"] - columns["action"]).max() > 0  # as the guard let it through
    assert set(np.unique(columns["guard.outcome"])) <= {0, 1}
    assert columns["plan.start"].ravel()[:15].tolist() == [t - t % 4 for t in range(15)]
    captured, commanded = columns["time.captured"][:15, 0], columns["time.commanded"].ravel()[:15]
    assert (captured <= commanded).all() and np.allclose(np.diff(commanded), 1 / 30, atol=0.004)
    card = json.loads((out / "meta/recording.json").read_text())
    assert card["agent"]["latency"] == "past" and card["command"].startswith("understudy deploy")
    assert "0 of 15 control steps began late" in capsys.readouterr().out


def test_what_the_guard_bends_is_told_in_parts_of_the_set_points(saved, capsys):
    how = {"seconds": 0.4, "delay": 2}
    deploy(saved(spread=1.0), **how)
    said = capsys.readouterr().out
    assert re.search(r"episode 100000: 12 steps, not done; (\d+) of 24 set-points bent, \w+ by up to \d", said)
    assert re.search(
        r"  velocity: \d+ of 24 set-points bent; \w+ by up to .* rad, .* degrees \(limit [23].2 rad/s, asked", said
    )
    assert "warning: the policy asks for more than the envelope of the arm allows" in said
    assert "--robot.envelope.velocity" in said and "understudy eval" in said


def test_a_few_bent_set_points_are_no_warning():
    tally = Tally(rows=[{"success": False, "labels": "{}"}], steps=50, plans=1, seconds=[0.1], set_points=100, bent=5)
    said = tally.text(Deploy(policy="me/it", emulate=True))
    assert "guard           5 of 100 set-points bent" in said and "warning" not in said


def test_the_same_seed_is_the_same_episode(saved, tmp_path):
    policy = saved()
    for name in ("one", "other"):
        deploy(policy, seconds=0.4, out=str(tmp_path / name), delay=2, latency="blend")
    one, other = (open_dataset(str(tmp_path / name)).columns for name in ("one", "other"))
    assert np.array_equal(one["action"], other["action"]) and np.array_equal(one[STATE], other[STATE])


def test_a_recording_goes_on_with_its_own_delay_and_another_is_refused_at_once(saved, tmp_path, capsys):
    policy, how = saved(), {"seconds": 0.2, "out": str(tmp_path / "data")}
    deploy(policy, delay=3, **how)
    capsys.readouterr()
    settings = {"emulate": True, "task": "so101-reach", "clock": "simulated", "device": "cpu"} | how
    _, about, _ = open_for_arm(Deploy(policy=policy, resume=True, episodes=2, **settings))
    assert about["delay"] == 3 and "--delay 3, as in the recording" in capsys.readouterr().out
    with pytest.raises(RecordingError, match="its agent.delay was 3, not 2. It was made by: understudy deploy"):
        open_for_arm(Deploy(policy=policy, resume=True, episodes=2, delay=2, **settings))


def test_a_policy_that_reads_the_task_is_told_that_of_the_scene(saved):
    policy = saved(language=TableConfig(texts=("another task", "so101-reach")))
    how = {"policy": policy, "emulate": True, "clock": "simulated", "device": "cpu", "delay": 2}
    told = [open_for_arm(Deploy(**how, **more))[0].planner.task_text for more in ({}, {"task_text": "another task"})]
    assert told == ["so101-reach", "another task"]


def test_plans_are_timed_as_they_will_be_made_and_the_policy_is_loaded_once(saved, monkeypatch):
    from understudy.policies import load
    from understudy.policies.agent import latency

    calls = []

    def counted(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: calls.append(name) or real(*args))

    counted(load, "load_policy")
    counted(latency, "conditioned")
    config = Deploy(policy=saved(), emulate=True, task="so101-reach", device="cpu", latency="prefix", rate=30.0)
    monkeypatch.setattr("understudy.eval.deploy.checks.math.ceil", lambda steps: 3)  # however busy the machine is
    agent, about, _ = open_for_arm(config)
    assert calls.count("load_policy") == 1 and calls.count("conditioned") >= 5
    assert about["delay"] == agent.latency.delay == 3 and agent.latency.fresh


def test_an_alarm_is_that_of_the_delay(saved, tmp_path):
    how = {"emulate": True, "task": "so101-reach", "clock": "simulated", "device": "cpu", "latency": "switch"}
    config = Deploy(policy=saved(), delay=2, **how)
    agent, about, world = open_for_arm(config)
    alarm = Alarm(
        policy=about["fingerprint"],
        agent=agent_settings(config, agent),
        candidates=4,
        world=world.fingerprint(),
        signals=("spread",),
        centre={"spread": [0.0]},
        scale={"spread": [1.0]},
        slack=0.5,
        threshold=9.0,
        clock=100,
        alpha=0.1,
        n=20,
        fit=20,
    )
    file = str(alarm.save(tmp_path / "alarm.json"))
    agent, _, _ = open_for_arm(dataclasses.replace(config, alarm=file))
    assert agent.monitor.candidates == 4
    with pytest.raises(AlarmError, match="calibrated with delay = 2, now it is 1"):
        open_for_arm(dataclasses.replace(config, alarm=file, delay=1))


def test_a_rate_that_the_scene_does_not_have_is_refused(saved):
    with pytest.raises(ValueError, match="--rate 15: .*so101-reach.* has 30"):
        open_for_arm(Deploy(policy=saved(), emulate=True, task="so101-reach", clock="simulated", rate=15.0))


def test_a_task_is_never_the_scene_of_a_dry_run(saved, tmp_path):
    file = tmp_path / "so101.json"
    write_calibration(file, find_kind("so101").calibration())
    how = {"policy": saved(inputs=(STATE,)), "robot": "so101", "port": "/dev/x", "calibration": str(file), "dry": True}
    config = Deploy(task="so101-pick-place", **how)
    config.check_names()
    assert config.world(30.0, {}).task == "so101-pick-place"  # of the arm
    dry = config.world(30.0, {}, dry=True)
    assert dry.emulate and dry.task == "so101-reach"
    assert Deploy(task="a cube", scene="so101-pusht", **how).world(30.0, {}, dry=True).task == "so101-pusht"
    with pytest.raises(LookupError, match="unknown task of so101 'a cube'"):
        Deploy(scene="a cube", **how).check_names()
    with pytest.raises(ValueError, match="--dry is of a real arm"):
        Deploy(policy="runs/it", emulate=True, dry=True)
    with pytest.raises(ValueError, match="--scene is of --dry"):
        Deploy(policy="runs/it", emulate=True, scene="so101-pusht")


def test_a_poor_dry_run_is_told():
    def row(**labels):
        return {"labels": json.dumps(labels), "length": 150}

    fine, poor = Tally(rows=[row(bent=3)], steps=150, late=4), Tally(rows=[row(bent=140)], steps=150, late=129)
    assert poor_rehearsal(fine) == []
    late, bent = poor_rehearsal(poor)
    assert "129 of 150 control steps began late" in late and "140 of 150 steps were bent" in bent


def test_an_arm_that_is_not_ready_is_refused_before_planning_is_measured(saved, tmp_path, monkeypatch):
    file, port, estop = tmp_path / "so101.json", tmp_path / "port.txt", tmp_path / "stop"
    write_calibration(file, find_kind("so101").calibration())
    port.write_text("no device")
    monkeypatch.setattr("understudy.eval.deploy.checks.planning_steps", lambda *_: pytest.fail("was measured"))
    robot = {"type": "so101", "port": str(port), "calibration": str(file), "estop": str(estop)}
    how = {"emulate": False, "clock": "wall", "robot": robot, "limits": "arm"}
    policy = saved(inputs=(STATE,))
    with pytest.raises(ConnectionError, match="is a file or folder, not a serial port; to mend it: plug the arm in"):
        deploy(policy, **how)
    estop.touch()
    with pytest.raises(ConnectionError, match="emergency stop: .* rm "):
        deploy(policy, **how)


def agent_of(body):
    return Agent(policy_of(body, inputs=(STATE,)), lanes=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": ("a", "b", "c", "d", "e", "f")}, "differ in action"),
        ({"rate": 50.0}, "differ in rate"),
        ({"action_units": ("?",) * 6}, "says nothing of the unit"),
        ({"limits": ((-1.0, 1.0),) * 6}, "--limits arm"),
        ({"frame": "?"}, "says nothing of frame"),
    ],
)
def test_another_body_is_refused(changes, words):
    with pytest.raises(EmbodimentError, match=words):
        check_arm(agent_of(dataclasses.replace(BODY, **changes)), BODY)


def test_what_the_arm_does_not_show_is_refused_and_limits_may_be_the_arms():
    with pytest.raises(EmbodimentError, match="train --data DATA .*--policy.inputs '.observation.state]'"):
        check_arm(Agent(policy_of(), lanes=1), dataclasses.replace(BODY, scene=(), scene_units=()))
    other = dataclasses.replace(BODY, limits=((-1.0, 1.0), *BODY.limits[1:]))
    assert "shoulder_pan" in check_arm(agent_of(other), BODY, "arm")[0]


def test_mismatch_and_missing_consent_come_before_the_torque(saved, tmp_path, monkeypatch):
    body = dataclasses.replace(BODY, rate=10.0)
    touched = []
    monkeypatch.setattr("understudy.hardware.lane.robot_env.RobotWorld.arm", lambda world: touched.append(world))
    with pytest.raises(EmbodimentError, match="rate"):
        deploy(saved(body=body), rate=30.0)
    with pytest.raises(Refused, match="--yes"):
        deploy(saved(), yes=False)
    assert not touched


def test_a_stop_of_the_guard_ends_the_episode():
    lane = read_world({"type": "robot", "emulate": True, "task": "so101-reach", "clock": "simulated"}).lane()
    lane.reset(seed=1000)
    lane.arm.guard.stop("enough")
    _, _, terminated, truncated, info = lane.step(np.array(find_arm("so101").home, np.float32))
    assert truncated and not terminated and "enough" in lane.labels()["stopped"]


def test_view_is_a_file_that_holds_what_was_seen_planned_and_sent(saved, tmp_path, monkeypatch):
    pytest.importorskip("rerun")
    from rerun.dataframe import load_recording

    file = tmp_path / "v" / "seen.rrd"
    deploy(saved(), seconds=0.2, delay=0, view=str(file))
    paths = {column.entity_path for column in load_recording(file).schema().component_columns()}
    joints = find_arm("so101").joints
    assert {f"/{what}/{name}" for what in ("plan", "measured", "commanded", "sent") for name in joints} <= paths
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="--view live opens a window, and there is no display: --view out/view.rrd"):
        Deploy(policy=saved(), emulate=True, view="live").check_names()


def test_a_raised_alarm_ends_an_episode_that_nobody_watches(saved, tmp_path, capsys):
    policy = saved()
    config = Deploy(policy=policy, emulate=True, task="so101-reach", clock="simulated", device="cpu", delay=0)
    agent, about, world = open_for_arm(config)
    alarm = Alarm(
        policy=about["fingerprint"],
        agent=agent_settings(config, agent),
        candidates=2,
        world=world.fingerprint() | {"type": "mujoco"},
        signals=("spread",),
        centre={"spread": [0.0]},
        scale={"spread": [1e-6]},
        slack=0.0,
        threshold=1e-3,
        clock=100,
        alpha=0.1,
        n=20,
        fit=20,
    )
    file, capsys_before = str(alarm.save(tmp_path / "alarm.json")), capsys.readouterr()
    deploy(policy, seconds=1.0, delay=0, alarm=file)
    said = capsys.readouterr().out
    assert capsys_before and "warning: the alarm was calibrated elsewhere (type: mujoco, here robot)" in said
    assert "the alarm is raised; the arm stands" in said and "not scored" in said and "30 steps" not in said
    deploy(policy, seconds=1.0, delay=0, alarm=file, pause_on_alarm=False)
    said = capsys.readouterr().out
    assert "the arm stands" not in said and "30 steps" in said


@pytest.mark.slow
def test_a_killed_deployment_leaves_the_arm_at_rest_and_whole_episodes(saved, tmp_path):
    pytest.importorskip("lerobot", reason="the Feetech bus is lerobot's")
    from understudy.hardware.emulator.arm import make_chain
    from understudy.hardware.emulator.bus import Bus
    from understudy.hardware.emulator.feetech import Feetech

    kind, out, file = find_kind("so101"), tmp_path / "data", tmp_path / "so101.json"
    write_calibration(file, kind.calibration())
    policy = saved(inputs=(STATE,))
    with Bus(make_chain(kind), Feetech()) as bus:
        words = ["deploy", policy, "--robot", "so101", "--port", bus.port, "--calibration", str(file)]
        words += ["--limits", "arm", "--yes", "true", "--device", "cpu"]
        words += ["--seconds", "1", "--episodes", "9", "--out", str(out), "--delay", "3"]
        said = tmp_path / "said"
        how = {"stdin": subprocess.DEVNULL, "stdout": said.open("w"), "stderr": subprocess.STDOUT}
        process = subprocess.Popen([sys.executable, "-m", "understudy", *words], **how)
        end = time.monotonic() + 90
        while time.monotonic() < end and len(list(out.glob("data/*/*.parquet"))) < 2:
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        with bus.held() as chain:
            assert any(servo.memory["Torque_Enable"] for servo in chain.servos)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with bus.held() as chain:
                if not any(servo.memory["Torque_Enable"] for servo in chain.servos):
                    break
            time.sleep(0.05)
        with bus.held() as chain:
            assert not any(servo.memory["Torque_Enable"] for servo in chain.servos)
            assert max(abs(servo.velocity) for servo in chain.servos) < 0.05
    data = open_dataset(str(out))
    assert len(data.episode_ids) >= 1 and len(data.columns["action"]) == 30 * len(data.episode_ids)


def test_what_was_recorded_trains(saved, tmp_path):
    from understudy.policies.learning.train import Train

    out, run = tmp_path / "data", tmp_path / "run"
    deploy(saved(), seconds=0.4, episodes=2, out=str(out), env_seed=1000, delay=1, latency="rtc")
    policy = policy_of().config
    Train(data=str(out), out=run, policy=policy, steps=4, batch=8, save_every=4, validation=0, device="cpu").run()
    assert (run / "last" / "model.safetensors").is_file()
