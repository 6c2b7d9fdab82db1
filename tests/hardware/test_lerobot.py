"""lerobot's robots and leaders by their names, unmodified, behind the guard and against the emulated arms."""

import math
import time

import numpy as np
import pytest

from understudy.hardware.emulator.arm import find_kind, make_chain, write_calibration
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.faults import Fault, Faults
from understudy.hardware.guard import Command, Outcome
from understudy.hardware.guarded import Session
from understudy.hardware.leader import Attended, Leader, leader_settings
from understudy.hardware.lerobot_devices import names_of
from understudy.hardware.open import robot_config
from understudy.hardware.so101 import CalibrationError

pytest.importorskip("lerobot", reason="lerobot is not installed")
pytest.importorskip("daqp", reason="the guard's quadratic program")

ARMS = [
    ("so101", "so101_follower", {}),
    ("so101", "so101_follower", {"use_degrees": False}),
    ("koch", "koch_follower", {}),
]


SLOW = {"stale": 9.0, "blind": 9.0, "silence": 9.0, "lag": 9.0, "torque": 9.0}  # this machine may be busy


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setattr("understudy.hardware.lerobot.PATIENT", 2000.0)
    monkeypatch.setattr("understudy.hardware.lerobot.Line.usual", 1000.0)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))


@pytest.fixture
def wired(tmp_path):
    """(kind) -> (its emulated arm, its calibration file)."""
    made = []

    def make(name, **calibration):
        kind = find_kind(name)
        file = tmp_path / f"{name}{len(made)}.json"
        write_calibration(file, kind.calibration() | calibration)
        made.append(Bus(make_chain(kind, kind.calibration() | calibration), kind.codec(), faults=Faults()))
        made[-1].__enter__()
        return made[-1], file

    yield make
    for bus in made:
        bus.__exit__(None, None, None)


@pytest.fixture
def session():
    made = []

    def make(settings, file):
        made.append(Session(robot_config({"envelope": SLOW} | settings, calibration=str(file))))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.close()


def drive(session, target, number):
    return session.command(Command(target=np.asarray(target, float), time=time.monotonic(), number=number))


def goals(bus):
    with bus.held() as chain:
        return [servo.memory["Goal_Position"] for servo in chain.servos]


def until(holds, seconds=8.0):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def settled(session, goal, seconds=8.0):
    until(lambda: np.abs(session.observe().position - goal).max() < 0.01, seconds)
    return session.observe().position


@pytest.mark.parametrize(("kind", "name", "more"), ARMS)
def test_a_robot_stands_moves_and_lets_go(wired, session, kind, name, more):
    bus, file = wired(kind)
    opened = session({"type": name, "port": bus.port, **more}, file)
    body = opened.driver.embodiment
    assert set(body.action_units) == {"rad"} and body.action == find_kind(kind).joints and not body.unknown
    with bus.held() as chain:
        assert all(servo.memory["Torque_Enable"] for servo in chain.servos)
    home = opened.observe().position
    assert home[:5] == pytest.approx(find_kind(kind).home[:5], abs=0.01)

    for number in range(25):
        verdict = drive(opened, home + [0.01 * number, 0, 0, 0, 0, 0], number)
    assert verdict.outcome is not Outcome.stopped and verdict.sent[0] == pytest.approx(home[0] + 0.24, abs=0.03)
    assert settled(opened, verdict.sent) == pytest.approx(verdict.sent, abs=0.02)
    opened.close()
    with bus.held() as chain:
        assert not any(servo.memory["Torque_Enable"] for servo in chain.servos)


@pytest.mark.parametrize(("kind", "name", "more"), ARMS)
def test_every_count_is_met(wired, session, kind, name, more):
    """The count on the wire is the one nearest to the angle, although lerobot cuts off."""
    bus, file = wired(kind)
    opened = session({"type": name, "port": bus.port, **more}, file)
    joints = opened.driver.joints
    for part in (0.1, 0.37, 0.5, 0.93):
        counts = [round(low + part * (high - low)) for low, high in (joint.counts for joint in joints)]
        angles = np.array(
            [(count - joint.middle) * joint.per_count for count, joint in zip(counts, joints, strict=True)]
        )
        opened.driver.write(angles)
        assert until(lambda: goals(bus) == counts), (goals(bus), counts)  # noqa: B023, called at once


