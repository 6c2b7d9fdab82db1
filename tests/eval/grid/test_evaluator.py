"""Evaluations of a grid in one process after the other: status, log and record of each; what ends it."""

import signal
import time

import pytest

from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.grid.evaluator import Evaluators, works_for
from understudy.eval.ledger.record import read_record
from understudy.eval.rollout.recipes import ExpertRecipe
from understudy.eval.rollout.standing import crew_for, standing
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.sim.task import MuJoCoWorld

POINT = MuJoCoWorld(task="point", horizon=20)


def end(evaluation, patience=110):
    deadline = time.monotonic() + patience
    while evaluation.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return evaluation.returncode


def test_commands_run_one_after_the_other_in_one_process(tmp_path):
    body, network = read_world("point").embodiment(), MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(window=Window(horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=4)
    save_checkpoint(tmp_path / "policy", config.build(body, blank_scales(body)), kind="policy", config=config)
    cell = tmp_path / "grid" / "wide" / "seed0"
    cell.mkdir(parents=True)

    def words(name, **more):
        flags = {"policy": tmp_path / "policy", "world": "{type: point, horizon: 20}", "episodes": 9, "videos": 0}
        flags |= {"out": cell / name, "workers": 1} | more
        return ["eval", *(f"--{key}={value}" for key, value in flags.items())]

    evaluators = Evaluators(tmp_path / "grid", {})
    try:
        first = evaluators.begin(words("one"), cell / "one.log")
        assert end(first) == 0
        second = evaluators.begin(words("two"), cell / "two.log")
        assert second.pid == first.pid and end(second) == 0
        bad = evaluators.begin(words("three", world="no-such-world"), cell / "three.log")
        assert end(bad) not in (0, None) and "no-such-world" in (cell / "three.log").read_text()
        with open(f"/proc/{bad.pid}/cmdline", "rb") as file:
            assert works_for(cell, file.read())

        assert len(read_record(cell / "two").table) == 9 and "success" in (cell / "two.log").read_text()
        assert not list(cell.glob("*.status"))

        bad._evaluator.process.send_signal(signal.SIGINT)  # while it waits
        bad._evaluator.process.wait(20)
        again = evaluators.begin(words("four"), cell / "four.log")
        assert again.pid != first.pid
        again.send_signal(signal.SIGKILL)
        assert end(again) == -signal.SIGKILL
    finally:
        evaluators.close()


def test_workers_that_stand_by_are_those_of_the_next_run():
    with standing() as crews:
        pids = []
        for _ in range(2):
            with crew_for(POINT, 1, episodes=4, block=4) as crew:
                assert len(list(crew.run(ExpertRecipe(), range(300, 304)))) == 4
                pids.append(crew.worker_pids())
        assert pids[0] == pids[1] and pids[0]
        with crew_for(POINT, 0, episodes=4, block=4) as other:
            assert other is not crew and crew.worker_pids() == []
        crews.close()
    with crew_for(POINT, 0, episodes=4) as alone:
        assert not alone.stays


@pytest.mark.parametrize(
    "words", [b"understudy\0eval\0--out=/elsewhere", b"understudy.eval.grid.evaluator\0/elsewhere"]
)
def test_others_do_not_work_for_a_grid(tmp_path, words):
    assert not works_for(tmp_path / "grid" / "wide" / "seed0", words)
