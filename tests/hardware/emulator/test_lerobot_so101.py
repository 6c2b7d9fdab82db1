"""Stock lerobot's Feetech bus and SO-101 follower and leader against the emulated arm.

Nothing of them is replaced, but for how long they wait for an answer, see `unhurried`.
"""

import io
import json
import os
import sys
import threading

import pytest

from understudy.hardware.emulator.arm import make_chain, so101
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.chain import Chain
from understudy.hardware.emulator.feetech import Feetech
from understudy.hardware.emulator.sts3215 import STS3215

KIND = so101()
ARM = {name: id for id, name in enumerate(KIND.joints, 1)}


@pytest.fixture
def arm():
    with Bus(make_chain(KIND), Feetech()) as bus:
        yield bus


@pytest.fixture
def feetech(arm, lerobot_motors, patiently, unhurried):
    """(port) -> a connected bus of lerobot's for the arm there."""
    from lerobot.motors.feetech import FeetechMotorsBus

    mode = lerobot_motors.MotorNormMode.DEGREES
    made = []

    def make(port):
        motors = {name: lerobot_motors.Motor(id, "sts3215", mode) for name, id in ARM.items()}
        made.append(unhurried(FeetechMotorsBus(port=port, motors=motors)))
        patiently(made[-1].connect, made[-1].port_handler.closePort)
        return made[-1]

    yield make
    for bus in made:
        if bus.is_connected:
            bus.disconnect(disable_torque=False)


@pytest.fixture
def calibrated(lerobot_motors):
    """The calibration of the emulated arm as lerobot holds it."""
    return {name: lerobot_motors.MotorCalibration(**vars(one)) for name, one in KIND.calibration().items()}


@pytest.fixture
def follower(arm, tmp_path, calibrated, patiently, unhurried):
    """(port) -> lerobot's SO-101 follower with the calibration file of the emulated arm."""
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

    (tmp_path / "arm.json").write_text(json.dumps({name: vars(one) for name, one in calibrated.items()}))
    made = []

    def make(port, **settings):
        config = SO101FollowerConfig(port=port, id="arm", calibration_dir=tmp_path, **settings)
        robot = SO101Follower(config)
        made.append(robot)
        unhurried(robot.bus)
        patiently(lambda: robot.connect(calibrate=False), robot.bus.port_handler.closePort)
        return robot

    yield make
    for robot in made:
        if robot.is_connected:
            robot.disconnect()


def test_find_ping_read_and_write(arm, feetech, until, patiently):
    bus = feetech(arm.port)
    until(lambda: bus.broadcast_ping() == dict.fromkeys(ARM.values(), 777) and bus.ping("gripper") == 777)
    assert bus.get_baudrate() == arm.baud == 1_000_000

    bus.write("Goal_Velocity", "elbow_flex", -321, num_retry=9)
    assert bus.read("Goal_Velocity", "elbow_flex", num_retry=9) == -321
    bus.sync_write("Homing_Offset", dict.fromkeys(ARM, -77))
    until(lambda: bus.sync_read("Homing_Offset", num_retry=9) == dict.fromkeys(ARM, -77))
    until(lambda: bus.read("Present_Voltage", "gripper", num_retry=9) == 74)


def test_the_servos_are_found_at_the_speed_that_they_are_set_to(lerobot_motors, until, unhurried):
    from lerobot.motors.feetech import FeetechMotorsBus

    with Bus(make_chain(KIND, baud=115_200), Feetech()) as arm:
        bus = unhurried(FeetechMotorsBus(port=arm.port, motors={}))
        bus.connect(handshake=False)
        assert bus.broadcast_ping() is None
        bus.set_baudrate(115_200)
        until(lambda: list(bus.broadcast_ping() or ()) == list(ARM.values()))
        bus.disconnect(disable_torque=False)


def test_a_motor_is_set_up(lerobot_motors, patiently, unhurried):
    """As `lerobot-setup-motors` does with each new servo: any speed, id 1, made what the arm wants."""
    from lerobot.motors.feetech import FeetechMotorsBus

    chain = Chain([STS3215(ID=1, Baud_Rate=1)])
    with Bus(chain, Feetech()) as arm:
        mode = lerobot_motors.MotorNormMode.DEGREES
        motors = {"gripper": lerobot_motors.Motor(6, "sts3215", mode)}
        bus = unhurried(FeetechMotorsBus(port=arm.port, motors=motors))
        patiently(lambda: bus.setup_motor("gripper"))
        assert (chain.servos[0].id, chain.servos[0].baud) == (6, 1_000_000)
        assert bus.ping("gripper", num_retry=9) == 777
        bus.disconnect(disable_torque=False)


