"""robosuite's other tasks: what they tell, both kinds of action, states that are set exactly, other arms."""

import numpy as np
import pytest

from understudy.configs.spec import SCENE, STATE, Mode
from understudy.configs.world import find_world
from understudy.sim.robosuite.build import Draws, draws, open_robosuite
from understudy.sim.robosuite.suite import Robosuite
from understudy.sim.robosuite.tasks import SUITE, six, turn


def told(lane, obs):
    return dict(zip(lane.embodiment.scene, obs[SCENE], strict=True))


def some_actions(lane, count, seed=0):
    low, high = lane.action_space.low, lane.action_space.high
    return np.random.default_rng(seed).uniform(low, high, (count, len(low))).astype(np.float32)


@pytest.mark.parametrize("task", sorted(SUITE))
@pytest.mark.parametrize("control", ["delta", "absolute"])
def test_trajectories_are_robosuite_s_own_to_the_last_bit(task, control):
    ours, theirs = (Robosuite(task=task, control=control).lane() for _ in range(2))
    theirs._fast = False
    for start in (5, 6):
        ours.reset(seed=start), theirs.reset(seed=start)
        assert ours._stepper and not theirs._stepper
        for action in np.repeat(some_actions(ours, 5), 5, 0):
            one, other = ours.advance(action), theirs.advance(action)
            assert one[:3] == other[:3] and one[3]["progress"] == other[3]["progress"]
            for name in ("qpos", "qvel", "ctrl", "site_xpos"):
                first, second = (getattr(lane.suite.sim.data._data, name) for lane in (ours, theirs))
                assert (first == second).all(), (task, name)
    ours.close(), theirs.close()


@pytest.mark.parametrize(("task", "environment"), [("lift", "Lift"), ("can", "PickPlaceCan")])
def test_fifty_steps_equal_those_of_robosuite_as_it_comes(task, environment):
    stock = open_robosuite().make(
        environment,
        robots="Panda",
        control_freq=20,
        reward_shaping=True,
        ignore_done=True,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        seed=0,
    )
    stock.reset()
    stock.hard_reset = False
    lane = Robosuite(task=task).lane()
    lane.reset(seed=5)
    with draws(stock, 5):
        stock.reset()
    for action in some_actions(lane, 50):
        reward, *_ = lane.advance(action)
        assert reward == stock.step(action.astype(np.float64))[1]
        assert (lane.suite.sim.data.qpos == stock.sim.data.qpos).all()
        assert (lane.suite.sim.data.qvel == stock.sim.data.qvel).all()
    lane.close(), stock.close()


@pytest.mark.parametrize(("task", "before"), [("lift", 25), ("can", 25), ("door", 25), ("can", 0)])
def test_a_state_that_is_set_goes_on_as_the_original(task, before):
    world = Robosuite(task=task)
    lane, other = world.lane(), world.lane()
    lane.reset(seed=7)
    other.reset(seed=8)
    actions = some_actions(lane, before + 20)
    for action in actions[:before]:
        lane.step(action)
    state = lane.get_state()
    expected = [lane.step(action) for action in actions[before:]]
    for copy in (other, lane):
        copy.set_state(state)
        for action, wanted in zip(actions[before:], expected, strict=True):
            got = copy.step(action)
            assert all((got[0][key] == wanted[0][key]).all() for key in wanted[0]) and got[1:4] == wanted[1:4]
    with pytest.raises(ValueError, match="numbers"):
        lane.set_state(state[:-1])
    lane.close(), other.close()


