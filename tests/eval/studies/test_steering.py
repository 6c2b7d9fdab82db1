"""The study of steering: all arms from the same starts, controls among them, finished records kept, no critic that
knows whom it judges."""

import shlex

import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.demos.demos import Demos
from understudy.eval.ledger.study import read_study
from understudy.eval.studies.steering import SteeringArm, SteeringStudy, arms
from understudy.eval.studies.steering_cost import SteeringBench, measure
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

WORLD, WORLD_KEYS = "{type: point, horizon: 12}", {"type": "point", "horizon": 12}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two untrained policies, a critic, and the run of the critic on rollouts of the first policy."""
    root = tmp_path_factory.mktemp("steering")
    body, network = read_world("point").embodiment(), MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(
        window=Window(observe=(0,), horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=4
    )
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_checkpoint(root / f"p{seed}", config.build(body, blank_scales(body)), kind="policy", config=config)
    world = {"type": "point", "horizon": 8}
    data = {"keep_failures": True, "out": str(root / "data"), "world": world}
    Demos(task="point", policy=(str(root / "p0"),), episodes=2, **data).run()
    value = IQLConfig(window=Window(observe=(0,), horizon=1), inputs=(STATE, SCENE), widths=(8,))
    for name in ("blind", "knows"):
        (root / name).mkdir()
        save_checkpoint(root / name / "last", value.build(body, blank_scales(body)), kind="critic", config=value)
    (root / "knows" / "config.yaml").write_text(f"data: {root / 'data'}\n")
    return root


def words(root, out, *more):
    said = ["--policies", root / "p0", root / "p1", "--world", WORLD, "--records", root / "records", "--out", out]
    return [str(word) for word in ("study", "steering", *said, "--episodes", "6", *more)]


def test_every_arm_is_a_row_and_finished_records_are_kept(folders, tmp_path, capsys):
    asked = words(
        folders,
        tmp_path / "s.json",
        "--critics",
        folders / "blind",
        "--candidates",
        "[3, 5]",
        "--temperatures",
        "[1.0]",
    )
    assert main(asked) == 0
    rows = read_study(tmp_path / "s.json").rows
    assert [row[0] for row in rows] == ["the policy alone", "random pick", "best", "best", "softmax", "any action"]
    assert [row[2] for row in rows] == [1, 3, 3, 5, 3, 3] and rows[4][3] == 1.0
    assert rows[0][5] is None and all(len(row[5]) == 3 for row in rows[1:]) and rows[1][6].count(",") == 1
    assert rows[0][7] is None and rows[3][8] > rows[2][8] > rows[4][8] > 0  # spreads above the mean grow with K
    made = {path: path.stat().st_mtime_ns for path in (folders / "records").rglob("episodes.parquet")}
    assert len(made) == 12 and "data that are not at hand; 0 of its episodes" in capsys.readouterr().out
    again = shlex.split(read_study(tmp_path / "s.json").command)[1:]
    assert main(again) == 0 and read_study(tmp_path / "s.json").rows == rows


def test_a_critic_that_knows_a_policy_that_it_judges_is_refused(folders, tmp_path, capsys):
    assert main(words(folders, tmp_path / "s.json", "--critics", folders / "knows")) == 2
    assert f"which {folders / 'p0'} recorded; take other rollouts" in capsys.readouterr().err


def test_what_steering_costs(folders):
    config = SteeringBench(
        policies=(str(folders / "p0"),), critic=str(folders / "blind"), world=WORLD_KEYS, candidates=(1, 8), rounds=2
    )
    rows = measure(config).rows
    assert [row[2] for row in rows] == [1, 8] and rows[0][4] == 1 and rows[1][3] > 0
    assert rows[0][1].startswith("MLPDenoiser") and 0 < rows[0][5] == rows[1][5] < rows[0][3]  # encoding is part


def test_the_arms():
    config = SteeringStudy(policies=("p",), critics=("a", "b"), world="w", records="r", out="o", controls=False)
    assert arms(config) == [SteeringArm("the policy alone"), SteeringArm("best", "a", 10), SteeringArm("best", "b", 10)]
    folders = {arm.folder for arm in arms(SteeringStudy(**{**vars(config), "controls": True}))}
    assert len(folders) == 6
