"""`understudy curve RUN`: success over training steps, from the judgements of `train --eval`.

Reads RUN/evals.jsonl and the records under RUN/evals/; writes RUN/evals.html, one file with everything inside. Started
by the trainer after each judgement, as a process of its own; a reader can run it as well. Intervals are 95 %, each for
one checkpoint on the initial conditions used: Wilson for success, Student t for progress.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import replace_text
from ...policies.learning.links import linked, step_of
from ...policies.learning.run import training
from ...policies.learning.state import read_rows
from ..ledger.record import read_record
from ..ledger.summary import Summary, summarize
from ..pages.charts import Line, chart
from ..pages.page import page

LINES, PAGE = "evals.jsonl", "evals.html"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Draw success and progress over training steps, of a run that was judged as it trained (`train --eval`)."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("training",)

    training: Path  # run folder

    def run(self) -> None:
        print(write_curve(self.training))


@dataclass(frozen=True)
class Judgement:
    """What became of one checkpoint that was due: a summary, or why there is none."""

    step: int
    summary: Summary | None
    remark: str  # why it was skipped or failed


def read_judgements(run: Path) -> list[Judgement]:
    """All judgements of a run by step; a step judged twice counts with its last line.

    Raises:
        FileNotFoundError: the run has none.
    """
    path = run / LINES
    if not path.is_file():
        raise FileNotFoundError(f"'{run}' has no {LINES}: train with --eval configs/eval/NAME.yaml")
    rows = {row["step"]: row for row in read_rows(path)}
    judgements = []
    for step, row in sorted(rows.items()):
        record = run / "evals" / f"{step:08d}"
        if "success" in row and record.is_dir():
            judgements.append(Judgement(step, summarize(read_record(record)), ""))
        else:
            remark = f"skipped: {row['skipped']}" if "skipped" in row else f"failed: {row.get('failed', 'no record')}"
            judgements.append(Judgement(step, None, remark))
    return judgements


def write_curve(run: Path) -> Path:
    """Write RUN/evals.html, beside and renamed. Returns the file."""
    from markupsafe import Markup

    judgements = read_judgements(run)
    judged = [judgement for judgement in judgements if judgement.summary]
    best = linked(run, "best")
    text = page(
        PAGE,
        run=(training(run) or {}).get("name") or run.name,
        judgements=judgements,
        judged=judged,
        best=-1 if best is None else step_of(best),
        charts=[Markup(curve) for curve in curves(judgements)],
    )
    return replace_text(run / PAGE, text)


def curves(judgements: Sequence[Judgement]) -> list[str]:
    """Success and mean best progress over optimiser steps, with their intervals; none of a single judgement.

    A dot is a checkpoint that was judged; where one was due and is missing, the line has a gap.
    """
    judged = [judgement for judgement in judgements if judgement.summary]
    if len(judged) < 2:
        return []
    steps = [judgement.step for judgement in judgements]
    drawn = []
    for name, style, pick in (
        ("success rate", "success", lambda summary: summary.success),
        ("mean best progress", "a", lambda summary: summary.progress),
    ):
        bands = [pick(judgement.summary) if judgement.summary else (math.nan,) * 3 for judgement in judgements]
        low, middle, high = zip(*bands, strict=True)
        line = Line(steps, middle, style, f"{name}, 95 % interval, n = {judged[-1].summary.n}", low, high, dots=True)
        drawn.append(chart([line], x_label="optimiser steps", y_label=name, y_range=(0, 1)))
    return drawn
