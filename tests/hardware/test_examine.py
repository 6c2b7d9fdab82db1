"""`doctor --robot`: each thing that can be wrong with an arm on a port, tried on the emulated one."""

import dataclasses

import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain, write_calibration
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.feetech import Feetech
from understudy.hardware.examine import examine_robot
from understudy.hardware.so101 import SO101Config

pytest.importorskip("lerobot", reason="the Feetech bus is lerobot's")

KIND = find_kind("so101")


@pytest.fixture
def file(tmp_path):
    write_calibration(tmp_path / "arm.json", KIND.calibration())
    return tmp_path / "arm.json"


def findings(file, change=lambda chain: None, **chain):
    with Bus(make_chain(KIND, **chain), Feetech()) as bus:
        with bus.held() as servos:
            change(servos)
        return {finding.what: finding for finding in examine_robot("so101", bus.port, str(file))}


def test_a_sound_arm(file):
    found = findings(file)
    assert {"port", "servos", "firmware", "supply", "alarms", "calibration", "pose", "units", "loop rate"} == set(found)
    assert all(finding.works for finding in found.values() if finding.needed)


def test_no_port(file, tmp_path):
    (finding,) = examine_robot("so101", str(tmp_path / "none"), str(file))
    assert not finding.works and "there is no such port" in finding.detail


@pytest.mark.parametrize(("port", "words"), [("arm.json", "a file or folder"), ("/dev/null", "but no serial port")])
@pytest.mark.parametrize("robot", ["so101", {"type": "so101_follower"}])
def test_what_is_no_port_is_said_first(robot, port, words, tmp_path, monkeypatch):
    (tmp_path / "arm.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("understudy.hardware.examine.LerobotArm", lambda config: pytest.fail("lerobot was imported"))
    (finding,) = examine_robot(robot, port, None)
    assert finding.what == "port" and finding.needed and not finding.works
    assert words in finding.detail and "ls /dev/ttyACM*" in finding.advice


def test_an_unpowered_bus(file, monkeypatch):
    monkeypatch.setattr("understudy.hardware.examine.BAUDS", (57_600,))  # each silent one takes seconds
    found = findings(file, lambda chain: chain.supply(0.0))
    assert "no servo answers" in found["bus"].detail and "supply" in found["bus"].advice


@pytest.mark.parametrize("baud", [500_000, 38_400])
def test_a_wrong_baud(file, baud, monkeypatch):
    monkeypatch.setattr("understudy.hardware.examine.BAUDS", (57_600, baud))  # each silent one takes seconds
    found = findings(file, baud=baud)
    assert f"set to {baud} baud" in found["bus"].detail


def test_every_speed_of_a_servo_that_the_library_sets_is_tried():
    from scservo_sdk import PortHandler

    from understudy.hardware.emulator.sts3215 import BAUDS as KNOWN
    from understudy.hardware.examine import BAUD, BAUDS

    port = PortHandler("none")
    assert set(BAUDS) == {baud for baud in KNOWN if port.getCFlagBaud(baud) > 0} - {BAUD}


def test_an_alarm_of_a_servo_is_named(file):
    def strain(chain):
        chain.supply(12.0)
        chain.servos[2].overload()

    found = findings(file, strain)["alarms"]
    assert not found.works and not found.needed
    assert "shoulder_pan says voltage; " in found.detail and "elbow_flex says voltage, load" in found.detail


def test_two_servos_with_one_id(file):
    def double(chain):
        chain.servos[3].memory["ID"] = 3

    found = findings(file, double)
    assert "nobody answers by id 4" in found["servos"].detail and "id 3 answers garbled" in found["servos"].detail


def test_a_stale_calibration_and_a_missing_one(file):
    file.write_text(file.read_text().replace('"homing_offset": 0', '"homing_offset": 7', 1))
    assert "shoulder_pan has homing_offset 0, the file 7" in findings(file)["calibration"].detail
    file.unlink()
    assert "lerobot-calibrate" in findings(file)["calibration"].advice


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("elbow_flex", {"id": 2}, "each needs its own"),
        ("elbow_flex", {"id": 300}, "each needs its own"),
        ("gripper", {"drive_mode": 1}, "the gripper has drive_mode 1"),
    ],
)
def test_a_calibration_that_would_move_another_joint_is_refused(file, name, change, said):
    kept = KIND.calibration()
    write_calibration(file, kept | {name: dataclasses.replace(kept[name], **change)})
    found = findings(file)["calibration"]
    assert not found.works and said in found.detail
    with pytest.raises(ValueError, match=said):
        SO101Config(port="/dev/none", calibration=str(file)).driver()


def test_a_joint_behind_the_seam(file):
    def turn(chain):
        chain.shafts.shafts[1].low, chain.shafts.shafts[1].angle = -1.0, -0.01

    found = findings(file, turn)
    assert not found["pose"].works and "shoulder_lift" in found["pose"].detail and "seam" in found["pose"].detail


def test_a_robot_of_lerobots(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
    monkeypatch.setattr("understudy.hardware.lerobot.PATIENT", 2000.0)
    with Bus(make_chain(KIND), Feetech()) as bus:
        robot = {"type": "so101_follower", "port": bus.port}
        found = {finding.what: finding for finding in examine_robot(robot, None, str(file))}
        assert all(finding.works for finding in found.values())
        assert {"port", "driver", "units", "guard", "bus"} == set(found)
        assert "elbow_flex degrees" in found["units"].detail and "gripper 0..100" in found["units"].detail
        file.write_text(file.read_text().replace('"homing_offset": 0', '"homing_offset": 7', 1))
        found = {finding.what: finding for finding in examine_robot(robot, None, str(file))}
        assert not found["calibration"].works and "run lerobot-calibrate" in found["calibration"].detail
        with bus.held() as chain:
            assert not any(servo.memory["Torque_Enable"] for servo in chain.servos)
    (no_port, *_) = [one for one in examine_robot(robot, None, str(file)) if not one.works]
    assert "no such port" in no_port.detail
