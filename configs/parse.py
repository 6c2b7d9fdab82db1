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
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path

import draccus
import yaml

from .comments import comments_of
from .former import current_path
from .outline import Outline, inner_of, outlines_of
from .protocols import keeps
from .verb import SpellsOut, positionals_of
from .written import Written, WrittenError, as_text, plain, read, settled

WORDS = ("list[str]", "tuple[str, ...]")  # annotations of fields that take several words


class UsageError(ValueError):
    """The words of the command make no sense; the message says what would."""


class UnknownSettingError(UsageError):
    """No such setting; `path` is where it stands."""

    def __init__(self, message: str, path: tuple[str, ...], names: list[str]):
        super().__init__(message)
        self.path, self.names = path, names


def parse(config_class: type, path: str | None, words: list[str]):
    """An instance of `config_class` from the YAML file `path` (or none) with `words` on top.

    Raises:
        UsageError: a word without a place, a file that is no mapping, an unknown key or registered name (with the
            closest known one), a setting given twice, or a value that its field refuses.
    """
    raw, _ = _given(config_class, path, words, tell=True)
    return decode(config_class, raw)


def check_words(config_class: type, path: str | None, words: list[str]):
    """(what `parse` would give, keys that were given), without groups whose types no imported module registers yet.

    Refuses what can be refused without them: unknown flags and keys, of these groups too, and values of all others.

    Raises:
        UsageError: as `parse`.
    """
    raw, spelled = _given(config_class, path, words)
    full = _decodable(config_class, raw)
    hints = typing.get_type_hints(config_class)
    unfilled = {name for name in full if _is_choice(hint := _plain(hints[name])) and _is_unfilled(hint)}
    for name in unfilled:
        retyped = any(key == name or key.endswith(".type") for key in spelled)  # what is dropped is not known here
        only = frozenset(spelled) if retyped else None
        _check_outlined(config_class, _plain(hints[name]), full[name], (name,), only)
    rest = {name: value for name, value in full.items() if name not in unfilled}
    return _decoded(config_class, rest), frozenset(name for name, value in full.items() if value is not None)


def _given(config_class: type, path: str | None, words: list[str], tell: bool = False) -> tuple[dict, dict[str, str]]:
    """(keys of the file with the words on top, key -> as its flag was written)."""
    raw = _today(config_class, load(path, config_class), ()) if path else {}
    free = list(positionals_of(config_class))

    spelled: dict[str, str] = {}
    dropped: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word.startswith("--"):  # a flag and its value
            key, value = _split(word, queue)
            written = key.replace("-", "_")
            key = ".".join(_todays_key(config_class, raw, written.split(".")))
            _refuse_twice(config_class, key, written, spelled)
            if takes_words(config_class, key, raw) and "=" not in word and not value.startswith("["):
                value, queue = _words_before_flags(value, queue)
        else:  # a bare word
            if not free:
                raise UsageError(_no_place(word))
            key, value = free.pop(0), word
            spelled[key] = key
            if takes_words(config_class, key):
                value, queue = _words_before_flags(value, queue)
        keys = key.split(".")
        read_value = _read(config_class, raw, key, value)
        if retyped := _new_type(config_class, raw, keys, read_value):
            dropped += _drop_unfit(config_class, raw, retyped, tuple(spelled))
        else:
            _put(raw, keys, read_value)

    if dropped and tell:
        verb = "does" if len(dropped) == 1 else "do"
        print(f"{', '.join(dropped)} of {path} {verb} not apply to that type and {verb} not count; the others stay")
    return raw, spelled


def _refuse_twice(config_class: type, key: str, written: str, spelled: dict[str, str]) -> None:
    """Raise UsageError where a setting is given by two flags; note it otherwise."""
    if key not in spelled:
        spelled[key] = written
        return
    if spelled[key] != written:
        raise UsageError(f"--{written} and --{spelled[key]} are the same setting; give one of them")
    together = f"give all its words at once: --{written} A B" if takes_words(config_class, key) else "give it once"
    raise UsageError(f"--{written} is given twice; {together}")


def _no_place(word: str) -> str:
    """What to say of a bare word that no setting takes."""
    close = _close_configs(word) if "/" in word or not word.startswith("-") else []
    hint = f". Did you mean {' or '.join(close[:3])}?" if close else "; flags are written --key value"
    return f"nothing here takes the word '{word}'{hint}"


def _new_type(config_class: type, raw: dict, keys: list[str], value: object) -> tuple[list[str], str] | None:
    """(keys of a registered choice, its new type) where a flag gives the type of one whose keys are there already."""
    if not isinstance(value, str) or value.endswith((".yaml", ".yml")):
        return None
    group = keys[:-1] if keys[-1] == "type" else keys
    if not group or not _is_choice(_hint_of(config_class, raw, group)):
        return None
    return (group, value) if isinstance(_at(raw, group), dict) else None


