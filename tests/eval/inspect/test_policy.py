"""`understudy inspect --policy`: from runs to tables, studies and a page; what cannot be asked is refused by name."""

import dataclasses

import pytest
import torch
import yaml

from understudy.__main__ import main
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.inspect.arms import find_arms
from understudy.eval.ledger.study import read_study
from understudy.policies.learning.checkpoint import blank_scales, point, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten demonstrations, and a grid of two settings with two untrained seeds each, as `understudy run` leaves it."""
    folder = tmp_path_factory.mktemp("inspected")
    assert main(["demos", "point", "--episodes", "12", "--out", str(folder / "demos")]) == 0
    embodiment = read_world("point").embodiment()
    for name, observe in (("near", (0,)), ("far", (-4, 0))):
        config = DiffusionConfig(
            window=Window(observe=observe, horizon=4),
            inputs=(STATE, SCENE),
            network=MLPConfig(width=8, depth=1, condition_width=8),
            n_action_steps=2,
        )
        config = dataclasses.replace(config, sampler=dataclasses.replace(config.sampler, steps=2))
        for seed in (0, 1):
            torch.manual_seed(seed)
            policy = config.build(embodiment, blank_scales(embodiment))
            for parameter in policy.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
            run = folder / "grid" / name / f"seed{seed}" / "run"
            save_checkpoint(run / "checkpoints" / "00000010", policy, kind="policy", config=config)
            point(run, "last", run / "checkpoints" / "00000010")
            settings = {"data": str(folder / "demos"), "validation": 0.5, "seed": seed}
            (run / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


WORDS = ("--world", "point", "--episodes", "12", "--repeats", "1", "--windows", "40")


def test_a_grid_becomes_two_tables_and_a_page(folder, tmp_path, capsys):
    record, page = tmp_path / "record.json", tmp_path / "page.html"
    words = ["inspect", "--policy", str(folder / "grid"), *WORDS, "--record", str(record), "--out", str(page)]
    assert main(words) == 0
    said = capsys.readouterr().out
    ratios, frames = read_study(record), read_study(tmp_path / "record-frames.json")
    assert [row[0] for row in ratios.rows] == ["demonstrations against others", "far", "near"]
    assert [row[1:3] for row in ratios.rows[1:]] == [(2, 12)] * 2
    for low, estimate, high in (row[5] for row in ratios.rows):
        assert 0 < low < estimate < high
    # untrained: its actions do not follow from each other as an expert's do
    assert max(row[5][1] for row in ratios.rows[1:]) < 0.5 < ratios.rows[0][5][1] < 2
    told = {(row[0], row[1]): row[2:] for row in frames.rows}
    assert told["frame", -4][1] is None and 0 < told["frame", -4][0][1] < 1
    assert told["frame", 0][1] == pytest.approx((1, 1, 1)) and told["another noise", None][1][0] > 0
    assert ratios.command.startswith("understudy inspect --policy") and str(record) in said
    text = page.read_text()
    assert text.count("<polyline") == 2 and "demonstrations against others" in text
    assert text.count("<circle") == 1  # a line of one frame is a point


def test_one_run_without_a_world_says_which_frames_matter(folder, tmp_path, capsys):
    page = tmp_path / "one.html"
    run = folder / "grid" / "far" / "seed0" / "run"
    assert main(["inspect", "--policy", str(run), "--keys", "--windows", "30", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert f"frame, {SCENE} alone" in said and "name a world by --world" in said
    assert page.read_text().count("<polyline") == 4  # whole frame, two keys, the level of the noise
    assert main(["inspect", "--policy", str(run), "--out", str(page)]) == 2
    assert "exists" in capsys.readouterr().err


def test_arms_are_runs_settings_and_grids(folder, tmp_path):
    grid = folder / "grid"
    assert [arm.label for arm in find_arms([str(grid)])] == ["far", "near"]
    near = find_arms([str(grid / "near")])[0]
    assert near.label == "near" and [run.parent.name for run in near.runs] == ["seed0", "seed1"]
    runs = find_arms([str(run) for run in near.runs])
    assert [arm.runs for arm in runs] == [(run,) for run in near.runs] and len({arm.label for arm in runs}) == 2
    with pytest.raises(ValueError, match="given twice"):
        find_arms([str(near.runs[0])] * 2)
    with pytest.raises(FileNotFoundError, match="is not a run"):
        find_arms([str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what to inspect"),
        (("{demos}", "--policy", "{grid}"), "say what to inspect"),
        (("--policy", "{demos}"), "is not a run or checkpoint"),
        (("--policy", "{grid}", "--quality"), "--quality is of a dataset"),
        (("--policy", "{grid}", "--out", "a.svg"), "give a .html"),
        (("--policy", "{grid}", "--episodes", "0"), "at least 1"),
        (("--policy", "{grid}", "--world", "point", "--episodes", "13", "--out", "{new}"), "give --episodes 12"),
        (("--policy", "{grid}", "--world", "pusht", "--episodes", "12", "--out", "{new}"), "embodiments differ"),
    ],
)
def test_what_cannot_be_asked_is_refused(folder, tmp_path, capsys, words, message):
    places = {"demos": folder / "demos", "grid": folder / "grid", "new": tmp_path / "new.html"}
    assert main(["inspect", *(word.format(**places) for word in words)]) == 2
    assert message in capsys.readouterr().err
