"""The page of a dataset: warnings, chosen episodes with films beside their curves, and how every number is spread.

One file with everything inside. Its size does not grow with the dataset: a few episodes are shown, chosen by
`choose.py`, curves and films are thinned out, and the page says what it leaves out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....configs.episode import REWARD
from ....configs.progress import counted
from ....configs.spec import ACTION, SCENE, STATE
from ....policies.data.corrections import helped
from ....policies.data.dataset import Dataset
from ....policies.data.frames import episodes_with_pictures
from ...pages.histogram import Histogram, histogram
from ...pages.page import page
from ..cameras import Look
from ..sheet import strip_of_numbers
from ..survey import Survey
from .choose import Curve, Panel, choose_episodes, choose_panels, group_of, success_of, title_of
from .films import Films, data_uri_of, make_films

PAGE, SHOWN = "dataset.html", 12  # the template; episodes that are shown
POINTS = 300  # of a curve; a longer episode is thinned out
ENDS = 200  # first and last frames that are marked under a histogram
MISSING, TOP = 2**16 - 1, 2**16 - 2  # a number that is not finite; the largest of a panel's range
STYLES = {ACTION: "b", "action.sent": "c"}  # CSS class of a column's curve; all others "a"


@dataclass(frozen=True)
class Seen:
    """What was found of a dataset, to be shown."""

    facts: Mapping[str, str]
    warnings: Sequence[str]
    survey: Survey
    looks: Sequence[Look]


def render(dataset: Dataset, seen: Seen, shown: int = SHOWN) -> str:
    """The HTML text."""
    from markupsafe import Markup

    success = success_of(dataset)
    filmed = {int(m) for camera in dataset.cameras for m in episodes_with_pictures(dataset, camera)}
    chosen = choose_episodes(dataset.lengths, success, shown, sorted(filmed))
    groups, left_out = choose_panels(dataset, seen.survey.dimensions)
    films = make_films(dataset, chosen)
    numbered = [panel for _, panels in groups for panel in panels]
    return page(
        PAGE,
        name=dataset.root.resolve().name,
        facts=seen.facts,
        warnings=seen.warnings,
        numbers=_numbers(dataset, success),
        groups=_numbered(groups),
        legend=[("observed", "a"), *((column, STYLES[column]) for column in STYLES if column in dataset.columns)],
        remarks=[*left_out, *films.remarks, *_unseen(seen.looks)],
        episodes=[_episode(dataset, m, success) for m in chosen],
        which=_which(dataset, chosen, shown),
        data=_data(dataset, chosen, numbered, success),
        films={f"{chosen.index(m)}-{camera}": film for (m, camera), film in films.films.items()},
        cameras=[camera for camera in dataset.cameras if any(name == camera for _, name in films.films)],
        edges=_edges(dataset, chosen, films),
        strips=[(f"camera {one.camera}", data_uri_of(one.strip)) for one in seen.looks if one.strip is not None]
        + [
            (f"{one.column}, a picture stored as numbers", data_uri_of(strip_of_numbers(one)))
            for one in seen.survey.stored
        ],
        overall=[Markup(text) for text in _overall(dataset)],
        spreads=[
            (column, [Markup(_spread(dataset, curve)) for curve in curves])
            for column, curves in _by_column(numbered).items()
        ],
    )


def _numbers(dataset: Dataset, success: np.ndarray | None) -> list[tuple[str, str, str]]:
    """(what, number, more) of the cards on top."""
    seconds = dataset.lengths / dataset.rate
    total = seconds.sum()
    cards = [
        (
            "episodes",
            str(len(seconds)),
            f"{seconds.min():.3g} to {seconds.max():.3g} s, median {np.median(seconds):.3g} s",
        ),
        (
            "in all",
            f"{total / 60:.0f} min" if total >= 600 else f"{total:.0f} s",
            f"{counted(len(dataset), 'frame')} at {dataset.rate:g} Hz",
        ),
    ]
    if success is not None:
        cards.append(("succeeded", f"{success.sum()} of {len(success)}", f"as the dataset says{helped(dataset)}"))
    else:
        cards.append(("succeeded", "–", "no success labels; add them with understudy label"))
    return cards


def _which(dataset: Dataset, chosen: Sequence[int], shown: int) -> str:
    total = len(dataset.lengths)
    if len(chosen) == total:
        return f"All {counted(total, 'episode')}." if total > 1 else "The only episode."
    return (
        f"{len(chosen)} of {counted(total, 'episode')} are shown: the shortest, the longest, a failure and a success "
        "where the dataset tells them, others spread evenly, with films where there are some. Choose others with "
        "--episodes, for example --episodes 30-35, and more with --shown."
    )


def _episode(dataset: Dataset, m: int, success: np.ndarray | None) -> dict:
    """What the picker says of an episode."""
    parts = [f"episode {dataset.episode_ids[m]}", f"{dataset.lengths[m] / dataset.rate:.1f} s"]
    if success is not None:
        parts.append("success" if success[m] else "failure")
    if len({task for task in dataset.tasks if task}) > 1 and dataset.tasks[m]:
        parts.append(dataset.tasks[m][:60])
    return {"id": int(dataset.episode_ids[m]), "words": ", ".join(parts)}


def _numbered(groups) -> list[tuple[str, list[tuple[int, Panel]]]]:
    """Every panel with its number on the page."""
    number, numbered = 0, []
    for heading, panels in groups:
        numbered.append((heading, list(enumerate(panels, number))))
        number += len(panels)
    return numbered


def _data(dataset: Dataset, chosen: Sequence[int], panels: Sequence[Panel], success: np.ndarray | None) -> dict:
    """What the script draws: ranges of the panels, and for each episode its duration and curves."""
    return {
        "rate": dataset.rate,
        "panels": [
            {"low": panel.range[0], "high": panel.range[1], "styles": [STYLES.get(c.column, "a") for c in panel.curves]}
            for panel in panels
        ],
        "episodes": [
            {
                "id": int(dataset.episode_ids[m]),
                "seconds": float(dataset.lengths[m] / dataset.rate),
                "frames": int(dataset.lengths[m]),
                "curves": [[_packed(dataset, m, curve, panel) for curve in panel.curves] for panel in panels],
            }
            for m in chosen
        ],
    }


def _packed(dataset: Dataset, m: int, curve: Curve, panel: Panel) -> str:
    """Up to `POINTS` values as uint16 within the panel's range, little endian, base64."""
    rows = dataset.starts[m] + np.unique(np.linspace(0, dataset.lengths[m] - 1, POINTS).astype(int))
    low, high = panel.range
    values = (dataset.columns[curve.column][rows, curve.place].astype(np.float64) - low) / (high - low)
    levels = np.where(np.isfinite(values), np.clip(values, 0, 1) * TOP, MISSING).round().astype("<u2")
    return base64.b64encode(levels.tobytes()).decode()


