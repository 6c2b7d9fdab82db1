"""One PNG with a picture of every task: its first reporting env seed, its name and what its expert reaches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...configs.progress import Progress
from ...configs.spec import IMAGES
from ...configs.world import REPORT_STARTS, World

SIDE, CAPTION, COLUMNS = 256, 44, 4  # px, px, pictures in a row
WHOLE, WIDE = "frontview", 768  # robosuite's camera that shows the whole robot, small; px drawn of it
INK, PAPER, FAINT = (30, 30, 30), 248, (120, 120, 120)


def write_sheet(path: Path, worlds: Mapping[str, World], captions: Mapping[str, str]) -> dict[str, str]:
    """Draw each world as it begins and write the sheet; the format is that of the file name (png, jpg).

    Returns:
        name -> why it could not be drawn; such a task has an empty picture.

    Raises:
        ValueError: no world, or a file name whose format is unknown.
    """
    import cv2

    if not worlds:
        raise ValueError("there is no task to draw")
    if not cv2.haveImageWriter(str(path)):
        raise ValueError(f"'{path}' is no picture's name; end it in .png or .jpg")
    tiles, failed = [], {}
    with Progress("drawing", len(worlds), "tasks") as progress:
        for name, world in worlds.items():
            try:
                picture = first_picture(world)
            except Exception as error:  # whatever a simulator raises leaves the other tasks alone
                picture, failed[name] = None, f"{type(error).__name__}: {error}"
            tiles.append(_tile(picture, name, captions.get(name, "")))
            progress.update(len(tiles), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), _grid(tiles)[:, :, ::-1]):
        raise OSError(f"'{path}' could not be written")
    return failed


def first_picture(world: World) -> np.ndarray:
    """(h, w, 3) uint8 RGB of the first reporting env seed: the whole robot, or else as films show it."""
    whole = WHOLE if WHOLE in world.views() else None
    lane = (dataclasses.replace(world, cameras={WHOLE: (WIDE, WIDE)}) if whole else world).lane()
    try:
        obs, _ = lane.reset(seed=REPORT_STARTS)
        return _middle(obs[IMAGES + whole]) if whole else np.asarray(lane.render())
    finally:
        lane.close()


def _middle(picture: np.ndarray) -> np.ndarray:
    """The part of a picture of `WHOLE` in which robot and table are: its middle, from near the top on."""
    left = (WIDE - 2 * SIDE) // 2
    top = left // 3
    return picture[top : top + 2 * SIDE, left : left + 2 * SIDE]


def _tile(picture: np.ndarray | None, name: str, caption: str) -> np.ndarray:
    import cv2

    tile = np.full((SIDE + CAPTION, SIDE, 3), PAPER, np.uint8)
    if picture is None:
        cv2.putText(tile, "no picture", (SIDE // 3, SIDE // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, FAINT, 1, cv2.LINE_AA)
    else:
        height, width = (max(1, round(side * SIDE / max(picture.shape[:2]))) for side in picture.shape[:2])
        small = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        tile[top : top + height, left : left + width] = small
    for line, (text, scale, colour) in enumerate(((name, 0.5, INK), (caption, 0.38, FAINT))):
        cv2.putText(tile, text, (6, SIDE + 17 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return tile


def _grid(tiles: list[np.ndarray]) -> np.ndarray:
    columns = min(COLUMNS, len(tiles))
    tiles = tiles + [np.full_like(tiles[0], PAPER)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[first : first + columns], 1) for first in range(0, len(tiles), columns)]
    return np.concatenate(rows)
