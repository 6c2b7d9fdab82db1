"""`understudy new KIND NAME`: a file of one's own that works as it stands, and its test, to begin from.

A template is the source of a thing called `my_thing`, whose names are changed. Both files are new, or nothing is
written.
"""

from __future__ import annotations

import importlib.machinery
import keyword
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDER = ("my_thing", "MyThing")  # of the name, and of its classes
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Kind(Enum):
    """What there are templates of."""

    policy = "policy"
    critic = "critic"
    task = "task"
    robot = "robot"
    world = "world"


@dataclass(frozen=True, kw_only=True)
class New:
    """Write a policy, critic, task, robot or world of your own, working as it stands, and its test: a plug-in."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: Kind  # policy | critic | task (with its expert) | robot | world
    name: str  # lower case, as --policy.type and --plugins will say it; its file is NAME.py
    out: Path = Path(".")  # folder for NAME.py and test_NAME.py; made if need be

    def check_names(self) -> None:
        """Raise ValueError for a name that cannot be one, FileExistsError for a file that is there."""
        refuse_name(self.name)
        if taken := [name for name in registered(self.kind) if name == self.name]:
            raise ValueError(f"{self.kind.value} '{taken[0]}' is there already; give yours another name")
        for path in files_of(self.name, self.folder):
            if path.exists() or path.is_symlink():
                raise FileExistsError(
                    f"'{path}' is there already, and nothing is overwritten; give another NAME or --out"
                )

    @property
    def folder(self) -> Path:
        return Path(os.path.expandvars(self.out)).expanduser()

    def run(self) -> None:
        made = files_of(self.name, self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_new(dict(zip(made, sources(self.kind, self.name), strict=True)))
        print(f"made    {made[0]} and {made[1].name}: a {self.kind.value} that works as it stands")
        if self.folder.resolve() != Path.cwd():
            print(f"in      cd {self.folder}")
        print(f"check   pytest {made[1].name}")
        print(f"use     {TRY[self.kind].format(name=self.name)}")


TRY = {
    Kind.policy: "understudy train --plugins {name} --policy.type {name} --data DATA --out runs/{name}",
    Kind.critic: "understudy train --plugins {name} --critic.type {name} --data DATA --out runs/{name}",
    Kind.task: "understudy demos {name} --plugins {name} --episodes 10 --out out/{name}",
    Kind.robot: "understudy doctor --plugins {name} --robot {name}",
    Kind.world: "understudy demos {name} --plugins {name} --episodes 10 --out out/{name}",
}


def files_of(name: str, folder: Path) -> tuple[Path, Path]:
    """Where the thing and its test go."""
    return folder / f"{name}.py", folder / f"test_{name}.py"


def sources(kind: Kind, name: str) -> tuple[str, str]:
    """The text of the thing and of its test."""
    named = dict(zip(PLACEHOLDER, (name, class_name(name)), strict=True))
    texts = [(TEMPLATES / f"{stem}.py.txt").read_text(encoding="utf-8") for stem in (kind.value, f"test_{kind.value}")]
    changed = [re.sub("|".join(named), lambda found: named[found[0]], text) for text in texts]
    return changed[0], changed[1]


def write_new(texts: Mapping[Path, str]) -> None:
    """Write all files, or none. Raises FileExistsError for one that is there."""
    written: list[Path] = []
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except BaseException:
        for path in written:
            path.unlink()
        raise


def class_name(name: str) -> str:
    """`GripperTwo` of `gripper_two`."""
    return "".join(part.capitalize() for part in name.split("_"))


def refuse_name(name: str) -> None:
    """Raise ValueError unless a module, flags and classes may be called so."""
    if not NAME.fullmatch(name):
        said = "_".join(part for part in re.split(r"[^a-z0-9]+", name.strip().lower()) if part)
        hint = f", for example {said}" if NAME.fullmatch(said) else ""
        raise ValueError(f"'{name}' cannot name a plug-in: small letters, digits and _ alone, a letter first{hint}")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ValueError(f"'{name}' is a word of Python's; give another name, for example my_{name}")
    if name.startswith("test_") or name == "conftest":
        raise ValueError(f"'{name}' is a name of tests; give another one, without test_")
    if name in sys.stdlib_module_names or importlib.machinery.PathFinder.find_spec(name) is not None:
        raise ValueError(
            f"'{name}' is the name of a package of this Python, which --plugins would find in its place;"
            f" give another name, for example my_{name}"
        )


def registered(kind: Kind) -> Collection[str]:
    """Names that are taken, imported or not; torch is not needed."""
    return _TAKEN[kind]()


def _policies() -> Collection[str]:
    from ...configs.settings.outline import registered_names
    from ...policies.kinds import PolicyConfig

    return registered_names(PolicyConfig)


def _critics() -> Collection[str]:
    from ...configs.settings.outline import registered_names
    from ...policies.kinds import CriticConfig

    return registered_names(CriticConfig)


def _robots() -> Collection[str]:
    from ...configs.settings.outline import registered_names
    from ...hardware.robot import RobotConfig

    return registered_names(RobotConfig)


def _worlds() -> Collection[str]:
    from ...configs.plugins import discover
    from ...configs.world import KINDS, MARKS, WORLDS, World

    discover(*KINDS, having=MARKS)
    return {*WORLDS, *World.get_known_choices()}


_TAKEN: dict[Kind, Callable[[], Collection[str]]] = {
    Kind.policy: _policies,
    Kind.critic: _critics,
    Kind.task: _worlds,
    Kind.robot: _robots,
    Kind.world: _worlds,
}
