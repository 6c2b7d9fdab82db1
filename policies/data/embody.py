"""Who recorded a dataset: its card `meta/embodiment.json`, else what its features say, else a file, else a guess.

`info.json` says the same as the card inside the features of action, state and scene, for lerobot's edit tools (delete,
split, merge) keep features whole and drop the card. The file is what the user names for a dataset that says nothing.

A guess takes names from the features, "?" for every unit, mode, frame and rotation, and the limits from
the data; it is good for looking and for training, never for moving an arm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ...configs.spec import (
    ACTION,
    IMAGES,
    MEANINGS,
    SCENE,
    STATE,
    UNKNOWN,
    UNKNOWN_UNIT,
    AssumedWarning,
    Embodiment,
    EmbodimentError,
    Mode,
    unnamed,
)
from .layout import PICTURES, DatasetError, Layout, expand_path, is_depth, read_info

CARD = "meta/embodiment.json"
CHANNELS = (1, 2, 3, 4)  # of a picture: grey, colours, each with alpha or without


def camera_features(layout: Layout) -> dict[str, str]:
    """Camera name -> feature key; a lone `observation.image` is the camera "image"."""
    return {camera_name(key): key for key in layout.cameras}


def camera_name(key: str) -> str:
    """The camera that a feature is of."""
    return key.removeprefix(IMAGES).removeprefix("observation.")


def picture_size(feature: dict) -> tuple[int, int]:
    """(height, width) of a camera feature, whichever order its shape has; one without channels is a picture, too.

    Raises:
        DatasetError: a shape that no picture has.
    """
    shape = feature.get("shape")
    sizes = [int(n) for n in shape if n == int(n) > 0] if _numeric(shape) else []
    if len(sizes) not in (2, 3) or len(sizes) != len(shape or ()):
        raise DatasetError(
            f"meta/info.json gives a camera the shape {shape}, which no picture has; correct it to [height, width,"
            " channels]"
        )
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    a, b, c = sizes
    return (b, c) if a in CHANNELS and c not in CHANNELS else (a, b)


def picture_sizes(features: dict[str, dict]) -> dict[str, tuple[int, int]]:
    """Camera name -> (height, width) of camera features; those whose shape no picture has are left out."""
    sizes = {}
    for key, feature in features.items():
        with contextlib.suppress(DatasetError):
            sizes[camera_name(key)] = picture_size(feature)
    return sizes


def _numeric(shape: object) -> TypeGuard[list[float]]:
    return isinstance(shape, (list, tuple)) and all(type(n) in (int, float) and np.isfinite(n) for n in shape)


def dimension_names(feature: dict) -> tuple[str, ...]:
    """One name a dimension; lerobot nests them in lists or dicts, or gives none."""
    count = int(np.prod(feature.get("shape") or (1,)))
    flat = tuple(_flat(feature.get("names")))
    return flat if len(flat) == count and len(set(flat)) == count else tuple(f"{i}" for i in range(count))


def about_features(body: Embodiment) -> dict[str, dict]:
    """What `info.json` says of a body inside its features, beside shape and names; `stated_body` reads it."""
    action = {
        "units": list(body.action_units),
        "limits": [list(pair) for pair in body.limits],
        "mode": body.mode.value,
        "frame": body.frame,
        "rotation": body.rotation,
    }
    return {ACTION: action, STATE: {"units": list(body.state_units)}, SCENE: {"units": list(body.scene_units)}}


def stated_body(features: dict[str, dict], name: str, rate: float) -> Embodiment | None:
    """The body that the features of a dataset state; None where they do not.

    Raises:
        ValueError: as many units or limits as dimensions are not there.
    """
    action = features.get(ACTION) or {}
    if not isinstance(action.get("units"), list) or not isinstance(action.get("limits"), list):
        return None
    names = {key: dimension_names(features[key]) if key in features else () for key in (ACTION, STATE, SCENE)}
    units = {key: (features.get(key) or {}).get("units") or [UNKNOWN_UNIT] * len(found) for key, found in names.items()}
    colours = {key: one for key, one in features.items() if one.get("dtype") in PICTURES and not is_depth(one)}
    return Embodiment.from_dict(
        dict.fromkeys(MEANINGS, UNKNOWN)
        | {key: action[key] for key in ("limits", *MEANINGS) if key in action}
        | {"name": name, "rate": rate, "action": names[ACTION], "action_units": units[ACTION]}
        | {"state": names[STATE], "state_units": units[STATE], "scene": names[SCENE], "scene_units": units[SCENE]}
        | {"cameras": picture_sizes(colours)}
    )


def read_card(root: Path) -> tuple[Embodiment, Path] | None:
    """Who recorded the dataset in a folder, and the file that says so; None where none does.

    Raises:
        EmbodimentError, ValueError: a file that makes no embodiment.
        DatasetError: `info.json` cannot be read.
    """
    card = root / CARD
    if card.is_file():
        return Embodiment.load(card), card
    path = root / "meta" / "info.json"
    if not path.is_file():
        return None
    info = read_info(root)
    try:
        body = stated_body(info["features"], str(info.get("robot_type") or root.name), float(info["fps"]))
    except ValueError as error:
        raise EmbodimentError(f"{path}: {error}; correct `units` and `limits` there, or remove both") from error
    return None if body is None else (body, path)


def embodiment_of(layout: Layout, columns: dict[str, np.ndarray], file: str | Path | None) -> Embodiment:
    """The dataset's own card if it has one, completed by a file that must agree; else the file over the guess.

    Raises:
        DatasetError: a card or file that does not fit the data.
    """
    try:
        card = read_card(layout.root)
        if card is not None:
            found = _of_sources(card[0], layout, columns)
            if file is not None:
                told = read_embodiment(file)
                found = _named(found, told)
                _agree(over(_guess(layout, columns), told), found)
                found = _completed(found, told)
        else:
            found = Embodiment.from_dict(over(_guess(layout, columns), read_embodiment(file) if file else {}))
    except (EmbodimentError, ValueError) as error:
        raise DatasetError(f"embodiment of {layout.root}: {error}") from error
    for key, names in ((ACTION, found.action), (STATE, found.state), (SCENE, found.scene)):
        if key in columns and columns[key].shape[1] != len(names):
            raise DatasetError(
                f"'{key}' of {layout.root} has {columns[key].shape[1]} dimensions, its embodiment '{found.name}' names"
                f" {len(names)}; give a fitting one with --embodiment or correct {CARD}"
            )
    return found


def _of_sources(card: Embodiment, layout: Layout, columns: dict[str, np.ndarray]) -> Embodiment:
    """A card, with what the dataset's columns were joined into in place of what it says of these columns."""
    fields = {ACTION: "action", STATE: "state", SCENE: "scene"}
    changed: dict[str, Any] = {}
    for key in (key for key in layout.sources if key in fields):
        guess, feature, field = _guess(layout, columns), layout.features[key], fields[key]
        if guess[field] == getattr(card, field):
            continue
        changed |= {field: guess[field], f"{field}_units": tuple(feature.get("units") or guess[f"{field}_units"])}
        if key == ACTION:
            changed |= {name: guess[name] for name in ("limits", "guessed")}
            changed |= {"mode": Mode.unknown, "frame": UNKNOWN, "rotation": UNKNOWN}
    return dataclasses.replace(card, **changed)


