"""The acting loop: the same starts give the same episodes, whoever steps the lanes and whatever fails."""

import os
import re
import signal
from contextlib import closing

import numpy as np
import pytest

from understudy.configs.lanes.lane import MachineError
from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import SCENE, STATE, Window
from understudy.eval.ledger.table import table_of, tables_equal
from understudy.eval.rollout.actors import ExpertActor, TapeActor
from understudy.eval.rollout.rollout import in_order, rollout
from understudy.policies.agent.agent import Agent
from understudy.policies.learning.checkpoint import blank_scales
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.sim.task import MuJoCoWorld
from understudy.sim.testing import Fault, FaultyWorld

POINT = MuJoCoWorld(task="point", horizon=40)
STARTS = range(300, 311)  # one whole block and a part of one


def small_agent(lanes=8, n_action_steps=3):
    """An untrained diffusion policy: noise keyed by start and replanning, bent by what it saw."""
    import torch

    torch.manual_seed(0)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(horizon=4), inputs=(STATE, SCENE), network=network, n_action_steps=3)
    embodiment = POINT.embodiment()
    return Agent(
        config.build(embodiment, blank_scales(embodiment)).eval(), lanes=lanes, n_action_steps=n_action_steps, seed=7
    )


def run(world=POINT, starts=STARTS, workers=0, actor=lambda lanes: small_agent(), **options):
    with closing(Lanes(world, 8, workers)) as lanes:
        return list(rollout(actor(lanes), lanes, starts, **options))


def table(results):
    return table_of([result.row for result in results])


@pytest.fixture(scope="module")
def plain():
    return run()


