"""A YAML file (also JSON, TOML) as keys, every scalar as the field that it is for wants it.

`!include task_spec.yaml` is relative to the file that says it. What YAML 1.1 reads otherwise than it looks (`no`,
`1:30`, `010`) is settled by the field (`written.py`).
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from enum import Enum
from pathlib import Path

import yaml

from ..former import current_path
from ..hints import hints_of
from .fields import choices_of, class_at, is_choice
from .refusals import UsageError
from .renamed import former_names
from .shipped import find_config
from .written import Written, WrittenError, as_text, plain, read, settled


def load(path: str | Path, config_class: type | None = None) -> dict:
    """The mapping in a YAML file (also JSON, TOML), as the fields of a class want its values where one is given.

    Raises:
        UsageError: it holds anything else, a key twice, or a value that reads otherwise than it looks.
        FileNotFoundError: it is not there.
    """
    path = find_config(path)
    try:
        raw = _content(path)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid {path.suffix[1:].upper() or 'YAML'}: {error}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path} must hold keys and values, got {type(as_text(raw)).__name__}")
    try:
        return _settle(config_class, raw, ()) if config_class else plain(raw)
    except WrittenError as error:
        raise UsageError(f"{path}: {error}") from error


def _content(path: Path) -> object:
    text = path.read_text()
    if path.suffix in (".json", ".toml"):
        return {".json": json.loads, ".toml": tomllib.loads}[path.suffix](text)
    return read(text, path, _include)


def _include(folder: Path, name: str) -> Path:
    """The file that `!include NAME` means, in the folders of today."""
    return folder / name if (folder / name).exists() else folder / current_path(name)


def _settle(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """The keys of a file with every scalar as its field wants it."""
    hints, former, settled_keys = hints_of(config_class), former_names(config_class), {}
    for key, value in raw.items():
        name = str(as_text(key))
        today = former.get(name, name)
        inner = class_at(config_class, today, _types_settled(value))
        if isinstance(value, dict) and inner:
            settled_keys[name] = _settle(inner, value, (*path, name))
        else:
            settled_keys[name] = meant(hints.get(today), value, ".".join((*path, name)))
    return settled_keys


def _types_settled(value):
    """A group of keys whose `type` is a text."""
    if isinstance(value, dict):
        return {as_text(key): as_text(inside) for key, inside in value.items()}
    return as_text(value)


def meant(hint: object, value, where: str):
    """A value of a file as the type `hint` wants it; nothing is checked here but what reads otherwise than it looks."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    members = typing.get_args(hint) if union else (hint,)

    if isinstance(value, dict):
        inner = next((member for member in members if dataclasses.is_dataclass(member) or is_choice(member)), None)
        if inner is not None:
            kind = choices_of(inner).get(as_text(value.get("type"))) if is_choice(inner) else inner
            return plain(value, where) if kind is None else _settle(kind, value, tuple(where.split(".")))
        _, content = next((typing.get_args(m) for m in members if typing.get_origin(m) is dict), (None, None))
        if content is None:
            return plain(value, where)
        return {as_text(key): meant(content, inside, f"{where}.{as_text(key)}") for key, inside in value.items()}

    row = next((typing.get_args(m) for m in members if typing.get_origin(m) in (tuple, list)), None)
    if isinstance(value, list):
        kinds_of_items = (*(row or ()), *[row[-1] if row else None] * len(value))
        if row and row[-1] is Ellipsis:
            kinds_of_items = (row[0],) * len(value)
        return [meant(one, inside, where) for one, inside in zip(kinds_of_items, value, strict=False)]

    kinds = {str if _is_texts(member) else member for member in members if isinstance(member, type)}
    if row and row[0] is str and str not in kinds and isinstance(as_text(value), str):
        return [as_text(value)]  # one word where several may stand
    if not isinstance(value, Written):
        return value
    return settled(value, kinds, where) if kinds else plain(value, where)


def _is_texts(hint: type) -> bool:
    return issubclass(hint, (str, Path, Enum))
