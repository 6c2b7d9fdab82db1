"""The words of a command line that ask for given settings: what `parse` turns into settings, the other way round.

Every report that tells a reader what to run makes its command here, so that it can be run as it stands.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import draccus
import yaml

from .settings.fields import default_of, hint_at, takes_words
from .verb import positionals_of


def command_of(settings: object, verb: str, without: Collection[str] = ()) -> str:
    """What a reader types for these settings of a verb, quoted for a shell, on one line; see `words_of`."""
    return shlex.join(["understudy", *verb.split(), *words_of(settings, without)])


def words_of(settings: object, without: Collection[str] = ()) -> list[str]:
    """The words that `parse` reads as these settings: bare ones, then flags in the order of the fields.

    What is as usual is left out, and so are the fields named in `without`.
    """
    config_class = type(settings)
    changed = {name: value for name, value in _changed(settings) if name not in without}

    words: list[str] = []
    for name in positionals_of(config_class):
        bare = _bare(config_class, name, changed.get(name))
        if not bare or (not words and bare[0].endswith((".yaml", ".yml"))):  # such a first word is the config
            break
        del changed[name]
        words += bare
        if takes_words(config_class, name):
            break

    for name, value in changed.items():
        words += _flag(config_class, (name,), value)
    return words


def _changed(config: Any) -> Iterator[tuple[str, object]]:
    """(name, value) of the fields that differ from their default, or have none."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value != default_of(item):
            yield item.name, value


def _bare(config_class: type, name: str, value) -> list[str]:
    """The words for a positional field; none where bare words cannot say it."""
    if value is None:
        return []
    words = [str(word) for word in value] if takes_words(config_class, name) else [_word(config_class, (name,), value)]
    return [] if any(word.startswith("--") for word in words) else words


def _flag(config_class: type, keys: tuple[str, ...], value) -> list[str]:
    """`--key value`, also of a list of words; a group of keys gives a flag for each that is not as its class has it."""
    key = f"--{'.'.join(keys)}"
    if dataclasses.is_dataclass(value):
        words = [f"{key}.type", value.get_choice_name(type(value))] if hasattr(value, "get_choice_name") else []
        for name, part in _changed(value):
            words += _flag(config_class, (*keys, name), part)
        return words or [f"{key}={{}}"]

    if value is True:
        return [key]
    if len(keys) == 1 and takes_words(config_class, keys[0]) and value:
        plain = not value[0].startswith("[") and not any(word.startswith("--") for word in value)
        return [key, *value] if plain else [f"{key}={_yaml(list(value))}"]

    word = _word(config_class, keys, value)
    return [f"{key}={word}"] if word.startswith("--") else [key, word]


def _word(config_class: type, keys: tuple[str, ...], value) -> str:
    """A value as one word, as `parse` reads it back."""
    if isinstance(value, (str, Path)) and hint_at(config_class, keys) in (str, Path):
        return str(value)
    return _yaml(draccus.encode(value))


def _yaml(value) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
