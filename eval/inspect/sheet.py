"""One sheet of pictures about a dataset: lengths, histograms, trajectories and a strip of each camera."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.episode import REWARD
from ...configs.spec import ACTION, STATE
from ...policies.data.dataset import Dataset
from ...policies.data.decode import decode_episodes
from ...policies.data.embody import picture_size
from ...policies.data.frames import episodes_with_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4  # plots a row
SHOWN = 10  # dimensions drawn of a column
STRIP = 8  # frames of a picture strip
TALL = 120  # height of these frames, px
INK, ACCENT = "#31465a", "#c8553d"


def draw_sheet(dataset: Dataset, path: Path) -> None:
    """Write the sheet as PNG, SVG or PDF, by the ending of `path`."""
    from matplotlib.figure import Figure

    outcome = [_outcome] if REWARD in dataset.columns else []
    plots = [_lengths, *outcome, *_trajectories(dataset), *_histograms(dataset)]
    strips = [(name, _strip(dataset, name)) for name in dataset.cameras]
    strips = [(name, strip) for name, strip in strips if strip is not None]
    rows = -(-len(plots) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * rows + 1.6 * len(strips)), layout="constrained")
    grid = figure.add_gridspec(rows + len(strips), COLUMNS, height_ratios=[2.6] * rows + [1.6] * len(strips))
    for i, plot in enumerate(plots):
        axes = figure.add_subplot(grid[divmod(i, COLUMNS)])
        plot(axes, dataset)
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=7)
    for i, (name, strip) in enumerate(strips):
        axes = figure.add_subplot(grid[rows + i, :])
        axes.imshow(strip)
        axes.set_title(f"camera {name}", fontsize=9)
        axes.axis("off")
    figure.suptitle(
        f"{dataset.root.name}: {len(dataset.lengths)} episodes, {len(dataset)} frames at {dataset.rate:g} Hz"
    )
    figure.savefig(path, dpi=90)


def _lengths(axes: Axes, dataset: Dataset) -> None:
    axes.hist(dataset.lengths / dataset.rate, bins=30, color=INK)
    axes.set_title("length of the episodes, s")


def _outcome(axes: Axes, dataset: Dataset) -> None:
    best = np.maximum.reduceat(dataset.columns[REWARD][:, 0], dataset.starts)
    axes.hist(best[np.isfinite(best)], bins=30, color=ACCENT)
    axes.set_title("best reward of the episodes")


def _trajectories(dataset: Dataset):
    """State and action over time in a few episodes; for two dimensions the path in the plane."""
    few = np.unique(np.linspace(0, len(dataset.lengths) - 1, 12).astype(int))
    for key in (STATE, ACTION):
        if key not in dataset.columns:
            continue

        def plot(axes: Axes, dataset: Dataset, key=key):
            values = dataset.columns[key]
            parts = [values[dataset.starts[m] : dataset.starts[m] + dataset.lengths[m]] for m in few]
            if values.shape[1] == 2:
                for part in parts:
                    axes.plot(*part.T, lw=0.7)
                axes.set_title(f"{key}: paths of {len(few)} episodes")
            else:
                axes.plot(np.arange(len(parts[0])) / dataset.rate, parts[0], lw=0.7)
                axes.set_title(f"{key} of episode {dataset.episode_ids[few[0]]}, s")

        yield plot


def _histograms(dataset: Dataset):
    names = {ACTION: (dataset.embodiment.action, dataset.embodiment.action_units)}
    names[STATE] = (dataset.embodiment.state, dataset.embodiment.state_units)
    for key in (STATE, ACTION):
        column = dataset.columns.get(key)
        for i in range(0 if column is None else min(SHOWN, column.shape[1])):

            def plot(axes: Axes, dataset: Dataset, key=key, i=i):
                values = dataset.columns[key][:, i]
                axes.hist(values[np.isfinite(values)], bins=60, color=ACCENT if key == ACTION else INK)
                axes.set_title(f"{key}: {names[key][0][i]}, {names[key][1][i]}")

            yield plot


def _strip(dataset: Dataset, camera: str) -> np.ndarray | None:
    """Frames of the first episode with pictures, side by side; None if no episode has any."""
    there = episodes_with_pictures(dataset, camera)
    if not len(there):
        return None
    key = dataset.camera(camera)
    height, width = picture_size(dataset.features[key])
    entry = dataset.layout.entries[there[0]]
    places = set(np.linspace(0, entry.length - 1, STRIP).astype(int).tolist())
    size = (TALL, max(1, round(width * TALL / height)))
    for _, pictures in decode_episodes(dataset.layout, key, [entry], size):
        return np.concatenate([picture for i, picture in enumerate(pictures) if i in places], axis=1)
