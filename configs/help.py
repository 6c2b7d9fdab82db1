"""The help of a verb: how it is called, and a line for each flag. Long ones show the flags that most need, and say how
to see the others: `train --help policy flow`, `train CONFIG.yaml --help`, `train --help all`.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from .settings.listing import Setting, settings_of
from .verb import positionals_of

SPELLING = "Flags are named as the keys of a config file; --keep-failures and --keep_failures are the same."
WIDTH = 34  # columns of a flag with the placeholder of its value
FLAG = ("--help", "-h")


def describe(config_class: type, command: str) -> str:
    """The help of a verb: its docstring, then a line for every field with comment and default."""
    return "\n".join([*_head(config_class, command), "", *lines_of(settings_of(config_class)), "", SPELLING])


def summary(
    config_class: type, command: str, examples: Sequence[str], common: Iterable[str], further: Sequence[str]
) -> str:
    """A help on one screen: examples, the flags named in `common`, and how to see the others."""
    known = {setting.name: setting for setting in settings_of(config_class)}
    chosen = [known[name] for name in common]
    parts = [*_head(config_class, command), "", *(f"  {example}" for example in examples), "", "common flags:"]
    return "\n".join([*parts, *lines_of(chosen), "", "more:", *further, "", SPELLING])


def lines_of(settings: Iterable[Setting]) -> list[str]:
    """One entry a setting, wrapped where somebody looks at a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else 10_000
    lines = []
    for setting in settings:
        flag = f"  --{setting.name} {_placeholder(setting)}".rstrip()
        about = f"{setting.comment} {_ending(setting)}".strip()
        flag = f"{flag:<{WIDTH}}  " if len(flag) <= WIDTH else f"{flag}  "
        lines += textwrap.wrap(flag + about, max(width, 72), subsequent_indent=" " * (WIDTH + 2)) or [flag]
    return lines


def _head(config_class: type, command: str) -> list[str]:
    bare = "".join(f" {name.upper()}" for name in positionals_of(config_class))
    usage = f"usage: {command} [CONFIG.yaml]{bare} [--key value ...]"
    return [usage, "", (config_class.__doc__ or "").strip()]


def _placeholder(setting: Setting) -> str:
    """What stands for the value of a flag."""
    plain = setting.kind.removesuffix(" | None")
    if plain == "bool":
        return "BOOL" if setting.default.endswith("True") else ""
    if setting.name.endswith(".type"):
        return "TYPE"
    if plain in ("list[str]", "tuple[str, ...]"):
        return "WORD ..."
    if plain.startswith(("dict[", "tuple[", "list[")) or "dict" in plain.split(" | ")[0:1]:
        return "VALUE"
    return {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}.get(plain, "VALUE")


def _ending(setting: Setting) -> str:
    default = setting.default.removeprefix(", ")
    if default == "required":
        return "(required)"
    default = default.removeprefix("default ")
    said = not default or default in ("None", "none", "{}", "()", "False") or "default" in setting.comment
    return "" if said else f"(default {default})"
