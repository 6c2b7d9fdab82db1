"""RESULTS.md and its pages: made of the committed records, the same at every run, with commands that repeat them."""

import json
import shlex

import pytest

from understudy.configs.parse import parse
from understudy.configs.plugins import discover
from understudy.eval.compare.comparison import compare_records
from understudy.eval.evaluate.evaluate import Eval, open_stage
from understudy.eval.ledger.origin import repeat_command
from understudy.eval.ledger.record import RecordWriter, read_record
from understudy.eval.ledger.study import Study, StudyError
from understudy.eval.results.results import RECORDS, Results, StaleError, render
from understudy.sim.perturb import perturbed

PAGE = "docs/results/records.md"  # of records without a `pages.yaml`


def row(start):
    return {
        "initial_conditions": "mujoco/point", "env_seed": start, "policy_seed": 0, "task": "point",
        "success": start % 4 > 0,
        "first_success": 3 if start % 4 > 0 else -1, "best_progress": 0.5, "final_progress": 0.5,
        "return": 1.5, "length": 3, "progress": [0.1, 0.5, 0.5], "terminated": True, "truncated": False,
        "wall_physics": 0.1, "wall_render": 0.0,
        "wall_policy": 0.2, "attempt": 1, "worker": 0, "video": "", "error": "", "labels": "{}",
    }  # fmt: skip


def manifest(**changes):
    values = {
        "policy": {
            "path": "runs/my point", "type": "diffusion", "step": 40, "train": {"seed": 7},
            "config": {"n_action_steps": 8, "sampler": {"steps": 10, "solver": "ddim"}},
        },
        "agent": {
            "n_action_steps": 4, "candidates": 1, "critic": None, "policy_seed": 2, "block": 8,
            "sampler": {"steps": 5, "solver": "ddim"},
        },
        "world": {"config": {"type": "mujoco", "task": "point", "cameras": {}, "horizon": 30, "delay": 1}},
        "starts": {"set": "mujoco/point", "first": 0, "count": 12},
        "begun": "2026-01-02T03:04:05+00:00", "code": {"commit": "0123456789abcdef", "changed": True},
    }  # fmt: skip
    return values | changes


@pytest.fixture
def records(tmp_path):
    root = tmp_path / "records"
    (root / "walk").mkdir(parents=True)
    with RecordWriter(root / "walk" / "small", manifest()) as writer:
        for start in range(8):
            writer.add(row(start))
        writer.close(complete=False)
    (root / "notes").mkdir()
    (root / "notes" / "records.md").write_text("Trained by hand.\n")
    (root / "chains.yaml").write_text("made: {runs/my: understudy train}\nuncommitted: [walk/small]\n")
    Study(
        title="Coverage", command="understudy eval --x", columns=("n", "rate"), rows=[(20, 0.95)], notes=["2,000 runs"],
        provenance={"begun": "2026-02-03T00:00:00"},
    ).write(root / "statistics" / "coverage.json")  # fmt: skip
    return root


def test_the_committed_results_are_current():
    """Where this fails: `understudy results`, and commit RESULTS.md and docs/results."""
    root = Results().out.parent
    stale = [name for name, text in render(RECORDS).items() if (root / name).read_text() != text]
    assert stale == []


def test_every_kind_of_record_is_told(records):
    text = render(records)[PAGE]
    line = next(line for line in text.splitlines() if "records/walk/small" in line)
    for part in ("runs/my point (diffusion, step 40), train seed 7", "0-7 (validation)", "8 of 12, stopped early"):
        assert part in line
    assert "6: 0.750 [0.409, 0.929]" in line and "2026-01-02 | 01234567+ |" in line
    assert "understudy eval --policy 'runs/my point'" in text and '--out "out/again/walk/small-$(date +%s)"' in text
    assert "### statistics/coverage\n" in text and "| 20 | 0.95 |" in text and "- 2,000 runs.\n" in text
    assert 'Record: [statistics/coverage](../../eval/records/statistics/coverage.json), "Coverage", 2026-02-03' in text
    assert text.rstrip().endswith("Trained by hand.")


