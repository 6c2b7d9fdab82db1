"""The SO-101's driver behind the guard, against the emulated arm."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain, write_calibration
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.faults import Fault, Faults
from understudy.hardware.emulator.feetech import Feetech
from understudy.hardware.examine import examine_robot
from understudy.hardware.guard import Command, Outcome
from understudy.hardware.guarded import open_robot, serve
from understudy.hardware.session import Session
from understudy.hardware.so101 import CalibrationError, Scale, SO101Config, torque_limits
from understudy.hardware.talk import told
from understudy.sim.arms import find_arm

pytest.importorskip("lerobot", reason="the Feetech bus is lerobot's")
pytest.importorskip("daqp", reason="the guard's quadratic program")

KIND = find_kind("so101")
HOME = np.array(find_arm("so101").home)


@pytest.fixture
def arm():
    faults = Faults()
    with Bus(make_chain(KIND), Feetech(), faults=faults) as bus:
        yield bus


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "so101.json"
    write_calibration(path, KIND.calibration())
    return path


@pytest.fixture
def session(arm, file):
    """(**settings) -> driver and guard in this process, open."""
    made = []

    def make(**settings):
        made.append(Session(SO101Config(port=arm.port, calibration=str(file), **settings)))
        made[-1].open()
        made[-1].number = 0
        return made[-1]

    yield make
    for one in made:
        one.close()


def drive(session, target):
    session.number += 1
    command = Command(target=np.asarray(target, float), time=time.monotonic(), number=session.number)
    return session.command(command)


@pytest.fixture
def robot(arm, file):
    """(**settings) -> the robot, connected."""
    made = []

    def make(**settings):
        made.append(open_robot(SO101Config(port=arm.port, calibration=str(file), **settings)))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.disconnect()


def torques(arm):
    with arm.held() as chain:
        return [servo.memory["Torque_Enable"] for servo in chain.servos]


def goals(arm):
    with arm.held() as chain:
        return [servo.memory["Goal_Position"] for servo in chain.servos]


def until(holds, seconds=8.0):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def test_positions_come_back_within_a_count(file):
    from understudy.hardware.emulator.arm import read_calibration

    scale = Scale(read_calibration(file, KIND))
    counts = np.array([(one.range_min + one.range_max) // 2 + 100 for one in KIND.calibration().values()])
    assert (scale.counts(scale.angles(counts)) == counts).all()
    assert np.array(scale.limits()) == pytest.approx(np.array(KIND.limits), abs=0.002)


def test_it_stands_moves_and_lets_go(arm, session):
    opened = session()
    assert opened.observe().position == pytest.approx(HOME, abs=0.01) and all(torques(arm))
    for step in range(20):
        verdict = drive(opened, HOME + [0.01 * step, 0, 0, 0, 0, 0])
    assert verdict.sent[0] == pytest.approx(0.19, abs=0.02) and verdict.outcome is not Outcome.stopped
    assert until(lambda: abs(opened.observe().position[0] - verdict.sent[0]) < 0.02)

    opened.close()
    assert not any(torques(arm))


def test_a_caller_that_dies_lets_the_arm_rest(arm, file):
    code = (
        "import sys, time, numpy as np\n"
        "from understudy.hardware.guarded import open_robot\n"
        "from understudy.hardware.so101 import SO101Config\n"
        "if __name__ == '__main__':\n"
        "    robot = open_robot(SO101Config(port=sys.argv[1], calibration=sys.argv[2]))\n"
        "    robot.connect(); home = robot.get_observation()['observation.state']\n"
        "    print('open', flush=True)\n"
        "    for step in range(10000):\n"
        "        robot.send_action(home + [0.3 * np.sin(step / 30), 0, 0, 0, 0, 0])\n"
    )
    script = file.with_name("caller.py")
    script.write_text(code)
    with subprocess.Popen([sys.executable, script, arm.port, file], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout.readline() == "open\n" and all(torques(arm))
        time.sleep(0.3)
        caller.send_signal(signal.SIGKILL)
    assert until(lambda: not any(torques(arm)))


def test_the_guard_goes_before_ordinary_processes_where_it_may(robot):
    ours = os.sched_getscheduler(0)
    driven = robot()
    may = subprocess.run([sys.executable, "-c", "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"])
    expected = os.SCHED_OTHER if may.returncode else os.SCHED_RR
    assert os.sched_getscheduler(driven.guard_process) & ~os.SCHED_RESET_ON_FORK == expected
    assert os.sched_getscheduler(0) == ours
    asked = time.monotonic()
    driven.send_action(HOME)
    assert asked < driven.verdict.written < time.monotonic()


def test_a_killed_guard_leaves_the_servos_at_their_goal(arm, robot):
    driven = robot()
    for step in range(10):
        driven.send_action(HOME + [0.01 * step, 0, 0, 0, 0, 0])
    before = goals(arm)
    os.kill(driven.guard_process, signal.SIGKILL)
    with pytest.raises(ConnectionError, match="stands at its last goal"):
        driven.send_action(HOME)
    time.sleep(0.3)
    after = goals(arm)
    step = 0.01 / (2 * np.pi) * 4096
    assert np.abs(np.subtract(after, before)).max() <= step + 1 and all(torques(arm))
    time.sleep(0.3)
    assert goals(arm) == after


def test_a_late_answer_is_not_taken_for_the_next_one(robot, monkeypatch):
    driven = robot()
    driven.send_action(HOME)
    monkeypatch.setattr("understudy.hardware.guarded.ANSWER", 0.3)
    os.kill(driven.guard_process, signal.SIGSTOP)
    with pytest.raises(ConnectionError, match="did not answer"):
        driven.get_observation()
    with pytest.raises(ConnectionError, match="did not answer"):
        driven.send_action(HOME)
    os.kill(driven.guard_process, signal.SIGCONT)
    monkeypatch.undo()
    sent = driven.send_action(HOME)
    assert sent == pytest.approx(HOME, abs=0.05) and driven.verdict.written > 0
    assert driven.get_observation()["observation.state"] == pytest.approx(HOME, abs=0.05)


def test_a_guard_that_ends_while_it_opens_says_so(arm, file, monkeypatch):
    robot = open_robot(SO101Config(port=arm.port, calibration=str(file)))
    threading.Thread(
        target=lambda: (until(lambda: robot.guard_process), os.kill(robot.guard_process, signal.SIGKILL)), daemon=True
    ).start()
    with pytest.raises(ConnectionError, match=r"ended \(SIGKILL\) while it opened the arm"):
        robot.connect()
    assert not any(torques(arm))


class Broken(SO101Config):
    """A driver with an error of its own."""

    def driver(self):
        raise TypeError("so it goes")


def test_a_failure_of_the_guard_itself_is_told(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # those of pytest stay
    ours, theirs = multiprocessing.Pipe()
    with pytest.raises(TypeError):
        serve(theirs, Broken(port="nowhere"))
    assert told(ours.recv_bytes())["error"] == "the guard's process failed (TypeError: so it goes); it lets go"


def test_silence_and_emergency_stops(arm, robot, tmp_path):
    driven = robot(estop=str(tmp_path / "stop"))
    for step in range(15):
        driven.send_action(HOME + [0.03 * step, 0, 0, 0, 0, 0])
    time.sleep(0.6)
    before = goals(arm)
    time.sleep(0.4)
    assert goals(arm) == before  # the arm stands
    driven.send_action(HOME)
    assert "from the first command" in str(driven.verdict)

    os.kill(driven.guard_process, signal.SIGUSR1)
    os.kill(driven.guard_process, signal.SIGUSR1)  # pressed twice
    assert until(lambda: driven.send_action(HOME) is not None and driven.verdict.outcome is Outcome.stopped, 2)
    driven.engage()
    driven.send_action(HOME)
    assert driven.verdict.outcome is not Outcome.stopped

    (tmp_path / "stop").touch()
    driven.send_action(HOME)
    assert driven.verdict.outcome is Outcome.stopped and "emergency stop" in str(driven.verdict)
    with pytest.raises(ValueError, match="remove"):
        driven.engage()


def test_one_program_at_a_time_drives_an_arm(arm, file, session):
    session()
    with pytest.raises(ConnectionError, match="another program drives it; end that one first"):
        session()
    (finding,) = [one for one in examine_robot("so101", arm.port, str(file)) if one.needed and not one.works]
    assert finding.what == "bus" and "another program drives it" in finding.detail
    assert all(torques(arm))  # the second one did not let the arm of the first fall


def test_an_emergency_stop_that_nobody_could_press_is_refused(session, tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*nowhere, so nobody could stop the arm"):
        session(estop=str(tmp_path / "nowhere" / "stop"))


def test_a_stale_calibration_is_refused(arm, file, session):
    file.write_text(file.read_text().replace('"homing_offset": 0', '"homing_offset": 7', 1))
    with pytest.raises(CalibrationError, match="shoulder_pan has homing_offset 0, the file 7"):
        session()
    assert not any(torques(arm))


def test_a_joint_behind_the_seam_is_refused(file):
    from understudy.hardware.emulator.arm import read_calibration

    scale = Scale(read_calibration(file, KIND))
    counts = scale.counts(HOME)
    counts[1] = 4090
    assert "shoulder_lift reads 4090" in scale.seams(counts)[0] and scale.seams(scale.counts(HOME)) == []


def test_no_port_and_no_file_are_named(file, tmp_path):
    with pytest.raises(ConnectionError, match="no such port"):
        Session(SO101Config(port=str(tmp_path / "none"), calibration=str(file))).open()
    with pytest.raises(CalibrationError, match="lerobot-calibrate"):
        Session(SO101Config(port="/dev/null", calibration=str(tmp_path / "no.json"))).open()


def test_a_silent_servo_never_hands_on_old_values(arm, session):
    opened = session()
    drive(opened, HOME)
    with arm.held():
        arm.faults.add(Fault(kind="lost", id=3))
    with pytest.raises(ConnectionError):
        opened.observe()
    with pytest.raises(ConnectionError):
        for _ in range(20):
            drive(opened, HOME)
    assert "could not be read" in opened.guard.stopped


def test_an_unplugged_port_is_one_error_and_nothing_hangs(arm, session):
    opened = session()
    drive(opened, HOME)
    with arm.held() as chain:
        arm.faults.add(Fault(kind="unplug", at=chain.time, seconds=1e6))
    with pytest.raises(ConnectionError, match="/dev/"):
        for _ in range(40):
            drive(opened, HOME)
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("servos", [3, None], ids=["one servo", "all"])
def test_a_brown_out_shorter_than_the_retries_stops_the_arm_with_its_reason(arm, session, servos):
    opened = session()
    drive(opened, HOME)
    with arm.held() as chain:
        arm.faults.add(Fault(kind="brownout", id=servos, at=chain.time, seconds=0.02))
    assert until(lambda: drive(opened, HOME).outcome is Outcome.stopped)
    assert "elbow_flex" in opened.guard.stopped and "the supply failed for a moment" in opened.guard.stopped
    assert torques(arm) == [servo != 3 and servos is not None for servo in range(1, 7)]

    opened.engage()
    assert all(torques(arm)) and limits(arm) == torque_limits(2.4)
    with arm.held() as chain:  # and its settings are there again
        assert chain.servos[2].memory["Acceleration"] == 254
    assert drive(opened, HOME).outcome is not Outcome.stopped


def limits(arm):
    with arm.held() as chain:
        return [servo.memory["Torque_Limit"] for servo in chain.servos]


def test_the_servos_bound_their_own_torque_while_they_hold(arm, session):
    opened = session(envelope={"torque": 1.0})
    assert limits(arm) == [253] * 6 and torque_limits(None) == [1000] * 5 + [500]
    opened.close()
    assert limits(arm) == [1000] * 5 + [500]
