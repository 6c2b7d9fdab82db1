"""The Feetech codec, the control table of the STS3215 and what its firmware does, without a port."""

import pytest

from understudy.hardware.emulator.arm import make_chain, so101
from understudy.hardware.emulator.feetech import Feetech, pack
from understudy.hardware.emulator.packets import Change, Request, Span, Status
from understudy.hardware.emulator.sts3215 import STS3215, STS_TABLE

CODEC = Feetech()


@pytest.fixture
def chain():
    return make_chain(so101())


def ask(chain, packet):
    """The data and errors that come back for one packet."""
    request = CODEC.take(bytearray(packet))
    return [(status.id, status.error, status.data) for group in chain.answer(request) for status in group]


def read(chain, id, name):
    register = STS_TABLE[name]
    ((_, _, data),) = ask(chain, pack(id, 0x02, bytes([register.address, register.size])))
    return register.decode(data)


def write(chain, id, name, value):
    register = STS_TABLE[name]
    return ask(chain, pack(id, 0x03, bytes([register.address]) + register.encode(value)))


def test_requests_are_read_from_the_bytes_that_lerobot_sends():
    buffer = bytearray.fromhex("ff ff fe 0a 82 38 02 01 02 03 04 05 06 19")
    buffer[-1] = ~sum(buffer[2:-1]) & 0xFF
    request = CODEC.take(buffer)
    assert request.kind == "sync_read" and request.size == 14 and not buffer
    assert request.reads == tuple(Span(id, 56, 2) for id in range(1, 7))

    request = CODEC.take(bytearray(pack(254, 0x83, bytes.fromhex("2a 02 01 10 08 02 20 08"))))
    assert request.writes == (Change(1, 42, b"\x10\x08"), Change(2, 42, b"\x20\x08"))


def test_noise_halves_and_wrong_checks():
    whole = pack(1, 0x01)
    buffer = bytearray(b"\x00\xff\x17" + whole[:4])
    assert CODEC.take(buffer) is None and bytes(buffer) == whole[:4]
    buffer += whole[4:] + whole[:-1] + bytes([whole[-1] ^ 1])
    assert CODEC.take(buffer) == Request("ping", 1, 6)
    assert CODEC.take(buffer).kind == "corrupt" and not buffer


def test_a_third_ff_belongs_to_no_packet():
    assert CODEC.take(bytearray(b"\xff" + pack(3, 0x01))) == Request("ping", 3, 6)


def test_status_packets():
    packet = CODEC.status(Status(2, 0, b"\x00\x08"))
    assert packet == bytes.fromhex("ff ff 02 04 00 00 08 f1")
    assert CODEC.broken(packet)[-1] != packet[-1]
    assert CODEC.readdressed(packet, 9) == CODEC.status(Status(9, 0, b"\x00\x08"))


def test_registers_do_not_overlap():
    end = 0
    for register in STS_TABLE.registers:
        assert register.address >= end, register.name
        end = register.address + register.size
    assert end <= STS_TABLE.size


def test_the_names_and_addresses_are_lerobots():
    pytest.importorskip("lerobot", reason="lerobot is not installed")
    from understudy.configs.compat import prepare_lerobot

    prepare_lerobot()
    from lerobot.motors.feetech import tables

    ours = {(register.address, register.size) for register in STS_TABLE.registers}
    assert set(tables.STS_SMS_SERIES_CONTROL_TABLE.values()) <= ours
    for name, place in tables.STS_SMS_SERIES_CONTROL_TABLE.items():
        if name.strip() in STS_TABLE.by_name:
            register = STS_TABLE[name.strip()]
            assert (register.address, register.size) == place
            assert register.sign == tables.STS_SMS_SERIES_ENCODINGS_TABLE.get(name, register.sign)


@pytest.mark.parametrize(
    ("name", "value", "data"), [("Goal_Position", -100, b"\x64\x80"), ("Homing_Offset", -5, b"\5\x08")]
)
def test_negative_values_are_sign_magnitude(name, value, data):
    assert STS_TABLE[name].encode(value) == data and STS_TABLE[name].decode(data) == value


def test_twos_complement_is_read_as_a_large_negative_goal(chain):
    ask(chain, pack(1, 0x03, b"\x2a\x9c\xff"))
    assert read(chain, 1, "Goal_Position") == -32668


