"""The study of demonstrations from failures: as many of both kinds, equal steps, starts that nobody shares."""

import json
import shlex
from itertools import islice

import pytest
import yaml

from understudy.__main__ import VERBS, main
from understudy.eval.demos.recording import written_starts
from understudy.eval.ledger.record import read_record
from understudy.eval.ledger.study import read_study
from understudy.eval.studies.failure_starts import ARMS, COLUMNS, FAILED, FRESH, JUDGES, FailureStarts, steps
from understudy.policies.data.open import open_dataset

CONFIG = """
policy:
  type: flow
  inputs: [observation.state, observation.environment_state]
  window: {observe: [0], horizon: 8}
  n_action_steps: 4
  network: {type: mlp, width: 16, depth: 1, condition_width: 8}
best: none
validation: 0.3
"""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0,)}, "two or more"),
        ({"seeds": (1, 1)}, "different"),
        ({"added": 0}, "at least 1"),
        ({"tried": 6000}, "must not overlap"),
        ({"env_seed": 100_000}, "for data, not for judging"),
        ({"env_seed": 900}, "from 1000 on are for reporting"),
        ({"env_seed": 99_900}, "from 100000 on are for data"),
    ],
)
def test_settings_that_say_nothing_in_the_end_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FailureStarts(**changes)


def test_a_task_without_a_stand_in_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="plain MuJoCo"):
        FailureStarts(root=tmp_path / "root", task="lift").run()
    assert not (tmp_path / "root").exists()


def test_failures_and_fresh_starts_are_for_data_and_seeds_share_none():
    """Of two seeds: the demonstrations, what is tried, and the fresh demonstrations; reports are apart from all."""
    begins = []
    for seed in (0, 1):
        first = list(islice(steps(FailureStarts(), seed), 5))
        assert {step.words[0] for step in first} == {"demos", "train", "eval"} <= set(VERBS)
        begins += [int(words[words.index("--env_seed") + 1]) for words in (step.words for step in first) if
                   "--env_seed" in words]  # fmt: skip
        found = first[3].words
        assert found[found.index("--starts") + 1] == str(first[2].begun.parent) and "--env_seed" not in found
    assert begins == [400_000, 402_500, 405_000, 410_000, 412_500, 415_000]


@pytest.mark.slow
def test_it_acts_as_told_and_what_has_ended_is_not_done_again(tmp_path, monkeypatch, capsys):
    config, out, root = tmp_path / "point.yaml", tmp_path / "study.json", tmp_path / "root"
    config.write_text(CONFIG)
    words = f"study failure_starts --root {root} --task point --config {config} --out {out} --few 3 --added 2"
    words = shlex.split(f"{words} --tried 6 --seeds [0,1] --steps 2 --batch 4 --episodes 3 --env_seed 0")
    assert main([*words, "--only_table", "true"])
    assert "is not finished" in capsys.readouterr().err
    assert main(words) == 0

    told = read_study(out)
    assert told.command.startswith("understudy study failure_starts --task point")
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in told.rows]
    assert [(row["judged in"], row["trained on"]) for row in rows] == [
        (judge, arm) for judge in JUDGES.values() for arm in ARMS.values()
    ]
    assert [row["demonstrations"] for row in rows] == [3, 5, 5] * 2
    assert rows[1]["failures above it"] is None and rows[0]["above few demonstrations"] is None
    low, estimate, high = rows[2]["failures above it"]
    assert low <= estimate <= high
    for seed in (0, 1):
        folder = root / f"seed{seed}"
        trained = {arm: yaml.safe_load((folder / arm / "config.yaml").read_text()) for arm in ARMS}
        assert {run["steps"] for run in trained.values()} == {2} and {run["seed"] for run in trained.values()} == {seed}
        assert {run["validation"] for run in trained.values()} == {0}
        assert trained[FAILED]["episodes"] == trained[FRESH]["episodes"] == "all;0-1"
        tried = read_record(folder / "tried")
        failed = {row["env_seed"] for row in tried.rows if not row["success"]}
        assert written_starts(folder / f"{FAILED}_data") <= failed
        assert not written_starts(folder / f"{FRESH}_data") & set(tried.column("env_seed"))
        assert len(open_dataset(str(folder / f"{FRESH}_data")).lengths) == 2
        starts = [read_record(folder / f"{arm}_{judge}").column("env_seed") for arm in ARMS for judge in JUDGES]
        assert starts == [list(range(3 * seed, 3 * seed + 3))] * 6
        world = json.loads((folder / f"{FAILED}_reality" / "manifest.json").read_text())["world"]
        assert world["stand_in"]["command_delay"] == 0.1

    done = []
    monkeypatch.setattr("understudy.eval.studies._steps.command", done.append)
    capsys.readouterr()
    assert main(words) == 0
    assert not done and "failures above it" in capsys.readouterr().out
