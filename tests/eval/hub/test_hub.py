"""What is shared comes back whole or not at all; nothing that could run code is shared or brought by itself."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import understudy
from understudy.__main__ import main
from understudy.eval.hub.pull import Pull
from understudy.eval.hub.push import Push
from understudy.eval.hub.shelf import Index, SharedError, index_of, repository
from understudy.policies.learning.checkpoint import fingerprint, save_checkpoint
from understudy.policies.load import load_policy
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.mlp import MLPConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with one checkpoint, a record of its policy, and demonstrations."""
    place = tmp_path_factory.mktemp("made")
    understudy.demos("point", place / "demos", episodes=2)
    body = understudy.open_dataset(place / "demos").embodiment
    from understudy.policies.learning.checkpoint import blank_scales

    config = RegressionConfig(network=MLPConfig(width=8, depth=1, condition_width=8))
    step = place / "run" / "checkpoints" / "00000003"
    save_checkpoint(step, config.build(body, blank_scales(body)), kind="policy", config=config)
    (step / "training_state" / "progress.json").write_text("{}")
    understudy.evaluate(place / "run", "point", episodes=3, out=place / "record", videos=0)
    return place


@pytest.fixture
def shelf(made, tmp_path):
    """The policy, pushed to a folder."""
    Push(what=str(made / "run"), to=str(tmp_path / "shelf"), record=(str(made / "record"),)).run()
    return tmp_path / "shelf"


def front_of(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_policy_goes_and_comes_and_acts_the_same(made, shelf, tmp_path):
    assert main(["pull", str(shelf), str(tmp_path / "pulled")]) == 0
    checkpoint = made / "run" / "checkpoints" / "00000003"
    assert fingerprint(tmp_path / "pulled") == fingerprint(checkpoint)
    assert load_policy(tmp_path / "pulled")[1]["config"] == load_policy(checkpoint)[1]["config"]
    assert not (shelf / "training_state").exists()
    assert {path.suffix for path in shelf.rglob("*")} == {".json", ".safetensors", ".md"}


def test_the_card_says_success_with_its_number_and_interval(made, shelf):
    front, body = front_of((shelf / "README.md").read_text())
    (result,) = front["model-index"][0]["results"]
    (metric,) = result["metrics"]
    record = understudy.read_record(made / "record")
    won = sum(record.column("success"))
    assert metric["value"] == pytest.approx(won / 3, abs=1e-4) and f"{won} of 3, Wilson 95 %" in metric["name"]
    assert f"({won} of 3)" in body and fingerprint(made / "run" / "checkpoints" / "00000003") in body
    assert record.manifest["digests"]["rows"][:16] in body and front["pipeline_tag"] == "robotics"


def test_the_card_says_how_it_acted_and_in_what(made, tmp_path):
    """The same weights with other settings, in a disturbed world, in a run that did not end, are told apart."""
    record = made / "record"
    policy, *_ = made.glob("run")
    understudy.evaluate(policy, "point", episodes=2, out=tmp_path / "other", videos=0, n_action_steps=3)
    manifest = json.loads((tmp_path / "other" / "manifest.json").read_text())
    del manifest["digests"]
    manifest["starts"]["count"], manifest["complete"] = 9, False
    manifest["agent"] |= {"candidates": 8, "critic": "runs/critic"}
    manifest["world"]["config"] = {"type": "perturbed", "perturb": ["mass"], "level": 2.0, "of": {"type": "point"}}
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest))
    Push(what=str(policy), to=str(tmp_path / "shelf"), record=(str(record), str(tmp_path / "other"))).run()
    front, body = front_of((tmp_path / "shelf" / "README.md").read_text())
    own, other = (line for line in body.splitlines() if line.startswith("| ") and " of " in line)
    assert "| its own settings |" in own and "not finished" not in own
    assert "`--n_action_steps 3 --candidates 8 --critic runs/critic`" in other
    assert "under mass (level 2.0)" in other and "| 2 of 9, not finished |" in other
    assert "--critic runs/critic" in front["model-index"][0]["results"][1]["metrics"][0]["name"]


