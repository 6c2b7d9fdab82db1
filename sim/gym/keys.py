"""Which parts of a Gymnasium observation are our keys: the small grammar of `keys` in a world of type `gym`.

`KEY`, `KEY[a:b]`, `a/b` in nested dicts, `[a:b]` of a flat Box, several joined by " + ", and `render` for a camera.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...configs.spec import IMAGES, SCENE, STATE

if TYPE_CHECKING:
    import gymnasium


RENDER = "render"  # source of a camera that is the environment's own picture
_PART = re.compile(r"([^\[\]]*)(?:\[(-?\d*):(-?\d*)\])?")


class GymWorldError(ValueError):
    """The YAML and the environment do not fit; the message says what the environment has."""


def sources(
    keys: Mapping[str, str], cameras: Iterable[str], name: str, space: gymnasium.Space
) -> dict[str, list[tuple[str, slice]]]:
    """Our key -> the parts of the environment's observation that it is made of."""
    # what is not said: the whole of a flat Box, or Gymnasium's own names for goals
    keys = dict(keys)
    if not any(key in (STATE, SCENE) for key in keys):
        inside = getattr(space, "spaces", None)
        if inside is None and len(space.shape) == 1:
            keys[STATE] = "[:]"
        elif inside is not None and "observation" in inside:
            keys |= {STATE: "observation"} | ({SCENE: "desired_goal"} if "desired_goal" in inside else {})
        elif not keys:
            raise GymWorldError(f"keys: say which parts of the observation of '{name}' are ours. {_holds(space)}")

    # pictures: of the cameras asked for alone
    pictures = {IMAGES + camera: keys.get(IMAGES + camera, RENDER) for camera in cameras}
    keys = {key: text for key, text in keys.items() if not key.startswith(IMAGES)} | pictures

    parts_of = {key: _parts(text) for key, text in keys.items()}
    for key, parts in parts_of.items():
        for path, _ in parts:
            if path != RENDER or not key.startswith(IMAGES):
                _find(space, path, key)
    return parts_of


def _parts(text: str) -> list[tuple[str, slice]]:
    """The parts that " + " joins."""
    return [_parse(part) for part in text.split(" + ")]


def _parse(text: str) -> tuple[str, slice]:
    """`a/b[0:3]` as ("a/b", slice(0, 3))."""
    match = _PART.fullmatch(text.strip())
    if match is None:
        raise GymWorldError(f"keys: '{text}' is not KEY, KEY[a:b] or [a:b]")
    path, first, last = match.groups()
    return path, slice(int(first) if first else None, int(last) if last else None)


def _find(space: gymnasium.Space, path: str, key: str) -> gymnasium.Space:
    """The Box at `path`; `key` is whose it is, for the error."""
    box = space
    for part in filter(None, path.split("/")):
        inside = getattr(box, "spaces", {})
        if part not in inside:
            raise GymWorldError(f"keys: '{key}' asks for '{path}'. {_holds(space)}")
        box = inside[part]
    if type(box).__name__ != "Box":
        raise GymWorldError(f"keys: '{key}' asks for '{path}', which is no Box but {box}")
    return box


def _holds(space: gymnasium.Space) -> str:
    inside = getattr(space, "spaces", None)
    shapes = ", ".join(f"{key} {box.shape}" for key, box in inside.items()) if inside else f"a {space}"
    return f"The observation holds {shapes}"


def numbers(space: gymnasium.Space, parts: list[tuple[str, slice]]) -> list[str]:
    """A name for each number of some parts."""
    names = []
    for path, part in parts:
        indices = range(int(np.prod(_find(space, path, "").shape)))[part]
        names += [f"{path.rsplit('/', 1)[-1] or 'observation'}.{index}" for index in indices]
    return names


def walk(obs, path: str) -> np.ndarray:
    for part in filter(None, path.split("/")):
        obs = obs[part]
    return np.asarray(obs)


def take(obs, part: tuple[str, slice]) -> np.ndarray:
    return walk(obs, part[0]).ravel()[part[1]]
