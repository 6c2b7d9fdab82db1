"""The demonstrator of Door: it opens it, recovers, and has styles and flaws as the others have."""

import numpy as np
import pytest

from understudy.configs.world import find_world
from understudy.sim.experts import EXPERTS, Manner
from understudy.sim.robosuite.door_expert import Handle


@pytest.fixture(scope="module")
def lane():
    made = find_world("door").lane()
    yield made
    made.close()


def play(lane, start, manner=0.0, action_noise=0.0):
    """(steps until success or None, progress at every step)."""
    lane.reset(seed=start, options={"action_noise": action_noise})
    progress = []
    for _ in range(lane.horizon):
        _, terminated, _, info = lane.advance(lane.expert_action(manner))
        progress.append(info["progress"])
        if terminated:
            return lane.ticks, progress
    return None, progress


def test_it_opens_the_door_although_it_is_shaken(lane):
    steps, progress = play(lane, 100001, action_noise=0.05)
    assert steps < 200 and Handle.of(lane).opened > 0.3
    assert min(progress) >= 0 and progress[-1] == 1 and max(progress[:-1]) < 1


def test_the_handle_is_where_robosuite_says(lane):
    lane.reset(seed=3)
    handle = Handle.of(lane)
    assert np.allclose(handle.point(0.125), lane.suite._handle_xpos, atol=1e-6)
    x, y = handle.hand()
    assert np.allclose(np.cross(x, y), handle.axes[:, 1])  # the hand points into the door
    assert handle.turned == pytest.approx(0, abs=0.05) and handle.opened == pytest.approx(0, abs=0.01)


def test_styles_and_flaws(lane):
    assert play(lane, 100000, Manner(style="quick"))[0] < play(lane, 100000, Manner(style="slow"))[0]
    failing = Manner(fail=1.0)
    starts = {failing.of("door", start)["flaw"]: start for start in range(100000, 100010)}
    assert set(starts) == {"miss", "tug"}
    lane.reset(seed=starts["tug"])
    for _ in range(150):
        lane.advance(lane.expert_action(failing))
    assert Handle.of(lane).opened < 0.3 and not lane.judge()[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_succeeds_nearly_always(lane):
    assert np.mean([play(lane, start)[0] is not None for start in range(100000, 100100)]) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("style", sorted(EXPERTS["door"].styles))
def test_every_style_succeeds_mostly(lane, style):
    ends = [play(lane, start, Manner(style=style))[0] is not None for start in range(100000, 100010)]
    assert np.mean(ends) >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_fails_on_purpose_fails(lane):
    assert all(play(lane, start, Manner(fail=1.0))[0] is None for start in range(100000, 100006))
