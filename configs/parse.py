"""A config file and the words of a command line become one frozen dataclass.

The file is YAML (`!include task_spec.yaml` is relative to the file that says it); `--a.b value` overrides one key of
it; a bare word fills the next field of the class's `POSITIONALS`; a field of several words takes all up to the next
flag. draccus decodes the values; keys and registered names are checked here first, so that an error names the closest
known one. No `$VAR` is expanded: who opens a path does that, and a saved config keeps the variable. What YAML 1.1 reads
otherwise than it looks (`no`, `1:30`, `010`) is settled by the field that it is for (`written.py`).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import draccus
import yaml

from .comments import comments_of
from .former import current_path
from .protocols import keeps
from .verb import SpellsOut, positionals_of
from .written import Written, WrittenError, as_text, plain, read, settled


class UsageError(ValueError):
    """The words of the command make no sense; the message says what would."""


def parse(config_class: type, path: str | None, words: list[str]):
    """An instance of `config_class` from the YAML file `path` (or none) with `words` on top.

    Raises:
        UsageError: a word without a place, a file that is no mapping, an unknown key or registered name (with the
            closest known one).
        draccus.ParsingError: a value that its field refuses.
    """
    raw = _today(config_class, load(path, config_class), ()) if path else {}
    free = list(positionals_of(config_class))

    spelled: dict[str, str] = {}  # key -> as its flag was written
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word.startswith("--"):  # a flag and its value
            key, value = _split(word, queue)
            written = key.replace("-", "_")
            key = ".".join(_todays_key(config_class, raw, written.split(".")))
            if spelled.setdefault(key, written) != written:
                raise UsageError(f"--{written} and --{spelled[key]} are the same setting; give one of them")
            if takes_words(config_class, key) and "=" not in word and not value.startswith("["):
                value, queue = _words_before_flags(value, queue)
        else:  # a bare word
            if not free:
                raise UsageError(f"nothing here takes the word '{word}'; flags are written --key value")
            key, value = free.pop(0), word
            if takes_words(config_class, key):
                value, queue = _words_before_flags(value, queue)
        _put(raw, key.split("."), _read(config_class, raw, key, value))

    return decode(config_class, raw)


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


def find_config(path: str | Path) -> Path:
    """The file at `path`; `configs/...` that is not in this folder is the one that came with the package.

    Raises:
        FileNotFoundError: naming the configs that came with the package.
    """
    shipped = Path(__file__).parent
    named = Path(path) if Path(path).exists() else Path(current_path(str(path)))
    ours = shipped.parent / named if named.parts[:1] == ("configs",) else named
    for candidate in (named, ours):
        if candidate.is_file():
            return candidate

    names = sorted(f"configs/{file.relative_to(shipped)}" for file in shipped.glob("*/*.yaml"))
    raise FileNotFoundError(f"no config '{path}'. Shipped: {', '.join(names)}")


def decode(config_class: type, raw: dict):
    """`raw` as `config_class`. Raises as `parse` does."""
    return draccus.decode(config_class, _complete(config_class, raw, ()))


def decode_choice(base: type, raw: dict):
    """`raw`, with its `type`, as the registered subclass of `base`; keys of earlier versions are read as today's."""
    return draccus.decode(base, _chosen(base, raw, None, (base.__name__,)))


def former_names(config_class: type) -> dict[str, str]:
    """Keys that earlier versions wrote -> today's, as the class and its bases state in `RENAMED`."""
    names: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        names |= base.__dict__.get("RENAMED", {})
    return names


def describe(config_class: type, command: str) -> str:
    """The help of a verb: its docstring, then a line for every field with default and comment."""
    positionals = positionals_of(config_class)
    bare = " ".join(name.upper() for name in positionals)
    lines = [f"usage: {command} [CONFIG.yaml] {bare}{' ' if bare else ''}[--key value ...]", ""]
    lines += [(config_class.__doc__ or "").strip(), ""]
    for setting in settings_of(config_class):
        comment = f"{setting.comment}  " if setting.comment else ""
        lines.append(f"  --{setting.name:<32} {comment}({setting.kind}{setting.default})")
    return "\n".join(lines)


