"""The loop: exact without corrections, the real joints close behind, the arm held where it must be."""

from dataclasses import dataclass

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.hardware.envelope import Outcome
from understudy.hardware.twin.align import Aligner, Correction
from understudy.hardware.twin.env import Reality
from understudy.hardware.twin.live.health import Health, Trust
from understudy.hardware.twin.live.loop import Loop, LoopSettings, lag_of
from understudy.hardware.twin.live.timing import Timing, as_text
from understudy.hardware.twin.live.trim import MOST, Trim
from understudy.hardware.twin.reality.faults import Fault
from understudy.hardware.twin.reality.follow import GuardedStandIn
from understudy.hardware.twin.reality.stand_in import SAME, Changes, StandIn


def test_uncorrected_it_is_the_world_itself(twin, task):
    actor, lane = twin(real=Reality(), correct=False).begin(5), task.lane()
    lane.reset(seed=5)
    for _ in range(25):
        action = lane.expert_action()
        ticks = actor.act(1, action)
        lane.step(action)
        assert np.array_equal(actor.stage.lane.data.qpos, lane.data.qpos)
        assert np.array_equal(actor.stage.lane.data.qvel, lane.data.qvel)
    assert len(ticks) == 2  # of 1/60 s


def test_real_joints_are_at_most_two_ticks_behind(twin):
    actor = twin(real=Reality(), correct=False).begin(3)
    ticks = actor.act(100)
    lag = lag_of(np.array([tick.joints for tick in ticks]), np.array([tick.echo for tick in ticks]))
    assert 0 <= lag <= 2
    assert not any(tick.held for tick in ticks)


def test_what_is_sent_are_achieved_joints(twin):
    """Not the wanted ones: an arm that is stopped by the table stays above it in reality, too."""
    actor = twin(real=Reality(changes=Changes(distractors=0)), correct=False).begin(0)
    lane = actor.stage.lane
    low = lane.rest().astype(float)
    low[1] += 1.2  # through the table
    ticks = actor.act(40, low)
    wanted, achieved = low[1], ticks[-1].joints[1]
    assert wanted - achieved > 0.1
    assert abs(ticks[-1].echo[1] - achieved) < 0.05


def test_a_silent_arm_holds_the_twin(twin):
    lost = Changes(faults=(Fault(kind="loss", at=0.5, until=1.2),))
    actor = twin(real=Reality(changes=lost), correct=False).begin(3)
    ticks = actor.act(65)
    held = np.array([bool(tick.held) for tick in ticks])
    when = np.array([tick.time for tick in ticks])
    assert held[(when > 0.85) & (when < 1.2)].all() and "silent" in ticks[np.argmax(held)].held
    assert not held[when < 0.7].any() and not held[when > 1.95].any()  # it goes on by itself, slowly at first
    still = np.array([tick.joints for tick in ticks])[(when > 1.0) & (when < 1.2)]
    assert np.ptp(still, axis=0).max() < 0.02
    sent = np.diff(np.array([tick.echo for tick in ticks]), axis=0) * 60
    assert np.abs(sent[1:]).max() < 6  # rad/s: no jump when it is heard again


def test_late_echo_is_no_reason_to_hold(twin):
    late = Changes(faults=(Fault(kind="latency", at=0.3, until=1.0, size=0.1),))
    ticks = twin(real=Reality(changes=late), correct=False).begin(3).act(50)
    assert not any("silent" in tick.held for tick in ticks)


def test_joints_must_be_those_of_the_twin(twin, task):
    lane, real = task.lane(), GuardedStandIn(StandIn(read_world("pusht-mujoco"), Changes(), {}, {}))
    with pytest.raises(ValueError, match="pusher.x"):
        Loop(lane.model, lane.data, real, None, LoopSettings(), np.array([1]))


def test_lag_is_found_between_ticks():
    time = np.arange(200) / 60
    joints = np.stack([np.sin(3 * time), np.cos(2 * time)], 1)
    late = np.stack([np.sin(3 * (time - 1.5 / 60)), np.cos(2 * (time - 1.5 / 60))], 1)
    assert lag_of(joints, late) == pytest.approx(1.5, abs=0.11)
    with pytest.raises(ValueError, match="move"):
        lag_of(np.zeros((200, 2)), np.zeros((200, 2)))