def _drop_unfit(config_class: type, raw: dict, retyped: tuple[list[str], str], given: tuple[str, ...]) -> list[str]:
    """Give a group of keys another type; the dotted keys that this one does not have, which are taken out."""
    keys, kind = retyped
    group, hint = _at(raw, keys), _hint_of(config_class, raw, keys)
    before = group.get("type")
    group["type"] = kind
    inner = hint.get_known_choices().get(kind)
    if inner is None or kind == before:
        return []
    known = {item.name for item in dataclasses.fields(inner)} | {"type"} | former_names(inner).keys()
    settings = keeps(inner, SpellsOut) and inner.spell_out(dict(group)) or group
    unfit = [name for name in settings if name not in known]
    unfit = [name for name in unfit if ".".join((*keys, name)) not in given]
    for name in unfit:
        group.pop(name, None)
    return [".".join((*keys, name)) for name in unfit]


def _at(tree: object, keys: list[str]) -> object:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


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

    close = _close_configs(str(path))
    folder = named.parent.name if (shipped / named.parent.name).is_dir() and named.parent.name else ""
    beside = [name for name in shipped_configs() if name.startswith(f"configs/{folder}/")]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    known = f" Shipped: {', '.join(beside)}." if beside else ""
    raise FileNotFoundError(f"no config '{path}'.{hint}{known} 'understudy list configs' shows all that are shipped")


def shipped_configs() -> list[str]:
    """The configs that came with the package, as a command takes them: configs/FOLDER/NAME.yaml."""
    shipped = Path(__file__).parent
    return sorted(f"configs/{file.relative_to(shipped)}" for file in shipped.glob("*/*.yaml"))


def _close_configs(word: str) -> list[str]:
    """Shipped configs that a word may mean, best first: it may lack its folder or its `.yaml`; three at most."""
    names, wanted = shipped_configs(), word.removesuffix(".yml").removesuffix(".yaml")
    stems = {name: name.removesuffix(".yaml") for name in names}
    exact = [name for name, stem in stems.items() if stem.endswith(f"/{wanted.lstrip('./')}")]
    if exact:
        return exact[:3]
    whole = difflib.get_close_matches(wanted, stems.values(), 1, 0.8)
    return [f"{stem}.yaml" for stem in whole]


def decode(config_class: type, raw: dict):
    """`raw` as `config_class`. Raises as `parse` does."""
    return _decoded(config_class, _decodable(config_class, raw))


def _decodable(config_class: type, raw: dict) -> dict:
    """Keys and names checked; an unknown key is compared with all settings, wherever they stand."""
    try:
        return _complete(config_class, raw, ())
    except UnknownSettingError as error:
        everything = [setting.name for setting in settings_of(config_class)]
        raise _unknown("setting", error.path, error.names, everything) from None


def _decoded(config_class: type, full: dict):
    """The values as the fields take them, and what is wrong with one in plain words. Raises UsageError."""
    try:
        return draccus.decode(config_class, full)
    except draccus.ParsingError as error:
        raise UsageError(_plainly(config_class, full, error)) from _refusal_of(error)


def decode_choice(base: type, raw: dict):
    """`raw`, with its `type`, as the registered subclass of `base`; keys of earlier versions are read as today's."""
    full = _chosen(base, raw, None, (base.__name__,))
    try:
        return draccus.decode(base, full)
    except draccus.ParsingError as error:
        kind = base.get_choice_class(full["type"])
        raise UsageError(_plainly(kind, full, error)) from _refusal_of(error)


def _refusal_of(error: Exception) -> BaseException | None:
    """What a class of settings complained about; None where the framework did."""
    return None if getattr(error, "key_path", ()) else error.__cause__


def _plainly(config_class: type, full: dict, error: Exception) -> str:
    """What a decoding error says, without the words of the framework."""
    keys = [str(key) for key in getattr(error, "key_path", ())]
    cause = error.__cause__
    if not keys:
        return str(cause or error)
    hint, value = _hint_of(config_class, full, keys), _at(full, keys)
    if hint is None or value is None:
        return f"{'.'.join(keys)}: {cause or getattr(error, 'message', error)}"
    about = comments_of(config_class).get(keys[0], "") if len(keys) == 1 else ""
    return f"{'.'.join(keys)} takes {_wanted(hint)}, got {value!r}" + (f" ({keys[0]}: {about})" if about else "")


def _wanted(hint: object) -> str:
    """What a field takes, in words."""
    simple: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if hint in simple:
        return simple[hint]
    example = _example(hint)
    return f"{example}" if example else _kind(hint)


def _example(hint: object) -> str:
    """A value as one writes it, of a field that takes several."""
    inside, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return next((found for one in inside if (found := _example(one))), "")
    if origin is dict:
        return f"{{NAME: {_example(inside[1]) or 'VALUE'}}}"
    if origin is tuple:
        count = 2 if inside[-1] is Ellipsis else len(inside)
        return f"[{', '.join([_example(inside[0]) or 'WORD'] * count)}]"
    if origin is list:
        return f"[{_example(inside[0]) or 'WORD'}, ...]"
    return {int: "84", float: "0.5", str: "WORD"}.get(hint, "") if isinstance(hint, type) else ""