def _edges(dataset: Dataset, chosen: Sequence[int], films: Films) -> list[tuple[str, list[tuple[int, int, str, str]]]]:
    """(camera, [(place, episode, first picture, last picture)])."""
    by_camera: dict[str, list[tuple[int, int, str, str]]] = {}
    for m, camera in sorted(films.edges):
        first, last = films.edges[m, camera]
        by_camera.setdefault(camera, []).append((chosen.index(m), int(dataset.episode_ids[m]), first, last))
    return list(by_camera.items())


def _unseen(looks: Sequence[Look]) -> list[str]:
    return [f"camera {one.camera} is not shown: {one.note}" for one in looks if one.strip is None]


def _overall(dataset: Dataset) -> list[str]:
    """Histograms over episodes: how long they are, and what they reached."""
    charts = [histogram(Histogram(dataset.lengths / dataset.rate, "length, s", "episodes"))]
    if REWARD in dataset.columns:
        best = np.maximum.reduceat(dataset.columns[REWARD][:, 0], dataset.starts)
        charts.append(histogram(Histogram(best, "best reward of an episode", "episodes", style="success")))
    return charts


def _by_column(panels: Sequence[Panel]) -> dict[str, list[Curve]]:
    columns: dict[str, list[Curve]] = {}
    for curve in (curve for panel in panels for curve in panel.curves):
        columns.setdefault(group_of(curve.column), []).append(curve)
    return columns


def _spread(dataset: Dataset, curve: Curve) -> str:
    """How a number is spread over frames, with its values at the ends of episodes below."""
    values = dataset.columns[curve.column][:, curve.place]
    some = np.unique(np.linspace(0, len(dataset.lengths) - 1, ENDS).astype(int))
    first, last = dataset.starts[some], dataset.starts[some] + dataset.lengths[some] - 1
    ends = {"first": values[first], "last": values[last]} if curve.column in (STATE, SCENE) else {}
    return histogram(Histogram(values, title_of(curve), "frames", STYLES.get(curve.column, "a"), ends))
