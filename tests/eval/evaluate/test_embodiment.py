"""Who acts, said at `eval` of a checkpoint of ours whose data did not say it: no training again is needed."""

import json

from understudy.__main__ import main
from understudy.configs.world import read_world
from understudy.eval.ledger.record import read_record


def understudy(command, *words):
    return main([*command.split(), *map(str, words)])


def test_the_file_takes_the_place_of_what_was_guessed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert understudy("demos point --episodes 4 --out data") == 0
    (tmp_path / "data/meta/embodiment.json").unlink()  # as somebody else's
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    for feature in info["features"].values():
        for word in ("units", "limits"):
            feature.pop(word, None)
    for key in ("action", "observation.state"):
        info["features"][key]["names"] = None
    (tmp_path / "data/meta/info.json").write_text(json.dumps(info))
    words = (
        "--policy.network.width 16 --policy.network.depth 1 --policy.window.horizon 8 --steps 4 --batch 8 --threads 1"
    )
    needs = ("--policy.needs", "[observation.state]", "--out", "run")
    train = f"train --data data --policy.type diffusion --policy.network.type mlp {words} --device cpu"
    assert understudy(train, *needs) == 0

    # refused, with the way out, and judged with it
    judge = "eval --policy run --world point --episodes 2 --videos 0"
    assert understudy(judge, "--out", "guessed") == 2
    assert (
        "Nobody named the numbers of 'data', which are counted: name them with --embodiment" in capsys.readouterr().err
    )
    (tmp_path / "body.json").write_text(read_world("point").embodiment().to_json())
    assert understudy(judge, "--embodiment", "body.json", "--out", "said") == 0
    record = read_record("said")
    assert record.manifest["complete"] and not any(record.table["error"].to_pylist())

    # another body is still refused
    (tmp_path / "other.json").write_text(read_world("pusht").embodiment().to_json())
    assert understudy(judge, "--embodiment", "other.json", "--out", "other") == 2
    assert not (tmp_path / "other").exists()