def test_health_leaves_a_camera_out_and_takes_it_back():
    trust = Trust(settle=3, margin=1.5, probe=2, trust=2, patience=0.5)
    health = Health(trust, ("a", "b"), 0.0)
    for _ in range(3):
        assert health.judge({"a": 0.1, "b": 0.2}, 0.0)
    assert health.bounds == pytest.approx({"a": 0.15, "b": 0.3})

    assert not health.judge({"a": 0.16, "b": 0.2}, 0.1) and health.left_out == ("a",)
    assert health.wanted({"a": 0.0, "b": 0.0}) == (["b"], [])
    assert health.wanted({"a": 0.0, "b": 0.0}) == (["b"], ["a"])
    health.judge({"a": 0.1}, 0.2)
    assert health.left_out == ("a",)  # one good picture is not enough
    assert health.wanted({"a": 0.0}) == ([], ["a"])
    health.judge({"a": 0.1}, 0.3)
    assert health.left_out == () and len(health.warnings) == 2

    assert health.wanted({"a": 0.2}) == ([], [])  # too old
    assert health.strength(0.0) == 1 and health.strength(0.05) == 0.5 and health.strength(0.2) == 0
    assert not health.lost(0.4) and health.lost(0.6)


def test_a_camera_that_corrects_nothing_is_told_once():
    """It was left aside without a word while the other one corrected."""
    health, late = Health(Trust(patience=0.5), ("a", "b"), 0.0), {"b": "its newest picture is 0.20 s old"}
    for step in range(90):
        health.hears(late if step < 60 else {"b": "it has given no picture"}, step / 60)
    assert health.warnings == ["camera 'b' corrects nothing: its newest picture is 0.20 s old"]
    health.hears({}, 1.5)
    health.hears(late, 1.9)
    assert len(health.warnings) == 1  # not for long
    health.hears(late, 2.1)
    assert len(health.warnings) == 2


@pytest.mark.parametrize(
    "settings, says",
    [({"probe": 0}, "probe"), ({"margin": float("nan")}, "margin"), ({"bounds": {"a": float("nan")}}, "bounds"),
     ({"overlap": 2}, "overlap"), ({"stale": -1}, "stale")],
)  # fmt: skip
def test_trust_that_is_none_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Trust(**settings)


class Blind(Aligner):
    """Of two cameras that never give a picture; it need not see anything."""

    def __init__(self):
        self.gaussians, self.cameras = Bodies(("t",)), {"a": None, "b": None}

    def reset(self):
        pass


@dataclass
class Bodies:
    bodies: tuple[str, ...]


def test_without_any_picture_the_arm_is_held(task):
    """It went on uncorrected."""
    lane, real = task.lane(), GuardedStandIn(StandIn(task, SAME, {}, {}))
    lane.reset(seed=3)
    real.begin(3)
    loop = Loop(lane.model, lane.data, real, Blind(), LoopSettings(), np.array([lane.model.body("t").id]))
    rows = np.tile(lane.data.ctrl, (round(1 / 60 / lane.model.opt.timestep), 1))
    held = [loop.tick(rows).held for _ in range(40)]
    assert not any(held[:28]) and "no camera agrees" in held[-1]
    assert [warning.partition(":")[0] for warning in loop.warnings] == [f"camera '{n}' corrects nothing" for n in "ab"]


def test_timing_counts():
    timing = Timing(1 / 60)
    for work in (0.001, 0.003, 0.030):
        timing.add(work, work > 1 / 60, {"physics": work})
    found = timing.summary()
    assert found["ticks"] == 3 and found["missed"] == 1 and found["histogram"]["< 33.3"] == 1
    assert "missed: 1" in as_text(found)


def test_the_guard_of_a_stand_in_lets_demonstrations_pass(twin):
    """From the first command on: what it bent put the stick a centimetre off."""
    actor = twin(real=Reality(), correct=False, loop=LoopSettings(trim=0.0, lead=0.0)).begin(900)
    for _ in range(40):
        actor.stage.order(actor.stage.lane.expert_action())
        while not actor.stage.done:
            tick = actor.stage.tick()
            assert np.abs(actor.stage.real.verdict.sent - tick.joints).max() < 0.01, actor.stage.real.verdict
        actor.stage.lane.ticks += 1


