"""A config file and the words of a command line become one frozen dataclass.

The file is YAML; `--a.b value` overrides one key of it; a bare word fills the next field of the class's `POSITIONALS`;
a field of several words takes all up to the next flag. How keys are read and checked is in `settings/`.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import yaml

from .hints import hints_of
from .protocols import keeps
from .settings.decode import check_outlined, completed, decode, decoded
from .settings.fields import choices_of, is_choice, is_unfilled, takes_words, type_at, value_at, without_none
from .settings.load import load, meant
from .settings.refusals import UsageError
from .settings.renamed import current_key, current_tree, former_names
from .settings.shipped import close_configs
from .settings.written import WrittenError, read
from .verb import SpellsOut, positionals_of


def parse(config_class: type, path: str | None, words: list[str]):
    """An instance of `config_class` from the YAML file `path` (or none) with `words` on top.

    Raises:
        UsageError: a word without a place, a file that is no mapping, an unknown key or registered name (with the
            closest known one), a setting given twice, or a value that its field refuses.
    """
    raw = _given(config_class, path, words, tell=True)
    return decode(config_class, raw)


def check_words(config_class: type, path: str | None, words: list[str]):
    """(what `parse` would give, keys that were given), without groups whose types no imported module registers yet.

    Refuses what can be refused without them: unknown flags and keys, and values of another type, of these groups too.

    Raises:
        UsageError: as `parse`.
    """
    raw = _given(config_class, path, words)
    full = completed(config_class, raw)
    hints = hints_of(config_class)
    unfilled = {name for name in full if is_choice(hint := without_none(hints[name])) and is_unfilled(hint)}
    for name in unfilled:
        check_outlined(config_class, full, name)
    rest = {name: value for name, value in full.items() if name not in unfilled}
    return decoded(config_class, rest), frozenset(name for name, value in full.items() if value is not None)


def _given(config_class: type, path: str | None, words: list[str], tell: bool = False) -> dict:
    """Keys of the file with the words on top, in whatever order they are given."""
    raw = current_tree(config_class, load(path, config_class), ()) if path else {}
    spelled: dict[str, str] = {}  # key -> as its flag was written

    heads, dropped = _put_heads(config_class, raw, words, spelled, path)
    _put_rest(config_class, raw, words, spelled, heads)

    if dropped and tell:
        verb = "does" if len(dropped) == 1 else "do"
        print(f"{', '.join(dropped)} of {path} {verb} not apply to that type and {verb} not count; the others stay")
    return raw


def _put_heads(
    config_class: type, raw: dict, words: list[str], spelled: dict[str, str], path: str | None
) -> tuple[set[int], list[str]]:
    """Put what other flags stand upon, groups before what is in them: types, and groups given as one value.

    Returns:
        (places of their flags among the words, dotted keys of the file that the new types do not have)
    """
    keys_at = {i: _key(config_class, raw, word) for i, word in enumerate(words) if word.startswith("--")}
    within = {i: [key for key in keys_at.values() if key.startswith(f"{head}.")] for i, head in keys_at.items()}
    heads = [i for i, key in keys_at.items() if key.endswith(".type") or within[i]]
    placed: set[int] = set()
    dropped: list[str] = []

    for i in sorted(heads, key=lambda i: keys_at[i].removesuffix(".type").count(".")):
        _, value = _split(words[i], words[i + 1 : i + 2])
        written = _written(words[i])
        key = ".".join(current_key(config_class, raw, written.split(".")))
        if takes_words(config_class, key, raw):
            raise UsageError(f"--{within[i][0]}: '{key}' is no group of keys")
        _refuse_twice(config_class, key, written, spelled)
        keys, whole = key.split("."), _read(config_class, raw, key, value)
        _refuse_clash(key, whole, within[i])
        if within[i] and _is_file(whole):
            whole = _group(whole)
        if retyped := _new_type(config_class, raw, keys, whole):
            dropped += _drop_unfit(config_class, raw, retyped)
        else:
            _put(raw, keys, whole)
        placed.add(i)
    return placed, dropped


def _put_rest(config_class: type, raw: dict, words: list[str], spelled: dict[str, str], heads: set[int]) -> None:
    """Put the bare words, and the flags but those at the places `heads`."""
    free = list(positionals_of(config_class))
    queue = list(words)
    value: str | list[str]
    while queue:
        place, word = len(words) - len(queue), queue.pop(0)
        if word.startswith("--"):  # a flag and its value
            _, value = _split(word, queue)
            if place in heads:
                continue
            written = _written(word)
            key = ".".join(current_key(config_class, raw, written.split(".")))
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
        _put(raw, key.split("."), _read(config_class, raw, key, value))


def _refuse_clash(key: str, whole: object, within: list[str]) -> None:
    """Raise UsageError where flags of a group say what the value of the whole group excludes."""
    if not within:
        return
    if whole is None:
        raise UsageError(f"--{key} null and --{within[0]} exclude each other; give one of them")
    if isinstance(whole, str) and f"{key}.type" in within and not _is_file(whole):
        raise UsageError(f"--{key} {whole} and --{key}.type are the same setting; give one of them")


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
    close = close_configs(word) if "/" in word or not word.startswith("-") else []
    hint = f". Did you mean {' or '.join(close[:3])}?" if close else "; flags are written --key value"
    return f"nothing here takes the word '{word}'{hint}"


def _new_type(config_class: type, raw: dict, keys: list[str], value: object) -> tuple[list[str], str] | None:
    """(keys of a registered choice, its new type) where a flag gives the type of one whose keys are there already."""
    if not isinstance(value, str) or _is_file(value):
        return None
    group = keys[:-1] if keys[-1] == "type" else keys
    if not group or not is_choice(type_at(config_class, raw, group)):
        return None
    return (group, value) if isinstance(value_at(raw, group), dict) else None


def _drop_unfit(config_class: type, raw: dict, retyped: tuple[list[str], str]) -> list[str]:
    """Give a group of keys another type; the dotted keys that this one does not have, which are taken out."""
    keys, kind = retyped
    group, hint = value_at(raw, keys), type_at(config_class, raw, keys)
    before = group.get("type")
    group["type"] = kind
    inner = choices_of(hint).get(kind)
    if inner is None or kind == before:
        return []
    known = {item.name for item in dataclasses.fields(inner)} | {"type"} | former_names(inner).keys()
    settings = keeps(inner, SpellsOut) and inner.spell_out(dict(group)) or group
    unfit = [name for name in settings if name not in known]
    for name in unfit:
        group.pop(name, None)
    return [".".join((*keys, name)) for name in unfit]


def _written(word: str) -> str:
    """The key of a flag, with underscores."""
    return word[2:].partition("=")[0].replace("-", "_")


def _key(config_class: type, raw: dict, word: str) -> str:
    """The dotted key of a flag under today's names, as far as they are plain without the other flags."""
    return ".".join(current_key(config_class, raw, _written(word).split(".")))


