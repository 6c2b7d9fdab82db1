"""The SO-101 on its table: it sees, holds, and its demonstrators do what they show. Contracts: test_sim_contract.py."""

import dataclasses

import numpy as np
import pytest

from understudy.configs.spec import SCENE
from understudy.configs.world import find_world
from understudy.sim.so101 import tabletop
from understudy.sim.so101.tabletop import CUBE, GOAL, SCALE, T_AREA, coverage


@pytest.fixture(scope="module")
def pick():
    lane = find_world("so101-pick-place").lane()
    yield lane
    lane.close()


def succeeds(lane, start, steps):
    lane.reset(seed=start)
    for _ in range(steps):
        _, _, terminated, truncated, _ = lane.step(lane.expert_action())
        if terminated or truncated:
            return terminated
    return False


def lift(lane, start):
    """Let the expert grasp and lift the cube; the height it got to."""
    lane.reset(seed=start)
    for _ in range(200):
        lane.step(lane.expert_action())
        if lane.data.body("cube").xpos[2] > 0.035:
            return float(lane.data.body("cube").xpos[2])
    raise AssertionError("the cube was never lifted")


def test_the_fingers_hold_the_cube_for_two_seconds(pick):
    for start in (1, 2, 3):
        lift(pick, start)
        for _ in range(10):
            pick.step(pick.rest())
        before = pick.data.body("cube").xpos.copy()
        for _ in range(60):
            pick.step(pick.rest())
        assert np.linalg.norm(pick.data.body("cube").xpos - before) < 0.003
        assert pick.task.touched(pick.model, pick.data)


def test_a_cube_in_the_hand_is_not_placed(pick):
    lift(pick, 4)
    pick.data.mocap_pos[0, :2] = pick.data.body("cube").xpos[:2]
    assert not pick.judge()[0]


def test_starts_are_fair(pick):
    for start in range(40):
        scene = pick.reset(seed=start)[0][SCENE]
        assert np.linalg.norm(scene[:2] - scene[9:11]) > 0.08 and np.isclose(scene[2], CUBE / 2, atol=1e-4)
    lane = find_world("so101-pusht").lane()
    for start in range(40):
        _, info = lane.reset(seed=start)
        assert info["progress"] < 0.55
    lane.close()


@pytest.mark.parametrize("name", ["so101-reach", "so101-pick-place", "so101-pusht"])
def test_both_cameras_show_something_and_not_the_same(name):
    world = dataclasses.replace(find_world(name), cameras={"front": (64, 64), "wrist": (64, 64)})
    lane = world.lane()
    obs, _ = lane.reset(seed=0)
    front, wrist = obs["observation.images.front"], obs["observation.images.wrist"]
    assert front.std() > 15 and wrist.std() > 15
    assert np.abs(front.astype(int) - wrist).mean() > 15
    for _ in range(10):
        obs = lane.step(lane.expert_action())[0]
    assert (obs["observation.images.wrist"] != wrist).mean() > 0.1, "the camera of the hand moves with it"
    lane.close()


def test_the_t_is_gym_pusht_s():
    assert np.isclose(T_AREA, (120 * 30 + 30 * 90) * SCALE**2)
    place, angle = np.array(GOAL[:2]), GOAL[2]
    assert coverage(place, angle) == 1.0 and coverage(place + 0.1, angle) == 0.0
    # along the stem by d: the bar loses its width times d but the stem's, and the foot its width times d
    d, along = 0.004, np.array([np.sin(angle), -np.cos(angle)])
    lost = (120 * SCALE * d) / T_AREA
    assert np.isclose(coverage(place + d * along, angle), 1 - lost, atol=0.01)


@pytest.mark.parametrize("start", range(100010, 100016))
def test_the_pick_place_expert(pick, start):
    assert succeeds(pick, start, 450)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("so101-reach", 98), ("so101-pick-place", 95), ("so101-pusht", 90)])
@pytest.mark.timeout(900)
def test_experts_over_a_hundred_starts(name, least):
    world = find_world(name)
    lane = world.lane()
    won = sum(succeeds(lane, start, world.steps()) for start in range(1000, 1100))
    lane.close()
    assert won >= least, won


def test_recovery_from_a_shaken_arm(pick):
    won = 0
    for start in range(5):
        pick.reset(seed=start, options={"action_noise": 0.01})
        for _ in range(450):
            _, _, terminated, truncated, _ = pick.step(pick.expert_action())
            if terminated or truncated:
                break
        won += terminated
    assert won >= 4, won


def test_the_t_is_the_planar_task_s():
    from understudy.sim.pusht.pusht import CORNERS

    corners = [np.array([x, y]) for x, y in CORNERS * SCALE]
    for (centre, half), four in zip(tabletop.T_BOXES, (corners[:4], corners[4:]), strict=True):
        # gym-pusht's y points down
        assert np.allclose(np.ptp(four, axis=0), 2 * half) and np.allclose(np.mean(four, axis=0) * [1, -1], centre)


def test_constants_fit_the_hand():
    assert 2 * tabletop.STICK < 0.0195 and CUBE < 0.04
