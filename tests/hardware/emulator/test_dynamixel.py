"""Dynamixel's codec, control tables and firmware, and stock lerobot's Koch against them."""

import json

import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.chain import Chain
from understudy.hardware.emulator.dynamixel import Dynamixel, crc, pack
from understudy.hardware.emulator.faults import Fault
from understudy.hardware.emulator.packets import Change, Request, Span, Status
from understudy.hardware.emulator.xseries import XL330M077, XL330M288, XL430

CODEC = Dynamixel()
KOCH = find_kind("koch")
ARM = {name: id for id, name in enumerate(KOCH.joints, 1)}


def ask(chain, packet):
    request = CODEC.take(bytearray(packet))
    return [(status.id, status.error, status.data) for group in chain.answer(request) for status in group]


def read(chain, name, id=1):
    register = chain.servos[0].table[name]
    ((_, _, data),) = ask(chain, pack(id, 2, bytes([register.address, 0, register.size, 0])))
    return register.decode(data)


def write(chain, name, value, id=1):
    """The error of the answer."""
    register = chain.servos[0].table[name]
    ((_, error, _),) = ask(chain, pack(id, 3, bytes([register.address, 0]) + register.encode(value)))
    return error


@pytest.fixture(params=[XL330M077, XL330M288, XL430])
def chain(request):
    return Chain([request.param(ID=1, Baud_Rate=3)])


@pytest.fixture
def small():
    return Chain([XL330M288(ID=1, Baud_Rate=3)])


# the wire


def test_the_example_of_the_manual():
    """A ping of id 1, and the answer of an XM430-W210 with firmware 38."""
    assert pack(1, 1) == bytes.fromhex("ff ff fd 00 01 03 00 01 19 4e")
    answer = CODEC.status(Status(1, 0, bytes.fromhex("06 04 26")))
    assert answer == bytes.fromhex("ff ff fd 00 01 07 00 55 00 06 04 26 65 5d")


def test_requests_are_read():
    assert CODEC.take(bytearray(pack(1, 2, b"\x84\0\4\0"))) == Request("read", 1, 14, (Span(1, 132, 4),))
    group = CODEC.take(bytearray(pack(254, 0x82, b"\x84\0\4\0\1\2")))
    assert group.kind == "sync_read" and group.reads == (Span(1, 132, 4), Span(2, 132, 4))
    group = CODEC.take(bytearray(pack(254, 0x83, b"\x40\0\1\0\1\1\2\0")))
    assert group.writes == (Change(1, 64, b"\1"), Change(2, 64, b"\0"))
    group = CODEC.take(bytearray(pack(254, 0x92, b"\1\x90\0\2\0\2\x92\0\1\0")))
    assert group.reads == (Span(1, 144, 2), Span(2, 146, 1))
    group = CODEC.take(bytearray(pack(254, 0x93, b"\1\x20\0\2\0\xa0\0\2\x1f\0\1\0\x50")))
    assert group.writes == (Change(1, 32, b"\xa0\0"), Change(2, 31, b"\x50"))


def test_a_header_inside_a_packet_is_stuffed():
    packet = pack(1, 3, b"\x74\0\xff\xff\xfd\0")
    assert packet[5:7] == b"\x0a\0" and b"\xff\xff\xfd\xfd" in packet
    assert CODEC.take(bytearray(b"\xff" + packet)).writes == (Change(1, 116, b"\xff\xff\xfd\0"),)


def test_noise_halves_and_wrong_checks():
    packet = pack(1, 1)
    buffer = bytearray(b"\xff\xff\xfd\x01\xff" + packet[:6])
    assert CODEC.take(buffer) is None
    buffer += packet[6:] + packet[:-1] + b"\0"
    assert CODEC.take(buffer).kind == "ping" and CODEC.take(buffer).kind == "corrupt" and not buffer
    answer = CODEC.status(Status(7, 0, b"\1"))
    assert CODEC.broken(answer) != answer and CODEC.readdressed(answer, 8) == CODEC.status(Status(8, 0, b"\1"))


def test_the_check_is_the_vendors():
    dynamixel = pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed")
    handler, data = dynamixel.PacketHandler(2.0), bytes(range(256))
    assert all(crc(data[:size]) == handler.updateCRC(0, list(data[:size]), size) for size in (0, 1, 9, 256))