@pytest.mark.parametrize("verb", [("push", "--private", "true"), ("pull", "--revision", "v1")])
def test_what_only_the_hub_can_is_refused_of_a_folder(made, shelf, tmp_path, verb, capsys):
    words = [made / "run", "--to", tmp_path / "x"] if verb[0] == "push" else [shelf, tmp_path / "x"]
    assert main([verb[0], *map(str, words), *verb[1:]]) == 2
    assert f"{verb[1]}" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_record_with_another_film_is_not_shared(made, tmp_path):
    record = tmp_path / "record"
    understudy.evaluate(made / "run", "point", episodes=1, out=record, videos=1)
    (film,) = record.glob("videos/*")
    film.write_bytes(film.read_bytes() + b"x")
    with pytest.raises(SharedError, match="was changed since it was written"):
        Push(what=str(record), to=str(tmp_path / "shelf")).run()
    film.unlink()
    Push(what=str(record), to=str(tmp_path / "shelf")).run()


def test_nobody_measured_is_said_so(made, tmp_path):
    Push(what=str(made / "run"), to=str(tmp_path / "shelf")).run()
    front, body = front_of((tmp_path / "shelf" / "README.md").read_text())
    assert "model-index" not in front and "Not evaluated" in body


def test_a_record_of_another_policy_is_refused(made, tmp_path):
    other = shutil.copytree(made / "run", tmp_path / "other")
    config = other / "checkpoints" / "00000003" / "config.json"
    model, _ = load_policy(made / "run")
    shutil.rmtree(config.parent)
    save_checkpoint(
        config.parent, model, kind="policy", config=RegressionConfig(network=model.config.network, n_action_steps=3)
    )
    with pytest.raises(SharedError, match="is a record of another policy"):
        Push(what=str(other), to=str(tmp_path / "shelf"), record=(str(made / "record"),)).run()
    assert not (tmp_path / "shelf").exists()


@pytest.mark.parametrize("what", ["demos", "record"])
def test_datasets_and_records_go_and_come(made, tmp_path, what):
    Push(what=str(made / what), to=str(tmp_path / "shelf")).run()
    Pull(source=str(tmp_path / "shelf"), out=str(tmp_path / "back")).run()
    before = {p.relative_to(made / what): p.read_bytes() for p in (made / what).rglob("*") if p.is_file()}
    assert before == {path: (tmp_path / "back" / path).read_bytes() for path in before}
    kind = {"demos": "dataset", "record": "record"}[what]
    assert Index.read(tmp_path / "back" / "understudy.json").kind == kind
    with pytest.raises(SharedError, match=f"holds a {kind}, not a policy"):
        Push(what=str(made / "run"), to=str(tmp_path / "shelf")).run()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("weights.pt", "a pickle"),
        ("model.py", "code"),
        ("x.npy", "possibly a pickle"),
        ("odd.xyz", "no file of a policy"),
    ],
)
def test_other_kinds_of_files_are_not_shared(made, tmp_path, name, what):
    run = shutil.copytree(made / "run", tmp_path / "run")
    (run / "checkpoints" / "00000003" / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(SharedError, match=f"{name} is {what}"):
        Push(what=str(run), to=str(tmp_path / "shelf")).run()
    assert not (tmp_path / "shelf").exists()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(SharedError, match="link out of"):
        index_of(tmp_path / "run", "policy")


def test_a_changed_file_is_refused_by_name_and_nothing_is_written(shelf, tmp_path):
    file = shelf / "model.safetensors"
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)
    with pytest.raises(SharedError, match="'model.safetensors' in .* is not the file that was pushed"):
        Pull(source=str(shelf), out=str(tmp_path / "out")).run()
    assert not (tmp_path / "out").exists()


def test_a_push_that_broke_off_is_seen_and_goes_on(made, shelf, tmp_path, capsys):
    (shelf / "model.safetensors").unlink()
    with pytest.raises(SharedError, match="'model.safetensors' is missing .* push it again"):
        Pull(source=str(shelf), out=str(tmp_path / "out")).run()
    Push(what=str(made / "run"), to=str(shelf), record=(str(made / "record"),)).run()
    assert "1 of them new" in capsys.readouterr().out
    Pull(source=str(shelf), out=str(tmp_path / "out")).run()


