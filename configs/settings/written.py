"""YAML as it was written: values that YAML 1.1 reads otherwise than people mean keep their text until a field asks.

YAML 1.1 takes `no` for False, `1:30` for 90 and `010` for 8. `read` gives such scalars as `Written`; `plain` settles
them: a field of text takes the text, a number of base 60 or 8 is refused by name, and all else is what YAML says. Tags
that make Python objects are refused, and so is a key given twice. `!include FILE` is relative to the file that says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)")
Find = Callable[[Path, str], Path]  # (folder of the file that includes, what it names) -> the file


class WrittenError(ValueError):
    """A value that reads otherwise than it looks; the message says how to write it."""


@dataclass(frozen=True)
class Written:
    """A scalar without quotes that is no text to YAML 1.1."""

    value: Any  # what YAML says: bool, int, float, date
    text: str


def read(text: str, file: Path | None = None, find: Find = lambda folder, name: folder / name) -> Any:
    """The content of YAML text; scalars that are no text as `Written`.

    Args:
        file: where the text stands; named in errors, and where includes start from.
        find: the file that an `!include` names.
    Raises:
        yaml.YAMLError: no YAML, a tag that is not known, a key given twice, files that include each other.
        OSError: an included file that is not there.
    """
    loader = _Loader(text)
    loader.name = "<words>" if file is None else str(file)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        within = () if file is None else (file.resolve(),)
        return loader.construct_document(_included(node, file, find, within, set()))
    finally:
        loader.dispose()


def plain(content: Any, where: str = "") -> Any:
    """What YAML says of content for which no field asks.

    Raises:
        WrittenError: a number of base 60 or 8.
    """
    if isinstance(content, Written):
        return _number(content, where)
    if isinstance(content, dict):
        return {
            key.text if isinstance(key, Written) and isinstance(key.value, bool) else plain(key, where): plain(
                value, f"{where}.{_text(key)}".lstrip(".")
            )
            for key, value in content.items()
        }
    return [plain(value, where) for value in content] if isinstance(content, list) else content


def as_text(content: Any) -> Any:
    """The text of a scalar; other content as it is."""
    return content.text if isinstance(content, Written) else content


def settled(written: Written, kinds: set[type], where: str) -> Any:
    """A scalar for a field that takes the types `kinds`.

    Raises:
        WrittenError: a number of base 60 or 8, or a truth where a number belongs.
    """
    value, numbers = written.value, bool(kinds & {int, float})
    if isinstance(value, bool):
        if bool in kinds or not kinds & {int, float, str}:
            return value
        if str in kinds:
            return written.text
        raise WrittenError(f"{where} takes a number; '{written.text}' is none")
    if isinstance(value, (int, float)):
        return written.text if str in kinds and not numbers else _number(written, where, "")
    return written.text if str in kinds else value


def _number(written: Written, where: str, otherwise: str = ", or a text in quotes") -> Any:
    """What YAML says. Raises WrittenError for a number of another base than it looks."""
    value, text = written.value, written.text
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    base = "60" if ":" in text else "" if isinstance(value, float) or DECIMAL.fullmatch(text) else _BASES["b" in text]
    if base:
        at = f"{where}: " if where else ""
        raise WrittenError(
            f"{at}'{text}' is a number of base {base} to YAML and would be read as {value}; write the decimal"
            f" number{otherwise}"
        )
    return value


_BASES = ("8", "2")


def _text(key: Any) -> str:
    return str(as_text(key))


class _Loader(yaml.SafeLoader):
    """The safe loader, with scalars as `Written` and keys that are given once."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                first, again = seen[key.tag, key.value], key.start_mark
                raise yaml.constructor.ConstructorError(f"the key '{key.value}' is given twice", first, "again", again)
            seen[key.tag, key.value] = key.start_mark
        return node


def _scalar(kind: str) -> Callable[[_Loader, yaml.ScalarNode], Written]:
    make = yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]
    return lambda loader, node: Written(make(loader, node), node.value)


for _kind in ("bool", "int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _scalar(_kind))
_Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.yaml_constructors["tag:yaml.org,2002:str"])


def _included(node: yaml.Node, file: Path | None, find: Find, within: tuple[Path, ...], seen: set[int]) -> yaml.Node:
    """The node with the contents of included files in place of their names; `seen` are the nodes that have been."""
    if node.tag == "!include" and isinstance(node, yaml.ScalarNode):
        path = find(Path() if file is None else file.parent, node.value)
        if path.resolve() in within:
            raise yaml.constructor.ConstructorError(None, None, f"{path} includes itself", node.start_mark)
        loader = _Loader(path.read_text())
        loader.name = str(path)
        try:
            inner = loader.get_single_node()
        finally:
            loader.dispose()
        nothing = yaml.ScalarNode("tag:yaml.org,2002:null", "null", node.start_mark, node.end_mark)
        return nothing if inner is None else _included(inner, path, find, (*within, path.resolve()), seen)

    if id(node) in seen:  # an alias
        return node
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        node.value = [(key, _included(value, file, find, within, seen)) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        node.value = [_included(value, file, find, within, seen) for value in node.value]
    return node
