"""What earlier versions wrote is read under today's names: records, manifests, alarms, comparisons."""

import json

import pyarrow.parquet as pq

from understudy.configs.former import COLUMNS as FORMER
from understudy.configs.former import current_manifest, policy_settings, renamed
from understudy.configs.settings.load import load
from understudy.configs.settings.shipped import find_config
from understudy.eval.ledger.identity import identify
from understudy.eval.ledger.record import RecordWriter, read_record
from understudy.eval.ledger.table import COLUMNS

MANIFEST = {
    "policy": {"path": "runs/a", "config": {"needs": ["observation.state"], "execute": 8, "network": {"expand": 2}}},
    "agent": {"execute": 4, "candidates": 1, "critic": None, "seed": 3, "plans": "uniform", "watch": 8},
    "duel": {"max": 40},
    "starts": {"set": "toy", "first": 1000, "count": 2},
}


def row(seed: int) -> dict:
    empty = dict.fromkeys(COLUMNS, 0) | dict.fromkeys(("task", "video", "error"), "")
    return empty | {
        "initial_conditions": "toy", "env_seed": seed, "policy_seed": 3, "success": seed % 2 == 0, "progress": [],
        "first_success": 0 if seed % 2 == 0 else -1,
        "terminated": True, "truncated": False, "labels": "{}",
    }  # fmt: skip


def test_keys_of_a_manifest():
    manifest = current_manifest(MANIFEST)
    assert manifest["agent"] == {
        "n_action_steps": 4, "candidates": 1, "critic": None, "policy_seed": 3, "proposal": "uniform", "monitor": 8,
    }  # fmt: skip
    assert manifest["policy"]["config"] == {
        "inputs": ["observation.state"], "n_action_steps": 8, "network": {"mlp_ratio": 2},
    }  # fmt: skip
    assert manifest["sequential"] == {"max": 40} and "duel" not in manifest
    assert current_manifest(manifest) == manifest


def test_settings_that_a_world_had_not_are_as_it_was_without_them():
    """So that a record of then joins with one of today, and is gone on with."""
    then = {"world": {"type": "dream", "seed": 0, "config": {"type": "dream", "batch": 8}}}
    now = {"world": {"type": "dream", "seed": 0, "config": {"type": "dream", "batch": 8, "judge": "learned"}}}
    assert current_manifest(then) == now == current_manifest(now)
    other = {"world": {"type": "dream", "config": {"type": "dream", "judge": "states"}}}
    toy = {"world": {"type": "toy", "config": {"type": "toy"}}}
    assert current_manifest(other) == other and current_manifest(toy) == toy


def test_a_name_of_today_wins_over_a_former_one():
    assert renamed({"execute": 1, "n_action_steps": 2}, {"execute": "n_action_steps"}) == {
        "execute": 1,
        "n_action_steps": 2,
    }


def test_a_record_of_an_earlier_version(tmp_path):
    """The same table and the same identity of who acted, whether the run had closed or was killed."""
    with RecordWriter(tmp_path / "new", current_manifest(MANIFEST)) as writer:
        for seed in (1001, 1000):
            writer.add(row(seed))
        new = writer.close(complete=True)
    former = {now: then for then, now in FORMER.items()}
    closed, killed = tmp_path / "closed", tmp_path / "killed"
    for folder in (closed, killed):
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"format": 1, "complete": True}))
    table = new.table.rename_columns([former.get(name, name) for name in new.table.column_names])
    pq.write_table(table, closed / "episodes.parquet")
    lines = [json.dumps({former.get(name, name): value for name, value in row(seed).items()}) for seed in (1000, 1001)]
    (killed / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    for folder in (closed, killed):
        record = read_record(folder)
        assert record.table.equals(new.table) and record.column("env_seed") == [1000, 1001]
        assert identify(record.manifest) == identify(new.manifest)


def test_folders_of_configs(tmp_path):
    """A file of an earlier version includes `pieces/`; one that really lies in such a folder is still taken."""
    (tmp_path / "task_specs").mkdir()
    (tmp_path / "task_specs" / "arm.yaml").write_text("scale: {low: [0], high: [2]}")
    (tmp_path / "train").mkdir()
    config = tmp_path / "train" / "old.yaml"
    config.write_text("piece: !include ../pieces/arm.yaml\n")
    assert load(config) == {"piece": {"scale": {"low": [0], "high": [2]}}}
    beside = tmp_path / "old.yaml"
    beside.write_text("piece: !include pieces/arm.yaml\n")
    assert load(beside) == load(config)
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "arm.yaml").write_text("mine: true")
    assert load(config) == {"piece": {"mine": True}}
    assert find_config("configs/pieces/lift.yaml").name == "lift.yaml"


def test_settings_of_a_policy_and_its_parts():
    old = {"execute": 4, "network": {"type": "mlp", "expand": 2}, "adapt": {"spare": [[0.5, 1.0]], "reuse": True}}
    assert policy_settings(old) == {
        "n_action_steps": 4,
        "network": {"type": "mlp", "mlp_ratio": 2},
        "adapt": {"skip": [[0.5, 1.0]], "reuse": True},
    }
    assert policy_settings({"execute": 4, "adapt": None}) == {"n_action_steps": 4, "adapt": None}
