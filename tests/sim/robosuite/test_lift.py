"""Lift: starts that are exact wherever they are run, observations that say what they mean, an expert that recovers."""

import numpy as np
import pytest

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import SCENE, STATE
from understudy.sim.robosuite import build
from understudy.sim.robosuite.build import global_draws
from understudy.sim.robosuite.suite import Robosuite
from understudy.sim.robosuite.tasks import six

LIFT = Robosuite(task="lift")


@pytest.fixture(scope="module")
def lane():
    made = LIFT.lane()
    yield made
    made.close()


def test_starts_do_not_depend_on_process_worker_or_history():
    tables = []
    for workers in (0, 1):
        lanes = Lanes(LIFT, 2, workers)
        if workers:
            lanes.reset(seed=[77, 78])
        obs, _ = lanes.reset(seed=[1000, 1001])
        actions = np.random.default_rng(1).uniform(-1, 1, (2, 6, 7))
        tables.append((obs, lanes.step_chunk(actions)))
        lanes.close()
    (one, first), (other, second) = tables
    for key in one:
        assert (one[key] == other[key]).all() and (first.obs[key] == second.obs[key]).all()
    assert (first.progress == second.progress).all()


def test_observations_say_what_their_names_say(lane):
    obs, _ = lane.reset(seed=4)
    state = dict(zip(lane.embodiment.state, obs[STATE], strict=True))
    scene = dict(zip(lane.embodiment.scene, obs[SCENE], strict=True))
    x = np.array([state[f"gripper.x_{axis}"] for axis in "xyz"])
    y = np.array([state[f"gripper.y_{axis}"] for axis in "xyz"])
    assert np.linalg.norm(x) == pytest.approx(1, abs=1e-5) and x @ y == pytest.approx(0, abs=1e-5)
    assert np.cross(x, y)[2] < -0.9, "the hand points down"
    for axis in "xyz":
        assert scene[f"gripper_to_cube.{axis}"] == pytest.approx(
            scene[f"cube.{axis}"] - state[f"gripper.{axis}"], abs=1e-6
        )
    assert 0.8 < scene["cube.z"] < 0.84 and state["finger.left"] > 0 > state["finger.right"]


def test_states_alone_never_open_gl(lane):
    lane.reset(seed=0)
    lane.step(lane.rest())
    assert lane.suite.sim._render_context_offscreen is None


def test_six_are_the_first_two_columns():
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter turn about z: x goes to y, y to -x
    assert six(turn.ravel()).tolist() == [0, 1, 0, -1, 0, 0]


def test_the_action_moves_the_hand_where_it_says(lane):
    for axis in range(3):
        before = lane.reset(seed=2)[0][STATE][:3]
        action = np.zeros(7)
        action[axis] = 1.0
        for _ in range(5):
            obs, *_ = lane.step(action)
        moved = obs[STATE][:3] - before
        assert moved[axis] > 0.02 and np.abs(np.delete(moved, axis)).max() < 0.01


def test_the_expert_recovers_from_disturbances(lane):
    lengths = []
    for start in range(100100, 100106):
        lane.reset(seed=start, options={"action_noise": 0.1})
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, _ = lane.step(lane.expert_action(noise=0.02))
        assert terminated, start
        lengths.append(lane.ticks)
    assert max(lengths) < 120


@pytest.mark.slow
def test_the_expert_succeeds_nearly_always(lane):
    ends = []
    for start in range(100000, 100200):
        lane.reset(seed=start)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, _ = lane.step(lane.expert_action())
        ends.append(terminated)
    assert np.mean(ends) >= 0.98


def test_settings_enter_the_fingerprint():
    told = LIFT.fingerprint()
    assert told["controller"]["body_parts"]["right"]["type"] == "OSC_POSE" and told["timestep"] == 0.002
    assert Robosuite(task="lift", look="light").fingerprint() != told
    assert Robosuite(task="lift", model_seed=1).fingerprint() != told


def test_another_model_seed_is_another_cube(lane):
    other = Robosuite(task="lift", model_seed=3).lane()
    assert tuple(other.suite.cube.size) != tuple(lane.suite.cube.size)
    other.close()


def test_misspelt_settings_name_the_known():
    with pytest.raises(LookupError, match="Did you mean 'light'"):
        Robosuite(task="lift", look="ligth")
    with pytest.raises(LookupError, match="lift"):
        Robosuite(task="lft")


def test_global_draws_are_put_back():
    np.random.seed(5)
    expected = np.random.rand(3)
    np.random.seed(5)
    with global_draws(1):
        inside = np.random.rand(3)
    assert (np.random.rand(3) == expected).all()
    with global_draws(1):
        assert (np.random.rand(3) == inside).all()


def test_lanes_of_a_model_that_was_compiled_before_are_those_of_a_new_one(monkeypatch):
    def acted() -> list:
        lanes = Lanes(Robosuite(task="lift"), 2)
        lanes.reset(seed=3)
        chunk = lanes.step_chunk(np.random.default_rng(0).uniform(-1, 1, (2, 6, 7)))
        lanes.close()
        return [*chunk.obs.values(), chunk.reward]

    build._compiled.cache_clear()
    copied = acted()
    assert build._compiled.cache_info().hits > build._compiled.cache_info().misses
    monkeypatch.setattr(build, "_compiled", build._compiled.__wrapped__)
    assert all((one == other).all() for one, other in zip(copied, acted(), strict=True))
