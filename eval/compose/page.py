"""`report.html` of a search for weights: success over the weights, what denoising predicts, the report on fresh ones.

Two parents get a curve, three a triangle, more a table alone. Made from a `Report`; decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from ...configs.command import command_of
from ...configs.files import replace_text
from ...configs.settings.decode import decode
from ..ledger.origin import facts, on_lines
from ..ledger.provenance import provenance
from ..pages.charts import Line, Mark, chart
from ..pages.page import page
from .report import CONTROL, MIXTURE, PARENT, Report, interval_of
from .search import Weights, weights_text
from .settings import Settings

PAGE, TEMPLATE = "report.html", "compose.html"
STYLES = {MIXTURE: "success", PARENT: "a", CONTROL: "b"}
# settings that do not change what is found
MACHINE = ("workers", "engine", "address", "timeout", "threads", "device", "videos")
SIDE, MARGIN = 520, 60  # of the triangle, user units


def write_composition(report: Report, settings: Mapping, folder: Path) -> Path:
    """Write `folder/report.html` and return its path. `settings`: all flags of the search."""
    return replace_text(Path(folder) / PAGE, render(report, settings))


def render(report: Report, settings: Mapping) -> str:
    """The HTML text."""
    from markupsafe import Markup

    charts = [("Success over the weights", curve(report)), ("Success over the weights", triangle(report))]
    charts.append(("Denoising error over the weights", error_curve(report)))
    return page(
        TEMPLATE,
        report=report,
        names=short(report.parents),
        styles=STYLES,
        tried=[(choice, interval_of(choice.outcomes, report.on)) for choice in report.found.tried if choice.outcomes],
        weights_text=weights_text,
        charts=[(title, Markup(text)) for title, text in charts if text],
        command=command(report, settings),
        facts=list(facts({"search": {k: v for k, v in settings.items() if k not in ("out", "resume")}} | provenance())),
    )


def curve(report: Report) -> str:
    """Two parents: the outcome over the share of the first, with what fresh initial conditions gave; else ""."""
    tried = [choice for choice in report.found.tried if choice.outcomes]
    if len(report.parents) != 2 or not tried:
        return ""

    tried.sort(key=lambda choice: choice.weights)
    x = [100 * choice.weights[0] for choice in tried]
    low, mean, high = zip(*(interval_of(choice.outcomes, report.on) for choice in tried), strict=True)

    lines = [Line(x, mean, "mean", f"{report.on} in the search, 95 %", low, high)]
    marks = []
    if report.on == "success":
        lines += [
            Line((0, 100), (0, 0), f"thin {style}", f"{role}, fresh initial conditions")
            for role, style in _roles(report)
        ]
        marks = [_fresh_mark(row, report) for row in report.entries]

    name = f"{report.on} over the weight of {short(report.parents)[0]}, in per cent"
    x_label = f"weight of {short(report.parents)[0]}, % (rest: {short(report.parents)[1]})"
    return chart(lines, x_label=x_label, y_label=report.on, y_range=(0, 1), marks=marks, title=name)


def _roles(report: Report) -> list[tuple[str, str]]:
    """(role, style) of the fresh rows, each once."""
    return [(role, STYLES[role]) for role in dict.fromkeys(row.role for row in report.entries)]


def _fresh_mark(row, report: Report) -> Mark:
    parents = [row.name for row in report.entries if row.role == PARENT]
    places = {MIXTURE: report.found.chosen[0], CONTROL: 0.5}
    share = places.get(row.role, 1.0 - parents.index(row.name) if row.role == PARENT else 0.0)
    return Mark(100 * share, row.success.estimate, STYLES[row.role], y_bar=(row.success.low, row.success.high))


def error_curve(report: Report) -> str:
    """Two parents: the predicted denoising error over the share of the first; "" without a prediction.

    Mixtures were measured on fewer windows; their errors are drawn in proportion to the first parent's on those.
    """
    if len(report.parents) != 2 or not report.predicted:
        return ""
    prediction = report.predicted.prediction
    x = np.linspace(0, 1, 51)
    low, best, high = prediction.intervals[0]
    lines = [
        Line((100 * x).tolist(), [prediction.q((w, 1 - w)) for w in x], "mean", "predicted from the parents' residuals")
    ]

    # in proportion to the first parent
    scale = prediction.q((1, 0)) / max(next(q for w, _, q in report.predicted.checked if w[0] == 1), 1e-300)
    marks = [Mark(100 * w[0], error * scale, "small c") for w, error, _ in report.predicted.checked]
    marks.append(Mark(100 * best, prediction.q(prediction.weights), "a", x_bar=(100 * low, 100 * high)))

    least = (prediction.q(prediction.weights),) * 2
    lines += [Line((0, 100), least, "thin c", "measured of mixtures"), Line((0, 100), least, "thin a", "least, 95 %")]

    name = "denoising error of mixtures over the weight of the first parent"
    x_label = f"weight of {short(report.parents)[0]}, %"
    return chart(
        lines, x_label=x_label, y_label=f"mean squared error, {prediction.error.value}", marks=marks, title=name
    )


def triangle(report: Report) -> str:
    """Three parents: every choice of weights as a disc in the triangle of parents, filled as far as it succeeded."""
    tried = [choice for choice in report.found.tried if choice.outcomes]
    if len(report.parents) != 3 or not tried:
        return ""

    corners, names = np.array([_place(row) for row in np.eye(3)]), short(report.parents)
    edge = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*corners, corners[0]))
    box = f"0 0 {SIDE + 2 * MARGIN} {2 * MARGIN + 0.87 * SIDE:.0f}"
    parts = [f'<svg class="chart" viewBox="{box}" role="img" aria-label="{report.on} over three weights">']
    parts.append(f'<polyline class="thin mean" points="{edge}"/>')

    for (x, y), name, up in zip(corners, names, (3.4, 3.4, -1.1), strict=True):
        at = f'x="{x:.1f}" y="{y:.1f}" dy="{up}em"'
        parts.append(f'<text class="name" {at} text-anchor="middle">{escape(name)}</text>')

    for choice in tried:
        x, y = _place(choice.weights)
        style = "success" if choice.weights == report.found.chosen else "a"
        caption = f"{escape(weights_text(choice.weights))}: {choice.mean:.2f} of {len(choice.outcomes)}"
        disc = f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{6 + 16 * math.sqrt(choice.mean):.1f}"/>'
        parts.append(f'<g opacity="{0.45 if choice.dropped else 0.9}"><title>{caption}</title>{disc}</g>')
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" dy="2.2em" text-anchor="middle">{100 * choice.mean:.0f}</text>')

    return "".join([*parts, "</svg>"])


def _place(weights: Weights) -> tuple[float, float]:
    """Where weights of three parents lie in the picture: first left, second right, third on top."""
    _, right, top = weights
    return MARGIN + SIDE * (right + top / 2), MARGIN + 0.87 * SIDE * (1 - top)


def short(parents: Sequence[str]) -> list[str]:
    """The parents' paths without the folders that all share; the whole path where nothing is left."""
    split = [Path(path).parts for path in parents]
    same = 0
    while all(len(path) > same + 1 for path in split) and len({path[same] for path in split}) == 1:
        same += 1
    return ["/".join(path[same:]) for path in split]


def command(report: Report, settings: Mapping) -> str:
    """What a reader runs for this search, a flag on each line."""
    asked = {**settings, "parents": list(report.parents), "out": "out/again", "resume": None}
    return on_lines(command_of(decode(Settings, asked), "compose", without=MACHINE))
