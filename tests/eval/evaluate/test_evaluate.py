"""`understudy eval` from a checkpoint to a report, and what it refuses."""

import dataclasses
import json
import shutil
from contextlib import nullcontext

import pytest

from understudy.configs.lanes.lanes import open_world
from understudy.configs.parse import parse
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world, start_set
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.eval.ledger.record import read_record
from understudy.eval.ledger.summary import summarize
from understudy.eval.ledger.table import RecordError, table_of, tables_equal
from understudy.eval.rollout.film import TAPES
from understudy.eval.rollout.rollout import ArmError
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig

from ..clocked import ARM, CLOCKED

WORLD = {"type": "point", "horizon": 30}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with one checkpoint of an untrained policy for the point task, and some training metrics."""
    import torch

    torch.manual_seed(0)
    embodiment = read_world("point").embodiment()
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = DiffusionConfig(
        window=Window(observe=(-1, 0), horizon=8), inputs=(STATE, SCENE), network=network, n_action_steps=4
    )
    run = tmp_path_factory.mktemp("runs") / "untrained"
    folder = run / "checkpoints" / "00000040"
    folder.parent.mkdir(parents=True)
    save_checkpoint(folder, config.build(embodiment, blank_scales(embodiment)), kind="policy", config=config)
    (run / "last").symlink_to("checkpoints/00000040")
    (run / "config.yaml").write_text("seed: 11\ndata: demos\nsteps: 40\nbatch: 8\n")
    entries = [{"step": step, "loss": 1 / (step + 1)} for step in range(40)] + [{"step": 40, "validation/loss": 0.1}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return run


def settings(run_folder, folder, **changes):
    values = {
        "policy": str(run_folder),
        "world": WORLD,
        "episodes": 10,
        "env_seed": 1000,
        "out": str(folder),
        "videos": 2,
    }
    return Eval(**values | changes)


def test_a_record_with_a_report(run_folder, tmp_path, capsys):
    settings(run_folder, tmp_path / "record").run()
    text = capsys.readouterr().out
    record = read_record(tmp_path / "record")
    assert record.manifest["complete"] and record.manifest["policy"]["step"] == 40
    assert record.manifest["policy"]["train"]["seed"] == 11
    assert record.manifest["agent"]["n_action_steps"] == 4 and record.manifest["agent"]["block"] == 8
    assert record.manifest["world"]["horizon"] == 30
    assert record.column("env_seed") == list(range(1000, 1010))
    assert sum(bool(video) for video in record.column("video")) == 2
    assert f"{sum(record.column('success'))} of 10, Wilson 95 %" in text and "report.html" in text
    html = (tmp_path / "record" / "report.html").read_text()
    assert html.count("data:video/mp4;base64,") == 2 and "Training of this policy" in html


def test_a_run_and_a_record_have_the_names_that_people_gave_them(run_folder, tmp_path):
    named = tmp_path / "named"
    shutil.copytree(run_folder, named, symlinks=True)
    with (named / "config.yaml").open("a") as file:
        file.write("name: with history\n")
    first = evaluate(settings(named, tmp_path / "a", videos=0))
    assert first.manifest["policy"]["name"] == "with history" and first.manifest["rate"] == 20
    assert summarize(first).title == "with history (diffusion, step 40)" and summarize(first).hertz == 20

    second = evaluate(settings(named, tmp_path / "b", videos=0, name="A <title>"))
    assert summarize(second).title == "A <title>" and "A &lt;title&gt;" in (tmp_path / "b/report.html").read_text()
    again = evaluate(settings(named, tmp_path / "unused", resume=str(tmp_path / "b"), videos=0))
    assert again.manifest["name"] == "A <title>"
    assert "name" not in evaluate(settings(run_folder, tmp_path / "c", videos=0)).manifest


def test_the_same_starts_give_the_same_table_and_a_resumed_run_too(run_folder, tmp_path, interrupted_after):
    whole = evaluate(settings(run_folder, tmp_path / "whole", videos=0, workers=1))
    assert whole.manifest["crew"]["workers"] == 1 and whole.manifest["crew"]["memory_mb"][0] > 0
    assert min(whole.column("wall_ipc")) > 0 and "bound by" in summarize(whole).text()
    with interrupted_after(4), pytest.raises(KeyboardInterrupt):
        evaluate(settings(run_folder, tmp_path / "part"))
    part = read_record(tmp_path / "part")
    assert len(part.table) == 4 and not part.manifest["complete"]
    assert "stopped early: 4 of 10" in (tmp_path / "part" / "report.html").read_text()
    resumed = settings(run_folder, tmp_path / "unused", resume=str(tmp_path / "part"), videos=0)
    assert tables_equal(evaluate(resumed).table, whole.table)
    assert not (tmp_path / "unused").exists()


def content(folder, *but):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("moment", ["rows", "films"])
def test_films_survive_an_interruption(run_folder, tmp_path, monkeypatch, interrupted_after, moment):
    whole = evaluate(settings(run_folder, tmp_path / "whole", block=4))
    films = content(tmp_path / "whole" / "videos")

    def film(*_):
        (tmp_path / "part/videos").mkdir()
        (tmp_path / "part/videos/.001000.mp4.999999999.part").write_text("half a film")
        raise KeyboardInterrupt

    if moment == "films":
        monkeypatch.setattr("understudy.eval.evaluate.evaluate.film_again", film)
    kept = "of 10 episodes are kept; the same command with --resume .*part in"
    with interrupted_after(6) if moment == "rows" else nullcontext(), pytest.raises(KeyboardInterrupt, match=kept):
        evaluate(settings(run_folder, tmp_path / "part", block=4))
    monkeypatch.undo()

    with (tmp_path / "part" / TAPES).open("ab") as file:  # and somebody was killed while writing
        file.write(b"\x93NUMPY half of one")
    resumed = evaluate(settings(run_folder, None, out=None, resume=str(tmp_path / "part"), block=4))
    assert resumed.column("video") == whole.column("video") and tables_equal(resumed.table, whole.table)
    assert content(tmp_path / "part" / "videos") == films and len(films) == 2
    assert not [path for path in (tmp_path / "part").rglob(".*")]


def test_the_number_of_workers_is_chosen_printed_and_stored(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNDERSTUDY_CORES", "1")
    record = evaluate(settings(run_folder, tmp_path / "one", videos=0, episodes=300, world=WORLD | {"horizon": 60}))
    assert record.manifest["crew"]["workers"] == 0 and record.manifest["crew"]["chosen"] == "1 cores"
    assert "workers         0 (1 cores); --workers changes it" in capsys.readouterr().out


def test_a_real_arm_that_fails_ends_the_run_which_goes_on_when_asked(run_folder, tmp_path, capsys):
    """Its episode was begun again by itself; a cable that was out gave each of the others a row with an error."""
    fault = {"start": 1003, "step": 2, "once": str(tmp_path / "once")}
    acting = settings(run_folder, tmp_path / "r", world=ARM | {"faults": [fault]}, episodes=6, videos=0)
    with pytest.raises(ArmError, match=r"env seed 1003 failed: .*; 3 of 6 episodes are kept; .* --resume .*/r in "):
        evaluate(acting)
    record = read_record(tmp_path / "r")
    assert record.column("env_seed") == [1000, 1001, 1002] and not record.manifest["complete"]
    assert (record.root / "report.html").is_file() and not any(record.column("error"))
    again = evaluate(dataclasses.replace(acting, out=None, resume=str(record.root)))
    assert again.column("env_seed") == list(range(1000, 1006)) and again.manifest["complete"]
    assert not any(again.column("error")) and not any(again.column("attempt"))


@pytest.mark.parametrize(
    ("world", "changes", "message"),
    [
        (ARM, {"workers": 1}, "there is one arm"),
        (CLOCKED, {"workers": 2}, "--workers 2: this world goes by the clock"),
        (CLOCKED, {"videos": 2}, "--videos 2: a film plays an episode again"),
    ],
)
def test_what_goes_not_by_the_clock_is_refused(run_folder, tmp_path, world, changes, message):
    config = settings(run_folder, tmp_path / "record", world=world, **{"videos": 0} | changes)
    for refuse in (evaluate, Eval.check_names):
        with pytest.raises(ValueError, match=message):
            refuse(config)
    assert not (tmp_path / "record").exists()


def test_control_steps_that_began_late_are_said(run_folder, tmp_path):
    """The labels of each episode alone told them."""
    record = evaluate(settings(run_folder, tmp_path / "record", episodes=3, videos=0))
    assert "deadlines" not in summarize(record).text()
    late = [json.dumps({"stopped": "", "bent": 0, "late": late}) for late in (2, 0, 3)]
    rows = [row | {"labels": label} for row, label in zip(record.table.to_pylist(), late, strict=True)]
    steps = sum(record.column("length"))
    text = summarize(dataclasses.replace(record, table=table_of(rows))).text()
    assert f"deadlines       5 of {steps} control steps began late ({100 * 5 / steps:.0f} %)" in text


def test_policy_seed_and_sampler_are_obeyed(run_folder, tmp_path):
    first, *others = (
        evaluate(settings(run_folder, tmp_path / name, videos=0, **changes))
        for name, changes in {"a": {}, "b": {"policy_seed": 1}, "c": {"steps": 3, "solver": "heun"}}.items()
    )
    assert others[0].column("policy_seed") == [1] * 10
    assert others[1].manifest["agent"]["sampler"]["steps"] == 3
    assert "scheduler" not in first.manifest["agent"]["sampler"], "as records were before there was one"
    unipc = evaluate(settings(run_folder, tmp_path / "d", videos=0, scheduler="UniPCMultistepScheduler"))
    assert unipc.manifest["agent"]["sampler"]["scheduler"] == "UniPCMultistepScheduler"
    assert all(first.column("progress") != other.column("progress") for other in others)


def test_a_policy_for_another_embodiment_is_refused_before_anything_is_written(run_folder, tmp_path):
    with pytest.raises(ValueError, match="embodiments differ in .*'point'.*'pusht'"):
        evaluate(settings(run_folder, tmp_path / "record", world="pusht"))
    assert not (tmp_path / "record").exists()


def test_a_used_folder_is_refused(run_folder, tmp_path):
    with pytest.raises(RecordError, match="exists; give another --out"):
        evaluate(settings(run_folder, tmp_path))


def test_resuming_something_else_is_refused(run_folder, tmp_path):
    evaluate(settings(run_folder, tmp_path / "record", videos=0))
    other = settings(run_folder, None, out=None, resume=str(tmp_path / "record"), n_action_steps=2)
    with pytest.raises(RecordError, match="its agent was"):
        evaluate(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": None}, "--out DIR"),
        ({"episodes": 0}, "--episodes 0: it must be at least 1"),
        ({"policy": "no/such/run"}, "is not a run or checkpoint"),
        ({"world": "poimt"}, "Did you mean 'point'"),
        ({"world": {"type": "point", "horizn": 3}}, "Did you mean 'world.horizon'"),
        ({"n_action_steps": 9}, "horizon"),
        ({"solver": "hein"}, "Did you mean 'heun'"),
        ({"scheduler": "DDIMInverseScheduler"}, "from a sample to its noise"),
        ({"scheduler": "DDIMScheduler", "solver": "heun"}, "either a solver or a scheduler"),
        ({"candidates": 4}, "critic"),
    ],
)
def test_wrong_settings_are_named(run_folder, tmp_path, changes, message):
    with pytest.raises((ValueError, LookupError, FileNotFoundError), match=message):
        evaluate(settings(run_folder, tmp_path / "record", **changes))
    assert not (tmp_path / "record").exists()


@pytest.mark.parametrize(("name", "world"), [("pusht", "gym_pusht/pusht"), ("lift", "robosuite/lift#0")])
def test_our_settings_open_their_worlds(root, name, world):
    config = parse(Eval, str(root / "configs" / "eval" / f"{name}.yaml"), ["--policy", "P", "--out", "o"])
    assert start_set(read_world(config.world)) == world
    assert config.policy == "P" and 1000 <= config.env_seed < 10_000


def test_worlds_open_by_name_keys_and_file(tmp_path, monkeypatch):
    (tmp_path / "world.yaml").write_text("type: gym_pusht\nhorizon: 12\n")
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    worlds = [read_world(source) for source in ("$SOMEWHERE/world.yaml", {"type": "pusht", "horizon": 12})]
    assert worlds[0] == worlds[1] == read_world("pusht", horizon=12)
    lanes = open_world("pusht", 3, cameras={"image": (32, 48)})
    assert lanes.single_observation_space["observation.images.image"].shape == (32, 48, 3)
    lanes.close()
