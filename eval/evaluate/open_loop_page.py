"""`report.html` of a record of open-loop errors: one file with everything inside, legible on a phone.

The sentence that says whether the policy beats both guesses, errors by dimension and by step of the chunk, planned
beside recorded curves of single episodes, and where it came from. Computes nothing that the summary does not.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...configs.files import replace_text
from ...configs.progress import counted
from ..ledger.origin import facts, on_lines, origin
from ..ledger.record import REPORT, Record
from ..offline.record import over_steps, rows_of
from ..offline.summary import (
    CAVEAT,
    GUESSES,
    ErrorSummary,
    dimension_errors,
    facts_text,
    interval_text,
    summarize_errors,
    verdict,
)
from ..pages.charts import Line, chart
from ..pages.page import page

TEMPLATE = "open_loop.html"
STYLES = {"error": "a", "mean_action_error": "b", "last_action_error": "c", "samples_mean_error": "d"}
LABELS = {
    "error": "policy",
    "mean_action_error": "mean action",
    "last_action_error": "last action",
    "samples_mean_error": "mean of samples",
}
EPISODES = 12  # whose curves a page holds at most: the worst, the best and evenly between
POINTS = 600  # of each curve


def write_error_report(record: Record) -> Path:
    """Write `record.root/report.html` and return its path."""
    return replace_text(record.root / REPORT, render(record))


def render(record: Record) -> str:
    """The HTML text of the page of a record."""
    from markupsafe import Markup

    summary, manifest = summarize_errors(record), record.manifest
    about = manifest["data"]
    date, commit = origin(manifest)
    rows = rows_of(record)
    shown = chosen_episodes(rows, manifest)
    repeat = f"{manifest['command']} --out out/again" if manifest.get("command") else ""
    return page(
        TEMPLATE,
        summary=summary,
        title=f"{manifest['policy'].get('path', 'policy')} on {about['source']}",
        verdict=verdict(summary, manifest),
        warning=warning(manifest),
        caveat=CAVEAT,
        notes=[line.removeprefix("- ") for line in facts_text(summary, manifest)] + list(about["notes"]),
        about=about,
        agent=manifest["agent"],
        guesses=GUESSES,
        styles=STYLES,
        labels=LABELS,
        bars=bars(summary),
        rows=episode_rows(rows, summary, manifest),
        by_step=Markup(step_chart(summary, manifest)),
        curves=curves(shown, manifest),
        shown=len(shown),
        interval=interval_text,
        date=date,
        commit=commit,
        command=on_lines(shlex.join(shlex.split(repeat))),
        facts=list(facts(_without_vectors(manifest))),
    )


def warning(manifest: dict) -> str:
    """What must be read before the numbers; "" where they are of held-out episodes."""
    about = manifest["data"]
    if about["trained_on"]:
        seen, n = len(about["trained_on"]), len(about["episodes"])
        return (
            f"The policy was trained on {seen} of these {counted(n, 'episode')}. Their errors say how well it "
            "remembers, not how well it predicts."
        )
    if about["status"] == "unknown":
        return "Nobody knows whether the policy was trained on these episodes. If it was, the errors are too small."
    return ""


def step_chart(summary: ErrorSummary, manifest: dict) -> str:
    """Error of all dimensions at each step of the chunk, in spreads, with 95 % bands over episodes; "" of one step."""
    about, executed = manifest["data"], manifest["agent"]["n_action_steps"]
    if not summary.by_step or len(summary.by_step["error"]) < 2:
        return ""
    lines = []
    for name, intervals in summary.by_step.items():
        seconds = [step / about["rate"] for step in range(len(intervals))]
        middle = [interval.estimate for interval in intervals]
        banded = all(np.isfinite(interval.low) for interval in intervals)
        low, high = ([max(0.0, end) for end in ends] for ends in list(zip(*intervals, strict=True))[::2])
        lines.append(
            Line(seconds, middle, STYLES[name], LABELS[name], low if banded else None, high if banded else None)
        )
    top = max(max(line.high if line.high is not None else line.y) for line in lines)
    if executed < len(summary.by_step["error"]):
        at = (executed - 0.5) / about["rate"]
        lines.append(Line([at, at], [0, top], "soft", f"executed: {counted(executed, 'action')}"))
    title = "error by step of the chunk, in standard deviations of the recorded actions"
    return chart(
        lines, x_label="seconds after the observation", y_label="error / spread", y_range=(0, top), title=title
    )


def bars(summary: ErrorSummary) -> list[dict]:
    """Where each dimension's errors lie on a common scale of spreads, per cent."""
    moving = [one for one in summary.dimensions if one.relative is not None]
    errors = [(one.error.estimate, *one.guesses.values()) for one in moving]
    values = [max(every) / one.spread for one, every in zip(moving, errors, strict=True)]
    top = 1.05 * max([*values, 1e-9])
    out: list[dict] = []
    for one in summary.dimensions:
        if one.relative is None:
            out.append({})
            continue
        ends = (one.relative.low, one.relative.high)
        low, high = ends if np.isfinite(ends[0]) else (one.relative.estimate,) * 2
        marks = {"error": one.relative.estimate} | {guess: one.guesses[guess] / one.spread for guess in GUESSES}
        out.append(
            {
                "low": 100 * max(0.0, low) / top,
                "width": 100 * (min(high, top) - max(0.0, low)) / top,
                "marks": {name: 100 * value / top for name, value in marks.items()},
            }
        )
    return out