def test_degrees_and_percent_mean_the_same_arm(wired, session):
    bus, file = wired("so101")
    one = session({"type": "so101_follower", "port": bus.port}, file).driver.embodiment
    two = robot_config({"type": "so101_follower", "port": bus.port, "use_degrees": False}, calibration=str(file))
    three = robot_config("so101", bus.port, str(file))
    for other in (two.describe().embodiment, three.describe().embodiment):
        assert (other.action, other.action_units, other.name) == (one.action, one.action_units, one.name)
        assert np.array(other.limits) == pytest.approx(np.array(one.limits), abs=0.002)
    assert two.settled()["units"]["elbow_flex"] == "-100..100" and two.settled()["units"]["gripper"] == "0..100"
    assert two.settled()["calibration"]["gripper"]["id"] == 6


def test_a_lost_answer_is_asked_for_again_and_a_silent_servo_is_an_error(wired, session):
    bus, file = wired("so101")
    opened = session({"type": "so101_follower", "port": bus.port}, file)
    with bus.held():
        bus.faults.add(Fault(kind="lost", id=3, count=1))
    assert np.isfinite(opened.observe().position).all()
    with bus.held():
        bus.faults.add(Fault(kind="lost", id=3))
    with pytest.raises(ConnectionError, match="/dev/"):
        opened.observe()


def test_an_unplugged_port_ends_in_order(wired, session):
    bus, file = wired("so101")
    opened = session({"type": "so101_follower", "port": bus.port}, file)
    with bus.held() as chain:
        bus.faults.add(Fault(kind="unplug", at=chain.time, seconds=1e6))
    with pytest.raises(ConnectionError, match="/dev/"):
        for number in range(40):
            drive(opened, opened.guard.goal, number)
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 10


def test_another_arms_calibration_is_refused_before_it_is_held(wired, session):
    bus, file = wired("so101")
    file.write_text(file.read_text().replace('"homing_offset": 0', '"homing_offset": 7', 1))
    with pytest.raises(CalibrationError, match="run lerobot-calibrate --robot.type=so101_follower"):
        session({"type": "so101_follower", "port": bus.port}, file)
    with bus.held() as chain:
        assert not any(servo.memory["Torque_Enable"] for servo in chain.servos)


def test_no_calibration_says_how_to_make_one(tmp_path):
    config = robot_config({"type": "koch_follower", "port": "/dev/null", "id": "me"})
    with pytest.raises(CalibrationError, match="lerobot-calibrate --robot.type=koch_follower .*--robot.id=me"):
        config.driver()


def test_names_and_settings_are_refused_by_name(tmp_path):
    with pytest.raises(LookupError, match="Did you mean 'koch_follower'"):
        robot_config("koch_folower", "/dev/null")
    with pytest.raises(ValueError, match="koch_follower has no setting 'speed'; it has .*port"):
        robot_config({"type": "koch_follower", "port": "/dev/null", "speed": 3}).driver()
    with pytest.raises(ValueError, match="koch_follower needs port"):
        robot_config("koch_follower").driver()
    assert {"so101_follower", "koch_follower", "lekiwi"} <= set(names_of("robots"))
    assert {"opencv", "zmq"} <= set(names_of("cameras"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limits": {"elbow_flex": [-90, 90]}}, "limits of elbow_flex: -90 .. 90 rad reach beyond .* degrees are not"),
        ({"limits": {"elbow_flex": [1.0, -1.0]}}, "limits of elbow_flex are not low < high"),
        ({"limits": {"elbow_flex": [1.0]}}, "limits of elbow_flex are not low < high"),
        ({"limits": {"elbow_flex": [-1.0, math.nan]}}, "limits of elbow_flex are not low < high"),
        ({"units": {"elbow_flex": "rad"}}, "units of elbow_flex: its motor says .* would be ignored"),
        ({"max_relative_target": 5.0}, "max_relative_target: lerobot would send something else than the guard"),
    ],
)
def test_settings_that_the_motors_contradict_are_refused(settings, said, tmp_path):
    write_calibration(tmp_path / "arm.json", find_kind("so101").calibration())
    config = robot_config(
        {"type": "so101_follower", "port": "/dev/none", **settings}, calibration=str(tmp_path / "arm.json")
    )
    with pytest.raises(ValueError, match=said):
        config.driver()


