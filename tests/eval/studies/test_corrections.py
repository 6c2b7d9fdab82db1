"""The study of corrections: ordinary commands, a control with as many expert steps, a table with paired differences."""

import shlex
from itertools import islice

import numpy as np
import pytest
import yaml

from understudy.__main__ import VERBS, main
from understudy.eval.ledger.study import read_study
from understudy.eval.studies.corrections import (
    ARMS,
    COLUMNS,
    CORRECTED,
    EPISODES,
    STEPS,
    CorrectionsStudy,
    as_many,
    steps,
)
from understudy.policies.data.corrections import INTERVENTION
from understudy.policies.data.open import open_dataset

CONFIG = """
policy:
  type: flow
  inputs: [observation.state, observation.environment_state]
  window: {observe: [0], horizon: 8}
  n_action_steps: 4
  network: {type: mlp, width: 16, depth: 1, condition_width: 8}
best: none
validation: 0.0
"""


def test_as_many_steps_are_the_first_episodes_that_come_nearest():
    assert [as_many(wanted, np.array([10, 10, 10])) for wanted in (1, 14, 16, 99)] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0,)}, "two or more"),
        ({"seeds": (1, 1)}, "different"),
        ({"added": 0}, "at least 1"),
        ({"few": 6000}, "must not overlap"),
        ({"weight": 0.0}, "weigh more than 0"),
    ],
)
def test_settings_that_say_nothing_in_the_end_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CorrectionsStudy(**changes)


def test_every_step_is_a_verb_and_data_are_of_initial_conditions_for_data():
    first, second = (list(islice(steps(CorrectionsStudy(), seed), 9)) for seed in (0, 1))
    assert {step.words[0] for step in first} == {"demos", "train", "eval"} <= set(VERBS)
    demos = [step.words for step in (*first, *second) if step.words[0] == "demos"]
    begins = [int(words[words.index("--env_seed") + 1]) for words in demos]
    assert begins == [300_000, 305_000, 305_000, 310_000, 315_000, 315_000]  # corrections and plain ones from the same
    corrected = next(step.words for step in first if step.begun.parts[-2] == CORRECTED)
    assert corrected[corrected.index("--corrections.weight") + 1] == "2.0"
    assert [step.words[step.words.index("--threads") + 1] for step in first if step.words[0] != "demos"] == ["1"] * 6


@pytest.mark.slow
def test_it_acts_as_told_and_what_has_ended_is_not_done_again(tmp_path, monkeypatch, capsys):
    config, out, root = tmp_path / "point.yaml", tmp_path / "study.json", tmp_path / "root"
    config.write_text(CONFIG)
    words = (
        f"study corrections --root {root} --task point --config {config} --out {out} --few 3 --added 2 --seeds [0,1]"
    )
    words = shlex.split(f"{words} --steps 2 --batch 4 --episodes 3 --env_seed 0 --takeover.after 3 --weight 2")
    assert main([*words, "--only_table", "true"])
    assert "is not finished" in capsys.readouterr().err
    assert main(words) == 0

    told = read_study(out)
    assert told.command.startswith("understudy study corrections --task point") and "--takeover.after 3" in told.command
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in told.rows]
    assert [row["trained on"] for row in rows] == list(ARMS.values())
    data = [open_dataset(str(root / f"seed{seed}" / f"{CORRECTED}_data")) for seed in (0, 1)]
    assert rows[1]["episodes added"] == np.mean([len(one.lengths) for one in data])
    assert rows[1]["expert steps added"] == np.mean([one.columns[INTERVENTION].sum() for one in data]) > 0
    assert rows[1]["corrections above it"] is None and rows[0]["above few demonstrations"] is None
    low, estimate, high = rows[3]["corrections above it"]
    assert low <= estimate <= high
    for seed in (0, 1):
        trained = {arm: yaml.safe_load((root / f"seed{seed}" / arm / "config.yaml").read_text()) for arm in ARMS}
        assert trained[CORRECTED]["corrections"]["weight"] == 2 and not trained[STEPS].get("corrections")
        assert {run["steps"] for run in trained.values()} == {2} and {run["seed"] for run in trained.values()} == {seed}
        assert trained[STEPS]["data"] == trained[EPISODES]["data"] and trained[STEPS]["episodes"].startswith("all;0-")

    done = []
    monkeypatch.setattr("understudy.eval.studies._steps.command", done.append)
    capsys.readouterr()
    assert main(words) == 0
    assert not done and "corrections above it" in capsys.readouterr().out