@pytest.mark.parametrize("servo", [XL330M077, XL330M288, XL430])
def test_the_names_and_addresses_are_lerobots(servo, lerobot_motors):
    from lerobot.motors.dynamixel import tables

    for name, place in tables.X_SERIES_CONTROL_TABLE.items():
        if servo is XL430 and "Current" in name:
            continue  # it has none
        register = servo.table[name]
        assert (register.address, register.size) == place
        assert (register.sign == -1) >= (name in tables.X_SERIES_ENCODINGS_TABLE)
    assert servo.table["Model_Number"].default == tables.MODEL_NUMBER_TABLE[servo.model]
    end = 0
    for register in servo.table.registers:
        assert register.address >= end
        end = register.address + register.size


# the firmware


def test_a_servo_says_who_it_is(chain):
    ((id, error, data),) = ask(chain, pack(1, 1))
    assert (id, error, data[:2]) == (1, 0, chain.servos[0].table["Model_Number"].default.to_bytes(2, "little"))


def test_what_is_refused_says_why(small):
    assert ask(small, pack(1, 0x77)) == [(1, 2, b"")]
    assert ask(small, pack(1, 1)[:-1] + b"\0") == [(1, 3, b"")]
    assert write(small, "Position_P_Gain", 20_000) == 4
    assert write(small, "Goal_Position", 5000) == 6
    assert write(small, "Present_Position", 1) == 7
    assert write(small, "Torque_Enable", 1) == 0
    assert write(small, "Homing_Offset", 5) == 7, "the EEPROM is closed while the torque is on"
    assert read(small, "Homing_Offset") == 0


def test_a_strong_servo_has_no_current_mode():
    chain = Chain([XL430(ID=1)])
    assert write(chain, "Operating_Mode", 5) == 4 and write(chain, "Operating_Mode", 4) == 0


def test_offsets_are_added_and_turns_are_counted(small):
    place = read(small, "Present_Position")
    write(small, "Homing_Offset", 100)
    assert read(small, "Present_Position") == place + 100
    write(small, "Homing_Offset", -5000)
    assert read(small, "Present_Position") == place - 5000
    small.shafts.shafts[0].angle += 6.2832
    small.advance(0.002)
    assert read(small, "Present_Position") == pytest.approx(place - 904, abs=1)
    write(small, "Torque_Enable", 1)
    assert read(small, "Present_Position") == pytest.approx(place - 5000, abs=1), "one turn in the position mode"


def test_the_reverse_mode_counts_the_other_way(small):
    write(small, "Drive_Mode", 1)
    before = read(small, "Present_Position")
    write(small, "Operating_Mode", 4)
    write(small, "Torque_Enable", 1)
    write(small, "Position_P_Gain", 4000)
    write(small, "Goal_Position", before + 300)
    angle = small.servos[0].angle
    small.advance(1.0)
    assert small.servos[0].angle < angle - 0.4 and abs(read(small, "Present_Position") - before - 300) < 10


def test_a_loop_that_is_stiff_arrives_within_one_count(chain):
    write(chain, "Position_P_Gain", 8000)
    write(chain, "Profile_Acceleration", 20)
    write(chain, "Profile_Velocity", 150)
    write(chain, "Torque_Enable", 1)
    for goal in (1500, 2600):
        write(chain, "Goal_Position", goal)
        chain.advance(2.0)
        assert abs(read(chain, "Present_Position") - goal) <= 1 and read(chain, "Moving") == 0


def test_the_current_is_bounded_in_the_mode_of_a_gripper(small):
    shaft = small.shafts.shafts[0]
    write(small, "Operating_Mode", 5)
    write(small, "Position_P_Gain", 4000)
    write(small, "Goal_Current", 300)
    write(small, "Torque_Enable", 1)
    shaft.low = shaft.high = shaft.angle
    write(small, "Goal_Position", 3500)
    small.advance(0.1)
    assert read(small, "Present_Current") == 300


def test_a_stalled_servo_shuts_down_until_its_reboot(chain):
    shaft = chain.shafts.shafts[0]
    shaft.low = shaft.high = shaft.angle
    write(chain, "Torque_Enable", 1)
    write(chain, "Position_P_Gain", 4000)
    write(chain, "Goal_Position", 3500)
    chain.advance(2.0)
    assert read(chain, "Torque_Enable") == 0 and read(chain, "Hardware_Error_Status") & 32
    assert write(chain, "LED", 1) == 0x80 and write(chain, "Torque_Enable", 1) == 0x87
    assert ask(chain, pack(1, 8)) == [(1, 0x80, b"")]
    assert write(chain, "Torque_Enable", 1) == 0


