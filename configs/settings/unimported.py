"""Types and keys of a choice whose modules are not imported yet, checked by the outlines of their sources."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from .listing import settings_of
from .outline import Outline, inner_of, outlines_of
from .refusals import UnknownSettingError, unknown


def check_unimported(
    config_class: type, base: type, value: object, path: tuple[str, ...], only: frozenset[str] | None
) -> None:
    """Refuse types and keys that no source registers, of a choice whose modules are not imported.

    Args:
        only: dotted keys that are looked at; None: all.
    """
    kinds = outlines_of(base)
    if os.environ.get("UNDERSTUDY_PLUGINS") or not isinstance(value, dict) or not kinds:
        return
    try:
        _check_kinds(base, kinds, value, path, only)
    except UnknownSettingError as error:
        everything = [setting.name for setting in settings_of(config_class)]
        for kind in kinds.values():
            everything += _outlined_names(base, kind, path)
        raise unknown("setting", error.path, error.names, everything) from None


def _outlined_names(base: type, found: Outline, path: tuple[str, ...]) -> Iterator[str]:
    for name, annotation in found.fields.items():
        inner = inner_of(base, annotation)
        yield ".".join((*path, name))
        for kind in inner.values() if isinstance(inner, Mapping) else (inner,) if inner else ():
            yield from _outlined_names(base, kind, (*path, name))


def _check_kinds(
    base: type, kinds: Mapping[str, Outline], value: dict, path: tuple[str, ...], only: frozenset[str] | None
) -> None:
    kind = value.get("type")
    if kind is None:
        return
    if kind not in kinds:
        raise unknown("type", (*path, str(kind)), list(kinds))
    _check_keys(base, kinds[kind], {key: inner for key, inner in value.items() if key != "type"}, path, only)


def _check_keys(base: type, found: Outline, value: dict, path: tuple[str, ...], only: frozenset[str] | None) -> None:
    for key, held in value.items():
        dotted = ".".join((*path, key))
        if only is not None and not any(one == dotted or one.startswith(f"{dotted}.") for one in only):
            continue
        name = found.former.get(key, key)
        if name not in found.fields:
            if key in found.short:
                continue
            raise unknown("setting", (*path, key), [".".join((*path, field)) for field in found.fields])
        inner = inner_of(base, found.fields[name])
        held = {"type": held} if isinstance(held, str) and isinstance(inner, Mapping) else held
        if isinstance(held, dict) and isinstance(inner, Mapping):
            _check_kinds(base, inner, held, (*path, key), only)
        elif isinstance(held, dict) and isinstance(inner, Outline):
            _check_keys(base, inner, held, (*path, key), only)
