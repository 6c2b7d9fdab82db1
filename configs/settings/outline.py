"""The settings of registered types as classes made from their sources: nothing is imported, torch above all.

They serve quick refusals. An outline has the fields of the class, their types and which of them have defaults, so that
keys and values are read and checked as the class itself would have them; what its code says of values is not known. A
class is found by its name among the files of the folder that define settings.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import draccus

UNKNOWN = None  # the default of a field whose source has one, which is not evaluated
MARKS = ("kw_only=True", "register_subclass", "(Enum)")  # files with one of these may define settings
CLASS = re.compile(r"^(?P<decorators>(?:@.*\n)*)class (?P<name>\w+).*\n(?:(?:[ \t].*)?\n)*", re.MULTILINE)
REGISTERED = re.compile(r'^@(\w+)\.register_subclass\("([^"]+)"\)', re.MULTILINE)
STATED = ("RENAMED", "SYNONYMS")  # what a class says of its keys and values beside its fields, literally


@cache
def registered_names(base: type) -> frozenset[str]:
    """The names that are registered under a base of ours, imported or not; none of others' bases."""
    return frozenset(_sources_of(base).registered(base.__name__)) if _is_ours(base) else frozenset()


@cache
def outlines_of(base: type) -> Mapping[str, type]:
    """Registered name -> outline, of all types of ours that are registered under a base."""
    if not _is_ours(base):
        return {}
    sources = _sources_of(base)
    names = _Names(sources, vars(sys.modules[base.__module__]))
    return {kind: names[name] for kind, name in sources.registered(base.__name__).items()}


def is_outline(kind: type) -> bool:
    """Whether a class of settings was made here, so that the values of its defaults are not known."""
    return getattr(kind, "OUTLINE", False)


class _Names(dict):
    """What a name in an annotation stands for, made when it is asked for."""

    def __init__(self, sources: _Sources, imported: Mapping[str, Any]):
        super().__init__()
        self.sources, self.imported = sources, imported

    def __missing__(self, name: str) -> Any:
        if kinds := self.sources.registered(name):
            made: Any = type(name, (draccus.ChoiceRegistry,), {"OUTLINE": True})
            for kind, held in kinds.items():
                made.register_subclass(kind, self[held])
        elif name not in self.sources:
            made = self.imported[name]
        else:
            made = self._of_source(self.sources.node(name))
        self[name] = made
        return made

    def _of_source(self, node: ast.ClassDef) -> Any:
        if any(ast.unparse(base) == "Enum" for base in node.bases):
            return Enum(node.name, _members(node))
        if not any(ast.unparse(decorator).startswith("dataclass") for decorator in node.decorator_list):
            return Any
        fields, stated = _content(self.sources, node)
        made = [(name, self._type(field.annotation), self._default(field)) for name, field in fields.items()]
        held = stated | {"OUTLINE": True}
        return dataclasses.make_dataclass(node.name, made, namespace=held, kw_only=True, repr=False, eq=False)

    def _type(self, annotation: ast.expr) -> Any:
        """What an annotation says; anything, where it names something unknown."""
        try:
            return self._meant(annotation)
        except KeyError:
            return Any

    def _meant(self, said: ast.expr) -> Any:
        """The type that an annotation is; no source is run. Raises KeyError where it names something unknown."""
        match said:
            case ast.Name(id=name):
                try:
                    return self[name]
                except KeyError:
                    return vars(builtins)[name]
            case ast.Constant(value=value):
                return value
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._meant(left) | self._meant(right)
            case ast.Subscript(value=whole, slice=inside):
                return self._meant(whole)[self._meant(inside)]
            case ast.Tuple(elts=several):
                return tuple(map(self._meant, several))
            case ast.List(elts=several):
                return list(map(self._meant, several))
        raise KeyError(ast.unparse(said))

    def _default(self, field: ast.AnnAssign) -> Any:
        """A field with a default if the source has one: that of a group of keys is of its class, others are UNKNOWN."""
        if field.value is None or ast.unparse(field.value) == "field()":
            return dataclasses.field()
        name = _class_made(field.value)
        kind = self[name] if name in self.sources else None
        if kind is not None and is_outline(kind) and not _required(kind):
            return dataclasses.field(default_factory=kind)
        return dataclasses.field(default_factory=lambda: UNKNOWN)


def _required(kind: Any) -> list[str]:
    """Fields of an outline that have no default."""
    return [item.name for item in dataclasses.fields(kind) if item.default_factory is dataclasses.MISSING]


def _class_made(value: ast.expr) -> str:
    """The class that a default is an instance of: `Times` of `Times()` and of `field(default_factory=Times)`."""
    if not isinstance(value, ast.Call):
        return ""
    factory = [word.value for word in value.keywords if word.arg == "default_factory"]
    return ast.unparse(factory[0] if factory else value.func)


def _content(sources: _Sources, node: ast.ClassDef) -> tuple[dict[str, ast.AnnAssign], dict[str, dict]]:
    """(fields, what is `STATED`) of a class with what it has of its bases, as far as they are among the sources."""
    fields: dict[str, ast.AnnAssign] = {}
    stated: dict[str, dict] = {name: {} for name in STATED}
    for base in reversed(node.bases):
        held = ast.unparse(base)
        if held in sources:
            inherited, said = _content(sources, sources.node(held))
            fields |= inherited
            stated = {name: stated[name] | said[name] for name in STATED}

    for statement in node.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        name = statement.target.id
        if name in STATED and statement.value is not None:
            stated[name] |= ast.literal_eval(statement.value)
        elif not ast.unparse(statement.annotation).startswith("ClassVar"):
            fields[name] = statement
    return fields, stated


def _members(node: ast.ClassDef) -> list[tuple[str, Any]]:
    """Names and values of an enum."""
    lines = (line for line in node.body if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name))
    return [(ast.unparse(line.targets[0]), ast.literal_eval(line.value)) for line in lines]


def _is_ours(base: type) -> bool:
    return base.__module__.partition(".")[0] == __package__.partition(".")[0] and not is_outline(base)


@cache
def _sources_of(base: type) -> _Sources:
    """The folder that a registry of ours lies in, and those that it says its types lie in (`FOLDERS`)."""
    root, own = Path(__file__).parents[2], base.__module__.split(".")[1]
    return _Sources(root / folder for folder in dict.fromkeys((own, *getattr(base, "FOLDERS", ()))))


class _Sources:
    """The classes of the files of some folders that may define settings."""

    def __init__(self, folders: Iterable[Path]):
        self._texts: dict[str, str] = {}  # name of a class -> its source
        self._kinds: dict[str, dict[str, str]] = {}  # base -> registered name -> name of the class
        for file in (file for folder in folders for file in sorted(folder.rglob("*.py"))):
            text = file.read_text()
            if any(mark in text for mark in MARKS):
                for block in CLASS.finditer(text):
                    self._texts[block["name"]] = block[0]
                    for base, kind in REGISTERED.findall(block["decorators"]):
                        self._kinds.setdefault(base, {})[kind] = block["name"]

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    def node(self, name: str) -> ast.ClassDef:
        """The class of this name."""
        (node,) = ast.parse(self._texts[name]).body
        assert isinstance(node, ast.ClassDef)
        return node

    def registered(self, base: str) -> dict[str, str]:
        """Registered name -> name of the class, of what is registered under a base."""
        return self._kinds.get(base, {})