def test_offsets_move_readings(chain):
    before = read(chain, 1, "Present_Position")
    write(chain, 1, "Homing_Offset", 300)
    assert read(chain, 1, "Present_Position") == before - 300


def test_positions_fold_at_the_seam_unless_the_phase_says_otherwise(chain):
    write(chain, 1, "Homing_Offset", 2047)
    chain.shafts.shafts[0].angle -= 0.1
    chain.advance(0.002)
    assert read(chain, 1, "Present_Position") > 4000
    write(chain, 1, "Phase", 12 | 0x10)
    assert read(chain, 1, "Present_Position") < 0


def test_what_is_written_under_the_lock_is_lost_with_the_power(chain):
    write(chain, 1, "Lock", 0)
    write(chain, 1, "Homing_Offset", 7)
    write(chain, 1, "Lock", 1)
    write(chain, 1, "P_Coefficient", 99)
    assert read(chain, 1, "P_Coefficient") == 99

    chain.supply(0.0)
    assert ask(chain, pack(1, 0x01)) == []
    chain.supply(None)
    assert (read(chain, 1, "Homing_Offset"), read(chain, 1, "P_Coefficient")) == (7, 32)


def test_a_loss_of_power_switches_the_torque_off(chain):
    write(chain, 1, "Torque_Enable", 1)
    chain.supply(0.0, id=1)
    chain.supply(None, id=1)
    assert read(chain, 1, "Torque_Enable") == 0 and read(chain, 1, "Lock") == 1


def test_read_only_registers_stay_and_values_are_brought_into_range(chain):
    place = read(chain, 1, "Present_Position")
    write(chain, 1, "Present_Position", 17)
    write(chain, 1, "Max_Torque_Limit", 5000)
    assert read(chain, 1, "Present_Position") == place and read(chain, 1, "Max_Torque_Limit") == 1000


def test_who_answers_what(chain):
    assert [id for id, _, _ in ask(chain, pack(254, 0x01))] == [1, 2, 3, 4, 5, 6]
    assert ask(chain, pack(9, 0x01)) == []
    assert ask(chain, pack(254, 0x03, b"\x29\x10")) == [] and read(chain, 4, "Acceleration") == 16
    write(chain, 1, "Response_Status_Level", 0)
    assert write(chain, 1, "Acceleration", 3) == [] and read(chain, 1, "Acceleration") == 3


def test_a_registered_write_waits_for_the_action(chain):
    ask(chain, pack(2, 0x04, b"\x2a\x00\x08"))
    assert read(chain, 2, "Goal_Position") != 2048 and read(chain, 2, "Registered_Write") == 1
    ask(chain, pack(254, 0x05))
    assert read(chain, 2, "Goal_Position") == 2048


def test_torque_on_holds_the_place(chain):
    place = read(chain, 3, "Present_Position")
    write(chain, 3, "Torque_Enable", 1)
    chain.advance(0.3)
    assert read(chain, 3, "Goal_Position") == read(chain, 3, "Present_Position") == place


def test_writing_128_makes_the_place_the_centre(chain):
    write(chain, 3, "Torque_Enable", 128)
    assert read(chain, 3, "Present_Position") == 2048 and read(chain, 3, "Torque_Enable") == 0


def test_speed_and_acceleration_bound_the_movement(chain):
    write(chain, 1, "Torque_Enable", 1)
    write(chain, 1, "Goal_Velocity", 400)
    write(chain, 1, "Acceleration", 10)  # 1000 count/s^2
    write(chain, 1, "Goal_Position", 3000)
    servo, fastest, steepest, before = chain.servos[0], 0.0, 0.0, 0.0
    for _ in range(1500):
        chain.advance(0.001)
        fastest = max(fastest, servo.set_point.speed)
        steepest = max(steepest, (servo.set_point.speed - before) / 0.001)
        before = servo.set_point.speed
    assert fastest == pytest.approx(400) and steepest == pytest.approx(1000)
    assert 450 < read(chain, 1, "Present_Position") - 2048 < 520
    assert read(chain, 1, "Moving") == 1 and read(chain, 1, "Present_Velocity") == pytest.approx(400, abs=10)


