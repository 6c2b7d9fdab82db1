"""The studies, found by folder: every file of `eval/studies/` is one that `understudy study NAME` runs.

A study is a docstring, whose first sentence lists show, and one frozen dataclass of settings with `run()`. Its name is
the file's. Nothing else lists it, and none is imported before it is chosen.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from ...configs.plugins import lookup

FOLDER = Path(__file__).parents[1] / "studies"
SENTENCE = re.compile(r"(.+?)[.?]( |$)")


def studies() -> Mapping[str, str]:
    """Name -> first sentence of the file, by name."""
    files = sorted(file for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))
    return {file.stem: first_sentence(file) for file in files}


def first_sentence(file: Path) -> str:
    """Of the docstring of a module, which is not imported."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split())
    match = SENTENCE.match(text)
    return match[1] if match else text


def settings_of(name: str) -> type:
    """The class of settings of a study.

    Raises:
        LookupError: no such study, naming the known ones; or a file without one class of settings.
    """
    lookup("study", name, studies())
    module = import_module(f"..studies.{name}", __package__)
    classes = list(_settings_in(module))
    if len(classes) != 1:
        raise LookupError(f"{module.__file__} must hold one dataclass with run(), found {len(classes)}")
    return classes[0]


def _settings_in(module: ModuleType) -> Iterator[type]:
    for value in vars(module).values():
        own = isinstance(value, type) and value.__module__ == module.__name__
        runs = dataclasses.is_dataclass(value) and hasattr(value, "run")
        if own and runs:
            yield value


def _listed() -> str:
    sentences = studies()
    width = max(map(len, sentences))
    return "\n".join(f"  {name:<{width}} {sentence}" for name, sentence in sentences.items())


@dataclass(frozen=True, kw_only=True)
class StudyVerb:
    """Run a reproducible experiment of eval/studies; `understudy study NAME --help` shows its flags."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("name",)

    name: str = ""  # one of those listed above; none: list them

    @classmethod
    def choose(cls, words: list[str]) -> tuple[type, str]:
        """Take the name off the words. Returns whose settings the others are, and the name; itself where none is given.

        Raises:
            LookupError: no such study, naming the known ones.
        """
        if not words or words[0].startswith("-"):
            return cls, ""
        name = words.pop(0).replace("-", "_")
        return settings_of(name), name

    def run(self) -> None:
        print(_listed())


StudyVerb.__doc__ = f"{StudyVerb.__doc__}\n\n{_listed()}"  # the help of the verb