def has_choices(config_class: type) -> bool:
    """Whether a setting is a registered choice, so that its registry is needed to show help and to read words."""
    hints = typing.get_type_hints(config_class)
    inner = [_plain(hints[item.name]) for item in dataclasses.fields(config_class)]
    return any(_is_choice(hint) or (dataclasses.is_dataclass(hint) and has_choices(hint)) for hint in inner)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key that may be set: its dotted name, type, default and the comment on its line."""

    name: str
    kind: str
    default: str
    comment: str


def settings_of(config_class: type, prefix: str = "", of: str = "") -> Iterator[Setting]:
    """Every key of a config class; the keys that only some registered type of a choice has say which."""
    hints = typing.get_type_hints(config_class)
    for item in dataclasses.fields(config_class):
        name, hint = prefix + item.name, _plain(hints[item.name])
        comment = f"{comments_of(config_class).get(item.name, '')}{of}".strip()

        if _is_choice(hint):
            yield from _settings_of_choice(hint, name, comment)
        elif dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{name}.", of)
        else:
            yield Setting(name, _kind(hint), _default(item), comment)


def _settings_of_choice(hint, name: str, comment: str) -> Iterator[Setting]:
    """Its type, the keys that all types share, then those of each type alone."""
    choices = hint.get_known_choices()
    yield Setting(f"{name}.type", " | ".join(sorted(choices)) or "none registered", "", comment)

    shared = set(hint.__dataclass_fields__) if dataclasses.is_dataclass(hint) else set()
    yield from settings_of(hint, f"{name}.") if shared else ()

    depth = name.count(".") + 1
    for choice in sorted(choices):
        for setting in settings_of(choices[choice], f"{name}.", f" [{choice}]"):
            if setting.name.split(".")[depth] not in shared:
                yield setting


def _split(word: str, queue: list[str]) -> tuple[str, str]:
    """`--key=value`, `--key value` or a bare `--key`, which means true."""
    key, equals, value = word[2:].partition("=")
    if not key:
        raise UsageError(f"'{word}' names no key; flags are written --key value")
    if not equals:
        value = queue.pop(0) if queue and not queue[0].startswith("--") else "true"
    return key, value


def takes_words(config_class: type, key: str) -> bool:
    """Whether the field holds a list of words, so that it takes all that stand before the next flag."""
    field = config_class.__dataclass_fields__.get(key)
    return field is not None and field.type in ("list[str]", "tuple[str, ...]")


def _words_before_flags(first: str, queue: list[str]) -> tuple[list[str], list[str]]:
    cut = next((i for i, word in enumerate(queue) if word.startswith("--")), len(queue))
    return [first, *queue[:cut]], queue[cut:]


def _read(config_class: type, raw: dict, key: str, value):
    """Text fields take the word as it stands (`--out 007`); everything else is read as YAML."""
    if not isinstance(value, str):
        return value
    hint = _hint_of(config_class, raw, key.split("."))
    if hint in (str, Path) and value not in ("null", ""):
        return value
    try:
        return "" if value == "" else _meant(hint, read(value), key)
    except (yaml.YAMLError, WrittenError, OSError) as error:
        said = str(error).removeprefix(f"{key}: ")
        raise UsageError(f"--{key} cannot read '{value}': {said}") from error


def _hint_of(config_class: type, raw: dict, keys: list[str]) -> object:
    """The type of a dotted key, also within the choice that `raw` makes; None where nothing says it."""
    tree: object = raw
    for place, key in enumerate(keys[:-1]):
        tree = tree.get(key) if isinstance(tree, dict) else None
        inner = _class_at(config_class, key, tree)
        if inner is None:
            hint = _plain(typing.get_type_hints(config_class).get(key))
            named = place == len(keys) - 2 and typing.get_origin(hint) is dict
            return typing.get_args(hint)[1] if named else None
        config_class = inner
    return _plain(typing.get_type_hints(config_class).get(keys[-1]))


def _put(tree: dict, keys: list[str], value) -> None:
    for key in keys[:-1]:
        inner = tree.get(key)
        if isinstance(inner, str):
            inner = {"type": inner}
        tree[key] = inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise UsageError(f"--{'.'.join(keys)}: '{key}' is no group of keys")
        tree = inner
    tree[keys[-1]] = value


def _settle(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """The keys of a file with every scalar as its field wants it."""
    hints, former, settled_keys = typing.get_type_hints(config_class), former_names(config_class), {}
    for key, value in raw.items():
        name = str(as_text(key))
        today = former.get(name, name)
        inner = _class_at(config_class, today, _types_settled(value))
        if isinstance(value, dict) and inner:
            settled_keys[name] = _settle(inner, value, (*path, name))
        else:
            settled_keys[name] = _meant(hints.get(today), value, ".".join((*path, name)))
    return settled_keys


def _meant(hint: object, value, where: str):
    """A value of a file as the type `hint` wants it; nothing is checked here but what reads otherwise than it looks."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    members = typing.get_args(hint) if union else (hint,)

    if isinstance(value, dict):
        inner = next((member for member in members if dataclasses.is_dataclass(member) or _is_choice(member)), None)
        if inner is not None:
            kind = inner.get_known_choices().get(as_text(value.get("type"))) if _is_choice(inner) else inner
            return plain(value, where) if kind is None else _settle(kind, value, tuple(where.split(".")))
        _, content = next((typing.get_args(m) for m in members if typing.get_origin(m) is dict), (None, None))
        if content is None:
            return plain(value, where)
        return {as_text(key): _meant(content, inside, f"{where}.{as_text(key)}") for key, inside in value.items()}

    row = next((typing.get_args(m) for m in members if typing.get_origin(m) in (tuple, list)), None)
    if isinstance(value, list):
        wanted = (*(row or ()), *[row[-1] if row else None] * len(value))
        wanted = [row[0]] * len(value) if row and row[-1] is Ellipsis else wanted
        return [_meant(one, inside, where) for one, inside in zip(wanted, value, strict=False)]

    kinds = {str if _is_texts(member) else member for member in members if isinstance(member, type)}
    if row and row[0] is str and str not in kinds and isinstance(as_text(value), str):
        return [as_text(value)]  # one word where several may stand
    if not isinstance(value, Written):
        return value
    return settled(value, kinds, where) if kinds else plain(value, where)


