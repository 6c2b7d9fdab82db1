"""The guard: what it lets pass, what it bends, when it stops, and that nothing leaves the envelope."""

import re
import sys

import numpy as np
import pytest

from understudy.configs.spec import Embodiment
from understudy.hardware.guard import Command, Envelope, Guard, Measured, Outcome, Verdict
from understudy.hardware.guarded import Account

FLOAT = 1e-6


class Driven:
    """A guard whose arm is where it was sent, driven step by step."""

    def __init__(self, guard):
        self.guard, self.now, self.number = guard, 0.0, 0
        self.pose = guard.goal
        self.sent, self.verdicts = [self.pose] * 3, []

    def __call__(self, target, seconds=None, **measured):
        self.now += 1 / self.guard.rate if seconds is None else seconds
        self.number += 1
        command = None
        if target is not None:
            command = Command(target=np.asarray(target, float), time=self.now, number=self.number)
        seen = Measured(position=self.pose, time=self.now, **measured)
        return self.take(self.guard.step(seen, command, self.now))

    def take(self, verdict):
        self.pose = verdict.sent
        self.sent.append(verdict.sent)
        self.verdicts.append(verdict)
        return verdict

    def check(self, judge, envelope):
        """Position, velocity, acceleration, jerk, distance and torque of all that was sent."""
        rate, sent = self.guard.rate, np.array(self.sent)
        low, high = np.array(envelope.limits).T
        assert (sent >= low - FLOAT).all() and (sent <= high + FLOAT).all()
        moves = sent
        for bound in (envelope.velocity, envelope.acceleration, envelope.jerk):
            moves = np.diff(moves, axis=0) * rate
            assert np.abs(moves).max() <= bound * (1 + FLOAT)
        assert min(judge.nearest(pose).min() for pose in sent) >= envelope.clearance - 1e-4


def settled(drive, target, steps=400):
    for _ in range(steps):
        verdict = drive(target)
        if verdict.outcome is Outcome.passed and drive.guard.rests:
            break
    return verdict


def test_a_slow_command_passes_as_it_is(guard, arm):
    drive = Driven(guard())
    for step in range(30):
        target = np.array(arm.home) + [0.01 * step, 0, 0, 0, 0, 0]
        verdict = drive(target)
        assert verdict.outcome is Outcome.passed and (verdict.sent == pytest.approx(target, abs=1e-7))


def test_a_jump_is_bent_and_arrives(guard, arm, judge):
    drive = Driven(guard())
    drive(arm.home)
    target = np.array(arm.home) + [0.5, 0, 0, 0, 0.3, 0]
    verdict = drive(target)
    assert verdict.outcome is Outcome.bent and "shoulder_pan would move at 15.00 of 2 rad/s" in str(verdict)
    assert settled(drive, target).outcome is Outcome.passed and drive.pose == pytest.approx(target)
    drive.check(judge, drive.guard.envelope)


def test_the_first_command_is_approached_slowly(guard, arm):
    drive = Driven(guard())
    target = np.array(arm.home) + [0.8, 0, 0, 0, 0, 0]
    first = drive(target)
    assert (
        first.outcome is Outcome.bent
        and "shoulder_pan is 0.80 rad from the first command: at most 0.4 rad/s" in str(first)
    )
    for _ in range(40):
        drive(target)
    assert np.abs(np.diff(drive.sent, axis=0)).max() * 30 == pytest.approx(0.4, abs=0.01)


def test_after_a_silence_the_next_command_is_a_first_one(guard, arm):
    drive = Driven(guard())
    drive(arm.home)
    for _ in range(10):
        drive(None)
    assert "from the first command" in str(drive(np.array(arm.home) + [0.8, 0, 0, 0, 0, 0]))


def test_the_table_is_not_touched(guard, arm, judge):
    drive = Driven(guard())
    target = np.array(arm.home) + [0, 0.7, -0.2, 0, 0, 0]
    assert judge.nearest(target).min() < 0
    for _ in range(150):
        verdict = drive(target)
    assert verdict.outcome is Outcome.bent and "the table come too near" in str(verdict) and drive.guard.rests
    drive.check(judge, drive.guard.envelope)


def test_along_the_table_it_slides(guard, arm, judge):
    """What leads into the table is taken away, the rest is kept."""
    drive = Driven(guard())
    target = np.array(arm.home) + [0.7, 0.7, -0.2, 0, 0, 0]
    for _ in range(200):
        drive(target)
    assert drive.pose[0] == pytest.approx(target[0], abs=0.02)
    drive.check(judge, drive.guard.envelope)


