"""Experts of robosuite's tasks: they succeed, recover, and can be told to act in other styles or to fail."""

import numpy as np
import pytest

from understudy.configs.world import find_world
from understudy.sim.experts import EXPERTS, Manner
from understudy.sim.robosuite.experts import LiftExpert
from understudy.sim.robosuite.grasp import Gripper, frame, wrap

SUCCESS = {"lift": 0.99, "can": 0.95, "square": 0.90, "stack": 0.95}


@pytest.fixture(scope="module")
def lanes():
    made = {}

    def lane(name):
        if name not in made:
            made[name] = find_world(name).lane()
        return made[name]

    yield lane
    for one in made.values():
        one.close()


def play(lane, start, manner=0.0, action_noise=0.0, horizon=None):
    """Steps until success, or None."""
    lane.reset(seed=start, options={"action_noise": action_noise})
    for step in range(horizon or lane.horizon):
        _, terminated, truncated, _ = lane.advance(lane.expert_action(manner))
        if terminated or truncated:
            return step + 1 if terminated else None
    return None


@pytest.mark.parametrize("name", ["can", "square", "stack"])
def test_the_expert_succeeds_although_it_is_shaken(lanes, name):
    assert play(lanes(name), 100001, action_noise=0.05) < 300


def test_the_action_is_a_function_of_the_state(lanes):
    lane = lanes("stack")
    lane.reset(seed=5)
    for _ in range(30):
        lane.advance(lane.expert_action())
    state, actions = lane.get_state(), []
    for _ in range(2):
        lane.set_state(state)
        actions.append(lane.expert_action())
        for _ in range(5):
            lane.advance(lane.expert_action())
    assert (actions[0] == actions[1]).all()


def test_poses_serve_as_well_as_deltas():
    import dataclasses

    lane = dataclasses.replace(find_world("lift"), control="absolute").lane()
    assert play(lane, 100000) < 80
    lane.close()


def test_starts_draw_styles_and_flaws(lanes):
    manner = Manner(style="mixed", fail=0.3)
    drawn = [manner.of("lift", start) for start in range(300)]
    assert drawn == [manner.of("lift", start) for start in range(300)]
    assert {one["style"] for one in drawn} == {"plain", *LiftExpert.styles}
    failing = [one["flaw"] for one in drawn if one["flaw"]]
    assert set(failing) == set(LiftExpert.flaws) and 60 < len(failing) < 120
    assert Manner().of("lift", 1) == {"style": "plain", "flaw": ""}
    assert Manner(style="slow").of("lift", 1)["style"] == "slow"


def test_unknown_styles_name_the_known():
    with pytest.raises(LookupError, match="slow"):
        Manner(style="slwo").of("lift", 0)
    with pytest.raises(LookupError, match="cannot fail"):
        Manner(fail=0.5).of("point", 0)


def test_a_style_changes_how_and_a_flaw_whether(lanes):
    lane = lanes("lift")
    plain, slow = play(lane, 100000), play(lane, 100000, Manner(style="slow"))
    assert plain < slow
    failing = Manner(fail=1.0)
    starts = {failing.of("lift", start)["flaw"]: start for start in range(100000, 100010)}
    assert set(starts) == {"miss", "drop"}
    assert all(play(lane, start, failing) is None for start in starts.values())


def test_directions():
    hand = Gripper(np.zeros(3), frame(0.7), 0.08, 0.0)
    assert hand.yaw == pytest.approx(0.7)
    assert wrap(np.pi / 2 + 0.1, np.pi) == pytest.approx(0.1 - np.pi / 2)
    assert np.cross(*frame(0.3)) == pytest.approx([0, 0, -1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SUCCESS)
def test_experts_succeed_nearly_always(lanes, name):
    assert name in EXPERTS
    ends = [play(lanes(name), start) is not None for start in range(100000, 100100)]
    assert np.mean(ends) >= SUCCESS[name]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "style"), [(name, style) for name in SUCCESS for style in sorted(LiftExpert.styles)])
def test_every_style_succeeds_mostly(lanes, name, style):
    if style not in EXPERTS[name].styles:
        pytest.skip(f"{name} is not done in style {style}")
    ends = [play(lanes(name), start, Manner(style=style)) is not None for start in range(100000, 100010)]
    assert np.mean(ends) >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SUCCESS)
def test_who_fails_on_purpose_fails(lanes, name):
    ends = [play(lanes(name), start, Manner(fail=1.0)) is None for start in range(100000, 100006)]
    assert all(ends)
