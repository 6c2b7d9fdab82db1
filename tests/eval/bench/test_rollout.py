"""The benchmarks of rollouts: both sides act, what it says adds up, and the command refuses what makes no sense."""

import importlib.util

import pytest

from understudy.configs.lanes.lanes import Lanes
from understudy.eval.bench import cluster as bench_cluster
from understudy.eval.bench import pusht as bench_pusht
from understudy.eval.bench import rollout as bench_rollout
from understudy.eval.bench import scaling as bench_scaling
from understudy.eval.bench.bench import Bench
from understudy.sim.pusht.gym_pusht import GymPushT
from understudy.sim.robosuite.suite import Robosuite


@pytest.fixture(scope="module")
def results():
    kept, bench_rollout.CASES = bench_rollout.CASES, bench_rollout.CASES[:1]
    yield bench_rollout.compare_rollouts(Robosuite(task="lift"), 32, 4, pairs=3, seconds=0.2)
    bench_rollout.CASES = kept


def test_both_sides_act_and_the_ratio_is_the_median(results):
    """How fast they are says the bench, on an idle machine; here only that its numbers fit together."""
    measured = results["state"]
    assert len(measured["speedups"]) == 3 and measured["speedup"] == sorted(measured["speedups"])[1] > 0
    for side in ("understudy", "robosuite"):
        assert 0 < measured[side]["episodes_per_s"] < measured[side]["steps_per_s"]
    assert results["physics alone"]["ms_per_step"] > 0 and measured["ms_per_step"]["physics"] > 0


def test_the_table_names_each_case(results):
    text = bench_rollout.table(results)
    assert "state" in text and "stock" in text and "mj_step" in text and "controller" in text


def test_cases_read_pictures_as_they_say():
    with_pictures = Robosuite(task="lift", cameras={"agentview": (8, 8)})
    for every, looked in ((True, (-3, -2, -1, 0)), (False, (0,))):
        ours = bench_rollout.Ours(with_pictures, 4, every)
        assert ours.look == looked
        ours.close()


def test_pusht_runs_beside_lerobot_with_the_same_steps(monkeypatch):
    pytest.importorskip("lerobot", reason="the peer is lerobot")
    told = bench_pusht.compare_pusht(2, 4, pairs=1, seconds=0.01, steps=6)
    assert list(told) == [case[0] for case in bench_pusht.CASES]
    assert all(one["speedup"] > 0 and one["lerobot"]["steps_per_s"] > 0 for one in told.values())
    assert "speed-up" in bench_pusht.table(told)
    lanes = Lanes(GymPushT(horizon=6), 2)
    assert bench_pusht._ours(lanes, bench_pusht.Noise(2, 4, False))() == 12
    assert bench_pusht._lerobot(2, 4, False, 6)() == 12


def test_without_lerobot_a_row_says_so(monkeypatch):
    monkeypatch.setattr(bench_pusht, "CASES", bench_pusht.CASES[:1])
    monkeypatch.setattr(bench_pusht.importlib.util, "find_spec", lambda name: None)
    told = bench_pusht.compare_pusht(1, 4, pairs=1, seconds=0.01, steps=4)
    assert told["state"]["absent"] and "not installed" in bench_pusht.table(told)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Bench(what="rollout", n_action_steps=0).run()
    with pytest.raises(LookupError, match="lift"):
        Bench(what="rollout", task="lft").run()


def test_scaling_is_beside_one_process_and_lerobot(monkeypatch):
    monkeypatch.setattr(bench_scaling, "STATE", "nothing")  # no policy acts
    monkeypatch.setattr(bench_scaling, "SCENE", "nothing")
    world = bench_scaling.world_for("pusht", 0, 96, 6)
    told = bench_scaling.compare_scaling(world, [2], block=2, n_action_steps=3, episodes=4, rounds=1)
    one, two = told[bench_scaling.RANDOM].values()
    assert one["steady_times"] == one["efficiency"] == 1 and two["efficiency"] == pytest.approx(two["steady_times"] / 2)
    assert two["first_episode_s"] > 0 and two["memory_mb"] > 0
    if importlib.util.find_spec("lerobot"):
        assert list(told["others"]) == ["lerobot-eval, SyncVectorEnv of 2", "lerobot-eval, AsyncVectorEnv of 2"]
        assert (
            "absent" in told["others"]["lerobot-eval, AsyncVectorEnv of 2"]
        ) is not bench_pusht.evaluates_processes()
    assert "2 workers" in bench_scaling.table(told) and "efficiency" in bench_scaling.table(told)
    with pytest.raises(ValueError, match="3 were asked for"):
        bench_scaling.world_for("pusht", 3, 84, 10)


def test_scaling_with_a_policy_acts_in_workers_too(tmp_path):
    world = bench_scaling.world_for("point", 0, 0, 6)
    recipes = bench_scaling._recipes(world, 2, 3, tmp_path)
    assert list(recipes) == [bench_scaling.RANDOM, bench_scaling.POLICY]
    lap = bench_scaling._lap(world, recipes[bench_scaling.POLICY], 2, 0, 4)
    assert lap["whole"] > 0 and lap["steady"] > 0


@pytest.mark.parametrize("asked", ["0", "x", "1,,2"])
def test_scaling_takes_numbers(asked):
    with pytest.raises(ValueError, match="numbers of workers"):
        Bench(what="rollout", scaling=asked).run()


def test_a_thousand_workers_are_simulated_from_measured_pieces():
    """Without a head that costs anything, equal blocks are perfect; a slow head bounds the rate."""
    free = bench_cluster.simulate(bench_cluster.Pieces((2.0,), 0.0, 5.0), 1_000, 20_000)
    assert free["seconds"] == 45.0 and free["efficiency"] == 1.0 and free["head"] == 0.0
    slow = bench_cluster.simulate(bench_cluster.Pieces((2.0,), 0.01, 5.0), 1_000, 20_000)
    assert 0.19 < slow["efficiency"] < 0.2 and slow["head"] > 0.98  # 100 blocks/s of 500