def test_the_arm_does_not_fold_into_itself(guard, arm, judge):
    drive = Driven(guard())
    target = np.array([0.0, -1.7, 1.69, 1.65, 0.0, 1.0])
    assert judge.nearest(target).min() < 0
    for _ in range(200):
        drive(target)
    drive.check(judge, drive.guard.envelope)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_moves_nothing_and_stops_in_the_end(guard, arm, bad):
    drive = Driven(guard())
    drive(arm.home)
    target = np.array(arm.home)
    target[2] = bad
    for _ in range(5):
        verdict = drive(target)
        assert verdict.outcome is Outcome.bent and "not finite at elbow_flex" in str(verdict)
    assert drive(target).outcome is Outcome.stopped and drive(arm.home).outcome is Outcome.stopped
    assert drive.pose == pytest.approx(np.array(arm.home))

    drive.guard.engage(Measured(position=drive.pose, time=drive.now), drive.now)
    assert drive(arm.home).outcome is Outcome.passed


def test_stale_reordered_and_repeated_commands_are_dropped(guard, arm):
    drive = Driven(guard())
    drive(arm.home)
    target = np.array(arm.home) + 0.02

    def give(age, number):
        drive.now += 1 / 30
        seen = Measured(position=drive.pose, time=drive.now)
        return drive.take(
            drive.guard.step(seen, Command(target=target, time=drive.now - age, number=number), drive.now)
        )

    assert "0.50 s old" in str(give(0.5, 10)) and "command 1 came after 1" in str(give(0.0, 1))
    assert give(0.0, 11).sent[0] > 0.01 and "older than the one before" in str(give(0.05, 12))


def test_faster_than_the_rate_is_dropped(guard, arm):
    drive = Driven(guard())
    drive(arm.home)
    before = drive.pose
    verdict = drive(np.array(arm.home) + 0.05, seconds=0.001)
    assert "more than 30 commands a second" in str(verdict) and (verdict.sent == before).all()


def test_an_arm_that_is_not_measured_stops(guard, arm):
    drive = Driven(guard())
    drive(arm.home)
    for step in range(6):
        drive.now += 1 / 30
        command = Command(target=np.array(arm.home), time=drive.now, number=10 + step)
        verdict = drive.take(drive.guard.step(None, command, drive.now))
    assert verdict.outcome is Outcome.stopped and "could not be read, 6 times in a row" in str(verdict)


def test_an_arm_that_does_not_follow_stops(guard, arm):
    drive = Driven(guard())
    stuck = np.array(arm.home)
    for step in range(60):
        verdict = drive(stuck + [min(0.02 * step, 1.0), 0, 0, 0, 0, 0])
        drive.pose = stuck
    assert verdict.outcome is Outcome.stopped and "shoulder_pan does not follow" in str(verdict)
    assert abs(verdict.sent[0] - stuck[0]) < drive.guard.envelope.lag + 0.1


def test_an_overloaded_joint_is_not_pushed_on_but_may_give_way(guard, arm):
    drive = Driven(guard())
    drive(arm.home)
    load = np.array([0, 0, 2.9, 0, 0, 0])
    into, away = np.array([0, 0, 0.02, 0, 0, 0]), np.array([0, 0, -0.02, 0, 0, 0])
    verdict = drive(np.array(arm.home) + into, torque=load)
    assert "elbow_flex bears 2.90 of 2.40 N m" in str(verdict) and verdict.sent[2] == pytest.approx(arm.home[2])
    assert drive(np.array(arm.home) + away, torque=load).sent[2] < arm.home[2] - 0.01
    for _ in range(12):
        verdict = drive(np.array(arm.home) + into, torque=load)
    assert verdict.outcome is Outcome.stopped and "for 0.3 s" in str(verdict)


def test_a_motion_that_takes_too_much_torque_is_not_sent(guard, arm, judge):
    drive = Driven(guard(torque=1.0))
    target = np.array([0.0, 1.2, -1.2, 0.3, 0.0, 0.6])  # stretched out
    assert np.abs(judge.torque(target, np.zeros(6), np.zeros(6))).max() > 0.8
    for _ in range(150):
        drive(target)
    motions = np.diff(drive.sent, axis=0) * 30
    said = " ".join(map(str, drive.verdicts))
    assert "would bear" in said and np.abs(motions).max() < 2


