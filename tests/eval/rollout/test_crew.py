"""Whole blocks in workers: the same rows for any number of them, whatever dies or hangs, and nothing left behind."""

import importlib
import inspect
import os
import signal
import time
import warnings
from dataclasses import dataclass, replace

import pytest

from understudy.configs.lanes.lane import MachineError
from understudy.configs.lanes.lanes import Lanes
from understudy.configs.lanes.nursery import can_fork
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.ledger.table import table_of, tables_equal
from understudy.eval.rollout import standing
from understudy.eval.rollout.crew import Crew, keep_only, split
from understudy.eval.rollout.film import film_again
from understudy.eval.rollout.recipes import ChangedPolicyError, ExpertRecipe, PolicyRecipe, TapeRecipe
from understudy.eval.rollout.rollout import NO_START, ArmError, blocks
from understudy.eval.rollout.standing import check_paced, crew_for, expect, paced
from understudy.eval.rollout.station import peak_memory
from understudy.policies.agent.open import Acting, open_agent
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.sim.task import MuJoCoWorld
from understudy.sim.testing import Fault, FaultyWorld

from ..clocked import Arm, Clocked

POINT = MuJoCoWorld(task="point", horizon=24)
STARTS = range(300, 319)  # two whole blocks and a part of one


def faulty(*faults, **changes):
    return FaultyWorld(**{"task": "point", "horizon": 24, "faults": faults} | changes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("policies") / "policy")


def write_checkpoint(folder, seed=0):
    import torch

    torch.manual_seed(seed)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(horizon=4), inputs=(STATE, SCENE), network=network, n_action_steps=3)
    embodiment = POINT.embodiment()
    save_checkpoint(folder, config.build(embodiment, blank_scales(embodiment)), kind="policy", config=config)
    return folder


def recipe(checkpoint, world=POINT, **changes):
    acting = Acting(policy=str(checkpoint), policy_seed=7, monitor=2, **changes)
    agent, about = open_agent(acting, world.embodiment, world.task)
    return PolicyRecipe.of(acting, agent, about, world)


def rows(results):
    return table_of([result.row for result in results])


def run(crew, who, starts=STARTS, **how):
    return list(crew.run(who, starts, **how))


@pytest.fixture(scope="module")
def plain(checkpoint):
    """In this process."""
    with Crew(POINT) as crew:
        return run(crew, recipe(checkpoint))


def without(results, *starts):
    return rows([result for result in results if result.start not in starts])


def test_blocks_are_as_they_always_were():
    first, second = blocks(range(300, 311), 8, skip={301}, columns={})
    assert first.starts == (300, NO_START, *range(302, 308))
    assert second.starts == (308, 309, 310, *[NO_START] * 5)
    assert blocks(range(300, 308), 8, skip=range(300, 308), columns={}) == []
    halves = split(first, 2)
    assert [half.todo for half in halves] == [(300, 302, 303, 304), (305, 306, 307)]
    assert halves[1].starts[5:] == (305, 306, 307), "every env seed keeps its slot"
    assert keep_only(second, [310]).starts == (NO_START, NO_START, 310, *[NO_START] * 5)


@pytest.mark.parametrize("overlap", [False, True])
def test_the_same_rows_whoever_runs_the_blocks(plain, checkpoint, overlap):
    """Three blocks for two workers: the last one is shared. The columns of a monitor come along."""
    with Crew(POINT, workers=2, overlap=overlap) as crew:
        results = run(crew, recipe(checkpoint))
        assert tables_equal(rows(plain), rows(results))
        assert {"signal_recall", "signal_spread"} <= set(results[0].row)
        assert {result.row["worker"] for result in results} == {0, 1}
        again = run(crew, recipe(checkpoint), skip=STARTS[3:])  # the workers are still there
        assert tables_equal(rows(again), rows([result for result in plain if result.start < 303]))
    told = crew.account.told()
    assert told["workers"] == 2 and told["blocks"] == 6 and told["first_episode"] > 0
    most = peak_memory() + 1 if overlap else 4000  # the policy stays in this process, which did much else before
    assert len(told["memory_mb"]) == 2 and all(30 < value < most for value in told["memory_mb"])


@pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")
@pytest.mark.parametrize("when", ["while it loads", "while they work"])
def test_a_nursery_that_is_lost_changes_no_row(plain, checkpoint, when):
    with Crew(POINT, workers=2) as crew:
        crew.start()
        results = crew.run(recipe(checkpoint), STARTS)
        first = [] if when == "while it loads" else [next(results)]
        os.kill(crew._nursery._process.pid, signal.SIGKILL)
        if first:
            os.kill(crew.worker_pids()[0], signal.SIGKILL)
        assert tables_equal(rows(plain), rows([*first, *results]))


@pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")
def test_what_is_expected_loads_before_its_crew_is_made(plain, checkpoint):
    expect(POINT, 2, episodes=19)
    expected = standing._expected[1]
    with crew_for(replace(POINT, horizon=25), 2, episodes=19) as other:
        assert other._nursery is None and standing._expected, "another world's"
    with crew_for(POINT, 2, episodes=19) as crew:
        assert crew._nursery is expected and standing._expected is None
        assert tables_equal(rows(plain), rows(run(crew, recipe(checkpoint))))
    assert not expected.alive
    expect(POINT, 0, episodes=19)
    assert standing._expected is None, "no workers, nothing to load"


def test_experts_films_and_whole_episodes_come_back_from_workers():
    keep = {"keep": True, "starts": range(300, 305), "film": {301}}
    with Crew(POINT) as here, Crew(POINT, workers=2) as there:
        acted, sent = (run(crew, ExpertRecipe(), **keep) for crew in (here, there))
        assert tables_equal(rows(acted), rows(sent)) and all(result.row["success"] for result in sent)
        ours, theirs = ({result.start: result for result in results} for results in (acted, sent))
        for start, result in ours.items():
            assert (result.actions == theirs[start].actions).all()
            assert all((value == theirs[start].episode.obs[key]).all() for key, value in result.episode.obs.items())
            assert len(result.film) == len(theirs[start].film) == (result.row["length"] + 1 if start == 301 else 0)
        tapes = {start: result.actions for start, result in ours.items()}
        assert tables_equal(rows(acted), rows(run(there, TapeRecipe(tapes), list(tapes))))


@pytest.mark.parametrize("workers", [0, 1])
def test_another_world_is_entered_with_the_workers_that_are_there(workers):
    with Crew(POINT, workers=workers) as crew:
        assert len(run(crew, ExpertRecipe(), [300])) == 1
        pids = crew.worker_pids()
        crew.enter(replace(POINT, cameras={"top": (16, 24)}))
        (result,) = run(crew, ExpertRecipe(), [300], keep=True)
        assert result.episode.obs["observation.images.top"].shape[1:] == (16, 24, 3)
        assert crew.worker_pids() == pids and crew.embodiment.cameras == {"top": (16, 24)}


def test_a_block_of_a_worker_that_was_killed_is_run_again(plain, checkpoint, tmp_path):
    """One kills itself in a lane's turn, one is killed from outside; one hangs once, one cannot be interrupted."""
    faults = [Fault(303, 9, "kill", once=str(tmp_path / "kill")), Fault(311, 4, "hang", once=str(tmp_path / "hang"))]
    with Crew(faulty(*faults), workers=2, timeout=2) as crew:
        results = []
        for result in crew.run(recipe(checkpoint), STARTS):
            results.append(result)
            if len(results) == 2:
                os.kill(crew.worker_pids()[0], signal.SIGKILL)
    assert (tmp_path / "kill").exists() and (tmp_path / "hang").exists()
    assert len(results) == len(STARTS) and tables_equal(rows(plain), rows(results))
    assert crew.account.again >= 1


def test_what_always_goes_wrong_is_a_row_with_an_error_and_disturbs_nobody(plain, checkpoint):
    faults = Fault(303, 9, "abort"), Fault(305, 2), Fault(310, 3, "hang"), Fault(313, 0, "reset")
    with Crew(faulty(*faults), workers=2, timeout=4) as crew:
        results = run(crew, recipe(checkpoint))
    errors = {result.start: result.row["error"] for result in results if result.row["error"]}
    assert set(errors) == {303, 305, 310, 313} and len(results) == len(STARTS)
    assert "SIGABRT" in errors[303] and "start 305 fails at step 2" in errors[305]
    assert "did not answer within" in errors[310] and "start 313 fails" in errors[313]
    assert tables_equal(without(results, *errors), without(plain, *errors))
    assert not {result.start: result for result in results}[303].row["success"]


