"""`report.html` of a record: one file with everything inside (style, script, curves, films), readable anywhere.

Reads a record folder, and the run that trained the policy where it is at hand; computes nothing that the summary, the
metrics and the moments do not. The look lives in `templates/`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...configs.files import replace_text
from ...configs.progress import counted
from ..ledger.films import film_paths
from ..ledger.origin import command, facts, origin, without_config
from ..ledger.record import REPORT, Record
from ..ledger.summary import Summary, rate_of, summarize
from ..pages.charts import Line, Mark, chart
from ..pages.gallery import films
from ..pages.moments import RULE, Moment, failures_text, moment
from ..pages.page import page
from ..statistics.intervals import success_by_step, wilson
from .detections import alarm_of, recorded, score_chart, tally

CURVES = 60  # single progress curves drawn at most
SMOOTH = 25  # logged values that the training curve averages


def write_report(record: Record, run: Path | None = None) -> Path:
    """Write `record.root/report.html` and return its path.

    Args:
        run: training run whose metrics.jsonl gives the training curves.

    Raises:
        ValueError: the record holds no episode.
    """
    return replace_text(record.root / REPORT, render(record, run))


def render(record: Record, run: Path | None = None) -> str:
    """The HTML text of a record's report."""
    from markupsafe import Markup

    summary, rows = summarize(record), record.table.to_pylist()
    moments = [moment(row) for row in rows]
    shown = films(film_paths(record), rows)
    date, commit = origin(record.manifest)
    alarm = alarm_of(record)
    charts = {
        "success": success_chart(record),
        "progress": progress_chart(record, moments),
        "training": training_chart(run),
        "alarm": score_chart(record) if alarm else "",
    }
    return page(
        REPORT,
        summary=summary,
        verdict=verdict(summary),
        rows=list(zip(rows, moments, strict=True)),
        failures=[film for film in shown if not film.row["success"]],
        successes=[film for film in shown if film.row["success"]],
        failure_counts=failures_text(moments),
        rule=RULE,
        alarm=alarm,
        detections=tally(recorded(record), alarm["clock"]) if alarm else None,
        elsewhere=bool(alarm) and alarm["world"] != without_config(record.manifest["world"]),
        charts={name: Markup(text) for name, text in charts.items()},
        training_note=training_note(run),
        split=time_split(summary),
        facts=list(facts(record.manifest)),
        command=command(record.manifest),
        date=date,
        commit=commit,
        record=record.root.name,
    )


def verdict(summary: Summary) -> str:
    """The headline in words: what was seen, and what that says about fresh initial conditions."""
    low, high = (f"{100 * end:.0f} %" for end in (summary.success.low, summary.success.high))
    won, n = summary.successes, summary.n
    seen = f"All {n}" if won == n > 1 else f"{won or 'None'} of {n}"
    return (
        f"{counted(seen, 'episode')} succeeded. With 95 % confidence this policy succeeds from between {low} and "
        f"{high} of fresh initial conditions; another training seed may differ by more."
    )


def success_chart(record: Record) -> str:
    """Share of episodes that succeeded, by control steps, with pointwise 95 % Wilson intervals."""
    n, horizon = len(record.table), max(record.column("length"))
    share = success_by_step(record.column("first_success"), horizon)
    bands = [wilson(round(value * n), n) for value in share]
    low, high = [band.low for band in bands], [band.high for band in bands]
    line = Line(range(horizon + 1), share.tolist(), "success", f"succeeded, 95 % interval, n = {n}", low, high)
    title = "share of episodes that have succeeded, over control steps"
    rate = rate_of(record.manifest)
    return chart([line], x_label="control steps", y_label="share of episodes", y_range=(0, 1), title=title, rate=rate)


def progress_chart(record: Record, moments: list[Moment]) -> str:
    """Progress of single episodes, where failures were last near their best, and the mean; an ended one stays."""
    pairs = zip(record.column("progress"), record.column("success"), strict=True)
    pairs = [(curve, "thin success" if won else "thin failure") for curve, won in pairs if curve]
    if not pairs:
        return ""
    horizon = max(len(curve) for curve, _ in pairs)
    held = np.stack([np.pad(curve, (0, horizon - len(curve)), mode="edge") for curve, _ in pairs])
    lines, labels = [], {"thin success": "ended in success", "thin failure": "ended in failure"}
    for curve, style in _drawn(pairs):
        lines.append(Line(range(1, len(curve) + 1), curve, style, labels.pop(style, "")))
    some = f" {counted(len(pairs), 'episode')}, {CURVES} of them drawn" if len(pairs) > CURVES else " episodes"
    lines.append(Line(range(1, horizon + 1), held.mean(0).tolist(), "mean", f"mean of all{some}"))
    lost = [failure for failure in moments if failure.kind not in ("success", "error") and failure.step][:CURVES]
    marks = [Mark(failure.step, failure.progress, "small failure") for failure in lost]
    title = "progress of each episode over control steps, and their mean"
    words = {"x_label": "control steps", "y_label": "progress", "title": title}
    return chart(lines, **words, y_range=(0, 1), marks=marks, rate=rate_of(record.manifest))


def _drawn(pairs: list) -> list:
    """At most `CURVES` of the (curve, style) pairs: failures, which are looked for, rather than successes."""
    if len(pairs) <= CURVES:
        return pairs
    failures = [place for place, (_, style) in enumerate(pairs) if style == "thin failure"][:CURVES]
    others = [place for place in range(len(pairs)) if place not in failures][: CURVES - len(failures)]
    return [pairs[place] for place in sorted(failures + others)]


def training_chart(run: Path | None) -> str:
    """Training and validation loss by step, "" where there is nothing to draw."""
    lines = []
    for name, style, label in (
        ("loss", "a", "training loss"),
        ("validation/loss", "b", "held-out loss"),
        ("validation/action_error", "c", "held-out action error"),
    ):
        points = [(entry["step"], entry[name]) for entry in _metrics(run) if entry.get(name, 0) > 0]
        if len(points) > 1:
            steps, values = np.array(points).T
            if name == "loss":
                values = _smooth(values)
            lines.append(Line(steps.tolist(), values.tolist(), style, label))
    name = "loss" if len(lines) < 3 else "loss, action error"
    return chart(lines, x_label="optimiser steps", y_label=name, log=True) if lines else ""


def training_note(run: Path | None) -> str:
    """How to read a held-out loss beside a rate of success; "" where none was logged."""
    losses = [entry["validation/loss"] for entry in _metrics(run) if entry.get("validation/loss", 0) > 0]
    if len(losses) < 2:  # no curve of it is drawn
        return ""
    risen = losses[-1] > 1.2 * min(losses)
    rise = f"It rose from {min(losses):.2g} to {losses[-1]:.2g} here. " if risen else ""
    return (
        "Held-out loss is a loss on the few episodes kept out of training, not a rate of success. "
        f"{rise}Rising while training loss falls is usual of policies trained on few demonstrations and does not by "
        "itself mean that the policy acts worse: judge checkpoints by success (train --eval) or by action error."
    )


def time_split(summary: Summary) -> list[tuple[str, float, float]]:
    """(what, seconds, share in per cent) of where the episodes' time went."""
    total = max(sum(summary.split.values()), 1e-9)
    shown = {"render": "rendering"}
    return [(shown.get(name, name), seconds, 100 * seconds / total) for name, seconds in summary.split.items()]


def _metrics(run: Path | None) -> list[dict]:
    path = run / "metrics.jsonl" if run else None
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean, shorter at the ends."""
    width = min(SMOOTH, max(1, len(values) // 8))
    sums = np.convolve(values, np.ones(width), "same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), "same")
