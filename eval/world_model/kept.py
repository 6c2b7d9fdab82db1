"""The true and the imagined films that a record of `eval --world-model` keeps, for `understudy judge`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ledger.foretold import FILMS, IMAGINED, TRUE, Foretold
from ..ledger.verify import digest
from .page import enlarged

if TYPE_CHECKING:
    from ...world_models.film_model import FilmModel
    from ...world_models.films import Clips

QUALITY, GROUP = 15, 8  # of h264: rate factor, and frames from one key frame to the next


def keep(
    folder: Path,
    model: FilmModel,
    cut: Clips,
    chosen: Sequence[int],
    own: Mapping[str, Sequence[bool | None]],
    about: Mapping[str, Any],
    batch: int,
    seed: int,
) -> list[dict]:
    """Write films of `cut` into `folder`/films; what a manifest says of them.

    Both kinds are written alike, so that nothing but what they show tells them apart.

    Args:
        chosen: which of `cut`, ascending.
        own: kind -> verdict of the model's own judge on each of `cut`.
        about: `rate`, Hz, and `episodes`, the dataset's number of each position.
        batch, seed: as the films were measured, so that the same ones are imagined.
    """
    from ...policies.data.encode import write_mp4

    entries = []
    for at, imagined in _imagined(model, cut, chosen, batch, seed):
        for number in (number for number in chosen if at <= number < at + batch):
            for kind, frames in ((TRUE, cut.pictures[number].numpy()), (IMAGINED, imagined[number - at])):
                name = f"{FILMS}/{number:04d}-{kind}.mp4"
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                write_mp4(path, [_even(enlarged(one)) for one in frames], about["rate"], QUALITY, GROUP)
                film = Foretold(
                    number=number,
                    kind=kind,
                    file=name,
                    sha256=digest(path),
                    episode=int(about["episodes"][cut.episode[number]]),
                    first=int(cut.first[number]),
                    success=recorded_success(cut.outcome[number, :, 0], cut.known[number, :, 0]),
                    own=own[kind][number],
                )
                entries.append(asdict(film))
    return entries


def recorded_success(outcome: np.ndarray, known: np.ndarray) -> bool | None:
    """Whether a recorded film shows success at any of its frames (T + 1,); None where that is not known.

    An outcome is one of a step, so none is recorded with the first frame of an episode, which shows no success.
    """
    if (outcome[known] > 0.5).any():
        return True
    return False if known[1:].all() else None


def _imagined(
    model: FilmModel, cut: Clips, chosen: Sequence[int], batch: int, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(place of its first film, pictures (B, T + 1, cameras, h, w, 3)) of every batch that holds a chosen film."""
    from ...world_models.films import filmed, part

    for at in sorted({number // batch * batch for number in chosen}):
        some = part(cut, slice(at, at + batch))
        steps = range(1, cut.steps + 1)
        told = filmed(model, some.pictures[:, 0], some.actions, steps, seed + at, some.joints())
        later = [pictures.cpu().numpy() for _, _, pictures in told]
        yield at, np.stack([some.pictures[:, 0].numpy(), *later], 1)


def _even(picture: np.ndarray) -> np.ndarray:
    return picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2]
