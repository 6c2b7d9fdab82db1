"""Columns by other names: `--columns '{action: actions, observation.state: [joint.position, gripper]}'`.

On the left what a policy reads, on the right the recorded column, or several that are joined in this order. Names of
the dimensions come along, with the column's name in front where two columns use one name. Nothing is copied on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ...configs.spec import ACTION, IMAGES, SCENE, STATE
from .embody import dimension_names
from .layout import BOOKKEEPING, PICTURES, TEXTS, DatasetError, Layout

MAPPED = (ACTION, STATE, SCENE)  # columns that something else is often called for
WORDS = {ACTION: ("action", "control", "ctrl"), STATE: ("state", "qpos", "proprio", "position")}  # that hint at them


def mapped(layout: Layout, sources: Mapping[str, str | Sequence[str]]) -> Layout:
    """The layout with the features that `sources` makes; those that went into them are no columns any more.

    Raises:
        DatasetError: a source that is not there or holds no numbers.
    """
    if not sources:
        return layout
    told = {key: (one,) if isinstance(one, str) else tuple(one) for key, one in sources.items()}
    for key, names in told.items():
        _check(layout, key, names)

    made = {key: _joined(layout.features, names) for key, names in told.items()}
    used = {name for names in told.values() for name in names}
    kept = {key: feature for key, feature in layout.features.items() if key not in used and key not in made}
    return dataclasses.replace(layout, features=kept | made, sources=told, recorded=layout.features)


def example(name: str, known: Sequence[str]) -> str:
    """How a mapping for column `name` is written, of the columns that are there."""
    hints = WORDS.get(name, ())
    other = [word for key, words in WORDS.items() if key != name for word in words]
    near = [key for key in known if any(word in key.lower() for word in hints)]
    near = [key for key in near if name == ACTION or not any(word in key.lower() for word in WORDS[ACTION])]
    near = near or [key for key in known if not any(word in key.lower() for word in other)] or list(known)
    near = near[:1] if name == ACTION else near[:3]
    return f"{{{name}: {near[0] if len(near) == 1 else '[' + ', '.join(near) + ']'}}}"


def _check(layout: Layout, key: str, names: tuple[str, ...]) -> None:
    if not names:
        raise DatasetError(f"--columns joins nothing for '{key}'; name the columns, as in {{{key}: [first, second]}}")
    if key in BOOKKEEPING:
        raise DatasetError(f"--columns cannot make '{key}', which says where rows belong; leave it out")
    for name in names:
        kind = (layout.features.get(name) or {}).get("dtype")
        if kind is None:
            known = ", ".join(layout.vectors) or "none"
            raise DatasetError(
                f"--columns wants '{name}' for '{key}', which {layout.root} does not have; it has {known}"
            )
        if kind in PICTURES or key.startswith(IMAGES):
            raise DatasetError(
                f"--columns joins numbers; '{name}' for '{key}' is of a camera, which goes by its own name:"
                f" {', '.join(layout.cameras) or 'none'}"
            )
        if kind in TEXTS:
            raise DatasetError(f"--columns wants '{name}' for '{key}', which holds words ({kind}); name one of numbers")


def _joined(features: Mapping[str, dict], names: tuple[str, ...]) -> dict:
    """The feature of joined columns; of one alone, its own."""
    parts = [features[name] for name in names]
    if len(parts) == 1:
        return dict(parts[0])
    own = [dimension_names(part) for part in parts]
    flat = [name for dims in own for name in dims]
    if len(set(flat)) != len(flat):
        flat = [f"{source}.{name}" for source, dims in zip(names, own, strict=True) for name in dims]
    if len(set(flat)) != len(flat):
        raise DatasetError(f"--columns names a column twice: {', '.join(names)}; name each once")
    feature: dict = {"dtype": "float32", "shape": [len(flat)], "names": flat}
    units = [part.get("units") for part in parts]
    if all(isinstance(told, list) and len(told) == len(dims) for told, dims in zip(units, own, strict=True)):
        feature["units"] = [unit for told in units for unit in told or ()]
    return feature
