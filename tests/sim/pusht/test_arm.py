"""PushT with an arm is PushT: its joints bring the pusher where the free one goes; one policy fits all its worlds."""

import dataclasses

import numpy as np
import pytest

from understudy.configs.spec import IMAGES, SCENE, STATE
from understudy.configs.world import find_world, start_set
from understudy.eval.studies.pusht_replay import replay
from understudy.sim.pusht.arm import ARM, HEIGHT, LEAP, drive
from understudy.sim.pusht.panda import REST
from understudy.sim.pusht.pusht import to_metres

WORLDS = ("pusht-mujoco", "pusht-arm")


@pytest.fixture(scope="module")
def pair():
    """(free pusher, arm) with one small camera."""
    lanes = [dataclasses.replace(find_world(name), cameras={"image": (96, 96)}).lane() for name in WORLDS]
    yield lanes
    for lane in lanes:
        lane.close()


def circle(step: int) -> np.ndarray:
    return np.array([256 + 180 * np.cos(step / 12), 256 + 180 * np.sin(step / 12)], np.float32)


def test_one_policy_one_start_set_and_one_picture_fit_both(pair):
    free, arm = (find_world(name) for name in WORLDS)
    assert free.embodiment() == arm.embodiment() and free.steps() == arm.steps()
    assert start_set(free) == start_set(arm)
    for seed in (0, 7, 1000, 123456):
        (first, told), (second, said) = (lane.reset(seed=seed) for lane in pair)
        assert np.allclose(first[STATE], second[STATE], atol=1e-3) and np.allclose(first[SCENE], second[SCENE])
        assert told == said
        off = np.abs(first[IMAGES + "image"].astype(int) - second[IMAGES + "image"])
        assert off.mean() < 0.1, "the arm is not in this picture"


def test_the_pusher_goes_where_the_free_one_goes(pair):
    for lane in pair:
        lane.reset(seed=0, options={"state": (430, 256, 256, 256, 0.3)})
    away = []
    for step in range(60):
        first, second = (lane.step(circle(step))[0] for lane in pair)
        away.append(np.abs(first[STATE] - second[STATE]).max())
    assert np.mean(away) < 1 and max(away) < 3


def test_the_joints_carry_it(pair):
    arm = pair[1]
    assert arm.model.neq == arm.model.nmocap == 0 and arm.model.nu == 7
    arm.reset(seed=3)
    before = arm.sense()[STATE]
    for step in range(5):
        arm.step(circle(step))
    measured = arm.task.kinematics.forward(arm.data.qpos[ARM])[0]
    assert np.allclose(measured, arm.data.site("tip").xpos, atol=1e-9)
    assert np.abs(arm.sense()[STATE] - before).max() > 20
    arm.reset(seed=3)
    held = arm.data.ctrl.copy()
    arm.task.controls = lambda data, actions: np.tile(held, (len(actions), 50, 1))
    for step in range(5):
        arm.step(circle(step))
    del arm.task.controls
    assert np.abs(arm.sense()[STATE] - before).max() < 0.1, "joints that are told to stay keep the pusher"


def test_the_whole_table_is_in_reach(pair):
    kinematics = pair[1].task.kinematics
    for px in np.stack(np.meshgrid([0, 128, 256, 384, 512], [0, 128, 256, 384, 512]), -1).reshape(-1, 2):
        told = kinematics.settle(np.array([*to_metres(px), HEIGHT]))
        assert told.away < 1e-4 and told.lean < 1e-3
        assert (told.angles > kinematics.low + 0.1).all() and (told.angles < kinematics.high - 0.1).all()
    assert len(REST) == len(told.angles)


def test_wild_targets_do_not_throw_it_off(pair):
    arm, rng = pair[1], np.random.default_rng(0)
    arm.reset(seed=5)
    for _ in range(40):
        arm.step(rng.uniform(0, 512, 2).astype(np.float32))
        limits = arm.model.jnt_actfrcrange[3:, 1]
        assert (np.abs(arm.data.qfrc_actuator[ARM]) <= limits + 1e-9).all()
    target = np.array([100, 400], np.float32)
    for _ in range(20):
        seen = arm.step(target)[0]
    assert np.abs(seen[STATE] - target).max() < 3
    assert abs(arm.data.site("tip").xpos[2] - HEIGHT) < 0.002


def test_a_far_target_pulls_no_more_than_a_near_one():
    near = drive(np.zeros(2), np.zeros(2), np.array([LEAP, 0]), 5)
    far = drive(np.zeros(2), np.zeros(2), np.array([0.4, 0]), 5)
    nearer = drive(np.zeros(2), np.zeros(2), np.array([LEAP / 2, 0]), 5)
    assert far[1][0] == pytest.approx(near[1][0], rel=0.05) and nearer[1][0] == pytest.approx(near[1][0] / 2)


@pytest.mark.parametrize("index", [0, 1], ids=WORLDS)
def test_states_are_exact(pair, index):
    lane = pair[index]
    lane.reset(seed=9)
    for step in range(7):
        lane.step(circle(step))
    state, seen = lane.get_state(), lane.sense()
    first = [lane.step(circle(step))[0] for step in range(12)]
    other = find_world(WORLDS[index]).lane()
    other.reset(seed=11)
    other.step(circle(2))
    other.set_state(state)
    assert all((other.sense()[key] == seen[key]).all() for key in (STATE, SCENE))
    for step, told in enumerate(first):
        again = other.step(circle(step))[0]
        assert all((again[key] == told[key]).all() for key in (STATE, SCENE))
    assert (other.get_state() == lane.get_state()).all()
    with pytest.raises(ValueError, match="has .* numbers"):
        other.set_state(state[:-1])


def test_human_episodes_replay(data_root):
    file = data_root / "pusht_human" / "full_state.npz"
    free, arm = (replay(find_world(name), file, 4) for name in WORLDS)
    assert np.abs(arm.final - arm.recorded).mean() < 0.15
    away = np.linalg.norm(arm.pusher - free.pusher, axis=1)
    assert away.mean() < 0.5 and away.max() < 3


def test_unknown_cameras_and_tasks_are_named():
    with pytest.raises(LookupError, match="front, image"):
        dataclasses.replace(find_world("pusht-arm"), cameras={"attic": (8, 8)}).embodiment()
    with pytest.raises(LookupError, match="pusht-arm"):
        dataclasses.replace(find_world("pusht-arm"), task="pusht")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_human_episodes_replay(data_root):
    file = data_root / "pusht_human" / "full_state.npz"
    free, arm = (replay(find_world(name), file) for name in WORLDS)
    off = np.abs(arm.final - arm.recorded)
    assert len(off) == 180 and off.mean() < 0.05 and np.median(off) < 0.005
    away = np.linalg.norm(arm.pusher - free.pusher, axis=1)
    assert away.mean() < 0.5 and np.quantile(away, 0.99) < 1
