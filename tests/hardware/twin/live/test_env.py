"""The twin as a world: offline the other world itself, online one lane whose loop is another process."""

import dataclasses
import time
from contextlib import closing

import numpy as np
import pytest

from understudy.configs.lanes.lanes import open_world
from understudy.configs.world import read_world, start_set
from understudy.hardware.twin.env import Reality, TwinWorld
from understudy.hardware.twin.live.loop import LoopSettings

SO101 = {"type": "mujoco", "task": "so101-pusht"}


def test_offline_is_the_other_world_to_the_last_bit(task):
    twin = read_world({"type": "twin", "of": SO101})
    assert start_set(twin) == start_set(task) and twin.embodiment() == task.embodiment()
    with closing(open_world(twin, 3)) as one, closing(open_world(task, 3)) as two:
        first, second = one.reset(seed=[4, 5, 6])[0], two.reset(seed=[4, 5, 6])[0]
        rest = np.array(one.call("rest"))
        for step in range(4):
            assert all(np.array_equal(first[key], second[key]) for key in first)
            action = rest + 0.1 * np.sin(step)
            first, second = one.step(action)[0], two.step(action)[0]


def test_online_acts_as_offline_where_nothing_is_corrected(task):
    twin = read_world({"type": "twin", "of": SO101, "real": {}, "correct": False})
    assert start_set(twin) == start_set(task)
    lane, plain = twin.lane(), task.lane()
    try:
        first, _ = lane.reset(seed=5)
        second, _ = plain.reset(seed=5)
        for _ in range(15):
            action = lane.expert_action()
            assert np.array_equal(action, plain.expert_action())
            assert all(np.array_equal(first[key], second[key]) for key in first)
            first, reward, *_, info = lane.step(action)
            second, same, *_ = plain.step(action)
            assert reward == same and np.array_equal(info["action.sent"], action)
        account = lane.account()
        assert account["timing"]["ticks"] == 30 and not account["held_ticks"]
        assert len(lane.ticks_done()) == 30 and lane.tracking().bodies == ("t",)
    finally:
        lane.close()


def test_the_delay_of_the_other_world_holds_online_too():
    """It held offline alone: the same policy then acted sooner where an arm follows."""
    world = {"type": "twin", "of": SO101 | {"delay": 2}}
    lanes = [read_world(world).lane(), read_world(world | {"real": {}, "correct": False}).lane()]
    try:
        seen = [lane.reset(seed=5)[0] for lane in lanes]
        for _ in range(4):
            action = seen[0]["observation.state"] + np.float32(0.05)
            seen = [lane.step(action)[0] for lane in lanes]
            assert all(np.array_equal(seen[0][key], seen[1][key]) for key in seen[0])
    finally:
        for lane in lanes:
            lane.close()


def test_by_the_clock_it_keeps_its_rate(task):
    twin = read_world({"type": "twin", "of": SO101, "real": {}, "correct": False, "pace": "wall"})
    lane = twin.lane()
    try:
        lane.reset(seed=5)
        for _ in range(10):
            lane.step(lane.rest())
        timing = lane.account()["timing"]
        assert timing["ticks"] >= 20 and timing["rate"] == 60  # those without an action are counted, too
        truth = lane.truth()
        assert truth.qpos.shape == (13,)
    finally:
        lane.close()


def test_orders_are_heard_where_every_tick_is_late(task):
    twin = read_world({"type": "twin", "of": SO101, "real": {}, "correct": False, "pace": "wall"})
    lane = dataclasses.replace(twin, loop=LoopSettings(rate=3000)).lane()
    try:
        lane.reset(seed=5)
        begun = time.monotonic()
        lane.step(lane.rest())
        assert time.monotonic() - begun < 30 and lane.account()["timing"]["missed"] > 50
    finally:
        lane.close()


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"pace": "fast"}, "free or wall"),
        ({"judge": "truth"}, "only a stand-in"),
        ({"real": {}, "robot": "arm.yaml"}, "not by both"),
        ({"robot": "arm.yaml"}, "pace: wall"),
        ({"real": {"of": {"type": "mujoco", "task": "so101-reach"}}}, "so101-reach"),
        ({"real": {"changes": {"mass": -1}}}, "mass"),
        ({"loop": {"rate": 0}}, "rate"),
        ({"of": {"type": "gym_pusht"}, "real": {}}, "plain MuJoCo"),
        ({"correct": False}, "nothing follows this twin.*correct would do nothing"),
        ({"pace": "wall"}, "nothing follows this twin.*pace would do nothing"),
        ({"loop": {"share": 0.5}}, "nothing follows this twin.*loop would do nothing"),
        ({"real": {}, "align": {"kp": 4.0}}, "give its scene"),
        ({"real": {}, "scene": "scene", "align": {"modee": "mask"}}, "modee"),
        ({"real": {}, "scene": "scene", "align": {"mode": "masks"}}, "masks"),
        ({"real": {}, "correct": False, "eyes": {"front": [96, 96]}}, "nobody looks"),
        ({"robot": "arm.yaml", "pace": "wall", "eyes": {"front": [96, 96]}}, "cameras"),
        ({"real": {"of": SO101 | {"horizon": 50}}}, "real.of.horizon would do nothing"),
        ({"real": {"of": SO101 | {"delay": 2}}}, "real.of.delay would do nothing"),
    ],
)
def test_refusals(settings, says):
    with pytest.raises(Exception, match=says):
        world = read_world({"type": "twin", "of": SO101} | settings)
        assert isinstance(world, TwinWorld)


def test_a_stand_in_is_a_world_of_its_own(task):
    world = read_world({"type": "stand_in", "of": SO101, "changes": {"mass": 2.0}})
    assert start_set(world) == start_set(task)
    lane, plain = world.lane(), task.lane()
    block = plain.model.body("t").id
    assert np.isclose(lane.model.body_mass[block], 2 * plain.model.body_mass[block])
    assert world.fingerprint() != task.fingerprint()
    for key, value in (("noise", 0.0), ("faults", [{"kind": "loss", "at": 1}])):
        with pytest.raises(Exception, match=f"not {key}"):
            read_world({"type": "stand_in", "of": SO101, "changes": {key: value}})


def test_ticks_must_fill_control_steps(twin):
    with pytest.raises(ValueError, match="multiple of 30"):
        twin(real=Reality(), correct=False, loop=LoopSettings(rate=50))
