"""PushT in MuJoCo is gym-pusht's task: the same door, starts, pictures and, nearly, the same pushes."""

import dataclasses

import numpy as np
import pytest

from understudy.configs.spec import IMAGES, SCENE, STATE
from understudy.configs.world import find_world, start_set
from understudy.eval.studies.pusht_replay import replay
from understudy.sim.pusht.pusht import GAME_STEP, block_corners, gains, polygons


@pytest.fixture(scope="module")
def pair():
    """(gym-pusht, MuJoCo) with one small camera."""
    lanes = [dataclasses.replace(find_world(name), cameras={"image": (96, 96)}).lane() for name in WORLDS]
    yield lanes
    for lane in lanes:
        lane.close()


WORLDS = ("pusht", "pusht-mujoco")


def test_one_policy_and_one_start_set_fit_both():
    game, ours = (find_world(name) for name in WORLDS)
    assert game.embodiment() == ours.embodiment() and game.steps() == ours.steps()
    assert start_set(game) == start_set(ours)


def test_starts_and_pictures_are_the_same(pair):
    for seed in (0, 7, 1000, 123456):
        (first, told), (second, said) = (lane.reset(seed=seed) for lane in pair)
        assert np.abs(pair[0].block_pose() - pair[1].block_pose()).max() < 3, "gym-pusht frees an overlapping block"
        assert np.allclose(first[STATE], second[STATE], atol=1e-3)
        assert np.abs(first[SCENE] - second[SCENE]).max() < 3
        assert said["progress"] == pytest.approx(told["progress"], abs=0.02)
        off = np.abs(first[IMAGES + "image"].astype(int) - second[IMAGES + "image"])
        assert off.mean() < 4, "the picture shows the same"


def test_the_pusher_moves_alike(pair):
    state = (100, 100, 400, 400, 0)
    for lane in pair:
        lane.reset(seed=0, options={"state": state})
    for step in range(30):
        action = np.array([100 + 10 * step, 100 + 40 * (step % 3)], np.float32)
        first, second = (lane.step(action)[0] for lane in pair)
        assert np.abs(first[STATE] - second[STATE]).max() < 6
    assert gains(GAME_STEP) == pytest.approx((100.0, 20.0))


@pytest.mark.parametrize("side", [(-40, -30), (0, -30), (30, 60)])
def test_a_push_moves_the_block_alike(pair, side):
    corners = block_corners(np.array([256.0, 250.0, 0.3]))
    begin = corners[0] + np.array(side) * 1.5
    state = (*begin, 256, 250, 0.3)
    poses = []
    for lane in pair:
        lane.reset(seed=0, options={"state": state})
        for step in range(15):
            lane.step((begin + step * np.array([9.0, 7.0])).astype(np.float32))
        poses.append(lane.block_pose())
    assert np.abs(poses[0][:2] - poses[1][:2]).max() < 3 and abs(poses[0][2] - poses[1][2]) < 0.05


def test_coverage_is_one_on_the_goal_and_ends_the_episode():
    lane = find_world("pusht-mujoco").lane()
    lane.reset(seed=0)
    lane.data.qpos[:3] = 0, 0, 0
    before = lane.block_pose()
    goal = np.array([256.0, 256.0, np.pi / 4])
    lane.task.put(lane.data, np.array([60.0, 60.0, 0, 0, goal[2]]))
    lane.data.qpos[:2] += (goal[:2] - lane.block_pose()[:2]) * (1e-3, -1e-3)
    assert np.allclose(lane.block_pose(), goal) and not np.allclose(before, goal)
    assert lane.task.coverage(lane.data) == pytest.approx(1.0)
    _, reward, terminated, _, info = lane.step(lane.rest())
    assert terminated and info["success"] and info["progress"] == reward == 1.0
    assert polygons(block_corners(goal)).area == pytest.approx(120 * 30 + 30 * 90)


def test_walls_hold_the_block_and_not_the_pusher():
    lane = find_world("pusht-mujoco").lane()
    lane.reset(seed=0, options={"state": (100, 250, 200, 250, 0)})
    for step in range(60):
        obs = lane.step(np.array([min(512, 100 + 10 * step), 260], np.float32))[0]
    assert obs[STATE][0] > 480
    assert obs[SCENE].reshape(-1, 2)[:, 0].max() < 512


def test_human_episodes_replay(data_root):
    told = replay(find_world("pusht-mujoco"), data_root / "pusht_human" / "full_state.npz", 12)
    off = np.abs(told.final - told.recorded)
    assert off.mean() < 0.15 and np.median(off) < 0.02
    assert np.corrcoef(told.progress, told.recorded_progress)[0, 1] > 0.95


@pytest.mark.slow
def test_all_human_episodes_replay(data_root):
    told = replay(find_world("pusht-mujoco"), data_root / "pusht_human" / "full_state.npz")
    off = np.abs(told.final - told.recorded)
    assert len(off) == 180 and off.mean() < 0.05 and np.median(off) < 0.005