def test_a_pull_that_broke_off_goes_on(shelf, tmp_path):
    beside = tmp_path / ".out.pulled"
    beside.mkdir()
    shutil.copy(shelf / "config.json", beside)
    (beside / "model.safetensors").write_bytes(b"half")
    kept = (beside / "config.json").stat().st_mtime_ns
    Pull(source=str(shelf), out=str(tmp_path / "out")).run()
    assert (tmp_path / "out" / "config.json").stat().st_mtime_ns == kept, "not fetched again"
    assert not beside.exists() and load_policy(tmp_path / "out")


def test_what_an_earlier_pull_of_something_else_left_is_not_brought_along(made, shelf, tmp_path):
    Push(what=str(made / "demos"), to=str(tmp_path / "data")).run()
    (tmp_path / "data" / "meta" / "info.json").unlink()
    with pytest.raises(SharedError, match="is missing"):
        Pull(source=str(tmp_path / "data"), out=str(tmp_path / "out")).run()
    assert any(path.is_file() for path in (tmp_path / ".out.pulled").rglob("*"))
    Pull(source=str(shelf), out=str(tmp_path / "out")).run()
    brought = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert brought == {path.relative_to(shelf) for path in shelf.rglob("*") if path.is_file()}


def test_a_pull_of_nothing_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Pull(source=str(tmp_path / "nowhere"), out=str(tmp_path / "out")).run()
    assert not any(tmp_path.iterdir())


def test_code_of_others_stays_where_it_is(tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text("{}")
    (theirs / "modeling.py").write_text("raise SystemExit('run')")
    (theirs / "weights.bin").write_bytes(b"x")
    with pytest.warns(UserWarning, match="no hashes to verify"):
        Pull(source=str(theirs), out=str(tmp_path / "plain")).run()
    assert "left out, for they may run code: modeling.py, weights.bin" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["config.json"]
    with pytest.warns(UserWarning, match="no hashes"):
        Pull(source=str(theirs), out=str(tmp_path / "all"), code=True).run()
    assert (tmp_path / "all" / "modeling.py").is_file()


def test_an_index_that_names_other_places_is_not_believed(shelf, tmp_path):
    index = json.loads((shelf / "understudy.json").read_text())
    index["sha256"]["../evil.json"] = "0" * 64
    (shelf / "understudy.json").write_text(json.dumps(index))
    with pytest.raises(SharedError, match="'../evil.json', which is no file of its folder"):
        Pull(source=str(shelf), out=str(tmp_path / "out")).run()


def test_what_lies_there_already_is_not_overwritten(made, shelf, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.md").write_text("x")
    with pytest.raises(SharedError, match="was not pushed; choose another folder"):
        Push(what=str(made / "run"), to=str(tmp_path / "mine")).run()
    with pytest.raises(FileExistsError):
        Pull(source=str(shelf), out=str(tmp_path / "mine")).run()


def test_places_on_the_hub():
    assert repository("hf://me/it") == ("model", "me/it")
    assert repository("hf://datasets/me/it") == ("dataset", "me/it")
    with pytest.raises(SharedError, match="is no place on the hub"):
        repository("hf://it")


def test_without_a_network_the_hub_is_refused_in_words(made, tmp_path, command):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    status, _, said = command("push", made / "run", "--to", "hf://me/it", **offline)
    assert status == 2 and "hf://me/it could not be written" in said and "push to a folder" in said
    status, _, said = command("pull", "hf://me/it", tmp_path / "x", **offline)
    assert status == 2 and "could not be fetched" in said


def test_what_is_shared_is_not_copied_before_and_stays_as_it_is(made, tmp_path, monkeypatch):
    data = shutil.copytree(made / "demos", tmp_path / "data")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    copied = []
    monkeypatch.setattr(shutil, "copyfile", lambda a, b, real=shutil.copyfile, **k: copied.append(b) or real(a, b, **k))
    Push(what=str(data), to=str(tmp_path / "shelf")).run()
    assert all(Path(one).is_relative_to(tmp_path / "shelf") for one in copied), "once, to the shelf"
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert {path.name for path in tmp_path.iterdir()} == {"data", "shelf"}
    run = shutil.copytree(made / "run", tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    Push(what=str(run), to=str(tmp_path / "other")).run()
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