def test_limits_may_be_narrower_and_are_those_of_the_arm_then(tmp_path):
    write_calibration(tmp_path / "arm.json", find_kind("so101").calibration())
    settings = {"type": "so101_follower", "port": "/dev/none", "limits": {"elbow_flex": [-1.0, 1.0]}}
    body = robot_config(settings, calibration=str(tmp_path / "arm.json")).describe().embodiment
    assert body.limits[body.action.index("elbow_flex")] == (-1.0, 1.0)


class Silent:
    """A robot that says nothing of its numbers, as a plug-in may."""

    action_features = {"lift.pos": float, "turn.pos": float}


def test_units_that_nobody_says_have_to_be_stated():
    from understudy.hardware.lerobot_joints import joints_of

    with pytest.raises(ValueError, match="in what unit lift, turn of a plug-in is: add `units"):
        joints_of(Silent(), "a plug-in")
    units = {"lift": "mm", "turn": "degrees"}
    with pytest.raises(ValueError, match="how far turn of a plug-in may go: add `limits"):
        joints_of(Silent(), "a plug-in", units=units, limits={"lift": (0, 0.3)})
    lift, turn = joints_of(Silent(), "a plug-in", units=units, limits={"lift": (0, 0.3), "turn": (-1, 1)})
    assert (lift.unit, lift.ours(250), turn.ours(180)) == ("m", 0.25, pytest.approx(math.pi))
    assert lift.theirs(0.25) == 250 and turn.theirs(math.pi) == pytest.approx(180)
    with pytest.raises(ValueError, match="-180 .. 180 rad reach beyond .* degrees are not meant"):
        joints_of(Silent(), "a plug-in", units=units, limits={"lift": (0, 0.3), "turn": (-180, 180)})
    with pytest.raises(ValueError, match="no joint 'tilt'"):
        joints_of(Silent(), "a plug-in", units="rad", limits={"tilt": (0, 1)})


@pytest.mark.parametrize("degrees", [True, False])
def test_a_leader_says_the_robots_joints(wired, degrees):
    follower, file = wired("so101")
    leading, own = wired("so101")
    body = robot_config("so101", follower.port, str(file)).describe().embodiment
    settings = leader_settings(
        {"type": "so101_leader", "port": leading.port, "calibration": str(own), "use_degrees": degrees}
    )
    leader = Leader(settings, body)
    try:
        leader.connect()
        angles = leader.read()
        assert angles == pytest.approx(find_kind("so101").home, abs=0.01)
        with leading.held() as chain:
            assert not any(servo.memory["Torque_Enable"] for servo in chain.servos)
    finally:
        leader.close()


