"""A page for each verb, from its settings: what it does, its flags with their types, defaults and comments."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module

from understudy.__main__ import GROUPS
from understudy.configs.plugins import discover
from understudy.configs.protocols import keeps
from understudy.configs.settings.listing import Setting, settings_of
from understudy.configs.verb import Chooses, folders_of, positionals_of
from understudy.eval.catalog import studies

OF_TYPE = re.compile(r" ?\[([\w, |-]+)\]$")  # at the end of a comment: the registered type that has the setting


def pages() -> dict[str, str]:
    """File name -> Markdown: a page for each verb, and one that leads to them."""
    made = {f"{verb}.md": page(verb, place, line) for verbs in GROUPS.values() for verb, (place, line) in verbs.items()}
    return made | {"index.md": index()}


def index() -> str:
    """All verbs, by what they are for."""
    parts = [
        "# Commands\n",
        "`understudy VERB --help` says the same; what all have in common: [commands](../docs/commands.md).\n",
    ]
    for group, verbs in GROUPS.items():
        rows = [f"| [{verb}]({verb}.md) | {_cell(line)} |" for verb, (_, line) in verbs.items()]
        parts.append("\n".join([f"## {group}\n", "| verb | what it does |", "| --- | --- |", *rows, ""]))
    names = "\n".join(verb for verbs in GROUPS.values() for verb in verbs)
    return "\n".join([*parts, f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"])


def page(verb: str, place: str, line: str) -> str:
    """The page of one verb."""
    module, name = place.split(":")
    config = getattr(import_module(f"understudy.{module}"), name)
    parts = [f"# understudy {verb}\n", f"{line[0].upper()}{line[1:]}.\n"]
    if config is studies.StudyVerb:
        return "\n".join([*parts, *_chosen(verb)])
    if keeps(config, Chooses):
        config, _ = config.choose([])
    discover(*folders_of(config))
    words = "".join(f" {word.upper()}" for word in positionals_of(config))
    parts += [f"```text\nunderstudy {verb} [CONFIG.yaml]{words} [--key value ...]\n```\n", f"{_doc(config)}\n"]
    return "\n".join([*parts, *flags(config)])


def _chosen(verb: str) -> Iterator[str]:
    """A section for each thing that the first word chooses."""
    for name, sentence in studies.studies().items():
        yield f"## {name}\n"
        yield f"{sentence}.\n\n```text\nunderstudy {verb} {name} [--key value ...]\n```\n"
        yield from flags(studies.settings_of(name))


def flags(config: type) -> Iterator[str]:
    """Tables of the flags: those of all types, then those that one registered type alone has."""
    if not dataclasses.is_dataclass(config):
        return
    groups: dict[str, list[Setting]] = {"": []}
    for setting in settings_of(config):
        found = OF_TYPE.search(setting.comment)
        group = f"{setting.name.split('.')[0]}.type: {found[1]}" if found and "." in setting.name else ""
        groups.setdefault(group, []).append(setting)
    for group, settings in groups.items():
        if settings:
            yield f"### With `{group}`\n" if group else "## Flags\n" if len(groups) > 1 else ""
            yield table(settings)


def table(settings: Iterable[Setting]) -> str:
    """One row a flag."""
    lines = ["| flag | type | default | |", "| --- | --- | --- | --- |"]
    for setting in settings:
        default = setting.default.removeprefix(", ").removeprefix("default ")
        kind = setting.kind if len(setting.kind) < 80 else "one of many, see the comment"
        shown = default if default in ("", "required") else f"`{_code(default)}`"
        comment = OF_TYPE.sub("", setting.comment)
        lines.append(f"| `--{setting.name}` | `{_code(kind)}` | {shown} | {_cell(comment)} |")
    return "\n".join(lines) + "\n"


def _doc(config: type) -> str:
    return inspect.cleandoc(config.__doc__ or "")


def _code(text: str) -> str:
    return str(text).replace("|", r"\|").replace("`", "'")


def _cell(text: str) -> str:
    """Text in a cell: bars and what Markdown or HTML would read otherwise are escaped."""
    return (
        re.sub(r"([|<>*_\[\]{}])", r"\\\1", " ".join(str(text).split()))
        if "`" not in text
        else text.replace("|", r"\|")
    )
