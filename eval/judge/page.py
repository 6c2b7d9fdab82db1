"""The page on which a person judges films: one after the other, without what any machine said of them.

The order is drawn by a seed, so that neither records nor outcomes follow each other; the page holds no outcome.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence

import numpy as np

from ...configs.documents import content_digest
from ...configs.progress import counted
from ..ledger.labels import FORMAT
from ..pages.page import page
from .films import Film
from .judges import PersonJudge

TEMPLATE = "judge.html"
LARGE = 200_000_000  # bytes of films in one page, beyond which browsers give up


def click_page(films: Sequence[Film], config: PersonJudge, paths: Sequence[str]) -> str:
    """The HTML text of the page.

    Args:
        paths: where the films were found, for the command that reads the verdicts back.

    Raises:
        ValueError: more films than a page holds.
    """
    order = np.random.default_rng(config.seed).permutation(len(films))
    shown = [films[place] for place in order]
    data = [one.pictures.mp4() for one in shown]
    if sum(map(len, data)) > LARGE:
        raise ValueError(
            f"{counted(len(films), 'film', 'is', 'are')} {sum(map(len, data)) / 1e6:.0f} MB, too much for a page; "
            "judge fewer"
        )
    places = [_place(one) for one in shown]
    tasks = [config.task or one.task for one in shown]
    views = [one.views if len(one.views) > 1 else () for one in shown]
    asked = {"tasks": tasks, "success": config.success, "failure": config.failure, "views": views}
    return page(
        TEMPLATE,
        count=len(films),
        success=config.success,
        failure=config.failure,
        command=shlex.join(["understudy", "judge", *paths, "--labels", "person.json"]),
        format=FORMAT,
        key=content_digest({"places": places} | asked)[:16],  # verdicts of another question are not remembered here
        films=[
            {"place": place, "task": task, "views": seen, "data": base64.b64encode(film).decode()}
            for place, task, seen, film in zip(places, tasks, views, data, strict=True)
        ],
    )


def _place(film: Film) -> dict[str, str | int]:
    record, kind, seed = film.place
    about: dict[str, str | int] = {"record": record, "name": film.name, "initial_conditions": kind, "env_seed": seed}
    return about | {"film": film.pictures.digest()}
