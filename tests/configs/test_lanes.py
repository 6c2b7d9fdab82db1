"""Lanes: fixed slots, frozen finished lanes, failures that stay in their lane, the same results for any workers."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import SCENE, STATE
from understudy.sim.task import MuJoCoWorld, TaskEnv
from understudy.sim.testing import Fault, FaultyWorld

POINT = MuJoCoWorld(task="point")


@pytest.fixture
def opened():
    """Open lanes that are closed at the end of the test."""
    made = []

    def open_lanes(*args, **kwargs) -> Lanes:
        made.append(Lanes(*args, **kwargs))
        return made[-1]

    yield open_lanes
    for lanes in made:
        lanes.close()


def experts(lanes: Lanes) -> np.ndarray:
    """(B, D) actions of the experts; zeros for lanes that do not run."""
    actions = lanes.call("expert_action", slots=np.flatnonzero(lanes.running).tolist())
    return np.stack([np.zeros(2) if action is None else action for action in actions])


def finish(lanes: Lanes) -> list[tuple]:
    """Step with the expert until nothing runs: what each step gave."""
    steps = []
    while lanes.running.any():
        steps.append(lanes.step(experts(lanes)))
    return steps


def test_is_a_gymnasium_vector_env_without_autoreset(opened):
    lanes = opened(POINT, 3)
    assert lanes.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    obs, info = lanes.reset(seed=5)
    assert lanes.observation_space.contains(obs)
    assert info["success"].shape == info["progress"].shape == (3,) and info["failed"] == {}
    obs, reward, terminated, truncated, info = lanes.step(np.zeros((3, 2)))
    assert lanes.observation_space.contains(obs)
    assert reward.shape == terminated.shape == truncated.shape == (3,)
    assert info["action.sent"].shape == (3, 2) and info["valid"].all()


def test_finished_lanes_are_frozen(opened):
    lanes = opened(POINT, 4)
    lanes.reset(seed=0)
    steps = finish(lanes)
    ends = np.array([terminated for _, _, terminated, _, _ in steps]).argmax(0)
    assert len(set(ends)) > 1, "lanes should end at different steps"
    first, last = int(ends.argmin()), steps[-1]
    assert (last[0][STATE][first] == steps[ends[first]][0][STATE][first]).all()
    assert last[1][first] == 0 and last[2][first] and not last[4]["valid"][first]
    assert last[4]["success"].all() and (last[4]["progress"] == 1).all()


def test_a_mask_resets_some_lanes_and_leaves_the_others(opened):
    lanes = opened(POINT, 3)
    before, _ = lanes.reset(seed=[7, 8, 9])
    lanes.step(np.ones((3, 2)))
    after, _ = lanes.reset(seed=[None, 8, None], options={"reset_mask": np.array([False, True, False])})
    assert (after[STATE][1] == before[STATE][1]).all()
    assert (after[STATE][[0, 2]] != before[STATE][[0, 2]]).any(1).all()


def test_lanes_that_were_never_reset_are_dead(opened):
    lanes = opened(POINT, 2)
    obs, _ = lanes.reset(seed=3, options={"reset_mask": [True, False]})
    assert not obs[STATE][1].any() and lanes.running.tolist() == [True, False]
    chunk = lanes.step_chunk(np.full((2, 4, 2), [[[0.5, 0]], [[np.nan, 0]]]))  # a dead lane's action is not read
    assert chunk.valid.tolist() == [[True] * 4, [False] * 4]
    assert lanes.call("expert_action")[1] is None


def test_a_chunk_equals_its_steps(opened):
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 6, 2))
    one, many = opened(POINT, 3), opened(POINT, 3)
    start, _ = one.reset(seed=20)
    many.reset(seed=20)
    steps = [many.step(actions[:, k]) for k in range(6)]
    chunk = one.step_chunk(actions, look=(-6, -1, 0))
    assert chunk.obs[STATE].shape == (3, 3, 2)
    assert (chunk.obs[STATE][:, 0] == start[STATE]).all()
    for column, step in ((1, 4), (2, 5)):
        assert (chunk.obs[STATE][:, column] == steps[step][0][STATE]).all()
    assert (chunk.reward == np.stack([step[1] for step in steps], 1)).all()
    assert (chunk.sent == actions.astype(np.float32)).all()


def test_a_lane_that_ends_inside_a_chunk_repeats_its_last(opened):
    lanes = opened(MuJoCoWorld(task="point", horizon=3), 1)
    lanes.reset(seed=0)
    chunk = lanes.step_chunk(np.ones((1, 5, 2)), look=(-3, -2, 0), film=(0,))
    assert chunk.valid[0].tolist() == [True] * 3 + [False] * 2
    assert chunk.truncated[0].tolist() == [False, False, True, True, True] and not chunk.terminated.any()
    assert (chunk.obs[STATE][0, 1] == chunk.obs[STATE][0, 2]).all()
    assert (chunk.obs[STATE][0, 0] != chunk.obs[STATE][0, 1]).any()
    assert len(chunk.film[0]) == 3 and chunk.film[0][0].shape == (256, 256, 3)
    assert not chunk.sent[0, 3:].any() and not chunk.reward[0, 3:].any()


def test_observations_are_not_shared_with_the_lanes(opened):
    lanes = opened(POINT, 2)
    obs, _ = lanes.reset(seed=0)
    kept = {key: value.copy() for key, value in obs.items()}
    lanes.step(np.ones((2, 2)))
    assert all((obs[key] == kept[key]).all() for key in obs)
    obs[SCENE][:] = np.nan
    assert np.isfinite(lanes.step(np.ones((2, 2)))[0][SCENE]).all()


def test_results_do_not_depend_on_the_workers(opened):
    runs = []
    for workers in (0, 1, 2):
        lanes = opened(POINT, 5, workers)
        assert len(lanes.worker_pids()) == 0
        lanes.reset(seed=40)
        assert len(lanes.worker_pids()) == workers
        runs.append([lanes.step_chunk(np.repeat(experts(lanes)[:, None], 4, 1), look=(-1, 0)) for _ in range(8)])
        assert not lanes.running.any()
    for one, other in zip(runs[0], runs[1], strict=True):
        assert_equal(one, other)
    for one, other in zip(runs[0], runs[2], strict=True):
        assert_equal(one, other)


def assert_equal(one, other):
    for key in one.obs:
        assert (one.obs[key] == other.obs[key]).all()
    for name in ("reward", "terminated", "truncated", "success", "progress", "sent", "valid"):
        assert (getattr(one, name) == getattr(other, name)).all(), name


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_stays_in_its_lane(opened, workers):
    faulty, healthy = opened(FaultyWorld(faults=(Fault(1, 2),)), 4, workers), opened(POINT, 4)
    faulty.reset(seed=0)
    healthy.reset(seed=0)
    actions = np.full((4, 5, 2), 0.3)
    chunk, whole = faulty.step_chunk(actions), healthy.step_chunk(actions)
    assert list(chunk.failed) == [1] and "start 1 fails at step 2" in chunk.failed[1]
    assert chunk.valid[1].tolist() == [True, True, False, False, False]
    others = [0, 2, 3]
    assert (chunk.obs[STATE][others] == whole.obs[STATE][others]).all()
    assert faulty.running.tolist() == [True, False, True, True]
    assert faulty.step_chunk(actions).failed == {}, "a failure is reported once"
    faulty.reset(seed=[None, 9, None, None], options={"reset_mask": [False, True, False, False]})
    assert faulty.running.all()


class Rude(BaseException):
    """As some libraries raise them: no Exception, and its text cannot be made."""

    def __str__(self):
        raise RuntimeError("no words")


class Unmannered(MuJoCoWorld):
    """Its lanes fill the same arrays at each look, change the folder, and one of them raises what it likes."""

    def lane(self):
        return Careless(self, self.find())


class Careless(TaskEnv):
    def sense(self):
        seen = super().sense()
        os.chdir("/")
        kept = self.__dict__.setdefault("kept", seen)
        for key in seen:
            kept[key][...] = seen[key]
        if self.start == 2 and self.ticks > 5:
            raise Rude
        return kept


def test_a_lane_without_manners_changes_nothing_of_others(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    polite, careless = opened(POINT, 2), opened(Unmannered(task="point"), 3)
    polite.reset(seed=[0, 1])
    careless.reset(seed=[0, 1, 2])
    failed = {}
    for _ in range(3):
        actions = np.repeat(experts(polite)[:, None], 4, 1)
        right = polite.step_chunk(actions, look=(-1, 0))
        found = careless.step_chunk(np.concatenate([actions, actions[:1]]), look=(-1, 0))
        failed |= found.failed
        for key in right.obs:
            assert (found.obs[key][:2] == right.obs[key]).all()
    assert os.getcwd() == str(tmp_path)
    assert list(failed) == [2] and "Rude: (its text raises RuntimeError)" in failed[2]


def test_a_lane_that_cannot_begin_is_reported(opened):
    lanes = opened(FaultyWorld(faults=(Fault(1, 0, "reset"),)), 2)
    obs, info = lanes.reset(seed=0)
    assert list(info["failed"]) == [1] and lanes.running.tolist() == [True, False] and not obs[STATE][1].any()


def test_a_lane_whose_expert_raises_has_failed(opened):
    lanes = opened(POINT, 2)
    lanes.reset(seed=0)
    assert lanes.call("expert_action", "no number", slots=[0]) == [None, None]
    assert lanes.running.tolist() == [False, True]
    assert "could not convert" in lanes.step_chunk(np.zeros((2, 1, 2))).failed[0]
    with pytest.raises(AttributeError, match="no_such_method"):
        lanes.call("no_such_method")


def test_a_killed_worker_loses_its_own_lanes_only_and_comes_back(opened, tmp_path):
    once = str(tmp_path / "happened")
    lanes = opened(FaultyWorld(faults=(Fault(1, 3, "kill", once),)), 4, 2)
    reference = opened(POINT, 4)
    starts, _ = reference.reset(seed=0)
    lanes.reset(seed=0)
    actions = np.full((4, 5, 2), 0.2)
    chunk, whole = lanes.step_chunk(actions), reference.step_chunk(actions)
    assert set(chunk.failed) == {0, 1} and "SIGKILL" in chunk.failed[0]
    assert (chunk.obs[STATE][2:] == whole.obs[STATE][2:]).all() and chunk.valid[2:].all()
    again, info = lanes.reset(seed=0, options={"reset_mask": [True, True, False, False]})
    assert info["failed"] == {} and (again[STATE][:2] == starts[STATE][:2]).all()
    redone = lanes.step_chunk(actions)
    assert redone.failed == {} and (redone.obs[STATE][:2] == whole.obs[STATE][:2]).all()


def test_a_worker_killed_between_chunks_fails_its_running_lanes(opened):
    lanes = opened(MuJoCoWorld(task="point", horizon=4), 4, 2)
    lanes.reset(seed=0)
    lanes.step_chunk(np.zeros((4, 3, 2)))
    lanes.reset(seed=9, options={"reset_mask": [True, False, False, False]})
    lanes.step_chunk(np.zeros((4, 1, 2)))  # lanes 1, 2 and 3 have ended
    for pid in lanes.worker_pids():
        os.kill(pid, signal.SIGKILL)
    chunk = lanes.step_chunk(np.zeros((4, 1, 2)))
    assert list(chunk.failed) == [0], "what has ended has its result already"
    assert chunk.truncated[1:].all()
    assert lanes.reset(seed=0)[1]["failed"] == {} and lanes.running.all()


def test_a_worker_that_hangs_is_ended(opened):
    lanes = opened(FaultyWorld(faults=(Fault(0, 1, "hang"),)), 2, 2, timeout=10)
    lanes.reset(seed=0)
    chunk = lanes.step_chunk(np.zeros((2, 3, 2)))
    assert list(chunk.failed) == [0] and "did not answer within 10 s" in chunk.failed[0] and chunk.valid[1].all()


@pytest.mark.parametrize(
    ("actions", "match"),
    [
        (np.zeros((2, 2)), r"\(B=3, E, D=2\) for step_chunk"),
        (np.zeros((3, 4, 3)), r"got \(3, 4, 3\)"),
        (np.zeros((3, 0, 2)), r"got \(3, 0, 2\)"),
        (np.where(np.arange(24).reshape(3, 4, 2) == 13, np.nan, 0), "1 at step 2 of the chunk is not finite"),
    ],
)
def test_bad_actions_are_refused_by_name(opened, actions, match):
    lanes = opened(POINT, 3)
    lanes.reset(seed=0)
    with pytest.raises(ValueError, match=match):
        lanes.step_chunk(actions)
    assert lanes.step_chunk(np.zeros((3, 1, 2))).valid.all(), "nothing moved and nothing broke"


def test_other_bad_requests_are_refused_by_name(opened):
    lanes = opened(POINT, 3)
    with pytest.raises(ValueError, match="seed needs one entry for each of 3 environments, got 2"):
        lanes.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="reset_mask needs one entry"):
        lanes.reset(options={"reset_mask": [True]})
    with pytest.raises(ValueError, match="look offset -2 is outside of this chunk"):
        lanes.step_chunk(np.zeros((3, 1, 2)), look=(-2, 0))
    with pytest.raises(ValueError, match="at least 1"):
        Lanes(POINT, 0)


def test_workers_are_light_and_outlive_neither_ctrl_c_nor_their_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import time
        from understudy.configs.lanes.lanes import Lanes
        from understudy.sim.task import MuJoCoWorld
        lanes = Lanes(MuJoCoWorld(task="point"), 2, 2)
        lanes.reset(seed=0)
        print(*lanes.worker_pids(), flush=True)
        time.sleep(60)
        """)
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        with open(f"/proc/{pid}/maps") as maps:
            assert "libtorch" not in maps.read()
        with open(f"/proc/{pid}/environ") as environ:
            assert "OMP_NUM_THREADS=1" in environ.read()
    time.sleep(0.3)
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids), "Ctrl-C is the parent's to handle"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_torch_in_sim_or_configs():
    script = """
    import sys
    from understudy.configs.world import find_world
    import understudy.configs.lanes.lanes
    find_world("lift").embodiment()
    heavy = {"torch", "mujoco", "robosuite", "pymunk"} & set(sys.modules)
    assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
