"""Every key that may be set: what help shows, and what an unknown key is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ..hints import hints_of
from .comments import comments_of
from .fields import default_of, is_choice, is_unfilled, kind_of, without_none
from .outline import outlines_of, registered_names


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key that may be set: its dotted name, type, default and the comment on its line."""

    name: str
    kind: str
    default: str
    comment: str


def settings_of(
    config_class: Any, prefix: str = "", of: str = "", within: frozenset[type] = frozenset()
) -> Iterator[Setting]:
    """Every key of a config class; the keys that only some registered type of a choice has say which.

    Args:
        within: choices whose keys these are; one within itself is named and not gone into.
    """
    hints = hints_of(config_class)
    for item in dataclasses.fields(config_class):
        name, hint = prefix + item.name, without_none(hints[item.name])
        comment = f"{comments_of(config_class).get(item.name, '')}{of}".strip()

        if is_choice(hint):
            yield from _settings_of_choice(hint, name, comment, within)
        elif dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{name}.", of, within)
        else:
            yield Setting(name, kind_of(hint), _default(item), comment)


def _settings_of_choice(hint, name: str, comment: str, within: frozenset[type]) -> Iterator[Setting]:
    """Its type, the keys that all types share, then those of each type alone."""
    choices = hint.get_known_choices()
    known = " | ".join(sorted({*choices, *registered_names(hint)})) or "none registered"
    yield Setting(f"{name}.type", known, "", f"{comment}: {known}" if comment else known)
    if hint in within:
        return

    inside = within | {hint}
    shared = set(hint.__dataclass_fields__) if dataclasses.is_dataclass(hint) else set()
    yield from settings_of(hint, f"{name}.", within=inside) if shared else ()

    depth = name.count(".") + 1
    for choice in sorted(choices):
        for setting in settings_of(choices[choice], f"{name}.", f" [{choice}]", inside):
            if setting.name.split(".")[depth] not in shared:
                yield setting


def outlined_settings(config_class: type, name: str) -> Iterator[str]:
    """Dotted keys of a field that is a choice, of those of its types that are not imported."""
    hint = without_none(hints_of(config_class).get(name))
    if is_choice(hint) and is_unfilled(hint):
        for kind in outlines_of(hint).values():
            yield from _keys_of_outline(kind, name)


def _keys_of_outline(kind: Any, path: str) -> Iterator[str]:
    hints = hints_of(kind)
    for name in (item.name for item in dataclasses.fields(kind)):
        yield f"{path}.{name}"
        inner = without_none(hints[name])
        for group in inner.get_known_choices().values() if is_choice(inner) else (inner,):
            if dataclasses.is_dataclass(group):
                yield from _keys_of_outline(group, f"{path}.{name}")


def _default(item: dataclasses.Field) -> str:
    default = default_of(item)
    if default is dataclasses.MISSING:
        return ", required"
    return f", default {getattr(default, 'value', default)!r}".replace("''", "none")