def chosen_episodes(rows: Sequence[dict], manifest: dict) -> list[dict]:
    """The episodes whose curves are shown, worst first."""
    order = np.argsort(-_relative(rows, manifest), kind="stable")
    kept = np.unique(np.linspace(0, len(rows) - 1, min(EPISODES, len(rows))).round().astype(int))
    return [rows[order[place]] for place in kept]


def episode_rows(rows: Sequence[dict], summary: ErrorSummary, manifest: dict) -> list[dict]:
    """A line of the table for each episode."""
    about, seen = manifest["data"], set(manifest["data"]["trained_on"])
    relative = {name: _relative(rows, manifest, name) for name in ("error", *GUESSES)}
    return [
        {
            "episode": row["episode"],
            "task": row["task"],
            "seconds": row["length"] / about["rate"],
            "length": row["length"],
            "worst": _worst(row, manifest),
            "seen": row["episode"] in seen,
        }
        | {name: values[place] for name, values in relative.items()}
        for place, row in enumerate(rows)
    ]


def curves(rows: Sequence[dict], manifest: dict) -> dict:
    """What the page's script draws: each dimension of each episode, recorded and planned, over seconds."""
    about = manifest["data"]
    dims = len(about["action"])
    out = []
    for row in rows:
        kept = np.unique(np.linspace(0, row["length"] - 1, min(row["length"], POINTS)).round().astype(int))
        series = [np.asarray(row[name], np.float64).reshape(-1, dims)[kept].T for name in ("recorded", "planned")]
        errors = dimension_errors([row], manifest["agent"]["n_action_steps"])[0]
        out.append(
            {
                "episode": row["episode"],
                "task": row["task"],
                "seconds": [_short(frame / about["rate"]) for frame in kept],
                "recorded": [[_short(value) for value in line] for line in series[0]],
                "planned": [[_short(value) for value in line] for line in series[1]],
                "error": [_short(value) for value in errors],
            }
        )
    return {"names": about["action"], "units": about["units"], "episodes": out}


def _relative(rows: Sequence[dict], manifest: dict, name: str = "error") -> np.ndarray:
    """(n,) error of each episode over all dimensions, in spreads; of constant actions in units."""
    spread = np.asarray(manifest["data"]["spread"], np.float64)
    moving = spread > 0
    values = np.array([row[name] for row in rows], np.float64)
    return (values[:, moving] / spread[moving]).mean(1) if moving.any() else values.mean(1)


def _worst(row: dict, manifest: dict) -> str:
    """The dimension with the greatest error in spreads."""
    about = manifest["data"]
    spread = np.asarray(about["spread"], np.float64)
    errors = over_steps(row, "error_by_step", manifest["agent"]["n_action_steps"])
    return about["action"][int(np.argmax(np.divide(errors, spread, out=np.zeros_like(errors), where=spread > 0)))]


def _without_vectors(manifest: dict) -> dict:
    """The manifest without long lists and what the page says already."""
    data = {key: value for key, value in manifest["data"].items() if not isinstance(value, list) or len(value) <= 12}
    return {key: value for key, value in manifest.items() if key not in ("digests", "command")} | {"data": data}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
