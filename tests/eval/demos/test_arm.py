"""Teleoperation of the emulated arm by an emulated leader becomes a dataset."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from understudy.configs.spec import ACTION, STATE, Embodiment
from understudy.eval.demos.arm import CAPTURED, COMMANDED, GUARD, OUTCOME, Session, Station, Words, arm_card
from understudy.eval.demos.demos import Demos
from understudy.eval.demos.recording import RecordingError, compare
from understudy.hardware.emulator.arm import find_kind, write_calibration
from understudy.hardware.guard import Command, Measured
from understudy.hardware.guarded import Account
from understudy.hardware.guarded import Session as Guarded
from understudy.hardware.leader import Leader
from understudy.hardware.open import robot_config
from understudy.hardware.robot import RobotConfig
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter

pytest.importorskip("lerobot", reason="the leader is lerobot's")
pytest.importorskip("daqp", reason="the guard's quadratic program")

KIND = find_kind("so101")
SENT = "action.sent"


EMULATION = """
import math, os, sys, threading, time
from contextlib import suppress
from pathlib import Path
from understudy.hardware.emulator.arm import find_kind, make_chain
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.faults import Fault, Faults

with suppress(AttributeError, OSError):  # servos and hands do not wait for a busy machine, where it permits that
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
kind, sway, place, at = find_kind("so101"), [0.0], [0.0], [0.0]
zeros = kind.zeros(kind.calibration())

def lead(bus):  # a hand on every joint, slowly to and fro about a place beside home, to which it goes at 0.5 rad/s
    before = time.monotonic()
    while True:
        time.sleep(0.02)
        now = time.monotonic()
        at[0] += min(max(place[0] - at[0], -0.5 * (now - before)), 0.5 * (now - before))
        before = now
        angle = at[0] + sway[0] * math.sin(2 * math.pi * now / 4)
        with bus.held() as chain:
            for shaft, zero, home in zip(chain.shafts.shafts, zeros, kind.home, strict=True):
                shaft.hand = zero + home + angle

link = Path(sys.argv[1]) if sys.argv[1:] else None  # names the leader's port, also after it was away
with Bus(make_chain(kind), kind.codec(), punctual=True) as follower:
    with Bus(make_chain(kind), kind.codec(), faults=Faults(), link=link, punctual=True) as leader:
        threading.Thread(target=lead, args=(leader,), daemon=True).start()
        print(follower.port, leader.port, flush=True)
        for line in sys.stdin:
            what, _, value = line.strip().partition(" ")
            if what == "sway":
                sway[0] = float(value)
            if what == "put":
                place[0] = float(value)
            if what == "pull":  # for so many s
                with leader.held() as chain:
                    leader.faults.add(Fault(kind="unplug", at=chain.time, seconds=float(value)))
            if what == "unplug":
                with leader.held() as chain:
                    leader.faults.add(Fault(kind="unplug", at=chain.time + float(value), seconds=1e6))
            if what == "torque":
                time.sleep(0.2)
                with follower.held() as chain:
                    print(sum(servo.memory["Torque_Enable"] for servo in chain.servos), flush=True)
"""


class Arms:
    """A follower and a leader in a process of their own."""

    def __init__(self, *link):
        words, pipe = [sys.executable, "-c", EMULATION, *map(str, link)], subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
        self.follower, self.leader = self.process.stdout.readline().split()

    def tell(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def torques(self):
        self.tell("torque")
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))


@pytest.fixture
def arms():
    made = Arms()
    yield made
    made.end()


@pytest.fixture
def demos(arms, tmp_path):
    """(**settings) -> the verb's settings for the two arms, both calibrated by one file."""
    file = str(tmp_path / "arm.json")
    write_calibration(tmp_path / "arm.json", KIND.calibration())

    def make(**settings):
        usual = {
            "task": "wave",
            "robot": "so101",
            "port": arms.follower,
            "calibration": file,
            "by": {"type": "so101_leader", "port": arms.leader, "calibration": file},
            "out": str(tmp_path / "data"),
            "episodes": 2,
            "seconds": 1.0,
            "pause": 0.0,
        }
        return Demos(**(usual | settings))

    return make


