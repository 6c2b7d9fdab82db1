"""JSON files of ours that say what they are (`kind`), how they are written (`format`) and what they held (`sha256`).

`sealed` puts the digest in, `read_document` verifies it where there is one; files of earlier versions have none. A
digest is of the content, whatever its order and spaces. `check_fields` looks at the types of what was read, so that a
damaged file ends in a sentence with its path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from .hints import hints_of

SEAL = "sha256"


def sealed(values: Mapping) -> dict:
    """`values` as JSON gives them back, with the digest of their content."""
    plain = json.loads(json.dumps(dict(values), default=str))
    plain.pop(SEAL, None)
    return plain | {SEAL: content_digest(plain)}


def content_digest(values: Mapping) -> str:
    """The sha256 of plain JSON values, without the digest itself, in hex."""
    plain = {name: value for name, value in values.items() if name != SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_object(path: str | Path, error: type[ValueError], kind: str = "document of ours") -> dict:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: no such file.
        error: no JSON, or no object.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except FileNotFoundError as cause:
        raise FileNotFoundError(f"there is no {kind} at {path}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not JSON ({cause}); it is damaged") from cause
    if not isinstance(values, dict):
        raise error(f"{path} is no {kind}: it holds a {type(values).__name__}, not an object")
    return values


def unsealed(values: Mapping, path: str | Path, error: type[ValueError]) -> dict:
    """`values` without their digest, if they have one.

    Raises:
        error: another content than was written.
    """
    if SEAL in values and values[SEAL] != content_digest(values):
        text = f"{path} was changed since it was written (its {SEAL} differs); take it from a copy, or make it again"
        raise error(text)
    return {name: value for name, value in values.items() if name != SEAL}


def read_document(path: str | Path, kind: str, newest: int, error: type[ValueError]) -> dict:
    """What a JSON file of ours holds beside its `kind`, `format` and digest.

    Raises:
        FileNotFoundError: no such file.
        error: no JSON, of another kind, of a format above `newest`, or another content than was written.
    """
    values = read_object(path, error, kind)
    if values.get("kind") != kind:
        raise error(f'{path} is no {kind}: it has no "kind": "{kind}"')
    version = values.get("format", 0)
    if type(version) is not int:
        raise error(f"{path} is damaged: its format is {version!r}")
    if version > newest:
        raise error(f"{path} was written by a newer understudy; upgrade to read it")
    return {name: value for name, value in unsealed(values, path, error).items() if name not in ("kind", "format")}


def check_fields(cls: type, values: Mapping, path: str | Path, error: type[ValueError]) -> None:
    """Refuse values that are not those of the dataclass `cls`, as JSON gives them.

    Raises:
        error: the file, and the first key that is unknown, missing or of another type.
    """
    if wrong := _misfit(values, cls):
        raise error(f"{path} is damaged: {wrong}")


def _misfit(values, hint, name: str = "") -> str:
    """What is wrong with a value that is to be of the type `hint`; "" where nothing is."""
    if dataclasses.is_dataclass(hint):
        return _misfit_of_fields(values, hint, name)
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return "" if any(not _misfit(values, each, name) for each in inner) else _said(name, values)
    if hint is Any or hint is NoneType or hint is None:
        return "" if hint is Any or values is None else _said(name, values)
    if isinstance(origin, type) and issubclass(origin, tuple) and hasattr(origin, "_fields"):
        inner = tuple(hints_of(origin).values())
        fits = isinstance(values, list | tuple) and len(values) == len(inner)
        return _first(values, inner, name) if fits else _said(name, values)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(values, Mapping):
            return _said(name, values)
        return _first(list(values.values()), [inner[1]] * len(values), name) if inner else ""
    if isinstance(origin, type) and origin is not str and issubclass(origin, Sequence):
        if not isinstance(values, list | tuple):
            return _said(name, values)
        return _first(values, [inner[0]] * len(values), name) if inner else ""
    kinds = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}.get(hint)
    fits = kinds is None or (isinstance(values, kinds) and isinstance(values, bool) == (hint is bool))
    return "" if fits else _said(name, values)


def _misfit_of_fields(values, cls, name: str) -> str:
    if not isinstance(values, Mapping):
        return _said(name, values)
    fields, hints = {item.name: item for item in dataclasses.fields(cls)}, hints_of(cls)
    if unknown := sorted(set(values) - set(fields)):
        return f"unknown key '{unknown[0]}'"
    for key, item in fields.items():
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if key not in values and needed:
            return f"'{key}' is missing"
        if key in values and (wrong := _misfit(values[key], hints[key], key)):
            return wrong
    return ""


def _first(values, hints, name: str) -> str:
    return next((wrong for each, hint in zip(values, hints, strict=True) if (wrong := _misfit(each, hint, name))), "")


def _said(name: str, value) -> str:
    return f"'{name}' is {json.dumps(value, default=str)[:80]}"
