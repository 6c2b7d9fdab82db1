"""What a shadow foresees counts in the guard, and a shadow that is silent or gone makes nobody wait."""

import dataclasses
import multiprocessing
import time

import numpy as np
import pytest

from understudy.hardware import talk
from understudy.hardware.envelope import Foresight, Verdict
from understudy.hardware.foresee import FRESH, LOST, Outlook, pack, unpack
from understudy.hardware.guard import Command, Measured, Outcome

RATE = 50.0


def foresight(allowed=True, torque=0.0, when=0.0):
    reasons = () if allowed else ("table and jaw would press with 9.0 N",)
    return Foresight(allowed, np.full(6, torque), 9.0, reasons, (), when)


class Driven:
    """A guard whose arm is where it was sent, and that is told what `says` gives at each step."""

    def __init__(self, guard, says):
        self.guard, self.says, self.now, self.number = guard, says, 0.0, 0

    def __call__(self, target):
        self.now, self.number = self.now + 1 / RATE, self.number + 1
        seen = Measured(position=self.guard.goal, time=self.now)
        command = Command(target=np.asarray(target, float), time=self.now, number=self.number)
        return self.guard.step(seen, command, self.now, self.says(self.now))


def away(arm, step):
    return np.array(arm.home) + [0.004 * step, 0, 0, 0, 0, 0]


def test_a_veto_brakes_the_arm_and_says_why(guard, arm):
    blocked = [False]
    drive = Driven(guard(RATE), lambda now: foresight(not blocked[0], when=now))
    for step in range(40):
        drive(away(arm, step))
    blocked[0] = True
    bent = [drive(away(arm, 40 + step)) for step in range(40)]
    assert {one.outcome for one in bent} == {Outcome.bent} and drive.guard.rests
    assert "in the twin table and jaw would press with 9.0 N" in bent[-1].reasons
    assert bent[-1].foreseen is not None and not bent[-1].foreseen.allowed
    blocked[0] = False
    later = [drive(away(arm, 80)) for _ in range(100)]
    assert later[-1].outcome is Outcome.passed  # and goes on by itself when nothing speaks against it


def test_a_veto_that_lasts_stops_the_arm(guard, arm):
    drive = Driven(guard(RATE), lambda now: foresight(False, when=now))
    found = [drive(away(arm, 50)) for _ in range(round(2.1 * RATE))]
    assert found[-3].outcome is Outcome.bent or found[-1].outcome is Outcome.stopped
    assert found[0].outcome is Outcome.bent and found[-1].outcome is Outcome.stopped
    assert "would press with 9.0 N, for 2.0 s" in found[-1].reasons[0]


@pytest.mark.parametrize("torque, moves", [(0.0, True), (-4.0, False)])
def test_contact_that_is_foreseen_counts_in_the_torque_limit(guard, arm, torque, moves):
    """What the model alone allows is not allowed beside 4 N m of contact."""
    drive = Driven(guard(RATE), lambda now: foresight(torque=torque, when=now))
    found = [drive(np.array(arm.home) + [0.2, 0, 0, 0, 0, 0]) for _ in range(100)]
    went = abs(drive.guard.goal[0] - arm.home[0]) > 0.1
    assert went == moves
    if not moves:
        assert any("would bear" in reason for one in found for reason in one.reasons)


def test_what_is_asked_lies_ahead_and_within_the_command(guard, arm):
    drive = Driven(guard(RATE), lambda now: None)
    home = np.array(arm.home)
    drive(home)
    for _ in range(60):
        drive(home + [0.5, 0, 0, 0, 0, 0])
        ahead, goal = drive.guard.ahead, drive.guard.goal
        if goal[0] > 0.3:
            break
        assert goal[0] <= ahead[0] <= home[0] + 0.5 + 1e-9 and np.allclose(ahead[1:], home[1:], atol=0.01)
    drive(home)  # it still goes the other way before it turns
    assert drive.guard.ahead[0] > drive.guard.goal[0]


def ends():
    return multiprocessing.Pipe()


def test_a_silent_shadow_makes_nobody_wait_and_is_lost():
    ours, theirs = ends()
    outlook = Outlook(ours)
    begun = time.process_time()
    for step in range(5000):  # more than a pipe holds
        outlook.ask(np.zeros(6), Measured(position=np.zeros(6), time=step / RATE))
        assert outlook.newest(step / RATE) is None
        assert ("silent for" in outlook.lost(step / RATE)) == (step / RATE > LOST)
    assert time.process_time() - begun < 2.0  # of work
    theirs.close()


