"""Help explains every flag: the comment of a field is found wherever a formatter put it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import pytest

from understudy.__main__ import VERBS
from understudy.configs.help import describe
from understudy.configs.plugins import discover
from understudy.configs.settings.comments import comments_of
from understudy.configs.settings.listing import settings_of
from understudy.configs.verb import folders_of
from understudy.eval.catalog import studies


@dataclass(frozen=True)
class Base:
    """Not of a field."""

    width: int = 3  # of the base


# fmt: off
@dataclass(frozen=True)
class Odd(Base):
    """Every place for a comment."""

    # of the class, not of what follows

    beside: int = 1  # on its line
    bracket: int | None = (
        None  # in a bracket
    )
    after: tuple[int, ...] = (
        1,
        2,
    )  # behind the bracket
    spread: dict = (
        None  # over
    )  # two lines
    # on lines of
    # its own
    above: str = "# no comment"
    below: int = 0
    """A text
    below it."""
    silent: str = ""
    hushed: str = ""  # type: ignore[misc]  # what it is
    width: int = 4
# fmt: on


def test_comments_are_found_in_every_place():
    assert comments_of(Odd) == {
        "width": "of the base",
        "beside": "on its line",
        "bracket": "in a bracket",
        "after": "behind the bracket",
        "spread": "over two lines",
        "above": "on lines of its own",
        "below": "A text below it.",
        "hushed": "what it is",
    }
    line = next(line for line in describe(Odd, "odd").splitlines() if "--bracket" in line)
    assert line.split() == ["--bracket", "N", "in", "a", "bracket"]


def test_a_class_without_a_file_has_none():
    made = dataclass(type("Made", (), {"__annotations__": {"a": int}, "a": 1}))
    assert comments_of(made) == {} and [one.name for one in settings_of(made)] == ["a"]


def bare_flags(config_class):
    discover(*folders_of(config_class))
    return [one.name for one in settings_of(config_class) if not one.comment or one.comment.startswith("[")]


@pytest.mark.parametrize("verb", VERBS)
def test_no_flag_of_a_verb_lacks_an_explanation(verb):
    module, name = VERBS[verb][0].split(":")
    assert not bare_flags(getattr(import_module(f"understudy.{module}"), name)), "write a comment beside these fields"


@pytest.mark.parametrize("study", studies.studies())
def test_no_flag_of_a_study_lacks_an_explanation(study):
    assert not bare_flags(studies.settings_of(study)), "write a comment beside these fields"
