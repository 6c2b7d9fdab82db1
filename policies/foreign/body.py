"""Who a lerobot policy acts for: a checkpoint says how many numbers, never what they are called or measured in.

In this order: a file that the user names, `embodiment.json` beside the weights, the card or the features of the dataset
that `train_config.json` names (where it lies on this disk), else a guess: names by position, unit "?". A guess may take
over the body of a world with as many numbers (`by_position`); nothing then says that they mean the same, so it warns.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...configs.spec import ACTION, IMAGES, MEANINGS, SCENE, STATE, UNKNOWN, UNKNOWN_UNIT, Embodiment, EmbodimentError
from ..data.embody import CARD, over, read_card
from ..data.layout import DatasetError
from .folder import Foreign, read_json
from .scale import ForeignError, ForeignWarning, renames_of

PICTURE = "observation.image"  # lerobot's name of a lone camera
EMPTY = IMAGES + "empty_camera_"  # of vision-language policies whose model saw more cameras than the robot has
BY_POSITION = "by position from"  # a source: numbers are taken for those of a world, as many as there are
FIELDS = tuple(field.name for field in dataclasses.fields(Embodiment))


@dataclass(frozen=True)
class Body:
    """Who acts, and where a policy's observations come from."""

    embodiment: Embodiment
    keys: dict[str, str]  # our observation key -> the policy's
    source: str  # who says so: a path, or "guess"

    @property
    def guessed(self) -> bool:
        return self.source == "guess"

    @property
    def stated(self) -> bool:
        """Whether somebody said what the numbers mean."""
        return not self.guessed and not self.source.startswith(BY_POSITION)


@runtime_checkable
class Settled(Protocol):
    """A policy of a checkpoint that can be made to act for another body."""

    foreign: Foreign
    body: Body

    @abstractmethod
    def adopt(self, body: Body) -> None:
        """Act for this body from now on."""
        ...


def body_of(foreign: Foreign, given: str | Path | Embodiment | None = None) -> Body:
    """The body of a checkpoint.

    Args:
        given: a YAML or JSON file of an embodiment, whole or in part (over the guess), or the embodiment itself.
    Raises:
        EmbodimentError: a card whose numbers of names differ from the checkpoint's shapes.
        ForeignError: an observation that no embodiment can offer, or a file that cannot be read.
    """
    keys, guess = _keys(foreign), _guess(foreign)
    if isinstance(given, Embodiment):
        return Body(_fitting(foreign, given, "what was given"), keys, "given")
    path = Path(os.path.expandvars(given)) if given else foreign.folder / "embodiment.json"
    if path.is_file():
        return Body(_fitting(foreign, _read(path, guess), str(path)), keys, str(path))
    if given:
        raise ForeignError(f"no embodiment at {path}; give a YAML or JSON file that says any of {', '.join(FIELDS)}")
    if found := _of_dataset(foreign, guess):
        body, path = found
        return Body(_fitting(foreign, body, str(path)), keys, str(path))
    return Body(Embodiment.from_dict(guess), keys, "guess")


def by_position(foreign: Foreign, body: Body, world: Embodiment) -> Body:
    """The world's body for a policy whose own is a guess: numbers match by position, a lone camera by being alone.

    Raises:
        EmbodimentError: another number of dimensions, or cameras that cannot be told apart.
    """
    _fitting(foreign, world, f"'{world.name}'")
    pictures = {key: own for key, own in body.keys.items() if key.startswith(IMAGES)}
    offered = [IMAGES + name for name in world.cameras]
    keys = dict(body.keys)
    missing = [key for key in pictures if key not in offered]
    if missing and len(pictures) == len(offered) == 1:
        keys = {key: own for key, own in keys.items() if key not in pictures} | {offered[0]: pictures[missing[0]]}
    elif missing and not offered:  # its cameras are opened where it has them; who compares both refuses others
        world = world.with_cameras({key.removeprefix(IMAGES): _sizes(foreign, pictures)[key] for key in pictures})
    elif missing:
        raise EmbodimentError(
            f"the policy looks through '{missing[0].removeprefix(IMAGES)}', '{world.name}' offers"
            f" {', '.join(world.cameras) or 'no camera'}; name the world's cameras so (cameras: of its YAML)"
        )
    warnings.warn(
        f"nothing says who {foreign.folder} acts for; its numbers are taken by position for those of '{world.name}'."
        " Give --embodiment, or put embodiment.json beside config.json",
        ForeignWarning,
        stacklevel=2,
    )
    return Body(world, keys, f"{BY_POSITION} '{world.name}'")


