"""The card of what is shared: front matter that the hub reads, and for people who acts, how it did, and the hashes.

Success is never said without its number of episodes and its interval; what nobody measured is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...configs.progress import counted
from ...configs.spec import unnamed
from ..ledger.origin import how_it_acted
from ..ledger.record import Record
from ..ledger.summary import Summary, summarize

TAG = "understudy"


def policy_card(name: str, about: Mapping[str, Any], body: Any, records: Sequence[Record], theirs: bool) -> str:
    """README.md of a policy.

    Args:
        about: of `load_policy`, with its `fingerprint`.
        body: who acts.
        records: episode records of this policy.
        theirs: whether the checkpoint is in lerobot's layout.
    """
    kind = str(about["type"])
    front = {
        "library_name": "lerobot" if theirs else TAG,
        "pipeline_tag": "robotics",
        "tags": [TAG, "robotics", kind.removeprefix("lerobot/")],
        "model-index": [{"name": name, "results": [_result(record) for record in records]}],
    }
    if not records:
        del front["model-index"]
    acts = ", ".join(f"{one} [{unit}]" for one, unit in zip(body.action, body.action_units, strict=True))
    whose = f"for `{body.name}`: {acts}; {body.mode.value}, at {body.rate:g} Hz."
    if unnamed(body.action):  # and the rate is none
        whose = f"of {len(body.action)} numbers; nobody says which, in what units, or how many times a second."
    lines = [
        f"# {name}",
        "",
        f"A robot policy of type `{kind}`, {whose}",
        f"Step {about['step']} of its training." if about.get("step") is not None else "",
        "",
        "## Success",
        "",
        *_table(records),
        "",
        "## Use",
        "",
        "```",
        f"understudy pull SOURCE {name}",
        f"understudy eval --policy {name} --world WORLD",
        "```",
        "",
        f"Fingerprint of weights and settings: `{about['fingerprint']}`. Weights are safetensors; nothing here is run.",
        *_hashes(),
        "",
    ]
    return _card(front, lines)


def dataset_card(name: str, dataset: Any) -> str:
    """README.md of a LeRobot dataset."""
    front = {
        "task_categories": ["robotics"],
        "tags": [TAG, "LeRobot"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    facts = {key: value for key, value in dataset.facts().items() if key != "dataset"}
    rows = [f"| {key} | {value} |" for key, value in facts.items()]
    lines = [f"# {name}", "", f"A LeRobotDataset {dataset.version} of `{dataset.embodiment.name}`.", ""]
    return _card(front, [*lines, "| | |", "| --- | --- |", *rows, "", *_hashes()])


def record_card(name: str, record: Record) -> str:
    """README.md of an episode record."""
    front = {"tags": [TAG, "robotics", "understudy-record"]}
    acted = str((record.manifest.get("policy") or {}).get("fingerprint", "unknown"))
    lines = [f"# {name}", "", "Episodes of a robot policy, one row each in `episodes.parquet`.", ""]
    return _card(front, [*lines, *_table([record]), "", f"Fingerprint of the policy: `{acted}`.", "", *_hashes()])


def _hashes() -> list[str]:
    return ["`understudy.json` holds the sha256 of every file; `understudy pull` verifies them.", ""]


def _table(records: Sequence[Record]) -> list[str]:
    if not records:
        return ["Not evaluated: no episode record was pushed with it."]
    titles = ("world", "acted with", "env seeds", "success", "95 % (Wilson)", "episodes", "record")
    head = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    rows = []
    for record in records:
        said = summarize(record)
        rows.append(
            f"| {_place(record)} | {_how(record)} | {said.starts} |"
            f" {said.success.estimate:.3f} ({said.successes} of {said.n}) |"
            f" {said.success.low:.3f} to {said.success.high:.3f} | {_episodes(said)} | `{_digest(record)}` |"
        )
    return [*head, *rows]


def _place(record: Record) -> str:
    """The world, with what it was disturbed by."""
    world, said = (record.manifest.get("world") or {}).get("config") or {}, summarize(record).world
    if world.get("type") != "perturbed":
        return said
    return f"{said}, under {', '.join(map(str, world.get('perturb') or ()))} (level {world.get('level')})"


def _how(record: Record) -> str:
    """How it acted, where that is not the policy's own way: a critic that chose, another sampler."""
    flags = how_it_acted(record.manifest)
    return f"`{flags}`" if flags else "its own settings"


def _episodes(said: Summary) -> str:
    """How many, of how many the run was to have."""
    ended = f"{said.n}" if said.n == said.asked else f"{said.n} of {said.asked}, not finished"
    return ended + (f", {counted(said.errors, 'error')} counted as failures" if said.errors else "")


def _digest(record: Record) -> str:
    return str((record.manifest.get("digests") or {}).get("rows", "none"))[:16]


def _result(record: Record) -> dict:
    said = summarize(record)
    interval = f"Wilson 95 %: {said.success.low:.3f} to {said.success.high:.3f}"
    return {
        "task": {"type": "robotics", "name": _place(record)},
        "dataset": {"name": f"{_place(record)}, env seeds {said.starts}", "type": "understudy-world"},
        "metrics": [
            {
                "type": "success_rate",
                "value": round(said.success.estimate, 4),
                "name": f"success, {said.successes} of {said.n}, {interval}, {_how(record).strip('`')}",
                "verified": False,
            }
        ],
    }


def _card(front: Mapping, lines: Sequence[str]) -> str:
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}---\n\n" + "\n".join(lines)


def name_of(to: str, source: Path) -> str:
    """What a card calls it: the name on the hub, or of the folder."""
    return to.rstrip("/").rpartition("/")[2] or source.name