def _named(card: Embodiment, told: dict) -> Embodiment:
    """A card whose numbers are only counted, with the names that a file gives them."""
    names = {key: told[key] for key in ("action", "state", "scene") if key in told and unnamed(getattr(card, key))}
    fit: dict[str, Any] = {
        key: tuple(map(str, one)) for key, one in names.items() if len(one) == len(getattr(card, key))
    }
    return dataclasses.replace(card, **fit)


def _completed(card: Embodiment, told: dict) -> Embodiment:
    """A card with what a file tells of what the card does not state."""
    parsed = Embodiment.from_dict(dataclasses.asdict(card) | told)
    changed: dict[str, Any] = {
        key: getattr(parsed, key) for key in ("rate", "limits", *MEANINGS) if key in told and not card.states(key)
    }
    for key in ("action_units", "state_units", "scene_units"):
        pairs = zip(getattr(card, key), getattr(parsed, key), strict=True)
        changed[key] = tuple(theirs if ours == UNKNOWN_UNIT else ours for ours, theirs in pairs)
    left = tuple(one for one in card.guessed if one not in told)
    return dataclasses.replace(card, **changed, guessed=left)


def _agree(told: dict, card: Embodiment) -> None:
    """Refuse a file that contradicts the card; in what it leaves out it says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumedWarning)
        Embodiment.from_dict(told).check(card)


def _guess(layout: Layout, columns: dict[str, np.ndarray]) -> dict:
    features = layout.features
    names = {key: dimension_names(features[key]) if key in features else () for key in (ACTION, STATE, SCENE)}
    action = columns.get(ACTION, np.zeros((1, len(names[ACTION])), np.float32))
    limits = [_wide(column[np.isfinite(column)]) for column in action.T]
    cameras = picture_sizes({key: features[key] for key in layout.cameras})
    unknown = {key: (UNKNOWN_UNIT,) * len(found) for key, found in names.items()}
    return {
        "name": layout.root.name,
        "action": names[ACTION],
        "action_units": unknown[ACTION],
        "limits": tuple(limits),
        "rate": layout.rate,
        "guessed": ("limits",),
        **dict.fromkeys(MEANINGS, UNKNOWN),
        "state": names[STATE],
        "state_units": unknown[STATE],
        "scene": names[SCENE],
        "scene_units": unknown[SCENE],
        "cameras": cameras,
    }


def over(guess: dict, told: dict) -> dict:
    """Fields of an embodiment: what a file tells, over the guess."""
    guessed = tuple(name for name in guess.get("guessed", ()) if name not in told)
    return guess | {"guessed": guessed} | told


def _wide(values: np.ndarray) -> tuple[float, float]:
    """(min, max) of the data; a constant gets half a unit to each side."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return (low, high) if high - low > 1e-6 * max(1.0, abs(low)) else (low - 0.5, high + 0.5)


def read_embodiment(path: str | Path) -> dict:
    """Fields of an embodiment in a YAML or JSON file. Raises DatasetError."""
    import yaml

    path = expand_path(path)
    if not path.is_file():
        raise DatasetError(
            f"the embodiment file {path} does not exist; write one (docs/data.md shows it) or leave it out"
        )
    values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise DatasetError(f"the embodiment file {path} must hold names and values, such as `action_units: [px, px]`")
    values = values.get("embodiment", values)
    strange = sorted(set(values) - {field.name for field in dataclasses.fields(Embodiment)})
    if strange:
        raise DatasetError(
            f"the embodiment file {path} has the unknown field '{strange[0]}'; docs/data.md shows a file"
        )
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