def test_what_the_machine_does_is_no_row(plain, checkpoint, monkeypatch):
    monkeypatch.setattr("understudy.eval.rollout.crew.PAUSES", (0, 0))
    monkeypatch.setattr("understudy.eval.rollout.rollout.PAUSES", (0, 0))
    results = []
    with Crew(faulty(Fault(303, 9, "kill")), workers=1) as crew, pytest.raises(MachineError, match="env seed 303"):
        for result in crew.run(recipe(checkpoint), STARTS[:8]):
            results.append(result)
    kept = [result for result in plain if result.start in range(300, 308)]
    assert tables_equal(rows(results), without(kept, 303))


def test_a_policy_that_was_changed_meanwhile_is_refused(tmp_path):
    who = recipe(write_checkpoint(tmp_path / "policy"))
    (tmp_path / "policy").rename(tmp_path / "old")
    write_checkpoint(tmp_path / "policy", seed=1)
    with Crew(POINT, workers=1) as crew, pytest.raises(ChangedPolicyError, match="was changed"):
        run(crew, who)


def test_a_run_that_is_left_leaves_no_process_and_other_jobs_their_results():
    with Crew(POINT, workers=2) as crew:
        first, second = (crew.submit(ExpertRecipe(), starts) for starts in (range(300, 324), range(400, 408)))
        results = crew.results(first)
        next(results)
        results.close()
        assert sorted(result.start for result in crew.results(second)) == list(range(400, 408))
        pids = crew.worker_pids()
        begun = time.monotonic()
    assert len(pids) == 2 and time.monotonic() - begun < 8
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_worker_that_cannot_be_interrupted_is_ended(monkeypatch):
    """It hangs with the interrupt blocked, as outside of Python; `spin` is interrupted."""
    monkeypatch.setattr("understudy.eval.rollout.hands.GRACE", 0.5)
    with Crew(faulty(Fault(301, 2, "deaf")), workers=1, timeout=1) as crew:
        results = run(crew, ExpertRecipe(), STARTS[:4])
    errors = {result.start: result.row["error"] for result in results if result.row["error"]}
    assert list(errors) == [301] and "did not answer within 1 s and was ended" in errors[301]
    assert sum(result.row["success"] for result in results) == 3


@dataclass(frozen=True)
class Refusing:
    """An actor whose policy raises in its second chunk, as one does that lives on a server which went away."""

    kind: type = ConnectionError
    needs_torch = False

    def actor(self, lanes):
        actor = ExpertRecipe().actor(lanes)
        act, calls = actor.act, []

        def second():
            calls.append(1)
            warnings.warn(f"call {os.getpid()} of the policy", stacklevel=2)
            if len(calls) > 1:
                raise self.kind("the policy is gone")
            return act()

        actor.act = second
        return actor


@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_policy_raises_ends_the_run(overlap, monkeypatch, tmp_path):
    """The recipe lies in a module that the workers can import, as that of a plug-in does."""
    (tmp_path / "refusing.py").write_text(
        "import os\nimport warnings\nfrom dataclasses import dataclass\n"
        "from understudy.eval.rollout.recipes import ExpertRecipe\n\n" + inspect.getsource(Refusing)
    )
    monkeypatch.syspath_prepend(tmp_path)
    refusing = importlib.import_module("refusing")
    with Crew(POINT, workers=1, overlap=overlap) as crew:
        with warnings.catch_warnings(record=True) as said, pytest.raises(ConnectionError, match="the policy is gone"):
            warnings.simplefilter("always")
            run(crew, refusing.Refusing())
        if not overlap:
            (one,) = [str(warning.message) for warning in said]
            assert one == f"call {crew.worker_pids()[0]} of the policy", "once for all calls and workers"
        assert len(run(crew, ExpertRecipe(), STARTS[:3])) == 3, "the worker goes on"