def test_twice_is_the_same_and_a_stale_file_is_told(records, tmp_path, capsys):
    verb = Results(records=records, out=tmp_path / "RESULTS.md")
    with pytest.raises(StaleError, match="run `understudy results`"):
        Results(records=records, out=verb.out, check=True).run()
    verb.run()
    page = tmp_path / PAGE
    first = page.read_bytes()
    verb.run()
    Results(records=records, out=verb.out, check=True).run()
    assert page.read_bytes() == first and "is current" in capsys.readouterr().out

    (records / "notes" / "records.md").write_text("Trained by another.\n")
    with pytest.raises(StaleError, match="records.md is not what"):
        Results(records=records, out=verb.out, check=True).run()
    assert page.read_bytes() == first, "a check writes nothing"


def test_a_page_that_is_no_longer_made_is_told_and_goes(records, tmp_path):
    verb, left = Results(records=records, out=tmp_path / "RESULTS.md"), tmp_path / "docs" / "results" / "old.md"
    verb.run()
    left.write_text("a page of before")
    with pytest.raises(StaleError, match="old.md"):
        Results(records=records, out=verb.out, check=True).run()
    verb.run()
    assert not left.exists()


def test_the_command_asks_for_the_same(records):
    words = shlex.split(repeat_command(manifest()))
    assert words[:2] == ["understudy", "eval"]
    config = parse(Eval, None, words[2:])
    assert (config.policy, config.episodes, config.env_seed, config.policy_seed) == ("runs/my point", 12, 0, 2)
    assert (config.n_action_steps, config.steps, config.solver, config.block) == (4, 5, None, 8)
    world = open_stage(config)
    assert (world.task, world.horizon, world.delay) == ("point", 30, 1)


def test_the_command_tells_the_policy_what_it_was_told(records):
    told = manifest()["agent"] | {"task_text": "the other one", "goal": "end.png", "ensemble": 0.01}
    config = parse(Eval, None, shlex.split(repeat_command(manifest(agent=told)))[2:])
    assert (config.task_text, config.goal, config.ensemble) == ("the other one", "end.png", 0.01)
    world = manifest()["world"] | {"task": "the other one"}
    assert "task_text" not in repeat_command(manifest(agent=told, world=world))


def test_the_command_perturbs_as_the_record_was(records):
    discover("sim")
    import draccus

    disturbed = perturbed(
        open_stage(parse(Eval, None, ["--world", "point", "--out", "o", "--policy", "p"])), "mass", 0.5
    )
    config = draccus.encode(disturbed) | {"type": "perturbed"}
    command = repeat_command(manifest(world={"config": json.loads(json.dumps(config))}))
    assert open_stage(parse(Eval, None, shlex.split(command)[2:])) == disturbed


def test_a_comparison_is_told_below_its_runs(records):
    with RecordWriter(records / "walk" / "other", manifest()) as writer:
        for start in range(8):
            writer.add(row(start) | {"success": True, "first_success": 3})
        writer.close(complete=False)
    pair = [read_record(records / "walk" / name) for name in ("small", "other")]
    compare_records(pair).write(records / "walk")
    text = render(records)[PAGE]
    assert "Compared (A is `small`, B is `other`):" in text
    assert "A and B are not shown to differ in success: A - B is -25 points" in text
    assert text.index("records/walk/other") < text.index("Compared (A is")
    assert text.count("Compared (A is") == 1


def test_a_file_of_another_kind_is_refused_by_name(records):
    (records / "statistics" / "odd.json").write_text("{}")
    with pytest.raises(StudyError, match="odd.json is no study"):
        render(records)
    with pytest.raises(FileNotFoundError, match="no folder of records"):
        render(records / "nothing")


def test_experts_are_told_from_their_own_folder(tmp_path):
    folder = tmp_path / "experts"
    folder.mkdir()
    source = (RECORDS / "experts" / "lift.json").read_text()
    (folder / "lift.json").write_text(source)
    page = render(tmp_path)[PAGE]
    assert "| [lift](../../eval/records/experts/lift.json) | LiftExpert | 1000-1099 | 100 |" in page
    (folder / "lift.json").write_text(json.dumps(json.loads(source) | {"format": 0}))
    with pytest.raises(ValueError, match="lift.json was not written by this version"):
        render(tmp_path)
