"""Keys become a frozen dataclass: keys, registered names and members of enums are checked, draccus decodes the values.

They are checked before, so that an error names the closest known one. No `$VAR` is expanded: who opens a path does
that, and a saved config keeps the variable.
"""

from __future__ import annotations

import dataclasses
import os
from enum import Enum
from pathlib import Path
from typing import Any

import draccus

from ..hints import hints_of
from ..protocols import keeps
from ..verb import SpellsOut, positionals_of
from .comments import comments_of
from .fields import choices_of, default_of, is_choice, is_unfilled, without_none
from .listing import outlined_settings, settings_of
from .load import load
from .outline import is_outline
from .refusals import UnknownSettingError, UsageError, refusal_of, unknown, why_undecoded
from .renamed import current_keys, current_values


def decode(config_class: type, raw: dict):
    """`raw` as `config_class`. Raises as `parse` does."""
    return decoded(config_class, completed(config_class, raw))


def decode_choice(base: Any, raw: dict) -> Any:
    """`raw`, with its `type`, as the registered subclass of `base`; keys of earlier versions are read as today's."""
    full = _chosen(base, raw, None, (base.__name__,))
    try:
        return draccus.decode(base, full)
    except draccus.ParsingError as error:
        kind = base.get_choice_class(full["type"])
        raise UsageError(why_undecoded(kind, full, error)) from refusal_of(error)


def keys_of(config: object) -> dict:
    """A config as plain keys, with its `type` where it is a registered choice."""
    plain = draccus.encode(config)
    return plain | {"type": config.get_choice_name(type(config))} if hasattr(config, "get_choice_name") else plain


def completed(config_class: type, raw: dict) -> dict:
    """Keys and names checked; an unknown key is compared with all settings, wherever they stand."""
    try:
        return _complete(config_class, raw, ())
    except UnknownSettingError as error:
        everything = [setting.name for setting in settings_of(config_class)]
        everything += outlined_settings(config_class, error.path[0])
        raise unknown("setting", error.path, error.names, everything) from None


def decoded(config_class: type, full: dict):
    """The values as the fields take them, and what is wrong with one in plain words. Raises UsageError."""
    try:
        return draccus.decode(config_class, full)
    except draccus.ParsingError as error:
        raise UsageError(why_undecoded(config_class, full, error)) from refusal_of(error)


def check_outlined(config_class: type, full: dict, name: str) -> None:
    """Refuse values of another type in a choice whose modules are not imported, as its outline has them."""
    base = without_none(hints_of(config_class)[name])
    group = full[name]
    kind = choices_of(base).get(group["type"]) if group else None
    if kind is None:
        return
    try:
        draccus.decode(kind, {key: value for key, value in group.items() if key != "type"})
    except draccus.ParsingError as error:
        raise UsageError(why_undecoded(config_class, full, error, (name,))) from refusal_of(error)


def _complete(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """Check keys and registered names; a group of keys may be a YAML file, a choice its name alone."""
    hints = hints_of(config_class)
    fields = {item.name: item for item in dataclasses.fields(config_class)}
    raw = current_keys(config_class, raw, path)
    raw = current_values(config_class, raw)
    raw = config_class.spell_out(raw) if keeps(config_class, SpellsOut) else raw  # short ways of writing

    full = {}
    for name, value in raw.items():
        if name not in fields:
            raise unknown("setting", (*path, str(name)), [".".join((*path, key)) for key in fields])
        hint = without_none(hints[name])
        choice = is_choice(hint)

        # null where the type takes none: as if it were left out
        if value is None and hint is hints[name] and hint in (str, int, float, bool, Path):
            if default_of(fields[name]) is dataclasses.MISSING:
                raise UsageError(f"{'.'.join((*path, name))} must be given; null says nothing")
            continue
        if value is None and dataclasses.is_dataclass(hints[name]):
            raise UsageError(f"{'.'.join((*path, name))} must hold keys; null says nothing")

        # a group of keys, a choice or one value
        if value is not None and (choice or dataclasses.is_dataclass(hint)):
            if isinstance(value, str) and value.endswith((".yaml", ".yml")):
                value = load(os.path.expandvars(value))
            if choice:
                value = _chosen(hint, value, fields[name], (*path, name))
            elif isinstance(value, dict):
                value = _complete(hint, value, (*path, name))
            else:
                raise UsageError(f"{'.'.join((*path, name))} must hold keys, got {value!r}")
        elif isinstance(hint, type) and issubclass(hint, Enum):
            value = _member(hint, value, (*path, name))
        elif hint in (str, Path) and isinstance(value, (bool, list, dict)):
            shown = f"{value}; a text that YAML reads so stands in quotes" if isinstance(value, bool) else value
            raise UsageError(f"{'.'.join((*path, name))} takes a text, got {shown}")
        full[name] = value

    _refuse_missing(config_class, full, path)
    return full


def _refuse_missing(config_class: type, full: dict, path: tuple[str, ...]) -> None:
    """Raise UsageError naming the fields without a default that nobody gave."""
    items = dataclasses.fields(config_class)
    missing = [item.name for item in items if item.name not in full and default_of(item) is dataclasses.MISSING]
    if not missing:
        return
    if path:
        raise UsageError(f"{'.'.join((*path, missing[0]))} must be given")
    bare, comments = positionals_of(config_class), comments_of(config_class)
    named = [name.upper() if name in bare else f"--{name} {_placeholder(name)}" for name in missing]
    about = [f"{name} ({comments[key]})" if key in comments else name for name, key in zip(named, missing, strict=True)]
    raise UsageError(f"give {' and '.join(about)}")


def _placeholder(name: str) -> str:
    return "DIR" if name == "out" else "VALUE"


def _chosen(hint, value, item: dataclasses.Field | None, path: tuple[str, ...]) -> dict:
    """The keys of a registered choice; without a type they change the field's default."""
    value = {"type": value} if isinstance(value, str) else value
    choices = choices_of(hint)
    if not isinstance(value, dict):
        raise UsageError(f"{'.'.join(path)} must hold keys, got {value!r}")
    if value.get("type") not in choices and is_unfilled(hint) and choices is hint.get_known_choices():
        return value  # of a plug-in, perhaps

    # without a type: the default's, under the keys given
    if "type" not in value:
        default = None if item is None else default_of(item)
        if type(default) not in choices.values():
            raise UsageError(f"{'.'.join(path)}.type is missing. Known: {', '.join(sorted(choices)) or 'none'}")
        held = {} if is_outline(type(default)) else draccus.encode(default)
        value = held | {"type": hint.get_choice_name(type(default))} | value

    kind = value["type"]
    if kind not in choices:
        raise unknown("type", (*path, str(kind)), list(choices))
    inner = {key: inner for key, inner in value.items() if key != "type"}
    return {"type": kind} | _complete(choices[kind], inner, path)


def _member(hint: type[Enum], value, path: tuple[str, ...]) -> object:
    names = {member.name: member.value for member in hint}
    if value not in [*names, *names.values()]:
        raise UsageError(f"{'.'.join(path)} cannot be {value!r}. Known: {', '.join(map(str, names.values()))}")
    return names.get(value, value)
