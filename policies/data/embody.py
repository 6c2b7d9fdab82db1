"""Who recorded a dataset: `meta/embodiment.json`, else a piece that the user names, else a guess from the features.

A guess takes names from the features, "?" for every unit and the limits from the data; it is good for looking and for
training, never for moving an arm.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ...configs.spec import ACTION, IMAGES, SCENE, STATE, UNKNOWN_UNIT, Embodiment, EmbodimentError
from .layout import PICTURES, DatasetError, Layout, expand_path

CARD = "meta/embodiment.json"


def camera_features(layout: Layout) -> dict[str, str]:
    """Camera name -> feature key; a lone `observation.image` is the camera "image"."""
    return {key.removeprefix(IMAGES).removeprefix("observation."): key for key in layout.of_kind(*PICTURES)}


def picture_size(feature: dict) -> tuple[int, int]:
    """(height, width) of a camera feature, whichever order its shape has."""
    a, b, c = feature["shape"]
    return (b, c) if a in (1, 3) and c not in (1, 3) else (a, b)


def dimension_names(feature: dict) -> tuple[str, ...]:
    """One name a dimension; lerobot nests them in lists or dicts, or gives none."""
    count = int(np.prod(feature.get("shape") or (1,)))
    flat = tuple(_flat(feature.get("names")))
    return flat if len(flat) == count and len(set(flat)) == count else tuple(f"{i}" for i in range(count))


def embodiment_of(layout: Layout, columns: dict[str, np.ndarray], piece: str | Path | None) -> Embodiment:
    """The dataset's own card if it has one (a piece must then agree), else the piece over the guess.

    Raises:
        DatasetError: a card or piece that does not fit the data.
    """
    card = layout.root / CARD
    try:
        if card.is_file():
            found = Embodiment.load(card)
            if piece is not None:
                Embodiment.from_dict(_guess(layout, columns) | _read_piece(piece)).check(found)
        else:
            found = Embodiment.from_dict(_guess(layout, columns) | (_read_piece(piece) if piece else {}))
    except (EmbodimentError, ValueError) as error:
        raise DatasetError(f"embodiment of {layout.root}: {error}") from error
    for key, names in ((ACTION, found.action), (STATE, found.state), (SCENE, found.scene)):
        if key in columns and columns[key].shape[1] != len(names):
            raise DatasetError(
                f"'{key}' of {layout.root} has {columns[key].shape[1]} dimensions, its embodiment '{found.name}' names"
                f" {len(names)}; give a fitting one with --embodiment or correct {CARD}"
            )
    return found


def _guess(layout: Layout, columns: dict[str, np.ndarray]) -> dict:
    features = layout.features
    names = {key: dimension_names(features[key]) if key in features else () for key in (ACTION, STATE, SCENE)}
    action = columns.get(ACTION, np.zeros((1, len(names[ACTION])), np.float32))
    limits = [_wide(column[np.isfinite(column)]) for column in action.T]
    cameras = {name: picture_size(features[key]) for name, key in camera_features(layout).items()}
    unknown = {key: (UNKNOWN_UNIT,) * len(found) for key, found in names.items()}
    return {
        "name": layout.root.name,
        "action": names[ACTION],
        "action_units": unknown[ACTION],
        "limits": tuple(limits),
        "rate": layout.rate,
        "state": names[STATE],
        "state_units": unknown[STATE],
        "scene": names[SCENE],
        "scene_units": unknown[SCENE],
        "cameras": cameras,
    }


def _wide(values: np.ndarray) -> tuple[float, float]:
    """(min, max) of the data; a constant gets half a unit to each side."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return (low, high) if high - low > 1e-6 * max(1.0, abs(low)) else (low - 0.5, high + 0.5)


def _read_piece(path: str | Path) -> dict:
    import yaml

    path = expand_path(path)
    if not path.is_file():
        raise DatasetError(f"the embodiment piece {path} does not exist; write one in configs/pieces/ or leave it out")
    values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise DatasetError(f"the embodiment piece {path} must hold names and values, such as `action_units: [px, px]`")
    values = values.get("embodiment", values)
    strange = sorted(set(values) - {field.name for field in dataclasses.fields(Embodiment)})
    if strange:
        raise DatasetError(f"the embodiment piece {path} has the unknown field '{strange[0]}'; see configs/spec.py")
    return values


def _flat(names):
    if isinstance(names, dict):
        lists = [value for value in names.values() if isinstance(value, (list, tuple))]
        names = [*lists] if lists else [*names]
    for name in names or ():
        if isinstance(name, (list, tuple, dict)):
            yield from _flat(name)
        else:
            yield str(name)
