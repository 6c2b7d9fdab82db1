"""What goes wrong on the wire, and the traps that a driver meets: each as a vendor's SDK or lerobot sees it."""

import os
import termios
import time

import pytest

from understudy.hardware.emulator.arm import make_chain, so101
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.chain import Chain
from understudy.hardware.emulator.faults import Fault, Faults
from understudy.hardware.emulator.feetech import Feetech, pack
from understudy.hardware.emulator.packets import Status
from understudy.hardware.emulator.sts3215 import STS3215

READ = pack(3, 0x02, b"\x38\x02")
ALL = pack(254, 0x82, b"\x38\x02\1\2\3\4\5\6")


@pytest.fixture
def arm():
    with Bus(make_chain(so101()), Feetech()) as bus:
        yield bus


@pytest.fixture
def sdk(arm):
    """The vendor's port and packet handlers."""
    scservo = pytest.importorskip("scservo_sdk", reason="feetech-servo-sdk is not installed")
    port, packets = scservo.PortHandler(arm.port), scservo.PacketHandler(0)
    port.openPort()
    yield scservo, port, packets
    if port.is_open:
        port.closePort()


def exchange(bus, packet, size, seconds=0.4):
    """Send `packet`; what comes back within `seconds`, or as soon as `size` bytes are there."""
    import serial

    with serial.Serial(bus.port, 1_000_000, timeout=seconds) as port:
        port.write(packet)
        return port.read(size)


SPOILT = {
    "lost": b"",
    "checksum": bytes.fromhex("ff ff 03 04 00 c8 09 72"),
    "truncated": bytes.fromhex("ff ff 03 04"),
    "foreign": bytes.fromhex("ff ff 04 04 00 c8 09 26"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_an_answer_is_spoilt(arm, kind):
    whole = exchange(arm, READ, 8, 5)
    assert whole == bytes.fromhex("ff ff 03 04 00 c8 09 27")
    arm.faults.add(Fault(kind=kind, id=3, count=1))
    assert exchange(arm, READ, len(SPOILT[kind]) or 1, 0.2 if kind == "lost" else 5) == SPOILT[kind]
    assert exchange(arm, READ, 8, 5) == whole and arm.faults.done == [1]


def test_only_the_servo_that_is_named_is_struck(arm):
    arm.faults.add(Fault(kind="lost", id=3))
    ids = [packet[0] for packet in exchange(arm, ALL, 48, 0.3).split(b"\xff\xff")[1:]]
    assert ids == [1, 2, 4, 5, 6]


def test_a_slow_bus(arm):
    arm.faults.add(Fault(kind="slow", seconds=0.1))
    begin = time.monotonic()
    assert len(exchange(arm, READ, 8, 5)) == 8
    assert time.monotonic() - begin > 0.1


def test_an_overload_is_said_until_the_torque_is_off(arm):
    arm.faults.add(Fault(kind="overload", id=3))
    while not arm.faults.done[0]:
        exchange(arm, READ, 8, 5)
    assert exchange(arm, READ, 8, 5)[4] == 32
    exchange(arm, pack(3, 0x03, b"\x28\x00"), 6, 5)
    assert exchange(arm, READ, 8, 5)[4] == 0


def test_a_brown_out_silences_a_servo_and_switches_its_torque_off(arm, until):
    with arm.held() as chain:
        for servo in chain.servos:
            servo.accept(40, b"\1")
        at = chain.time
    arm.faults.add(Fault(kind="brownout", id=3, at=at + 0.05, seconds=0.1))
    until(lambda: not arm.chain.servos[2].powered)
    assert not arm.chain.servos[2].driven and arm.chain.servos[1].driven
    until(lambda: arm.chain.servos[2].powered)
    assert [servo.driven for servo in arm.chain.servos] == [True, True, False, True, True, True]


def test_an_unplugged_port_raises_three_unrelated_exceptions_and_comes_back(arm, until):
    import serial

    port = serial.Serial(arm.port, 1_000_000, timeout=0.5)
    arm.faults.add(Fault(kind="unplug", at=arm.chain.time, seconds=0.2))
    until(lambda: not arm.plugged)
    with pytest.raises(ConnectionError, match="unplugged"):
        _ = arm.port
    with pytest.raises(serial.SerialException):
        port.read(1)
    with pytest.raises(OSError, match="Errno 5") as error:
        _ = port.in_waiting
    assert not isinstance(error.value, serial.SerialException)
    with pytest.raises(termios.error) as error:
        port.flush()
    assert not isinstance(error.value, OSError)
    port.close()

    until(lambda: arm.plugged)
    assert len(exchange(arm, READ, 8, 5)) == 8


def test_the_servos_hold_while_the_port_is_gone(arm, until):
    exchange(arm, pack(254, 0x03, b"\x28\1"), 1, 0.01)
    exchange(arm, pack(1, 0x03, b"\x2a" + (2200).to_bytes(2, "little")), 6, 5)
    arm.faults.add(Fault(kind="unplug", at=arm.chain.time, seconds=0.3))
    until(lambda: not arm.plugged)
    until(lambda: abs(arm.chain.servos[0].counts() - 2200) < 2)
    assert arm.chain.servos[0].driven


def test_a_link_names_the_port_through_an_unplugging(tmp_path, until):
    link = tmp_path / "robot"
    with Bus(make_chain(so101()), Feetech(), link=link) as arm:
        assert arm.port == str(link) and len(exchange(arm, READ, 8, 5)) == 8
        arm.faults.add(Fault(kind="unplug", at=arm.chain.time, seconds=0.1))
        until(lambda: not arm.plugged)
        assert not link.is_symlink()
        until(lambda: arm.plugged)
        assert len(exchange(arm, READ, 8, 5)) == 8
    assert not link.is_symlink()


def test_a_file_is_not_replaced_by_a_link(tmp_path):
    (tmp_path / "robot").write_text("mine")
    with pytest.raises(FileExistsError, match="name another path"):
        Bus(make_chain(so101()), Feetech(), link=tmp_path / "robot").start()
    assert (tmp_path / "robot").read_text() == "mine"


def test_the_same_script_and_seed_do_the_same():
    def struck(seed):
        faults, codec = Faults([Fault(kind="lost", chance=0.3), Fault(kind="checksum", chance=0.2)], seed), Feetech()
        status = Status(1, 0, b"\1\2")
        return [faults.spoil(codec.status(status), status, codec, 0.01 * step) for step in range(200)]

    assert struck(7) == struck(7) != struck(8)
    assert 30 < sum(packet == b"" for packet, _ in struck(7)) < 90


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "fire"}, "none of lost"),
        ({"kind": "lost", "chance": 2}, "chance 2"),
        ({"kind": "lost", "count": 0}, "count"),
    ],
)
def test_scripts_that_cannot_be(wrong, says):
    with pytest.raises(ValueError, match=says):
        Fault(**wrong)


