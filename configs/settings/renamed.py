"""What is still read under other names: keys of earlier versions (`RENAMED`), and synonyms of values (`SYNONYMS`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .fields import class_at
from .refusals import UsageError


def former_names(config_class: type) -> dict[str, str]:
    """Keys that earlier versions wrote -> today's, as the class and its bases state in `RENAMED`."""
    names: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        names |= base.__dict__.get("RENAMED", {})
    return names


def current_keys(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """`raw` under today's names. Raises UsageError where a key stands there under both names."""
    former, current = former_names(config_class), {}
    for name, value in raw.items():
        today = former.get(name, name)
        if today in current or (today != name and today in raw):
            raise UsageError(f"'{'.'.join((*path, name))}' is the former name of '{today}'; give one of them")
        current[today] = value
    return current


def current_values(config_class: type, raw: dict) -> dict:
    """`raw` with today's words for values that are still read under others, as the class states in `SYNONYMS`."""
    synonyms = getattr(config_class, "SYNONYMS", {})
    return {name: _current_value(synonyms.get(name, {}), value) for name, value in raw.items()}


def _current_value(synonyms: Mapping[str, str], value: Any) -> Any:
    return synonyms.get(value, value) if isinstance(value, str) else value


def current_tree(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """`raw` under today's names, groups of keys too, so that a flag of today's name changes what an old file says."""
    current = current_keys(config_class, raw, path)
    for name, value in current.items():
        inner = class_at(config_class, name, value)
        if inner and isinstance(value, dict):
            current[name] = current_tree(inner, value, (*path, name))
    return current


def current_key(config_class: type, raw: dict, keys: list[str]) -> list[str]:
    """The parts of a dotted key under today's names; `raw` says which type of a choice they belong to."""
    current: list[str] = []
    inner: type | None = config_class
    tree: Any = raw
    for key in keys:
        name = former_names(inner).get(key, key) if inner else key
        tree = tree.get(name) if isinstance(tree, dict) else None
        inner = class_at(inner, name, tree) if inner else None
        current.append(name)
    return current
