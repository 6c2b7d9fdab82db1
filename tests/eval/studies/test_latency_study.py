"""The study of late plans: what it measures, and that the same command goes on."""

import numpy as np
import pytest

from understudy.configs.plugins import discover
from understudy.configs.spec import SCENE, STATE, Window
from understudy.eval.ledger.study import read_study
from understudy.eval.studies import latency
from understudy.eval.studies._kept import Kept
from understudy.eval.studies.latency import COLUMNS, Case, LatencyStudy, Starts, bends, row
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.flow import FlowConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.sim.task import MuJoCoWorld


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """An untrained one."""
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("late") / "policy"
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = FlowConfig(window=Window(horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=3)
    embodiment = MuJoCoWorld(task="point").embodiment()
    save_checkpoint(folder, config.build(embodiment, blank_scales(embodiment)), kind="policy", config=config)
    return str(folder)


def of(policy, tmp_path, **changes):
    world = {"type": "mujoco", "task": "point", "horizon": 12}
    settings = {"policy": policy, "out": tmp_path / "latency.json", "world": world, "episodes": 4, "delays": (0, 2)}
    return LatencyStudy(**(settings | {"latency": ("switch", "rtc", "past")} | changes))


def test_a_jump_is_found_where_the_plan_takes_over():
    """Plans of 4 steps that take over at step 1 of each; the second and third jump by 1, a joint moves evenly."""
    jumps = np.repeat([0.0, 1.0, 2.0], [5, 4, 3])
    seam, rest = bends(np.stack([jumps, np.linspace(0, 1, 12)], 1), steps=4, takes=1)
    assert seam.tolist() == [1, 1] and len(rest) == 8
    assert rest.max() == pytest.approx(1), "one step later it bends back"


def test_ways_are_compared_start_by_start():
    """Half the jump of real-time chunking, one success of four fewer; a start without a seam is left out."""
    rtc = Starts(np.array([3, 5, 7, 9.0]), *np.full((4, 4), 2.0))
    ours = Starts(np.array([3, 5, 7, -1.0]), np.array([1, 1, 1, np.nan]), *np.ones((3, 4)))
    cells = dict(zip(COLUMNS, row(Case("p", 2, "prefix"), ours, rtc), strict=True))
    assert cells["success"].estimate == 0.75 and cells["success less rtc's"].estimate == -0.25
    assert tuple(cells["of rtc's seam"]) == (0.5, 0.5, 0.5) and cells["steps to success"].estimate == 5
    alone = dict(zip(COLUMNS, row(Case("p", 2, "rtc"), rtc, rtc), strict=True))
    assert alone["of rtc's seam"] is None and alone["success less rtc's"] is None


def test_it_goes_on_and_says_what_does_not_fit(policy, tmp_path, monkeypatch, capsys):
    discover("policies", "sim")
    config, acted, cases = of(policy, tmp_path), latency._acted, []

    def until_the_third(config, case):
        cases.append(case.mode)
        if len(cases) == 3:
            raise KeyboardInterrupt
        return acted(config, case)

    monkeypatch.setattr(latency, "_acted", until_the_third)
    with pytest.raises(KeyboardInterrupt, match="2 parts are kept"):
        config.run()
    monkeypatch.setattr(latency, "_acted", lambda config, case: cases.append(case.mode) or acted(config, case))
    config.run()
    assert cases == ["-", "switch", "rtc", "rtc", "past"], "what was done is not done again"
    found = read_study(config.out)
    assert [line[1:4] for line in found.rows] == [(0, "-", 4), (2, "switch", 4), (2, "rtc", 4)]
    assert "needs a policy with past tokens" in found.notes[-1]
    assert "--world" in found.command and "--delays" in found.command and "--out FILE.json" in found.command
    whole = LatencyStudy(**vars(config) | {"out": tmp_path / "whole.json"})
    assert latency.study(whole, Kept(whole.out, whole)).rows == found.rows, "the same as in one go"


def test_what_would_be_left_out_wholly_is_refused_at_once(policy, tmp_path):
    with pytest.raises(ValueError, match="none of --delays"):
        of(policy, tmp_path, conditioned=(f"3={policy}",))
    with pytest.raises(ValueError, match="give --world NAME"):
        of(policy, tmp_path, world=None).run()
    assert not (tmp_path / "latency.json").exists()