def test_an_answer_counts_while_it_is_new_and_a_dead_process_is_found():
    ours, theirs = ends()
    outlook = Outlook(ours)
    outlook.ask(np.ones(6), Measured(position=np.zeros(6), time=1.0))
    asked = talk.told(theirs.recv_bytes())
    assert asked["ahead"] == [1.0] * 6 and asked["time"] == 1.0
    theirs.send_bytes(talk.other(**pack(foresight(True, 0.5, when=1.0))))
    found = outlook.newest(1.0 + FRESH / 2)
    assert found is not None and found.allowed and found.torque.tolist() == [0.5] * 6
    assert outlook.newest(1.01 + FRESH) is None
    theirs.close()
    outlook.ask(np.ones(6), Measured(position=np.zeros(6), time=2.0))
    assert outlook.newest(2.0) is None and outlook.lost(2.0) == "the shadow's process is gone"


class Asked:
    """An `Outlook`, and the shadow at the other end."""

    def __init__(self):
        ours, self.pipe = ends()
        self.outlook = Outlook(ours)

    def ask(self, when):
        self.outlook.ask(np.zeros(6), Measured(position=np.zeros(6), time=when))

    def answer(self, allowed=True):
        """To the question under way."""
        asked = talk.told(self.pipe.recv_bytes())
        self.pipe.send_bytes(talk.other(**pack(foresight(allowed, when=asked["time"]))))


def test_a_veto_holds_until_a_newer_answer_lifts_it():
    shadow = Asked()
    shadow.ask(1.0)
    shadow.answer(allowed=False)
    for when in (1.1, 1.0 + 2 * FRESH, 0.9 + LOST):  # silence frees no way
        assert not shadow.outlook.newest(when).allowed
    assert shadow.outlook.newest(1.1 + LOST) is None

    shadow.ask(1.5)
    shadow.answer()
    assert shadow.outlook.newest(1.5).allowed and shadow.outlook.newest(1.6 + FRESH) is None


def test_answers_that_come_too_late_to_count_are_no_answers():
    shadow = Asked()
    for step in range(200):
        when = step / RATE
        shadow.ask(when)
        assert shadow.outlook.newest(when) is None
        if step % 10 == 9:  # 0.2 s after the question
            shadow.answer()
        assert (shadow.outlook.lost(when) != "") == (when > LOST)
    assert "come too late to count for 4.0 s" in shadow.outlook.lost(4.0)

    shadow.ask(60.0)  # after a pause nothing has been missed
    assert shadow.outlook.lost(60.1) == ""
    shadow.outlook._hear()
    for step in range(100):
        shadow.ask(61 + step / RATE)
        if shadow.pipe.poll():
            shadow.answer()
    assert shadow.outlook.lost(63.0) == "" and shadow.outlook.newest(63.0).allowed


def test_an_answer_of_before_the_arm_was_taken_hold_of_does_not_count():
    shadow = Asked()
    shadow.ask(1.0)
    shadow.outlook.forget(1.05)
    shadow.answer(allowed=False)
    assert shadow.outlook.newest(1.06) is None
    shadow.ask(1.06)
    shadow.answer(allowed=False)
    assert not shadow.outlook.newest(1.07).allowed


def test_a_pose_that_is_none_is_not_asked_about():
    shadow = Asked()
    shadow.outlook.ask(np.zeros(6), Measured(position=np.full(6, np.nan), time=1.0))
    assert not shadow.pipe.poll()


def test_a_verdict_with_foresight_crosses_the_pipe():
    one = Verdict(Outcome.bent, np.arange(6.0), ("slow", "near"), foreseen=foresight(False, 1.5, when=7.0))
    found = talk.unpack_verdict(talk.pack_verdict(one))
    assert found.outcome is Outcome.bent and found.reasons == one.reasons and found.sent.tolist() == one.sent.tolist()
    assert not found.foreseen.allowed and found.foreseen.force == 9.0 and found.foreseen.torque.tolist() == [1.5] * 6
    plain = talk.unpack_verdict(talk.pack_verdict(dataclasses.replace(one, foreseen=None)))
    assert plain.foreseen is None and plain.reasons == one.reasons
    assert unpack(pack(one.foreseen)).reasons == one.foreseen.reasons
