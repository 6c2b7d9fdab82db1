"""What the page shows of one record and of one training, as plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml

from ...configs.files import read_lines
from ...policies.learning.doors import held_out_in
from ...policies.learning.examine import SETTINGS
from ..ledger.films import film_paths
from ..ledger.labels import Place, record_key, tally
from ..ledger.origin import origin
from ..ledger.record import REPORT, Record
from ..ledger.summary import summarize
from ..pages.gallery import data_uri
from ..pages.moments import moment
from .places import Places

POINTS = 40  # of a failure's small curve
ENDED = {"loss": "loss", "error": "validation/action_error"}  # last logged values of a training


def evaluation(
    record: Record,
    beside: Path,
    given: Mapping[Place, tuple[str, ...]],
    where: Places | None,
    failures: int,
    films: int,
) -> dict[str, Any]:
    """A record: its row of the table, its failures, its map.

    Args:
        beside: the folder of the page, which links begin at.
        given: labels by episode.
        failures, films: how many are shown, at most.
    """
    summary, (date, commit) = summarize(record), origin(record.manifest)
    agent = record.manifest.get("agent") or {}
    rows, key = record.rows, record_key(record)
    lost = [row for row in rows if not row["success"]]
    return {
        "key": key,
        "anchor": f"record-{key[:12]}",
        "summary": summary,
        "root": str(record.root),
        "report": _link(record.root / REPORT, beside),
        "policy": (record.manifest.get("policy") or {}).get("path") or "–",
        "seed": agent.get("policy_seed", (record.manifest.get("policy") or {}).get("seed")),
        "trained": ((record.manifest.get("policy") or {}).get("train") or {}).get("seed"),
        "wall": record.manifest.get("wall"),
        "date": date,
        "commit": commit,
        "tally": tally(record, given),
        "boxes": [(row["env_seed"], row["success"], row["best_progress"]) for row in rows],
        "failures": [_failure(row, key, given) for row in lost[:failures]],
        "hidden": max(0, len(lost) - failures),
        "films": _films(record, lost, films),
        "map": _map(where, rows) if where is not None and where.names else None,
        "warning": where.warning if where is not None else "",
    }


def _failure(row: Mapping, key: str, given: Mapping[Place, tuple[str, ...]]) -> dict[str, Any]:
    seen = moment(row)
    labels = given.get((key, row["initial_conditions"], row["env_seed"]), ())
    return {
        "env_seed": row["env_seed"],
        "set": row["initial_conditions"],
        "words": seen.words,
        "step": seen.step,
        "progress": row["best_progress"],
        "curve": _curve(row["progress"]),
        "error": row["error"].strip().splitlines()[-1][:200] if row["error"] else "",
        "label": labels[0] if len(labels) == 1 else "",
        "disputed": " / ".join(labels) if len(labels) > 1 else "",
    }


def _curve(progress: list[float]) -> str:
    """Points of an SVG polyline in a box 100 wide and 30 high."""
    steps = len(progress)
    kept = np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(int)) if steps else []
    return " ".join(f"{100 * (i + 1) / steps:.0f},{29 - 28 * progress[i]:.1f}" for i in kept)


def _films(record: Record, lost: list[dict], most: int) -> dict[int, str]:
    """Env seed -> film of a failure as a data URI."""
    paths = film_paths(record) if most else {}
    filmed = [row["env_seed"] for row in lost if row["env_seed"] in paths]
    return {seed: data_uri(paths[seed]) for seed in filmed[:most]}


def _map(where: Places, rows: list[dict]) -> dict[str, Any]:
    """What the script draws: coordinates (episodes, coordinates), and what became of each episode."""
    return {
        "names": where.names,
        "values": [[float(f"{value:.5g}") for value in place] for place in where.values],
        "won": [bool(row["success"]) for row in rows],
        "seeds": [row["env_seed"] for row in rows],
    }


def training(run: Path, beside: Path) -> dict[str, Any]:
    """A run: what was trained on what, how far it came, how long it took."""
    settings = _settings(run)
    lines, _ = read_lines(run / "metrics.jsonl")
    learner = next((settings[part] for part in ("policy", "critic", "world_model") if settings.get(part)), None) or {}
    steps = [line["step"] for line in lines if isinstance(line.get("step"), int)]
    return {
        "held": held_out_in(run),
        "name": settings.get("name") or str(run),
        "root": str(run),
        "type": learner.get("type", "–") if isinstance(learner, Mapping) else "–",
        "data": settings.get("data", "–"),
        "seed": settings.get("seed"),
        "step": max(steps, default=0),
        "steps": settings.get("steps"),
        "seconds": next((line["seconds"] for line in reversed(lines) if "seconds" in line), None),
        "judged": _link(run / "evals.html", beside),
    } | {name: next((line[key] for line in reversed(lines) if key in line), None) for name, key in ENDED.items()}


def _settings(run: Path) -> dict:
    path = run / SETTINGS
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        values = {}  # a damaged one: `understudy doctor RUN` says it
    return values if isinstance(values, dict) else {}


def _link(path: Path, beside: Path) -> str:
    """The address of a file from a folder; "" where there is no such file."""
    return quote(os.path.relpath(path, beside)) if path.is_file() else ""
