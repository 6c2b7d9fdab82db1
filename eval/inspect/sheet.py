"""One sheet of pictures about a dataset: lengths, histograms, trajectories and a strip of each camera.

What is not drawn is counted and named at the foot of it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.episode import REWARD
from ...configs.progress import counted
from ...configs.spec import ACTION, SCENE, STATE
from ...policies.data.dataset import Dataset
from .cameras import Look
from .numbers import StoredPicture
from .survey import TIME, WIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4  # plots a row
PATHS = 12  # episodes whose paths are drawn
HIGH, STRIP_HIGH, FOOT_HIGH = 2.6, 1.6, 0.2  # inches of a row of plots, of a strip, of a line at the foot
INK, ACCENT = "#31465a", "#c8553d"


def draw_sheet(dataset: Dataset, path: Path, looks: Sequence[Look] = (), stored: Sequence[StoredPicture] = ()) -> None:
    """Write the sheet as PNG, SVG or PDF, by the ending of `path`."""
    from matplotlib.figure import Figure

    outcome = [_outcome] if REWARD in dataset.columns else []
    plots = [_lengths, *outcome, *_trajectories(dataset), *_histograms(dataset)]
    strips = [(f"camera {one.camera}", one.strip) for one in looks if one.strip is not None]
    strips += [(f"{one.column}, a picture stored as numbers", strip_of_numbers(one)) for one in stored]
    foot = [line for text in _left_out(dataset, looks) for line in textwrap.wrap(text, 180)]

    rows = -(-len(plots) // COLUMNS)
    heights = [HIGH] * rows + [STRIP_HIGH] * len(strips) + [FOOT_HIGH * (len(foot) + 1)] * bool(foot)
    figure = Figure(figsize=(4 * COLUMNS, sum(heights) + 0.5))
    top, bottom = 1 - 0.8 / figure.get_figheight(), 0.3 / figure.get_figheight()
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, top=top, bottom=bottom, left=0.04, right=0.985)
    grid.update(hspace=0.42)

    for row in range(rows):
        line = grid[row].subgridspec(1, COLUMNS, wspace=0.24)
        for place, plot in enumerate(plots[row * COLUMNS : (row + 1) * COLUMNS]):
            axes = figure.add_subplot(line[place])
            plot(axes, dataset)
            axes.title.set_fontsize(9)
            axes.tick_params(labelsize=7)
            axes.locator_params(nbins=4)
    for i, (name, strip) in enumerate(strips):
        axes = figure.add_subplot(grid[rows + i])
        axes.imshow(strip)
        axes.set_title(name, fontsize=9)
        axes.axis("off")
    if foot:
        axes = figure.add_subplot(grid[len(heights) - 1])
        axes.axis("off")
        axes.text(0, 1, "\n".join(foot), fontsize=8, va="top", transform=axes.transAxes, parse_math=False)

    figure.suptitle(
        f"{dataset.root.name}: {counted(len(dataset.lengths), 'episode')}, {counted(len(dataset), 'frame')} at "
        f"{dataset.rate:g} Hz",
        y=1 - 0.15 / figure.get_figheight(),
        va="top",
    )
    figure.savefig(path, dpi=90)


def _lengths(axes: Axes, dataset: Dataset) -> None:
    axes.hist(dataset.lengths / dataset.rate, bins=30, color=INK)
    axes.set_title("length of the episodes")
    _name(axes, "s", "episodes")


def _outcome(axes: Axes, dataset: Dataset) -> None:
    best = np.maximum.reduceat(dataset.columns[REWARD][:, 0], dataset.starts)
    axes.hist(best[np.isfinite(best)], bins=30, color=ACCENT)
    axes.set_title("best reward of the episodes")
    _name(axes, "reward", "episodes")


def _trajectories(dataset: Dataset) -> Iterator:
    """State and action over time in a few episodes; for two dimensions the path in the plane."""
    few = np.unique(np.linspace(0, len(dataset.lengths) - 1, PATHS).astype(int))
    for key in (STATE, ACTION):
        if key not in dataset.columns:
            continue

        def plot(axes: Axes, dataset: Dataset, key=key):
            values, count = dataset.columns[key], len(dataset.lengths)
            parts = [values[dataset.starts[m] : dataset.starts[m] + dataset.lengths[m]] for m in few]
            if values.shape[1] == 2:
                for part in parts:
                    axes.plot(*part.T, lw=0.7)
                axes.set_title(f"{key}: paths of {len(few)} of {counted(count, 'episode')}")
                _name(axes, *(_with_unit(*one) for one in zip(*_named(dataset, key), strict=True)))
            else:
                lines = axes.plot(np.arange(len(parts[0])) / dataset.rate, parts[0][:, :WIDE], lw=0.7)
                axes.set_title(f"{key} of episode {dataset.episode_ids[few[0]]}, 1 of {count}")
                _name(axes, "s", f"all {counted(values.shape[1], 'number')}" if len(lines) == values.shape[1] else "")

        yield plot


def _histograms(dataset: Dataset) -> Iterator:
    """Of every dimension of actions, states and scene; a wide column is one."""
    for key in dict.fromkeys((STATE, ACTION, SCENE, *_wide(dataset))):
        column = dataset.columns.get(key)
        if column is None:
            continue
        wide = column.shape[1] > WIDE
        for i in range(1 if wide else column.shape[1]):
            names, units = ((), ()) if wide else _named(dataset, key)
            title = (
                f"{key}: all {counted(column.shape[1], 'number')}"
                if wide
                else f"{key}: {_with_unit(names[i], units[i])}"
            )

            def plot(axes: Axes, dataset: Dataset, key=key, i=slice(None) if wide else i, title=title):
                values = dataset.columns[key][:, i]
                values = values[np.isfinite(values)].astype(np.float64)
                counts, edges = np.histogram(values, bins=60)
                axes.stairs(counts, edges, fill=True, color=ACCENT if key == ACTION else INK)
                axes.set_title(title, parse_math=False)
                _name(axes, "", "frames")

            yield plot


def _named(dataset: Dataset, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    body = dataset.embodiment
    named = {STATE: (body.state, body.state_units), ACTION: (body.action, body.action_units)}
    return (named | {SCENE: (body.scene, body.scene_units)})[key]


def _with_unit(name: str, unit: str) -> str:
    return name + {"": "", "1": "", "?": " (unit ?)"}.get(unit, f", {unit}")


def _name(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=7, labelpad=1, parse_math=False)
    axes.set_ylabel(y, fontsize=7, labelpad=1, parse_math=False)


def _wide(dataset: Dataset) -> list[str]:
    """Columns of many numbers that are neither actions, states nor scene."""
    return [key for key, one in dataset.columns.items() if one.shape[1] > WIDE and key not in (STATE, ACTION, SCENE)]


def _left_out(dataset: Dataset, looks: Sequence[Look]) -> Iterator[str]:
    """What the sheet does not show, in words."""
    drawn = {STATE, ACTION, SCENE, REWARD, TIME, "task_index", *_wide(dataset)}
    columns = [key for key in dataset.columns if key not in drawn]
    if columns:
        yield f"not drawn: {counted(len(columns), 'column')}, {', '.join(columns)}"
    for one in looks:
        if one.strip is None:
            yield f"not drawn: camera {one.camera}: {one.note}"
    for key in (STATE, ACTION):
        width = dataset.columns[key].shape[1] if key in dataset.columns else 0
        if width > WIDE:
            yield f"{key} over time: {WIDE} of its {width} numbers are drawn"


def strip_of_numbers(one: StoredPicture) -> np.ndarray:
    """Some of the pictures side by side, uint8 (h, w, 3)."""
    frames = one.shown[..., None] if one.shown.ndim == 3 else one.shown
    frames = np.moveaxis(frames, 1, -1) if frames.shape[1] <= 4 < frames.shape[-1] else frames
    colours = frames[..., :3] if frames.shape[-1] >= 3 else np.repeat(frames[..., :1], 3, -1)
    return np.concatenate(list(colours), axis=1)