def test_positions_come_back_within_one_count(arm, feetech, until):
    bus = feetech(arm.port)
    bus.enable_torque(num_retry=9)
    for goals in ((1800, 1600, 2300, 2700, 100, 2100), (2300, 1900, 1700, 1500, 3900, 2600)):
        goals = dict(zip(ARM, goals, strict=True))
        bus.sync_write("Goal_Position", goals, normalize=False)

        def arrived(goals=goals):
            places = bus.sync_read("Present_Position", normalize=False, num_retry=9)
            return all(abs(places[name] - goals[name]) <= 1 for name in goals)

        chain = arm.chain
        chain.shafts.shafts[4].low, chain.shafts.shafts[4].high = 0.0, 6.2832  # wrist_roll without its stops
        until(arrived, f"{goals}")


def test_the_follower_goes_where_it_is_told_in_degrees(arm, follower, until, patiently):
    robot = follower(arm.port)
    assert patiently(lambda: robot.is_calibrated)
    assert [servo.memory["P_Coefficient"] for servo in arm.chain.servos] == [16] * 6
    assert arm.chain.servos[5].memory["Overload_Torque"] == 25

    action = dict(zip(robot.action_features, (10.0, -20.0, 30.0, 45.5, -60.0, 70.0), strict=True))
    robot.send_action(action)
    count = 360 / 4095 * 2  # goals are cut to whole counts, places are whole counts

    def arrived():
        places = patiently(robot.get_observation)
        return all(abs(places[key] - goal) <= count for key, goal in action.items())

    until(arrived, f"{action}")
    with arm.held() as chain:
        assert all(servo.driven for servo in chain.servos)
    robot.disconnect()
    assert not any(servo.driven for servo in arm.chain.servos)


def test_a_leader_teleoperates_a_follower(arm, follower, calibrated, tmp_path, until, patiently, unhurried):
    from lerobot.teleoperators.so_leader import SO101Leader, SO101LeaderConfig

    folder = tmp_path / "leader"
    folder.mkdir()
    (folder / "hand.json").write_text(json.dumps({name: vars(one) for name, one in calibrated.items()}))
    with Bus(make_chain(KIND), Feetech()) as hand:
        leader = SO101Leader(SO101LeaderConfig(port=hand.port, id="hand", calibration_dir=folder))
        robot = follower(arm.port)
        unhurried(leader.bus)
        patiently(lambda: leader.connect(calibrate=False), leader.bus.port_handler.closePort)
        with hand.held() as chain:
            for shaft in chain.shafts.shafts:
                shaft.hand = (shaft.low + shaft.high) / 2 + 0.3

        def followed():
            action = patiently(leader.get_action)
            robot.send_action(action)
            places = patiently(robot.get_observation)
            there = all(abs(shaft.angle - shaft.hand) < 0.01 for shaft in hand.chain.shafts.shafts)
            return there and all(abs(places[key] - value) < 0.5 for key, value in action.items())

        until(followed, "the follower at the leader's pose")
        leader.disconnect()


def test_the_follower_is_calibrated_by_hand(follower, arm, tmp_path, monkeypatch, until, patiently):
    """The dialogue of `lerobot-calibrate`: ENTER in the middle, every joint through its range, ENTER."""
    robot = follower(arm.port)
    robot.calibration = robot.bus.calibration = {}
    for servo in arm.chain.servos:
        servo.memory["Min_Position_Limit"], servo.memory["Max_Position_Limit"] = 0, 4095
    middles = [(shaft.low + shaft.high) / 2 + 0.1 for shaft in arm.chain.shafts.shafts]  # no offset is 0

    reads, writes = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(reads, "rb", 0), write_through=True))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    failures = []

    def lead(angles):
        with arm.held() as chain:
            for shaft, angle in zip(chain.shafts.shafts, angles, strict=True):
                shaft.hand = angle
        until(lambda: all(abs(s.angle - a) < 2e-3 for s, a in zip(arm.chain.shafts.shafts, angles, strict=True)))

    def sweep():
        try:
            lead(middles)
            os.write(writes, b"\n")
            until(lambda: all(servo.memory["Homing_Offset"] for servo in arm.chain.servos))
            seen = arm.counts.requests + 40
            until(lambda: arm.counts.requests > seen)
            for end in ("low", "high"):
                lead([getattr(shaft, end) for shaft in arm.chain.shafts.shafts])
                seen = arm.counts.requests + 5
                until(lambda seen=seen: arm.counts.requests > seen)
            os.write(writes, b"\n")
        except BaseException as error:
            failures.append(error)
            os.write(writes, b"\n\n")
            raise

    person = threading.Thread(target=sweep)
    person.start()
    try:
        robot.calibrate()
    finally:
        person.join()
        os.close(writes)
    assert not failures

    saved = json.loads((tmp_path / "arm.json").read_text())
    for servo, name in zip(arm.chain.servos, ARM, strict=True):
        low, high = KIND.limits[servo.id - 1]
        span = (high - low) / 6.2832 * 4096
        found = saved[name]
        if name != "wrist_roll":
            assert found["range_max"] - found["range_min"] == pytest.approx(span, abs=4), name
        assert servo.memory["Homing_Offset"] == found["homing_offset"]
        assert servo.memory["Min_Position_Limit"] == found["range_min"]
    assert patiently(lambda: robot.is_calibrated)
