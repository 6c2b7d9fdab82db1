"""What a class of settings may have beside its fields: each is optional, and asked for by `protocols.keeps`.

A verb is such a class with `run()`. All methods here but `run` are class methods of it.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from .protocols import keeps


@runtime_checkable
class Discovers(Protocol):
    """It uses registered names."""

    DISCOVER: tuple[str, ...]  # folders of ours whose registries it needs


@runtime_checkable
class TakesWords(Protocol):
    """Bare words of the command line fill some of its fields."""

    POSITIONALS: tuple[str, ...]  # names of fields, in the order of the words


@runtime_checkable
class SpellsOut(Protocol):
    """There are short ways of writing it."""

    def spell_out(self, raw: dict) -> dict:
        """The keys of a file as the fields want them. Raises ValueError."""
        ...


@runtime_checkable
class Chooses(Protocol):
    """It stands for other classes, by the first word."""

    def choose(self, words: list[str]) -> tuple[type, str]:
        """Take the word off; the class that the other words are for, and its name."""
        ...


@runtime_checkable
class FromWords(Protocol):
    """It reads its words by a grammar of its own."""

    def from_words(self, words: list[str]) -> Any:
        """The settings. Raises UsageError."""
        ...


@runtime_checkable
class Explains(Protocol):
    """It has a help of its own."""

    def explain(self, command: str, words: list[str]) -> str:
        """The help that the words beside `--help` ask for. Raises UsageError or LookupError."""
        ...


@runtime_checkable
class ChecksNames(Protocol):
    """It can refuse names and paths before registries are filled and anything heavy is imported."""

    def check_names(self) -> None:
        """Raise ValueError or OSError naming the setting. No class method."""
        ...


@runtime_checkable
class GetsReady(Protocol):
    """Something can begin, in processes of its own, while this one imports what is heavy."""

    def get_ready(self) -> None:
        """Begin it; called after `check_names`. No class method."""
        ...


def folders_of(config_class: type) -> tuple[str, ...]:
    """Folders of ours whose registries a class of settings needs."""
    return config_class.DISCOVER if keeps(config_class, Discovers) else ()


def positionals_of(config_class: type) -> tuple[str, ...]:
    """Names of the fields that bare words fill, in their order."""
    return config_class.POSITIONALS if keeps(config_class, TakesWords) else ()