def test_goals_stay_inside_the_position_limits(chain):
    write(chain, 6, "Torque_Enable", 1)
    write(chain, 6, "Goal_Position", 4000)
    chain.advance(2.0)
    assert abs(read(chain, 6, "Present_Position") - read(chain, 6, "Max_Position_Limit")) <= 1


def test_across_the_seam_the_servo_goes_the_long_way_round():
    chain = make_chain(so101(), stored=False)
    shaft = chain.shafts.shafts[0]
    shaft.low, shaft.high, shaft.angle = -99.0, 99.0, 6.2
    chain.advance(0.002)
    write(chain, 1, "Torque_Enable", 1)
    write(chain, 1, "Goal_Position", 200)
    chain.advance(3.0)
    assert shaft.angle == pytest.approx(200 / 4096 * 6.2832, abs=0.01), "not 6.59, which is nearer"


def test_free_speed_and_stall_are_the_data_sheets(chain):
    """19.5 kg cm at 7.4 V is the rated stall; the identified figures give 3.25 N m, less friction, and 50 rev/min."""
    servo = chain.servos[0]
    write(chain, 1, "Operating_Mode", 2)
    write(chain, 1, "Torque_Enable", 1)
    write(chain, 1, "Goal_Time", 1000)
    chain.shafts.shafts[0].low, chain.shafts.shafts[0].high = -99, 99
    chain.advance(0.6)
    assert servo.velocity * 60 / 6.2832 == pytest.approx(50, abs=3)
    assert servo.motor.torque(0.97, 7.4) == pytest.approx(3.25, abs=0.01)


def test_a_stalled_servo_says_so_and_gives_way(chain):
    """Overload: more than 80 % for 2 s, then 20 % and the bit 32, until a goal on the other side."""
    shaft = chain.shafts.shafts[0]
    write(chain, 1, "Torque_Enable", 1)
    shaft.low = shaft.high = shaft.angle
    write(chain, 1, "Goal_Position", 3300)
    chain.advance(1.9)
    assert read(chain, 1, "Present_Load") == 970 and read(chain, 1, "Status") == 0
    assert read(chain, 1, "Present_Current") * 6.5 == pytest.approx(2680, abs=20)
    chain.advance(0.3)
    assert read(chain, 1, "Present_Load") == 200
    ((_, error, _),) = write(chain, 1, "Goal_Velocity", 0)
    assert error == 32
    write(chain, 1, "Goal_Position", 1000)
    assert read(chain, 1, "Status") == 0


def test_a_loaded_servo_gets_hot_and_lets_go(chain):
    servo = chain.servos[0]
    write(chain, 1, "Overload_Torque", 100)
    write(chain, 1, "Torque_Enable", 1)
    servo.temperature = 69.9
    chain.shafts.shafts[0].low = chain.shafts.shafts[0].high = chain.shafts.shafts[0].angle
    write(chain, 1, "Goal_Position", 3300)
    chain.advance(1.5)
    assert read(chain, 1, "Present_Temperature") >= 70 and read(chain, 1, "Status") == 4
    assert read(chain, 1, "Present_Load") == 0


def test_without_torque_a_hand_moves_the_joint_and_with_it_it_does_not(chain):
    shaft = chain.shafts.shafts[1]
    shaft.hand = shaft.angle + 0.5
    chain.advance(1.0)
    assert abs(shaft.angle - shaft.hand) < 0.01
    write(chain, 2, "Torque_Enable", 1)
    shaft.hand, before = shaft.angle + 0.02, shaft.angle
    chain.advance(1.0)
    assert shaft.angle - before < 0.015 and read(chain, 2, "Present_Load") < 0


def test_a_chain_is_a_simulation_that_repeats():
    ends = []
    for _ in range(2):
        chain = make_chain(so101())
        write(chain, 1, "Torque_Enable", 1)
        write(chain, 1, "Goal_Position", 2400)
        chain.advance(0.1)
        ends.append(chain.servos[0].angle)
    assert ends[0] == ends[1]


def test_values_for_registers_that_are_none_are_refused():
    with pytest.raises(KeyError, match="no register 'Nonsense'"):
        STS3215(Nonsense=1)
