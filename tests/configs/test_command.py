"""A command made from settings is read back as the same settings, for whatever a field may hold."""

from __future__ import annotations

import random
import shlex
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import ClassVar

import pytest

from understudy.configs.command import command_of, words_of
from understudy.configs.parse import parse
from understudy.configs.spec import Window
from understudy.eval.agree.agree import Agree
from understudy.eval.compare.compare import Compare
from understudy.eval.compose.compose import Compose
from understudy.eval.compose.gram import Error
from understudy.eval.demos.demos import Demos
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.grid.grid import Part
from understudy.eval.grid.run import Run
from understudy.eval.inspect.inspect import Inspect
from understudy.eval.offline.estimate import LoggedPolicies
from understudy.eval.offline.fqe import FitSettings
from understudy.policies.learning.train import Train
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig


class Colour(Enum):
    red = "rot"
    blue = "blau"


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 3
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Odd:
    """Every kind of field."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("first", "rest")

    first: str = ""
    rest: tuple[str, ...] = ()
    text: str = "usual"
    number: float = 0.5
    maybe: int | None = 4
    flag: bool = False
    on: bool = True
    path: Path | None = None
    colour: Colour = Colour.red
    inner: Inner = Inner(width=5)
    mixed: dict | str = "pusht"
    numbers: tuple[int, ...] = (1, 2)
    pairs: tuple[tuple[float, float], ...] = ()
    table: dict[str, list] = field(default_factory=dict)


def read(said: str, config_class: type, verb: str):
    words = shlex.split(said)
    assert words[:2] == ["understudy", verb]
    assert len(words) < 3 or not words[2].endswith((".yaml", ".yml")), "would be read as the config"
    return parse(config_class, None, words[2:])


@pytest.mark.parametrize(
    "settings",
    [
        Eval(policy="runs/my run", out="out/x"),
        Eval(policy="a", out="o", world={"type": "pusht", "task": "1", "cameras": {"top": [8, 8]}}, temperature=1e-5),
        Eval(policy="a", resume="o", world="lift", critic="recall", candidates=10, perturb="", alarm="x y.json"),
        Compare(what=("a", "b"), until_decided=True, on="progress", give_up=0.0),
        Compare(what=("a.yaml", "b"), alpha=0.001),
        Compose(parents=("a", "b"), out="o", error=Error.x0, control=("--odd", "[1]"), search="grid"),
        Inspect(policy=("a", "$RUN"), world="point", keys=True, record=Path("r.json")),
        Inspect(source="data 'quoted'", quality=True),
        Agree(truth=("a", "b"), proxy=("c",), by="progress"),
        Demos(task="point", out="o", noise=0.1),
        LoggedPolicies(policies=("a",), data="d", fit=FitSettings(steps=7, widths=(3, 4)), gamma=0.999),
        Run(out=Path("o"), train=Part(config="t.yaml"), seeds=(0, 1), vary={"a": {"policy.x": [1, 2]}, "b": {}}),
        Train(
            policy=DiffusionConfig(
                n_action_steps=2,
                window=Window(observe=(-2, 0), horizon=4),
                inputs=("observation.state",),
                network=MLPConfig(width=8),
            ),
            data="demos",
            out=Path("run"),
            seed=3,
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_settings_of_a_verb_come_back(settings):
    said = command_of(settings, "verb")
    assert read(said, type(settings), "verb") == settings and "\n" not in said


def test_what_is_as_usual_is_left_out_and_positionals_are_bare():
    assert command_of(Compare(what=("a", "b c")), "compare") == "understudy compare a 'b c'"
    assert command_of(Agree(truth=("a",), proxy=("b",), out="o"), "agree", without=("out",)) == (
        "understudy agree --truth a --proxy b"
    )
    assert words_of(Odd(rest=("x",), flag=True)) == ["--rest", "x", "--flag"], "nothing stands in the place of `first`"
    assert words_of(Odd(inner=Inner())) == ["--inner={}"] and words_of(Odd(on=False)) == ["--on", "false"]
    assert words_of(Odd(first="--a", text="--b")) == ["--first=--a", "--text=--b"]


TEXTS = (
    "",
    "a",
    "007",
    "1e-5",
    "true",
    "~",
    "a b",
    "--a",
    "[1]",
    "{a: 1}",
    "a: b",
    "'",
    '"',
    "$X",
    "#",
    "-",
    "x.yaml",
    "ü",
    "2020-01-01",
)
FLOATS = (0.0, -1.5, 1e-05, 1e300, float("inf"), 0.1 + 0.2)


def drawn(rng: random.Random) -> Odd:
    def some(values, most=3):
        return tuple(rng.choice(values) for _ in range(rng.randrange(most + 1)))

    values = (*TEXTS, *FLOATS, 3, -1, True, None)
    return Odd(
        first=rng.choice(TEXTS),
        rest=some(TEXTS),
        text=rng.choice(TEXTS),
        number=rng.choice(FLOATS),
        maybe=rng.choice((None, -3, 0, 10**20)),
        flag=rng.random() < 0.5,
        on=rng.random() < 0.5,
        path=rng.choice((None, Path("a b/c"), Path("-"), Path("7"))),
        colour=rng.choice(tuple(Colour)),
        inner=Inner(width=rng.randrange(5), rate=rng.choice(FLOATS)),
        mixed=rng.choice((*TEXTS, {}, {name: rng.choice(values) for name in some(TEXTS)}, {"a": {"b": [1, "1"]}})),
        numbers=some((1, -2, 10**9)),
        pairs=((0.0, 1e-05), (-1.0, 2.0))[: rng.randrange(3)],
        table={name: list(some(values)) for name in some(TEXTS)},
    )


def test_whatever_a_field_holds_comes_back():
    rng = random.Random(0)
    for _ in range(500):
        odd = drawn(rng)
        assert read(command_of(odd, "odd"), Odd, "odd") == odd