def test_a_leader_that_was_unplugged_says_so_and_is_read_again_when_it_is_back(wired, tmp_path):
    follower, file = wired("so101")
    kind, link = find_kind("so101"), tmp_path / "leader"
    body = robot_config("so101", follower.port, str(file)).describe().embodiment
    with Bus(make_chain(kind), kind.codec(), faults=Faults(), link=link, punctual=True) as leading:
        attended = Attended(Leader({"type": "so101_leader", "port": str(link), "id": file.stem,
                                    "calibration_dir": str(tmp_path)}, body))  # fmt: skip
        said = []

        def reads():
            try:
                return attended.read()
            except ConnectionError as error:
                said.append(str(error))
                return None

        try:
            attended.connect()
            with leading.held() as chain:
                leading.faults.add(Fault(kind="unplug", at=chain.time, seconds=0.6))
                shaft, zero = chain.shafts.shafts[0], kind.zeros(kind.calibration())[0]
                shaft.hand = zero + 0.5
            assert until(lambda: reads() is None and any(str(link) in one for one in said), 20.0), said
            assert until(lambda: reads() is not None, 60.0), said[-1]
            assert until(lambda: (pose := reads()) is not None and abs(pose[0] - 0.5) < 0.02, 20.0), said[-1]
        finally:
            attended.close()


def test_a_leader_that_crossed_its_seam_leads_nobody(wired):
    bus, file = wired("so101")
    body = robot_config("so101", bus.port, str(file)).describe().embodiment
    leader = Leader({"type": "so101_leader", "port": bus.port, "calibration": str(file)}, body)
    low = leader.joints[1].range[0]
    said = {joint.key: 0.0 for joint in leader.joints}
    leader.device.get_action = lambda: said
    assert leader.read()[1] == pytest.approx(0.0, abs=0.01)
    said[leader.joints[1].key] = math.degrees(low) - 10  # a little outside, as worn stops permit
    assert leader.read()[1] < low
    said[leader.joints[1].key] = math.degrees(low) - 40
    with pytest.raises(ConnectionError, match="shoulder_lift of the leader reads .* crossed the seam"):
        leader.read()


def test_a_leader_of_another_arm_is_refused(wired):
    follower, file = wired("so101")
    body = robot_config("so101", follower.port, str(file)).describe().embodiment
    with pytest.raises(ValueError, match="keyboard_ee gives .*; 'so101' is led by its joints|gives no joints"):
        Leader({"type": "keyboard_ee"}, body)
    with pytest.raises(LookupError, match="so101_leader"):
        Leader({"type": "so101_leade"}, body)


def test_a_joint_behind_the_seam_is_refused(wired, session):
    bus, file = wired("so101")
    with bus.held() as chain:
        chain.shafts.shafts[1].low, chain.shafts.shafts[1].angle = -1.0, -0.01
    with pytest.raises(CalibrationError, match="shoulder_lift reads .* crossed the seam"):
        session({"type": "so101_follower", "port": bus.port}, file)


def test_a_camera_of_lerobots_gives_newest_pictures(tmp_path):
    from understudy.hardware.lerobot import LerobotConfig

    settings = {"type": "so101_follower", "port": "P", "cameras": {"front": {"type": "opencv", "index_or_path": 97}}}
    with pytest.raises(ValueError, match="front.*width, height and fps|Specifying"):
        LerobotConfig(robot=settings).cameras()
    settings["cameras"]["front"] |= {"width": 64, "height": 48, "fps": 30}
    camera = LerobotConfig(robot=settings).cameras()["front"]
    assert camera.size == (48, 64)
    with pytest.raises(ConnectionError, match="camera 'front' does not open"):
        camera.open()


@pytest.mark.parametrize("kind, name", [("so101", "so101_follower"), ("koch", "koch_follower")])
def test_a_brown_out_that_nobody_heard_stops_an_arm_of_lerobots(wired, session, kind, name):
    bus, file = wired(kind)
    opened = session({"type": name, "port": bus.port}, file)
    home = opened.observe().position
    with bus.held() as chain:
        bus.faults.add(Fault(kind="brownout", id=2, at=chain.time, seconds=0.02))

    numbers = iter(range(1, 1000))
    assert until(lambda: drive(opened, home, next(numbers)).outcome is Outcome.stopped)
    assert "shoulder_lift" in opened.guard.stopped and "the supply failed for a moment" in opened.guard.stopped
    with pytest.raises(ConnectionError, match="open it anew"):
        opened.engage()