def test_rows_tell_what_happened(plain):
    rows = {result.start: result.row for result in plain}
    assert sorted(rows) == list(STARTS)
    for result in plain:
        row = result.row
        assert row["length"] == len(row["progress"]) == len(result.actions) <= 40
        assert row["best_progress"] == max(row["progress"]) and row["final_progress"] == row["progress"][-1]
        assert row["success"] == row["terminated"] != row["truncated"]
        assert row["first_success"] == (row["length"] if row["success"] else -1)
        assert row["wall_physics"] > 0 and row["wall_policy"] > 0 and row["error"] == "" and row["attempt"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_same_table_for_any_number_of_workers(plain, workers):
    assert tables_equal(table(plain), table(run(workers=workers)))


def test_same_table_after_a_worker_killed_itself(plain, tmp_path):
    fault = Fault(start=303, step=20, kind="kill", once=str(tmp_path / "struck"))
    world = FaultyWorld(task="point", horizon=40, faults=(fault,))
    results = run(world, workers=2)
    assert (tmp_path / "struck").exists()
    assert {result.row["attempt"] for result in results} == {0, 1}
    assert tables_equal(table(plain), table(results))


def without(results, *starts):
    return table([result for result in results if result.start not in starts])


def test_a_start_that_always_crashes_its_worker_takes_no_other_with_it(plain):
    world = FaultyWorld(task="point", horizon=40, faults=(Fault(start=303, step=20, kind="abort"),))
    results = run(world, workers=2)
    (row,) = [result.row for result in results if result.start == 303]
    assert "SIGABRT" in row["error"] and not row["success"]
    assert tables_equal(without(results, 303), without(plain, 303))


@pytest.mark.parametrize(("kind", "workers"), [("kill", 2), ("memory", 0), ("full", 2)])
def test_what_the_machine_does_is_no_row_and_ends_the_evaluation_after_the_others(plain, kind, workers, monkeypatch):
    monkeypatch.setattr("understudy.eval.rollout.rollout.PAUSES", (0, 0))
    world = FaultyWorld(task="point", horizon=40, faults=(Fault(start=303, step=20, kind=kind),))
    results = []
    with closing(Lanes(world, 8, workers)) as lanes, pytest.raises(MachineError, match="3 times at env seed 303.*kept"):
        for result in rollout(small_agent(), lanes, STARTS):
            results.append(result)
    assert tables_equal(table(results), without(plain, 303))


def test_a_machine_that_recovers_changes_nothing(plain, tmp_path):
    faults = tuple(Fault(304, step, "memory", str(tmp_path / str(step))) for step in (1, 2, 3))
    results = run(FaultyWorld(task="point", horizon=40, faults=faults))
    assert tables_equal(table(plain), table(results))
    assert {result.start: result.row["attempt"] for result in results}[304] == 3


def test_a_machine_that_fails_everywhere_is_not_asked_for_long(monkeypatch):
    monkeypatch.setattr("understudy.eval.rollout.rollout.PAUSES", (0,))
    world = FaultyWorld(task="point", horizon=40, faults=tuple(Fault(start, 0, "memory") for start in STARTS))
    with pytest.raises(MachineError, match="at env seed 300, and at 2 more"):
        run(world)


NONSENSE = {
    "nan": "'observation.state' is not finite: nan at number 0 of 2",
    "infinite": "'observation.environment_state' is not finite: inf",
    "shape": r"'observation.state' must have shape \(2,\), got \(5,\)",
    "scalar": r"'observation.state' must have shape \(2,\), got \(\)",
    "text": "'observation.state' must hold float32 numbers",
    "huge": "'observation.state' is not finite: 1e[+]300",
    "missing": "'observation.state' is missing in the observation",
    "nothing": "the observation must be a mapping",
    "reward": "'reward' must be a finite number, got nan",
    "progress": r"'progress' must be in 0..1, got 1.5",
    "success": "'success' must be true or false, got nan",
    "terminated": "'terminated' must be true or false, got 'no'",
    "sent": r"'action.sent' must have shape \(2,\), got \(1,\)",
    "sent_nan": "'action.sent' is not finite",
    "info": "'progress' is missing in info",
    "exit": "SystemExit: 0",
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_of_one_environment_is_a_row_with_an_error(plain, kind):
    world = FaultyWorld(task="point", horizon=40, faults=(Fault(start=302, step=5, kind=kind),))
    results = run(world)
    (row,) = [result.row for result in results if result.start == 302]
    assert re.search(NONSENSE[kind], row["error"]), row["error"]
    assert not row["success"] and row["attempt"] == 1 and row["length"] in (4, 5)
    assert tables_equal(without(results, 302), without(plain, 302))


def test_nonsense_of_a_worker_and_at_the_reset(plain):
    faults = Fault(303, 0, "nan"), Fault(309, 7, "missing")
    results = run(FaultyWorld(task="point", horizon=40, faults=faults), workers=2)
    errors = {result.start: result.row["error"] for result in results if result.row["error"]}
    assert set(errors) == {303, 309} and "is not finite" in errors[303]
    assert tables_equal(without(results, 303, 309), without(plain, 303, 309))


@pytest.mark.parametrize(("kind", "workers"), [("hang", 0), ("spin", 0), ("hang_reset", 0), ("spin", 2)])
def test_a_lane_that_hangs_is_a_row_with_an_error(plain, kind, workers, monkeypatch):
    if not workers:  # a worker needs its time to begin
        monkeypatch.setattr("understudy.configs.lanes.pulse.BUILDING", 1.5)
    world = FaultyWorld(task="point", horizon=40, faults=(Fault(start=302, step=5, kind=kind),))
    with closing(Lanes(world, 8, workers, timeout=0.8)) as lanes:
        results = list(rollout(small_agent(), lanes, STARTS))
    (row,) = [result.row for result in results if result.start == 302]
    assert "did not answer within" in row["error"] and not row["success"]
    assert tables_equal(without(results, 302), without(plain, 302))


def test_a_world_slower_than_its_limit_for_a_chunk_is_no_hang():
    """The limit is one of a control step: eight lanes of three steps may take longer together."""
    faults = tuple(Fault(start, step, "slow") for start in STARTS for step in range(40))
    with closing(Lanes(FaultyWorld(horizon=5, faults=faults), 8, 0, timeout=0.4)) as lanes:
        assert not any(result.row["error"] for result in rollout(small_agent(), lanes, range(300, 308)))


def test_an_episode_that_takes_too_long_or_never_ends_is_a_row_with_an_error(plain, monkeypatch):
    monkeypatch.setattr("understudy.eval.rollout.rollout.EPISODE", 0.1)
    faults = tuple(Fault(302, step, "slow") for step in range(40))
    with closing(Lanes(FaultyWorld(horizon=40, faults=faults), 8, 0, timeout=2)) as lanes:
        results = list(rollout(small_agent(), lanes, STARTS))
    (row,) = [result.row for result in results if result.start == 302]
    assert "took" in row["error"] and "was ended" in row["error"]
    assert tables_equal(without(results, 302), without(plain, 302))

    world = FaultyWorld(task="point", horizon=40, faults=(Fault(start=302, step=0, kind="endless"),))
    (row,) = [result.row for result in run(world) if result.start == 302]
    assert "did not end" in row["error"] and "horizon of 40" in row["error"]


def test_an_expert_that_asks_for_nonsense_fails_alone():
    class BadExpert(ExpertActor):
        def act(self):
            call = self.lanes.call
            self.lanes.call = lambda *args, **more: [
                action if action is None or slot != 2 else action * np.nan
                for slot, action in enumerate(call(*args, **more))
            ]
            try:
                return super().act()
            finally:
                self.lanes.call = call

    errors = {result.start: result.row["error"] for result in run(actor=BadExpert)}
    assert "the expert's action must be 2 finite numbers" in errors[302] and not errors[301]


@pytest.mark.parametrize("call", [5, 14])  # in the middle of the whole block; where the second one begins
def test_same_table_after_a_worker_was_killed_from_outside(plain, call):
    class Killer(Agent):
        calls = 0

        def act(self):
            self.calls += 1
            if self.calls == call:
                os.kill(self.lanes.worker_pids()[-1], signal.SIGKILL)
            return super().act()

    def killer(lanes):
        agent = small_agent()
        agent.__class__, agent.lanes = Killer, lanes
        return agent

    results = run(workers=2, actor=killer)
    assert tables_equal(table(plain), table(results))
    if call == 5:
        assert [result.row["attempt"] for result in results if result.start < 308].count(1) == 4


def test_a_start_that_fails_twice_is_recorded_and_disturbs_nobody(plain):
    world = FaultyWorld(task="point", horizon=40, faults=(Fault(start=302, step=5), Fault(309, 0, "reset")))
    results = {result.start: result for result in run(world, keep=True)}
    for start in (302, 309):
        row = results[start].row
        assert row["attempt"] == 1 and not row["success"] and row["first_success"] == -1
        assert f"start {start} fails" in row["error"] and results[start].episode is None
    assert results[302].row["length"] == 5 and results[309].row["length"] == 0
    others = [result for start, result in results.items() if start not in (302, 309)]
    assert tables_equal(table(others), table([result for result in plain if result.start not in (302, 309)]))


def test_starts_that_are_done_are_skipped(plain):
    left = run(skip={300, 304, *range(308, 311)})
    assert tables_equal(
        table(left), table([result for result in plain if result.start in (301, 302, 303, 305, 306, 307)])
    )


def test_kept_episodes_hold_every_frame():
    episode = {result.start: result.episode for result in run(keep=True, starts=[300])}[300]
    lane = POINT.lane()
    obs, _ = lane.reset(seed=300)
    for step, action in enumerate(episode.action):
        assert all(np.array_equal(obs[key], episode.obs[key][step]) for key in obs)
        obs, reward, _, _, info = lane.step(action)
        assert reward == pytest.approx(episode.reward[step])
        assert np.array_equal(info["action.sent"], episode.sent[step])
    assert all(np.array_equal(obs[key], episode.final[key]) for key in obs)
    assert set(episode.obs) == {STATE, SCENE}


def test_an_expert_succeeds_and_its_tape_repeats_it():
    acted = run(actor=ExpertActor)
    assert all(result.row["success"] for result in acted)
    tapes = {result.start: result.actions for result in acted}
    again = run(actor=lambda lanes: TapeActor(tapes, lanes.num_envs))
    assert tables_equal(table(acted), table(again))


def test_films_begin_before_the_first_step():
    results = {result.start: result for result in run(actor=ExpertActor, starts=[300, 301, 302], film={301})}
    assert len(results[301].film) == results[301].row["length"] + 1
    assert results[301].film[0].dtype == np.uint8 and results[301].film[0].shape == (256, 256, 3)
    assert np.any(results[301].film[0] != results[301].film[-1])
    assert results[300].film == results[302].film == ()


def test_results_can_be_had_in_order(plain):
    shuffled = sorted(plain, key=lambda result: result.row["progress"])
    assert [result.start for result in in_order(shuffled, list(STARTS))] == list(STARTS)


def test_a_start_given_twice_is_refused():
    with pytest.raises(ValueError, match="given twice"):
        run(starts=[300, 301, 300])