def former_names(config_class: type) -> dict[str, str]:
    """Keys that earlier versions wrote -> today's, as the class and its bases state in `RENAMED`."""
    names: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        names |= base.__dict__.get("RENAMED", {})
    return names


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


def settings_of(
    config_class: type, prefix: str = "", of: str = "", within: frozenset[type] = frozenset()
) -> Iterator[Setting]:
    """Every key of a config class; the keys that only some registered type of a choice has say which.

    Args:
        within: choices whose keys these are; one within itself is named and not gone into.
    """
    hints = typing.get_type_hints(config_class)
    for item in dataclasses.fields(config_class):
        name, hint = prefix + item.name, _plain(hints[item.name])
        comment = f"{comments_of(config_class).get(item.name, '')}{of}".strip()

        if _is_choice(hint):
            yield from _settings_of_choice(hint, name, comment, within)
        elif dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{name}.", of, within)
        else:
            yield Setting(name, _kind(hint), _default(item), comment)


def _settings_of_choice(hint, name: str, comment: str, within: frozenset[type]) -> Iterator[Setting]:
    """Its type, the keys that all types share, then those of each type alone."""
    choices = hint.get_known_choices()
    known = " | ".join(sorted({*choices, *outlines_of(hint)})) or "none registered"
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


def _split(word: str, queue: list[str]) -> tuple[str, str]:
    """`--key=value`, `--key value` or a bare `--key`, which means true."""
    key, equals, value = word[2:].partition("=")
    if not key:
        raise UsageError(f"'{word}' names no key; flags are written --key value")
    if not equals:
        value = queue.pop(0) if queue and not queue[0].startswith("--") else "true"
    return key, value


def takes_words(config_class: type, key: str, raw: dict | None = None) -> bool:
    """Whether the field holds a list of words, so that it takes all that stand before the next flag.

    Args:
        raw: says which type of a choice a dotted key belongs to.
    """
    if "." not in key:
        field = config_class.__dataclass_fields__.get(key)
        return field is not None and field.type in WORDS
    if raw is None:
        return False
    hint = _hint_of(config_class, raw, key.split("."))
    return hint in (list[str], tuple[str, ...]) or _annotation(config_class, raw, key.split(".")) in WORDS


def _annotation(config_class: type, raw: dict, keys: list[str]) -> str:
    """The annotation of a key of a choice whose registry is not filled yet, by its outline; empty elsewhere."""
    hint = _plain(typing.get_type_hints(config_class).get(keys[0]))
    kind = _at(raw, [keys[0], "type"])
    if not _is_choice(hint) or not _is_unfilled(hint) or len(keys) != 2:
        return ""
    found = outlines_of(hint).get(str(as_text(kind)))
    name = keys[1] if found is None else found.former.get(keys[1], keys[1])
    return "" if found is None else found.fields.get(name, "")


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
    if value.get("type") not in choices and _is_unfilled(hint):  # by `check_words`, before its modules are imported
        return value

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


def _unknown(what: str, path: tuple[str, ...], names: list[str], everywhere: list[str] | None = None) -> UsageError:
    """Name the closest known one; a setting is compared and named with its whole path, a type by its name.

    Args:
        everywhere: all settings, also those of other groups, such as `optimize.lr` for `lr`.
    """
    wrong = ".".join(path) if what == "setting" else path[-1]
    close = _closest(wrong, names, everywhere or ())
    where = "" if what == "setting" else f" for {'.'.join(path[:-1])}"
    hint = f" Did you mean {' or '.join(repr(name) for name in dict.fromkeys(close[:3]))}?" if close else ""
    message = f"unknown {what} '{wrong}'{where}.{hint} Known: {', '.join(sorted(names)) or 'none'}"
    return UnknownSettingError(message, path, names) if what == "setting" else UsageError(message)


def _closest(wrong: str, names: Iterable[str], everywhere: Iterable[str]) -> list[str]:
    """The known names that were most likely meant, compared by their last part; equal ones all, three at most."""
    last, beside = wrong.rpartition(".")[2], set(names)

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, last, name.rpartition(".")[2]).ratio() + 0.01 * (name in beside)

    scores = {name: likeness(name) for name in dict.fromkeys((*names, *everywhere))}
    best = max(scores.values(), default=0.0)
    return [name for name, score in scores.items() if best >= 0.55 and score == best][:3]


def _check_outlined(
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
        raise _unknown("setting", error.path, error.names, everything) from None


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
        raise _unknown("type", (*path, str(kind)), list(kinds))
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
            raise _unknown("setting", (*path, key), [".".join((*path, field)) for field in found.fields])
        inner = inner_of(base, found.fields[name])
        held = {"type": held} if isinstance(held, str) and isinstance(inner, Mapping) else held
        if isinstance(held, dict) and isinstance(inner, Mapping):
            _check_kinds(base, inner, held, (*path, key), only)
        elif isinstance(held, dict) and inner is not None:
            _check_keys(base, inner, held, (*path, key), only)


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


def _is_unfilled(hint) -> bool:
    """Whether modules of ours that register types of this choice are not imported yet."""
    return bool(outlines_of(hint).keys() - hint.get_known_choices().keys())


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
