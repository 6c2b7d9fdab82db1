"""The chain of commands of a fresh record: from its manifest alone, down to what anybody has."""

import json

import pytest

from understudy.__main__ import main
from understudy.eval.ledger.chains import ChainError
from understudy.eval.ledger.record import read_record
from understudy.eval.results.results import check_records

TRAIN = (
    "train --policy.type diffusion --policy.network.type mlp --policy.network.width 16 --policy.network.depth 1"
    " --policy.window.horizon 8 --steps 4 --batch 8 --threads 1 --device cpu --data out/demos"
)
EVAL = "eval --world point --episodes 2 --videos 0"


def understudy(command, *words):
    return main([*command.split(), *map(str, words)])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with demonstrations in out/demos and a run of them in runs/a, made by the command line."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert understudy("demos point --episodes 4 --out out/demos") == 0
        assert understudy(TRAIN, "--policy.needs", "[observation.state]", "--out", "runs/a") == 0
    return place


def test_a_record_brings_the_commands_that_made_what_it_used(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    assert understudy(EVAL, "--policy", "runs/a", "--out", "records/walk/a") == 0
    made = read_record("records/walk/a").manifest["made"]
    assert made["out/demos"] == "understudy demos point --episodes 4 --out out/demos"
    assert made["runs/a"].startswith("understudy train --data out/demos --policy.type diffusion")
    assert "--out runs/a" in made["runs/a"] and list(made) == ["runs/a", "out/demos"]

    # which is a chain, unless its code was not committed
    manifest = json.loads((place / "records/walk/a/manifest.json").read_text())
    manifest = {key: value for key, value in manifest.items() if key != "digests"}
    manifest["code"] = {"commit": "abc", "changed": False}
    (place / "records/walk/a/manifest.json").write_text(json.dumps(manifest))
    check_records(place / "records")
    del manifest["made"]["out/demos"]
    (place / "records/walk/a/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ChainError, match="'out/demos'.* is made by no command"):
        check_records(place / "records")


def test_the_command_of_a_training_trains_the_same_again(place, monkeypatch, tmp_path):
    import shlex

    from understudy.eval.ledger.made import made

    monkeypatch.chdir(place)
    command = made({"policy": {"path": "runs/a/last"}})["runs/a"]
    assert main(shlex.split(command.replace("--out runs/a", f"--out {tmp_path / 'again'}"))[1:]) == 0
    one, other = (path / "last/model.safetensors" for path in (place / "runs/a", tmp_path / "again"))
    assert one.read_bytes() == other.read_bytes()