def _split(word: str, queue: list[str]) -> tuple[str, str]:
    """`--key=value`, `--key value` or a bare `--key`, which means true."""
    key, equals, value = word[2:].partition("=")
    if not key:
        raise UsageError(f"'{word}' names no key; flags are written --key value")
    if not equals:
        value = queue.pop(0) if queue and not queue[0].startswith("--") else "true"
    return key, value


def _words_before_flags(first: str, queue: list[str]) -> tuple[list[str], list[str]]:
    cut = next((i for i, word in enumerate(queue) if word.startswith("--")), len(queue))
    return [first, *queue[:cut]], queue[cut:]


def _read(config_class: type, raw: dict, key: str, value):
    """Text fields take the word as it stands (`--out 007`); everything else is read as YAML."""
    if not isinstance(value, str):
        return value
    hint = type_at(config_class, raw, key.split("."))
    if hint in (str, Path) and value not in ("null", ""):
        return value
    try:
        return "" if value == "" else meant(hint, read(value), key)
    except (yaml.YAMLError, WrittenError, OSError) as error:
        said = str(error).removeprefix(f"{key}: ")
        if isinstance(error, yaml.YAMLError) and value[0] in "'\"":
            said = "it begins with a quote, which YAML takes for the whole; begin it with another word"
        raise UsageError(f"--{key} cannot read '{value}': {said}") from error


def _is_file(value: object) -> bool:
    """Whether a group of keys is given by a file that holds them."""
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def _group(value: str) -> dict:
    """The keys that a text stands for: those of a file, or a type."""
    return load(os.path.expandvars(value)) if _is_file(value) else {"type": value}


def _put(tree: dict, keys: list[str], value) -> None:
    for key in keys[:-1]:
        inner = tree.get(key)
        if isinstance(inner, str):
            inner = _group(inner)
        tree[key] = inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise UsageError(f"--{'.'.join(keys)}: '{key}' is no group of keys")
        tree = inner
    tree[keys[-1]] = value
