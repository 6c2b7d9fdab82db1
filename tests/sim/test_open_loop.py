"""Open-loop rollouts are stepping, to the last bit, for any number of threads and any grouping."""

import json

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.world import find_world
from understudy.eval.studies.pusht_replay import play
from understudy.sim import open_loop
from understudy.sim.open_loop import bench, controls_of, physics, qpos, roll, roll_each

TASKS = ("point", "pusht-mujoco", "pusht-arm", "so101-pusht")


@pytest.fixture(scope="module", params=TASKS)
def acted(request):
    """(lane, states, warm starts, controls, states after each control step of 12) of three starts, as a lane acts."""
    lane = find_world(request.param).lane()
    rng, low, high = np.random.default_rng(0), lane.action_space.low, lane.action_space.high
    states, warm, controls, after = [], [], [], []
    for start in range(3):
        lane.reset(seed=start)
        states.append(physics(lane.model, lane.data))
        warm.append(lane.data.qacc_warmstart.copy())
        drift = rng.normal(0, 0.05, (12, len(low))).cumsum(0) * (high - low)
        actions = np.clip(lane.rest() + drift, low, high).astype(np.float32)
        passed = []
        for action in actions:
            lane.act(action)
            passed.append(physics(lane.model, lane.data))
        lane.reset(seed=start)
        controls.append(controls_of(lane, actions))
        after.append(passed)
    yield lane, np.array(states), np.array(warm), np.array(controls), np.array(after)
    lane.close()


def every(lane, controls) -> tuple[int, int]:
    """(physics steps that a control is held, controls in a control step)."""
    each = controls.shape[1] // 12
    return round(1 / (lane.embodiment.rate * lane.model.opt.timestep * each)), each


def test_it_is_stepping_to_the_last_bit(acted):
    lane, states, warm, controls, after = acted
    held, each = every(lane, controls)
    for threads in (1, 2):
        rolled = roll(lane.model, states, controls, held, warm, threads)
        assert rolled.shape == (3, 12 * each, states.shape[1])
        assert (rolled[:, each - 1 :: each] == after).all()
    assert (qpos(lane.model, rolled)[0, -1] == after[0, -1, 1 : 1 + lane.model.nq]).all()
    assert not (rolled[:, -1] == states).all()


def test_little_room_changes_nothing(acted, monkeypatch):
    lane, states, warm, controls, _ = acted
    held, _ = every(lane, controls)
    whole = roll(lane.model, states, controls, held, warm, 1)
    monkeypatch.setattr(open_loop, "ROOM", 1)
    assert (roll(lane.model, states, controls, held, warm, 1) == whole).all()


def test_episodes_of_different_lengths(acted, monkeypatch):
    lane, states, warm, controls, _ = acted
    held, each = every(lane, controls)
    whole = roll(lane.model, states, controls, held, warm)
    monkeypatch.setattr(open_loop, "TOGETHER", 2)
    cut = [controls[0][: 5 * each], controls[1][:0], controls[2]]
    first, none, last = roll_each(lane.model, states, cut, held, warm)
    assert (first == whole[0, : 5 * each]).all() and none.shape == (0, states.shape[1]) and (last == whole[2]).all()


def test_one_plan_for_all_and_errors_by_name(acted):
    lane, states, warm, controls, _ = acted
    same = roll(lane.model, states[[0, 0]], controls[:1], 1, warm[[0, 0]])
    assert (same[0] == same[1]).all()
    for wrong, message in (
        ((states[:, 1:], controls), "a state of this model"),
        ((states, controls[..., :1].repeat(9, -1)), "controls must be"),
        ((states, controls[:2]), "controls must be"),
        ((states, controls, 0), "at least one physics step"),
        ((states, controls, 1, warm[:1]), "warm starts must be"),
    ):
        with pytest.raises(ValueError, match=message):
            roll(lane.model, *wrong)


def test_the_replay_is_what_a_lane_does(data_root):
    with np.load(data_root / "pusht_human" / "full_state.npz") as data:
        ends, starts, actions = data["episode_ends"][:2], data["init_state"], data["action"]
    lane = find_world("pusht-mujoco").lane()
    rolled = play(lane, starts[:2], np.split(actions[: ends[1]], ends[:1]))
    for start, chosen, places in zip(starts, np.split(actions[: ends[1]], ends[:1]), rolled, strict=False):
        lane.reset(seed=0, options={"state": start})
        progress = []
        for action, place in zip(chosen, places, strict=True):
            progress.append(lane.act(action))
            assert (lane.data.qpos == place).all()
        assert np.array_equal(np.minimum(1, lane.task.coverages(places) / 0.95), progress)


def test_the_bench_says_both_rates():
    told = bench("pusht-mujoco", lanes=2, steps=4, threads=1, repeats=1)
    assert told["equal"] and told["stepped_per_s"] > 0 and told["rolled_per_s"] > 0
    with pytest.raises(LookupError, match="not a task in plain MuJoCo"):
        bench("pusht", 1, 1, 1)


def test_the_command_prints_json(capsys):
    assert main(["study", "open_loop_cost", "point", "--lanes", "2", "--steps", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["world"] == "point"
