"""`report.html` of a measured world model: numbers over the horizon, true and imagined films side by side."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...world_models.gate import passes
from ..ledger.origin import on_lines, origin
from ..pages.charts import Line, chart
from ..pages.gallery import data_uri
from ..pages.page import page
from .measures import LABELS, failure_lines, judge_lines, remarks, success_lines, verdict

if TYPE_CHECKING:
    from ...world_models.film_model import FilmModel
    from ...world_models.films import Clips

SIDE = 192  # px, the least height of a shown picture
STYLES = {"psnr true": "a", "copy psnr": "soft", "codec psnr": "c", "psnr shuffled": "failure"}


def render(about: dict, model: FilmModel, cut: Clips) -> str:
    """The HTML text of the page."""
    from markupsafe import Markup

    measures = about["measures"]
    date, commit = origin(about)
    seconds = [step / about["data"]["rate"] for step in measures["steps"]]
    return page(
        "world_model.html",
        title=f"{about['world_model']['path'].rpartition('/checkpoints')[0] or about['world_model']['path']}",
        about=about,
        measures=measures,
        labels=LABELS,
        judge=judge_lines(measures["judge"]),
        success=success_lines(about),
        failures=failure_lines(about),
        verdict=verdict(about),
        open=passes(measures["following"]),
        remarks=remarks(about),
        psnr=Markup(_chart(measures, seconds)),
        states=Markup(_states(measures, seconds)),
        films=list(films(model, cut, about["data"]["rate"])),
        date=date,
        commit=commit,
        command=on_lines(shlex.join(shlex.split(f"{about['command']} --out out/again"))),
    )


def _chart(measures: dict, seconds: list[float]) -> str:
    lines = []
    for name, style in STYLES.items():
        values = measures["by_step"][name]
        banded = all(np.isfinite(value[0]) for value in values)
        low, high = ([value[i] for value in values] if banded else None for i in (0, 2))
        lines.append(Line(seconds, [value[1] for value in values], style, LABELS[name].strip(), low, high))
    every = [value for line in lines for value in (*line.y, *(line.low or ()), *(line.high or ()))]
    ends = (min(every) - 0.5, max(every) + 0.5)
    return chart(lines, x_label="seconds imagined", y_label="PSNR, dB", y_range=ends, title="PSNR over the horizon")


def _states(measures: dict, seconds: list[float]) -> str:
    lines = []
    for style, (key, kinds) in zip("abcd", measures["states"].items(), strict=False):
        short = key.removeprefix("observation.")
        lines.append(Line(seconds, kinds["imagined"]["relative"], style, f"{short}, imagined"))
        lines.append(Line(seconds, kinds["true"]["relative"], "soft", f"{short}, true frames"))
    if not lines:
        return ""
    top = 1.05 * max(max(line.y) for line in lines)
    return chart(
        lines, x_label="seconds imagined", y_label="error / spread", y_range=(0, top), title="states read from frames"
    )


def films(model: FilmModel, cut: Clips, rate: float) -> Iterator[dict]:
    """Each shown film: true on the left, imagined on the right, frame by frame."""
    from ...policies.data.encode import write_mp4
    from ...world_models.films import filmed

    steps = list(range(1, cut.steps + 1))
    told = filmed(model, cut.pictures[:, 0], cut.actions, steps, joints=cut.joints())
    made = [pictures.cpu() for _, _, pictures in told]
    for place in range(len(cut)):
        imagined = np.stack([cut.pictures[place, 0].numpy(), *(frames[place].numpy() for frames in made)])
        true = cut.pictures[place].numpy()
        pairs = [_beside(*both) for both in zip(true, imagined, strict=True)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "film.mp4"
            write_mp4(file, pairs, rate, quality=18, group=8)
            yield {"data": data_uri(file), "episode": int(cut.episode[place]), "first": int(cut.first[place])}


def _beside(true: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    """Pictures (cameras, h, w, 3) below each other, true left and imagined right, with a bar between; even sides."""
    left, right = enlarged(true), enlarged(imagined)
    whole: Any = np.concatenate([left, np.zeros((len(left), 4, 3), np.uint8), right], 1)
    return whole[: len(whole) // 2 * 2, : whole.shape[1] // 2 * 2]


def enlarged(pictures: np.ndarray) -> np.ndarray:
    """Pictures (cameras, h, w, 3) below each other, each at least `SIDE` high."""
    by = max(1, -(-SIDE // pictures.shape[1]))
    return np.kron(np.concatenate(list(pictures), 0), np.ones((by, by, 1), np.uint8))
