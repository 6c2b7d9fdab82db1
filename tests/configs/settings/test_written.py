"""YAML and flags that read otherwise than they look: the field settles them, or they are refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import pytest

from understudy.configs.parse import parse
from understudy.configs.settings.load import load
from understudy.configs.settings.refusals import UsageError


class Kind(Enum):
    no = "no"
    half = "bf16"


@dataclass(frozen=True)
class Part:
    name: str = "a"
    count: int = 1
    RENAMED = {"number": "count"}


@dataclass(frozen=True)
class Settings:
    steps: int = 1
    name: str = "x"
    other: str | None = None
    rate: float = 0.1
    quick: bool = False
    kind: Kind = Kind.half
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    free: dict = field(default_factory=dict)
    source: dict | str = ""
    part: Part = field(default_factory=Part)


def of(text, tmp_path, key):
    (tmp_path / "c.yaml").write_text(text + "\n")
    return getattr(parse(Settings, str(tmp_path / "c.yaml"), []), key)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name: no", "no"),
        ("name: yes", "yes"),
        ("name: 007", "007"),
        ("name: 1:30", "1:30"),
        ("name: true", "true"),
        ("name: 1.50", "1.50"),
        ("name: 2026-01-02", "2026-01-02"),
        ("name: =", "="),
        ("name: null", "x"),
        ("name:", "x"),
        ("steps: ~", 1),
        ("other: null", None),
        ("other: off", "off"),
        ("kind: no", Kind.no),
        ("names: [no, 1:30, 007, on]", ("no", "1:30", "007", "on")),
        ("names: abc", ("abc",)),
        ("words: {on: no}", {"on": "no"}),
        ("source: no", "no"),
        ("source: {type: a, quick: on}", {"type": "a", "quick": True}),
        ("part: {name: off, count: 3}", Part("off", 3)),
        ("part: {number: 3}", Part("a", 3)),
        ("sizes: {on: [96, 64]}", {"on": (96, 64)}),
        ("free: {a: no, 3: [yes, 1_000]}", {"a": False, 3: [True, 1000]}),
        ("quick: on", True),
        ("quick: no", False),
        ("steps: 1_000", 1000),
        ("steps: 0x10", 16),
        ("steps: '5'", 5),
        ("steps: -0", 0),
        ("rate: 1e-4", 1e-4),
        ("rate: 3", 3.0),
    ],
)
def test_a_field_gets_what_was_written(text, value, tmp_path):
    assert of(text, tmp_path, text.partition(":")[0]) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1:30", "steps: '1:30' is a number of base 60 to YAML and would be read as 90"),
        ("steps: 010", "steps: '010' is a number of base 8 .* read as 8; write the decimal number"),
        ("steps: 0b11", "base 2"),
        ("steps: true", "steps takes a number; 'true' is none"),
        ("steps: off", "steps takes a number; 'off' is none"),
        ("rate: 1:30.5", "rate: '1:30.5'"),
        ("rate: yes", "rate takes a number"),
        ("counts: [3, 010]", "counts: '010'"),
        ("sizes: {image: [010, 96]}", "sizes.image: '010'"),
        ("part: {count: 1:30}", "part.count: '1:30'"),
        ("free: {at: {time: 1:30}}", "free.at.time: '1:30' .* or a text in quotes"),
        ("name: [a]", "name takes a text, got"),
        ("name: {a: 1}", "name takes a text, got"),
        ("steps: 5\nsteps: 6", "the key 'steps' is given twice(.|\n)*line 2"),
        ("part: {name: a, count: 1, name: b}", "the key 'name' is given twice"),
        ("name: !!python/name:os.system", "could not determine a constructor"),
        ("name: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("part: !include c.yaml", "includes itself"),
    ],
)
def test_what_reads_otherwise_than_it_looks_is_refused_by_name(text, message, tmp_path):
    with pytest.raises(UsageError, match=f"c.yaml(.|\n)*{message}|^{message}"):
        of(text, tmp_path, "steps")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--name", "no"], "no"),
        (["--part.name", "no"], "no"),
        (["--words.a", "no"], "no"),
        (["--source", "007"], "007"),
        (["--names", "no", "1:30"], ("no", "1:30")),
        (["--words", "{a: no}"], {"a": "no"}),
        (["--quick", "yes"], True),
        (["--quick"], True),
        (["--kind", "no"], Kind.no),
    ],
)
def test_flags_too(words, value):
    key, *inner = words[0].removeprefix("--").split(".")
    held = getattr(parse(Settings, None, words), key)
    for name in inner:
        held = held[name] if isinstance(held, dict) else getattr(held, name)
    assert held == value


@pytest.mark.parametrize("words", [["--steps", "1:30"], ["--steps", "010"], ["--steps"], ["--part.count", "010"]])
def test_flags_that_read_otherwise_are_refused(words):
    with pytest.raises(UsageError, match=f"{words[0]} cannot read"):
        parse(Settings, None, words)


def test_no_flag_may_be_cut_short():
    with pytest.raises(UsageError, match="unknown setting 'ste'. Did you mean 'steps'"):
        parse(Settings, None, ["--ste", "5"])


def test_included_files_keep_their_words_and_may_be_merged(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "part.yaml").write_text("<<: !include more.yaml\nname: no\n")
    (tmp_path / "inner" / "more.yaml").write_text("count: 7\nname: other\n")
    assert of("part: !include inner/part.yaml", tmp_path, "part") == Part("no", 7)
    assert of("one: &a {count: 2}\npart: {<<: *a, name: b}".replace("one", "free"), tmp_path, "part") == Part("b", 2)
    (tmp_path / "inner" / "more.yaml").write_text("<<: !include part.yaml\n")
    with pytest.raises(UsageError, match="part.yaml includes itself"):
        of("part: !include inner/part.yaml", tmp_path, "part")


def test_without_a_class_numbers_of_other_bases_are_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("a: no\nb: {c: 1:30}\n")
    with pytest.raises(UsageError, match="c.yaml: b.c: '1:30'"):
        load(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("a: no\nb: {c: 1}\n")
    assert load(tmp_path / "c.yaml") == {"a": False, "b": {"c": 1}}
    (tmp_path / "c.json").write_text('{"a": 1e-05}')
    assert load(tmp_path / "c.json") == {"a": 1e-5}