def test_by_the_clock_one_environment_acts_at_a_time():
    """Eight arms in turn would each stand, and be late, while the others act."""
    emulated = {"type": "robot", "emulate": True, "task": "so101-reach"}
    twin = {"type": "twin", "of": {"type": "mujoco", "task": "so101-pusht"}, "real": {}, "pace": "wall"}
    for world, block, workers in (
        (read_world(emulated), 1, 0),
        (read_world({**emulated, "clock": "simulated"}), 8, 2),
        (read_world(twin), 1, 0),
    ):
        config = Eval(policy="x", out="unused", block=8)
        with crew_for(world, None if workers == 0 else workers, episodes=40, block=8, quiet=True) as crew:
            assert (crew.block, crew.workers) == (block, workers)
        assert paced(config, world).block == block


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": 3}, r"--videos 3: a film plays an episode again.*leave it out, or give --videos 0"),
        ({"block": 4}, r"--block 4: one environment acts at a time.*leave it out, or give --block 1"),
        ({"workers": 4}, r"--workers 4: .*makes its steps late: leave --workers out, or let time be simulated"),
    ],
)
def test_what_a_world_by_the_clock_would_ignore_or_be_late_by_is_refused(changes, message, capsys):
    """Films and blocks were left out without a word, and four emulated arms shared the cores."""
    config = Eval(policy="x", out="unused", **changes)
    for world in (Clocked(task="point"), read_world({"type": "robot", "emulate": True, "task": "so101-reach"})):
        for refuse in (check_paced, paced):
            with pytest.raises(ValueError, match=message):
                refuse(config, world)
    if "workers" in changes:
        with pytest.raises(ValueError, match=message):
            crew_for(world, 4, episodes=8)
    check_paced(config, POINT)
    assert paced(config, POINT) is config and capsys.readouterr().out == ""


def test_by_the_clock_it_is_said_that_nothing_is_filmed_by_default(capsys):
    world, config = Clocked(task="point"), Eval(policy="x", out="unused", workers=1)
    assert paced(config, world).videos == 0
    assert capsys.readouterr().out.startswith("films           none: a film plays an episode again")
    paced(replace(config, videos=0), world)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["crash", "reset", "full"])
def test_a_real_arm_does_not_move_again_unasked(kind, monkeypatch):
    """It began the episode a second time by itself, and then those behind it."""
    monkeypatch.setattr("understudy.eval.rollout.rollout.PAUSES", (0, 0))
    fault = Fault(302, 2, kind)
    Arm.built.clear()
    world, results = Arm(task="point", horizon=6, faults=(fault,)), []
    with Crew(world, 1) as crew, pytest.raises(ArmError, match=r"env seed 302 failed: .*does not move again unasked"):
        for result in crew.run(ExpertRecipe(), range(300, 306)):
            results.append(result)
    assert [result.start for result in results] == [300, 301] and len(Arm.built) == 1


def test_by_the_clock_an_emulated_arm_is_tried_again(tmp_path):
    fault = Fault(302, 2, once=str(tmp_path / "once"))
    with Crew(Clocked(task="point", horizon=6, faults=(fault,)), 1) as crew:
        results = run(crew, ExpertRecipe(), range(300, 306))
    assert len(results) == 6 and [result.row["attempt"] for result in results] == [0, 0, 1, 0, 0, 0]


def test_by_the_clock_a_cluster_has_one_worker(monkeypatch):
    """None were asked for, and it refused to have none."""
    monkeypatch.setattr(standing, "_of_cluster", lambda world, asked, *_: asked)
    world = read_world({"type": "robot", "emulate": True, "task": "so101-reach"})
    assert [crew_for(world, asked, episodes=9, engine="ray") for asked in (None, 2)] == [1, 2]


def test_an_arm_has_one_process_and_plays_no_episode_again(tmp_path):
    world = Arm(task="point", horizon=3)
    with pytest.raises(ValueError, match="one arm"):
        crew_for(world, 2, episodes=4)
    with pytest.raises(ValueError, match="one arm, and 8 environments"):
        Lanes(world, 8)
    with crew_for(world, None, episodes=4, quiet=True) as crew:
        (result,) = crew.run(ExpertRecipe(), [3], keep=True)
        told = film_again(crew, {3: result.row}, {3: result.actions}, tmp_path)
    assert told == {} and not (tmp_path / "videos").exists()
    assert paced(Eval(policy="x", out="unused"), world).videos == 0