def _is_texts(hint: type) -> bool:
    return issubclass(hint, (str, Path, Enum))


def _types_settled(value):
    """A group of keys whose `type` is a text."""
    if isinstance(value, dict):
        return {as_text(key): as_text(inside) for key, inside in value.items()}
    return as_text(value)


def _complete(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """Check keys and registered names; a group of keys may be a YAML file, a choice its name alone."""
    hints = typing.get_type_hints(config_class)
    fields = {item.name: item for item in dataclasses.fields(config_class)}
    raw = _renamed(config_class, raw, path)
    raw = config_class.spell_out(raw) if keeps(config_class, SpellsOut) else raw  # short ways of writing

    full = {}
    for name, value in raw.items():
        if name not in fields:
            raise _unknown("setting", (*path, str(name)), [".".join((*path, key)) for key in fields])
        hint = _plain(hints[name])
        choice = _is_choice(hint)

        # null where the type takes none: as if it were left out
        if value is None and hint is hints[name] and hint in (str, int, float, bool, Path):
            if default_of(fields[name]) is dataclasses.MISSING:
                raise UsageError(f"{'.'.join((*path, name))} must be given; null says nothing")
            continue

        # a group of keys, a choice or one value
        if value is not None and (choice or dataclasses.is_dataclass(hint)):
            if isinstance(value, str) and value.endswith((".yaml", ".yml")):
                value = load(os.path.expandvars(value))
            if choice:
                value = _chosen(hint, value, fields[name], (*path, name))
            elif isinstance(value, dict):
                value = _complete(hint, value, (*path, name))
        elif isinstance(hint, type) and issubclass(hint, Enum):
            value = _member(hint, value, (*path, name))
        elif hint in (str, Path) and isinstance(value, (bool, list, dict)):
            shown = f"{value}; a text that YAML reads so stands in quotes" if isinstance(value, bool) else value
            raise UsageError(f"{'.'.join((*path, name))} takes a text, got {shown}")
        full[name] = value

    return full


def _renamed(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """`raw` under today's names. Raises UsageError where a key stands there under both names."""
    former, current = former_names(config_class), {}
    for name, value in raw.items():
        today = former.get(name, name)
        if today in current or (today != name and today in raw):
            raise UsageError(f"'{'.'.join((*path, name))}' is the former name of '{today}'; give one of them")
        current[today] = value
    return current


def _today(config_class: type, raw: dict, path: tuple[str, ...]) -> dict:
    """`raw` under today's names, groups of keys too, so that a flag of today's name changes what an old file says."""
    current = _renamed(config_class, raw, path)
    for name, value in current.items():
        inner = _class_at(config_class, name, value)
        if inner and isinstance(value, dict):
            current[name] = _today(inner, value, (*path, name))
    return current


def _todays_key(config_class: type, raw: dict, keys: list[str]) -> list[str]:
    """The parts of a dotted key under today's names; `raw` says which type of a choice they belong to."""
    current: list[str] = []
    inner, tree = config_class, raw
    for key in keys:
        name = former_names(inner).get(key, key) if inner else key
        tree = tree.get(name) if isinstance(tree, dict) else None
        inner = _class_at(inner, name, tree) if inner else None
        current.append(name)
    return current


def _class_at(config_class: type, name: str, value: object) -> type | None:
    """The config class that reads `value` as the field `name`; None where that is no group of keys."""
    item = {item.name: item for item in dataclasses.fields(config_class)}.get(name)
    if item is None:
        return None
    hint = _plain(typing.get_type_hints(config_class)[name])
    if _is_choice(hint):
        kind = value.get("type") if isinstance(value, dict) else value
        return hint.get_known_choices().get(kind) or _default_type(item)
    return hint if dataclasses.is_dataclass(hint) else None


def default_of(item: dataclasses.Field):
    """A field's default; `dataclasses.MISSING` where it has none."""
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _default_type(item: dataclasses.Field) -> type | None:
    default = default_of(item)
    return type(default) if dataclasses.is_dataclass(default) else None


def _chosen(hint, value, item: dataclasses.Field | None, path: tuple[str, ...]) -> dict:
    """The keys of a registered choice; without a type they change the field's default."""
    value = {"type": value} if isinstance(value, str) else value
    choices = hint.get_known_choices()
    if not isinstance(value, dict):
        raise UsageError(f"{'.'.join(path)} must hold keys, got {value!r}")

    # without a type: the default's, under the keys given
    if "type" not in value:
        default = None if item is None else default_of(item)
        if type(default) not in choices.values():
            raise UsageError(f"{'.'.join(path)}.type is missing. Known: {', '.join(sorted(choices)) or 'none'}")
        value = draccus.encode(default) | {"type": hint.get_choice_name(type(default))} | value

    kind = value["type"]
    if kind not in choices:
        raise _unknown("type", (*path, str(kind)), list(choices))
    inner = {key: inner for key, inner in value.items() if key != "type"}
    return {"type": kind} | _complete(choices[kind], inner, path)


def _unknown(what: str, path: tuple[str, ...], names: list[str]) -> UsageError:
    """Name the closest known one; a setting is compared and named with its whole path, a type by its name."""
    wrong = ".".join(path) if what == "setting" else path[-1]
    close = difflib.get_close_matches(wrong, names, 1, 0.5)
    where = "" if what == "setting" else f" for {'.'.join(path[:-1])}"
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return UsageError(f"unknown {what} '{wrong}'{where}.{hint} Known: {', '.join(sorted(names)) or 'none'}")


def _member(hint: type[Enum], value, path: tuple[str, ...]) -> object:
    names = {member.name: member.value for member in hint}
    if value not in names and value not in names.values():
        raise UsageError(f"{'.'.join(path)} cannot be {value!r}. Known: {', '.join(map(str, names.values()))}")
    return names.get(value, value)


def hint_at(config_class: type, keys) -> object:
    """The plain type of a dotted key, or None where it depends on the values."""
    hint: object = config_class
    for key in keys:
        if not dataclasses.is_dataclass(hint):
            return None
        hint = _plain(typing.get_type_hints(hint).get(key))
    return hint


def _plain(hint):
    """`X` of `X | None`; other unions stay."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return inner[0] if len(inner) == 1 else hint
    return hint


def _is_choice(hint) -> bool:
    """Whether `hint` is the base of a registry, not one of its registered members."""
    registry = isinstance(hint, type) and hasattr(hint, "get_known_choices")
    return registry and hint not in hint.get_known_choices().values()


def _kind(hint) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _default(item: dataclasses.Field) -> str:
    default = default_of(item)
    if default is dataclasses.MISSING:
        return ", required"
    return f", default {getattr(default, 'value', default)!r}".replace("''", "none")


def keys_of(config: object) -> dict:
    """A config as plain keys, with its `type` where it is a registered choice."""
    plain = draccus.encode(config)
    return plain | {"type": config.get_choice_name(type(config))} if hasattr(config, "get_choice_name") else plain