# what a driver meets


def test_two_servos_with_one_id_answer_at_once():
    """A ping looks sound, for both say the same; readings that differ are garbled."""
    with Bus(Chain([STS3215(angle=1.0, ID=1), STS3215(angle=2.0, ID=1)]), Feetech()) as arm:
        assert exchange(arm, pack(1, 0x01), 6, 5) == bytes.fromhex("ff ff 01 02 00 fc")
        packet = exchange(arm, pack(1, 0x02, b"\x38\x02"), 8, 5)
        assert packet[-1] != ~sum(packet[2:-1]) & 0xFF


def test_a_silent_servo_is_waited_for(arm, sdk):
    _, port, packets = sdk
    begin = time.monotonic()
    value, result, error = packets.read2ByteTxRx(port, 9, 56)
    assert (value, result, error) == (0, -6, 0) and 0.03 < time.monotonic() - begin


def test_a_group_read_with_a_silent_servo_keeps_what_was_read_before(arm, sdk, until):
    """Of the vendor's SDK: who comes after the silent one is `available` with the values of the read before."""
    scservo, port, packets = sdk
    group = scservo.GroupSyncRead(port, packets, 56, 2)
    for id in range(1, 7):
        group.addParam(id)
    until(lambda: group.txRxPacket() == 0)
    before = [group.getData(id, 56, 2) for id in range(1, 7)]

    with arm.held() as chain:
        for shaft in chain.shafts.shafts:
            shaft.angle += 0.1
        chain.advance(0.002)
    arm.faults.add(Fault(kind="lost", id=3))

    def missed():
        port.ser.reset_input_buffer()  # of what came too late on a busy machine
        result = group.txRxPacket()
        available = [id for id in range(1, 7) if result == -6 and group.isAvailable(id, 56, 2)]
        return available == [1, 2, 4, 5, 6]

    until(missed)
    after = [group.getData(id, 56, 2) for id in range(1, 7)]
    assert after[:2] != before[:2] and after[3:] == before[3:], "stale, without a word"


def test_modem_lines_do_not_exist(arm):
    import serial

    with serial.Serial(arm.port, 1_000_000) as port:
        for line in ("cts", "dsr"):
            with pytest.raises(OSError, match="Errno 25"):
                getattr(port, line)
        with pytest.raises(OSError, match="Errno 25"):
            port.dtr = True


def test_nothing_comes_back_as_an_echo(arm):
    end = os.open(arm.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        os.write(end, pack(9, 0x01))
        with arm.held():
            pass
        with pytest.raises(BlockingIOError):
            os.read(end, 10)
    finally:
        os.close(end)


def test_the_line_takes_its_time():
    """Six answers at 38,400 baud: 62 bytes of 10 bits, 16 ms; without the wire they come at once."""
    import serial

    spent = {}
    for wire in (True, False):
        with Bus(make_chain(so101(), baud=38_400), Feetech(), wire=wire) as arm:
            with serial.Serial(arm.port, 38_400, timeout=5) as port:
                best = 9.0
                for _ in range(5):
                    begin = time.monotonic()
                    port.write(ALL)
                    assert len(port.read(48)) == 48
                    best = min(best, time.monotonic() - begin)
        spent[wire] = best
    assert spent[True] >= 0.016 > spent[False]


def test_half_a_packet_is_forgotten(arm, until):
    import serial

    with serial.Serial(arm.port, 1_000_000, timeout=5) as port:
        port.write(READ[:5])
        until(lambda: arm._buffer)
        until(lambda: not arm._buffer)
        port.write(READ)
        assert len(port.read(8)) == 8


def test_a_bus_without_power_is_silent(arm):
    with arm.held() as chain:
        chain.supply(0.0)
    assert exchange(arm, pack(254, 0x01), 6, 0.2) == b""