def _fitting(foreign: Foreign, body: Embodiment, where: str) -> Embodiment:
    """`body`, if it has as many numbers as the checkpoint; with the cameras that it does not name, as they are read."""
    keys = _keys(foreign)
    sizes = {ACTION: len(body.action), STATE: len(body.state), SCENE: len(body.scene)}
    for own, key in {ACTION: ACTION, **{own: key for key, own in keys.items()}}.items():
        if key in sizes and foreign.dims(own) != sizes[key]:
            raise EmbodimentError(
                f"'{key}' has {foreign.dims(own)} dimensions in {foreign.folder}, {where} has {sizes[key]}"
            )
    read = {key.removeprefix(IMAGES): size for key, size in _sizes(foreign, keys).items()}
    return body if read.keys() <= body.cameras.keys() else body.with_cameras(read | dict(body.cameras))


def _keys(foreign: Foreign) -> dict[str, str]:
    """Our observation key -> the policy's; features that no embodiment can offer are passed over with a warning."""
    before = {new: old for old, new in renames_of(foreign.folder).items()}
    keys = {}
    for own in foreign.config["input_features"]:
        key = before.get(own, own)
        key = IMAGES + key.removeprefix("observation.") if key == PICTURE else key
        if key.startswith(EMPTY):  # a place for a picture, which lerobot fills where there is none
            continue
        if key in (STATE, SCENE) or key.startswith(IMAGES):
            keys[key] = own
        else:
            warnings.warn(
                f"{foreign.folder}: '{own}' is no observation here; passed over", ForeignWarning, stacklevel=2
            )
    if not keys:
        raise ForeignError(f"{foreign.folder} reads no observation that a world can offer")
    return keys


def _guess(foreign: Foreign) -> dict:
    keys = _keys(foreign)
    names = {key: tuple(str(i) for i in range(foreign.dims(own))) for key, own in {**keys, ACTION: ACTION}.items()}

    cameras = {key.removeprefix(IMAGES): size for key, size in _sizes(foreign, keys).items()}

    state, scene = names.get(STATE, ()), names.get(SCENE, ())
    return {
        "name": f"{foreign.kind} of {foreign.folder.name}",
        "action": names[ACTION],
        "action_units": (UNKNOWN_UNIT,) * len(names[ACTION]),
        "limits": _limits(foreign, len(names[ACTION])),
        "rate": 1.0,
        "guessed": ("limits",),
        **dict.fromkeys(MEANINGS, UNKNOWN),
        "state": state,
        "state_units": (UNKNOWN_UNIT,) * len(state),
        "scene": scene,
        "scene_units": (UNKNOWN_UNIT,) * len(scene),
        "cameras": cameras,
    }


def _sizes(foreign: Foreign, keys: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Our key of each camera -> (height, width) of its pictures."""
    pictures = {key: own for key, own in keys.items() if key.startswith(IMAGES)}
    shapes = {key: foreign.config["input_features"][own]["shape"] for key, own in pictures.items()}
    return {key: (int(height), int(width)) for key, (_, height, width) in shapes.items()}


def _limits(foreign: Foreign, dims: int) -> tuple[tuple[float, float], ...]:
    """(min, max) of the action's statistics, else what is never reached."""
    stats = foreign.rules[ACTION].stats
    if not {"min", "max"} <= set(stats):
        return ((-1e6, 1e6),) * dims
    pairs = zip(stats["min"].tolist(), stats["max"].tolist(), strict=True)
    return tuple((low, high) if low < high else (low - 0.5, low + 0.5) for low, high in pairs)


def _of_dataset(foreign: Foreign, guess: dict) -> tuple[Embodiment, Path] | None:
    """Who recorded the training data, and the file that says so."""
    path = foreign.folder / "train_config.json"
    root = (read_json(path).get("dataset") or {}).get("root") if path.is_file() else None
    if not root:
        return None
    card = Path(root) / CARD
    if card.is_file():
        return _read(card, guess), card
    try:
        return read_card(Path(root))
    except DatasetError:  # of a format that is not read here: it says nothing
        return None


def _read(path: Path, guess: dict) -> Embodiment:
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ForeignError(f"{path} cannot be read ({error})") from error
    values = values.get("embodiment", values) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise ForeignError(f"{path} must hold the keys of an embodiment: any of {', '.join(FIELDS)}")
    strange = sorted(set(values) - set(FIELDS))
    if strange:
        raise ForeignError(f"{path} has the unknown field '{strange[0]}'. Known: {', '.join(FIELDS)}")
    return Embodiment.from_dict(over(guess, values))