def record(config):
    """Run it, again where a busy machine let the emulated arms answer too late to be opened."""
    for _ in range(4):
        try:
            return config.run()
        except ConnectionError as error:
            if not any(
                said in str(error) for said in ("motor check failed", "did not answer within", "Nothing is writ")
            ):
                raise
            missed = error
    raise missed


def test_where_an_arm_is_plugged_in_is_no_part_of_a_recording(tmp_path):
    """Ports are given anew whenever a cable was out; which arm it is, the calibration says."""

    def card(port, rate=30.0, **more):
        world = {"port": port, "rate": rate, "config": {"robot": {"type": "so101", "port": port}} | more}
        return {"world": world}

    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/recording.json").write_text(json.dumps(card("/dev/ttyACM0")))
    compare(tmp_path, card("/dev/ttyACM1", yes=True))
    with pytest.raises(RecordingError, match=r"world\.rate was 30.0, not 25.0"):
        compare(tmp_path, card("/dev/ttyACM0", rate=25.0))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_led_is_recorded_and_reads_back(demos, arms, tmp_path):
    arms.tell("sway 0.2")
    record(demos())
    data = open_dataset(tmp_path / "data")
    body = data.embodiment
    assert body.action == KIND.joints and set(body.action_units) == {"rad"} and not body.unknown and body.rate == 30

    actions, sent = data.columns[ACTION], data.columns[SENT]
    assert len(data.lengths) == 2 and min(data.lengths) > 10
    assert np.ptp(actions[:, 0]) > 0.05  # the leader moved
    assert np.abs(sent - actions).max() < 0.2 and np.abs(np.diff(sent, axis=0)).max() < 2.0 / 30 + 0.2
    follows = np.abs(data.columns[STATE] - sent).mean()
    assert follows < 0.1

    times = np.concatenate([data.columns[CAPTURED].reshape(-1, 1), data.columns[COMMANDED].reshape(-1, 1)], 1)
    begins = np.cumsum([0, *data.lengths[:-1]])
    assert (np.delete(np.diff(times[:, 0]), begins[1:] - 1) > 0.015).all() and (times[:, 1] >= times[:, 0]).all()
    assert set(np.unique(data.columns[OUTCOME])) <= {0.0, 1.0}
    told = json.loads((tmp_path / "data" / GUARD).read_text())
    assert [sum(one["outcomes"].values()) for one in told] == list(data.lengths)

    theirs = lerobots(tmp_path / "data")
    assert theirs.num_episodes == 2 and theirs.fps == 30 and theirs[3]["task"] == "wave"
    for key in (ACTION, SENT, STATE, CAPTURED):
        assert theirs[3][key].numpy().ravel() == pytest.approx(np.ravel(data.columns[key][3]))

    card = json.loads((tmp_path / "data/meta/recording.json").read_text())
    assert card["by"] == "so101_leader" and card["led in"]["elbow_flex"] == "degrees"
    assert card["robot"]["calibration"]["gripper"]["id"] == 6