def test_the_guard_bends_hardly_more_where_what_is_sent_leads_a_little(twin):
    """By default it is less than two ticks late by the clock; twice as far ahead, every fourth command was bent."""
    bent = []
    for lead in (0.0, LoopSettings().lead, 4 * LoopSettings().lead):
        actor = twin(real=Reality(), correct=False, loop=LoopSettings(trim=0.0, lead=lead)).begin(900)
        bent.append(0)
        for _ in range(40):
            actor.stage.order(actor.stage.lane.expert_action())
            while not actor.stage.done:
                actor.stage.tick()
                bent[-1] += actor.stage.real.verdict.outcome is Outcome.bent
            actor.stage.lane.ticks += 1
    none, little, much = bent
    assert little <= none + 2 and much > 10 * max(little, 1), bent


def test_a_lag_is_no_sag():
    """Of joints that swing and are late, nothing is added, and the lag is told; of those that hang, the sag alone."""
    trim, late = Trim(5.0, 2), 0.03
    for step in range(300):
        now = step / 60
        wanted, echo = (np.array([np.sin(3 * at), 0.0]) for at in (now, now - late))
        trim.learn(wanted, echo - [0.0, 0.02] + [0.0, trim.offset[1]], now)
    assert trim.lag == pytest.approx(late, abs=0.005)
    assert trim.offset == pytest.approx([0, 0.02], abs=0.005)


def test_what_joints_lack_in_the_long_run_is_added():
    trim = Trim(5.0, 2)
    for step in range(200):
        trim.learn(np.array([0.1, 1.0]), np.array([0.07, 0.0]) + trim.offset, step / 60)
    assert trim.offset == pytest.approx([0.03, MOST], abs=1e-3)  # of a sag; bounded where it is blocked


def looking(task, **settings) -> Loop:
    """A loop that has not ticked, of two cameras `a` and `b`."""
    lane, real = task.lane(), GuardedStandIn(StandIn(task, SAME, {}, {}))
    lane.reset(seed=3)
    loop = Loop(lane.model, lane.data, real, Blind(), LoopSettings(**settings), np.array([lane.model.body("t").id]))
    loop.health = Health(loop.settings.trust, "ab", 0.0)
    return loop


def test_cameras_take_turns_however_old_their_pictures_are(task):
    """The one with the older pictures was looked at again and again; with stale ones, the other hardly ever."""
    loop = looking(task)
    for ages, expected in (
        ({"a": 0.1, "b": 0.005}, "abababab"),  # both may correct
        ({"a": 0.005}, "aaaa"),  # b has stopped
    ):
        chosen = []
        for _ in expected:
            chosen += loop._in_turn(ages)
            loop.tick_number += 1
        assert "".join(chosen) == expected
    for spoil in (lambda: {"a": 0.2, "b": 0.005}, lambda: loop._frozen.add("a") or {"a": 0.005, "b": 0.005}):
        ages = spoil()
        for _ in range(4):  # a corrects nothing, and takes no turn
            assert set(loop._in_turn(ages)) == {"a", "b"}
            loop.tick_number += 1
    assert set(looking(task, at_once=0)._in_turn({"a": 0.1, "b": 0.005})) == {"a", "b"}


@pytest.mark.parametrize("at_once", [0, 1])
def test_what_one_camera_sees_counts_while_the_other_has_its_turn(task, at_once):
    """Of two objects each camera saw one: in no tick all were seen, and the arm was held."""
    loop = looking(task, at_once=at_once)

    def found(seen, overlap):
        nothing = np.zeros((3, 6)), np.zeros((3, 4, 4))
        return Correction(np.arange(3), *nothing, seen=np.array(seen), overlap=np.array(overlap))

    loop._round(found([1, 1, 0], [0.2, 0.9, 0.0]))
    loop._round(found([1, 1, 0], [0.4, 0.9, 0.0]))
    total, overlap = loop._round(found([1, 0, 1], [0.6, 0.0, 0.7]))
    if at_once:
        np.testing.assert_allclose((total, overlap), ([2, 1, 1], [0.5, 0.9, 0.7]))
    else:
        np.testing.assert_allclose((total, overlap), ([1, 0, 1], [0.6, 0.0, 0.7]))
