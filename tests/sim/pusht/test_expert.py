"""The demonstrator of PushT: its model is gym-pusht's law, and it succeeds in both worlds."""

import dataclasses

import numpy as np
import pytest

from understudy.configs.world import find_world
from understudy.sim.experts import Manner
from understudy.sim.pusht.expert import centre_of_mass, waypoint
from understudy.sim.pusht.plan import RADIUS, errors, gap, goal_pose, keypoints, plan, slide
from understudy.sim.pusht.pusht import GOAL

WORLDS = ("pusht", "pusht-mujoco")


def act(name: str, start: int, manner=0.0, options=None, horizon=None) -> tuple[float, int]:
    """Best progress and length of one episode."""
    lane = dataclasses.replace(find_world(name), horizon=horizon).lane()
    lane.reset(seed=start, options=options)
    best, ended = 0.0, False
    while not ended:
        _, _, terminated, truncated, info = lane.step(lane.expert_action(manner))
        best, ended = max(best, info["progress"]), terminated or truncated
    return best, lane.ticks


def test_errors_are_those_of_the_keypoints():
    poses = np.random.default_rng(0).uniform([150, 150, -3], [350, 350, 3], (50, 3))
    away = keypoints(poses) - keypoints(goal_pose()[None])
    assert np.allclose(errors(poses), np.sqrt((away**2).sum(2).mean(1)))
    assert np.allclose(centre_of_mass(GOAL), goal_pose())


def test_the_model_slides_the_block_as_gym_pusht_does():
    lane = find_world("pusht").lane()
    for begin, way in (((320, 150), (-0.6, 0.8)), ((180, 300), (1, -0.3)), ((300, 380), (-0.1, -1))):
        lane.reset(seed=0, options={"state": (*begin, 256, 250, 0.3)})
        pose, disc = centre_of_mass(lane.block_pose())[None], np.array([lane.rest()], float)
        for step in range(20):
            lane.step((np.array(begin) + 6 * step * np.array(way)).astype(np.float32))
            now = np.array([lane.rest()], float)
            for part in np.linspace(0.1, 1, 10):
                pose = slide(pose, disc + part * (now - disc))
            disc = now
        assert np.abs(pose[0] - centre_of_mass(lane.block_pose()))[:2].max() < 2


def test_a_planned_push_brings_the_block_nearer():
    pose, disc = np.array([200.0, 300.0, 2.0]), np.array([100.0, 100.0])
    push = plan(pose, disc)
    assert gap(pose[None], push.begin[None])[0] > RADIUS
    moved, before = pose[None], errors(pose[None])[0]
    for part in np.linspace(0, 1, 200):
        moved = slide(moved, (push.begin + part * (push.end - push.begin))[None])
    assert errors(moved)[0] < before + 20 and np.abs(moved - pose).max() > 1


def test_the_way_round_does_not_touch_the_block():
    pose, now, target = np.array([256.0, 256.0, 0.4]), np.array([256.0, 120.0]), np.array([300.0, 390.0])
    steps = 0
    while np.linalg.norm(now - target) > 5 and steps < 100:
        way = waypoint(pose, now, target) - now
        now, steps = now + way * min(1, 10 / np.linalg.norm(way)), steps + 1
        assert gap(pose[None], now[None])[0] > RADIUS
    assert steps < 60


@pytest.mark.parametrize("name", WORLDS)
def test_the_expert_succeeds_also_when_disturbed(name):
    assert act(name, 100_007)[0] == 1.0
    assert act(name, 100_008, options={"action_noise": 0.03})[0] > 0.9


def test_it_fails_on_purpose():
    best, _ = act("pusht-mujoco", 100_000, Manner(fail=1.0), horizon=100)
    assert best < 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WORLDS)
def test_expert_level(name):
    best = np.array([act(name, start)[0] for start in range(100_000, 100_100)])
    assert best.mean() >= 0.9
