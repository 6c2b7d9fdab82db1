"""Which settings the registered types of a folder have, read from its sources: nothing is imported, torch above all.

It serves quick refusals only. What is read here says of a key that no such setting exists; whether a value fits is
said by the class itself, later. A class is found by its name among the files of the folder that define settings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Outline:
    """A class of settings as its source has it."""

    fields: Mapping[str, str]  # name -> annotation
    former: Mapping[str, str]  # names that are still read -> today's
    short: frozenset[str]  # words in its `spell_out`, which may be further keys


def outlines_of(base: type) -> Mapping[str, Outline]:
    """Registered name -> its settings, of a registry of ours that is not filled yet; empty for others'."""
    if base.__module__.partition(".")[0] != __package__.partition(".")[0]:
        return {}
    sources = _sources_of(base)
    return {kind: outline(sources, name) for kind, name in _registered(sources, base.__name__).items()}


def inner_of(base: type, annotation: str) -> Outline | Mapping[str, Outline] | None:
    """What an annotation stands for: a class of settings, a registry (by type), or None where it is neither."""
    name = annotation.removesuffix("| None").strip()
    sources = _sources_of(base)
    kinds = _registered(sources, name)
    if kinds:
        return {kind: outline(sources, held) for kind, held in kinds.items()}
    return outline(sources, name) if name in sources else None


def outline(sources: Mapping[str, ast.ClassDef], name: str) -> Outline:
    """A class with what it has of its bases, as far as they are among the sources."""
    fields: dict[str, str] = {}
    former: dict[str, str] = {}
    short: frozenset[str] = frozenset()
    node = sources.get(name)
    if node is None:
        return Outline(fields, former, short)
    for base in reversed(node.bases):
        held = outline(sources, ast.unparse(base).rpartition(".")[2])
        fields |= held.fields
        former |= held.former
        short |= held.short
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation = ast.unparse(statement.annotation)
            if statement.target.id == "RENAMED" and isinstance(statement.value, ast.Dict):
                former |= dict(_texts(statement.value))
            elif not annotation.startswith("ClassVar"):
                fields[statement.target.id] = annotation
        elif isinstance(statement, ast.FunctionDef) and statement.name == "spell_out":
            constants = (part.value for part in ast.walk(statement) if isinstance(part, ast.Constant))
            short |= frozenset(value for value in constants if isinstance(value, str))
    return Outline(fields, former, short)


def _sources_of(base: type) -> Mapping[str, ast.ClassDef]:
    """Classes of the folder that a registry of ours lies in, and of those that it says its types lie in (`FOLDERS`)."""
    root, own = Path(__file__).parents[2], base.__module__.split(".")[1]
    folders = dict.fromkeys((own, *getattr(base, "FOLDERS", ())))
    return {name: node for folder in folders for name, node in _sources(root / folder).items()}


@cache
def _sources(folder: Path) -> Mapping[str, ast.ClassDef]:
    """Name -> class, of the files of a folder that may define settings."""
    texts = (file.read_text() for file in sorted(folder.rglob("*.py")))
    trees = (ast.parse(text) for text in texts if "kw_only=True" in text or "register_subclass" in text)
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _registered(sources: Mapping[str, ast.ClassDef], base: str) -> dict[str, str]:
    """Registered name -> name of the class, of what is registered under a base."""
    found = {}
    for name, node in sources.items():
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == f"{base}.register_subclass" and call.args:
                found[str(ast.literal_eval(call.args[0]))] = name
    return found


def _texts(node: ast.Dict) -> Iterator[tuple[str, str]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
            yield str(key.value), str(value.value)
