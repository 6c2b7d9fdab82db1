"""The study of rankings by dreams names commands that are understood, and predictors that need no dream."""

import json
import math
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml

from understudy.__main__ import VERBS
from understudy.configs.parse import parse
from understudy.eval.ledger.identity import matched, open_records
from understudy.eval.ledger.record import RecordWriter
from understudy.eval.statistics.intervals import Interval
from understudy.eval.studies.dream_ranking import RANKINGS, TAUGHT, DreamRanking, held_out_loss, steps, table
from understudy.eval.world_model.evaluate import EvalWorldModel

ROOT = Path(__file__).resolve().parents[3]


def write(folder, world, policy, rate, rng):
    path = f"{folder.parent}/run" + (f"/checkpoints/{8000:08}" if policy % 2 else "")
    manifest = {
        "policy": {"path": path, "step": 8000, "fingerprint": f"f{policy}"}, "agent": {"n_action_steps": 8},
        "world": {"type": world},
        "starts": {"set": "pusht", "count": 40},
    }  # fmt: skip
    with RecordWriter(folder, manifest) as writer:
        for start in range(40):
            won = bool(rng.random() < rate)
            writer.add({
                "initial_conditions": "pusht", "env_seed": start, "policy_seed": 0, "task": "t", "success": won,
                "first_success": 3 if won else -1, "best_progress": float(won), "final_progress": float(won),
                "return": 0.0, "length": 3, "progress": [0.0, 0.0, float(won)], "terminated": won, "truncated": not won,
                "wall_physics": 0.0, "wall_render": 0.0, "wall_policy": 0.0, "attempt": 0, "worker": 0, "video": "",
                "error": "", "labels": "{}",
            })  # fmt: skip
        writer.close(complete=True)


@pytest.mark.parametrize("task", RANKINGS)
def test_every_step_is_understood_and_its_files_are_there(task, tmp_path, monkeypatch):
    """Each command is parsed as the command line parses it, and makes what the next ones read."""
    ranking, parsed = RANKINGS[task], []
    monkeypatch.chdir(tmp_path)
    for step in steps(ranking, "data"):
        words, made = step.words, step.begun
        assert words[0] in VERBS
        assert all((ROOT / word).is_file() for word in words if word.startswith("configs/"))
        parsed.append((words, made))
        if words[0] in ("demos", "resim", "eval"):
            module, name = VERBS[words[0]][0].split(":")
            kind = EvalWorldModel if words[0] == "eval" else getattr(import_module(f"understudy.{module}"), name)
            assert parse(kind, None, words[1:]).out is not None
            assert str(made) == words[words.index("--out") + 1]
    assert len(parsed) == 8 + (ranking.spoilt is not None) and all(
        made.is_relative_to(ranking.root) for _, made in parsed
    )
    *_, (trained, _), (measured, _), (judged, _) = parsed
    data = [str(made) for words, made in parsed if words[0] in ("demos", "resim")]
    assert trained[trained.index("--data") + 1] == measured[measured.index("--data") + 1] == ",".join(data)
    grids = {name: yaml.safe_load((ROOT / words[1]).read_text()) for name, words in
             (("teachers", next(words for words, _ in parsed if words[0] == "run")), ("policies", judged))}  # fmt: skip
    for name, grid in grids.items():
        assert grid["out"] == str(ranking.root / name) and grid["train"]["set"]["data"] == str(ranking.images)
    assert grids["policies"]["eval"]["dream"]["set"]["world"]["model"] == str(ranking.root / "dream" / "video")
    noises = [words[words.index("--action_noise") + 1] for words, _ in parsed if words[0] == "demos"]
    assert noises.count(f"{ranking.spoilt}") == (ranking.spoilt is not None)
    assert set(TAUGHT) == set(grids["teachers"]["vary"]) and len(grids["policies"]["vary"]) >= 8
    assert not set(grids["policies"]["seeds"]) & set(grids["teachers"]["seeds"])


def test_the_paths_of_pusht_are_those_of_its_grids():
    assert RANKINGS["pusht"].policies == Path("out/dream_ranking/policies")
    made = {str(step.begun) for step in steps(RANKINGS["pusht"], "data")}
    assert {"out/dream_ranking/images", "out/dream_ranking/dream", "out/dream_ranking/measured"} < made


def test_what_was_broken_off_is_gone_on_with_and_not_taken_for_whole(tmp_path, monkeypatch):
    """Half a recording and a dream that was trained half are there, too, and are none."""
    monkeypatch.chdir(tmp_path)
    said = []
    monkeypatch.setattr("understudy.eval.studies._steps.command", said.append)
    every = [*steps(RANKINGS["pusht"], "data")]
    for step in every:
        step.begun.mkdir(parents=True)
        step.do(tmp_path / "done")
    assert [words[0] for words in said] == ["run", "demos", "demos", "demos", "train", "run"]
    assert all(words[-2:] == ["--resume", "true"] for words in said if words[0] == "demos")
    for step in every:
        step.do(tmp_path / "done")
    assert [words[0] for words in said[6:]] == ["run", "run"], "what has ended is not done again; grids look themselves"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "so101-fold"}, "tasks: pusht, so101-reach"),
        ({"task": "so101-reach", "data": "x"}, "the expert of so101-reach demonstrates"),
    ],
)
def test_what_cannot_be_ranked_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        DreamRanking(**settings)
    with pytest.raises(ValueError, match="--data says where the human episodes"):
        RANKINGS["pusht"].demonstrate("")


def test_the_table_sets_the_dream_beside_a_second_truth_and_cheap_predictors(tmp_path):
    rng = np.random.default_rng(0)
    for policy, rate in enumerate((0.1, 0.3, 0.5, 0.6, 0.8, 0.9)):
        place = tmp_path / f"p{policy}" / "seed0"
        (place / "run").mkdir(parents=True)
        (place / "run" / "metrics.jsonl").write_text(json.dumps({"step": 1, "validation/loss": 1 - rate}) + "\n")
        for name, world in (("truth", "sim"), ("again", "sim"), ("dream", "imagined"), ("ruled", "imagined")):
            write(place / name, world, policy, rate, rng)
    study = table(tmp_path, DreamRanking())
    rows = {row[0]: row[1:] for row in study.rows}
    told = ("the dream", "a second true run", "the dream, by the rules of the task")
    assert all(Interval(*rows[name][0]).estimate > 0.9 for name in told)
    assert rows["training steps"][0] is rows["a constant"][0] is None
    assert rows["held-out loss (less is better)"][0] > 0.9 and rows["works or broken"][0] > 0.7
    assert re.search(r"in the dream: p5 0\.\d+, 0\.\d+, 0\.\d+; p4 .*; p0 ", study.notes[-1])
    assert math.isnan(held_out_loss(tmp_path))
    assert matched(
        open_records([tmp_path / "p0" / "seed0" / "truth"]), open_records([tmp_path / "p0" / "seed0" / "dream"])
    )
