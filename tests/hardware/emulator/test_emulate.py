"""The verb `emulate` and the arms that it knows."""

import json
import os
import signal
import subprocess
import sys

import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain, read_calibration, write_calibration
from understudy.hardware.emulator.emulate import Emulate


@pytest.fixture
def emulate():
    """Start `understudy emulate WORD...`: (process, port)."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "understudy", "emulate", *map(str, words)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        lines = []
        while not (lines and lines[-1].startswith("port: ")):
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        return process, lines[-1].removeprefix("port: ").strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_in_another_process_and_ends_on_a_signal(emulate, tmp_path, number):
    serial = pytest.importorskip("serial", reason="pyserial is not installed")
    process, port = emulate("so101", "--link", tmp_path / "robot")
    with serial.Serial(port, 1_000_000, timeout=10) as line:
        line.write(bytes.fromhex("ff ff fe 02 01 fe"))
        assert [packet[0] for packet in line.read(36).split(b"\xff\xff")[1:]] == [1, 2, 3, 4, 5, 6]
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number and "1 requests" in said and "Traceback" not in said
    assert not (tmp_path / "robot").is_symlink()


def test_a_calibration_file_is_written_and_read_again(tmp_path, capsys):
    path = tmp_path / "so_follower" / "arm.json"
    Emulate(calibration=path, seconds=0.02).run()
    assert "wrote" in capsys.readouterr().out
    saved = json.loads(path.read_text())
    assert saved["gripper"] == {"id": 6, "drive_mode": 0, "homing_offset": 0, "range_min": 1934, "range_max": 3186}

    saved["elbow_flex"] |= {"homing_offset": -500, "range_min": 900, "range_max": 3000}
    path.write_text(json.dumps(saved))
    kind = find_kind("so101")
    chain = make_chain(kind, read_calibration(path, kind))
    elbow, shaft = chain.servos[2], chain.shafts.shafts[2]
    assert elbow.memory["Homing_Offset"] == -500 and elbow.memory["Max_Position_Limit"] == 3000

    shaft.angle = (shaft.low + shaft.high) / 2
    chain.advance(0.001)
    elbow.refresh()
    assert elbow.memory["Present_Position"] == pytest.approx(1950, abs=1), "the middle of the joint, of the range"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "no calibration file"),
        ("{}", "lacks shoulder_pan"),
        ('{"gripper": {"id": 6}}', "no calibration file"),
    ],
)
def test_other_files_are_no_calibration(tmp_path, text, says):
    (tmp_path / "arm.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_calibration(tmp_path / "arm.json", find_kind("so101"))


def test_an_empty_range_is_refused(tmp_path):
    kind = find_kind("so101")
    write_calibration(tmp_path / "arm.json", kind.calibration())
    saved = json.loads((tmp_path / "arm.json").read_text())
    saved["gripper"]["range_max"] = 0
    (tmp_path / "arm.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="no range of gripper"):
        read_calibration(tmp_path / "arm.json", kind)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"arm": "ur5"}, "unknown emulated arm"),
        ({"ids": (1, 2)}, "are not 6 numbers"),
        ({"hand": "wave"}, "neither none nor sweep"),
        ({"seconds": 0}, "above 0"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises((ValueError, LookupError), match=says):
        Emulate(**settings)


def test_a_speed_that_the_servos_do_not_know():
    with pytest.raises(ValueError, match="these servos know 1000000"):
        Emulate(baud=9600).run()


def test_two_servos_with_one_id(emulate):
    serial = pytest.importorskip("serial", reason="pyserial is not installed")
    _, port = emulate("so101", "--ids", "[1, 2, 3, 3, 5, 6]")
    with serial.Serial(port, 1_000_000, timeout=10) as line:
        line.write(bytes.fromhex("ff ff fe 02 01 fe"))
        assert [packet[0] for packet in line.read(30).split(b"\xff\xff")[1:]] == [1, 2, 3, 5, 6]


def test_fresh_servos_hold_no_ranges():
    kind = find_kind("so101")
    (chain, fresh) = (make_chain(kind), make_chain(kind, stored=False))
    assert fresh.servos[0].memory["Max_Position_Limit"] == 4095 > chain.servos[0].memory["Max_Position_Limit"]