def test_braking_takes_no_more_torque_than_there_is(guard, arm, judge):
    """Full speed, then silence: also on the way to rest."""
    drive = Driven(guard(100.0, torque=1.5, acceleration=40.0, jerk=2000.0))
    low = np.array([0.6, -1.0, 0.2, 0.5, 0.0, 0.6])
    for target, steps in ((arm.home, 1), (low, 60), (-low, 17), (None, 15), (low, 23), (None, 15)):
        for _ in range(steps):
            drive(target)
    sent = np.array(drive.sent)
    motions = zip(sent[2:], np.diff(sent, axis=0)[1:] * 100, np.diff(sent, 2, axis=0) * 1e4, strict=True)
    borne = [np.abs(judge.torque(*motion)).max() for motion in motions]
    assert 1.2 < max(borne) <= 1.5 + 1e-6 and drive.guard.rests


def test_a_command_a_little_late_does_not_slow_the_next_ones(guard, arm):
    made = guard()
    begun = made.due - made.step_length
    for step in range(1, 40):
        now = begun + (step + 0.2 * (step % 2)) / 30
        seen = Measured(position=made.goal, time=now)
        verdict = made.step(seen, Command(target=np.array(arm.home), time=now, number=step), now)
        assert verdict.outcome is Outcome.passed and made.due == pytest.approx(begun + (step + 1) / 30)


def test_a_pose_far_outside_the_limits_is_a_wrong_calibration(guard, arm):
    made = guard()
    pose = np.array(arm.home)
    pose[1] = -2.5
    with pytest.raises(ValueError, match="shoulder_lift is at -2.500.*calibration"):
        made.engage(Measured(position=pose, time=0.0), 0.0)


def test_nothing_is_sent_before_it_is_engaged(arm):
    guard = Guard(arm.joints, Envelope(limits=arm.limits), 30.0)
    with pytest.raises(RuntimeError, match="engage"):
        guard.step(None, None, 0.0)
    assert guard.blind_to == (
        "the table, the walls and the arm itself: no model of this body",
        "torque: no limit is given",
    )


def test_a_missing_solver_is_refused_at_the_start(arm, body, monkeypatch):
    monkeypatch.setitem(sys.modules, "daqp", None)
    with pytest.raises(ImportError, match=r"pip install .*\[hardware\]'"):
        Guard(arm.joints, Envelope(limits=arm.limits), 30.0, body)
    Guard(arm.joints, Envelope(limits=arm.limits), 30.0)  # of an arm without a model it has no use for it


def test_the_arm_itself_keeps_clear_and_not_only_its_set_points(guard, arm, judge):
    """It sags by 0.08 rad at the shoulder: set-points that are clear would lay it on the table."""
    drive, sag = Driven(guard()), np.array([0, 0.08, 0, 0, 0, 0])
    for _ in range(60):
        verdict = drive(arm.home)
        drive.pose = drive.pose + sag
    target = np.array(arm.home) + [0, 0.7, -0.2, 0, 0, 0]
    for _ in range(150):
        verdict = drive(target)
        drive.pose = drive.pose + sag
    assert "the table come too near" in str(verdict) and drive.guard.rests
    assert min(judge.nearest(pose + sag).min() for pose in drive.sent[10:]) >= drive.guard.envelope.clearance - 1e-3


def test_an_overloaded_joint_gives_way_to_where_it_is(guard, arm):
    """Joint and set-point are apart, and the servo says that it bears all it may: the set-point comes back."""
    drive, home = Driven(guard(60.0)), np.array(arm.home)
    for step in range(60):
        drive(home + [0, 0, 0.2 * min(1, step / 40), 0, 0, 0])
        drive.pose = home
    ahead, load = home + [0, 0, 0.2, 0, 0, 0], np.array([0, 0, 2.1, 0, 0, 0])
    assert drive.sent[-1][2] - home[2] > 0.15
    for _ in range(15):
        verdict = drive(ahead, torque=load)
        drive.pose = home
    assert "elbow_flex bears 2.10 of 2.40 N m" in str(verdict) and abs(verdict.sent[2] - home[2]) < 0.05
    for _ in range(60):
        verdict = drive(ahead, torque=load)
        drive.pose = home
    assert verdict.outcome is Outcome.stopped and abs(verdict.sent[2] - home[2]) < 0.02