def test_silence_stops_a_movement_where_the_watchdog_is_set(small):
    write(small, "Operating_Mode", 1)
    write(small, "Bus_Watchdog", 5)  # 100 ms
    write(small, "Torque_Enable", 1)
    write(small, "Goal_Velocity", 100)
    small.advance(0.09)
    assert read(small, "Present_Velocity") > 20
    small.advance(0.5)
    assert read(small, "Bus_Watchdog") == 255 and read(small, "Present_Velocity") == 0
    assert write(small, "Goal_Velocity", 100) == 4
    assert write(small, "Bus_Watchdog", 0) == 0 and write(small, "Goal_Velocity", 100) == 0


# lerobot


@pytest.fixture
def arm():
    with Bus(make_chain(KOCH), Dynamixel()) as bus:
        yield bus


@pytest.fixture
def koch(arm, tmp_path, lerobot_motors, patiently, unhurried):
    """lerobot's Koch follower, connected to the emulated arm and calibrated as it is."""
    from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig

    saved = {name: vars(one) for name, one in KOCH.calibration().items()}
    (tmp_path / "arm.json").write_text(json.dumps(saved))
    robot = KochFollower(KochFollowerConfig(port=arm.port, id="arm", calibration_dir=tmp_path))
    unhurried(robot.bus)
    patiently(lambda: robot.connect(calibrate=False), robot.bus.port_handler.closePort)
    yield robot
    robot.disconnect()


def test_koch_is_found_read_and_written(arm, koch, until, patiently):
    models = {1: 1060, 2: 1060, 3: 1200, 4: 1200, 5: 1200, 6: 1200}
    until(lambda: koch.bus.broadcast_ping() == models)
    until(lambda: patiently(lambda: koch.is_calibrated))
    assert [servo.memory["Operating_Mode"] for servo in arm.chain.servos] == [4, 4, 4, 4, 4, 5]
    assert arm.chain.servos[2].memory["Position_P_Gain"] == 1500

    for shaft, servo in zip(arm.chain.shafts.shafts, arm.chain.servos, strict=True):
        servo.accept(64, b"\0")
        shaft.hand = shaft.angle
    where = koch.bus.sync_read("Present_Position", normalize=False, num_retry=9)
    for name, servo in zip(ARM, arm.chain.servos, strict=True):
        assert abs(where[name] - servo.counts()) <= 1, "positions come back within one count"


def test_koch_goes_where_it_is_told(arm, koch, until, patiently):
    """At the factory's gains friction holds the small servos a few degrees off; a stiff loop arrives."""
    for name in ARM:
        patiently(lambda name=name: koch.bus.write("Position_P_Gain", name, 8000, num_retry=9))
        patiently(lambda name=name: koch.bus.write("Profile_Velocity", name, 100, num_retry=9))
    action = dict(zip(koch.action_features, (10.0, -20.0, 30.0, 45.0, -10.0, 70.0), strict=True))
    koch.send_action(action)
    goals = {name: arm.chain.servos[id - 1] for name, id in ARM.items()}

    def arrived():
        where = patiently(lambda: koch.bus.sync_read("Present_Position", normalize=False, num_retry=9))
        observed = patiently(koch.get_observation)
        near = all(abs(where[name] - servo.memory["Goal_Position"]) <= 1 for name, servo in goals.items())
        return near and all(abs(observed[key] - value) < 0.3 for key, value in action.items())

    until(arrived)


def test_koch_hears_of_a_lost_answer(arm, koch):
    arm.faults.add(Fault(kind="lost", id=4))
    with pytest.raises(ConnectionError, match="Failed to sync read"):
        koch.get_observation()
    arm.faults.script.clear()


def test_kochs_leader_is_moved_by_hand(lerobot_motors, tmp_path, until, patiently, unhurried):
    from lerobot.teleoperators.koch_leader import KochLeader, KochLeaderConfig

    kind = find_kind("koch-leader")
    saved = {name: vars(one) for name, one in kind.calibration().items()}
    (tmp_path / "hand.json").write_text(json.dumps(saved))
    with Bus(make_chain(kind), Dynamixel()) as arm:
        leader = KochLeader(KochLeaderConfig(port=arm.port, id="hand", calibration_dir=tmp_path))
        unhurried(leader.bus)
        patiently(lambda: leader.connect(calibrate=False), leader.bus.port_handler.closePort)
        before = patiently(leader.get_action)
        with arm.held() as chain:
            chain.shafts.shafts[1].hand = chain.shafts.shafts[1].angle + 0.3
        until(lambda: patiently(leader.get_action)["shoulder_lift.pos"] > before["shoulder_lift.pos"] + 15)
        assert arm.chain.servos[5].driven, "the gripper springs back by its own torque"
        leader.disconnect()
