"""Several datasets read as one: `demos,rollouts` wherever one dataset is named. Nothing is copied.

Episodes follow each other in the order of the names and are numbered anew. Who acts must agree: names, mode, frame and
rate of the actions, and the limits where both state units (a dataset without a card only guesses them); so must names
and units of the numbers of every column. Only columns and cameras that all have, in one shape, are there.
"""

from __future__ import annotations

import dataclasses
from itertools import count
from pathlib import Path

import numpy as np

from ...configs.spec import ACTION, SCENE, STATE, UNKNOWN_UNIT, Embodiment, EmbodimentError, unnamed
from .dataset import Dataset
from .embody import dimension_names
from .layout import PICTURES, DatasetError, Entry, Layout
from .tables import file_inside

SEPARATOR = ","


def join(parts: tuple[Dataset, ...]) -> Dataset:
    """One dataset of all episodes of `parts`.

    Raises:
        DatasetError: parts that do not fit together, naming the first difference.
    """
    first = parts[0]
    body = common_body(parts)
    shared = [key for key in first.columns if all(key in part.columns for part in parts)]
    for key in shared:
        for part in parts[1:]:
            widths = [one.columns[key].shape[1] for one in (first, part)]
            if widths[0] != widths[1]:
                raise DatasetError(f"'{key}' has {widths[0]} numbers in {first.root} and {widths[1]} in {part.root}")
            if key not in (ACTION, STATE, SCENE):  # which `common_body` looked at
                check_numbers(key, first, part)
    lengths = np.concatenate([part.lengths for part in parts])
    layout = _layout(parts)
    return Dataset(
        layout=layout,
        embodiment=body,
        columns={key: np.concatenate([part.columns[key] for part in parts]) for key in shared},
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        cameras={name: key for name, key in first.cameras.items() if key in layout.features},
        parts=parts,
    )


def common_body(parts: tuple[Dataset, ...]) -> Embodiment:
    """The embodiment of the first part that states all units, else of the first.

    Raises:
        DatasetError: parts that somebody else recorded, naming the first difference.
    """
    bodies = [part.embodiment for part in parts]
    known = next((body for body in bodies if not body.unknown_units), bodies[0])
    for part, body in zip(parts, bodies, strict=True):
        guessed = body.unknown_units or known.unknown_units
        try:
            known.check(dataclasses.replace(body, limits=known.limits) if guessed and _as_wide(body, known) else body)
        except EmbodimentError as error:
            raise DatasetError(f"{part.root} and {parts[0].root} are not of one embodiment: {error}") from error
    _check_vectors(parts, known)
    if not known.unknown_units:
        return known
    low, high = np.array([body.limits for body in bodies]).transpose(2, 0, 1)
    limits = tuple(zip(low.min(0).tolist(), high.max(0).tolist(), strict=True))
    return dataclasses.replace(known, limits=limits)


def _check_vectors(parts: tuple[Dataset, ...], known: Embodiment) -> None:
    """Refuse states or scenes whose numbers are others in some parts; what one side does not state is taken as told.

    Raises:
        DatasetError: naming the first number that differs.
    """
    for part in parts:
        body = part.embodiment
        for key, what in ((STATE, "state"), (SCENE, "scene")):
            ours, theirs = ((getattr(one, what), getattr(one, f"{what}_units")) for one in (known, body))
            if (found := _other_number(ours, theirs)) is not None:
                raise DatasetError(
                    f"'{key}' of {part.root} has {found[1]} where others have {found[0]}: they cannot be read as one"
                )


def check_numbers(key: str, first: Dataset, part: Dataset, advice: str = "they cannot be read as one") -> None:
    """Refuse a column whose numbers two datasets name otherwise, or give in other units.

    Raises:
        DatasetError: naming the first number that differs, and what to do.
    """
    ours, theirs = (_numbers(each.features.get(key) or {}) for each in (first, part))
    if (found := _other_number(ours, theirs)) is not None:
        raise DatasetError(f"'{key}' of {part.root} has {found[1]} where {first.root} has {found[0]}: {advice}")


def _numbers(feature: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the numbers of a feature."""
    names, units = dimension_names(feature), feature.get("units")
    fit = isinstance(units, list) and len(units) == len(names)
    return names, tuple(map(str, units or ())) if fit else (UNKNOWN_UNIT,) * len(names)


def _other_number(ours: tuple, theirs: tuple) -> tuple[str, str] | None:
    """The first of two vectors' numbers (names, units) that are not the same; what is not stated is taken as told."""
    if len(ours[0]) != len(theirs[0]) or unnamed(ours[0]) or unnamed(theirs[0]):
        return None  # other widths are refused where the column is read
    for name, unit, other, another in zip(*ours, *theirs, strict=True):
        if name != other or (unit != another and UNKNOWN_UNIT not in (unit, another)):
            return f"{name} [{unit}]", f"{other} [{another}]"
    return None


def repeated(dataset: Dataset) -> dict[int, int]:
    """Place of an episode -> place of an earlier one with the very same actions; standing still is none."""
    actions = dataset.columns.get(ACTION)
    first: dict[bytes, int] = {}
    found: dict[int, int] = {}
    for place, (start, length) in enumerate(zip(dataset.starts, dataset.lengths, strict=True)):
        rows = actions[start : start + length] if actions is not None else np.zeros((0, 1))
        if len(np.unique(rows, axis=0)) > 1 and (earlier := first.setdefault(rows.tobytes(), place)) != place:
            found[place] = earlier
    return found


def _as_wide(one: Embodiment, other: Embodiment) -> bool:
    return len(one.limits) == len(other.limits)


def _layout(parts: tuple[Dataset, ...]) -> Layout:
    first, numbers = parts[0].layout, count()
    found = {key: feature for part in reversed(parts) for key, feature in part.features.items()}
    features = {key: feature for key, feature in found.items() if _in_all(key, feature, parts)}
    entries = tuple(_moved(entry, part.root, next(numbers)) for part in parts for entry in part.layout.entries)
    others = tuple(_moved(entry, part.root, next(numbers)) for part in parts for entry in part.layout.others)
    root = Path(SEPARATOR.join(str(part.root) for part in parts))
    return Layout(root, first.version, first.rate, features, entries, others, sources=first.sources)


def _in_all(key: str, feature: dict, parts: tuple[Dataset, ...]) -> bool:
    """Whether the parts agree on a feature; one of numbers may be missing in some, which loading finds."""
    others = [part.features.get(key) for part in parts]
    if feature["dtype"] not in PICTURES:
        others = [other for other in others if other is not None]
    return all(other is not None and _told(other) == _told(feature) for other in others)


def _told(feature: dict) -> tuple:
    return feature["dtype"], _plain(feature.get("shape"))


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def _moved(entry: Entry, root: Path, number: int) -> Entry:
    """The same episode with absolute paths and another id; the links that it names were looked at."""
    here = root.resolve()
    clips = {
        key: dataclasses.replace(clip, path=str(file_inside(here, clip.path))) for key, clip in entry.clips.items()
    }
    file = str(file_inside(here, entry.file))
    return dataclasses.replace(entry, id=number, file=file, clips=clips, recorded=entry.recorded_id)
