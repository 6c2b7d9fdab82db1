"""A recorded episode on an emulated arm: what is sent, and when."""

import dataclasses
import json
import os

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import STATE, Mode
from understudy.eval.bench.robot import emulated
from understudy.hardware.consent import Refused, ask
from understudy.hardware.emulator.arm import find_kind, swept, write_calibration
from understudy.hardware.guarded import open_robot
from understudy.hardware.open import robot_config
from understudy.hardware.replay import Account, Replay, Replayed, in_si, recorded_otherwise, replay_on
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter
from understudy.sim.arms import find_arm

pytest.importorskip("lerobot", reason="calibrations are lerobot's")
pytest.importorskip("daqp", reason="the guard's quadratic program")

HOME = np.array(find_arm("so101").home)


def test_actions_are_sent_at_their_time_and_late_ones_are_counted():
    """The arm is in another process, the guard in a third: on a machine that is busy anyway this says nothing."""
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        pytest.skip("the machine has no time to be on time")
    actions = HOME + 0.1 * (1 - np.cos(np.arange(45) / 8))[:, None] * np.array([1, 0, 0, 0, 1, 0])
    with emulated() as arm:
        robot = open_robot(arm.config(30.0))
        try:
            robot.connect()
            done = replay_on(robot, actions)
        finally:
            robot.disconnect()
    assert np.abs(done.sent - actions).mean() < 0.01 and len(done.after) == 45
    assert done.seconds > 44 / 30 and np.median(done.after) < done.step
    assert done.late == (done.after > 1 / 30).sum() < 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"world": "so101-reach", "dry_run": True}, "dry_run: that is for a robot"),
        ({"world": "so101-reach", "units": "degrees"}, "units: that is for a robot"),
        ({"robot": "so101", "env_seed": 0}, "env_seed: that is for a world"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Replay(data="out/demos", **settings)


@pytest.mark.parametrize(
    ("recorded", "units", "words"),
    [
        ({}, "degrees", "say that their actions are in .rad.; leave --units degrees out"),
        ({"mode": Mode.delta}, "", "mode 'delta', 'so101' takes 'absolute'"),
        ({"frame": "world"}, "", "frame 'world', 'so101' takes 'joint'"),
    ],
)
def test_actions_that_mean_another_motion_are_refused(recorded, units, words):
    robot = find_arm("so101").embodiment(30.0)
    with pytest.raises(ValueError, match=words):
        in_si(HOME[None], dataclasses.replace(robot, **recorded), robot, units)
    silent = dataclasses.replace(robot, action_units=("?",) * 6, mode=Mode.unknown, frame="?")
    assert np.allclose(in_si(find_arm("so101").to_lerobot(HOME[None]), silent, robot, "degrees"), HOME)


def test_who_recorded_and_how_it_was_calibrated_is_compared(tmp_path):
    kind, robot = find_kind("so101"), find_arm("so101").embodiment(30.0)
    write_calibration(tmp_path / "arm.json", kind.calibration())
    config = robot_config("so101", "/dev/null", str(tmp_path / "arm.json"))
    pose, one = np.asarray(HOME, np.float32)[None], np.zeros(1, np.float32)
    episode = Episode(
        start=0, task="t", obs={STATE: pose}, action=pose, sent=pose, reward=one, progress=one,
        success=np.zeros(1, bool), terminated=False, truncated=True,
    )  # fmt: skip
    remarks = {}
    for name in ("so101", "so101_follower", "koch_follower", "moved"):
        root = tmp_path / f"by_{name}"
        body = dataclasses.replace(robot, name="so101" if name == "moved" else name)
        DatasetWriter(root, body).add(episode)
        if name == "moved":
            told = config.settled()
            told["calibration"]["gripper"]["range_min"] -= 100
            (root / "meta" / "recording.json").write_text(json.dumps({"robot": told}))
        remarks[name] = [*recorded_otherwise(open_dataset(root), config, robot)]
    assert remarks["so101"] == remarks["so101_follower"] == []
    assert "'koch_follower' recorded this" in remarks["koch_follower"][0] and len(remarks["koch_follower"]) == 1
    assert remarks["moved"][0].startswith("gripper: calibrated otherwise") and len(remarks["moved"]) == 1


def test_what_was_late_is_said():
    rows = np.zeros((4, 1))
    done = Replayed(rows, rows, ("joint",), ("rad",), Account(), np.array([0.001, 0.001, 0.05, 0.001]), 1 / 30, 0.2)
    assert (
        done.late == 1
        and "1 late" in str(done)
        and "sent 1.0 ms after their time (99 %: 48.5 ms) of 33 ms" in str(done)
    )


def test_how_far_behind_is_said_in_the_unit_of_each_joint():
    """A slide in m and turning joints in rad have no mean of their own."""
    sent, after = np.zeros((3, 3)), np.full(3, 0.001)
    there = np.array([[0.1, 0.02, 0.3], [0.1, 0.04, 0.1], [np.nan] * 3])
    joints, units = ("pan", "slide", "tilt"), ("rad", "m", "rad")
    said = str(Replayed(sent, there, joints, units, Account(), after, 1 / 30, 0.1))
    assert "by 0.150 rad on average, at most 0.300 rad (tilt); by 0.030 m on average, at most 0.040 m (slide)" in said
    assert "1 readings lost" not in said and "1 reading lost" in said
    lost = str(Replayed(sent, np.full_like(sent, np.nan), joints, units, Account(), after, 1 / 30, 0.1))
    assert "nan" not in lost and "no reading" in lost


def test_late_replays_are_no_success(capsys):
    rows, fine = np.zeros((20, 1)), np.full(20, 0.001)
    some, most = np.where(np.arange(20) < 3, 0.05, fine), np.where(np.arange(20) < 15, 0.05, fine)
    for after in (fine, some):
        Replayed(rows, rows, ("joint",), ("rad",), Account(), after, 1 / 30, 1.0).refuse_late()
    assert capsys.readouterr().out.count("warning") == 1
    with pytest.raises(ValueError, match="15 of 20 actions were sent late"):
        Replayed(rows, rows, ("joint",), ("rad",), Account(), most, 1 / 30, 1.0).refuse_late()


def test_a_world_begins_where_the_episode_was_recorded(tmp_path, capsys):
    from understudy.eval.demos.demos import Demos

    out = str(tmp_path / "data")
    Demos(task="so101-reach", episodes=2, env_seed=100_004, out=out, workers=0, keep_failures=True).run()
    capsys.readouterr()
    Replay(data=out, episode=1, world="so101-reach").run()
    said = capsys.readouterr().out
    assert "env seed 100005, from which the episode was recorded" in said and "success True" in said


def test_nobody_there_means_no_motion():
    with pytest.raises(Refused, match="--yes true"):
        ask("something is about to move")


def test_an_emulated_hand_rests_between_its_sweeps():
    kind = find_kind("so101")
    moves = [np.abs(np.subtract(swept(kind, t + 0.1), swept(kind, t))).max() for t in np.arange(0, 32, 0.5)]
    rests = np.array(moves) < 1e-9
    assert rests[:12].all() and not rests[13:31].any() and rests[32:44].all() and not rests[45:63].any()
    led = np.array([swept(kind, t) for t in np.arange(7, 15, 0.05)])
    assert np.allclose([led.min(0), led.max(0)], np.array(kind.limits).T, atol=0.01)