def test_scenes_say_what_their_names_say():
    for task, thing, rest, way in (
        ("can", "can", 0.86, "gripper_to_can"),
        ("square", "nut", 0.83, None),
        ("stack", "red", 0.82, "gripper_to_red"),
    ):
        lane = Robosuite(task=task).lane()
        obs, _ = lane.reset(seed=4)
        for _ in range(10):
            obs, *_ = lane.step(lane.rest())
        scene = told(lane, obs)
        assert scene[f"{thing}.z"] == pytest.approx(rest, abs=0.02)
        columns = np.array([scene[f"{thing}.{column}_{axis}"] for column in "xy" for axis in "xyz"])
        assert np.allclose(six(turn(columns)), columns, atol=1e-5)
        if way:
            place = np.array([scene[f"{thing}.{axis}"] for axis in "xyz"])
            assert np.allclose([scene[f"{way}.{axis}"] for axis in "xyz"], place - obs[STATE][:3], atol=1e-5)
        lane.close()


def test_a_door_stands_elsewhere_at_another_start():
    lane = Robosuite(task="door").lane()
    first, second, again = (told(lane, lane.reset(seed=seed)[0]) for seed in (1, 2, 1))
    assert first == again and first["handle.x"] != second["handle.x"]
    assert lane.embodiment.scene_units[lane.embodiment.scene.index("hinge")] == "rad"
    lane.close()


def test_absolute_actions_are_where_the_hand_goes():
    world = Robosuite(task="lift", control="absolute")
    lane = world.lane()
    assert lane.embodiment.mode is Mode.absolute and lane.embodiment.rotation == "6d" and len(lane.rest()) == 10
    assert lane.embodiment.action_units == ("m",) * 3 + ("1",) * 7
    lane.reset(seed=3)
    goal = lane.rest()
    goal[:3] += [0.05, -0.08, -0.05]
    tilt = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    goal[3:9] = six(tilt @ turn(goal[3:9]))
    for _ in range(60):
        lane.step(goal)
    assert np.abs(lane.rest()[:9] - goal[:9]).max() < 0.01
    lane.close()


def test_a_delta_means_the_same_in_both_controls():
    delta, absolute = (Robosuite(task="lift", control=control).lane() for control in ("delta", "absolute"))
    delta.reset(seed=3), absolute.reset(seed=3)
    for action in some_actions(delta, 12) * 0.5:
        delta.step(action)
        absolute.step(absolute.as_action(action))
    assert np.abs(delta.gripper_pose()[0] - absolute.gripper_pose()[0]).max() < 2e-3
    delta.close(), absolute.close()


def test_columns_that_say_no_rotation_are_refused():
    assert np.allclose(turn([2, 0, 0, 1, 3, 0]), np.eye(3))
    for columns in ([0, 0, 0, 0, 1, 0], [1, 0, 0, 2, 0, 0]):
        with pytest.raises(ValueError, match="no rotation"):
            turn(columns)


@pytest.mark.parametrize(("task", "robot"), [("PickPlaceSingle", "Panda"), ("Wipe", "UR5e"), ("TwoArmLift", "Sawyer")])
def test_any_environment_and_arm(task, robot):
    world = Robosuite(task=f"robosuite/{task}", robot=robot)
    lane, other = world.lane(), world.lane()
    first, second = lane.reset(seed=11), other.reset(seed=11)
    for action in some_actions(lane, 4):
        assert all((first[0][key] == second[0][key]).all() for key in first[0])
        first, second = lane.step(action), other.step(action)
        assert lane.observation_space.contains(first[0]) and 0 <= first[4]["progress"] < 1
    assert lane.embodiment.name == robot.lower() and world.start_set.endswith(f"{task}#0") == (robot == "Panda")
    lane.close(), other.close()


def test_an_environment_of_robosuite_is_a_world_by_name():
    world = find_world("robosuite/PickPlaceCan")
    assert world.embodiment().scene == find_world("can").embodiment().scene
    with pytest.raises(LookupError, match="PickPlaceMilk"):
        find_world("robosuite/PickPlaceMilc")
    with pytest.raises(LookupError, match="Sawyer"):
        Robosuite(task="lift", robot="sawyer")


def test_a_choice_among_names_does_not_depend_on_their_order():
    one, other = (Draws(np.random.PCG64(3)).choice(list(names)) for names in ("abcdef", "fdbeca"))
    assert one == other
