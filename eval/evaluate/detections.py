"""When an alarm was raised, counted: on failures a detection, on successes a false alarm. For report and studies.

Beside it stands a clock, which needs no signal: it is raised after a number of steps that successes seldom take. A
failure that only runs out of time is found by the clock too, late; what the alarm is worth is how much earlier it is
raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ledger.record import Record
from ..pages.charts import Line, Mark, chart
from ..statistics.intervals import Interval, wilson

CURVES = 60  # single curves drawn at most


@dataclass(frozen=True)
class Detection:
    """One episode. Steps are control steps since its beginning."""

    success: bool
    length: int
    raised: int  # steps done when the alarm was first raised, -1: it did not


@dataclass(frozen=True)
class Tally:
    """Counts over the episodes of a record. Intervals: Wilson, 95 %."""

    failures: int
    detected: int  # failures that raised it
    successes: int
    false: int  # successes that raised it
    lead: float | None  # steps from the alarm to the end of a detected failure, median; None: none was detected
    by_clock: int | None = None  # failures that lasted longer than the clock; None: no clock
    earlier: int | None = None  # failures that raised it before the clock, or that it would miss

    @property
    def detection(self) -> Interval | None:
        return wilson(self.detected, self.failures) if self.failures else None

    @property
    def false_alarms(self) -> Interval | None:
        return wilson(self.false, self.successes) if self.successes else None

    def text(self) -> str:
        """One sentence a count."""
        sentences = []
        if self.failures:
            sentences.append(f"it was raised on {self.detected} of {self.failures} failures ({self.detection})")
        if self.successes:
            sentences.append(f"on {self.false} of {self.successes} successes ({self.false_alarms})")
        if self.lead is not None:
            sentences.append(f"{self.lead:.0f} steps before the end of a failure (median)")
        if self.by_clock is not None and self.failures:
            sentences.append(f"a clock is raised on {self.by_clock} failures; the alarm was earlier on {self.earlier}")
        return "; ".join(sentences)


def tally(detections: Sequence[Detection], clock: int | None = None) -> Tally:
    """Count. A clock is raised after `clock` control steps on an episode that lasts longer."""
    lost, won = (
        [episode for episode in detections if not episode.success],
        [episode for episode in detections if episode.success],
    )
    caught = [episode for episode in lost if episode.raised >= 0]
    leads = [episode.length - episode.raised for episode in caught]
    timed = {} if clock is None else {
        "by_clock": sum(episode.length > clock for episode in lost),
        "earlier": sum(episode.raised < clock or episode.length <= clock for episode in caught),
    }  # fmt: skip
    false = sum(episode.raised >= 0 for episode in won)
    return Tally(len(lost), len(caught), len(won), false, float(np.median(leads)) if leads else None, **timed)


def recorded(record: Record) -> list[Detection]:
    """The alarms of a record that was made with an alarm; episodes that broke off are left out."""
    rows = (row for row in record.table.to_pylist() if not row["error"] and row["alarm"] is not None)
    return [Detection(row["success"], row["length"], row["alarm"]) for row in rows]


def alarm_of(record: Record) -> Mapping | None:
    """What the manifest says of the alarm; None where there was none."""
    return record.manifest.get("agent", {}).get("alarm") if "alarm" in record.table.column_names else None


def score_chart(record: Record) -> str:
    """Score over control steps in single episodes, its threshold, and where it was first exceeded."""
    about, n_action_steps = alarm_of(record), record.manifest["agent"]["n_action_steps"]
    rows = [row for row in record.table.to_pylist() if row["score"]][:CURVES]
    if not rows:
        return ""

    lines, marks = [], []
    labels = {"thin success": "ended in success", "thin failure": "ended in failure"}
    top = 3 * max(about["threshold"], 1e-6)  # a score far above says no more than one above

    for row in rows:
        style = "thin success" if row["success"] else "thin failure"
        score = np.minimum(row["score"], top)
        steps = n_action_steps * np.arange(len(score))
        lines.append(Line(steps.tolist(), score.tolist(), style, labels.pop(style, "")))
        if row["alarm"] >= 0:
            at = row["alarm"] // n_action_steps
            marks.append(Mark(row["alarm"], float(score[at]), f"small {style.split()[1]}"))

    end = max(line.x[-1] for line in lines)
    lines.append(Line([0, max(end, 1)], [about["threshold"]] * 2, "mean", f"threshold, alpha = {about['alpha']:g}"))
    title = "score of the alarm over control steps; a mark where it was raised"
    return chart(lines, x_label="control steps", y_label="score, cut above", y_range=(0, top), marks=marks, title=title)
