"""What can be wrong with an arm on a port, looked at without moving it: `understudy doctor --robot NAME --port P`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..configs.compat import prepare_lerobot
from ..configs.finding import Finding
from .emulator.arm import Kind, find_kind, read_calibration
from .lerobot import LerobotArm, LerobotConfig
from .lerobot_joints import buses_of
from .open import robot_config
from .port import Claim, fall_silent, port_fault, spoken_for
from .robot import RobotConfig
from .so101 import RETRIES, STORED, CalibrationError, Scale, SO101Config

READS = 40  # of the loop rate
VOLTS = 4.5  # at least, of an SO-101's supply; what is too much for a servo it says itself
BAUD = 1_000_000
BAUDS = (500_000, 250_000, 128_000, 115_200, 57_600, 38_400)  # others that servos know and the library sets
STATUS = ("voltage", "encoder", "temperature", "current", "", "load")  # bits, from the lowest
FIRMWARE = ("Firmware_Major_Version", "Firmware_Minor_Version")
MODEL, POSITION = 3, 56  # addresses in a servo
ASKED = 6  # times that a servo is called which may have missed a call on a busy machine
TRIES = 2  # of looking at an arm that seems unready
CORRUPT = -7  # scservo_sdk's word for an answer that makes no sense


def examine_robot(
    robot: str | Mapping[str, Any], port: str | None, calibration: str | None = None
) -> Iterator[Finding]:
    """Port, bus, ids, firmware, supply, calibration, seam, cameras, loop rate: a finding each.

    Raises:
        LookupError, ValueError: no such robot or setting.
    """
    yield from examine_config(robot_config(robot, port, calibration))


def examine_config(config: RobotConfig) -> Iterator[Finding]:
    """See `examine_robot`."""
    if isinstance(config, LerobotConfig):
        yield from _lerobots(config)
        return
    if not isinstance(config, SO101Config):
        yield Finding(
            "robot",
            True,
            f"{config.get_choice_name(type(config))}: nothing more is known of its bus; connect it to try",
        )
        return
    port = _port(config.port)
    yield port
    if not port.works:
        return
    yield from _servos(config)
    yield from _cameras(config)


def refuse_unready(config: RobotConfig) -> None:
    """Refuse an arm that cannot be moved as it is, by doctor's words; nothing is moved.

    Raises:
        ConnectionError: port, bus, servos, supply, calibration, cameras, or an emergency stop that is engaged.
    """
    estop = config.stop_file
    if estop is not None and os.path.exists(estop):
        raise ConnectionError(f"emergency stop: {estop} exists. When the arm may move again: rm {estop}")
    for left in reversed(range(TRIES)):  # a busy machine may lose an answer
        wrong = [finding for finding in examine_config(config) if finding.needed and not finding.works]
        if not wrong:
            return
        if not left:
            said = [f"{one.what}: {one.detail}{f'; to mend it: {one.advice}' if one.advice else ''}" for one in wrong]
            raise ConnectionError("; ".join(said))


def _lerobots(config: LerobotConfig) -> Iterator[Finding]:
    """Its driver, what its numbers mean, its ports and whether its motors answer; nothing is written to them."""
    kind, named = str(config.robot.get("type")), config.robot.get("port")
    if isinstance(named, str):  # said before lerobot is imported, which takes long
        port = _port(named)
        yield port
        if not port.works:
            return
    try:
        arm = LerobotArm(config)
    except ImportError as error:
        yield Finding("driver", False, str(error), needed=True)
        return
    except CalibrationError as error:
        yield Finding("calibration", False, str(error), needed=True)
        return
    except ValueError as error:
        yield Finding("settings", False, str(error), needed=True)
        return
    yield Finding("driver", True, f"lerobot's {kind}", needed=True)
    units = "; ".join(f"{joint.name} {joint.said}" for joint in arm.joints)
    yield Finding("units", True, f"{units}; ours: {', '.join(dict.fromkeys(arm.embodiment.action_units))}")
    known = "table, walls, self and torque" if arm.body else "joint limits, speed, acceleration and jerk alone"
    yield Finding("guard", True, f"it bounds {known}")
    try:
        arm.line.claim()
        with arm.line.unhurried():
            for prefix, bus in buses_of(arm.robot).items():
                if bus in arm.line.serial:
                    arm.look(bus, prefix)
        yield Finding("bus", True, f"{arm.line.name}: all motors answer, calibrated, within their ranges", needed=True)
    except CalibrationError as error:
        yield Finding("calibration", False, str(error), needed=True)
    except ConnectionError as error:
        yield Finding("bus", False, str(error), "is the supply on, and no other program on this port?", True)
    finally:
        arm.line.release()
    yield from _cameras(config)


def _port(port: str) -> Finding:
    fault = port_fault(port)
    return Finding("port", fault is None, *(fault or (port, "")), needed=True)


def _servos(config: SO101Config) -> Iterator[Finding]:
    prepare_lerobot()
    from lerobot.motors import Motor, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    kind = find_kind("so101")
    wanted = {name: place for place, name in enumerate(kind.joints, 1)}
    motors = {name: Motor(id, "sts3215", MotorNormMode.DEGREES) for name, id in wanted.items()}
    bus = FeetechMotorsBus(port=config.port, motors=motors)
    claim = None
    try:
        claim = Claim(config.port)
        with spoken_for(config.port):
            bus.connect(handshake=False)
        found, doubled = _found(bus)
        bauds = {} if found else _other_bauds(bus)
        lacking = {name: id for name, id in wanted.items() if id not in found}
        if not found and bauds:
            baud, ids = next(iter(bauds.items()))
            detail = f"servos {ids} are set to {baud} baud, not {BAUD}"
            yield Finding("bus", False, detail, "lerobot-setup-motors --robot.type=so101_follower sets it", True)
            return
        if not found:
            advice = "switch the supply on (the USB cable alone does not feed servos); check the cable to the first one"
            speeds = f"at {BAUD} baud or one of {', '.join(map(str, BAUDS))}"
            yield Finding("bus", False, f"no servo answers, {speeds}", advice, True)
            return
        if lacking or doubled:
            said = [f"nobody answers by id {id} ({name}), of {ASKED} times" for name, id in lacking.items()]
            said += [f"id {id} answers garbled: two servos have it" for id in doubled]
            advice = "lerobot-setup-motors --robot.type=so101_follower gives each servo its own id, one at a time"
            if not doubled:
                advice = (
                    f"ask again; look at the cable to the servo and at the supply. Only if it never had one: {advice}"
                )
            yield Finding("servos", False, "; ".join(said), advice, True)
            return
        yield Finding("servos", True, f"ids {', '.join(map(str, sorted(found)))}, all sts3215", needed=True)
        yield from _values(bus, config, kind)
    except ConnectionError as error:
        yield Finding("bus", False, str(error), "is another program on this port? (fuser shows it)", True)
    finally:
        if bus.is_connected:
            bus.port_handler.closePort()
        if claim is not None:
            claim.release()


def _found(bus) -> tuple[set[int], list[int]]:
    """Ids that answer, and those whose positions come garbled, time after time: two servos speak at once."""
    found, garbled = set(), []
    for id in range(1, 7):
        if not any(_heard(bus, id, MODEL) in (0, CORRUPT) for _ in range(ASKED)):
            continue
        found.add(id)
        reads = [_heard(bus, id, POSITION) for _ in range(6)]
        if reads.count(CORRUPT) > 3:
            garbled.append(id)
    return found, garbled


def _heard(bus, id: int, address: int) -> int:
    """What the library says of reading two bytes from a servo: 0 is well."""
    try:
        said = bus.packet_handler.read2ByteTxRx(bus.port_handler, id, address)[1]
    except IndexError:  # its answer to a packet that is too short
        said = CORRUPT
    if said != 0:
        fall_silent(bus, bus.port)
    return said


def _other_bauds(bus) -> dict[int, list[int]]:
    """Speed -> ids that answer there."""
    found = {}
    for baud in BAUDS:
        with spoken_for(bus.port):
            bus.port_handler.setBaudRate(baud)
        ids, _ = _found(bus)
        if ids:
            found[baud] = sorted(ids)
            break
    with spoken_for(bus.port):
        bus.port_handler.setBaudRate(BAUD)
    return found


def _values(bus, config: SO101Config, kind: Kind) -> Iterator[Finding]:
    """Firmware, supply, calibration, seam and loop rate of servos that all answer."""

    def read(register: str) -> np.ndarray:
        return read_all(bus, config.port, register, kind.joints)

    versions = [f"{a:.0f}.{b:.0f}" for a, b in zip(*map(read, FIRMWARE), strict=True)]
    same = len(set(versions)) == 1
    advice = "bring all servos to one firmware with Feetech's FD program; lerobot refuses mixed ones"
    yield Finding("firmware", same, ", ".join(dict.fromkeys(versions)), advice, True)
    volts = read("Present_Voltage") / 10
    fine = bool((volts >= VOLTS).all())
    detail = f"{volts.min():.1f} .. {volts.max():.1f} V"
    yield Finding("supply", fine, detail, f"look at supply and plugs: {VOLTS:g} V are wanted", True)
    states = zip(kind.joints, read("Status").astype(int).tolist(), strict=True)
    alarms = [f"{joint} says {_alarms(state)}" for joint, state in states if state]
    advice = "a supply beyond a servo's own limits, heat, or overload: look for it, then switch the supply off and on"
    yield Finding("alarms", not alarms, "; ".join(alarms) or "no servo has one", advice)

    if not config.file.is_file():
        advice = f"lerobot-calibrate {config.calibrated_by}"
        yield Finding("calibration", False, f"no file {config.file}", advice, True)
        return
    try:
        known = read_calibration(config.file, kind)
        scale = Scale(known)
    except ValueError as error:
        yield Finding("calibration", False, str(error), "calibrate this arm again", True)
        return
    wrong = [
        f"{name} has {field} {stored}, the file {getattr(known[name], field)}"
        for field, register in STORED.items()
        for name, stored in zip(kind.joints, read(register).astype(int).tolist(), strict=True)
        if stored != getattr(known[name], field)
    ]
    detail = "; ".join(wrong[:3]) if wrong else f"{config.file} is what the servos hold"
    yield Finding("calibration", not wrong, detail, "the file is of another arm, or old: calibrate again", True)
    seams = scale.seams(read("Present_Position"))
    detail = "; ".join(seams) if seams else "every joint is within its calibrated range"
    yield Finding("pose", not seams, detail, "lead the arm to the middle of its range and calibrate it again", True)
    yield Finding("units", True, "rad; lerobot's degrees with --units degrees; ranges as the calibration has them")

    fall_silent(bus, config.port)
    begun = time.perf_counter()
    for _ in range(READS):
        read("Present_Position")
    rate = READS / (time.perf_counter() - begun)
    enough = rate > 2 * config.rate
    yield Finding("loop rate", enough, f"{rate:.0f} readings/s", "look at the USB hub and its latency timer")


def _alarms(state: int) -> str:
    """What the status of a servo means."""
    said = [name or f"bit {bit}" for bit, name in enumerate(STATUS) if state >> bit & 1]
    return ", ".join(said) or f"status {state}"


def _cameras(config: RobotConfig) -> Iterator[Finding]:
    for name, camera in config.cameras().items():
        try:
            camera.open()
            height, width = camera.newest()[0].shape[:2]
            yield Finding(f"camera {name}", True, f"{width} x {height}")
        except ConnectionError as error:
            yield Finding(f"camera {name}", False, str(error), "fuser /dev/video* names who has it", True)
        finally:
            camera.close()


def read_all(bus, port: str, register: str, names) -> np.ndarray:
    """One register of all servos, as whole numbers (D,). Raises ConnectionError.

    An answer says neither what it answers nor when it was asked, so after a failure the line is given time to fall
    silent: or the late answer to this request would be taken for that to the next.
    """
    for left in reversed(range(RETRIES + 1)):
        try:
            with spoken_for(port):
                values = bus.sync_read(register, normalize=False, num_retry=0)
            return np.array([values[name] for name in names], float)
        except ConnectionError:
            fall_silent(bus, port)
            if not left:
                raise
    raise AssertionError