def test_what_bends_is_told_by_its_limit(arm):
    from understudy.hardware.replay import rehearse
    from understudy.hardware.robot import RobotConfig
    from understudy.hardware.so101 import ENVELOPE

    pytest.importorskip("daqp", reason="the guard's quadratic program: pip install 'understudy[hardware]'")
    config = RobotConfig(envelope=ENVELOPE)
    body = Embodiment(name="so101", action=arm.joints, action_units=("rad",) * 6, limits=arm.limits, rate=30.0)
    actions = np.array(arm.home) + np.arange(30)[:, None] / 30 * np.array([0.4, 0, 0, 0, 1, 0])
    actions[20:, 4] += 0.3  # far too fast, once
    account, bends = rehearse(config, body, "so101", actions)
    assert account.outcomes["bent"] >= 1
    said = bends.lines()
    (line,) = [line for line in said if line.startswith("  velocity: 1 of 30 commands bent; wrist_roll by up to 0.")]
    assert "degrees (limit 3.2 rad/s, asked 10.00 rad/s)" in line
    assert sum(line.startswith("  acceleration") for line in said) == 1  # who catches up asks for no velocity
    said = bends.advice()
    assert "the arm leaves the commanded way" in said[0]
    assert any("--robot.envelope.velocity '[2.2, 2.2, 2.2, 2.2, 11, 3.2]'" in line for line in said)


NUMBERS = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")
MEANT = re.compile(rf"(?: of | \.\. ){NUMBERS.pattern}| (?:rad/s|rad|N m|N|m/s|m|s|times in a row|invalid commands)\b")


def test_every_number_of_a_reason_has_its_unit(guard, arm):
    """Or stands before the limit that has it: "15.00 of 2 rad/s"."""
    home, reasons = np.array(arm.home), []
    for move in ([0.5, 0, 0, 0, 0, 0], [9.0, 0, 0, 0, 0, 0], [0, 0.7, -0.2, 0, 0, 0]):
        drive = Driven(guard())
        reasons += drive(home + [0.3, 0, 0, 0, 0, 0]).reasons
        drive = Driven(guard())
        drive(home)
        for _ in range(60):
            reasons += drive(home + move).reasons
    stale = guard()
    for number in range(1, 9):
        now = number / 30
        verdict = stale.step(Measured(position=home, time=now), Command(target=home, time=now - 1, number=number), now)
        reasons += verdict.reasons
    late = guard()
    reasons += late.step(Measured(position=home, time=-1.0), None, 1 / 30).reasons
    apart = guard(lag=0.1)
    for number in range(1, 40):
        now, target = number / 30, home + [0.3, 0, 0, 0, 0, 0]
        reasons += apart.step(
            Measured(position=home, time=now), Command(target=target, time=now, number=number), now
        ).reasons
    reasons = list(dict.fromkeys(reasons))
    words = ("would move at", "first command", "is outside", "is 1.00 s old", "in a row", "does not follow")
    assert [word for word in words if not any(word in reason for reason in reasons)] == []
    for reason in reasons:
        for number in NUMBERS.finditer(reason):
            assert MEANT.match(reason, number.end()), reason


def test_units_are_those_of_the_joints(arm):
    """A slide moves in m/s; nothing may call that rad/s."""
    slide = Guard(("slide",), Envelope(limits=((0.0, 1.0),)), 30.0, None, ("m",))
    slide.engage(Measured(position=np.array([0.2]), time=0.0), 0.0)
    here = Measured(position=np.array([0.2]), time=1 / 30)
    assert "slide is 0.30 m from the first command: at most 0.4 m/s" in str(
        slide.step(here, Command(target=np.array([0.5]), time=1 / 30, number=1), 1 / 30)
    )
    with pytest.raises(ValueError, match=r"slide is at 9.000 m, its limits are 0.000 .. 1.000 m"):
        slide.engage(Measured(position=np.array([9.0]), time=0.0), 0.0)
    with pytest.raises(ValueError, match="1 units for 6 joints"):
        Guard(arm.joints, Envelope(limits=arm.limits), 30.0, None, ("m",))


def test_reasons_are_counted_without_their_numbers_but_by_joint():
    account = Account()
    for joint, speed in (("joint_1", 3.0), ("joint_2", 3.0), ("joint_2", 3.5)):
        account.add(Verdict(Outcome.bent, np.zeros(2), (f"{joint} would move at {speed:.2f} of 2 rad/s",)))
    assert account.reasons == {
        "joint_1 would move at # of # rad/s": 1,
        "joint_2 would move at # of # rad/s": 2,
    }