def lerobots(folder):
    """The dataset as lerobot's own loader reads it."""
    from understudy.configs.compat import prepare_lerobot

    prepare_lerobot()
    return pytest.importorskip("lerobot.datasets.lerobot_dataset").LeRobotDataset("me/arm", root=folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_two_cameras_saw_is_recorded_with_its_moments(tmp_path):
    """Rendered cameras of the emulated follower, through OpenCV, beside an emulated leader that a hand sweeps."""
    from understudy.eval.bench.robot import emulated

    sizes = "{front: [48, 64], wrist: [48, 64]}"
    with emulated("--load", "so101-reach", "--cameras", sizes) as arm, emulated("--hand", "sweep") as leader:
        names = ("front", "wrist")
        camera = {n: {"index": a, "width": 64, "height": 48} for n, a in zip(names, arm.cameras, strict=True)}
        robot = {"type": "so101", "port": arm.port, "calibration": arm.calibration, "camera": camera}
        by = {"type": "so101_leader", "port": leader.port, "calibration": leader.calibration}
        out = tmp_path / "data"
        record(Demos(task="look", robot=robot, by=by, out=str(out), episodes=1, seconds=1.5, pause=0.0))

    data = open_dataset(out)
    assert data.embodiment.cameras == {"front": (48, 64), "wrist": (48, 64)}
    captured, commanded = data.columns[CAPTURED], data.columns[COMMANDED].reshape(-1)
    assert captured.shape == (len(commanded), 3)  # state and each camera
    age = commanded[:, None] - captured
    assert (age >= 0).all() and np.median(age) < 0.2 and age.max() < 1.0
    theirs = lerobots(out)
    for name in names:
        picture = theirs[3][f"observation.images.{name}"]
        assert picture.shape == (3, 48, 64) and picture.std() > 0.05


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_recording_goes_on(demos, arms, tmp_path):
    record(demos(episodes=1, seconds=0.5))
    with pytest.raises(FileExistsError, match="--resume"):
        demos(episodes=2, seconds=0.5).run()
    with pytest.raises(RecordingError, match="its task was wave, not nod"):
        compare(tmp_path / "data", {"task": "nod"})
    record(demos(episodes=2, seconds=0.5, resume=True))
    assert len(open_dataset(tmp_path / "data").lengths) == 2
    assert len(json.loads((tmp_path / "data" / GUARD).read_text())) == 2


def test_a_recording_does_not_go_on_with_another_calibration(tmp_path):
    """Nothing is opened: what would be compared are the cards."""
    file, led = tmp_path / "arm.json", tmp_path / "leader.json"

    def card(arm=KIND.calibration(), leader=KIND.calibration()):  # noqa: B008, read only
        write_calibration(file, arm)
        write_calibration(led, leader)
        by = {"type": "so101_leader", "port": "/dev/leader", "calibration": str(led)}
        config = Demos(task="wave", robot="so101", by=by, out=str(tmp_path))
        arm = robot_config("so101", "/dev/arm", str(file))
        body = arm.describe().embodiment
        return arm_card(config, arm, SimpleNamespace(embodiment=body), Leader(by, body))

    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/recording.json").write_text(json.dumps(card()))
    compare(tmp_path, card())
    usual = KIND.calibration()
    anew = usual | {"elbow_flex": dataclasses.replace(usual["elbow_flex"], homing_offset=40)}
    said = (
        r"another calibration: its {}\.calibration\.elbow_flex\.homing_offset was 0, not 40.*calibration file of then"
    )
    with pytest.raises(RecordingError, match=said.format("leader")):
        compare(tmp_path, card(leader=anew))
    with pytest.raises(RecordingError, match=said.format("robot")):
        compare(tmp_path, card(arm=anew))

    former = card()
    del former["leader"]
    (tmp_path / "meta/recording.json").write_text(json.dumps(former))
    with pytest.warns(UserWarning, match="does not say how its leader was calibrated"):
        compare(tmp_path, card(leader=anew))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_unplugged_leader_costs_the_running_episode(demos, arms, tmp_path):
    def unplug():
        while not (tmp_path / "data/data").is_dir():
            time.sleep(0.02)
        arms.tell("unplug 0.8")

    threading.Thread(target=unplug, daemon=True).start()
    with pytest.raises(ConnectionError, match="episodes are kept in .*--resume goes on"):
        record(demos(episodes=50, seconds=0.5))
    data = open_dataset(tmp_path / "data")
    assert len(data.lengths) and np.isfinite(data.columns[ACTION]).all()
    assert arms.torques() == 0


def test_what_makes_no_sense_is_refused(demos, arms):
    for settings, said in (
        ({"by": "expert"}, "who leads the arm"),
        ({"by": "keyboard"}, "an arm is led by another arm, such as --by.type so101_leader"),
        ({"policy": ("run",)}, "--policy acts in worlds"),
        ({"cameras": {"front": (8, 8)}}, "its cameras are settings of the robot"),
        ({"noise": 0.1}, "--noise is of experts"),
        ({"seconds": 0.0}, "no length of an episode"),
        ({"robot": "so102"}, "unknown robot 'so102'"),
        ({"by": {"type": "so101_leader"}}, "so101_leader needs port"),
    ):
        with pytest.raises((ValueError, LookupError), match=said):
            demos(**settings).run()


@pytest.mark.parametrize("robot", ["so101", "so101_follower"])
def test_an_arm_does_not_lead_itself(demos, arms, tmp_path, robot):
    (tmp_path / "leader").symlink_to(arms.follower)  # the same port by another name
    file = str(tmp_path / "arm.json")
    leader = {"type": "so101_leader", "port": str(tmp_path / "leader"), "calibration": file}
    with pytest.raises(ValueError, match="leader is the port of 'so101.*' itself: the leader is another arm"):
        demos(robot=robot, by=leader).run()
    assert not (tmp_path / "data").exists()


def test_words_come_line_by_line():
    reads, writes = os.pipe()
    words = Words(reads)
    assert words.next() is None and not words.over
    os.write(writes, b"\nF")
    assert words.next() == "" and words.next() is None
    os.write(writes, b" \n")
    os.close(writes)
    assert words.next() == "f" and words.next() is None and words.over
    os.close(reads)


# without processes: a guard and one joint in this one


class Joint:
    """One joint that is where it was sent."""

    body = None
    embodiment = Embodiment(
        name="one joint",
        action=("joint",),
        action_units=("rad",),
        limits=((-1.0, 1.0),),
        rate=100.0,
        state=("joint",),
        state_units=("rad",),
    )

    def connect(self):
        self.position = np.zeros(1)

    def measure(self, loads):
        return Measured(position=self.position.copy(), time=time.monotonic())

    def write(self, goal):
        self.position = np.array(goal)

    def hold(self):
        pass

    relax = close = hold


class JointConfig(RobotConfig):
    def driver(self):
        return Joint()


class Robot:
    """What a guarded robot does, in this process."""

    def __init__(self):
        self.session, self.account, self.verdict, self.number = Guarded(JointConfig()), Account(), None, 0
        self.embodiment = self.session.open()

    def observe(self):
        seen = self.session.observe()
        return {STATE: seen.position.astype(np.float32)}, {STATE: seen.time}

    def send_action(self, action, moment):
        self.number += 1
        self.verdict = self.session.command(Command(target=action, time=moment, number=self.number))
        self.account.add(self.verdict)
        return self.verdict.sent.astype(np.float32)

    def engage(self):
        return self.session.engage()


class Guide:
    """Leads where it is told, and beyond the limits; `at`: step -> what happens then."""

    def __init__(self, robot, at):
        self.robot, self.at, self.steps = robot, at, 0

    def read(self):
        self.steps += 1
        happens = self.at.get(self.steps)
        if happens is not None:
            happens()
        return np.full(1, 0.02 * math.sin(self.steps / 20) if self.steps % 50 else 1.5)


class Said:
    """Words that come at steps of the guide."""

    def __init__(self, guide, words):
        self.guide, self.words, self.over = guide, dict(words), False

    def next(self):
        stopped = self.guide.robot.session.guard.stopped is not None
        word = "" if stopped and self.words else self.words.pop(self.guide.steps, None)
        self.over = not self.words
        return word


def recorded(tmp_path, words, at=None, **settings):
    """The dataset of a session of one joint in which these words fall at these steps."""
    robot = Robot()
    guide = Guide(robot, {step: lambda act=act: act(robot) for step, act in (at or {}).items()})
    config = Demos(task="wave", out=str(tmp_path / "data"), **({"keep_late": True} | settings))
    extra = {CAPTURED: ("state",), COMMANDED: ("command",), OUTCOME: ("outcome",)}
    writer = DatasetWriter(tmp_path / "data", robot.embodiment, extra=extra)
    try:
        Session(config, Station(robot, guide), writer, Said(guide, words)).run()
    finally:
        robot.session.close()
    return open_dataset(tmp_path / "data")


def test_a_person_begins_ends_discards_fails_and_quits(tmp_path, capsys):
    words = {10: "", 40: "d", 45: "", 80: "f", 90: "", 130: "", 140: "", 170: "q"}
    data = recorded(tmp_path, words, keep_failures=True)
    failed, won = data.lengths
    assert 30 <= failed <= 35 and 35 <= won <= 40
    assert data.columns["next.success"].reshape(-1)[[failed - 1, failed + won - 1]].tolist() == [False, True]
    assert capsys.readouterr().out.count(": not kept") == 2  # the discarded one, and the one that was quit


def test_commanded_and_sent_differ_where_the_guard_bends(tmp_path):
    data = recorded(tmp_path, {10: "", 100: "", 105: "q"})
    action, sent = data.columns[ACTION].reshape(-1), data.columns[SENT].reshape(-1)
    bent = np.flatnonzero(action > 1)[0]
    assert action[bent] == 1.5 and abs(sent[bent]) < 0.2 and data.columns[OUTCOME].reshape(-1)[bent] == 1
    assert (data.columns[OUTCOME] == 0).any()
    captured, commanded = data.columns[CAPTURED].reshape(-1), data.columns[COMMANDED].reshape(-1)
    assert (np.diff(captured) > 0).all() and (commanded >= captured).all() and 0 <= captured[0] < 0.1
    (told,) = json.loads((tmp_path / "data" / GUARD).read_text())
    assert sum(told["outcomes"].values()) == len(action) and any("outside" in reason for reason in told["reasons"])


def test_an_episode_in_which_the_guard_stops_is_not_kept(tmp_path, capsys):
    words = {10: "", 30: "", 35: "", 85: "", 120: "", 125: "q"}
    stop = {60: lambda robot: robot.session.guard.stop("emergency stop")}
    data = recorded(tmp_path, words, stop)
    assert len(data.lengths) == 2
    assert "not kept: the guard stopped the arm" in capsys.readouterr().out


def test_an_emergency_stop_that_is_still_there_is_asked_about_again(tmp_path, capsys):
    words, refused = {10: "", 30: "", 35: "", 85: "", 120: "", 125: "q"}, []

    def stop(robot):
        robot.session.guard.stop("emergency stop")
        engage = robot.session.engage

        def still_there():
            if not refused:
                refused.append(1)
                raise ValueError("emergency stop: remove it first")
            return engage()

        robot.session.engage = still_there

    assert len(recorded(tmp_path, words, {60: stop}).lengths) == 2
    assert "emergency stop: remove it first. ENTER tries again, q quits" in capsys.readouterr().out


def test_a_stop_with_nobody_there_ends_the_recording(tmp_path):
    stop = {30: lambda robot: robot.session.guard.stop("emergency stop")}
    with pytest.raises(ConnectionError, match="the guard stopped the arm: emergency stop"):
        recorded(tmp_path, {}, stop, seconds=0.1, pause=0.0)
    assert len(open_dataset(tmp_path / "data").lengths) >= 1


def test_an_episode_may_end_by_its_time(tmp_path):
    data = recorded(tmp_path, {}, seconds=0.2, pause=0.1, episodes=2)
    assert len(data.lengths) == 2 and data.columns["next.success"].reshape(-1)[data.lengths[0] - 1]


def stalls(robot):
    time.sleep(0.3)


def test_an_episode_that_lost_steps_is_not_kept_unasked(tmp_path, capsys):
    """A machine that is held up for 30 of 60 steps: its frames would be led again half as fast again."""
    stall = {step: stalls for step in range(20, 200, 20)}
    with pytest.raises(ConnectionError, match="3 episodes in a row came late.*--keep_late true"):
        recorded(tmp_path / "refused", {}, stall, seconds=1.0, pause=0.0, keep_late=False)
    said = capsys.readouterr().out
    assert said.count("NOT KEPT") == 3 and "x as fast; --keep_late true keeps it" in said
    assert " 0 late" not in said


def test_a_late_episode_that_is_kept_is_warned_of_wherever_it_is_read(tmp_path, capsys):
    from understudy.eval.inspect.survey import survey
    from understudy.hardware.replay import Replay
    from understudy.policies.data.pace import off_pace

    data = recorded(tmp_path, {}, {step: stalls for step in range(20, 200, 20)}, seconds=1.0, pause=0.0, episodes=1)
    (pace,) = off_pace(data)
    assert pace.faster > 1.5 and pace.took > 0.9
    (warned,) = [word for word in survey(open_dataset(tmp_path / "data", check=False)).warnings if "as fast" in word]
    assert "1 of 1 episodes did not take the time that their frames say" in warned and f"{pace.faster:.2f}x" in warned
    capsys.readouterr()
    with pytest.raises(ValueError, match="calibration|the data move"):
        Replay(data=str(tmp_path / "data"), robot="so101", port="none").run()
    assert f"warning: {warned}" in capsys.readouterr().out


def test_steps_keep_the_robots_rate(tmp_path):
    """What observing, reading and sending take is part of a step, not added to it."""
    busy = {step: lambda robot: time.sleep(0.003) for step in range(400)}
    data = recorded(tmp_path, {}, busy, seconds=1.0, pause=0.0, episodes=1)
    moments = data.columns[COMMANDED].reshape(-1)
    assert np.median(np.diff(moments)) == pytest.approx(0.01, rel=0.03)
