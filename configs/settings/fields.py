"""What a class of settings says of its fields: their types, by a dotted key too, their defaults, which are choices.

A choice is the base of a registry; which class reads its keys is said by the `type` that the values hold.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

from ..hints import hints_of
from ..plugins import PLUGINS
from .outline import outlines_of, registered_names

WORDS = ("list[str]", "tuple[str, ...]")  # annotations of fields that take several words


def hint_at(config_class: type, keys) -> object:
    """The plain type of a dotted key, or None where it depends on the values."""
    hint: object = config_class
    for key in keys:
        if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
            return None
        hint = without_none(hints_of(hint).get(key))
    return hint


def type_at(config_class: type, raw: dict, keys: list[str]) -> Any:
    """The type of a dotted key, also within the choice that `raw` makes; None where nothing says it."""
    tree: object = raw
    for place, key in enumerate(keys[:-1]):
        tree = tree.get(key) if isinstance(tree, dict) else None
        inner = class_at(config_class, key, tree)
        if inner is None:
            hint = without_none(hints_of(config_class).get(key))
            named = place == len(keys) - 2 and typing.get_origin(hint) is dict
            return typing.get_args(hint)[1] if named else None
        config_class = inner
    return without_none(hints_of(config_class).get(keys[-1]))


def class_at(config_class: type, name: str, value: Any) -> type | None:
    """The config class that reads `value` as the field `name`; None where that is no group of keys."""
    item = {item.name: item for item in dataclasses.fields(config_class)}.get(name)
    if item is None:
        return None
    hint = without_none(hints_of(config_class)[name])
    if is_choice(hint):
        kind = value.get("type") if isinstance(value, dict) else value
        return choices_of(hint).get(str(kind)) or default_type(item)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def value_at(tree: Any, keys: list[str]) -> Any:
    """What stands at a dotted key; None where nothing does."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def takes_words(config_class: type, key: str, raw: dict | None = None) -> bool:
    """Whether the field holds a list of words, so that it takes all that stand before the next flag.

    Args:
        raw: says which type of a choice a dotted key belongs to.
    """
    if "." not in key:
        return any(item.name == key and item.type in WORDS for item in dataclasses.fields(config_class))
    if raw is None:
        return False
    hint = type_at(config_class, raw, key.split("."))
    return hint in (list[str], tuple[str, ...])


def default_of(item: dataclasses.Field) -> Any:
    """A field's default; `dataclasses.MISSING` where it has none."""
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def default_type(item: dataclasses.Field) -> type | None:
    """The class of a field's default, where that is a class of settings."""
    default = default_of(item)
    return type(default) if dataclasses.is_dataclass(default) else None


def has_choices(config_class: Any) -> bool:
    """Whether a setting is a registered choice, so that its registry is needed to show help and to read words."""
    hints = hints_of(config_class)
    inner = [without_none(hints[item.name]) for item in dataclasses.fields(config_class)]
    return any(is_choice(hint) or (dataclasses.is_dataclass(hint) and has_choices(hint)) for hint in inner)


def is_choice(hint: Any) -> bool:
    """Whether `hint` is the base of a registry, not one of its registered members."""
    registry = isinstance(hint, type) and hasattr(hint, "get_known_choices")
    return registry and hint not in hint.get_known_choices().values()


def is_unfilled(hint: Any) -> bool:
    """Whether modules of ours that register types of this choice are not imported yet."""
    return bool(registered_names(hint) - hint.get_known_choices().keys())


def choices_of(hint: Any) -> Mapping[str, type]:
    """Registered name -> class of a choice, or its outline while its module is not imported.

    Those of plug-ins have no outline, so that with plug-ins nothing is said of what is not imported.
    """
    known = hint.get_known_choices()
    return {**outlines_of(hint), **known} if is_unfilled(hint) and not os.environ.get(PLUGINS) else known


def without_none(hint: Any) -> Any:
    """`X` of `X | None`; other unions stay."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return inner[0] if len(inner) == 1 else hint
    return hint


def kind_of(hint: Any) -> str:
    """A type in words."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
