"""What is registered: `understudy list` shows all kinds, `understudy list KIND` one of them."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.plugins import discover, lookup
from ...configs.settings.shipped import find_config, shipped_configs
from .studies import studies

WIDTH = 20  # columns of a name; longer ones have twice as many


@dataclass(frozen=True, kw_only=True)
class List:
    """List the registered policies, critics, worlds, tasks, experts, robots and models, configs, studies and verbs."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("kind",)

    kind: str = "all"  # policies critics worlds tasks experts robots models configs studies verbs | all: what is listed
    only: str = ""  # with tasks or experts: names, separated by commas
    sheet: str = ""  # with tasks: a PNG to write, with a picture of each
    measure: int = 0  # with experts: measures them from this many initial conditions first, and remembers it
    records: str = ""  # folder of what was measured; default the one that came with the package
    workers: int = 0  # processes that measure; 0: this one

    def check_names(self) -> None:
        """Raise LookupError for a kind of things that there is not."""
        lookup("kind", self.kind, dict.fromkeys([*KINDS, "all"]))

    def run(self) -> None:
        for name, kind in (("sheet", "tasks"), ("measure", "experts")):
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f"--{name} belongs to `understudy list {kind}`")
        if self.kind in ("tasks", "experts"):
            return self._stages()
        kinds = list(KINDS) if self.kind == "all" else [self.kind]
        for kind in kinds:
            registered = KINDS[kind]()
            if len(kinds) > 1:
                print(f"{kind}:")
            print("\n".join(_line(name, registered[name]) for name in sorted(registered)) or "  (none registered)")

    def _stages(self) -> None:
        """Tasks or experts, with what is known of them."""
        from . import stages

        worlds = stages.simulated() if self.kind == "tasks" else stages.demonstrated()
        names = [name.strip() for name in self.only.split(",")] if self.only else sorted(worlds)
        chosen = {name: lookup(self.kind[:-1], name, worlds) for name in names}
        folder = stages.folder_of(self.records)
        for name in chosen if self.measure else ():
            stages.remember(name, self.measure, self.workers, folder)
        show = stages.describe_task if self.kind == "tasks" else stages.describe_expert
        print("\n".join(show(name, world, folder) for name, world in chosen.items()) or "  (none registered)")
        if self.sheet:
            print(stages.draw(chosen, self.sheet, folder))


def policies() -> Mapping[str, object]:
    discover("policies")
    from ...policies.policy import PolicyConfig

    return PolicyConfig.get_known_choices()


def critics() -> Mapping[str, object]:
    discover("policies")
    from ...policies.policy import CriticConfig

    return CriticConfig.get_known_choices()


def worlds() -> Mapping[str, object]:
    """Registered name -> its defaults, and the types that a world's YAML may name."""
    discover("sim", "world_models", "hardware")
    from ...configs.world import WORLDS, World

    named = {name: f"type {world.get_choice_name(type(world))}, task {world.task}" for name, world in WORLDS.items()}
    types = {f"type: {name}": world for name, world in World.get_known_choices().items()}
    return named | types


def tasks() -> Mapping[str, object]:
    from .stages import simulated, summary

    return {name: summary(world) for name, world in simulated().items()}


def experts() -> Mapping[str, object]:
    discover("sim")
    from ...sim.experts import EXPERTS

    return EXPERTS


def robots() -> Mapping[str, object]:
    discover("hardware")
    from ...hardware.lerobot_devices import names_of
    from ...hardware.robot import RobotConfig

    theirs = {name: "of lerobot's, through its own driver" for name in names_of("robots")}
    return theirs | RobotConfig.get_known_choices()


def models() -> Mapping[str, object]:
    discover("world_models")
    from ...world_models.world import WorldModelConfig

    return WorldModelConfig.get_known_choices()


def configs() -> Mapping[str, object]:
    """Shipped config -> what its first lines say of it."""
    return {name: _first_comment(find_config(name)) for name in shipped_configs()}


def _first_comment(file: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
    text = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<=[.:]) ", text, maxsplit=1)[0].rstrip(".:")


def verbs() -> Mapping[str, object]:
    from ...__main__ import VERBS

    return {verb: help_line for verb, (_, help_line) in VERBS.items()}


_FUNCTIONS = (policies, critics, worlds, tasks, experts, robots, models, configs, studies, verbs)
KINDS: dict[str, Callable[[], Mapping[str, object]]] = {function.__name__: function for function in _FUNCTIONS}


def _line(name: str, what: object) -> str:
    width = WIDTH if len(name) <= WIDTH else 2 * WIDTH
    return f"  {name:<{width}} {what if isinstance(what, str) else _first_line(what)}".rstrip()


def _first_line(what: object) -> str:
    """The first line of the docstring that the class itself wrote (a dataclass without one gets its signature)."""
    owner = what if isinstance(what, type) or inspect.isfunction(what) else type(what)
    text = inspect.cleandoc(owner.__doc__ or "").partition("\n")[0]
    return "" if text.startswith(f"{owner.__name__}(") else text
