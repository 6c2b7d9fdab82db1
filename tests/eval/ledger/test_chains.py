"""A record whose chain of commands lacks a piece, or whose code was not committed, is refused by name."""

import json

import pytest

from understudy.eval.ledger.chains import (
    ChainError,
    Chains,
    check_committed,
    missing,
    read_chains,
    used,
    used_by_policy,
)
from understudy.eval.ledger.study import Study
from understudy.eval.results.results import RECORDS, Results, check_records, render

MADE = {
    "out/demos": "understudy resim pusht --data lerobot/pusht --out out/demos",
    "runs/a": "understudy train --data out/demos --out runs/a",
    "runs/b": "understudy train --data out/demos,out/gone --out runs/b",
}
CHAINS = Chains(public=("lerobot/pusht",), made=MADE)


def test_what_a_command_uses():
    words = "understudy study x --critics runs/c 'recall:5>runs/d' --data out/a,out/b --out out/new --records=out/kept"
    assert used(words) == ["runs/c", "runs/d", "out/a", "out/b"]
    assert used("understudy eval --policy runs/a --out out/one\nunderstudy compare out/one out/two") == [
        "runs/a",
        "out/two",
    ]
    assert used("understudy inspect --data /elsewhere/me/data") == ["/elsewhere/me/data"]
    assert used("understudy train configs/train/a.yaml --world '{task: lift}' --share 1/2") == []


def test_what_a_record_uses():
    policy = {"path": "runs/a/checkpoints/00001000", "train": {"data": "out/demos, lerobot/pusht"}}
    manifest = {"policy": policy, "agent": {"critic": "recall:5>runs/c"}}
    assert used_by_policy(manifest) == ["runs/a/checkpoints/00001000", "runs/c", "out/demos", "lerobot/pusht"]
    assert used_by_policy({}) == []


@pytest.mark.parametrize(
    ("path", "lacks"),
    [
        ("runs/a/checkpoints/00001000", []),
        ("lerobot/pusht", []),
        ("runs/b", ["'out/gone', which 'runs/b' needs, is made by no command"]),
        ("runs/aa", ["'runs/aa' is made by no command"]),
        ("/elsewhere/me/run", ["'/elsewhere/me/run' is made by no command"]),
    ],
)
def test_a_chain_is_followed_to_public_data(path, lacks):
    assert list(missing(CHAINS, [path])) == lacks


def test_configs_are_read_too(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("# out/comment\ndata: out/gone\nout: runs/x\n")
    made = {"runs/x": "understudy train configs/a.yaml", "runs/y": "understudy train configs/none.yaml"}
    assert list(missing(Chains(made=made), ["runs/x"], tmp_path)) == [
        "'out/gone', which configs/a.yaml names, is made by no command"
    ]
    assert list(missing(Chains(made=made), ["runs/y"], tmp_path)) == [
        "'configs/none.yaml', which 'runs/y' needs, is not in the repository"
    ]


def test_uncommitted_code_is_refused_and_the_list_only_shrinks():
    check_committed(Chains(uncommitted=("old",)), {"old": True, "new": False})
    with pytest.raises(ChainError, match="new is from code with uncommitted changes"):
        check_committed(Chains(uncommitted=("old",)), {"old": True, "new": True})
    for records in ({"old": False}, {}):
        with pytest.raises(ChainError, match="lists 'old' as uncommitted, which it is not"):
            check_committed(Chains(uncommitted=("old",)), records)


@pytest.mark.parametrize("text", ["- 3", "made: [x]", "public: {a: 1}", "more: 1", "a: [", "made: {a: 1}"])
def test_a_file_of_chains_that_is_none(tmp_path, text):
    (tmp_path / "chains.yaml").write_text(text)
    with pytest.raises(ChainError, match="chains.yaml"):
        read_chains(tmp_path)


def test_results_check_refuses(tmp_path):
    root, out = tmp_path / "records", tmp_path / "RESULTS.md"

    def write(**code):
        Study(
            title="t", command="understudy study x --policies runs/a", columns=("n",), rows=((1,),),
            provenance={"begun": "2026-01-01", "code": code},
        ).write(root / "group" / "s.json")  # fmt: skip
        for name, text in render(root).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    write(commit="abc", changed=False)
    with pytest.raises(ChainError, match="group/s.json cannot be made again: 'runs/a' is made by no command"):
        Results(records=root, out=out, check=True).run()
    (root / "chains.yaml").write_text(json.dumps({"public": ["lerobot/pusht"], "made": MADE}))
    Results(records=root, out=out, check=True).run()
    write(commit="abc", changed=True)
    with pytest.raises(ChainError, match="group/s.json is from code with uncommitted changes"):
        Results(records=root, out=out, check=True).run()


def test_the_committed_records_can_be_made_again():
    check_records(RECORDS)
    chains = read_chains(RECORDS)
    assert all(any(name == key or name.startswith(f"{key}/") for name in chains.made) for key in chains.rebuilt)
